"""What the passes need of the host and of the site; adapters provide it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from intertie.nodeagent.domain.domain_xml import Machine
from intertie.nodeagent.domain.guest_terms import Change, Running
from intertie.nodeagent.domain.incast import Arrivals
from intertie.nodeagent.domain.measured import DiskCounters, Measured, QueueCounters
from intertie.nodeagent.domain.meters import Promise, Queue
from intertie.nodeagent.domain.migrating import Bearing, Channel, Migration, Route
from intertie.nodeagent.domain.network_plan import NetworkPlan
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import DomainState, Kept, Listing
from intertie.nodeagent.domain.report import HostFacts, SeenPart
from intertie.nodeagent.domain.sign_of_life import SignOfLife
from intertie.nodeagent.domain.traffic_plan import DevicePlan, IncastShare, NicPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainCounters:
    """Since the guest was started."""

    made: str = ""
    """Another one for each start."""
    cpu_time_ns: int = 0
    read_bytes: int = 0
    read_operations: int = 0
    write_bytes: int = 0
    write_operations: int = 0
    read_time_ns: int = 0
    """Sum of what each read took; throttling counts."""
    write_time_ns: int = 0
    """These of its root disk."""
    others: Mapping[str, DiskCounters] = field(default_factory=dict)
    """Of those beside it and the seed, by device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCounters:
    """Since the class was made."""

    bytes: int = 0
    packets: int = 0
    overlimits: int = 0
    drops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """A verified image on this host, shared by all guests that run it."""

    path: str
    format: str
    """`raw` or `qcow2`"""
    virtual_size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What came of a network plan; all empty when everything is as planned."""

    missing: frozenset[str] = frozenset()
    """Devices that could not be made."""
    left: frozenset[str] = frozenset()
    """Devices that could not be removed."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What guests a host can run."""

    kinds: tuple[str, ...]
    """Domain types, the preferred one first."""
    architecture: str
    """As libvirt calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyJob:
    """How far a copy is that a guest's emulator makes of its disk."""

    over: bool
    done_bytes: int = 0
    total_bytes: int = 0
    problem: str = ""
    """Of one that is over: why it is none; empty: it is whole."""


class Hypervisor(Protocol):
    """Every method raises HypervisorSilent when libvirt does not answer in time."""

    async def states(self) -> Mapping[str, DomainState]:
        """Of this agent's domains, by name."""
        ...

    async def define(self, machine: Machine, kind: str) -> None: ...

    async def start(self, name: str) -> None: ...

    async def resume(self, name: str) -> None:
        """Goes on where it was paused."""
        ...

    async def pause(self, name: str) -> None: ...

    async def press(self, name: str) -> None:
        """The power button; what comes of it is the guest's affair."""
        ...

    async def save(self, name: str, path: str) -> None:
        """Writes the guest's memory to a file, and stops it; takes its time. HostFailure: it goes
        on as before, and what the file has is nothing."""
        ...

    async def restore(self, name: str, path: str) -> None:
        """The guest is as `save` found it, on whatever host that was, and paused; takes its time.
        HostFailure: it is not there, and what `save` wrote is as good as before."""
        ...

    async def memory_mib(self) -> Mapping[str, int]:
        """MiB, by name, of those that are there: they run, are paused, being saved or restored."""
        ...

    async def saved_mib(self, path: str) -> int:
        """What a guest has when it goes on with what `save` wrote. HostFailure: nobody can."""
        ...

    async def is_whole(self, path: str) -> bool:
        """Whether what `save` began to write was written to its end."""
        ...

    async def send(self, name: str, route: Route) -> None:
        """To another host while it runs, where it stands still then; here it is off. Takes its
        time. HostFailure: it goes on here, or stands IN_TRANSIT, and what is there is nothing, or
        stands still."""
        ...

    async def break_off(self, name: str) -> None:
        """What `send` is at; that one fails then, if it was not done already."""
        ...

    async def stop(self, name: str) -> None:
        """Pulls the plug. The domain stays defined."""
        ...

    async def remove(self, name: str) -> None:
        """Nothing is left of the domain, whether it ran or not."""
        ...

    async def running(self, name: str) -> Running:
        """HostFailure of a guest that neither runs nor is paused."""
        ...

    async def change(self, name: str, change: Change) -> None:
        """While it runs. HostFailure: it was not done, and the guest goes on as before."""
        ...

    async def use_vcpus(self, name: str) -> None:
        """Has the guest's agent bring online what came while it ran. HostFailure: it has none that
        does."""
        ...

    async def begin_copy(self, name: str, target: str, *, quiesce: bool) -> bool:
        """Begins to copy the root disk, as it is at this moment, to a file that is there and has
        its size, while the guest goes on. Whether the guest's agent had written its file systems
        out, where it was asked to `quiesce` them; it was asked to thaw them when this returns, and
        may do either later. HostFailure: nothing was begun."""
        ...

    async def thaw(self, name: str) -> bool:
        """Has the guest's agent thaw its file systems. Whether it says that they are; HostFailure:
        it says nothing."""
        ...

    async def copy_job(self, name: str) -> CopyJob:
        """HostFailure of a guest that is off."""
        ...

    async def end_copy(self, name: str) -> None:
        """None is being made, if there is such a guest."""
        ...

    async def agent_answers(self, name: str) -> bool:
        """The QEMU guest agent answers a ping."""
        ...

    async def counters(self) -> Mapping[str, DomainCounters]:
        """Of all guests that run, in one call."""
        ...


