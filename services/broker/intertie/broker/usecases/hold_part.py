"""HOLD: places a part and counts it, until it expires; or prepares it at once."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from intertie.broker.domain.decision import MAX_TTL, Receipt, ReceiptBody
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.planning import allot
from intertie.broker.domain.ports import Caller, Images, Ledger, Notary
from intertie.broker.domain.preparing import prepared, vnis_of
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.usecases.admission import Admission, Admitted
from intertie.common.clock import Clock
from intertie.common.errors import (
    MAX_SKEW,
    ClockSkew,
    FieldInvalid,
    ImageNotReady,
    NameTaken,
    NotFound,
    PartOver,
    RoleDenied,
)
from intertie.common.names import PartName
from intertie.common.part_rules import validate_part
from intertie.common.part_spec import PartSpec
from intertie.common.points import reach
from intertie.common.values import Struct

log = structlog.get_logger(__name__)


class HoldOrder(Struct, frozen=True, kw_only=True):
    name: PartName
    spec: PartSpec
    tx: str
    digest: str
    ttl: timedelta
    coordinator: str
    participants: tuple[str, ...]
    decide_by: datetime
    coordinator_time: datetime
    owner: str
    request: RequestKey
    prepare: bool = False
    """In the same transaction: there is no moment at which it could expire."""


class HoldPart:
    def __init__(
        self,
        ledger: Ledger,
        images: Images,
        admission: Admission,
        notary: Notary,
        policy: Policy,
        clock: Clock,
        draw_seed: Callable[[], str],
    ) -> None:
        self._ledger = ledger
        self._images = images
        self._admission = admission
        self._notary = notary
        self._policy = policy
        self._clock = clock
        self._draw_seed = draw_seed

    async def __call__(self, order: HoldOrder, caller: Caller) -> tuple[Part, Receipt]:
        now = self._clock.now()
        _check_skew(order, now)
        _check(order, caller, self._policy.site, now)
        for digest in dict.fromkeys(each.environment.image for each in order.spec.workspaces):
            if await self._images.find(order.name.tenant, digest) is None:
                raise ImageNotReady(digest, self._policy.site)

        def decide(view: LedgerView, now: datetime) -> Admitted:
            if str(order.name) in view.parts:
                raise NameTaken(str(order.name))
            part = self._part(order, view, now)
            if order.prepare:
                part = prepared(part, view, self._policy, now=now)
            change = Change(
                writes=(Write(record=part),), admitted_on=view.generation, vnis=vnis_of(part)
            )
            return Admitted(change=change, answer=part.name, uid=part.uid)

        reach("broker.before_hold")
        answer = await self._admission.admit(order.request, decide)
        reach("broker.held")
        found = (await self._ledger.view()).parts.get(answer.answer)
        if found is None:
            raise NotFound(answer.answer)
        part = found.value
        if order.prepare and part.over:
            raise PartOver(part.name, part.state.name)
        log.info("part.held", part=part.name, tx=order.tx, state=part.state.name)
        state = PartState.PREPARED if order.prepare else part.state
        return part, self._notary.sign(receipt_of(part, now=self._clock.now(), state=state))

    def _part(self, order: HoldOrder, view: LedgerView, now: datetime) -> Part:
        allotment = allot(order.spec, view, self._policy, tenant=order.name.tenant, now=now)
        return Part(
            name=str(order.name),
            state=PartState.HELD,
            spec=allotment.spec,
            owner=order.owner,
            create_time=now,
            seed=self._draw_seed(),
            placed=allotment.placed,
            gateway=allotment.gateway,
            tx=order.tx,
            digest=order.digest,
            coordinator=order.coordinator,
            participants=order.participants,
            expire_time=now + order.ttl,
            decide_by=order.decide_by,
        )


def receipt_of(part: Part, *, now: datetime, state: PartState | None = None) -> ReceiptBody:
    site = part.path.site
    return ReceiptBody(
        tx=part.tx,
        digest=part.digest,
        site=site,
        part=part.name,
        state=state or part.state,
        sign_time=now,
        endpoints=part.endpoints,
    )


def _check_skew(order: HoldOrder, now: datetime) -> None:
    """The clocks of site and coordinator agree within 2 s. The way of the request only adds to
    what is measured, so a skew that is let pass is a small one."""
    offset = now - order.coordinator_time
    if abs(offset) > MAX_SKEW:
        raise ClockSkew(offset)


def _check(order: HoldOrder, caller: Caller, site: str, now: datetime) -> None:
    if order.coordinator != caller.spiffe:
        raise RoleDenied(caller.spiffe, "Hold", f"{order.coordinator} is named as coordinator")
    if not order.tx or not order.digest:
        raise FieldInvalid("digest" if order.tx else "tx", "is required")
    if not order.prepare and not timedelta(0) < order.ttl <= MAX_TTL:
        raise FieldInvalid("ttl", "must be more than 0 and at most 10 minutes")
    if site not in order.participants:
        raise FieldInvalid("participants", f"{site} is asked, and not among them")
    if order.spec.window.end <= now:
        raise FieldInvalid("spec.window.end_time", "is over")
    if order.decide_by <= now:
        raise FieldInvalid("decide_by", "is over")
    if order.decide_by > now + MAX_TTL + MAX_SKEW:
        raise FieldInvalid("decide_by", "must be at most 10 minutes ahead")
    validate_part(order.spec)
    ours = {each.label for each in order.spec.workspaces}
    for position, network in enumerate(order.spec.networks):
        for member in network.members:
            if (member.site == site) != (member.workspace in ours):
                raise FieldInvalid(
                    f"spec.networks[{position}].members",
                    f"{member.workspace} is said to be at {member.site}; the part's workspaces, "
                    f"and no others, are at {site}",
                )
