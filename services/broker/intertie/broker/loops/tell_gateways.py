"""Tells gateways what of the links to other sites is reserved for what stores send."""

from collections.abc import Iterable

import structlog

from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.link_reservations import LinkReservation, due, reservations_of
from intertie.broker.domain.lost_hosts import HostRecord
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.records import Change, Write
from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.common.part_spec import Transfer
from intertie.common.values import replace

log = structlog.get_logger(__name__)

_GRANTED = (PartState.PREPARED, PartState.CONFIRMED, PartState.ENDED)
"""Parts for which other sites' stores may have what they need to fetch."""


class TellGateways:
    """Of a part that is given up its store may send on, by a grant that nobody can call back: so it
    is reserved until that ends, as long as the part is on record."""

    def __init__(self, ledger: Ledger, site: str, clock: Clock) -> None:
        self._ledger = ledger
        self._site = site
        self._clock = clock
        self._reserved: dict[str, tuple[LinkReservation, ...]] = {}
        """By part."""

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """Notes parts that were touched, all where that is None; writes what gateways do not
        know."""
        view = await self._ledger.view()
        if touched is None:
            self._reserved.clear()
        news = self._note(view, view.with_transfers() if touched is None else touched)
        if news or touched is None:
            await self._tell(view)

    def _note(self, view: LedgerView, names: Iterable[str]) -> bool:
        """Whether something is otherwise now."""
        news = False
        for name in names:
            found = view.parts.get(name)
            reserved: tuple[LinkReservation, ...] = ()
            if found is not None and found.value.state in _GRANTED:
                reserved = tuple(reservations_of(_granted(found.value), self._site))
            if reserved != self._reserved.pop(name, ()):
                news = True
            if reserved:
                self._reserved[name] = reserved
        return news

    async def _tell(self, view: LedgerView) -> None:
        """Gateways, and hosts that were. Those too that are admitted no more: what is on them goes
        on."""
        now = self._clock.now()
        reserved = due((each for own in self._reserved.values() for each in own), now=now)
        gateways = {each.host for each in view.fleet.facts.values() if _is_gateway(each)}
        for host in sorted(gateways.union(view.hosts)):
            # Read and written with no wait between: who leads has a view that goes on with it.
            found = view.hosts.get(host)
            record = found.value if found else HostRecord(name=host, since=now)
            told = reserved if host in gateways else ()
            if record.reserved == told:
                continue
            write = Write(
                record=replace(record, reserved=told), read_at=found.revision if found else 0
            )
            try:
                await self._ledger.commit(Change(writes=(write,)))
            except StaleWrite:
                log.debug("gateway.lost_race", host=host)


def _granted(part: Part) -> tuple[Transfer, ...]:
    """Those of other terms too that are prepared."""
    if part.amend is None or not part.bound:
        return part.spec.transfers
    return tuple(dict.fromkeys((*part.spec.transfers, *part.amend.spec.transfers)))


def _is_gateway(facts: HostFacts) -> bool:
    return facts.gateway and bool(facts.wide_address)
