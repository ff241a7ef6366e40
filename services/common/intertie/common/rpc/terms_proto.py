"""Quantities, moments and terms (types.v1) between the wire and the domain, without loss.

Coming in, what has no meaning as a value (a moment without a date, an enum number that
nobody knows) is FieldInvalid with the field's path; rules are `spec.validate`'s matter.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.types.v1 import resources_pb2 as types_pb2
from intertie.common import terms
from intertie.common.errors import FieldInvalid, Shortfall
from intertie.common.intervals import Window

E = TypeVar("E", bound=Enum)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp_to_proto(moment: datetime) -> Timestamp:
    since = moment - _EPOCH
    return Timestamp(seconds=since // timedelta(seconds=1), nanos=since.microseconds * 1000)


def timestamp_from_proto(message: Timestamp, field: str) -> datetime:
    """To the microsecond; what is finer is cut off."""
    if not 0 <= message.nanos < 1_000_000_000:
        raise FieldInvalid(field, "nanos must be from 0 to 999999999")
    try:
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        raise FieldInvalid(field, "must be between the years 1 and 9999") from None


def duration_to_proto(span: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(span)
    return message


def duration_from_proto(message: Duration, field: str) -> timedelta:
    """To the microsecond; what is finer is cut off."""
    try:
        return timedelta(seconds=message.seconds, microseconds=int(message.nanos / 1000))
    except OverflowError:
        raise FieldInvalid(field, "is too long; give at most 366 days") from None


def window_to_proto(window: Window) -> types_pb2.Window:
    return types_pb2.Window(
        start_time=timestamp_to_proto(window.start), end_time=timestamp_to_proto(window.end)
    )


def window_from_proto(message: types_pb2.Window, field: str) -> Window:
    for name in ("start_time", "end_time"):
        if not message.HasField(name):
            raise FieldInvalid(f"{field}.{name}", "is required")
    start = timestamp_from_proto(message.start_time, f"{field}.start_time")
    end = timestamp_from_proto(message.end_time, f"{field}.end_time")
    if end <= start:
        raise FieldInvalid(f"{field}.end_time", "must be after start_time")
    return Window(start, end)


def shortfall_to_proto(shortfall: Shortfall) -> types_pb2.Shortfall:
    return types_pb2.Shortfall(
        site=shortfall.site,
        host=shortfall.host,
        resource=shortfall.resource,
        wanted=shortfall.wanted,
        available=shortfall.available,
        unit=shortfall.unit,
        group=shortfall.group,
        peer=shortfall.peer,
        message=str(shortfall),
        field=shortfall.field,
    )


def shortfall_from_proto(message: types_pb2.Shortfall) -> Shortfall:
    return Shortfall(
        site=message.site,
        host=message.host,
        resource=message.resource,
        wanted=message.wanted,
        available=message.available,
        unit=message.unit,
        group=message.group,
        peer=message.peer,
        message=message.message,
        field=message.field,
    )


def bandwidth_to_proto(term: terms.BandwidthTerm) -> types_pb2.BandwidthTerm:
    return types_pb2.BandwidthTerm(
        guarantee_mbit_s=term.guarantee_mbit_s, cap_mbit_s=term.cap_mbit_s
    )


def bandwidth_from_proto(message: types_pb2.BandwidthTerm) -> terms.BandwidthTerm:
    return terms.BandwidthTerm(
        guarantee_mbit_s=message.guarantee_mbit_s, cap_mbit_s=message.cap_mbit_s
    )


def allocation_to_proto(allocation: terms.Allocation) -> types_pb2.Allocation:
    disk, availability = allocation.disk, allocation.availability
    return types_pb2.Allocation(
        vcpus=allocation.vcpus,
        memory_mib=allocation.memory_mib,
        disk_mib=allocation.disk_mib,
        disk=types_pb2.DiskTerm(
            guarantee_iops=disk.guarantee_iops,
            cap_iops=disk.cap_iops,
            guarantee_mib_s=disk.guarantee_mib_s,
            cap_mib_s=disk.cap_mib_s,
        ),
        nic=bandwidth_to_proto(allocation.nic),
        pairs=[
            types_pb2.PairTerm(
                group=pair.group,
                network=pair.network,
                bandwidth=bandwidth_to_proto(pair.bandwidth),
            )
            for pair in allocation.pairs
        ],
        availability=types_pb2.AvailabilityTerm(
            on_isolation=types_pb2.AvailabilityTerm.OnIsolation.Value(
                availability.on_isolation.value
            ),
            stop_after=duration_to_proto(availability.stop_after),
        ),
    )


def allocation_from_proto(message: types_pb2.Allocation, field: str) -> terms.Allocation:
    disk, availability = message.disk, message.availability
    at = f"{field}.availability"
    on_isolation = _enum(
        terms.OnIsolation,
        types_pb2.AvailabilityTerm.OnIsolation.items(),
        availability.on_isolation,
        terms.OnIsolation.KEEP,
        f"{at}.on_isolation",
    )
    return terms.Allocation(
        vcpus=message.vcpus,
        memory_mib=message.memory_mib,
        disk_mib=message.disk_mib,
        disk=terms.DiskTerm(
            guarantee_iops=disk.guarantee_iops,
            cap_iops=disk.cap_iops,
            guarantee_mib_s=disk.guarantee_mib_s,
            cap_mib_s=disk.cap_mib_s,
        ),
        nic=bandwidth_from_proto(message.nic),
        pairs=tuple(
            terms.PairTerm(
                group=pair.group,
                network=pair.network,
                bandwidth=bandwidth_from_proto(pair.bandwidth),
            )
            for pair in message.pairs
        ),
        availability=terms.AvailabilityTerm(
            on_isolation=on_isolation,
            stop_after=duration_from_proto(availability.stop_after, f"{at}.stop_after"),
        ),
    )


def environment_to_proto(environment: terms.Environment) -> types_pb2.Environment:
    context = environment.contextualization
    return types_pb2.Environment(
        image=environment.image,
        architecture=environment.architecture,
        hypervisor=environment.hypervisor,
        contextualization=types_pb2.Contextualization(
            ssh_authorized_keys=context.ssh_authorized_keys, user_data=context.user_data
        ),
        readiness=types_pb2.Environment.Readiness.Value(environment.readiness.value),
        timezone=environment.timezone,
        ready_within=duration_to_proto(environment.ready_within),
    )


def environment_from_proto(message: types_pb2.Environment, field: str) -> terms.Environment:
    context = message.contextualization
    return terms.Environment(
        image=message.image,
        architecture=message.architecture,
        hypervisor=message.hypervisor,
        contextualization=terms.Contextualization(
            ssh_authorized_keys=tuple(context.ssh_authorized_keys), user_data=context.user_data
        ),
        readiness=_enum(
            terms.Readiness,
            types_pb2.Environment.Readiness.items(),
            message.readiness,
            terms.Readiness.CHANNEL,
            f"{field}.readiness",
        ),
        timezone=message.timezone,
        ready_within=duration_from_proto(message.ready_within, f"{field}.ready_within"),
    )


def _enum(
    values: type[E], known: Iterable[tuple[str, int]], number: int, unspecified: E, field: str
) -> E:
    """The value of that number; 0 is the one that stands for unspecified."""
    if number == 0:
        return unspecified
    names = {of: name for name, of in known}
    if number not in names:
        choice = ", ".join(each.name for each in values)
        raise FieldInvalid(field, f"{number} is no known value; use one of {choice}")
    return values[names[number]]
