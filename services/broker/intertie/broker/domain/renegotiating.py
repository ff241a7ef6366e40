"""Other terms for a part of a co-allocation: held and counted beside those in force, and put in
their place by a COMMIT.

What a cluster of this site alone gets at once, see `amending`, comes here in the steps of a part:
every site of the cluster takes them, or none does.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.account import Account
from intertie.broker.domain.cluster import WORKSPACE_FAILED
from intertie.broker.domain.decision import (
    Decision,
    OpenedReceipt,
    Outcome,
    check,
    check_decider,
    remotes_of,
)
from intertie.broker.domain.difference import Difference, with_terms
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.networks import Endpoint, NetworkId
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.preparing import endpoints_of
from intertie.broker.domain.price import (
    applied,
    asked_for_rest,
    at_agreed_rates,
    sent_for,
    sent_shortened,
    shortened,
    with_rooms,
)
from intertie.broker.domain.recalling import (
    held_again,
    not_after_recall,
    put_aside_as_agreed,
    went_on,
)
from intertie.broker.domain.refusing import check_window
from intertie.broker.domain.room_paid import asks_for_room, rooms_of_more
from intertie.broker.domain.sending import (
    arrivals_kept,
    awaiting,
    new_transfers,
    sources_for,
)
from intertie.broker.domain.site_caps import with_site_defaults
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.terms import Amend, AmendState
from intertie.broker.domain.usage import charged_until
from intertie.broker.domain.vnis import free_vnis
from intertie.common.errors import (
    AmendPending,
    DecisionInvalid,
    DecisionPending,
    FieldInvalid,
    HoldExpired,
    PartOver,
    TermsStale,
)
from intertie.common.part_rules import within
from intertie.common.part_spec import FurtherDisk, PartSpec
from intertie.common.spec import capped_disk
from intertie.common.values import Struct, replace


class Asked(Struct, frozen=True, kw_only=True):
    """What a coordinator asks for."""

    tx: str
    digest: str
    participants: tuple[str, ...]
    replaces: int
    spec: PartSpec
    decide_by: datetime
    ttl: timedelta
    prepare: bool


def held(part: Part, asked: Asked, view: LedgerView, policy: Policy, *, now: datetime) -> Part:
    """The part with other terms held for it, and ids for networks that are new to it, which are its
    own from then on: until other terms are held, where these are let go.

    NoCapacity where what they take beyond those in force is not there; FieldInvalid where it is
    not this part that they are of; else why it cannot be asked for now, see `check_open`.
    """
    check_open(part, asked.replaces, now=now)
    if part.keeping is not None:
        return _held_again(part, asked, view, policy, now=now)
    if asked.spec.recallable is not None:
        raise FieldInvalid("spec.recallable", "was not agreed on when it was held; leave it out")
    _check_same(part, asked.spec)
    if asked.spec.window.end > part.window.end:
        check_window(asked.spec.window, policy, part.path.tenant, now=now)
    spec = with_caps(part, with_site_defaults(asked.spec, policy), asked.spec)
    found = Difference(part, view, policy, now)(spec, view.fleet.gateway(now=now)).part
    new = tuple(each.name for each in spec.networks if not part.vni_of(each.name))
    vnis = free_vnis(view, len(new))
    ids = (
        *_in_use(part, spec),
        *(NetworkId(network=name, vni=vni) for name, vni in zip(new, vnis, strict=True)),
    )
    amend = _amend(
        asked,
        spec,
        placed=found.placed,
        gateway=found.gateway,
        endpoints=endpoints_of(spec.networks, ids, found.gateway, view, policy.site),
        asked_price=asked_for_rest(part.price, part.spec, spec, view, policy, now=now),
        now=now,
    )
    return replace(part, network_ids=ids, amend=amend)


def with_room_paid(
    part: Part, after: Part, view: LedgerView, policy: Policy, *, now: datetime
) -> Part:
    """With other terms held for it at what is asked for the room that others make as well: `view`
    is from before they do."""
    amend = after.amend
    if amend is None or amend.price is None or not asks_for_room(policy):
        return after
    rooms = rooms_of_more(part.price, part.spec, amend.spec, view, policy, now=now)
    asked = with_rooms(amend.prices, amend.spec, rooms)
    return replace(after, amend=amend.at(asked))


def _held_again(
    part: Part, asked: Asked, view: LedgerView, policy: Policy, *, now: datetime
) -> Part:
    """A later window of one that was put aside, on the hosts that have what was saved."""
    check_window(asked.spec.window, policy, part.path.tenant, now=now)
    spec = with_caps(part, with_site_defaults(asked.spec, policy), asked.spec)
    keeping, price = held_again(part, spec, view, policy, now=now)
    amend = _amend(
        asked,
        spec,
        placed=part.placed,
        gateway=part.gateway,
        endpoints=part.endpoints,
        asked_price=(price,),
        keeping=keeping,
        now=now,
    )
    return replace(part, amend=amend)


def _amend(
    asked: Asked,
    spec: PartSpec,
    *,
    placed: tuple[Placed, ...],
    gateway: str,
    endpoints: tuple[Endpoint, ...],
    asked_price: Sequence[Stretch],
    keeping: Keeping | None = None,
    now: datetime,
) -> Amend:
    """The terms as they are held, or prepared at once."""
    amend = Amend(
        tx=asked.tx,
        digest=asked.digest,
        participants=asked.participants,
        replaces=asked.replaces,
        spec=spec,
        placed=placed,
        gateway=gateway,
        state=AmendState.PREPARED if asked.prepare else AmendState.HELD,
        create_time=now,
        decide_by=asked.decide_by,
        expire_time=None if asked.prepare else now + asked.ttl,
        endpoints=endpoints,
        keeping=keeping,
    )
    return amend.at(asked_price)


def _in_use(part: Part, asked: PartSpec) -> Iterator[NetworkId]:
    """Ids that a host or another site may know of, and those that are asked for again. What was
    only ever held was told to nobody who goes by it."""
    specs = (part.spec, asked, *(each.spec for each in part.shed))
    names = {each.name for spec in specs for each in spec.networks}
    names.update(each.network for each in part.endpoints)
    return (each for each in part.network_ids if each.network in names)


def check_open(part: Part, replaces: int, *, now: datetime) -> None:
    """PartOver, DecisionPending, AmendPending or TermsStale where no other terms are taken in
    place of number `replaces`."""
    if part.over:
        raise PartOver(part.name, part.state.name)
    if part.state is not PartState.CONFIRMED or part.bound:
        raise DecisionPending(part.name)
    if part.end_requested_time is not None or now >= part.ends:
        raise PartOver(part.name, "ENDING")
    if part.amend is not None or part.moving:
        raise AmendPending(part.name)
    if replaces != part.terms:
        raise TermsStale(part.name, replaces, part.terms)


def _check_same(part: Part, spec: PartSpec) -> None:
    """What may not be changed: whose part it is, when it began, and what its workspaces are."""
    was = part.spec
    if (spec.cluster, spec.cluster_uid) != (was.cluster, was.cluster_uid):
        raise FieldInvalid("spec.cluster", f"is {spec.cluster}, the part is of {was.cluster}")
    if spec.window.start != was.window.start:
        raise FieldInvalid("spec.window.start_time", "may not be changed")
    there = {each.label: each for each in was.workspaces}
    for position, each in enumerate(spec.workspaces):
        at, old = f"spec.workspaces[{position}]", there.get(each.label)
        if old is None:
            continue
        if (each.environment, each.nics) != (old.environment, old.nics):
            raise FieldInvalid(at, "gets other terms, no other environment and no other NICs")
        if not same_disks(each.disks, old.disks):
            raise FieldInvalid(f"{at}.disks", "may not be changed")
        if each.allocation.disk_mib < old.allocation.disk_mib:
            raise FieldInvalid(
                f"{at}.allocation.disk_mib",
                f"is less than the {old.allocation.disk_mib} MiB that there are",
            )


def same_disks(asked: Sequence[FurtherDisk], had: Sequence[FurtherDisk]) -> bool:
    """Where no cap is asked for, the one in force stays."""
    if len(asked) != len(had):
        return False
    return all(
        replace(new, disk=capped_disk(new.disk, iops=old.disk.cap_iops, mib_s=old.disk.cap_mib_s))
        == old
        for new, old in zip(asked, had, strict=True)
    )


def with_caps(part: Part, spec: PartSpec, asked: PartSpec) -> PartSpec:
    """Where no cap of a disk is asked for, no less than is in force: a default that the operator
    has lowered is none of an amend's business. `spec` has the defaults of now."""
    there = {each.label: each.allocation.disk for each in part.spec.workspaces}
    disks = {each.label: each.disks for each in part.spec.workspaces}
    said = {each.label: each.allocation.disk for each in asked.workspaces}

    def most(label: str, name: str, value: int) -> int:
        unsaid = not getattr(said[label], name) and label in there
        return max(value, getattr(there[label], name)) if unsaid else value

    return replace(
        spec,
        workspaces=tuple(
            replace(
                each,
                allocation=replace(
                    each.allocation,
                    disk=replace(
                        each.allocation.disk,
                        cap_iops=most(each.label, "cap_iops", each.allocation.disk.cap_iops),
                        cap_mib_s=most(each.label, "cap_mib_s", each.allocation.disk.cap_mib_s),
                    ),
                ),
                disks=disks.get(each.label, each.disks),
            )
            for each in spec.workspaces
        ),
    )


