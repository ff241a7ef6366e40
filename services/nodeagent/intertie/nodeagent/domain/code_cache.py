"""Whether an emulator has room for the code of one more vCPU.

QEMU cuts its cache of translated code into regions. Each vCPU that translates has one that is its
own, and takes another when that is full; once there is none left, all of the cache is emptied. A
vCPU that comes while there is none left ends the emulator (`tcg_region_initial_alloc__locked`),
and a guest that has just booted, or has run for long, is there as often as not.
"""

import re
from dataclasses import dataclass

from intertie.nodeagent.domain.failures import HostFailure

_LEAST_REGION_MIB = 2
_REGIONS_PER_VCPU = 8
_SPARE = 1
"""The first region is a little smaller than the others: so many more may be taken than is seen."""
_SIZE = re.compile(r"gen code size\s+(\d+)/(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCache:
    mib: int
    most_vcpus: int
    """That the guest may ever have."""
    said: str
    """By the emulator, of what is in it (`x-query-jit`)."""


def regions(cache_mib: int, most_vcpus: int) -> int:
    """How many QEMU makes of a cache (`tcg_n_regions`, since 2.11)."""
    most = cache_mib // _LEAST_REGION_MIB
    return most_vcpus if most <= most_vcpus else min(most, most_vcpus * _REGIONS_PER_VCPU)


def has_room(cache: CodeCache, *, total: int) -> bool:
    """Whether a guest that stands still can be given more vCPUs until it has `total`; HostFailure
    where its emulator does not tell."""
    found = _SIZE.search(cache.said)
    if found is None or int(found[2]) <= 0:
        raise HostFailure("its emulator does not tell what is in its cache of translated code")
    used, size = int(found[1]), int(found[2])
    number = regions(cache.mib, cache.most_vcpus)
    full = used * number // size
    return full + total + _SPARE <= number
