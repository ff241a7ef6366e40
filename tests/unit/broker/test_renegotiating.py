"""Other terms for a part of a co-allocation: held, prepared, decided; and what stands meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.decision import (
    Decision,
    OpenedReceipt,
    Outcome,
    Receipt,
    ReceiptBody,
)
from intertie.broker.domain.fleet import SeenPart
from intertie.broker.domain.ledger import calendar_of
from intertie.broker.domain.part import AMEND_NEXT, AmendState, NetworkId, Part, PartState
from intertie.broker.domain.ports import Caller
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.domain.replacing import Replaced, without
from intertie.broker.loops.expire import Expire
from intertie.broker.loops.in_doubt import InDoubt
from intertie.broker.loops.reconcile import Reconcile
from intertie.broker.usecases.admission import Admission
from intertie.broker.usecases.hold_amend import HoldAmend
from intertie.broker.usecases.hold_part import HoldOrder, HoldPart
from intertie.broker.usecases.prepare_part import PreparePart
from intertie.broker.usecases.release_part import ReleasePart
from intertie.broker.usecases.resolve_part import ResolvePart, Terms
from intertie.common.errors import (
    AmendPending,
    DecisionInvalid,
    DecisionPending,
    DomainError,
    FieldInvalid,
    HoldExpired,
    NoCapacity,
    PartOver,
    RoleDenied,
    TermsStale,
)
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.spec import DiskTerm
from intertie.common.terms import AvailabilityTerm, OnHostLoss
from intertie.common.values import replace
from tests.fakes.clock import START, FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import COORDINATOR, POLICY, facts, part, part_spec, workspace
from tests.unit.broker.test_passes import OneImage, Register

META = Caller(spiffe=COORDINATOR, tenant="")
HOUR = timedelta(hours=1)
WINDOW = Window(START, START + HOUR)
LAN = (NetworkId(network="lan", vni=4096),)
PART = part("t1", spec=part_spec(workspace(), window=WINDOW), create_time=START, network_ids=LAN)


def terms(count: int = 1, hours: float = 1, **allocation: Any) -> PartSpec:
    each = [workspace(index=number, **allocation) for number in range(count)]
    return part_spec(*each, window=Window(START, START + hours * HOUR))


class Notary:
    """Receipts are what is in them."""

    def __init__(self) -> None:
        self.signed: list[ReceiptBody] = []

    def sign(self, body: ReceiptBody) -> Receipt:
        self.signed.append(body)
        return Receipt(body=str(len(self.signed) - 1).encode(), signature=b"", certificate=b"")

    def open(self, receipt: Receipt) -> OpenedReceipt:
        body = self.signed[int(receipt.body)]
        return OpenedReceipt(signer=body.site, body=body)


class Site:
    def __init__(self, standing: Part = PART) -> None:
        self.clock, self.ledger, self.notary = FakeClock(), MemoryLedger(POLICY), Notary()
        self.register = Register()
        self.standing = standing
        ledger, clock, notary = self.ledger, self.clock, self.notary
        admission = Admission(ledger, clock)
        self._hold = HoldAmend(ledger, OneImage(), admission, notary, POLICY, clock)
        self._hold_part = HoldPart(
            ledger, OneImage(), admission, notary, POLICY, clock, lambda: "seed"
        )
        self._prepare = PreparePart(ledger, notary, POLICY, clock)
        self._resolve = ResolvePart(ledger, notary, clock)
        self._release = ReleasePart(ledger, clock)
        self.expire = Expire(ledger, clock)
        self.in_doubt = InDoubt(ledger, self.register, self._resolve, clock)
        self.reconcile = Reconcile(ledger, POLICY, clock)

    async def up(self) -> Site:
        self.alive()
        await self.ledger.commit(Change(writes=(Write(record=self.standing),)))
        return self

    def alive(self) -> None:
        for host in ("n1", "n2"):
            self.ledger.report(facts(host, report_time=self.clock.now()))

    async def part(self) -> Part:
        found = await self.ledger.part(self.standing.path)
        assert found is not None
        return found.value

    def order(self, spec: PartSpec, tx: str = "a1", **changes: Any) -> HoldOrder:
        now = self.clock.now()
        order = HoldOrder(
            name=self.standing.path,
            spec=spec,
            tx=tx,
            digest=f"d-{tx}",
            ttl=timedelta(seconds=30),
            coordinator=COORDINATOR,
            participants=("north", "south"),
            decide_by=now + timedelta(seconds=20),
            coordinator_time=now,
            owner="alice",
            request=RequestKey(caller=COORDINATOR, request_id=tx, digest=repr(spec)),
            prepare=True,
            replaces=0,
        )
        return replace(order, **changes)

    async def hold(self, spec: PartSpec, tx: str = "a1", **changes: Any) -> ReceiptBody:
        order = self.order(spec, tx, **changes)
        _, receipt = await (self._hold if order.amends else self._hold_part)(order, META)
        return self.notary.open(receipt).body

    async def prepare(self, tx: str = "a1") -> ReceiptBody:
        _, receipt = await self._prepare(self.standing.path, META, tx)
        return self.notary.open(receipt).body

    async def release(self, tx: str = "") -> Part:
        return await self._release(self.standing.path, "", META, tx)

    def commit_of(self, tx: str = "a1", number: int = 1, **south: Any) -> Decision:
        """With the last receipt that was signed here, and south's."""
        ours = next(
            each for each in reversed(self.notary.signed) if (each.tx, each.site) == (tx, "north")
        )
        theirs = replace(ours, site="south", part="sites/south/tenants/demo/parts/t1")
        signed = (
            self.notary.sign(replace(ours, state=PartState.PREPARED, terms=number)),
            self.notary.sign(replace(theirs, state=PartState.PREPARED, terms=number, **south)),
        )
        return Decision(
            tx=tx,
            outcome=Outcome.COMMIT,
            digest=f"d-{tx}",
            receipts=signed,
            decided_by=COORDINATOR,
        )

    async def resolve(self, decision: Decision, terms: Terms | None = None) -> Part:
        return await self._resolve(self.standing.path, decision, META, terms)

    async def commit(self, tx: str = "a1", number: int = 1) -> Part:
        return await self.resolve(self.commit_of(tx, number))

    async def shrink(self, spec: PartSpec, tx: str = "s1", base: int = 0) -> Part:
        decision = Decision(tx=tx, outcome=Outcome.COMMIT, digest=f"d-{tx}", decided_by=COORDINATOR)
        return await self.resolve(decision, Terms(replaces=base, spec=spec))

    async def vcpus(self, at: timedelta = timedelta()) -> int:
        """That are counted on all hosts at that moment from the start."""
        calendar = calendar_of(await self.ledger.view(), POLICY)
        moment = Window(START + at, START + at + timedelta(microseconds=1))
        return sum(calendar.peak(f"host/{host}/vcpus", moment) for host in ("n1", "n2"))

    async def wanted(self) -> dict[str, int]:
        """How many workspaces each host is told of."""
        for _ in range(3):
            await self.reconcile.sweep()
        return {host: len(each.workspaces) for (host, _), each in self.ledger.wanted.items()}

    def obey(self) -> None:
        for (host, uid), each in self.ledger.wanted.items():
            generation = each.generation
            self.ledger.see(
                SeenPart(
                    host=host,
                    part_uid=uid,
                    generation=generation,
                    obeyed_generation=generation,
                    gone=each.gone,
                )
            )


