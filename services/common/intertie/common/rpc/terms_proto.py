"""Quantities, moments and terms (types.v1) between the wire and the domain, without loss.

Coming in, what has no meaning as a value (a moment without a date, an enum number that
nobody knows) is FieldInvalid with the field's path; rules are `spec.validate`'s matter.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.types.v1 import resources_pb2 as types_pb2
from intertie.common import terms
from intertie.common.errors import FieldInvalid
from intertie.common.intervals import Window

E = TypeVar("E", bound=Enum)

Fields = dict[str, Any]
"""Of a message, by name; of a message in it, again such a dict. A message that is given another is
copied into, octet by octet: a deep one made of messages takes three times as long to make."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 24 * 60 * 60
_NOTHING = timedelta()


def timestamp_fields(moment: datetime) -> Fields:
    since = moment - _EPOCH
    return {
        "seconds": since.days * _DAY_S + since.seconds,
        "nanos": since.microseconds * 1000,
    }


def timestamp_to_proto(moment: datetime) -> Timestamp:
    return Timestamp(**timestamp_fields(moment))


def timestamp_from_proto(message: Timestamp, field: str) -> datetime:
    """To the microsecond; what is finer is cut off."""
    if not 0 <= message.nanos < 1_000_000_000:
        raise FieldInvalid(field, "nanos must be from 0 to 999999999")
    try:
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        raise FieldInvalid(field, "must be between the years 1 and 9999") from None


def duration_fields(span: timedelta) -> Fields:
    seconds = span.days * _DAY_S + span.seconds
    micros = span.microseconds
    if seconds < 0 < micros:  # both have the same sign
        seconds, micros = seconds + 1, micros - 1_000_000
    return {"seconds": seconds, "nanos": micros * 1000}


def duration_to_proto(span: timedelta) -> Duration:
    return Duration(**duration_fields(span))


def duration_from_proto(message: Duration, field: str) -> timedelta:
    """To the microsecond; what is finer is cut off."""
    seconds, nanos = message.seconds, message.nanos
    if not seconds and not nanos:
        return _NOTHING  # as most are: not said
    try:
        return timedelta(seconds=seconds, microseconds=int(nanos / 1000))
    except OverflowError:
        raise FieldInvalid(field, "is too long; give at most 366 days") from None


def window_fields(window: Window) -> Fields:
    return {
        "start_time": timestamp_fields(window.start),
        "end_time": timestamp_fields(window.end),
    }


def window_to_proto(window: Window) -> types_pb2.Window:
    return types_pb2.Window(**window_fields(window))


def window_from_proto(message: types_pb2.Window, field: str) -> Window:
    for name in ("start_time", "end_time"):
        if not message.HasField(name):
            raise FieldInvalid(f"{field}.{name}", "is required")
    start = timestamp_from_proto(message.start_time, f"{field}.start_time")
    end = timestamp_from_proto(message.end_time, f"{field}.end_time")
    if end <= start:
        raise FieldInvalid(f"{field}.end_time", "must be after start_time")
    return Window(start, end)


def bandwidth_fields(term: terms.BandwidthTerm) -> Fields:
    return {"guarantee_mbit_s": term.guarantee_mbit_s, "cap_mbit_s": term.cap_mbit_s}


def bandwidth_to_proto(term: terms.BandwidthTerm) -> types_pb2.BandwidthTerm:
    return types_pb2.BandwidthTerm(**bandwidth_fields(term))


def bandwidth_from_proto(message: types_pb2.BandwidthTerm) -> terms.BandwidthTerm:
    return terms.BandwidthTerm(
        guarantee_mbit_s=message.guarantee_mbit_s, cap_mbit_s=message.cap_mbit_s
    )


def disk_fields(term: terms.DiskTerm) -> Fields:
    return {
        "guarantee_iops": term.guarantee_iops,
        "cap_iops": term.cap_iops,
        "guarantee_mib_s": term.guarantee_mib_s,
        "cap_mib_s": term.cap_mib_s,
    }


def disk_from_proto(message: types_pb2.DiskTerm) -> terms.DiskTerm:
    return terms.DiskTerm(
        guarantee_iops=message.guarantee_iops,
        cap_iops=message.cap_iops,
        guarantee_mib_s=message.guarantee_mib_s,
        cap_mib_s=message.cap_mib_s,
    )