class HostNetwork(Protocol):
    async def apply(self, plan: NetworkPlan) -> "Applied":
        """Makes what is missing, removes what is the agent's and not in the plan.

        What cannot be done for one network does not keep it from the others.
        """
        ...

    async def send_on(self, plan: NetworkPlan) -> None:
        """What this host has given up is sent on from now on, as in a plan of the parts that it is
        of; all else of it waits for `apply`. HostFailure."""
        ...


class Traffic(Protocol):
    async def apply_device(self, plan: DevicePlan) -> None: ...

    async def apply_nics(self, nics: tuple[NicPlan, ...]) -> None:
        """Makes what is missing, removes ifbs that are not in the plan."""
        ...

    async def device_counters(self, device: str) -> Mapping[str, ClassCounters]:
        """By key of the class."""
        ...

    async def nic_counters(self, device: str) -> ClassCounters: ...

    async def queues(self) -> Mapping[Queue, QueueCounters]:
        """Of every class that has packets of its own, and of whole devices, by one program."""
        ...


class Uplink(Protocol):
    """The interface towards the other hosts of the site."""

    def arrivals(self) -> Arrivals:
        """OSError when the interface is gone."""
        ...


class Storage(Protocol):
    """Disks, seeds, sockets and logs of workspaces."""

    def has_disk(self, uid: str) -> bool: ...

    def has_seed(self, uid: str) -> bool: ...

    def uids(self) -> frozenset[str]:
        """Every workspace that has left anything here."""
        ...

    def disk_mib(self, uid: str) -> int:
        """As large as its guest sees it."""
        ...

    def memory(self, uid: str) -> Memory:
        """What is kept of its memory."""
        ...

    def memory_bytes(self, uid: str) -> int:
        """Of the file that it is kept in, as far as that is written; 0 where there is none."""
        ...

    async def keep_memory(self, uid: str) -> None:
        """SAVING becomes SAVED."""
        ...

    def take_memory(self, uid: str) -> None:
        """SAVED becomes RESTORING."""
        ...

    def discard_memory(self, uid: str) -> None: ...

    def is_given(self, uid: str) -> bool:
        """It was given up to another host, and has no disk here since."""
        ...

    async def give(self, uid: str) -> None:
        """Puts its disk away for good; done before it returns, whatever becomes of this host."""
        ...

    def coming(
        self, uid: str, channel: Channel, size_bytes: int, base: BaseImage
    ) -> AbstractAsyncContextManager["Stream"]:
        """Takes a file of one that comes as it is put aside, which is over `base` here; what was
        there of it is overwritten. Once it was sent to its end and is on the disk itself, its
        digest is received; HostFailure where it is not."""
        ...

    def coming_bytes(self, uid: str, channel: Channel) -> int:
        """How much of it has come; 0 once it has."""
        ...

    def has_come(self, uid: str) -> bool:
        """All of it, and nobody has said yet that it is this host's."""
        ...

    async def take_in(self, uid: str) -> None:
        """They are, for good; done before it returns, whatever becomes of this host."""
        ...

    async def make_disk(self, uid: str, base: BaseImage, size_mib: int) -> None: ...

    async def grow_disk(self, uid: str, size_mib: int) -> None:
        """Of a guest that does not run."""
        ...

    def has_volume(self, uid: str, number: int) -> bool: ...

    async def make_volume(self, uid: str, number: int, size_mib: int) -> None:
        """Empty; `number` is its place among the disks beside the root disk."""
        ...

    async def make_seed(self, uid: str, files: Mapping[str, bytes]) -> None: ...

    async def remove(self, uid: str) -> None: ...

    def room_mib(self) -> int:
        """What the file system of guests' disks takes now."""
        ...

    def free_mib(self) -> int: ...

    def owed_mib(self) -> int:
        """What the disks here may grow by yet, all together."""
        ...


