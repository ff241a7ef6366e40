"""What a world is to be like, and all that it leaves behind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tests.sim.etcd_model import Written

SKEW_MAX_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How bad the world is, and for how long. Probabilities are of one message."""

    seed: int
    busy_s: float = 60.0
    settle_s: float = 150.0
    calls_per_user: int = 24
    stays: float = 0.3
    """Of clusters: they are to get other terms."""
    waits: float = 0.25
    """Of clusters: they wait for room, at one site, or are to be done by a deadline."""
    switched: float = 0.25
    """Of clusters: workspaces of them are suspended, resumed, stopped, started."""
    hosts_lost: float = 0.15
    """Of faults of processes, stores and points: a host is lost."""
    lost: float = 0.01
    doubled: float = 0.03
    slow: float = 0.04
    late: float = 0.04
    """Of transactions: one comes to etcd when its caller may wait no more, and is done."""
    event_lost: float = 0.02
    event_broken: float = 0.01
    trouble_s: float = 5.0
    """Mean time between two faults of processes, stores and points."""
    offset_s: float = 0.9
    """The most by which a clock is off."""

    @classmethod
    def of_seed(cls, seed: int) -> Profile:
        """Every third world has clocks off by minutes: there, nothing need be punctual."""
        return cls(seed=seed, offset_s=SKEW_MAX_S if seed % 3 == 2 else 0.9)


@dataclass(frozen=True, slots=True)
class Told:
    """One call, and what came of it as its user heard it."""

    began: float
    at: float
    user: str
    call: str
    cluster: str
    """Its id, which is this user's alone."""
    request_id: str
    outcome: str
    """`ok`, the name of the error, or `silence`."""
    uid: str = ""
    name: str = ""
    state: str = ""
    asked: str = ""
    """What an Update or an action asked for, as `wishes` says it."""


@dataclass(slots=True)
class Start:
    """A guest was started."""

    at: float
    site: str
    host: str
    domain: str


@dataclass(slots=True)
class Guest:
    """Something became of a guest, and it has so much of its host from then on."""

    at: float
    site: str
    host: str
    domain: str
    what: str
    """`start`, `change`, `save`, `saved`, `restore`, `restored`, `resume`, `off`, `power` or
    `gone`."""
    vcpus: int
    memory_mib: int


@dataclass(slots=True)
class Save:
    """An agent has written down on its disk which generation of each part it obeys."""

    at: float
    site: str
    host: str
    generations: dict[str, int]


@dataclass(slots=True)
class Paused:
    """The process of a service stood still."""

    service: str
    begin: float
    end: float


@dataclass(slots=True)
class Record:
    """All that a run left behind, for the checker."""

    profile: Profile
    writes: list[Written] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    guests: list[Guest] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
    points: dict[str, int] = field(default_factory=dict)
    """How often a fault befell a process at each named point."""
    faults: dict[str, int] = field(default_factory=dict)
    paused: list[Paused] = field(default_factory=list)
    fell: list[str] = field(default_factory=list)
    """Processes that nobody killed."""
    ended_at: float = 0.0
    busy_until: float = 0.0
    messages: int = 0
    transactions: int = 0
    offsets: dict[str, float] = field(default_factory=dict)
    """Seconds by which the clock of each service is ahead."""
    began: dict[str, float] = field(default_factory=dict)
    """When the process of each service did; not of those that are away."""
    running: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Guests that a host still has at the end."""
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    """What each of them is."""

    def digest(self) -> str:
        """Of everything that happened."""
        found = hashlib.blake2b(digest_size=16)
        for each in self.writes:
            found.update(repr(each).encode())
        for told in self.told:
            found.update(repr(told).encode())
        for guest in self.guests:
            found.update(repr(guest).encode())
        return found.hexdigest()
