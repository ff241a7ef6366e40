"""A site's power switch: slow at times, and at times it does not answer, and may have switched all
the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.ports import NotCertain
from tests.sim.virtual_loop import VirtualLoop, current

SLOW_S = 12.0


class PowerSwitch:
    """In the place of intertie.broker.adapters.fences.CommandFence."""

    def __init__(self, loop: VirtualLoop, off: Callable[[str, str], None], seed: int) -> None:
        self._loop = loop
        self._off = off
        self._random = random.Random(f"power/{seed}")

    async def fence(self, facts: HostFacts, silent_for: timedelta) -> str:
        site = current().name.rpartition("-")[0]
        draw = self._random
        await self._loop.sleep(draw.random() * (SLOW_S if draw.random() < 0.3 else 1.0))
        answer = draw.choice(("off", "off", "off", "silent", "lost"))
        if answer != "silent":
            self._off(site, facts.host)
        if answer != "off":
            raise NotCertain("the switch does not answer")
        return "the switch says that it is off"
