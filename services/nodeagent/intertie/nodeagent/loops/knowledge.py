"""What this host knows of its parts: from the site's records, and kept on its own disk.

What is new is written down before it is obeyed. While it cannot be written, only what ends is.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import structlog

from intertie.common.clock import Clock
from intertie.nodeagent.domain.failures import RecordsUnreadable
from intertie.nodeagent.domain.ports import Records, StateStore
from intertie.nodeagent.domain.reconcile import Kept, KnownPart, Listing, Note, merge
from intertie.nodeagent.domain.standing import Hold, Standing
from intertie.nodeagent.domain.wanted import WantedPart
from intertie.nodeagent.loops.self_fence import SelfFence

log = structlog.get_logger(__name__)

_CONTACT_S = 5.0


class Knowledge:
    """Parts by uid, with the highest generation of each that was ever seen."""

    def __init__(
        self, clock: Clock, records: Records, state: StateStore, self_fence: SelfFence
    ) -> None:
        self._clock = clock
        self._records = records
        self._state = state
        self._self_fence = self_fence
        loaded = state.load()
        self._parts = dict(loaded.parts) if loaded else {}
        self.begun = loaded is not None
        """Whether the records were ever read."""
        self.complete = loaded is not None and loaded.complete
        """Whether what is not known may be taken for not wanted."""
        self._standing: Standing | None = None
        """None: the records were not read since this agent started, so what this host has in
        mind may be elsewhere by now."""
        self._told = Standing()
        """As they said last."""
        self._refused = False
        """They could not be read when they were last asked for."""
        self._lapses = 0
        """How often a sign of life came too late."""
        self._unreadable: tuple[str, ...] = ()
        self._unwritten = ""
        """Why the disk has not taken what is known; empty: it has."""
        self.contact = state.load_contact() or clock.now()
        self._contact_saved = clock.monotonic() - _CONTACT_S

    @property
    def parts(self) -> Mapping[str, KnownPart]:
        return self._parts

    @property
    def may_start(self) -> bool:
        """Nothing begins that is not written down, nor before the records were read, nor where
        they say that this host may start nothing."""
        free = self._standing is not None and self._standing.hold is Hold.NONE
        return free and not self._unwritten and not self._self_fence.overdue

    @property
    def must_be_off(self) -> bool:
        """No guest may run, whatever is wanted."""
        fenced = self._standing is not None and self._standing.hold is Hold.FENCED
        return fenced or self._self_fence.overdue

    @property
    def fenced(self) -> bool:
        """By the site's word."""
        return self._standing is not None and self._standing.hold is Hold.FENCED

    @property
    def epoch(self) -> int:
        """Of the fencing of this host; 0: it was never fenced, as far as it knows."""
        return self._standing.epoch if self._standing else 0

    def reserved_mbit_s(self, *, now: datetime, ahead: timedelta) -> Mapping[str, int]:
        """See Standing. As the records said last, and nothing before they were read."""
        return self._told.reserved_mbit_s(now=now, ahead=ahead)

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each thing that keeps this host from obeying in full."""
        found = []
        if self._unwritten:
            found.append(f"nothing is started, this host's disk takes no writes: {self._unwritten}")
        if self._standing is None and self._refused:
            found.append("nothing is started before the records of this host were read")
        elif self._self_fence.overdue:
            found.append("every guest is stopped: nobody has heard of this host for too long")
        elif self._standing and self._standing.hold is not Hold.NONE:
            found.append("nothing is started before the site has let this host in again")
        if self.begun and not self.complete:
            found.append(
                "nothing is removed that is not known: records of this host cannot be read "
                f"({', '.join(self._unreadable) or 'none can now'})"
            )
        return tuple(found)

    def promise(self) -> timedelta:
        """How long after this report the host stops its guests, if it can make no other; 0: it
        does not. To be asked before it is sent."""
        return self._self_fence.promise()

    def reported(self, began: float, promised: timedelta) -> None:
        """The records took a sign of life. One that came too late lets nothing start before they
        were read again, all of it since then."""
        if self._self_fence.lived(began, promised):
            self._standing = None
            self._lapses += 1

    async def read(self) -> tuple[WantedPart, ...]:
        """Brings it up to the records, if they can be had. Returns what is wanted anew."""
        changed: tuple[WantedPart, ...] = ()
        lapses = self._lapses
        try:
            listing = await self._records.wanted()
        except RecordsUnreadable as error:
            self._refused = True
            log.warning("records.unreadable", problem=str(error))
        else:
            self._refused = False
            self._keep_contact()
            changed = self._take(listing, current=lapses == self._lapses)
        if self._unwritten:
            self._save()
        return changed

    def remember(self, part_uid: str, uid: str, note: Note) -> None:
        part = self._parts[part_uid]
        if part.note(uid) != note:
            self._parts[part_uid] = part.with_note(uid, note)
            self._save()

    def forget(self, part_uid: str) -> None:
        """Of a part that is gone from the host and from the records."""
        part = self._parts.get(part_uid)
        if part is not None and not part.present:
            del self._parts[part_uid]
            self._save()

    def _keep_contact(self) -> None:
        self.contact = self._clock.now()
        if self._clock.monotonic() - self._contact_saved >= _CONTACT_S:
            self._contact_saved = self._clock.monotonic()
            try:
                self._state.save_contact(self.contact)
            except OSError as error:
                log.warning("contact.unwritten", problem=error.strerror)

    def _take(self, listing: Listing, *, current: bool) -> tuple[WantedPart, ...]:
        if current and listing.standing != self._standing:
            before, self._standing = self._standing, listing.standing
            hold, epoch = listing.standing.hold, listing.standing.epoch
            if before is None or (before.hold, before.epoch) != (hold, epoch):
                log.info("host.standing", hold=hold.name, epoch=epoch)
        self._told = listing.standing
        self._unreadable = tuple(sorted(listing.unreadable))
        merged = merge(self._parts, listing)
        complete = self.complete or not listing.unreadable
        if merged == self._parts and complete == self.complete and self.begun:
            return ()
        changed = tuple(_changed(self._parts, merged))
        for part in changed:
            log.info("part.wanted", part=part.name, generation=part.generation, gone=part.gone)
        self._parts, self.complete, self.begun = merged, complete, True
        self._save()
        return changed

    def _save(self) -> None:
        try:
            self._state.save(Kept(parts=self._parts, complete=self.complete))
        except OSError as error:
            self._unwritten = error.strerror or repr(error)
            log.error("state.unwritten", problem=self._unwritten)
        else:
            self._unwritten = ""


def _changed(
    before: Mapping[str, KnownPart], after: Mapping[str, KnownPart]
) -> Iterable[WantedPart]:
    for uid, part in after.items():
        old = before.get(uid)
        if old is None or old.wanted.generation != part.wanted.generation:
            yield part.wanted
