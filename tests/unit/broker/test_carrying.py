"""Transfers of images before a part's window, in the ledger of one of their sites."""

from datetime import timedelta

import pytest

from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.difference import more_of
from intertie.broker.domain.link_room import link_shortfalls
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.records import Change, Write
from intertie.broker.usecases.hold_part import needed_here
from intertie.common.calendar import Calendar
from intertie.common.intervals import Window
from intertie.common.part_rules import within
from intertie.common.part_spec import PartSpec, Transfer
from intertie.common.values import replace
from tests.unit.broker.renegotiation import Site
from tests.unit.broker.samples import DIGEST, HOUR, NOW, POLICY, part, part_spec, workspace

S = timedelta(seconds=1)
OTHER = "b3:" + "77" * 32


def transfer(start_s: int, end_s: int, mbit_s: int, **changes: object) -> Transfer:
    """From south to north."""
    values = {
        "digest": DIGEST,
        "size_bytes": 1,
        "from_site": "south",
        "to_site": "north",
        "mbit_s": mbit_s,
        "window": Window(NOW + start_s * S, NOW + end_s * S),
    }
    return Transfer(**{**values, **changes})  # type: ignore[arg-type]


def later(*transfers: Transfer, link_mbit_s: int = 0) -> PartSpec:
    window = Window(NOW + 600 * S, NOW + 600 * S + HOUR)
    spec = part_spec(workspace(), link_mbit_s=link_mbit_s, window=window)
    return replace(spec, transfers=transfers)


def taken(spec: PartSpec, key: str, second: int) -> int:
    calendar = Calendar({}, demands_of(part(spec=spec)))
    at = NOW + second * S
    return calendar.peak(key, Window(at, at + S))


def test_a_transfer_takes_of_its_half_of_the_link_while_it_lasts() -> None:
    spec = later(transfer(100, 200, 30), transfer(150, 300, 20, digest=OTHER), link_mbit_s=5)
    told = [taken(spec, "link/south/ingress", at) for at in (99, 100, 150, 199, 200, 299, 300, 600)]
    assert told == [0, 30, 50, 50, 20, 20, 0, 5]
    assert taken(spec, "link/south/egress", 150) == 0
    assert taken(spec, "host/n1/vcpus", 150) == 0
    assert taken(spec, "host/n1/vcpus", 600) == 1


def test_the_sender_counts_what_it_sends() -> None:
    spec = later(transfer(100, 200, 30, from_site="north", to_site="south"))
    assert taken(spec, "link/south/egress", 100) == 30
    assert taken(spec, "link/south/ingress", 100) == 0


def test_parts_without_transfers_count_as_they_did() -> None:
    assert [each.key for each in demands_of(part(spec=later()))] == [part().name]


@pytest.mark.parametrize(("more", "short"), [(20, []), (21, [71])])
def test_transfers_of_one_part_share_what_is_free(more: int, short: list[int]) -> None:
    policy = replace(POLICY, links=(replace(POLICY.links[0], ingress_mbit_s=70),))
    capacities = {"link/south/ingress": 70, "link/south/egress": 70}
    spec = later(transfer(0, 100, 50), transfer(50, 150, more, digest=OTHER))
    found = link_shortfalls(Calendar(capacities), policy, spec)
    assert [each.wanted for each in found] == short
    assert {each.resource for each in found} <= {"link_ingress"}


def test_a_transfer_that_lasts_into_the_window_shares_the_link_with_what_is_promised() -> None:
    policy = replace(POLICY, links=(replace(POLICY.links[0], ingress_mbit_s=70),))
    capacities = {"link/south/ingress": 70, "link/south/egress": 70}

    def short(end_s: int, mbit_s: int) -> list[tuple[int, int]]:
        spec = later(transfer(500, end_s, mbit_s), link_mbit_s=40)
        found = link_shortfalls(Calendar(capacities), policy, spec)
        return [(each.wanted, each.available) for each in found]

    assert short(600, 70) == short(700, 30) == []
    assert short(700, 31) == [(71, 70)]


def test_a_transfer_from_where_no_link_goes_is_refused() -> None:
    spec = later(transfer(0, 100, 1, from_site="mars"))
    (short,) = link_shortfalls(Calendar({}), POLICY, spec)
    assert (short.resource, short.peer) == ("reachability", "mars")


def test_an_image_that_is_brought_need_not_be_here_and_one_that_is_sent_must() -> None:
    spec = later(
        transfer(0, 100, 1),
        transfer(0, 100, 1, digest=OTHER, from_site="north", to_site="south"),
    )
    assert needed_here(spec, "north") == (OTHER,)
    assert needed_here(later(), "north") == (DIGEST,)


def test_terms_with_another_transfer_are_more() -> None:
    assert within(later(), later(transfer(0, 100, 1)))
    assert not within(later(transfer(0, 100, 2)), later(transfer(0, 100, 1)))


@pytest.mark.parametrize("at", [0, 150, 250, 650])
def test_what_grows_is_looked_for_in_its_window_though_a_transfer_is_before_it(at: int) -> None:
    """A bug: between the transfer and the window nothing is taken, and what the window takes more
    was not seen."""

    def more(*transfers: Transfer) -> dict[int, int]:
        had, has = (
            demands_of(part(spec=replace(later(*transfers), workspaces=(workspace(vcpus=vcpus),))))
            for vcpus in (1, 64)
        )
        calendar = Calendar({})
        for number, each in enumerate(more_of(had, has, since=NOW + at * S)):
            calendar.add(replace(each, key=str(number)))
        seconds = (99, 150, 250, 599, 600, 700, 4199, 4200)
        windows = [(each, Window(NOW + each * S, NOW + (each + 1) * S)) for each in seconds]
        return {each: calendar.peak("host/n1/vcpus", window) for each, window in windows}

    assert more(transfer(100, 200, 1)) == more()
    assert more()[700] == 63


async def test_who_is_added_needs_room_in_the_window_alone() -> None:
    """A bug: hosts that are busy until the window begins got none."""
    start = NOW + 600 * S
    standing = part(spec=later(transfer(100, 200, 1)))
    busy = part("t2", spec=part_spec(workspace(vcpus=3), window=Window(NOW, start)))
    site = await Site(standing).up()
    await site.ledger.commit(Change(writes=(Write(record=replace(busy, create_time=NOW)),)))
    other = replace(busy, placed=(Placed(workspace="w-0", host="n2"),), name=busy.name + "b")
    await site.ledger.commit(Change(writes=(Write(record=other),)))
    more = workspace(index=1, vcpus=3)
    wanted = part_spec(workspace(), more, window=standing.spec.window)
    await site.hold(wanted)
    assert (await site.part()).amend is not None
