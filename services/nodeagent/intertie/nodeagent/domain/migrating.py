"""A workspace that goes from one host of its site to another, while it runs or as it is put aside.

Who has it is by the source's word alone. Until the source has given it up, on its own disk and for
good, the copy at the other host stands still; from then on the source never starts it again.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path


class Role(Enum):
    """What a host has to do for it; as intertie.api.nodeagent.v1.Migration.Role, by name."""

    TAKE = "TAKE"
    SEND = "SEND"
    ANSWER = "ANSWER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    number: int
    """Another one each time that a workspace is to move."""
    role: Role
    host: str
    """The other one."""
    agent_address: str
    aside: bool = False
    """As it is put aside: its files are sent, and nothing of it runs anywhere meanwhile."""


class Outcome(Enum):
    """As intertie.api.nodeagent.v1.SeenMigration.State, by name."""

    READY = "READY"
    TAKEN = "TAKEN"
    KEPT = "KEPT"
    GIVEN = "GIVEN"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenMigration:
    number: int
    outcome: Outcome
    message: str = ""


class Channel(Enum):
    """What is tunnelled between the agents; as intertie.api.nodeagent.v1.TunnelRequest.Channel."""

    LIBVIRT = "LIBVIRT"
    MEMORY = "MEMORY"
    DISK = "DISK"
    DISK_FILE = "DISK_FILE"
    MEMORY_FILE = "MEMORY_FILE"


FILES = (Channel.MEMORY_FILE, Channel.DISK_FILE)
"""Of one that goes as it is put aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearing:
    """What the other host notes of one that comes, before anything of it does."""

    ready_time: datetime | None = None
    """When it became ready: it need not say so again."""
    boots: int = 0
    """As in Note."""
    powered_off: bool = False
    frozen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How a hypervisor sends a guest: sockets on this host, each with a tunnel behind it."""

    libvirt: Path
    memory: Path
    """This and the disk's are of the same names on both hosts: hypervisors are told one for both
    ends."""
    disk: Path
    here: Path
    """Folder of the agent's files on this host."""
    there: Path
    """Likewise on the other one."""
    mib_s: int
    """The most that its memory and its disk may take of the underlay, each."""
