"""What a user may get wrong in one environment or allocation: which field is named, and with which
remedy."""

from datetime import timedelta
from typing import Any

import pytest

from intertie.common.spec import (
    AvailabilityTerm,
    BandwidthTerm,
    Contextualization,
    DiskTerm,
    OnIsolation,
    OnLinkLoss,
)
from tests.unit.common.builders import (
    SSH_KEY,
    Change,
    check_refused,
    check_taken,
    in_allocation,
    in_environment,
    named,
)

A, E = "spec.groups[1].allocation", "spec.groups[1].environment"
KEYS = f"{E}.contextualization.ssh_authorized_keys"


def in_context(**fields: Any) -> Change:
    return in_environment(contextualization=Contextualization(**fields))


WRONG: list[tuple[str, Change, str, str]] = [
    # allocation
    ("no vCPU", in_allocation(vcpus=0), f"{A}.vcpus", "from 1 to 256"),
    ("negative vCPUs", in_allocation(vcpus=-2), f"{A}.vcpus", "from 1 to 256"),
    ("257 vCPUs", in_allocation(vcpus=257), f"{A}.vcpus", "from 1 to 256"),
    ("15 MiB", in_allocation(memory_mib=15), f"{A}.memory_mib", "from 16"),
    ("over 16 TiB", in_allocation(memory_mib=2**24 + 1), f"{A}.memory_mib", "16777216 MiB"),
    ("no disk", in_allocation(disk_mib=0), f"{A}.disk_mib", "from 1"),
    ("over 1 PiB", in_allocation(disk_mib=2**30 + 1), f"{A}.disk_mib", "1073741824 MiB"),
    (
        "absurd IOPS",
        in_allocation(disk=DiskTerm(guarantee_iops=10**7 + 1)),
        f"{A}.disk.guarantee_iops",
        "10000000",
    ),
    ("negative IOPS", in_allocation(disk=DiskTerm(cap_iops=-1)), f"{A}.disk.cap_iops", "from 0"),
    (
        "IOPS cap below guarantee",
        in_allocation(disk=DiskTerm(guarantee_iops=200, cap_iops=100)),
        f"{A}.disk.cap_iops",
        "raise it",
    ),
    (
        "throughput cap below guarantee",
        in_allocation(disk=DiskTerm(guarantee_mib_s=20, cap_mib_s=10)),
        f"{A}.disk.cap_mib_s",
        "raise it",
    ),
    (
        "absurd throughput",
        in_allocation(disk=DiskTerm(guarantee_mib_s=10**9)),
        f"{A}.disk.guarantee_mib_s",
        "1000000",
    ),
    (
        "absurd Mbit/s",
        in_allocation(nic=BandwidthTerm(guarantee_mbit_s=10**6 + 1)),
        f"{A}.nic.guarantee_mbit_s",
        "1000000",
    ),
    (
        "negative Mbit/s",
        in_allocation(nic=BandwidthTerm(guarantee_mbit_s=-1)),
        f"{A}.nic.guarantee_mbit_s",
        "from 0",
    ),
    (
        "NIC cap below guarantee",
        in_allocation(nic=BandwidthTerm(guarantee_mbit_s=20, cap_mbit_s=10)),
        f"{A}.nic.cap_mbit_s",
        "raise it",
    ),
    (
        "STOP without after",
        in_allocation(availability=AvailabilityTerm(on_isolation=OnIsolation.STOP)),
        f"{A}.availability.stop_after",
        "more than 0 s",
    ),
    (
        "MOVE without REPLACE",
        in_allocation(availability=AvailabilityTerm(on_link_loss=OnLinkLoss.MOVE)),
        f"{A}.availability.on_link_loss",
        "on_site_loss: REPLACE",
    ),
    (
        "after without STOP",
        in_allocation(availability=AvailabilityTerm(stop_after=timedelta(hours=1))),
        f"{A}.availability.stop_after",
        "leave it out",
    ),
    # environment
    ("no image", in_environment(image=""), f"{E}.image", "name an image"),
    ("image no label", in_environment(image="My Image"), f"{E}.image", "a-z"),
    ("image digest cut", in_environment(image="b3:12"), f"{E}.image", "64"),
    ("no architecture", in_environment(architecture="x86 64"), f"{E}.architecture", "x86_64"),
    ("unknown hypervisor", in_environment(hypervisor="vmware"), f"{E}.hypervisor", "kvm"),
    ("an offset", in_environment(timezone="+02:00"), f"{E}.timezone", "Europe/Vienna"),
    ("a path", in_environment(timezone="../etc/shadow"), f"{E}.timezone", "or `UTC`"),
    ("a city", in_environment(timezone="Los Angeles"), f"{E}.timezone", "leave it out"),
    ("a long zone", in_environment(timezone="a" * 65), f"{E}.timezone", "Europe/Vienna"),
    (
        "ready before it starts",
        in_environment(ready_within=-timedelta(seconds=1)),
        f"{E}.ready_within",
        "more than 0 s",
    ),
    (
        "ready some day",
        in_environment(ready_within=timedelta(hours=24, seconds=1)),
        f"{E}.ready_within",
        "at most 24 hours",
    ),
    (
        "user data too long",
        in_context(user_data=b"x" * (16 * 1024 + 1)),
        f"{E}.contextualization.user_data",
        "at most 16384",
    ),
    ("no key", in_context(ssh_authorized_keys=("hello",)), f"{KEYS}[0]", "ssh-ed25519"),
    (
        "two keys in a line",
        in_context(ssh_authorized_keys=(SSH_KEY, f"{SSH_KEY}\n{SSH_KEY}")),
        f"{KEYS}[1]",
        "one line",
    ),
    (
        "key of another type",
        in_context(ssh_authorized_keys=(SSH_KEY.replace("ssh-ed25519", "ssh-rsa"),)),
        f"{KEYS}[0]",
        "public key",
    ),
    (
        "a private key",
        in_context(ssh_authorized_keys=("-----BEGIN OPENSSH PRIVATE KEY-----",)),
        f"{KEYS}[0]",
        "public key",
    ),
]


@pytest.mark.parametrize(("change", "field", "remedy"), named(WRONG))
def test_is_refused(change: Change, field: str, remedy: str) -> None:
    check_refused(change, field, remedy)


RIGHT: list[tuple[str, Change]] = [
    ("smallest", in_allocation(vcpus=1, memory_mib=16, disk_mib=1)),
    ("largest", in_allocation(vcpus=256, memory_mib=2**24, disk_mib=2**30)),
    ("a digest", in_environment(image="b3:" + "0f" * 32)),
    ("a zone", in_environment(timezone="America/Argentina/Buenos_Aires")),
    ("a zone without an area", in_environment(timezone="EST5EDT")),
    ("a zone by offset", in_environment(timezone="Etc/GMT-14")),
    ("a day until it is ready", in_environment(ready_within=timedelta(hours=24))),
    ("user data at its most", in_context(user_data=b"x" * 16 * 1024)),
    ("a key", in_context(ssh_authorized_keys=(SSH_KEY, SSH_KEY.rsplit(" ", 1)[0]))),
]


@pytest.mark.parametrize("change", named(RIGHT))
def test_is_taken_and_stays_right_when_normalised(change: Change) -> None:
    check_taken(change)
