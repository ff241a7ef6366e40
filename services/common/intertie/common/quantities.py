"""The vector of what hosts have and workspaces take."""

from collections.abc import Callable, Iterator
from operator import add, attrgetter, le, sub

from intertie.common.errors import Shortfall
from intertie.common.values import Struct, field_names


class Vector(Struct, frozen=True, kw_only=True):
    """Amounts of a host's resources. Compared in every dimension: `a <= b` says that a fits b,
    so neither `a <= b` nor `b <= a` may hold."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    iops: int = 0
    throughput_mib_s: int = 0
    uplink_mbit_s: int = 0

    def __add__(self, other: "Vector") -> "Vector":
        return _vector(*map(add, _amounts(self), _amounts(other)))

    def __sub__(self, other: "Vector") -> "Vector":
        """May be negative where more is taken away than there is."""
        return _vector(*map(sub, _amounts(self), _amounts(other)))

    def __mul__(self, times: int) -> "Vector":
        return _vector(*(each * times for each in _amounts(self)))

    def __le__(self, other: "Vector") -> bool:
        return all(map(le, _amounts(self), _amounts(other)))

    def __ge__(self, other: "Vector") -> bool:
        return other <= self

    def at_most(self, other: "Vector") -> "Vector":
        """The lesser of the two in every dimension."""
        return _vector(*map(min, _amounts(self), _amounts(other)))

    def at_least(self, other: "Vector") -> "Vector":
        """The greater of the two in every dimension."""
        return _vector(*map(max, _amounts(self), _amounts(other)))

    def at_least_zero(self) -> "Vector":
        return _vector(*(max(each, 0) for each in _amounts(self)))

    def items(self) -> Iterator[tuple[str, int]]:
        """Field name and amount, in the order of DIMENSIONS."""
        return iter(zip(DIMENSIONS, _amounts(self), strict=True))

    def shortfall_from(
        self, available: "Vector", *, site: str, host: str = "", group: str = ""
    ) -> tuple[Shortfall, ...]:
        """Every dimension in which this, wanted, is more than is available."""
        free = dict(available.items())
        return tuple(
            Shortfall(
                site=site,
                host=host,
                group=group,
                resource=RESOURCE_OF[name],
                wanted=wanted,
                available=max(free[name], 0),
                unit=UNIT_OF[name],
            )
            for name, wanted in self.items()
            if wanted > free[name]
        )


DIMENSIONS: tuple[str, ...] = field_names(Vector)

_amounts: Callable[[Vector], tuple[int, ...]] = attrgetter(*DIMENSIONS)
"""In the order of DIMENSIONS. Not `astuple`, which copies deeply: it was two fifths of the time of
an admission beside 256 parts."""

RESOURCE_OF: dict[str, str] = {
    "vcpus": "vcpus",
    "memory_mib": "memory",
    "disk_mib": "disk",
    "iops": "iops",
    "throughput_mib_s": "throughput",
    "uplink_mbit_s": "uplink",
}
"""What types.v1.Shortfall.resource calls each dimension."""

UNIT_OF: dict[str, str] = {
    "vcpus": "vCPU",
    "memory_mib": "MiB",
    "disk_mib": "MiB",
    "iops": "1/s",
    "throughput_mib_s": "MiB/s",
    "uplink_mbit_s": "Mbit/s",
}


def _vector(
    vcpus: int, memory_mib: int, disk_mib: int, iops: int, throughput_mib_s: int, uplink_mbit_s: int
) -> Vector:
    """In the order of DIMENSIONS."""
    return Vector(
        vcpus=vcpus,
        memory_mib=memory_mib,
        disk_mib=disk_mib,
        iops=iops,
        throughput_mib_s=throughput_mib_s,
        uplink_mbit_s=uplink_mbit_s,
    )
