"""What is given back of a price, from what hosts measure to records that are signed: real etcd."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from intertie.api.cluster.v1 import clusters_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import Change, Write
from intertie.broker.loops.refunds import Refunds
from intertie.common.clock import SystemClock
from intertie.common.errors import NotLeading
from intertie.common.etcd.client import Etcd, Put
from intertie.common.guarantees import GuaranteeKind
from intertie.common.intervals import Window
from intertie.common.names import PartName
from intertie.common.rpc.terms_proto import timestamp_to_proto
from intertie.common.values import replace
from tests.contract.ledgers import Leads
from tests.integration.broker_site import Site, cluster_spec, create
from tests.integration.pki import trust_in
from tests.integration.test_broker_usage import audited, depose, until_ready, written
from tests.unit.broker.samples import POLICY
from tests.unit.broker.test_refunds import lease

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()
MINUTE = timedelta(minutes=1)


async def measure(etcd: Etcd, part: Part, since: datetime, at: datetime) -> None:
    """Half of the operations that its disk is promised."""
    told = records_pb2.HostMeasured(
        schema=1,
        host="n1",
        measured_time=timestamp_to_proto(at),
        parts=[
            records_pb2.MeasuredPart(
                part_uid=part.uid,
                directions=[
                    records_pb2.MeasuredDirection(
                        kind=GuaranteeKind.DISK_IOPS,
                        source="w-0",
                        value=150,
                        backlogged=True,
                        below_since=timestamp_to_proto(since),
                    )
                ],
            )
        ],
    )
    await etcd.txn([], [Put("seen/n1/measured", told.SerializeToString())])


async def test_a_breach_goes_on_at_the_next_leader_and_counts_once(etcd: Etcd) -> None:
    """The first one is gone, and would write: it cannot. The next knows only what is on record."""
    start = CLOCK.now() - timedelta(minutes=20)
    window = Window(start, start + timedelta(hours=1))
    made = lease()
    agreed = tuple(replace(each, window=window) for each in made.price)
    made = replace(made, spec=replace(made.spec, window=window), create_time=start, price=agreed)
    term = await depose(etcd)
    first = EtcdLedger(etcd, Leads(term), POLICY, CLOCK)
    await first.commit(Change(writes=(Write(record=made),)))
    loop = Refunds(first, POLICY, CLOCK)
    await measure(etcd, made, start, start + 5 * MINUTE)
    await loop.sweep()
    assert [each.window for each in (await on_record(first, made)).refunds] == [
        Window(start, start + 5 * MINUTE)
    ]
    asleep = Refunds(first, POLICY, CLOCK)

    term = await depose(etcd)
    second = EtcdLedger(etcd, Leads(term), POLICY, CLOCK)
    await measure(etcd, made, start, start + 15 * MINUTE)
    await Refunds(second, POLICY, CLOCK).sweep()
    for _ in range(3):
        await Refunds(second, POLICY, CLOCK).sweep()
    await measure(etcd, made, start, start + 17 * MINUTE)
    with pytest.raises(NotLeading):
        await asleep.sweep()
    [item] = (await on_record(second, made)).refunds
    assert item.window == Window(start, start + 15 * MINUTE)
    assert item.amount == pytest.approx(300 * 0.01 / 4)
    assert item.measured == pytest.approx(150)


async def on_record(ledger: EtcdLedger, part: Part) -> Part:
    found = await ledger.part(PartName.parse(part.name))
    assert found is not None
    return found.value


async def test_what_was_left_is_given_back_and_records_add_up(here: Site) -> None:
    stub = here.clusters()
    made = await stub.Create(create("one", cluster_spec(count=1, pair_mbit_s=0), "r-one"))
    await until_ready(stub, made.name)
    assert not made.HasField("refund")
    await asyncio.sleep(0.2)
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    [record] = await written(here, 1)
    assert record.price == made.price, "all of it, what was left too"
    [item] = record.refund.items
    assert (item.site, item.reason, item.kind) == ("north", "CANCELLED", 0)
    assert item.window.end_time == made.window.end_time
    assert item.window.start_time == record.period.end_time
    over = await stub.Get(clusters_pb2.GetClusterRequest(name=made.name))
    assert over.refund == record.refund
    hour = made.price.amount / span(made.window)
    owed = record.price.amount - record.refund.amount
    paid_until = item.window.start_time.ToDatetime() - made.window.start_time.ToDatetime()
    assert owed == pytest.approx(hour * paid_until.total_seconds())
    olga = here.domain.operator("olga")
    assert (await audited(here, olga, "-", trust_in(here.domain))).records == 1


def span(window: object) -> float:
    start, end = (getattr(window, name).ToDatetime() for name in ("start_time", "end_time"))
    return float((end - start).total_seconds())
