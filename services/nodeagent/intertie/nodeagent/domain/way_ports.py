"""What a gateway needs to find out about its ways to other sites."""

from collections.abc import Set
from typing import Protocol

from intertie.nodeagent.domain.ways import Answer


class Echoes(Protocol):
    """Small probes to other sites' gateways, and what comes back."""

    def ask(self, addresses: Set[str]) -> frozenset[str]:
        """Sends each of them a probe. Those that got one, or that no probe gets to as things are:
        of the others, whom this host has not asked for reasons of its own, one learns nothing.
        What goes on for others ends."""
        ...

    def answers(self) -> tuple[Answer, ...]:
        """That came since it was last asked, each once."""
        ...