ABORT = Decision(tx="a1", outcome=Outcome.ABORT, decided_by="whoever")


async def test_growth_is_counted_beside_what_stands_and_no_host_hears_of_it() -> None:
    site = await Site().up()
    before = await site.wanted()
    receipt = await site.hold(terms(3, hours=2))
    part = await site.part()
    assert (receipt.state, receipt.terms, receipt.tx) == (PartState.PREPARED, 1, "a1")
    assert (part.state, part.terms, part.spec) == (PartState.CONFIRMED, 0, PART.spec)
    assert [await site.vcpus(), await site.vcpus(1.5 * HOUR)] == [3, 3]
    assert await site.wanted() == before
    assert part.amend is not None
    assert part.amend.placed[0] == PART.placed[0]


async def test_commit_puts_the_new_terms_in_force_and_hosts_are_told() -> None:
    site = await Site().up()
    await site.wanted()
    await site.hold(terms(3, hours=2))
    part = await site.commit()
    assert (part.terms, part.tx, part.amend) == (1, "a1", None)
    assert len(part.spec.workspaces) == 3
    assert part.window.end == START + 2 * HOUR
    assert sum((await site.wanted()).values()) == 3
    assert await site.commit() == await site.part()


@pytest.mark.parametrize("how", ["abort", "expire", "release"])
async def test_what_is_let_go_leaves_the_part_as_it_was(how: str) -> None:
    site = await Site().up()
    before = await site.part()
    await site.hold(terms(3), prepare=how == "abort")
    if how == "abort":
        await site.resolve(ABORT)
    elif how == "expire":
        await site.clock.advance(29)
        await site.expire.sweep()
        assert (await site.part()).amend is not None
        await site.clock.advance(1)
        await site.expire.sweep()
    else:
        await site.release("a1")
        assert await site.release("a1") == before
    assert await site.part() == before
    assert await site.vcpus() == 1
    with pytest.raises(PartOver):
        await site.hold(terms(3), prepare=how == "abort")
    with pytest.raises(PartOver):
        await site.prepare()


async def test_what_is_not_there_is_refused_and_the_old_terms_stand() -> None:
    site = await Site().up()
    with pytest.raises(NoCapacity) as refused:
        await site.hold(terms(1, vcpus=5))
    assert [(each.host, each.wanted, each.available) for each in refused.value.shortfalls] == [
        ("n1", 4, 3)
    ]
    assert await site.part() == PART


async def test_others_do_not_get_what_is_held() -> None:
    site = await Site().up()
    await site.hold(terms(8))
    other = replace(PART.path, part_id="t2")
    with pytest.raises(NoCapacity):
        await site.hold(terms(1), "t2", name=other, replaces=None)
    await site.resolve(ABORT)
    await site.hold(terms(1), "t3", name=replace(other, part_id="t3"), replaces=None)


