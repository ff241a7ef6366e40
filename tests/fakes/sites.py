"""Sites in memory, and wires to them that lose messages and are late."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from intertie.common.actions import Action
from intertie.common.clock import Clock
from intertie.common.errors import ClockSkew, DomainError, SiteUnreachable
from intertie.common.intervals import Window
from intertie.common.names import PartName
from intertie.common.values import replace
from intertie.metasched.domain.cluster import PartSeen
from intertie.metasched.domain.commit import Decision
from intertie.metasched.domain.ports import HoldOrder, Prepared, Terms
from intertie.metasched.domain.problem import ImageFound, LinkRoom, Offer
from tests.fakes.site import FakeSite, Fault, Late

T = TypeVar("T")


class MemorySites:
    """domain.ports.Sites over fake sites."""

    def __init__(self, *sites: FakeSite) -> None:
        self.by_name = {site.name: site for site in sites}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.by_name)

    async def offers(
        self,
        site: str,
        tenant: str,
        windows: tuple[Window, ...],
        images: tuple[str, ...],
        *,
        before_others: bool = False,
    ) -> tuple[Offer, ...]:
        def asked(at: FakeSite) -> tuple[Offer, ...]:
            return tuple(at.offer(each, before_others=before_others) for each in windows)

        return await self._call(site, "offers", asked)

    async def prepare(self, order: HoldOrder) -> Prepared:
        def obey(at: FakeSite) -> Prepared:
            return Prepared(receipt=at.prepare(order), seen=at.look(order.part))

        return await self._call(order.part.site, "prepare", obey)

    async def act(
        self,
        part: PartName,
        action: Action,
        workspaces: Sequence[str],
        *,
        image: str,
        request_id: str,
    ) -> PartSeen:
        def obey(at: FakeSite) -> PartSeen:
            at.acts.append((request_id, action, tuple(workspaces)))
            return at.look(part)

        return await self._call(part.site, "act", obey)

    async def resolve(
        self, part: PartName, decision: Decision, terms: Terms | None = None
    ) -> PartSeen:
        def obey(at: FakeSite) -> PartSeen:
            at.resolve(part, decision.outcome, decision.tx, terms)
            return at.look(part)

        return await self._call(part.site, "resolve", obey)

    async def release(self, part: PartName, reason: str) -> None:
        await self._call(part.site, "release", lambda at: at.release(part, reason))

    async def part(self, part: PartName) -> PartSeen:
        return await self._call(part.site, "part", lambda at: at.look(part))

    async def _call(self, name: str, method: str, act: Callable[[FakeSite], T]) -> T:
        site = self.by_name[name]
        site.calls.append(method)
        if site.down:
            raise SiteUnreachable(name, "it is down")
        fault = site.faults[method].pop(0) if site.faults[method] else None
        if isinstance(fault, DomainError):
            raise fault
        if isinstance(fault, Late):
            await site.clock.sleep(fault.seconds)
            raise ClockSkew(timedelta(seconds=fault.seconds + fault.ahead_s))
        if fault is Fault.LOSE_REQUEST:
            raise SiteUnreachable(name, "the request was lost")
        answer = act(site)
        if fault is Fault.LOSE_REPLY:
            raise SiteUnreachable(name, "the reply was lost")
        return answer


def two_sites(clock: Clock, image: ImageFound, *, vcpus: int = 4) -> tuple[FakeSite, FakeSite]:
    room = LinkRoom(egress_mbit_s=100, ingress_mbit_s=100, latency=timedelta(milliseconds=5))
    north = FakeSite(
        name="north",
        clock=clock,
        vcpus=vcpus,
        links={"south": room},
        images={"guest": image, image.digest: image},
    )
    return north, replace(
        north,
        name="south",
        links={"north": room},
        parts={},
        calls=[],
        faults=defaultdict(list),
        acts=[],
        seen={},
    )
