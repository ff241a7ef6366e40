"""Tells gateways what of the links to other sites is reserved for what stores send."""

from collections.abc import Iterable
from datetime import datetime

import structlog

from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.link_reservations import LinkReservation, due, reservations_of
from intertie.broker.domain.lost_hosts import HostRecord
from intertie.broker.domain.part import PartState
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.records import Change, Write
from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.common.values import replace

log = structlog.get_logger(__name__)

_GRANTED = (PartState.CONFIRMED, PartState.ENDED)
"""Parts for which something may have been sent for, or be still."""
LOOK_AGAIN_S = 30.0
"""All parts are looked at this often, should what was touched have been missed."""


class TellGateways:
    """Of a part that is given up its store may send on, by a grant that nobody can call back: so it
    is reserved until that ends, as long as the part is on record."""

    def __init__(self, ledger: Ledger, site: str, clock: Clock) -> None:
        self._ledger = ledger
        self._site = site
        self._clock = clock
        self._looked_at: object = None
        """The mapping of parts of which all were looked at."""
        self._looked_s = 0.0
        self._reserved: dict[str, tuple[LinkReservation, ...]] = {}
        """By part."""

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """Notes parts that were touched, all with a new book; writes what gateways do not know."""
        view, now = await self._ledger.view(), self._clock.now()
        now_s = self._clock.monotonic()
        if view.parts is not self._looked_at or now_s - self._looked_s >= LOOK_AGAIN_S:
            self._reserved.clear()
            self._note(view, view.parts)
            self._looked_at, self._looked_s = view.parts, now_s
        else:
            self._note(view, touched or ())
        reserved = due((each for own in self._reserved.values() for each in own), now=now)
        for host, record in _not_as(view, reserved, now):
            found = view.hosts.get(host)
            read_at = found.revision if found else 0
            try:
                await self._ledger.commit(Change(writes=(Write(record=record, read_at=read_at),)))
            except StaleWrite:
                log.debug("gateway.lost_race", host=host)

    def _note(self, view: LedgerView, names: Iterable[str]) -> None:
        for name in names:
            found = view.parts.get(name)
            reserved: tuple[LinkReservation, ...] = ()
            if found is not None and found.value.state in _GRANTED:
                reserved = tuple(reservations_of(found.value.spec, self._site))
            if reserved:
                self._reserved[name] = reserved
            else:
                self._reserved.pop(name, None)


def _not_as(
    view: LedgerView, reserved: tuple[LinkReservation, ...], now: datetime
) -> list[tuple[str, HostRecord]]:
    """Hosts that know something else: gateways, and those that were."""
    gateways = {each.host for each in view.fleet.members() if _is_gateway(each)}
    records = {name: each.value for name, each in view.hosts.items()}
    found = []
    for host in sorted(gateways.union(records)):
        record = records.get(host) or HostRecord(name=host, since=now)
        told = reserved if host in gateways else ()
        if record.reserved != told:
            found.append((host, replace(record, reserved=told)))
    return found


def _is_gateway(facts: HostFacts) -> bool:
    return facts.gateway and bool(facts.wide_address)
