"""Which records etcd has, as the replica that leads knows it: by key, the revision at which each
was last written.

It is what the book is compared by with what there is, without reading that again.
"""

from collections.abc import Iterable, Sequence

from intertie.broker.adapters import keys
from intertie.common.etcd.client import Entry, Op, Put


class Mirror:
    """Of everything that only the leader writes."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._revisions = {
            each.key: each.mod_revision for each in entries if each.key.startswith(keys.LEDGER)
        }
        self._earlier: dict[str, int] | None = None
        """While a comparison is under way: of what was written since it began, what was there
        then. 0: nothing."""

    def wrote(self, ops: Sequence[Op], revision: int) -> None:
        """What this replica has written in one transaction."""
        for op in ops:
            if not op.key.startswith(keys.LEDGER):
                continue
            if self._earlier is not None:
                self._earlier.setdefault(op.key, self._revisions.get(op.key, 0))
            if isinstance(op, Put):
                self._revisions[op.key] = revision
            else:
                self._revisions.pop(op.key, None)

    def compare(self) -> "Comparison":
        """With all keys as they are now in etcd. One at a time; what is written until it is
        over does not disturb it."""
        self._earlier = {}
        return Comparison(self._revisions, self._earlier)

    def compared(self) -> None:
        """The comparison is over."""
        self._earlier = None


class Comparison:
    """Of a listing that comes page by page with what was known when it began."""

    def __init__(self, revisions: dict[str, int], earlier: dict[str, int]) -> None:
        self._revisions = revisions
        self._earlier = earlier
        self._left = len(revisions)
        self._other = ""

    def take(self, page: Iterable[tuple[str, int]]) -> None:
        for key, revision in page:
            known = self._earlier.get(key)
            if known is None:
                known = self._revisions.get(key, 0)
            if known != revision:
                self._other = self._other or key
            self._left -= bool(known)

    def other(self) -> str:
        """Once all pages were taken: a key that is not as it was known, or that something is
        missing; empty where all is as it was known."""
        return self._other or (f"{self._left} keys that are gone" if self._left else "")
