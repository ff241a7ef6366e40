"""What a guest has while it runs, against what it is to have by the newest record."""

from collections.abc import Iterator
from dataclasses import dataclass

from intertie.common.terms import Allocation

CPU_PERIOD_US = 100_000
MEMORY_BLOCK_MIB = 128
"""What a guest's kernel takes of memory is a multiple of it, on x86 with Linux."""
MEMORY_SLOTS = 16
"""Modules that can be plugged into a guest that may grow."""
_SHARES_PER_VCPU = 1024
_LEAST_QUOTA_US = 1000
"""The kernel takes none below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestTerms:
    """What of an allocation is the hypervisor's to keep; bandwidth is the host's network's."""

    vcpus: int
    memory_mib: int
    disk_mib: int
    cap_iops: int
    """0: no cap."""
    cap_mib_s: int
    cpu_shares: int | None
    """None: nobody keeps to any, nor to a quota, as on a host without cgroups."""
    cpu_quota_us: int | None
    """Of each vCPU, in CPU_PERIOD_US."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A guest that runs or is paused."""

    terms: GuestTerms
    most_memory_mib: int = 0
    """As much as it may have before its next start; 0: as much as it has."""
    modules: tuple[int, ...] = ()
    """MiB of each memory module that was plugged in since its start."""
    most_vcpus: int = 0
    """As many as it may have before its next start; 0: as many as it has."""
    idle_vcpus: int = 0
    """Of those that were plugged in since its start, how many have not run."""
    stands_still: bool = False
    """It was paused for a change, and nobody had it go on."""
    limit_off: bool = False
    """Its emulator is held to another amount of memory than goes with what the guest has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapDisk:
    iops: int
    """0: no cap."""
    mib_s: int

    def __str__(self) -> str:
        return f"a disk of at most {self.iops or 'any'} IOPS and {self.mib_s or 'any'} MiB/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowDisk:
    mib: int

    def __str__(self) -> str:
        return f"a disk of {self.mib} MiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighCpu:
    shares: int
    quota_us: int
    """Of each vCPU, in CPU_PERIOD_US."""

    def __str__(self) -> str:
        return f"{self.shares} CPU shares, and {self.quota_us / CPU_PERIOD_US:.0%} of each vCPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugMemory:
    """One module. What is not plugged in is nowhere in the guest's address space.

    None is taken out of a guest that runs: one that needed it was seen to stand still over it.
    """

    mib: int
    total_mib: int
    """What it has with it. A module for a total that was plugged in already is refused, so that one
    of which nothing was heard is not plugged in twice."""

    def __str__(self) -> str:
        return f"{self.total_mib} MiB of memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugVcpus:
    """None is taken out of a guest that runs: an emulator was seen to die of the next one."""

    total: int
    """What it has with them. A guest that has so many is refused, so that none is taken out."""

    def __str__(self) -> str:
        return f"{self.total} vCPUs"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitMemory:
    """To what goes with what the guest has: it is not held to anything while a module comes."""

    def __str__(self) -> str:
        return "an emulator that is held to the memory that goes with the guest's"


@dataclass(frozen=True, slots=True, kw_only=True)
class LetGoOn:
    """Whoever paused it for a change did not live to do it."""

    def __str__(self) -> str:
        return "a guest that goes on"


Change = CapDisk | GrowDisk | WeighCpu | PlugMemory | PlugVcpus | LimitMemory | LetGoOn
"""One thing to do to a guest that runs; as text, what it has afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """What is between the terms that are in force and those that are wanted; empty: nothing."""

    changes: tuple[Change, ...] = ()
    """Can be done while the guest runs; each by itself, in any order."""
    waits: tuple[str, ...] = ()
    """Comes with the guest's next start, or never: in words."""
    left_to_guest: tuple[str, ...] = ()
    """Its host has done its part; in words."""


