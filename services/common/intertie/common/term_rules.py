"""What may be asked for in one environment and one allocation; and what all rules refuse with."""

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache

from intertie.common.errors import FieldInvalid
from intertie.common.names import check_label, is_digest
from intertie.common.terms import (
    Allocation,
    AvailabilityTerm,
    BandwidthTerm,
    DiskTerm,
    Environment,
    OnIsolation,
    OnLinkLoss,
    OnSiteLoss,
)
from intertie.common.values import replace

MAX_VCPUS = 256
MIN_MEMORY_MIB, MAX_MEMORY_MIB = 16, 16 * 1024 * 1024
MAX_DISK_MIB = 1024 * 1024 * 1024
MAX_IOPS = 10_000_000
MAX_DISK_MIB_S = 1_000_000
MAX_MBIT_S = 1_000_000
MAX_USER_DATA = 16 * 1024
MAX_SSH_KEYS = 100
MAX_STOP_AFTER = timedelta(days=7)
MAX_TIMEZONE = 64
KEPT = 256
"""Sizes that are known to be in order: the same few are asked for again and again. Only what is
small whoever asks is kept."""
MAX_READY_WITHIN = timedelta(hours=24)
HYPERVISORS = ("any", "kvm", "qemu", "xen", "lxc")

_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")
_TIMEZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}")
_SSH_KEY = re.compile(
    r"((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: [^\x00-\x1f\x7f]*)?"
)


def check_range(value: int, least: int, most: int, field: str, unit: str) -> None:
    """Refuses what is not from `least` to `most`, both included."""
    if not least <= value <= most:
        of = f" {unit}" if unit else ""
        raise FieldInvalid(field, f"is {value}; must be from {least} to {most}{of}")


def check_unique(names: Sequence[str], field: str, member: str) -> None:
    """Refuses a name that is there twice; `member` is what of an entry of `field` has it."""
    seen: set[str] = set()
    for position, name in enumerate(names):
        if name in seen:
            at = f"{field}[{position}].{member}" if member else f"{field}[{position}]"
            raise FieldInvalid(at, f"{name!r} is there already; give each another name")
        seen.add(name)


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """In words, with what there is."""
    if not known:
        return f"{name!r} is no {kind}: there is none"
    some = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
    return f"{name!r} is no {kind}; known: {some}"


def check_image(text: str, field: str) -> None:
    """By name or digest."""
    if not text:
        raise FieldInvalid(field, "is missing; name an image, like `intertie-guest`")
    if not text.startswith("b3:"):
        check_label(text, field)
    elif not is_digest(text):
        raise FieldInvalid(field, "is no digest; write `b3:` and 64 lower-case hexadecimal digits")


def check_environment(environment: Environment, field: str) -> None:
    """An environment names an image, by name or digest, and what it needs of a host."""
    check_image(environment.image, f"{field}.image")
    if environment.architecture and not _ARCHITECTURE.fullmatch(environment.architecture):
        raise FieldInvalid(
            f"{field}.architecture",
            f"{environment.architecture!r} is none; write one like `x86_64`, or leave it out",
        )
    if environment.hypervisor and environment.hypervisor not in HYPERVISORS:
        raise FieldInvalid(
            f"{field}.hypervisor",
            f"{environment.hypervisor!r} is not known; use one of {', '.join(HYPERVISORS)}",
        )
    _check_timezone(environment.timezone, f"{field}.timezone")
    if not timedelta() <= environment.ready_within <= MAX_READY_WITHIN:
        raise FieldInvalid(
            f"{field}.ready_within", "must be more than 0 s and at most 24 hours; or leave it out"
        )
    context, at = environment.contextualization, f"{field}.contextualization"
    if len(context.user_data) > MAX_USER_DATA:
        raise FieldInvalid(
            f"{at}.user_data",
            f"has {len(context.user_data)} bytes; at most {MAX_USER_DATA} are allowed, "
            "let it fetch the rest",
        )
    if len(context.ssh_authorized_keys) > MAX_SSH_KEYS:
        raise FieldInvalid(
            f"{at}.ssh_authorized_keys",
            f"has {len(context.ssh_authorized_keys)} keys; at most {MAX_SSH_KEYS} are allowed",
        )
    for place, key in enumerate(context.ssh_authorized_keys):
        _check_ssh_key(key, f"{at}.ssh_authorized_keys[{place}]")


