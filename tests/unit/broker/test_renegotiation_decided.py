"""What decisions on other terms a site takes, and what becomes of networks and hosts meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.broker.domain.decision import (
    Decision,
    Outcome,
)
from intertie.broker.domain.part import PartState
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.replacing import Replaced, without
from intertie.broker.domain.terms import AMEND_NEXT, AmendState
from intertie.broker.usecases.resolve_part import Terms
from intertie.common.errors import (
    DecisionInvalid,
)
from intertie.common.part_spec import PartSpec
from intertie.common.spec import DiskTerm
from intertie.common.terms import AvailabilityTerm, OnHostLoss
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker.renegotiation import (
    ABORT,
    HOUR,
    PART,
    WINDOW,
    Site,
    terms,
)
from tests.unit.broker.samples import POLICY, part_spec, workspace


@pytest.mark.parametrize(
    "south",
    [{"terms": 2}, {"terms": 0}, {"digest": "another"}, {"state": PartState.HELD}],
)
async def test_a_commit_takes_receipts_over_these_terms(south: dict[str, Any]) -> None:
    site = await Site().up()
    await site.hold(terms(2))
    decision = site.commit_of()
    theirs = replace(site.notary.signed[-1], **south)
    decision = replace(decision, receipts=(decision.receipts[0], site.notary.sign(theirs)))
    with pytest.raises(DecisionInvalid):
        await site.resolve(decision)
    assert (await site.part()).bound


async def test_a_commit_of_what_is_only_held_or_unheard_of_is_refused() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    with pytest.raises(DecisionInvalid):
        await site.commit()
    await site.resolve(ABORT)
    with pytest.raises(DecisionInvalid):
        await site.commit()


async def test_decisions_of_agreements_before_the_one_in_force_change_nothing() -> None:
    site = await Site().up()
    await site.hold(terms(2))
    first = site.commit_of()
    await site.resolve(first)
    await site.hold(terms(3), "a2", replaces=1)
    part = await site.commit("a2", 2)
    assert await site.resolve(first) == part
    assert await site.resolve(replace(ABORT, tx="never-heard-of")) == part
    assert await site.shrink(terms(1), base=1) == part


async def test_the_short_way_takes_less_only() -> None:
    site = await Site(replace(PART, spec=terms(1, vcpus=3))).up()
    await site.wanted()
    for more in (terms(2, vcpus=3), terms(1, vcpus=4), terms(1, vcpus=3, hours=2)):
        with pytest.raises(DecisionInvalid):
            await site.shrink(more)
    assert (await site.part()).terms == 0
    part = await site.shrink(terms(1, vcpus=2, hours=0.5))
    assert (part.terms, part.tx) == (1, "s1")
    assert part.window.end == START + HOUR / 2
    assert await site.shrink(terms(1, vcpus=2, hours=0.5)) == part
    assert await site.vcpus() == 3
    await site.wanted()
    site.obey()
    await site.wanted()
    assert [await site.vcpus(), await site.vcpus(0.7 * HOUR)] == [2, 0]


async def test_all_workspaces_may_go_and_come_back_where_they_were() -> None:
    site = await Site().up()
    await site.wanted()
    part = await site.shrink(part_spec(window=WINDOW))
    assert (part.spec.workspaces, part.placed) == ((), ())
    assert await site.vcpus() == 1
    assert await site.wanted() == {"n1": 0}
    await site.hold(terms(1), replaces=1)
    back = await site.commit(number=2)
    assert back.placed == PART.placed


async def test_who_decides_the_short_way_is_the_coordinator() -> None:
    site = await Site().up()
    decision = Decision(tx="s1", outcome=Outcome.COMMIT, digest="d", decided_by="another")
    with pytest.raises(DecisionInvalid):
        await site.resolve(decision, Terms(replaces=0, spec=part_spec(window=WINDOW)))


async def test_a_default_that_was_lowered_is_none_of_its_business() -> None:
    """A cap that nobody asked for is as in force, though the operator gives less by now."""
    site = await Site(replace(PART, spec=terms(1, disk=DiskTerm(cap_iops=900, cap_mib_s=10)))).up()
    await site.hold(terms(1, vcpus=2, disk=DiskTerm()))
    part = await site.commit()
    assert part.spec.workspaces[0].allocation.disk == DiskTerm(cap_iops=900, cap_mib_s=100)


async def test_a_network_that_is_new_to_a_part_has_its_id_until_the_part_is_over() -> None:
    wide = part_spec(workspace(), remote=("v-0",), link_mbit_s=10, window=WINDOW)
    site = await Site(replace(PART, network_ids=())).up()
    receipt = await site.hold(wide)
    (endpoint,) = receipt.endpoints
    assert (await site.part()).vni_of("lan") == endpoint.vni
    await site.resolve(ABORT)
    again = await site.hold(wide, "a2")
    assert again.endpoints == receipt.endpoints
    part = await site.commit("a2")
    assert part.gateway == "n1"
    assert [each.site for each in part.remotes] == ["south"]
    over = part.ending(now=START, reason="CANCELLED").move(PartState.ENDED, now=START)
    assert Change(writes=(Write(record=over),)).vnis_given_back() == (endpoint.vni,)


def with_network(spec: PartSpec, name: str) -> PartSpec:
    """One more, with nobody on it."""
    return replace(spec, networks=(*spec.networks, replace(spec.networks[0], name=name)))


async def test_names_that_are_held_and_let_go_take_no_more_ids_than_one_amend_does() -> None:
    """Each had its VXLAN id, and its place in the part's record, until the part was over."""
    site = await Site(replace(PART, network_ids=())).up()
    for number in range(5):
        tx = f"a{number}"
        await site.hold(with_network(terms(), f"net{number}"), tx)
        await site.resolve(replace(ABORT, tx=tx))
    part = await site.part()
    assert [each.network for each in part.network_ids] == ["lan", "net4"]
    assert set((await site.ledger.view()).vnis) == {each.vni for each in part.network_ids}


