"""Parts, hosts and policies for tests, all of one shape unless told otherwise."""

from datetime import UTC, datetime, timedelta
from typing import Any

from intertie.broker.domain.fleet import HostFacts, LinkPolicy, Policy
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.pricing import Flat
from intertie.broker.domain.tariff import Tariff
from intertie.common.intervals import Window
from intertie.common.part_spec import (
    LinkReservation,
    Member,
    PairPromise,
    PartNetwork,
    PartNic,
    PartSpec,
    PartWorkspace,
)
from intertie.common.quantities import Vector
from intertie.common.spec import Allocation, BandwidthTerm, DiskTerm, Environment
from intertie.common.tariff import Rates

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DIGEST = "b3:" + "ab" * 32
COORDINATOR = "spiffe://meta.meta.intertie/metasched"
WHOLE = Vector(
    vcpus=4, memory_mib=2048, disk_mib=8192, iops=2000, throughput_mib_s=400, uplink_mbit_s=400
)
POLICY = Policy(
    site="north",
    hosts=("n1", "n2"),
    default_disk_cap_iops=500,
    default_disk_cap_mib_s=100,
    links=(
        LinkPolicy(
            peer="south", egress_mbit_s=200, ingress_mbit_s=200, latency=timedelta(milliseconds=5)
        ),
    ),
    pricing=Flat(tariff=Tariff(rates=Rates(vcpu_hour=0.04, memory_gib_hour=0.01))),
)


def facts(host: str, **changes: Any) -> HostFacts:
    """A host that has just reported; `n1` is the gateway."""
    number = int(host.removeprefix("n"))
    values: dict[str, Any] = {
        "host": host,
        "capacity": WHOLE,
        "address": f"10.201.0.{10 + number}",
        "agent_address": f"10.201.0.{10 + number}:7402",
        "gateway": number == 1,
        "wide_address": "10.250.0.11" if number == 1 else "",
        "wide_port": 4790 if number == 1 else 0,
        "hypervisors": ("qemu",),
        "architecture": "x86_64",
        "report_time": NOW,
        "mtu": 1500,
        "migrates": True,
        "wide_mtu": 1500 if number == 1 else 0,
    }
    return HostFacts(**{**values, **changes})


def workspace(group: str = "w", index: int = 0, **changes: Any) -> PartWorkspace:
    allocation: dict[str, Any] = {
        "vcpus": 1,
        "memory_mib": 128,
        "disk_mib": 128,
        "disk": DiskTerm(cap_iops=100, cap_mib_s=10),
    }
    more = {key: changes.pop(key) for key in ("max_per_host",) if key in changes}
    environment = Environment(image=DIGEST, **changes.pop("environment", {}))
    return PartWorkspace(
        group=group,
        index=index,
        environment=environment,
        allocation=Allocation(**{**allocation, **changes}),
        nics=(PartNic(network="lan", mac=mac(group, index), address=f"10.1.0.{10 + index}/24"),),
        **more,
    )


def mac(group: str, index: int) -> str:
    return f"02:00:00:00:{ord(group[0]):02x}:{index:02x}"


def part_spec(
    *workspaces: PartWorkspace,
    pairs: tuple[tuple[str, str, int], ...] = (),
    remote: tuple[str, ...] = (),
    link_mbit_s: int = 0,
    window: Window | None = None,
) -> PartSpec:
    """One network `lan` with all workspaces; `remote` are workspaces at south."""
    members = [
        Member(
            workspace=each.label, site="north", mac=each.nics[0].mac, address=each.nics[0].address
        )
        for each in workspaces
    ]
    for number, label in enumerate(remote):
        members.append(
            Member(
                workspace=label,
                site="south",
                mac=f"02:00:00:00:ff:{number:02x}",
                address="10.1.0.99/24",
            )
        )
    return PartSpec(
        cluster="sites/north/tenants/demo/clusters/one",
        cluster_uid="0123456789ab",
        window=window or Window(NOW, NOW + HOUR),
        workspaces=workspaces,
        networks=(
            PartNetwork(
                name="lan",
                subnet="10.1.0.0/24",
                members=tuple(members),
                pairs=tuple(
                    PairPromise(a=a, b=b, bandwidth=BandwidthTerm(guarantee_mbit_s=mbit_s))
                    for a, b, mbit_s in pairs
                ),
            ),
        ),
        links=(
            LinkReservation(
                peer="south", network="lan", egress_mbit_s=link_mbit_s, ingress_mbit_s=link_mbit_s
            ),
        )
        if link_mbit_s
        else (),
    )


def part(part_id: str = "t1", state: PartState = PartState.CONFIRMED, **changes: Any) -> Part:
    """Of a co-allocation with south; its one workspace is on n1."""
    values: dict[str, Any] = {
        "name": f"sites/north/tenants/demo/parts/{part_id}",
        "state": state,
        "spec": part_spec(workspace()),
        "owner": "alice",
        "create_time": NOW,
        "seed": "seed",
        "placed": (Placed(workspace="w-0", host="n1"),),
        "tx": part_id,
        "digest": "d",
        "coordinator": COORDINATOR,
        "participants": ("north", "south"),
        "expire_time": NOW + timedelta(seconds=30) if state is PartState.HELD else None,
        "decide_by": NOW + timedelta(seconds=20),
    }
    return Part(**{**values, **changes})
