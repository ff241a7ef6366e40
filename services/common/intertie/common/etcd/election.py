"""Who of several replicas leads.

An etcd lease says only that a leader is alive. That it leads is said by its key, and every write
of a leader compares that key: a deposed leader that does not know it yet writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import EtcdUnavailable, NotLeading
from intertie.common.etcd.client import Compare, Etcd, EtcdRefused, Put, reach
from intertie.common.tasks import first_of

log = structlog.get_logger(__name__)

LEASE_TTL_S = 5
_RETRY_S = 0.5
_LOOK_S = 2.0
"""A waiting replica looks at the key this often, whatever its watch says."""


class Election:
    """One replica's view of the election `name`; `identity` is what the others see of it."""

    def __init__(self, etcd: Etcd, name: str, identity: str, clock: Clock) -> None:
        self._etcd = etcd
        self._key = f"election/{name}"
        self._identity = identity
        self._clock = clock
        self._created = 0
        self._leads = asyncio.Event()
        self._changed = asyncio.Event()
        self._lease = 0

    @property
    def is_leader(self) -> bool:
        """As far as this replica knows: good for deciding whether to try, not for safety."""
        return self._leads.is_set()

    def leader_guard(self) -> Compare:
        """To be added to every transaction of a leader. NotLeading when this replica is none."""
        if not self._leads.is_set():
            raise NotLeading("")
        return Compare.created(self._key, self._created)

    async def leader(self) -> str:
        """Who leads now; empty: nobody."""
        entry = await self._etcd.get(self._key)
        return entry.value.decode() if entry else ""

    async def wait_until_leading(self) -> None:
        await self._leads.wait()

    async def wait_until_deposed(self) -> None:
        """Returns at once when this replica does not lead."""
        while self._leads.is_set():
            self._changed.clear()
            await self._changed.wait()

    async def run(self) -> None:
        """Campaigns, leads, campaigns again, until cancelled; then gives the lead back at once."""
        try:
            while True:
                try:
                    await self._campaign()
                    await self._hold()
                except (EtcdUnavailable, EtcdRefused) as error:
                    log.warning("election.trouble", election=self._key, problem=str(error))
                self._depose()
                await self._give_up_lease()
                await self._clock.sleep(_RETRY_S)
        finally:
            self._depose()
            # Shielded: a cancelled replica still tells the others at once.
            await asyncio.shield(self._give_up_lease())

    async def _campaign(self) -> None:
        """Returns with the key written under a lease of ours."""
        while True:
            granted = await self._etcd.grant(LEASE_TTL_S)
            # One from before an outage still holds the key, and no one else needs to wait for it.
            await self._give_up_lease()
            self._lease = granted
            done = await self._etcd.txn(
                [Compare.absent(self._key)],
                [Put(self._key, self._identity.encode(), lease=self._lease)],
            )
            if done.succeeded:
                self._created = done.revision
                self._leads.set()
                log.info("election.leading", election=self._key, identity=self._identity)
                return
            await self._give_up_lease()
            await self._wait_for_vacancy()

    async def _wait_for_vacancy(self) -> None:
        while True:
            snapshot = await self._etcd.range(self._key)
            if not any(each.key == self._key for each in snapshot.entries):
                return
            changes = self._etcd.watch(self._key, snapshot.revision + 1)
            try:
                await first_of(self._clock.sleep(_LOOK_S), anext(changes, None))
            finally:
                await changes.aclose()

    async def _hold(self) -> None:
        """Returns when leadership is lost, or could be: no answer for as long as the lease."""
        heard = self._clock.monotonic()
        while True:
            await self._clock.sleep(LEASE_TTL_S / 5)
            try:
                if not await self._renew() or not await self._is_ours():
                    log.warning("election.lost", election=self._key, identity=self._identity)
                    return
                heard = self._clock.monotonic()
            except EtcdUnavailable as error:
                silent_s = self._clock.monotonic() - heard
                if silent_s >= LEASE_TTL_S:
                    log.warning("election.silent", election=self._key, problem=str(error))
                    return

    async def _renew(self) -> bool:
        stream = self._etcd.leases.keep_alive(self._lease)
        try:
            async with asyncio.timeout(LEASE_TTL_S / 2):
                answer: Any = await reach(_first(stream))
        except TimeoutError as error:
            raise EtcdUnavailable("the lease's renewal was not answered") from error
        finally:
            stream.cancel()
        return answer is not None and answer.TTL > 0

    async def _is_ours(self) -> bool:
        entry = await self._etcd.get(self._key)
        return entry is not None and entry.create_revision == self._created

    def _depose(self) -> None:
        self._leads.clear()
        self._changed.set()
        self._created = 0

    async def _give_up_lease(self) -> None:
        """Without an answer it is tried again at the next campaign; or runs out by itself."""
        if self._lease:
            with contextlib.suppress(EtcdUnavailable, EtcdRefused):
                await reach(self._etcd.leases.revoke(self._lease, timeout=1.0))
                self._lease = 0


async def _first(stream: Any) -> Any:
    async for answer in stream:
        return answer
    return None