async def test_an_id_that_hosts_may_use_stays_with_its_part() -> None:
    """In force, or in earlier terms that they have not given up yet."""
    spec = with_network(part_spec(workspace(), workspace(index=1), window=WINDOW), "more")
    site = await Site(replace(PART, network_ids=())).up()
    await site.hold(spec)
    vni = (await site.commit()).vni_of("more")
    await site.wanted()
    shrunk = await site.shrink(terms(), base=1)
    assert [each.name for each in shrunk.shed[0].spec.networks] == ["lan", "more"]
    await site.hold(with_network(terms(), "else"), "a2", replaces=2, prepare=False)
    assert (await site.part()).vni_of("more") == vni
    await site.release("a2")
    await site.wanted()
    site.obey()
    await site.wanted()
    assert (await site.part()).shed == ()
    await site.hold(with_network(terms(), "else"), "a3", replaces=2)
    part = await site.part()
    assert (part.vni_of("more"), part.vni_of("else") > 0) == (0, True)
    assert vni not in (await site.ledger.view()).vnis


async def test_a_part_whose_host_is_lost_is_placed_elsewhere_once_what_is_prepared_is_decided() -> (
    None
):
    """What is only held goes, for it would be on that host too."""
    goes_on = AvailabilityTerm(on_host_loss=OnHostLoss.RESTART)
    site = await Site(replace(PART, spec=terms(1, availability=goes_on))).up()
    await site.hold(terms(2, availability=goes_on), prepare=False)

    async def elsewhere() -> object:
        view = await site.ledger.view()
        return without(await site.part(), {"n1"}, view, POLICY, now=site.clock.now())

    found = await elsewhere()
    assert isinstance(found, Replaced)
    assert (found.part.amend, found.part.hosts()) == (None, ("n2",))
    await site.prepare()
    assert await elsewhere() is None
    await site.resolve(ABORT)
    assert isinstance(await elsewhere(), Replaced)


async def test_a_part_that_joins_has_the_number_of_the_terms_that_it_came_with() -> None:
    site = await Site().up()
    receipt = await site.hold(terms(1), "a1", name=replace(PART.path, part_id="a1"), replaces=2)
    assert receipt.terms == 3
    found = await site.ledger.part(replace(PART.path, part_id="a1"))
    assert found is not None
    assert found.value.terms == 3


def test_what_is_decided_is_decided() -> None:
    assert {state for state, after in AMEND_NEXT.items() if not after} == {
        AmendState.APPLIED,
        AmendState.RELEASED,
        AmendState.EXPIRED,
    }