def allocation_fields(allocation: terms.Allocation) -> Fields:
    availability = allocation.availability
    return {
        "vcpus": allocation.vcpus,
        "memory_mib": allocation.memory_mib,
        "disk_mib": allocation.disk_mib,
        "disk": disk_fields(allocation.disk),
        "nic": bandwidth_fields(allocation.nic),
        "pairs": [
            {
                "group": pair.group,
                "network": pair.network,
                "bandwidth": bandwidth_fields(pair.bandwidth),
            }
            for pair in allocation.pairs
        ],
        "availability": {
            "on_isolation": availability.on_isolation.value,
            "stop_after": duration_fields(availability.stop_after),
            "on_host_loss": availability.on_host_loss.value,
            "on_site_loss": availability.on_site_loss.value,
            "on_link_loss": availability.on_link_loss.value,
        },
    }


def allocation_to_proto(allocation: terms.Allocation) -> types_pb2.Allocation:
    return types_pb2.Allocation(**allocation_fields(allocation))


def allocation_from_proto(message: types_pb2.Allocation, field: str) -> terms.Allocation:
    availability = message.availability
    at = f"{field}.availability"
    on_isolation = _ON_ISOLATION.get(availability.on_isolation)
    if on_isolation is None:
        raise _unknown(terms.OnIsolation, availability.on_isolation, f"{at}.on_isolation")
    on_host_loss = _ON_HOST_LOSS.get(availability.on_host_loss)
    if on_host_loss is None:
        raise _unknown(terms.OnHostLoss, availability.on_host_loss, f"{at}.on_host_loss")
    on_site_loss = _ON_SITE_LOSS.get(availability.on_site_loss)
    if on_site_loss is None:
        raise _unknown(terms.OnSiteLoss, availability.on_site_loss, f"{at}.on_site_loss")
    on_link_loss = _ON_LINK_LOSS.get(availability.on_link_loss)
    if on_link_loss is None:
        raise _unknown(terms.OnLinkLoss, availability.on_link_loss, f"{at}.on_link_loss")
    return terms.Allocation(
        vcpus=message.vcpus,
        memory_mib=message.memory_mib,
        disk_mib=message.disk_mib,
        disk=disk_from_proto(message.disk),
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
            on_host_loss=on_host_loss,
            on_site_loss=on_site_loss,
            on_link_loss=on_link_loss,
        ),
    )


def environment_fields(environment: terms.Environment) -> Fields:
    context = environment.contextualization
    return {
        "image": environment.image,
        "architecture": environment.architecture,
        "hypervisor": environment.hypervisor,
        "contextualization": {
            "ssh_authorized_keys": context.ssh_authorized_keys,
            "user_data": context.user_data,
        },
        "readiness": environment.readiness.value,
        "timezone": environment.timezone,
        "ready_within": duration_fields(environment.ready_within),
    }


def environment_to_proto(environment: terms.Environment) -> types_pb2.Environment:
    return types_pb2.Environment(**environment_fields(environment))


def environment_from_proto(message: types_pb2.Environment, field: str) -> terms.Environment:
    context = message.contextualization
    readiness = _READINESS.get(message.readiness)
    if readiness is None:
        raise _unknown(terms.Readiness, message.readiness, f"{field}.readiness")
    return terms.Environment(
        image=message.image,
        architecture=message.architecture,
        hypervisor=message.hypervisor,
        contextualization=terms.Contextualization(
            ssh_authorized_keys=tuple(context.ssh_authorized_keys), user_data=context.user_data
        ),
        readiness=readiness,
        timezone=message.timezone,
        ready_within=duration_from_proto(message.ready_within, f"{field}.ready_within"),
    )


def _unknown(values: type[Enum], number: int, field: str) -> FieldInvalid:
    choice = ", ".join(each.name for each in values)
    return FieldInvalid(field, f"{number} is no known value; use one of {choice}")


def _by_number(values: type[E], known: Iterable[tuple[str, int]], unspecified: E) -> dict[int, E]:
    """0 is the one that stands for unspecified."""
    return {number: values[name] if number else unspecified for name, number in known}


_ON_ISOLATION = _by_number(
    terms.OnIsolation, types_pb2.AvailabilityTerm.OnIsolation.items(), terms.OnIsolation.KEEP
)
_ON_HOST_LOSS = _by_number(
    terms.OnHostLoss, types_pb2.AvailabilityTerm.OnHostLoss.items(), terms.OnHostLoss.END
)
_ON_SITE_LOSS = _by_number(
    terms.OnSiteLoss, types_pb2.AvailabilityTerm.OnSiteLoss.items(), terms.OnSiteLoss.FAIL
)
_ON_LINK_LOSS = _by_number(
    terms.OnLinkLoss, types_pb2.AvailabilityTerm.OnLinkLoss.items(), terms.OnLinkLoss.STAY
)
_READINESS = _by_number(
    terms.Readiness, types_pb2.Environment.Readiness.items(), terms.Readiness.CHANNEL
)