def prepared(part: Part, tx: str, *, now: datetime) -> Part:
    """The part once the terms that are held for it may not be let go alone; the same where they
    are prepared already, or in force."""
    if part.amend is None or part.amend.tx != tx:
        if part.tx == tx:
            return part
        raise PartOver(part.name, f"{part.state.name}, and nothing is held for {tx}")
    if part.bound:
        return part
    if part.amend_expired(now=now):
        raise HoldExpired(part.name)
    if now >= part.ends:
        raise PartOver(part.name, "ENDING")
    return replace(part, amend=part.amend.move(AmendState.PREPARED))


def resolved(
    part: Part,
    amend: Amend,
    decision: Decision,
    receipts: tuple[OpenedReceipt, ...],
    account: Account | None,
    *,
    now: datetime,
) -> Part:
    """The part after a decision on the terms that are held for it."""
    if amend.keeping is not None:
        return went_on(part, amend, decision, receipts, account, now=now)
    check(part, decision, receipts, amend)
    if decision.outcome is Outcome.ABORT:
        return part.let_go(AmendState.RELEASED)
    if not part.bound:
        raise DecisionInvalid(f"{part.name} is HELD for {amend.tx}, it was never prepared")
    amend.move(AmendState.APPLIED)
    site, receipts = part.path.site, tuple(receipts)
    after = with_terms(replace(part, gateway=amend.gateway), amend.spec, amend.placed)
    arrivals = arrivals_kept(part.arrivals, amend.spec, part.spec, site)
    said = {each.body.site: each.body.sends for each in receipts}
    after = replace(
        after,
        sources=sources_for(amend.spec, site, said, known=part.sources),
        arrivals=arrivals,
        awaiting=(
            *(each for each in part.awaiting if each in labels_of(amend.spec)),
            *awaiting(amend.spec, arrivals, site, labels_of(part.spec, *_shed(part))),
        ),
        tx=amend.tx,
        digest=amend.digest,
        participants=amend.participants,
        decide_by=amend.decide_by,
        endpoints=amend.endpoints,
        remotes=remotes_of(after, receipts, site),
        charged=charged_until(part, account, now=now),
        price=shortened(_priced(part, amend, now=now), account),
        sent=sent_shortened((*part.sent, *_sent(part, amend, account)), account),
        amend=None,
    )
    if now >= part.window.end and after.window.end > part.window.end:
        # Its hosts went by the end that they knew: nothing of its guests is left to go on with.
        return after.ending(now=now, reason=WORKSPACE_FAILED)
    return after


