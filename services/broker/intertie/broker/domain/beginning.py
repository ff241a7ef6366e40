"""How a lease that waits would begin its next stretch, and for how long it would run."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.amounts import with_room_for_memory
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.difference import more_of, shortfalls_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.pace import Paces, paces_of
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.planning import (
    Image,
    allot,
    as_many_as_fit,
    part_spec_of,
    pinned,
)
from intertie.broker.domain.site_caps import with_site_defaults
from intertie.broker.domain.stretches import counted_till, is_saved, left_of, runs_whole, stretch
from intertie.broker.domain.usage import charged_when_on
from intertie.common.calendar import Calendar, Demand
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.leasing.lease import Lease
from intertie.common.names import ClusterName
from intertie.common.spec import ClusterSpec
from intertie.common.values import replace

_S = timedelta(seconds=1)

Counts = Mapping[str, int]
Begun = tuple[Part, tuple[tuple[str, int], ...], tuple[Shortfall, ...]]
"""The part, how many of each group, and why there are not more."""


class Beginning:
    """Of one lease, on the book as it is. Where it fits is where it and all that putting it aside
    takes fit."""

    def __init__(
        self,
        record: ClusterRecord,
        view: LedgerView,
        calendar: Calendar,
        policy: Policy,
        paces: Paces,
        now: datetime,
    ) -> None:
        self._record = record
        self._view = view
        self._calendar = calendar
        self._policy = policy
        self._paces = paces
        self._now = now
        self._name = ClusterName.parse(record.name)
        self._alive = {facts.host for facts in view.fleet.alive(now=now)}
        found = view.parts.get(record.part)
        self._before = found.value if found and record.state is ClusterState.SUSPENDED else None
        self._spec = _pinned(record, policy)
        self._fewest = {group.name: group.fewest for group in self._spec.groups}
        left = left_of(record)
        before = self._before
        memory_mib = sum(each.most * each.allocation.memory_mib for each in record.spec.groups)
        restore = paces.restore(before.spec, before.placed) if before else timedelta()
        save = (
            paces.save(before.spec, before.placed)
            if before
            else paces.save_at_most(memory_mib, self._alive)
        )
        self.full_s = _up(restore + left)
        """How long it takes if nobody stops it."""
        self.span_s = min(self.full_s, _up(restore + policy.queue.worth + save))
        if runs_whole(record.spec):
            self.span_s = self.full_s
        """For how long there has to be room for it to begin."""

    def take(self, window: Window) -> Sequence[Demand] | None:
        try:
            return self._more(self._fits(window, self._fewest))
        except NoCapacity:
            return None

    def held_up(self) -> str:
        """Why it could not go on, had it all the room that there is; empty where it could."""
        before = self._before
        if before is None:
            return ""
        if before.moving:
            return "it is on its way to another host"
        if not is_saved(before, self._view.seen.get(before.uid, {})):
            return "what it had in memory is still being saved"
        silent = next((each for each in before.hosts() if each not in self._alive), None)
        return f"{silent} has it, and is silent" if silent is not None else ""

    def would_fit(self, placed: tuple[Placed, ...], window: Window) -> bool:
        """Of one that is put aside: it could go on over that window, were it on those hosts."""
        assert self._before is not None
        part = self._stretched(replace(self._before, placed=placed), window)
        return part is not None and not self._shortfalls(part)

    def short(self, window: Window) -> tuple[Shortfall, ...]:
        try:
            self._fits(window, self._fewest)
        except NoCapacity as error:
            return error.shortfalls
        return ()

    def begin(self) -> Begun:
        """Now, with as many as fit, and for as long as there is room. NoCapacity where there is
        none any more."""
        room = Window(self._now, self._now + self.full_s * _S)
        least = self._promised() or Window(self._now, self._now + self.span_s * _S)
        try:
            part = self._fits(room, self._fewest)
        except NoCapacity:
            room, part = least, self._fits(least, self._fewest)
        if (before := self._before) is not None:
            account = self._view.accounts.get(before.name)
            charged = charged_when_on(before, account.value if account else None, now=self._now)
            part = replace(self._longest(part), charged=charged)
            return part, self._record.counts, self._record.shortfalls
        counts, part, short = as_many_as_fit(
            self._spec, self._fewest, part, lambda counts: self._fits(room, counts)
        )
        return self._longest(part), tuple(counts.items()), short

    def _promised(self) -> Window | None:
        """What is left of it, once it has come."""
        keeping = self._before.keeping if self._before is not None else None
        promised = keeping.promised if keeping is not None else None
        if promised is None or not promised.contains(self._now):
            return None
        return Window(self._now, promised.end)

    def _longest(self, part: Part) -> Part:
        """Where it cannot run to its end, until as late as there is room on the hosts it has."""
        assert part.keeping is not None
        if part.keeping.until is None:
            return part
        low, high = self.span_s, self.full_s
        while low < high:
            middle = (low + high + 1) // 2
            longer = self._stretched(part, Window(self._now, self._now + middle * _S))
            if longer is not None and not self._shortfalls(longer):
                part, low = longer, middle
            else:
                high = middle - 1
        return part

    def _fits(self, window: Window, counts: Counts) -> Part:
        if (before := self._before) is not None:
            if why := self.held_up():
                raise NoCapacity((self._says(why),))
            part = self._stretched(before, window)
        else:
            part = self._stretched(self._placed(window, counts), window)
        if part is None:
            raise NoCapacity((self._says("there is less time than it takes to put it aside"),))
        if short := self._shortfalls(part):
            raise NoCapacity(short)
        return part

    def _stretched(self, part: Part, window: Window) -> Part | None:
        again = self._before is not None
        after = stretch(part, self._record, window, self._paces, self._policy, again=again)
        if after is None or self._before is None:
            return after
        return replace(after, terms=self._before.terms + 1)  # however many lengths are tried

    def _placed(self, window: Window, counts: Counts) -> Part:
        """On hosts that have room for its memory on disk too."""
        spec = with_site_defaults(
            part_spec_of(
                self._name,
                self._record.uid,
                self._spec,
                counts,
                window,
                self._policy.site,
            ),
            self._policy,
        )
        roomy = spec
        if not self._record.spec.lease.cancellable:
            roomy = with_room_for_memory(spec, self._policy.queue.pool_mib_s)
        found = allot(
            roomy,
            self._view,
            self._policy,
            tenant=self._name.tenant,
            now=self._now,
            calendar=self._calendar,
        )
        return Part(
            name=self._record.part,
            state=PartState.CONFIRMED,
            spec=spec,
            owner=self._record.owner,
            create_time=self._now,
            seed="",
            placed=found.placed,
            gateway=found.gateway,
        )

    def _more(self, part: Part) -> Sequence[Demand]:
        """What it takes beyond what is counted of it already."""
        after = demands_of(part, self._policy.admission)
        if self._before is None:
            return after
        before = demands_of(counted_till(self._before, self._now), self._policy.admission)
        return tuple(more_of(before, after, since=part.window.start))

    def _shortfalls(self, part: Part) -> tuple[Shortfall, ...]:
        return shortfalls_of(self._policy.site, self._calendar, self._more(part))

    def _says(self, message: str) -> Shortfall:
        site = self._policy.site
        return Shortfall(site=site, resource="hosts", message=f"{site}: {message}")


def openings_of(
    view: LedgerView, leases: Iterable[Lease], calendar: Calendar, policy: Policy, now: datetime
) -> dict[str, Beginning]:
    """By name."""
    paces = paces_of(view, policy)
    names = [each.request.name for each in leases]
    return {
        name: Beginning(view.clusters[name].value, view, calendar, policy, paces, now)
        for name in names
    }


def _up(span: timedelta) -> int:
    return max(1, -(-span // _S))


def _pinned(record: ClusterRecord, policy: Policy) -> ClusterSpec:
    assert record.waits is not None
    images = {
        name: Image(digest=digest, size_bytes=0, virtual_size_bytes=0)
        for name, digest in record.waits.images
    }
    return pinned(record.spec, images, policy)
