"""What it takes to put a lease aside with its memory, and to go on with it."""

from dataclasses import dataclass

from intertie.common.errors import FieldInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """Every node writes and reads its own memory, all nodes of a lease at the same time, and to
    a storage that all nodes reach: a lease may go on on other nodes."""

    memory_mib: int = 1024
    """Of one node of a lease."""
    mib_s: int = 50
    """From or to storage, of one node."""

    def __post_init__(self) -> None:
        for field in ("memory_mib", "mib_s"):
            if getattr(self, field) < 1:
                raise FieldInvalid(field, f"is {getattr(self, field)}; must be 1 or more")

    @property
    def suspend_s(self) -> int:
        """In which the nodes are the lease's still, and it does not run. A part of a second is
        a whole one."""
        return -(-self.memory_mib // self.mib_s)

    @property
    def resume_s(self) -> int:
        """In which the nodes are the lease's already, and it does not run yet."""
        return -(-self.memory_mib // self.mib_s)
