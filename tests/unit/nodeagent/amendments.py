"""Other terms for parts of a host, and what it says of them."""

from __future__ import annotations

from typing import Any

from intertie.common.values import replace
from intertie.nodeagent.domain.reconcile import Listing
from intertie.nodeagent.domain.report import SeenPart, SeenWorkspace
from intertie.nodeagent.domain.wanted import WantedPart
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, PART, WORKSPACE

DOMAIN = f"it-{A_UID}"


def amended(generation: int = 4, **allocation: Any) -> WantedPart:
    changed = replace(WORKSPACE, allocation=replace(WORKSPACE.allocation, **allocation))
    return replace(PART, generation=generation, workspaces=(changed,))


async def want(host: Host, *parts: WantedPart) -> None:
    host.records.listing = Listing(parts=parts)
    await host.agent.sweep()


def seen(host: Host) -> SeenPart:
    assert host.agent.report is not None
    [part] = host.agent.report
    return part


def workspace(host: Host, uid: str = A_UID) -> SeenWorkspace:
    return next(each for each in seen(host).workspaces if each.uid == uid)
