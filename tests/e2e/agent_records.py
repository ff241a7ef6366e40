"""Writes the records that a broker would, and reads what agents say, by etcdctl in the site."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from intertie.api.nodeagent.v1 import records_pb2 as pb
from intertie.common.names import mac_of, uid_of
from testbed.bed import Testbed
from testbed.component import environment_of
from testbed.domains import ETCD_ROOT, site_domain

NETWORK = "net"


@dataclass(frozen=True, slots=True)
class SiteRecords:
    """The records of one site of a testbed."""

    testbed: Testbed
    site: str

    def want(self, host: str, part: pb.WantedPart) -> None:
        key = f"wanted/{host}/parts/{part.part_uid}"
        self._etcdctl("put", self._key(key), stdin=part.SerializeToString())

    def unwant(self, host: str, uid: str) -> None:
        self._etcdctl("del", self._key(f"wanted/{host}/parts/{uid}"))

    def seen(self, host: str, uid: str) -> pb.SeenPart | None:
        value = self._get(f"seen/{host}/parts/{uid}")
        return None if value is None else pb.SeenPart.FromString(value)

    def facts(self, host: str) -> pb.HostFacts | None:
        value = self._get(f"seen/{host}/facts")
        return None if value is None else pb.HostFacts.FromString(value)

    def _get(self, key: str) -> bytes | None:
        found = json.loads(self._etcdctl("get", self._key(key), "-w", "json"))
        pairs = found.get("kvs", [])
        return base64.b64decode(pairs[0]["value"]) if pairs else None

    def _key(self, key: str) -> str:
        return f"/intertie/{self.site}/{key}"

    def _etcdctl(self, *words: str, stdin: bytes = b"") -> bytes:
        domain = site_domain(self.testbed.places, self.site)
        credential = domain.etcd_credential(ETCD_ROOT)
        argv = (
            "etcdctl",
            f"--endpoints=https://{self.testbed.topology.ctl_address(self.site)}:2379",
            f"--cacert={domain.etcd_roots}",
            f"--cert={credential.certificate}",
            f"--key={credential.key}",
            *words,
        )
        done = subprocess.run(
            self.testbed.command(f"{self.site}/ctl", argv),
            env=environment_of(self.testbed.places) | {"ETCDCTL_API": "3"},
            input=stdin,
            capture_output=True,
            timeout=20,
            check=True,
        )
        return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A workspace of a part that spans hosts."""

    name: str
    host: str
    number: int

    @property
    def mac(self) -> str:
        return mac_of("cafe", NETWORK, self.name, self.number)

    @property
    def address(self) -> str:
        return f"10.1.0.{10 + self.number}/24"


def workspace_uid(part: str, member: Member) -> str:
    return uid_of(part, member.name)


def wanted_part(
    host: str,
    members: Sequence[Member],
    underlay: dict[str, str],
    *,
    part: str,
    image: str,
    key: str = "",
    generation: int = 1,
    lasts: timedelta = timedelta(hours=1),
    vni: int = 4711,
    guarantee_mbit_s: int = 0,
    cap_mbit_s: int = 0,
    cap_iops: int = 0,
    vcpus: int = 1,
    memory_mib: int = 128,
    disk_mib: int = 256,
) -> pb.WantedPart:
    """What the host is to do for a part: its own members, and tunnels to the others."""
    now = datetime.now(UTC)
    wanted = pb.WantedPart(
        schema=1,
        part=part,
        part_uid=uid_of(part),
        generation=generation,
        cluster="sites/north/tenants/demo/clusters/c",
    )
    wanted.window.start_time.FromDatetime(now - timedelta(seconds=1))
    wanted.window.end_time.FromDatetime(now + lasts)
    network_uid = uid_of("cafe", part)
    network = wanted.networks.add(uid=network_uid, name=NETWORK, vni=vni, mtu=1450)
    local = [member for member in members if member.host == host]
    for other in sorted({member.host for member in members} - {host}):
        tunnel = network.tunnels.add(address=underlay[other])
        tunnel.macs.extend(member.mac for member in members if member.host == other)
    for member in local:
        workspace = wanted.workspaces.add(
            name=member.name, uid=workspace_uid(part, member), nonce=f"nonce-{member.name}"
        )
        workspace.environment.image = image
        if key:
            workspace.environment.contextualization.ssh_authorized_keys.append(key)
        workspace.allocation.vcpus = vcpus
        workspace.allocation.memory_mib = memory_mib
        workspace.allocation.disk_mib = disk_mib
        workspace.allocation.disk.cap_iops = cap_iops
        workspace.nics.add(network_uid=network_uid, mac=member.mac, address=member.address)
        for far in members:
            if far.host == host or not guarantee_mbit_s:
                continue
            pair = network.pairs.add(local_mac=member.mac, remote_mac=far.mac)
            pair.bandwidth.guarantee_mbit_s = guarantee_mbit_s
            pair.bandwidth.cap_mbit_s = cap_mbit_s
            network.uplink_guarantee_mbit_s += guarantee_mbit_s
    for member in members:
        address = member.address.partition("/")[0]
        wanted.host_entries.add(address=address, names=[f"{member.name}.c", member.name])
    return wanted


def eventually(check: Callable[[], bool], what: str, *, within_s: float) -> float:
    """How long it took."""
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"{what}: not within {within_s:g} s")
        time.sleep(0.2)
    return time.monotonic() - began
