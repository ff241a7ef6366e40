"""Which nodes are free right now, by number."""

from collections.abc import Iterable


class TakenTwice(Exception):
    """A bug of the scheduler: more were taken than are free."""


class Nodes:
    def __init__(self, count: int) -> None:
        self._free = set(range(count))

    def __len__(self) -> int:
        """How many are free."""
        return len(self._free)

    def take(self, count: int, *, rather: Iterable[int] = ()) -> tuple[int, ...]:
        """Those of `rather` that are free, then those with the lowest numbers."""
        if count > len(self._free):
            raise TakenTwice(f"{count} nodes wanted, {len(self._free)} free")
        chosen = [node for node in rather if node in self._free][:count]
        if len(chosen) < count:
            rest = sorted(self._free.difference(chosen))
            chosen += rest[: count - len(chosen)]
        self._free.difference_update(chosen)
        return tuple(sorted(chosen))

    def give_back(self, nodes: Iterable[int]) -> None:
        self._free.update(nodes)
