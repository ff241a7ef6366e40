"""What a pass sees of its host's guests, and what keeps it from doing all that it should."""

from collections.abc import Mapping

import structlog

from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
from intertie.nodeagent.domain.ports import Hypervisor
from intertie.nodeagent.domain.reconcile import DomainState

log = structlog.get_logger(__name__)


class Sight:
    """Begun anew with every pass; all that take part in one go by it."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self.domains: Mapping[str, DomainState] | None = None
        """By name; None while libvirt is silent."""
        self.problems: list[str] = []
        self.stuck = False
        """Something that nobody wants could not be removed in this pass."""

    def begin(self) -> None:
        """What was seen of guests stays until they are looked at."""
        self.problems = []
        self.stuck = False

    async def look(self) -> None:
        """At all guests."""
        try:
            self.domains = await self._hypervisor.states()
        except HypervisorSilent as error:
            self.blind(error)

    def blind(self, error: HypervisorSilent) -> None:
        """Nothing is known of guests any more, in this pass."""
        self.domains = None
        self.problem(error)

    def problem(self, error: HostFailure) -> None:
        self.problems.append(str(error))
        log.warning("sweep.problem", problem=str(error))
