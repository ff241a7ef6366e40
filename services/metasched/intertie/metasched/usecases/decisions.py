"""The register, as sites in doubt ask it."""

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import NotFound, RoleDenied
from intertie.metasched.domain.commit import Decision, abort_of
from intertie.metasched.domain.ports import Register
from intertie.metasched.domain.register import may_ask

log = structlog.get_logger(__name__)


class Decisions:
    def __init__(self, register: Register, known_sites: tuple[str, ...], clock: Clock) -> None:
        self._register = register
        self._known_sites = known_sites
        self._clock = clock

    async def get(self, tx: str) -> Decision | None:
        """None: open. NotFound: nobody here knows of it."""
        decision = await self._register.decision(tx)
        if decision is None and await self._register.transaction(tx) is None:
            raise NotFound(f"decision/{tx}")
        return decision

    async def resolve(self, tx: str, *, caller: str, site: str, reason: str) -> Decision:
        """Races to ABORT; what stands, which may be COMMIT. `site` is the caller's, empty for a
        meta-scheduler. A tx that nobody knows is aborted too, so that a coordinator that comes
        back with receipts finds that."""
        known = await self._register.transaction(tx)
        if site and not may_ask(known, site, self._known_sites):
            raise RoleDenied(caller, "Decisions/Resolve", f"{site} has no part in {tx}")
        stands = await self._register.abort(
            abort_of(
                tx,
                by=caller,
                reason=reason or "a participant does not wait any longer",
                now=self._clock.now(),
                digest=known.digest if known else "",
            )
        )
        log.info("decisions.raced", tx=tx, caller=caller, outcome=stands.outcome.name)
        return stands
