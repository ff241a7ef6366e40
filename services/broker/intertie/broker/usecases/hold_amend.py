"""HOLD of other terms for a part that stands: counts what they take beyond those in force."""

from datetime import datetime

import structlog

from intertie.broker.domain.decision import Receipt
from intertie.broker.domain.fewest import GivesWay
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import writes_of
from intertie.broker.domain.growing import amended_before_others, more_than, more_than_counted
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Caller, Images, Ledger, Notary
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.renegotiating import Asked, held, with_room_paid
from intertie.broker.domain.sending import (
    check_not_begun,
    new_transfers,
    still_to_come,
    with_transfers_kept,
)
from intertie.broker.usecases.admission import Admission, Admitted, known_part, there
from intertie.broker.usecases.copies import AtWork
from intertie.broker.usecases.hold_part import (
    HoldOrder,
    amend_receipt_of,
    check_order,
    check_skew,
)
from intertie.broker.usecases.prepare_part import check_coordinator
from intertie.broker.usecases.sends import SENDS_NOTHING, Sends
from intertie.common.clock import Clock
from intertie.common.errors import ImageNotReady, NotFound
from intertie.common.part_rules import check_over_by
from intertie.common.points import reach

log = structlog.get_logger(__name__)


class HoldAmend:
    def __init__(
        self,
        ledger: Ledger,
        images: Images,
        admission: Admission,
        notary: Notary,
        policy: Policy,
        clock: Clock,
        sends: Sends = SENDS_NOTHING,
    ) -> None:
        self._ledger = ledger
        self._images = images
        self._admission = admission
        self._notary = notary
        self._policy = policy
        self._clock = clock
        self._sends = sends
        self._at_work = AtWork()

    async def __call__(self, order: HoldOrder, caller: Caller) -> tuple[Part, Receipt]:
        now = self._clock.now()
        check_skew(order, now)
        check_order(order, caller, self._policy.site, now)
        standing = await self._known(order)
        self._sends.check(new_transfers(order.spec, standing.spec))
        await self._check_images(order, standing)

        def decide(view: LedgerView, now: datetime, *, alone: bool = False) -> Admitted:
            found = there(view, str(order.name))
            check_coordinator(found.value, caller, "Hold")
            after, aside = self._held(order, found.value, view, now, alone=alone)
            had, has = set(found.value.network_ids), set(after.network_ids)
            change = Change(
                writes=(
                    Write(record=after, read_at=found.revision),
                    *writes_of(aside, now=now),
                ),
                admitted_on=view.generation,
                vnis=tuple((each.vni, after.uid) for each in after.network_ids if each not in had),
                vnis_left=tuple(each.vni for each in found.value.network_ids if each not in has),
            )
            return Admitted(change=change, answer=after.name, uid=after.uid)

        reach("broker.before_amend_held")
        # What is decided and stands in line is not in the view, so of one part one at a time.
        with self._at_work.on(str(order.name)) as holds:
            async with holds.lock:
                await self._admission.admit_before_others(order.request, decide)
        reach("broker.amend_held")
        part = await self._known(order)
        now = self._clock.now()
        sends = self._sends.by_amend(part, order.tx, now=now)
        body = amend_receipt_of(part, order.tx, now=now, sends=sends)
        log.info("amend.held", part=part.name, tx=order.tx, state=body.state.name)
        return part, self._notary.sign(body)

    def _held(
        self, order: HoldOrder, part: Part, view: LedgerView, now: datetime, *, alone: bool
    ) -> tuple[Part, tuple[GivesWay, ...]]:
        """And who gives way for it; nobody to one that waits and is to go on."""

        def attempt(view: LedgerView) -> Part:
            return held(part, _asked(order, part, now=now), view, self._policy, now=now)

        moments = more_than(part.spec, order.spec, now=now) if part.keeping is None else ()
        after, aside = amended_before_others(
            attempt,
            moments,
            view,
            self._policy,
            takes=lambda after: more_than_counted(part, after, self._policy, now=now),
            now=now,
            alone=alone,
        )
        if aside:
            after = with_room_paid(part, after, view, self._policy, now=now)
        return after, aside

    async def _known(self, order: HoldOrder) -> Part:
        found = await known_part(self._ledger, order.name)
        if found is None:
            raise NotFound(str(order.name))
        return found.value

    async def _check_images(self, order: HoldOrder, part: Part) -> None:
        """Who stays has its image. What is sent from here is here, and what is brought here need
        not be."""
        site = self._policy.site
        there = {each.label for each in part.spec.workspaces}
        new = (each for each in order.spec.workspaces if each.label not in there)
        sent = new_transfers(order.spec, part.spec)
        coming = {each.digest for each in still_to_come(part.spec, part.arrivals, site)}
        coming.update(each.digest for each in sent if each.to_site == site)
        needed = [image for each in new for image in each.images if image not in coming]
        needed += [each.digest for each in sent if each.from_site == site]
        for digest in dict.fromkeys(needed):
            if await self._images.find(order.name.tenant, digest) is None:
                raise ImageNotReady(digest, site)


def _asked(order: HoldOrder, part: Part, *, now: datetime) -> Asked:
    """FieldInvalid or NoCapacity where what is to be sent cannot come in time."""
    assert order.replaces is not None
    new = new_transfers(order.spec, part.spec)
    check_over_by(order.spec, new, order.spec.window.end, "the end of the part's window")
    check_not_begun(new, part.path.site, now=now)
    return Asked(
        tx=order.tx,
        digest=order.digest,
        participants=order.participants,
        replaces=order.replaces,
        spec=with_transfers_kept(order.spec, part.spec, part.arrivals, now=now),
        decide_by=order.decide_by,
        ttl=order.ttl,
        prepare=order.prepare,
    )
