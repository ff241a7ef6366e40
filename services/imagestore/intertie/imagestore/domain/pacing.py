"""How fast a store sends to another site's: never more than was granted."""

from __future__ import annotations

import math
from datetime import datetime

from intertie.common.transfer import TransferGrant

BURST_S = 0.1
MESSAGE_BYTES = 256 * 1024
_BYTES_PER_MBIT = 125_000
_EXACT_S = 1e-6


def message_bytes(mbit_s: int) -> int:
    """Of one message: at a low rate no more than what half a burst takes, so that it goes out
    evenly and two streams have their turns."""
    return max(1, min(MESSAGE_BYTES, int(mbit_s * _BYTES_PER_MBIT * BURST_S) // 2))


class Pace:
    """Of all streams of one reservation together.

    Promised: within any time t, no more begins to be sent than the rate takes in t + BURST_S, if no
    message alone takes longer than BURST_S. Who could not send for a while may not make up for it.
    """

    def __init__(self, mbit_s: int) -> None:
        self.mbit_s = mbit_s
        self._free_at_s = -math.inf
        """When all that has gone would have been sent, at the rate."""

    def wait_s(self, size_bytes: int, now_s: float) -> float:
        """0: these bytes may go now, and count. Else: ask again after so long; who sleeps too long
        has let nothing go that would count for before."""
        cost_s = size_bytes / (self.mbit_s * _BYTES_PER_MBIT)
        done_s = max(self._free_at_s, now_s) + cost_s
        wait_s = done_s - max(BURST_S, cost_s) - now_s
        if wait_s > _EXACT_S:
            return wait_s
        self._free_at_s = done_s
        return 0.0


class Paces:
    """One for each reservation: grants of the same co-allocation, tenant, image and target."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[TransferGrant, Pace]] = {}
        """With the grant that was signed last."""

    def of(self, grant: TransferGrant, *, now: datetime) -> Pace:
        self._known = {key: known for key, known in self._known.items() if now < known[0].end_time}
        key = (grant.tx, grant.tenant, grant.digest, grant.target_site)
        last, pace = self._known.get(key, (grant, Pace(grant.mbit_s)))
        if grant.sign_time > last.sign_time:
            last, pace.mbit_s = grant, grant.mbit_s
        self._known[key] = last, pace
        return pace
