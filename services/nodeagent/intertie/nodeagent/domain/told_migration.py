"""What a host says of a workspace that it is to take or to send."""

from intertie.nodeagent.domain.migrating import Migration, Outcome, Role, SeenMigration
from intertie.nodeagent.domain.reconcile import ALIVE, DomainState, Observed

_WAS_LET_GO_ON = frozenset({DomainState.RUNNING, DomainState.STALLED, DomainState.POWERED_OFF})


def told_of(
    migration: Migration | None, seen: Observed, *, moves: bool, problem: str
) -> SeenMigration | None:
    """None while there is nothing to say. `moves`: it is being sent; `problem`: what went wrong
    last. KEPT is only said in answer, as it is for good: by this number it is not sent again."""
    if migration is None:
        return None
    outcome = _outcome(migration.role, seen, moves=moves, fails=bool(problem))
    if outcome is None:
        return None
    message = ""
    if outcome is Outcome.FAILED:
        message = problem or "it does not run"
    return SeenMigration(number=migration.number, outcome=outcome, message=message)


def _outcome(role: Role, seen: Observed, *, moves: bool, fails: bool) -> Outcome | None:
    if role is Role.TAKE:
        if seen.domain is not None:
            return Outcome.TAKEN if seen.domain in _WAS_LET_GO_ON else None
        if seen.disk and seen.seed:
            return Outcome.READY
        return Outcome.FAILED if fails else None
    if seen.given:
        return Outcome.GIVEN
    if moves or seen.domain in (DomainState.IN_TRANSIT, DomainState.SENT):
        return None
    if role is Role.ANSWER:
        return Outcome.KEPT
    stands = seen.domain not in ALIVE or seen.domain is not DomainState.RUNNING
    return Outcome.FAILED if seen.unsent or stands else None
