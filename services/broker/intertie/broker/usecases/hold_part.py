"""HOLD: places a part and counts it, until it expires; or prepares it at once."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from intertie.broker.domain.decision import MAX_TTL, Receipt, ReceiptBody
from intertie.broker.domain.fewest import GivesWay
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import allotted_before_others, asked_before_others, writes_of
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Caller, Images, Ledger, Notary
from intertie.broker.domain.preparing import prepared, vnis_of
from intertie.broker.domain.price import from_now_on, sent_for
from intertie.broker.domain.recalling import allotted, keeping_of, kind_said
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.domain.sending import ImageSource, check_not_begun
from intertie.broker.domain.terms import AmendState
from intertie.broker.usecases.admission import Admission, Admitted, known_part
from intertie.broker.usecases.sends import SENDS_NOTHING, Sends
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
from intertie.common.part_rules import check_over_by, validate_part
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
    replaces: int | None = None
    """The number of the cluster's terms that are amended; of a Create's, None. A part that is
    asked for by an amend is a new one of the cluster where it is named after the transaction."""

    @property
    def amends(self) -> bool:
        """Other terms for a part that stands."""
        return self.replaces is not None and self.name.part_id != self.tx


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
        sends: Sends = SENDS_NOTHING,
    ) -> None:
        self._ledger = ledger
        self._images = images
        self._admission = admission
        self._notary = notary
        self._policy = policy
        self._clock = clock
        self._draw_seed = draw_seed
        self._sends = sends

    async def __call__(self, order: HoldOrder, caller: Caller) -> tuple[Part, Receipt]:
        now = self._clock.now()
        check_skew(order, now)
        check_order(order, caller, self._policy.site, now)
        self._sends.check(order.spec.transfers)
        for digest in needed_here(order.spec, self._policy.site):
            if await self._images.find(order.name.tenant, digest) is None:
                raise ImageNotReady(digest, self._policy.site)

        def decide(view: LedgerView, now: datetime, *, alone: bool = False) -> Admitted:
            if str(order.name) in view.parts or str(order.name) in view.tombs:
                raise NameTaken(str(order.name))
            check_not_begun(order.spec.transfers, self._policy.site, now=now)
            part, aside = self._part(order, view, now, alone=alone)
            if order.prepare:
                part = prepared(part, view, self._policy, now=now)
            change = Change(
                writes=(Write(record=part), *writes_of(aside, now=now)),
                admitted_on=view.generation,
                vnis=vnis_of(part),
            )
            return Admitted(change=change, answer=part.name, uid=part.uid)

        reach("broker.before_hold")
        answer = await self._admission.admit_before_others(order.request, decide)
        reach("broker.held")
        found = await known_part(self._ledger, PartName.parse(answer.answer))
        if found is None:
            raise NotFound(answer.answer)
        part = found.value
        if order.prepare and part.over:
            raise PartOver(part.name, part.state.name)
        log.info("part.held", part=part.name, tx=order.tx, state=part.state.name)
        state = PartState.PREPARED if order.prepare else part.state
        now = self._clock.now()
        # What is only held may be let go, and nobody fetches anything for it.
        sends = self._sends(part, now=now) if state is PartState.PREPARED else ()
        body = receipt_of(part, now=now, state=state, sends=sends)
        return part, self._notary.sign(body)

    def _part(
        self, order: HoldOrder, view: LedgerView, now: datetime, *, alone: bool
    ) -> tuple[Part, tuple[GivesWay, ...]]:
        spec, policy, tenant = order.spec, self._policy, order.name.tenant
        kind = kind_said(spec)
        aside: tuple[GivesWay, ...] = ()
        if spec.recallable is not None and spec.recallable.deadline is None:
            allotment = allotted(spec, view, policy, tenant=tenant, now=now)
        else:
            allotment, aside = allotted_before_others(
                spec, view, policy, tenant=tenant, now=now, alone=alone
            )
        priced = (
            from_now_on(allotment.spec, now=now) if order.replaces is not None else allotment.spec
        )
        asked = asked_before_others(priced, aside, view, policy, now=now, kind=kind)
        part = Part(
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
            price=(asked,),
            sent=sent_for(spec.transfers, asked.rates, asked.kind),
            keeping=keeping_of(allotment, view, policy),
            terms=0 if order.replaces is None else order.replaces + 1,
        )
        return part, aside


def _check_transfers_over(order: HoldOrder) -> None:
    """Of a new part: its workspaces begin with its window, and what they need is there by then. In
    a cluster that stands they begin once it is there."""
    window, new = order.spec.window, order.spec.transfers
    if order.replaces is None:
        check_over_by(order.spec, new, window.start, "the start of the part's window")
    else:
        check_over_by(order.spec, new, window.end, "the end of the part's window")


def needed_here(spec: PartSpec, site: str) -> tuple[str, ...]:
    """Images of workspaces and what is sent, but for those that are brought before."""
    brought = {each.digest for each in spec.transfers if each.to_site == site}
    used = [image for each in spec.workspaces for image in each.images]
    used += [each.digest for each in spec.transfers if each.from_site == site]
    return tuple(each for each in dict.fromkeys(used) if each not in brought)


def receipt_of(
    part: Part,
    *,
    now: datetime,
    state: PartState | None = None,
    sends: tuple[ImageSource, ...] = (),
) -> ReceiptBody:
    site = part.path.site
    return ReceiptBody(
        tx=part.tx,
        digest=part.digest,
        site=site,
        part=part.name,
        state=state or part.state,
        sign_time=now,
        endpoints=part.endpoints,
        terms=part.terms,
        sends=sends,
    )


def amend_receipt_of(
    part: Part, tx: str, *, now: datetime, sends: tuple[ImageSource, ...] = ()
) -> ReceiptBody:
    """Of terms that are held for the part, or were put in force since. PartOver where they were
    let go."""
    amend = part.amend
    if amend is None or amend.tx != tx:
        if part.tx == tx:
            return receipt_of(part, now=now, state=PartState.PREPARED)
        raise PartOver(part.name, f"{part.state.name}, and nothing is held for {tx}")
    prepared = amend.state is AmendState.PREPARED
    return ReceiptBody(
        tx=tx,
        digest=amend.digest,
        site=part.path.site,
        part=part.name,
        state=PartState.PREPARED if prepared else PartState.HELD,
        sign_time=now,
        endpoints=amend.endpoints,
        terms=amend.replaces + 1,
        sends=sends,
    )


def check_skew(order: HoldOrder, now: datetime) -> None:
    """The clocks of site and coordinator agree within 2 s. The way of the request only adds to
    what is measured, so a skew that is let pass is a small one."""
    offset = now - order.coordinator_time
    if abs(offset) > MAX_SKEW:
        raise ClockSkew(offset)


def check_order(order: HoldOrder, caller: Caller, site: str, now: datetime) -> None:
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
    if not order.amends:
        _check_transfers_over(order)
    for position, transfer in enumerate(order.spec.transfers):
        if site not in (transfer.from_site, transfer.to_site):
            raise FieldInvalid(
                f"spec.transfers[{position}]", f"is neither from {site} nor to it; leave it out"
            )
    ours = {each.label for each in order.spec.workspaces}
    for position, network in enumerate(order.spec.networks):
        for member in network.members:
            if (member.site == site) != (member.workspace in ours):
                raise FieldInvalid(
                    f"spec.networks[{position}].members",
                    f"{member.workspace} is said to be at {member.site}; the part's workspaces, "
                    f"and no others, are at {site}",
                )