class Images(Protocol):
    def ready(self, digest: str) -> BaseImage | None: ...

    def has_data(self, digest: str) -> bool:
        """All of its octets are here, whatever they are."""
        ...

    def request(self, digest: str, tenant: str, *, data: bool = False) -> None:
        """Begins to fetch it, unless that goes on already; what is `data` need be no image.

        Raises HostFailure with what went wrong the last time, once.
        """
        ...

    def progress(self, digest: str) -> Staging: ...

    def retain(self, digests: frozenset[str]) -> None:
        """Those that are in use; others may go when room is short."""
        ...


class Records(Protocol):
    """Every method raises RecordsUnreadable when the site's records cannot be had."""

    async def wanted(self) -> Listing: ...

    def hints(self) -> AsyncIterator[None]:
        """Yields when something may have changed; ends on trouble."""
        ...

    async def write_facts(self, facts: HostFacts, *, now: datetime) -> None: ...

    async def write_measured(self, found: Mapping[Promise, Measured], *, at: datetime) -> None:
        """All that is measured on this host; replaces what was written before."""
        ...

    async def write_share(self, share: IncastShare, *, at: datetime) -> None:
        """What this host asks of those that send to it."""
        ...

    async def delete_share(self) -> None: ...

    async def shares(self) -> Mapping[str, tuple[int, IncastShare]]:
        """By host, each with a number that is another one whenever it was written again."""
        ...

    def share_hints(self) -> AsyncIterator[None]:
        """Yields when some host's share may have changed; ends on trouble."""
        ...

    async def seen_uids(self) -> frozenset[str]: ...

    async def write_seen(self, part: SeenPart, *, now: datetime) -> None: ...

    async def delete_seen(self, part_uid: str) -> None: ...


Deliver = Callable[[Channel], Awaitable[None]]
"""Sends a file of one that is put aside; it is on the other host's disk, and the same there, once
that returns. HostFailure."""


class Peers(Protocol):
    """The agents of the site's other hosts, each known by its certificate. All raise
    HostFailure."""

    def route(
        self, uid: str, migration: Migration, bearing: Bearing
    ) -> AbstractAsyncContextManager[Route]:
        """Open while it is entered: the other host has said that it takes it now."""
        ...

    def delivery(
        self, uid: str, migration: Migration, bearing: Bearing
    ) -> AbstractAsyncContextManager[Deliver]:
        """Likewise, of one that goes as it is put aside."""
        ...

    async def take_over(self, uid: str, migration: Migration) -> None:
        """This host has given it up. NotFound where that one is not to take it any more. While the
        route is open it takes no time."""
        ...


class ArrivalSockets(Protocol):
    """Where what takes a guest on this host listens."""

    def open(self, uid: str, channel: Channel) -> AbstractAsyncContextManager["Stream"]:
        """ConnectionRefused."""
        ...


class StateStore(Protocol):
    """Saving raises OSError, and leaves what was saved before."""

    def load(self) -> Kept | None:
        """None: nothing is known, as on a new host or with a damaged file."""
        ...

    def save(self, kept: Kept) -> None: ...

    def load_contact(self) -> datetime | None:
        """When the site's records were last read."""
        ...

    def save_contact(self, moment: datetime) -> None: ...

    def load_sign_of_life(self) -> SignOfLife | None: ...

    def save_sign_of_life(self, last: SignOfLife) -> None: ...


class Channels(Protocol):
    """Listens for guests that say that they are ready."""

    def listen(self, uid: str, nonce: str) -> None:
        """Begins to listen, unless that goes on already."""
        ...

    def close(self, uid: str) -> None: ...

    def heard(self) -> Mapping[str, datetime]:
        """Who has said so since it was last asked."""
        ...

    def listening(self) -> frozenset[str]: ...

    async def news(self) -> None:
        """Returns once a guest has said so that nobody was told of by this."""
        ...


class Stream(Protocol):
    """Bytes to and from a guest."""

    @property
    def taken(self) -> bool:
        """A later reader has it now."""
        ...

    def received(self) -> AsyncIterator[bytes]:
        """What the guest sends, at most 64 KiB at a time, until it sends no more."""
        ...

    async def send(self, data: bytes) -> None: ...

    def end(self) -> None:
        """Half closes it, where that exists."""
        ...

    def cut(self) -> None:
        """Ends it at once, both ways; what was not taken yet is lost."""
        ...


class Streams(Protocol):
    """Both raise ConnectionRefused; they close what they opened when they are left."""

    def console(self, uid: str, workspace: str) -> AbstractAsyncContextManager[Stream]:
        """Takes it from whoever has it: that one's stream ends with ConsoleTaken."""
        ...

    def tcp(
        self, address: str, device: str, port: int, workspace: str
    ) -> AbstractAsyncContextManager[Stream]:
        """`address` is a link-local one, `device` the bridge that it is on."""
        ...
