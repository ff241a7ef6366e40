"""A coordinator is of another trust domain: what it may not slip into a part."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.intervals import Window
from intertie.common.part_rules import check_over_by, validate_part
from intertie.common.part_spec import (
    HostEntry,
    LinkReservation,
    PairPromise,
    PartNetwork,
    PartSpec,
    PartWorkspace,
    Recallable,
    Transfer,
)
from intertie.common.spec import BandwidthTerm, layout, normalise
from intertie.common.values import replace
from tests.unit.common.builders import NOW, two_groups

Change = Callable[[PartSpec], PartSpec]
DIGEST = "b3:" + "0a" * 32


def part() -> PartSpec:
    spec = normalise(two_groups(), now=NOW)
    site_of = {"head-0": "north", "worker-0": "north", "worker-1": "south"}
    laid = layout("0123456789ab", spec, {"head": 1, "worker": 2}, site_of, "c1")
    head = spec.group("head")
    return PartSpec(
        cluster="metascheds/meta/tenants/demo/clusters/c1",
        cluster_uid="0123456789ab",
        window=Window(NOW, NOW + timedelta(hours=1)),
        workspaces=(
            PartWorkspace(
                group="head",
                index=0,
                environment=replace(head.environment, image=DIGEST),
                allocation=head.allocation,
                nics=laid.nics["head-0"],
            ),
        ),
        networks=(
            PartNetwork(
                name="net",
                subnet="10.1.0.0/24",
                members=laid.members["net"],
                pairs=laid.pairs["net"],
            ),
        ),
        links=(LinkReservation(peer="south", network="net", egress_mbit_s=20, ingress_mbit_s=20),),
        host_entries=laid.host_entries,
        transfers=(
            Transfer(
                digest=DIGEST,
                size_bytes=10_000_000,
                from_site="south",
                to_site="north",
                mbit_s=80,
                window=Window(NOW - timedelta(seconds=1), NOW),
            ),
        ),
    )


def in_workspace(**fields: Any) -> Change:
    return lambda p: replace(p, workspaces=(replace(p.workspaces[0], **fields),))


def in_network(**fields: Any) -> Change:
    return lambda p: replace(p, networks=(replace(p.networks[0], **fields),))


def in_member(**fields: Any) -> Change:
    def change(p: PartSpec) -> PartSpec:
        first, *others = p.networks[0].members
        return in_network(members=(replace(first, **fields), *others))(p)

    return change


def in_link(**fields: Any) -> Change:
    return lambda p: replace(p, links=(replace(p.links[0], **fields),))


def in_transfer(**fields: Any) -> Change:
    return lambda p: replace(p, transfers=(replace(p.transfers[0], **fields),))


def with_entry(address: str, *names: str) -> Change:
    return lambda p: replace(p, host_entries=(HostEntry(address=address, names=names),))


def pair(a: str, b: str, guarantee: int = 1) -> Change:
    term = BandwidthTerm(guarantee_mbit_s=guarantee)
    return in_network(pairs=(PairPromise(a=a, b=b, bandwidth=term),))


N, M, W = "spec.networks[0]", "spec.networks[0].members[0]", "spec.workspaces[0]"

T = "spec.transfers[0]"

WRONG: list[tuple[str, Change, str]] = [
    ("transfer of a name", in_transfer(digest="debian"), f"{T}.digest"),
    ("transfer of nothing", in_transfer(size_bytes=0), f"{T}.size_bytes"),
    ("transfer from nowhere", in_transfer(from_site=""), f"{T}.from_site"),
    ("transfer to itself", in_transfer(to_site="south"), f"{T}.to_site"),
    ("transfer without rate", in_transfer(mbit_s=0), f"{T}.mbit_s"),
    ("transfer too slow", in_transfer(mbit_s=79), f"{T}.mbit_s"),
    (
        "transfer twice",
        lambda p: replace(p, transfers=p.transfers * 2),
        "spec.transfers[1]",
    ),
    (
        "too many transfers",
        lambda p: replace(p, transfers=p.transfers * 65),
        "spec.transfers",
    ),
    (
        "transfers of what may be put aside",
        lambda p: replace(p, recallable=Recallable(keep_for=timedelta(hours=1))),
        "spec.transfers",
    ),
    ("no cluster", lambda p: replace(p, cluster="c1"), "spec.cluster"),
    ("uid", lambda p: replace(p, cluster_uid="a/b"), "spec.cluster_uid"),
    ("network name", in_network(name="../x"), f"{N}.name"),
    ("network twice", lambda p: replace(p, networks=p.networks * 2), "spec.networks[1].name"),
    (
        "more networks than one transaction takes",
        lambda p: replace(
            p, networks=tuple(replace(p.networks[0], name=f"n{n}") for n in range(65))
        ),
        "spec.networks",
    ),
    ("subnet", in_network(subnet="10.1.0.1/24"), f"{N}.subnet"),
    ("member workspace", in_member(workspace="a b"), f"{M}.workspace"),
    ("member site", in_member(site=""), f"{M}.site"),
    ("MAC no MAC", in_member(mac="02:00"), f"{M}.mac"),
    ("MAC of a maker", in_member(mac="00:11:22:33:44:55"), f"{M}.mac"),
    ("MAC of many", in_member(mac="03:11:22:33:44:55"), f"{M}.mac"),
    ("address elsewhere", in_member(address="10.9.0.10/24"), f"{M}.address"),
    ("address without prefix", in_member(address="10.1.0.10"), f"{M}.address"),
    ("address twice", in_member(address="10.1.0.11/24"), f"{N}.members[1].address"),
    ("NIC of another", in_member(address="10.1.0.99/24"), f"{W}.nics[0]"),
    ("pair with a stranger", pair("head-0", "head-9"), f"{N}.pairs[0].b"),
    ("pair with itself", pair("head-0", "head-0"), f"{N}.pairs[0].b"),
    ("pair, absurd", pair("head-0", "worker-0", 10**9), f"{N}.pairs[0].bandwidth.guarantee_mbit_s"),
    ("group", in_workspace(group="Head"), f"{W}.group"),
    ("index", in_workspace(index=-1), f"{W}.index"),
    ("workspace twice", lambda p: replace(p, workspaces=p.workspaces * 2), "spec.workspaces[1]"),
    (
        "image by name",
        lambda p: in_workspace(environment=replace(p.workspaces[0].environment, image="guest"))(p),
        f"{W}.environment.image",
    ),
    (
        "no memory",
        lambda p: in_workspace(allocation=replace(p.workspaces[0].allocation, memory_mib=0))(p),
        f"{W}.allocation.memory_mib",
    ),
    ("NIC twice", lambda p: in_workspace(nics=p.workspaces[0].nics * 2)(p), f"{W}.nics[1].network"),
    ("link network", in_link(network="side"), "spec.links[0].network"),
    ("link negative", in_link(egress_mbit_s=-1), "spec.links[0].egress_mbit_s"),
    ("entry address", with_entry("10.1.0.10/24", "a"), "spec.host_entries[0].address"),
    ("entry of no name", with_entry("10.1.0.10"), "spec.host_entries[0].names"),
    ("entry of two lines", with_entry("10.1.0.1", "a\nb"), "spec.host_entries[0].names[0]"),
]


@pytest.mark.parametrize(
    ("change", "field"), [pytest.param(*case[1:], id=case[0]) for case in WRONG]
)
def test_is_refused(change: Change, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        validate_part(change(part()))
    assert caught.value.field == field


def test_a_part_as_planners_make_it_is_taken() -> None:
    validate_part(part())
    validate_part(replace(part(), workspaces=()))


def test_a_new_transfer_that_is_late_is_refused_and_one_that_is_known_is_not() -> None:
    late = in_transfer(window=Window(NOW, NOW + timedelta(seconds=1)))(part())
    check_over_by(late, late.transfers, NOW + timedelta(seconds=1), "the end")
    check_over_by(late, (), NOW, "the start")
    with pytest.raises(FieldInvalid, match="is not over by the start") as caught:
        check_over_by(late, late.transfers, NOW, "the start")
    assert caught.value.field == f"{T}.window"


def test_what_pairs_take_of_an_uplink() -> None:
    assert part().pair_mbit_s("head-0") == 40
    assert part().pair_mbit_s("worker-0") == 20
    assert part().pair_mbit_s("worker-9") == 0