def check_allocation(allocation: Allocation, field: str) -> None:
    """Sizes are such as one machine can have; no cap is below its guarantee."""
    _check_sizes(allocation if not allocation.pairs else replace(allocation, pairs=()), field)
    for place, pair in enumerate(allocation.pairs):
        at = f"{field}.pairs[{place}]"
        check_label(pair.group, f"{at}.group")
        if pair.network:
            check_label(pair.network, f"{at}.network")
        check_bandwidth(pair.bandwidth, f"{at}.bandwidth")
        if not pair.bandwidth.guarantee_mbit_s:
            raise FieldInvalid(
                f"{at}.bandwidth.guarantee_mbit_s",
                "is missing; a pair without a promise is left out",
            )


@lru_cache(maxsize=KEPT)
def _check_sizes(allocation: Allocation, field: str) -> None:
    """Of one without pairs."""
    check_range(allocation.vcpus, 1, MAX_VCPUS, f"{field}.vcpus", "vCPUs")
    check_range(allocation.memory_mib, MIN_MEMORY_MIB, MAX_MEMORY_MIB, f"{field}.memory_mib", "MiB")
    check_range(allocation.disk_mib, 1, MAX_DISK_MIB, f"{field}.disk_mib", "MiB")
    check_disk(allocation.disk, f"{field}.disk")
    check_bandwidth(allocation.nic, f"{field}.nic")
    _check_availability(allocation.availability, f"{field}.availability")


def check_bandwidth(term: BandwidthTerm, field: str) -> None:
    check_range(term.guarantee_mbit_s, 0, MAX_MBIT_S, f"{field}.guarantee_mbit_s", "Mbit/s")
    check_range(term.cap_mbit_s, 0, MAX_MBIT_S, f"{field}.cap_mbit_s", "Mbit/s")
    _check_cap(term.guarantee_mbit_s, term.cap_mbit_s, f"{field}.cap_mbit_s")


def check_disk(disk: DiskTerm, field: str) -> None:
    check_range(disk.guarantee_iops, 0, MAX_IOPS, f"{field}.guarantee_iops", "operations a second")
    check_range(disk.cap_iops, 0, MAX_IOPS, f"{field}.cap_iops", "operations a second")
    check_range(disk.guarantee_mib_s, 0, MAX_DISK_MIB_S, f"{field}.guarantee_mib_s", "MiB/s")
    check_range(disk.cap_mib_s, 0, MAX_DISK_MIB_S, f"{field}.cap_mib_s", "MiB/s")
    _check_cap(disk.guarantee_iops, disk.cap_iops, f"{field}.cap_iops")
    _check_cap(disk.guarantee_mib_s, disk.cap_mib_s, f"{field}.cap_mib_s")


def _check_cap(guarantee: int, cap: int, field: str) -> None:
    """A cap is at least its guarantee; 0 stands for a default."""
    if 0 < cap < guarantee:
        raise FieldInvalid(
            field, f"is {cap}, below the guarantee of {guarantee}; raise it, or leave it out"
        )


def _check_availability(term: AvailabilityTerm, field: str) -> None:
    """`stop_after` goes with STOP, and only with it; MOVE goes with REPLACE."""
    at = f"{field}.stop_after"
    if term.on_isolation is OnIsolation.STOP:
        if not timedelta() < term.stop_after <= MAX_STOP_AFTER:
            raise FieldInvalid(at, "must, with STOP, be more than 0 s and at most 7 days")
    elif term.stop_after:
        raise FieldInvalid(at, "goes only with on_isolation STOP; leave it out")
    if term.on_link_loss is OnLinkLoss.MOVE and term.on_site_loss is not OnSiteLoss.REPLACE:
        raise FieldInvalid(
            f"{field}.on_link_loss",
            "MOVE begins anew elsewhere what may go on for a while where it was; say "
            "on_site_loss: REPLACE as well",
        )


def _check_timezone(name: str, field: str) -> None:
    """A name as the tz database has them, or none. Which there are is for the guest's own
    database to say: services of different releases need not agree on it."""
    if name and (len(name) > MAX_TIMEZONE or not _TIMEZONE.fullmatch(name)):
        raise FieldInvalid(
            field,
            f"{name[:MAX_TIMEZONE]!r} is no name of a time zone; write one like `Europe/Vienna` "
            "or `UTC`, or leave it out",
        )


def _check_ssh_key(text: str, field: str) -> None:
    """One line as in authorized_keys, without options: type, base64, comment."""
    match = _SSH_KEY.fullmatch(text)
    if match is not None:
        try:
            blob = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            blob = b""
        kind = match[1].encode()
        if blob.startswith(len(kind).to_bytes(4, "big") + kind):
            return
    raise FieldInvalid(
        field, "is no OpenSSH public key; paste one line like `ssh-ed25519 AAAA… name`"
    )
