"""Who writes what only a leader may: from the writes themselves, whoever had won by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.sim.counting import read

Say = Callable[[Any, str], None]
LEADERS_OWN = (
    "ledger/",
    "parts/",
    "clusters/",
    "requests/",
    "forwards/",
    "wanted/",
    "hosts/",
    "vni/",
    "txs/",
    "settled/",
    "tombs/",
    "archive/",
)


class Leading:
    def __init__(self, say: Say) -> None:
        self._say = say
        self.holders: dict[str, str] = {}
        """Who leads, by store."""

    def write(self, written: Any) -> None:
        """No write of one that does not lead."""
        holder = self.holders.get(written.store, "")
        for key, value in written.puts:
            if key.startswith("election/"):
                self.holders[written.store] = written.writer
            elif _leaders_own(key, value) and written.writer != holder:
                self._say(written, f"{key} by {written.writer}, while {holder or 'nobody'} leads")
        for key in written.deleted:
            if key.startswith("election/"):
                self.holders[written.store] = ""
            elif key.startswith(LEADERS_OWN) and written.writer != holder:
                self._say(written, f"{key} deleted by {written.writer}, {holder or 'nobody'} leads")


def _leaders_own(key: str, value: bytes) -> bool:
    if key.startswith("decision/"):
        return bool(read(value)["outcome"] == "COMMIT")
    return key.startswith(LEADERS_OWN)
