"""What a host says of a workspace that it is to take or to send."""

from intertie.nodeagent.domain.migrating import Migration, Outcome, Role, SeenMigration
from intertie.nodeagent.domain.reconcile import DomainState, Observed, goes_as_it_is

_HAS_RUN = frozenset({DomainState.STALLED, DomainState.POWERED_OFF})
"""As far as libvirt can say. A copy that only stands still is as one that has where its emulator is
ended from outside, or its disk takes no writes: so it must be noted that it was let go on."""


def told_of(
    migration: Migration | None, seen: Observed, *, moves: bool, stands: bool, problem: str
) -> SeenMigration | None:
    """None while there is nothing to say. `moves`: it is being sent; `stands`: it is noted to stand
    still, or to be about to come so; `problem`: what went wrong last. KEPT is only said in answer,
    as it is for good: by this number it is not sent again."""
    if migration is None:
        return None
    if migration.aside:
        outcome = _aside(migration.role, seen, moves=moves, fails=bool(problem))
    else:
        outcome = _outcome(migration.role, seen, moves=moves, stands=stands, fails=bool(problem))
    if outcome is None:
        return None
    message = ""
    if outcome is Outcome.FAILED:
        message = problem or ("it is not put aside" if migration.aside else "it does not run")
    return SeenMigration(number=migration.number, outcome=outcome, message=message)


def _outcome(
    role: Role, seen: Observed, *, moves: bool, stands: bool, fails: bool
) -> Outcome | None:
    if role is Role.TAKE:
        if seen.domain is not None:
            runs = seen.domain is DomainState.RUNNING
            has_run = seen.domain in _HAS_RUN and not stands
            return Outcome.TAKEN if runs or has_run else None
        if seen.disk and seen.seed:
            return Outcome.READY
        return Outcome.FAILED if fails else None
    if seen.given:
        return Outcome.GIVEN
    if moves or seen.domain in (DomainState.IN_TRANSIT, DomainState.SENT):
        return None
    if role is Role.ANSWER:
        return Outcome.KEPT
    return Outcome.FAILED if seen.unsent or seen.domain is not DomainState.RUNNING else None


def _aside(role: Role, seen: Observed, *, moves: bool, fails: bool) -> Outcome | None:
    """Of one that goes as it is put aside: it has a disk where it is, and nowhere else."""
    if role is Role.TAKE:
        if seen.disk:
            return Outcome.TAKEN
        if seen.image and seen.seed:
            return Outcome.READY
        return Outcome.FAILED if fails else None
    if seen.given:
        return Outcome.GIVEN
    if moves:
        return None
    if role is Role.ANSWER:
        return Outcome.KEPT
    return Outcome.FAILED if seen.unsent or not goes_as_it_is(seen) else None
