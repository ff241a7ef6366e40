"""What a broker tells of a part is what a meta-scheduler reads."""

from __future__ import annotations

from intertie.broker.convert import part_to_proto
from intertie.broker.domain.cluster import part_view
from intertie.broker.domain.guarantees import MeasuredDirection, MeasuredPart
from intertie.common.guarantees import GuaranteeKind, Measured
from intertie.metasched.convert_parts import part_from_proto
from tests.unit.broker.samples import NOW, part


def test_a_part_s_measures_arrive_as_they_were_told() -> None:
    iops = MeasuredDirection(
        kind=GuaranteeKind.DISK_IOPS, source="w-0", value=99.5, backlogged=True, below_since=NOW
    )
    told = part_view(part(), {}, {"n1": MeasuredPart(at=NOW, directions=(iops,))})
    assert part_from_proto(part_to_proto(told)).measured == (
        Measured(
            kind=GuaranteeKind.DISK_IOPS,
            source="w-0",
            value=99.5,
            at=NOW,
            backlogged=True,
            below_since=NOW,
        ),
    )


def test_what_a_newer_broker_measures_is_left_out() -> None:
    message = part_to_proto(part_view(part(), {}, {}))
    message.measured.add(kind=99)
    assert part_from_proto(message).measured == ()
