"""A site in memory, whose parts move as COMMIT.md has it."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from intertie.common.actions import Action
from intertie.common.clock import Clock
from intertie.common.errors import (
    DecisionInvalid,
    DecisionPending,
    DomainError,
    LedgerFull,
    NameTaken,
    NoCapacity,
    NotFound,
    PartOver,
    Shortfall,
    TermsStale,
)
from intertie.common.guarantees import Measured
from intertie.common.intervals import Window
from intertie.common.names import PartName
from intertie.common.part_rules import within
from intertie.common.part_spec import PROMISED
from intertie.common.price import PriceTerm
from intertie.common.quantities import Vector
from intertie.common.refund import RefundItem
from intertie.common.tariff import Rates, RoomMade
from intertie.common.values import replace
from intertie.common.ways import Way
from intertie.metasched.domain.cluster import PartSeen, WorkspaceSeen, WorkspaceState
from intertie.metasched.domain.commit import Outcome, Receipt
from intertie.metasched.domain.ports import HoldOrder, Terms
from intertie.metasched.domain.problem import HostRoom, ImageFound, LinkRoom, Offer
from tests.fakes.part import COUNTED, GONE, FakeAmend, FakePart, State


class Fault(Enum):
    """What happens to one message."""

    LOSE_REQUEST = "LOSE_REQUEST"
    LOSE_REPLY = "LOSE_REPLY"


@dataclass(frozen=True)
class Late:
    """So long is a message on its way, and the site's clock is ahead: what says a time in it is
    refused."""

    seconds: float
    ahead_s: float = 0.0


RESTORE = timedelta(seconds=5)
"""Going on takes so long at every site."""


@dataclass(slots=True, kw_only=True)
class FakeSite:
    """One host. `hidden_vcpus` are offered and not there: a hold finds out."""

    name: str
    clock: Clock
    vcpus: int = 4
    hidden_vcpus: int = 0
    links: Mapping[str, LinkRoom] = field(default_factory=dict)
    images: Mapping[str, ImageFound] = field(default_factory=dict)
    down: bool = False
    signs_as: str = ""
    """Whose receipts it forges."""
    faults: dict[str, list[Fault | Late | DomainError]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By method: what happens to its next calls, one each."""
    acts: list[tuple[str, Action, tuple[str, ...]]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    parts: dict[str, FakePart] = field(default_factory=dict)
    seen: dict[str, WorkspaceSeen] = field(default_factory=dict)
    """What workspaces report, by label."""
    measured: tuple[Measured, ...] = ()
    """What is told of every part."""
    refunds: tuple[RefundItem, ...] = ()
    """Likewise."""
    ways: tuple[Way, ...] = ()
    """Likewise."""
    asks: float | None = None
    """For every part, whatever was offered; None: nothing is said of prices."""
    asks_for_room: RoomMade | None = None
    """What of that is for room that others make."""
    rates: Rates = field(default_factory=Rates)
    """What it offers at; it says nothing of prices for that."""
    kinds: Mapping[str, Rates] = field(default_factory=dict)
    """What it asks for kinds of leases."""
    quota_vcpus: int = 1_000_000
    """That its policy lets anybody have; offers do not tell it."""
    ledger_full: bool = False
    """Its etcd is short of room."""
    takes_no_lease: bool = False
    """None is short enough for its policy, say."""
    unpromised_vcpus: int = 0
    """That are offered, and that nothing is promised of."""
    saves_in: timedelta | None = None
    """How long it takes to put aside all that may be; None: it puts nobody aside for a hold."""

    def used(self, window: Window | None = None) -> int:
        """By parts that overlap it; by all, without one."""
        return sum(
            part.vcpus()
            for part in self.parts.values()
            if part.state in COUNTED and (window is None or part.overlaps(window))
        )

    def recall(self, end: datetime) -> None:
        """Puts aside all that it may."""
        for part in self.parts.values():
            terms = part.spec.recallable
            if terms is None or part.state is not State.CONFIRMED or part.amend is not None:
                continue
            if not terms.may_be_put_aside:
                continue
            if end >= part.spec.window.end:
                continue
            window = Window(part.spec.window.start, end)
            part.spec, part.recalled_end = replace(part.spec, window=window), end
            part.keep()

    def save(self) -> None:
        """What runs of parts whose windows are over is in memory no more."""
        for part in self.parts.values():
            if part.state is State.CONFIRMED and self.clock.now() >= part.spec.window.end:
                for each in part.spec.workspaces:
                    if (seen := self.seen.get(each.label)) is not None:
                        self.seen[each.label] = replace(seen, state=WorkspaceState.SUSPENDED)

    def in_doubt(self) -> list[str]:
        """Transactions whose parts are prepared past the moment of decision."""
        now = self.clock.now()
        prepared = [each for each in self.parts.values() if each.state is State.PREPARED]
        held = [each.amend for each in self.parts.values() if each.amend]
        return [
            *(each.tx for each in prepared if now >= each.decide_by),
            *(each.tx for each in held if now >= each.decide_by),
        ]

    def offer(self, window: Window, *, before_others: bool = False) -> Offer:
        saved = self._saved() if before_others else None
        used = self.used(window)
        if saved is not None and saved <= window.start:
            used -= self._given_way(window)
        free = max(self.vcpus - used, 0) + self.hidden_vcpus
        room = Vector(
            vcpus=free,
            memory_mib=65536,
            disk_mib=65536,
            iops=10000,
            throughput_mib_s=10000,
            uplink_mbit_s=1000,
        )
        host = HostRoom(free=room, hypervisors=frozenset({"qemu"}))
        return Offer(
            hosts=(host,),
            links=self.links,
            images=self.images,
            rates=self.rates,
            kinds=self.kinds,
            room_from=(saved,) if saved is not None and saved > window.start else (),
        )

    def _price(self, part: FakePart) -> tuple[PriceTerm, ...]:
        if self.asks is None:
            return ()
        window = part.spec.window
        return (
            PriceTerm(site=self.name, window=window, amount=self.asks, room=self.asks_for_room),
        )

    def _may_give_way(self) -> list[FakePart]:
        return [
            each
            for each in self.parts.values()
            if each.spec.recallable is not None
            and each.state is State.CONFIRMED
            and each.amend is None
            and self.clock.now() < each.spec.window.end
        ]

    def _given_way(self, window: Window) -> int:
        """vCPUs of all that may."""
        return sum(each.vcpus() for each in self._may_give_way() if each.overlaps(window))

    def _saved(self) -> datetime | None:
        """When all that may give way could be saved, if there is any."""
        if self.saves_in is None or not self._may_give_way():
            return None
        return self.clock.now() + self.saves_in

    def prepare(self, order: HoldOrder) -> Receipt:
        """Holds and prepares in one step; again, the same."""
        name = str(order.part)
        if order.replaces is not None and order.part.part_id != order.tx:
            return self._prepare_amend(order, order.replaces)
        if (part := self.parts.get(name)) is not None:
            if part.digest != order.digest:
                raise NameTaken(name)
            if part.state is not State.PREPARED:
                raise PartOver(name, part.state.name)
            return self.receipt(order.part)
        wanted = sum(each.allocation.vcpus for each in order.spec.workspaces)
        if self.ledger_full:
            raise LedgerFull(f"{self.name}: 82 of 100 MiB")
        if self.takes_no_lease:
            raise self._short(resource="policy", message="too long")
        if wanted > (left := self.quota_vcpus - self.used()):
            raise self._short(resource="quota_vcpus", wanted=wanted, available=left, unit="vCPU")
        free = self.vcpus - self.used(order.spec.window)
        if wanted > free and (saved := self._saved()) is not None:
            # Whoever fits then makes it: it is one or all.
            window = order.spec.window
            if wanted <= free + self._given_way(window) and saved <= window.start:
                assert self.saves_in is not None
                self.recall(window.start - self.saves_in)
                free = self.vcpus - self.used(window)
        if wanted > free:
            raise self._short(resource="vcpus", wanted=wanted, available=free, unit="vCPU")
        promised = order.spec.recallable.promised if order.spec.recallable else None
        if promised is not None and wanted > (free := self._promisable(promised)):
            raise self._short(resource="vcpus", wanted=wanted, available=free, field=PROMISED)
        self.parts[name] = FakePart(
            state=State.PREPARED,
            spec=order.spec,
            tx=order.tx,
            digest=order.digest,
            decide_by=order.decide_by,
            terms=0 if order.replaces is None else order.replaces + 1,
        )
        return self.receipt(order.part)

    def _short(self, **what: Any) -> NoCapacity:
        return NoCapacity((Shortfall(site=self.name, **what),))

    def _promisable(self, window: Window) -> int:
        return self.vcpus - self.used(window) - self.unpromised_vcpus

    def _prepare_amend(self, order: HoldOrder, replaces: int) -> Receipt:
        part, name = self._part(order.part), str(order.part)
        if part.amend is not None and part.amend.tx == order.tx:
            return self.receipt(order.part)
        if part.state is not State.CONFIRMED or part.ending:
            raise PartOver(name, part.state.name)
        if part.amend is not None:
            raise DecisionPending(name)
        if part.terms != replaces:
            raise TermsStale(name, replaces, part.terms)
        window = order.spec.window
        self._check_window(part, name, window)
        before = self.used(window)
        part.amend = FakeAmend(
            tx=order.tx,
            digest=order.digest,
            replaces=replaces,
            spec=order.spec,
            decide_by=order.decide_by,
        )
        if (wanted := self.used(window)) > self.vcpus:
            part.amend = None
            raise self._short(
                resource="vcpus",
                wanted=wanted - before,
                available=self.vcpus - before,
                unit="vCPU",
            )
        return self.receipt(order.part)

    def _check_window(self, part: FakePart, name: str, window: Window) -> None:
        """One that may be put aside gets a later window once it was, and else no other."""
        if self.clock.now() >= part.ends:
            raise PartOver(name, "ENDING")
        terms = part.spec.recallable
        if terms is None:
            assert window.start == part.spec.window.start
            return
        assert terms.put_aside
        assert window.start >= part.spec.window.end
        if any(
            self.seen.get(each.label, WorkspaceSeen(label="")).state is WorkspaceState.RUNNING
            for each in part.spec.workspaces
        ):
            raise self._short(resource="hosts", message="saving")

    def receipt(self, name: PartName) -> Receipt:
        part = self._part(name)
        amend = part.amend
        facts = {
            "tx": amend.tx if amend else part.tx,
            "digest": amend.digest if amend else part.digest,
            "site": self.name,
            "part": str(name),
            "prepared": part.state is State.PREPARED or amend is not None,
            "terms": amend.replaces + 1 if amend else part.terms,
        }
        return Receipt(
            body=json.dumps(facts).encode(),
            signature=b"signed",
            certificate=(self.signs_as or self.name).encode(),
        )

    def resolve(
        self, name: PartName, outcome: Outcome, tx: str = "", terms: Terms | None = None
    ) -> None:
        part = self._part(name)
        if terms is not None:
            self._take(part, name, tx, terms)
            return
        if tx and tx != part.tx:
            if part.amend is not None and part.amend.tx == tx:
                if outcome is Outcome.COMMIT:
                    part.spec, part.tx = part.amend.spec, tx
                    part.terms, part.digest = part.amend.replaces + 1, part.amend.digest
                    part.keep_until = part.recalled_end = None
                part.amend = None
            return
        if outcome is Outcome.COMMIT:
            if part.state in GONE:
                raise PartOver(str(name), part.state.name)
            if part.state is State.PREPARED:
                part.state = State.CONFIRMED
        elif part.state is State.PREPARED:
            part.state = State.RELEASED
        elif part.state in (State.CONFIRMED, State.ENDED):
            raise DecisionInvalid("a COMMIT was applied before")

    def _take(self, part: FakePart, name: PartName, tx: str, terms: Terms) -> None:
        """Less, for which it was not asked."""
        if tx == part.tx or terms.replaces < part.terms:
            return
        if part.state is not State.CONFIRMED or part.ending:
            raise PartOver(str(name), part.state.name)
        if part.amend is not None:
            raise DecisionPending(str(name))
        if terms.replaces != part.terms:
            raise TermsStale(str(name), terms.replaces, part.terms)
        spec, recalled = terms.spec, part.recalled_end
        late = recalled is not None and spec.window.end > recalled
        spec = replace(spec, window=part.spec.window) if late else spec
        if not within(spec, part.spec):
            raise DecisionInvalid("it takes more")
        part.spec, part.tx, part.terms = spec, tx, part.terms + 1
        part.recalled_end = recalled if late else None
        if part.spec.recallable is not None:
            part.keep()

    def release(self, name: PartName, reason: str) -> None:
        part = self._part(name)
        if part.state is State.PREPARED or part.amend is not None:
            raise DecisionPending(str(name))
        if part.state is State.CONFIRMED and not part.ending:
            part.ending, part.end_reason = True, reason

    def finish(self) -> None:
        """The agents have taken back what is to end, or whose window is over."""
        for part in self.parts.values():
            if part.state is State.CONFIRMED:
                if part.ending:
                    part.state = State.ENDED
                elif self.clock.now() >= part.ends and part.amend is None:
                    kept = part.keep_until is not None
                    reason = "WAITED_TOO_LONG" if kept else part.end_reason or "WINDOW_OVER"
                    part.state, part.end_reason = State.ENDED, reason

    def look(self, name: PartName) -> PartSeen:
        part = self._part(name)
        return PartSeen(
            over=part.state not in COUNTED,
            end_reason=part.end_reason,
            end_message=part.end_message,
            ending=part.ending,
            workspaces=tuple(
                self.seen.get(each.label, WorkspaceSeen(label=each.label))
                for each in part.spec.workspaces
            ),
            measured=self.measured,
            ways=self.ways,
            price=self._price(part),
            refunds=self.refunds,
            recalled_end=part.recalled_end,
            keep_until=part.keep_until,
            restore=RESTORE if part.keep_until is not None else timedelta(),
        )

    def boot(self) -> None:
        """Every workspace of every part is ready."""
        for part in self.parts.values():
            for each in part.spec.workspaces:
                self.seen[each.label] = WorkspaceSeen(
                    label=each.label, host="h1", state=WorkspaceState.RUNNING, ready=True
                )

    def _part(self, name: PartName) -> FakePart:
        part = self.parts.get(str(name))
        if part is None:
            raise NotFound(str(name))
        return part