def terms_of(allocation: Allocation, *, cgroups: bool) -> GuestTerms:
    """As a guest gets them that is started now."""
    disk = allocation.disk
    return GuestTerms(
        vcpus=allocation.vcpus,
        memory_mib=allocation.memory_mib,
        disk_mib=allocation.disk_mib,
        cap_iops=disk.cap_iops or disk.guarantee_iops,
        cap_mib_s=disk.cap_mib_s or disk.guarantee_mib_s,
        cpu_shares=_SHARES_PER_VCPU * allocation.vcpus if cgroups else None,
        cpu_quota_us=CPU_PERIOD_US if cgroups else None,
    )


def most_memory_mib(memory_mib: int, growth: int) -> int:
    """What a guest that starts with so much may grow to, by whole blocks, where the site lets one
    have `growth` times as much."""
    return memory_mib + (growth - 1) * memory_mib // MEMORY_BLOCK_MIB * MEMORY_BLOCK_MIB


def most_vcpus(vcpus: int, growth: int, *, host_vcpus: int) -> int:
    """What a guest that starts with so many may grow to, where the site lets one have `growth`
    times as many: no more than its host has, unless it starts with more."""
    return max(vcpus, min(vcpus * growth, host_vcpus))


def lacking(running: Running, wanted: GuestTerms) -> Lacking:
    """What is to be done about a guest that runs, and what it has to wait for."""
    more_mib = wanted.memory_mib - running.terms.memory_mib
    changes, waits = [*_changes(running.terms, wanted)], [*_waits(running.terms, wanted)]
    if more_mib and _can_plug(running, more_mib):
        changes.append(PlugMemory(mib=more_mib, total_mib=wanted.memory_mib))
    elif more_mib:
        waits.insert(0, _memory_waits(running.terms.memory_mib, wanted.memory_mib))
    if running.stands_still:
        changes.append(LetGoOn())
    if running.limit_off:
        changes.append(LimitMemory())
    if running.terms.vcpus < wanted.vcpus <= running.most_vcpus:
        changes.append(PlugVcpus(total=wanted.vcpus))
    elif running.terms.vcpus != wanted.vcpus:
        has = running.terms.vcpus
        waits.append(f"{wanted.vcpus} vCPUs at its next start; until then {has}")
    return Lacking(
        changes=tuple(changes), waits=tuple(waits), left_to_guest=tuple(_left_to_guest(running))
    )


def _left_to_guest(running: Running) -> Iterator[str]:
    if idle := running.idle_vcpus:
        yield (
            f"{idle} of its {running.terms.vcpus} vCPUs came while it ran and did not run yet:"
            " its kernel has to bring them online"
        )


def _can_plug(running: Running, more_mib: int) -> bool:
    fits = running.terms.memory_mib + more_mib <= running.most_memory_mib
    has_slot = len(running.modules) < MEMORY_SLOTS
    return more_mib > 0 and more_mib % MEMORY_BLOCK_MIB == 0 and fits and has_slot


def _memory_waits(has_mib: int, wanted_mib: int) -> str:
    return f"{wanted_mib} MiB of memory at its next start; until then {has_mib}"


def _changes(running: GuestTerms, wanted: GuestTerms) -> Iterator[Change]:
    caps = (wanted.cap_iops, wanted.cap_mib_s)
    if (running.cap_iops, running.cap_mib_s) != caps:
        yield CapDisk(iops=wanted.cap_iops, mib_s=wanted.cap_mib_s)
    if running.disk_mib < wanted.disk_mib:
        yield GrowDisk(mib=wanted.disk_mib)
    if wanted.cpu_shares is not None and wanted.cpu_quota_us is not None:
        due = _quota_us(wanted.cpu_quota_us, vcpus=running.vcpus, of=wanted.vcpus)
        if (running.cpu_shares, running.cpu_quota_us) != (wanted.cpu_shares, due):
            yield WeighCpu(shares=wanted.cpu_shares, quota_us=due)


def _quota_us(quota_us: int, *, vcpus: int, of: int) -> int:
    """So that a guest with more vCPUs than it is to have gets no more time than those `of` it is
    to have would; one that has fewer uses them in full."""
    return max(quota_us * min(vcpus, of) // vcpus, _LEAST_QUOTA_US)


def _waits(running: GuestTerms, wanted: GuestTerms) -> Iterator[str]:
    if running.disk_mib > wanted.disk_mib:
        yield f"its disk stays at {running.disk_mib} MiB: none is made smaller"
