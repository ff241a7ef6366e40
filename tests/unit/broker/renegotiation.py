"""A site with a part of a co-allocation, that is to have other terms."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from intertie.broker.domain.decision import (
    Decision,
    OpenedReceipt,
    Outcome,
    Receipt,
    ReceiptBody,
)
from intertie.broker.domain.fleet import Policy, SeenPart
from intertie.broker.domain.ledger import calendar_of
from intertie.broker.domain.networks import NetworkId
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Caller, Images
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.loops.expire import Expire
from intertie.broker.loops.in_doubt import InDoubt
from intertie.broker.loops.reconcile import Reconcile
from intertie.broker.usecases.admission import Admission
from intertie.broker.usecases.hold_amend import HoldAmend
from intertie.broker.usecases.hold_part import HoldOrder, HoldPart
from intertie.broker.usecases.prepare_part import PreparePart
from intertie.broker.usecases.release_part import ReleasePart
from intertie.broker.usecases.resolve_part import ResolvePart, Terms
from intertie.broker.usecases.sends import SENDS_NOTHING, Sends
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.values import replace
from tests.fakes.clock import START, FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.fakes.room import FakeRoom
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
    def __init__(
        self,
        standing: Part = PART,
        sends: Sends = SENDS_NOTHING,
        images: Images | None = None,
        policy: Policy = POLICY,
    ) -> None:
        images = images or OneImage()
        self.clock, self.ledger, self.notary = FakeClock(), MemoryLedger(policy), Notary()
        self.register = Register()
        self.standing = standing
        ledger, clock, notary = self.ledger, self.clock, self.notary
        admission = Admission(ledger, clock, FakeRoom())
        self._hold = HoldAmend(ledger, images, admission, notary, policy, clock, sends)
        self._hold_part = HoldPart(
            ledger, images, admission, notary, policy, clock, lambda: "seed", sends
        )
        self._prepare = PreparePart(ledger, notary, policy, clock, sends)
        self._resolve = ResolvePart(ledger, notary, policy, clock)
        self._release = ReleasePart(ledger, clock)
        self.expire = Expire(ledger, clock)
        self.in_doubt = InDoubt(ledger, self.register, self._resolve, clock)
        self.reconcile = Reconcile(ledger, policy, clock)

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
