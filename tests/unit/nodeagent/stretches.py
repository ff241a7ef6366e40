"""A lease of one guest that runs in stretches, on a host in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from intertie.common.values import replace
from intertie.nodeagent.domain.reconcile import Listing, WorkspaceState
from intertie.nodeagent.domain.report import SeenPart, SeenWorkspace
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, PART, WINDOW

DOMAIN = f"it-{A_UID}"
KEEP_UNTIL = WINDOW.end + timedelta(hours=5)
KEPT = replace(PART, keep_until=KEEP_UNTIL)


class Lease:
    """Of one guest, on one host, that runs in stretches."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.part = KEPT

    async def becomes(self, **terms: Any) -> None:
        """The broker has written its next record."""
        self.part = replace(self.part, generation=self.part.generation + 1, **terms)
        self.host.records.listing = Listing(parts=(self.part,))
        await self.passes()

    async def passes(self, number: int = 4) -> None:
        for _ in range(number):
            await self.host.agent.sweep()
            await self.host.clock.settle()

    async def comes_to(self, moment: Any) -> None:
        await self.host.clock.advance((moment - self.host.clock.now()).total_seconds())
        await self.passes()

    @property
    def told(self) -> SeenPart:
        assert self.host.agent.report is not None
        return next(each for each in self.host.agent.report if each.uid == PART.uid)

    @property
    def guest(self) -> SeenWorkspace:
        return self.told.workspaces[0]

    def state(self) -> WorkspaceState:
        return self.guest.state

    def obeyed(self) -> bool:
        return self.told.obeyed_generation == self.part.generation


async def running_lease() -> Lease:
    """Its guest runs and is ready."""
    host = Host()
    host.records.listing = Listing(parts=(KEPT,))
    host.images.here.add(DIGEST)
    made = Lease(host)
    await made.passes()
    host.channels.say(A_UID, host.clock.now())
    await made.passes()
    assert made.guest.ready_time is not None
    return made
