"""A cluster as it is now, and again whenever it changes."""

from collections.abc import AsyncGenerator

from intertie.common.clock import Clock
from intertie.common.errors import NotLeading
from intertie.metasched.domain.cluster import ClusterView
from intertie.metasched.usecases.get_cluster import GetCluster

PERIOD_S = 1.0


class WatchCluster:
    def __init__(self, get_cluster: GetCluster, clock: Clock) -> None:
        self._get_cluster = get_cluster
        self._clock = clock
        self._stopping = False

    def stop(self) -> None:
        """Every stream ends within a period: the process is about to, and would else have to
        wait for callers that have no reason to go."""
        self._stopping = True

    async def __call__(self, name: str) -> AsyncGenerator[ClusterView, None]:
        """Until it is over. Sites are asked once a second; what changes between is merged.

        NotLeading once this replica stops: the caller watches on at another.
        """
        said: object = None
        while True:
            view = await self._get_cluster(name)
            if (view.etag, view.lost) != said:
                said = view.etag, view.lost
                yield view
            if view.record.over:
                return
            if self._stopping:
                raise NotLeading("")
            await self._clock.sleep(PERIOD_S)
