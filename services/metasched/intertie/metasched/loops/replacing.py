"""Has what clusters lost with a site begin anew elsewhere."""

import asyncio
from collections.abc import Mapping

import structlog

from intertie.common.errors import DomainError, EtcdUnavailable, NotLeading
from intertie.metasched.usecases.coallocate import Refused
from intertie.metasched.usecases.losses import Losses
from intertie.metasched.usecases.replace_lost import ReplaceLost

log = structlog.get_logger(__name__)

AT_A_TIME = 4


class Replacing:
    def __init__(self, losses: Losses, replace_lost: ReplaceLost) -> None:
        self._losses = losses
        self._replace_lost = replace_lost

    async def sweep(self) -> None:
        """One pass over what is lost now, a few clusters at a time."""
        turns = asyncio.Semaphore(AT_A_TIME)

        async def one(uid: str, name: str, lost: Mapping[str, str]) -> None:
            async with turns:
                await self._one(uid, name, lost)

        await asyncio.gather(*(one(*each) for each in self._losses.due()))

    async def _one(self, uid: str, name: str, lost: Mapping[str, str]) -> None:
        log.info("replacing.lost", cluster=name, sites=sorted(lost.items()))
        try:
            await self._replace_lost(name, lost)
        except (EtcdUnavailable, NotLeading):
            raise
        except (Refused, DomainError) as error:
            log.warning("replacing.nowhere", cluster=name, problem=str(error))
            self._losses.tried(uid, str(error))
        else:
            self._losses.had(uid)
