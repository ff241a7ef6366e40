"""How long it takes to put a lease aside and to go on with it, learned a host at a time; and how
long to send workspaces to other hosts."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta

from intertie.broker.domain.fleet import MemoryMove, Policy, SeenWorkspace
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.placed import Placed, hosts_of
from intertie.common.part_spec import PartSpec
from intertie.common.values import Struct, field

MARGIN = timedelta(seconds=1)
"""Of one that moves nothing yet: to be told, and to begin."""


TO_PREPARE = timedelta(seconds=30)
"""For hosts to be told of a migration, and to make what it needs."""


class Paces(Struct, frozen=True, kw_only=True):
    """In MiB a second, by host; of hosts that are not in them nothing was measured."""

    declared: int
    saved: Mapping[str, float] = field(default_factory=dict)
    restored: Mapping[str, float] = field(default_factory=dict)

    def save(self, spec: PartSpec, placed: Iterable[Placed]) -> timedelta:
        return self._longest(spec, placed, self.saved)

    def restore(self, spec: PartSpec, placed: Iterable[Placed]) -> timedelta:
        return self._longest(spec, placed, self.restored)

    def _longest(
        self, spec: PartSpec, placed: Iterable[Placed], paces: Mapping[str, float]
    ) -> timedelta:
        """All hosts at the same time, on each one guest after the other. Whole seconds."""
        host_of = hosts_of(placed)
        memory: dict[str, int] = {}
        for each in spec.workspaces:
            host = host_of[each.label]
            memory[host] = memory.get(host, 0) + each.allocation.memory_mib
        return max(
            (_taken(mib, paces.get(host, self.declared)) for host, mib in memory.items()),
            default=MARGIN,
        )

    def save_at_most(self, memory_mib: int, hosts: Iterable[str]) -> timedelta:
        """Wherever of these it comes to be."""
        slowest = min((self.saved.get(each, self.declared) for each in hosts), default=1.0)
        return _taken(memory_mib, slowest)


def _taken(memory_mib: int, mib_s: float) -> timedelta:
    return timedelta(seconds=math.ceil(memory_mib / mib_s)) + MARGIN


def paces_of(view: LedgerView, policy: Policy) -> Paces:
    """By the last moves of every guest that may be put aside: on each host, the slowest."""
    saved: dict[str, float] = {}
    restored: dict[str, float] = {}
    own = (view.parts.get(record.value.part) for record in view.in_line())
    for part in (*own, *view.recallables()):
        if part is None:
            continue
        for host, report in view.seen.get(part.value.uid, {}).items():
            for each in report.workspaces:
                _slowest(saved, host, each.saved)
                _slowest(restored, host, each.restored)
    return Paces(declared=policy.queue.pool_mib_s, saved=saved, restored=restored)


def to_send(moves: Iterable[tuple[PartSpec, Iterable[Placed]]], view: LedgerView) -> timedelta:
    """At most, until workspaces are at other hosts with all that they have: from each host that
    they are placed on one after the other, at half of its uplink, which is what migrations get."""
    by_host: dict[str, int] = {}
    for spec, placed in moves:
        allocations = {each.label: each.allocation for each in spec.workspaces}
        for each in placed:
            has = allocations[each.workspace]
            by_host[each.host] = by_host.get(each.host, 0) + has.disk_mib + has.memory_mib
    longest = max((mib / _sent_mib_s(view, host) for host, mib in by_host.items()), default=0.0)
    return timedelta(seconds=round(longest)) + TO_PREPARE


def _sent_mib_s(view: LedgerView, host: str) -> int:
    facts = view.fleet.facts.get(host)
    return max(facts.capacity.uplink_mbit_s // 16 if facts is not None else 0, 1)


def still(workspace: SeenWorkspace) -> bool:
    """Its memory and its processors are free."""
    return workspace.state.name not in ("RUNNING", "PAUSED")


def _slowest(paces: dict[str, float], host: str, move: MemoryMove | None) -> None:
    if move is None or move.octets <= 0 or move.duration <= timedelta():
        return
    pace = move.octets / (1 << 20) / (move.duration / timedelta(seconds=1))
    paces[host] = min(pace, paces.get(host, pace))
