"""Has what clusters lost with a site begin anew elsewhere."""

import asyncio
from collections.abc import Mapping

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, EtcdUnavailable, NotLeading
from intertie.metasched.usecases.coallocate import Refused
from intertie.metasched.usecases.losses import Losses
from intertie.metasched.usecases.replace_lost import ReplaceLost

log = structlog.get_logger(__name__)

AT_A_TIME = 4


class Replacing:
    def __init__(self, losses: Losses, replace_lost: ReplaceLost, clock: Clock) -> None:
        self._losses = losses
        self._replace_lost = replace_lost
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """By cluster's uid."""

    async def sweep(self) -> None:
        """Begins with what is lost now, as far as there are turns free; it waits for none, so that
        what takes long keeps nobody else from an attempt."""
        for uid, name, lost in self._losses.due():
            if len(self._tasks) >= AT_A_TIME:
                return
            if uid not in self._tasks:
                task = asyncio.create_task(self._one(uid, name, lost))
                self._tasks[uid] = task
                task.add_done_callback(lambda _, uid=uid: self._tasks.pop(uid))  # type: ignore[misc]

    def begun(self) -> tuple[asyncio.Task[None], ...]:
        return tuple(self._tasks.values())

    async def _one(self, uid: str, name: str, lost: Mapping[str, str]) -> None:
        log.info("replacing.lost", cluster=name, sites=sorted(lost.items()))
        began_s = self._clock.monotonic()
        done = False
        try:
            done = await self._replace_lost(name, lost, still=lambda: self._losses.still(uid, lost))
        except (EtcdUnavailable, NotLeading) as error:
            log.info("replacing.not_tried", cluster=name, problem=str(error))
        except (Refused, DomainError) as error:
            log.warning("replacing.nowhere", cluster=name, problem=str(error))
            self._losses.tried(uid, str(error), began_s)
            return
        except Exception as error:
            # A bug: no cluster is kept half dead by it.
            log.error("replacing.failed", cluster=name, exc_info=error)
            self._losses.tried(uid, "internal error", began_s)
            return
        if done:
            self._losses.had(uid)
        else:
            self._losses.later(uid)
