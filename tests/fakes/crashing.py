"""A coordinator that dies at its n-th step, before or after the step took effect."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.fakes.site import FakeSite
from tests.fakes.sites import MemorySites, T


class Crash(Exception):
    """The process is gone: no use case catches this."""


class CrashingSites(MemorySites):
    """The coordinator dies at its n-th step, before or after the step took effect. Steps are
    messages to sites and, by `step`, writes to the register."""

    def __init__(self, sites: MemorySites, crash: "CrashPlan") -> None:
        self.by_name = sites.by_name
        self._crash = crash

    async def _call(self, name: str, method: str, act: Callable[[FakeSite], T]) -> T:
        if method in ("offers", "part"):
            return await super()._call(name, method, act)
        return await self._crash.step(lambda: super(CrashingSites, self)._call(name, method, act))


@dataclass(slots=True)
class CrashPlan:
    at: int
    after: bool
    steps: int = 0

    @property
    def happened(self) -> bool:
        return self.steps >= self.at

    async def step(self, act: Callable[[], Awaitable[T]]) -> T:
        if self.happened:
            raise Crash
        self.steps += 1
        if self.happened and not self.after:
            raise Crash
        answer = await act()
        if self.happened:
            raise Crash
        return answer