async def test_what_is_prepared_goes_by_its_decision_alone() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    assert (await site.prepare()).state is PartState.PREPARED
    assert (await site.prepare()).state is PartState.PREPARED
    await site.clock.advance(40)
    await site.expire.sweep()
    for refused in (site.release(), site.release("a1"), site.hold(terms(2), "a2")):
        with pytest.raises(DecisionPending):
            await refused
    await site.in_doubt.sweep()
    assert (site.register.asked, (await site.part()).bound) == (1, True)
    site.register.decision = ABORT
    await site.in_doubt.sweep()
    assert await site.part() == PART


async def test_a_site_asks_only_when_the_time_to_decide_is_over() -> None:
    site = await Site().up()
    await site.hold(terms(2))
    site.register.decision = site.commit_of()
    await site.clock.advance(19)
    await site.in_doubt.sweep()
    assert (await site.part()).terms == 0
    await site.clock.advance(1)
    await site.in_doubt.sweep()
    assert (await site.part()).terms == 1


async def test_in_doubt_it_does_not_end_by_its_window_and_held_growth_does() -> None:
    site = await Site().up()
    await site.hold(terms(1, hours=2), prepare=False, ttl=timedelta(minutes=10))
    assert await site.wanted() == {"n1": 1}
    await site.clock.advance(3601)
    site.alive()
    await site.reconcile.sweep()
    part = await site.part()
    assert (part.end_reason, part.amend) == ("WINDOW_OVER", None)

    site = await Site().up()
    await site.hold(terms(1, hours=2))
    assert await site.wanted() == {"n1": 1}
    await site.clock.advance(3601)
    site.alive()
    await site.reconcile.sweep()
    assert (await site.part()).end_requested_time is None
    late = await site.commit()
    assert (late.terms, late.end_reason) == (1, "WORKSPACE_FAILED")


async def test_an_abort_after_the_old_end_ends_it_by_its_window() -> None:
    site = await Site().up()
    await site.hold(terms(1, hours=2))
    await site.wanted()
    await site.clock.advance(3601)
    await site.resolve(ABORT)
    await site.reconcile.sweep()
    assert (await site.part()).end_reason == "WINDOW_OVER"


async def test_what_a_commit_gives_up_is_free_when_hosts_have_obeyed() -> None:
    site = await Site(replace(PART, spec=terms(1, vcpus=3), generation=0)).up()
    await site.wanted()
    await site.hold(terms(1, vcpus=1, hours=2))
    assert await site.vcpus() == 3
    await site.commit()
    assert [await site.vcpus(), await site.vcpus(1.5 * HOUR)] == [3, 1]
    await site.wanted()
    site.obey()
    await site.wanted()
    assert await site.vcpus() == 1


async def test_of_two_amends_one_is_refused_with_what_its_coordinator_can_do() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    with pytest.raises(AmendPending):
        await site.hold(terms(3), "a2")
    with pytest.raises(AmendPending):
        await site.shrink(terms(1))
    await site.prepare()
    await site.commit()
    with pytest.raises(TermsStale) as stale:
        await site.hold(terms(3), "a2")
    assert (stale.value.replaces, stale.value.terms) == (0, 1)
    with pytest.raises(TermsStale):
        await site.shrink(terms(1), base=2)
    await site.hold(terms(3), "a2", replaces=1)


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (replace(terms(), cluster_uid="another"), FieldInvalid),
        (replace(terms(), window=Window(START + HOUR / 2, START + HOUR)), FieldInvalid),
        (terms(disk_mib=64), FieldInvalid),
        (terms(environment={"timezone": "Europe/Oslo"}), FieldInvalid),
    ],
)
async def test_what_other_terms_may_not_be(spec: PartSpec, error: type[DomainError]) -> None:
    site = await Site().up()
    with pytest.raises(error):
        await site.hold(spec)
    assert await site.part() == PART


async def test_a_part_that_ends_takes_no_terms_and_what_is_held_goes_with_it() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    assert (await site.release()).amend is None
    assert await site.vcpus() == 1
    for refused in (site.hold(terms(2), "a2"), site.prepare(), site.shrink(terms(1))):
        with pytest.raises(PartOver):
            await refused


async def test_a_hold_that_ran_out_is_not_prepared() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    await site.clock.advance(30)
    with pytest.raises(HoldExpired):
        await site.prepare()


async def test_another_coordinator_may_not() -> None:
    site = await Site(replace(PART, coordinator="spiffe://x.intertie/metasched")).up()
    with pytest.raises(RoleDenied):
        await site.hold(terms(2))


async def test_the_same_hold_again_gets_the_same_receipt_also_when_it_is_in_force() -> None:
    site = await Site().up()
    order = site.order(terms(2))
    first = site.notary.open((await site._hold(order, META))[1]).body
    again = site.notary.open((await site._hold(order, META))[1]).body
    assert replace(again, sign_time=first.sign_time) == first
    await site.commit()
    late = site.notary.open((await site._hold(order, META))[1]).body
    assert (late.tx, late.terms, late.state) == ("a1", 1, PartState.PREPARED)


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
