"""What a refusal offers instead, as a specification to send.

except NoCapacity as refusal:
    for offer in refusal.explanation.counter_offers:
        print(offer.message, offer.start_time, offer.cost)
    spec = with_changes(spec, refusal.explanation.counter_offers[0])
"""

from __future__ import annotations

import json
import re
from typing import Any

from google.protobuf import json_format

from intertie.api.cluster.v1.cluster_pb2 import ClusterSpec
from intertie.common.explanation import CounterOffer

_PATH = re.compile(r"spec(?:\.[a-z_0-9]+(?:\[\d+\])?)+")
_NAMES = re.compile(r"\.([a-z_0-9]+)(?:\[(\d+)\])?")


def with_changes(spec: ClusterSpec, offer: CounterOffer) -> ClusterSpec:
    """The specification that was refused, changed as the service offers; to be sent as it is.
    ValueError where the offer is of another specification, or of a service that is newer."""
    changed = ClusterSpec()
    changed.CopyFrom(spec)
    for each in offer.changes:
        if not _PATH.fullmatch(each.field):
            raise ValueError(f"{each.field!r} is no field of a specification")
        *above, (last, at) = _NAMES.findall(each.field)
        try:
            holder: Any = changed
            for name, number in above:
                holder = getattr(holder, name)
                holder = holder[int(number)] if number else holder
            if at:
                raise AttributeError(f"{last}[{at}]")
            holder.ClearField(last)
            json_format.ParseDict({last: json.loads(each.value)}, holder)
        except (AttributeError, IndexError, ValueError, json_format.ParseError) as error:
            raise ValueError(f"{each.field} cannot be {each.value}: {error}") from error
    return changed