def labels_of(*specs: PartSpec) -> frozenset[str]:
    return frozenset(each.label for spec in specs for each in spec.workspaces)


def _shed(part: Part) -> Iterator[PartSpec]:
    return (each.spec for each in part.shed)


def shrunk(
    part: Part,
    decision: Decision,
    replaces: int,
    asked: PartSpec,
    account: Account | None,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> Part:
    """The part after a COMMIT for which no site was asked; the same where it was applied before.

    A site need not believe that it takes nothing more: DecisionInvalid where it does. An end later
    than the one that the site has recalled it to since does not: see `not_after_recall`.
    """
    if decision.outcome is not Outcome.COMMIT or decision.receipts:
        raise DecisionInvalid("terms come only with a COMMIT for which no site was asked")
    check_decider(part, decision)
    if decision.tx == part.tx or replaces < part.terms:
        return part
    check_open(part, replaces, now=now)
    asked = replace(asked, transfers=part.spec.transfers)
    spec = with_caps(part, not_after_recall(part, asked), asked)
    if not within(spec, part.spec):
        raise DecisionInvalid(f"{part.name} would get more of something, and was not asked")
    if part.keeping is not None:
        after = put_aside_as_agreed(part, decision, spec, view, policy, now)
        earlier = spec.window.end < asked.window.end
        return replace(after, recalled_end=part.recalled_end) if earlier else after
    there = {each.label for each in spec.workspaces}
    placed = tuple(each for each in part.placed if each.workspace in there)
    return replace(
        with_terms(part, spec, placed),
        tx=decision.tx,
        digest=decision.digest,
        charged=charged_until(part, account, now=now),
        price=shortened(at_agreed_rates(part.price, part.spec, spec, now=now), account),
    )


def _priced(part: Part, amend: Amend, *, now: datetime) -> tuple[Stretch, ...]:
    """At the rates that were asked when they were held, from when they are in force."""
    if amend.price is None:
        return at_agreed_rates(part.price, part.spec, amend.spec, now=now)
    return applied(part.price, amend.spec, amend.prices, now=now)


def _sent(part: Part, amend: Amend, account: Account | None) -> tuple[Stretch, ...]:
    """At the same rates, what is sent beyond what was agreed on before. What was heard of so late
    that the time is in a record already is of the time after that."""
    if amend.price is None:
        return ()
    new = new_transfers(amend.spec, part.spec)
    found = sent_for(new, amend.price.rates, amend.price.kind)
    if account is None:
        return found
    return tuple(each.not_before(account.until) for each in found)


def was_applied(part: Part, decision: Decision, receipts: Iterable[OpenedReceipt]) -> bool:
    """Whether this COMMIT is of an agreement before the one in force: this site has prepared it,
    and has had later terms since. Of one number, one agreement at most is committed."""
    return any(
        each.signer == each.body.site == part.path.site
        and each.body.part == part.name
        and each.body.tx == decision.tx
        and each.body.state is PartState.PREPARED
        and each.body.terms < part.terms
        for each in receipts
    )
