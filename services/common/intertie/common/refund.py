"""What is given back of a lease's price."""

from intertie.common.intervals import Window
from intertie.common.values import Struct

GUARANTEE = "GUARANTEE"
"""Why: a promise was not kept."""


class RefundItem(Struct, frozen=True, kw_only=True):
    site: str
    reason: str
    """GUARANTEE, or why the lease ended before its window was over."""
    kind: int = 0
    """Of the promise, as GuaranteeKind; 0: of none."""
    network: str = ""
    source: str = ""
    target: str = ""
    window: Window
    promised: int = 0
    measured: float = 0.0
    """Mean over the window."""
    amount: float

    @property
    def subject(self) -> tuple[int, str, str, str]:
        """One direction of one promise."""
        return self.kind, self.network, self.source, self.target
