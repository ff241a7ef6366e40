"""Where messages become values and settings become terms."""

import gc
import sys
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.common.errors import FieldInvalid, NotFound
from intertie.common.rpc.identity import Identity
from intertie.common.rpc.spec_proto import cluster_spec_to_proto
from intertie.metasched import main
from intertie.metasched.convert import cluster_to_proto, name_of, order_of, parent_of
from intertie.metasched.main import FaultPause
from intertie.metasched.settings import MetaschedSettings
from tests.fakes.clock import FakeClock
from tests.unit.metasched.world import ALICE, World, order, spec

META = "metascheds/meta"
IDENTITY = cast(Identity, SimpleNamespace(caller=ALICE))


def request(**changes: Any) -> clusters_pb2.CreateClusterRequest:
    fields: dict[str, Any] = {
        "parent": "-/tenants/demo",
        "cluster_id": "c1",
        "spec": cluster_spec_to_proto(spec()),
        "request_id": "r1",
    }
    return clusters_pb2.CreateClusterRequest(**{**fields, **changes})


def test_an_order_is_for_this_service_whatever_stands_for_it() -> None:
    for parent in ("-/tenants/demo", "metascheds/meta/tenants/demo"):
        found = order_of(request(parent=parent), IDENTITY, META)
        assert found.name == order().name
        assert found.digest == order_of(request(), IDENTITY, META).digest


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("parent", {"parent": "sites/north/tenants/demo"}),
        ("parent", {"parent": "-/tenants/-"}),
        ("cluster_id", {"cluster_id": "No_Label"}),
        ("request_id", {"request_id": ""}),
        ("request_id", {"request_id": "a b"}),
        ("request_id", {"request_id": "x" * 65}),
    ],
)
def test_a_malformed_field_is_named(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        order_of(request(**changes), IDENTITY, META)
    assert caught.value.field == field


def test_the_digest_of_a_request_is_of_its_body() -> None:
    one = order_of(request(), IDENTITY, META)
    assert one.digest == order_of(request(request_id="r2"), IDENTITY, META).digest
    assert one.digest != order_of(request(cluster_id="c2"), IDENTITY, META).digest
    other = cluster_spec_to_proto(spec(4))
    assert one.digest != order_of(request(spec=other), IDENTITY, META).digest


def test_names_of_this_service_may_be_short() -> None:
    assert name_of("-/tenants/demo/clusters/c1", META) == f"{META}/tenants/demo/clusters/c1"
    with pytest.raises(NotFound):
        name_of("metascheds/x/tenants/demo/clusters/c1", META)
    assert str(parent_of("-/tenants/demo", META)) == f"{META}/tenants/demo"


async def test_a_cluster_on_the_wire_says_everything() -> None:
    world = World()
    process = await world.process()
    view = await process.create(order(what=spec(5, mbit_s=10)))
    message = cluster_to_proto(view)
    assert message.state == cluster_pb2.Cluster.SCHEDULED
    assert message.owner == ALICE
    assert message.etag == view.etag
    assert [each.name.rpartition("/")[2] for each in message.workspaces] == [
        "head-0",
        *(f"worker-{n}" for n in range(5)),
    ]
    assert all(each.addresses[0].mac and each.image_digest for each in message.workspaces)
    assert sum(sum(each.counts.values()) for each in message.plan.parts) == 6
    assert {(each.from_site, each.to_site) for each in message.plan.links} == {
        ("north", "south"),
        ("south", "north"),
    }
    assert not message.HasField("end_requested_time")
    assert not message.HasField("failure")


def settings(**changes: Any) -> MetaschedSettings:
    fields: dict[str, Any] = {
        "name": "meta",
        "listen": {"addresses": ["127.0.0.1:7400"]},
        "tls": {"certificate": Path("c"), "key": Path("k")},
        "trust": [{"domain": "meta.meta.intertie", "roots": Path("r")}],
        "etcd": {"endpoints": ["127.0.0.1:2379"], "prefix": "/intertie/meta"},
        "sites": [
            {"name": "north", "addresses": ["a:1"], "server_name": "broker.north.site.intertie"}
        ],
    }
    return MetaschedSettings(**{**fields, **changes})


def test_no_fault_is_paused_for_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().fault is None
    monkeypatch.setenv("INTERTIE_FAULT_PAUSE", "after_prepare:2.5")
    assert settings().fault == ("after_prepare", 2.5)
    for wrong in ("after_lunch:2", "after_prepare", "after_prepare:-1"):
        monkeypatch.setenv("INTERTIE_FAULT_PAUSE", wrong)
        with pytest.raises(ValidationError):
            settings()


def test_a_pause_for_faults_is_warned_of_at_the_start() -> None:
    """The bug: one left set in a deployment was told of with the first co-allocation only."""
    clock = FakeClock()
    with capture_logs() as logs:
        FaultPause(None, clock)
    assert logs == []
    with capture_logs() as logs:
        FaultPause(("after_prepare", 2.5), clock)
    assert [
        (each["log_level"], each["event"], each["point"], each["seconds"]) for each in logs
    ] == [("warning", "fault.pause_set", "after_prepare", 2.5)]


def test_the_event_loop_has_its_turn_soon_beside_threads_that_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: with three plans at work, a call that went back and forth a few times took more than
    100 ms; and only the broker collected garbage gently, though the bench said both do."""
    seen: list[tuple[float, int]] = []

    def served(serving: Coroutine[Any, Any, None]) -> None:
        serving.close()
        seen.append((sys.getswitchinterval(), gc.get_threshold()[0]))

    settings = SimpleNamespace(log=SimpleNamespace(level="info"), fault_points="")
    monkeypatch.setattr(sys, "argv", ["intertie-metasched", "--config", "any"])
    monkeypatch.setattr(main, "load", lambda *_: settings)
    monkeypatch.setattr(main, "configure", lambda *_: None)
    monkeypatch.setattr("intertie.metasched.main.points.stop_in", lambda _: None)
    monkeypatch.setattr("intertie.metasched.main.uvloop.run", served)
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    try:
        main.main()
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
    [(switched_s, first)] = seen
    assert switched_s < 0.001
    assert first == 50_000
