"""The `intertie` command against a real server: mutual TLS, errors, streams, signals."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.api.cluster.v1.cluster_pb2 import Cluster
from intertie.api.cluster.v1.clusters_pb2 import WatchClustersResponse
from intertie.api.imagestore.v1 import images_pb2, images_pb2_grpc
from intertie.api.metasched.v1 import sites_pb2, sites_pb2_grpc
from intertie.api.types.v1.action_pb2 import Action
from intertie.client import (
    Alive,
    Changed,
    Client,
    Gone,
    Snapshot,
    SnapshotReason,
    connect,
    load,
)
from intertie.client.connection import open_connection
from intertie.client.errors import TimedOut
from intertie.common.clock import SystemClock
from intertie.common.errors import (
    ActionIllegal,
    AmendUnsupported,
    ConnectionRefused,
    EtcdUnavailable,
    FieldInvalid,
    LeaseEnding,
    NoCapacity,
    NotFound,
    NotLeading,
    Shortfall,
)
from intertie.common.rpc.server import Server
from intertie.common.settings import ListenSettings, TlsSettings, TrustSettings
from testbed.pki import Authority
from tests.fakes.user_api import AUTHORITY, SERIAL, FakeClusters, FakeImages, FakeKnownSites
from tests.integration import command
from tests.integration.command import Said

SnapshotBegin = WatchClustersResponse.SnapshotBegin

SPEC = """
name: demo
groups:
  - name: node
    count: 2
    environment: {image: intertie-guest}
    allocation: {vcpus: 1, memory_mib: 128, disk_mib: 256}
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeFakeFakeFake alice@example"


@dataclass(frozen=True, kw_only=True)
class Settings:
    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...]


@dataclass(kw_only=True)
class Place:
    """A service of its own, and a user's folder with a configuration for it."""

    folder: Path
    authority: Authority
    clusters: FakeClusters = field(default_factory=FakeClusters)
    images: FakeImages = field(default_factory=FakeImages)

    @property
    def config(self) -> Path:
        return self.folder / "client.toml"

    @property
    def spec(self) -> Path:
        return self.folder / "demo.yaml"

    async def start(self, *args: str, stdin: int | None = None) -> asyncio.subprocess.Process:
        return await command.start(self.config, *args, stdin=stdin)

    async def say(self, *args: str) -> Said:
        return await command.say(self.config, *args)

    async def do(self, *args: str) -> str:
        said = await self.say(*args)
        assert said.code == 0, said.err
        return said.out

    async def connect(self) -> Client:
        return await connect(load(self.config))


def write_config(path: Path, *, certificate: str = "alice", roots: str = "ca") -> None:
    path.write_text(
        f"""
[endpoints.north]
kind = "metasched"
address = "unix:{path.parent}/api.sock"
server_name = "metasched.meta.meta.intertie"
certificate = "{certificate}.pem"
key = "{certificate}.key"
roots = "{roots}.pem"
tenant = "demo"
images_address = "unix:{path.parent}/api.sock"
"""
    )


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    authority = Authority(tmp_path)
    authority.create("meta")
    domain = "spiffe://meta.meta.intertie"
    authority.issue(
        "server",
        common_name="server",
        spiffe=f"{domain}/metasched",
        dns=["metasched.meta.meta.intertie"],
    )
    user = f"{domain}/tenant/demo/user/alice"
    authority.issue("alice", common_name="alice", spiffe=user)
    made = Place(folder=tmp_path, authority=authority)
    made.spec.write_text(SPEC)
    write_config(made.config)
    settings = Settings(
        listen=ListenSettings(addresses=(f"unix:{tmp_path}/api.sock",)),
        tls=TlsSettings(certificate=tmp_path / "server.pem", key=tmp_path / "server.key"),
        trust=(TrustSettings(domain="meta.meta.intertie", roots=authority.roots),),
    )
    server = Server(
        settings,
        SystemClock(),
        [
            (
                clusters_pb2_grpc.add_ClustersServicer_to_server,
                made.clusters,
                clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
            ),
            (
                sites_pb2_grpc.add_KnownSitesServicer_to_server,
                FakeKnownSites(),
                sites_pb2.DESCRIPTOR.services_by_name["KnownSites"],
            ),
            (
                images_pb2_grpc.add_ImagesServicer_to_server,
                made.images,
                images_pb2.DESCRIPTOR.services_by_name["Images"],
            ),
        ],
    )
    await server.start()
    yield made
    await server.stop(0.1)


async def test_create_waits_until_all_are_ready_and_prints_only_the_name(place: Place) -> None:
    said = await place.say("cluster", "create", "-f", str(place.spec))
    assert said.code == 0
    assert said.out == "metascheds/meta/tenants/demo/clusters/demo\n"
    assert "node-0       north/n1     staging" in said.err
    assert "node-1       north/n1     ready" in said.err


async def test_a_create_that_meets_a_replica_without_lead_is_made_again_with_its_request_id(
    place: Place,
) -> None:
    place.clusters.refusals = [NotLeading("other"), NotLeading("other")]
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    ids = [request.request_id for request in place.clusters.requests]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert ids[0]


async def test_ssh_keys_are_added_to_every_group(place: Place) -> None:
    key = place.folder / "id.pub"
    key.write_text(KEY + "\n")
    args = ("cluster", "create", "-f", str(place.spec), "--no-wait", "--name", "other")
    await place.do(*args, "--ssh-key", str(key))
    [request] = place.clusters.requests
    assert request.cluster_id == "other"
    [group] = request.spec.groups
    assert list(group.environment.contextualization.ssh_authorized_keys) == [KEY]


async def test_no_capacity_is_a_table_site_by_site(place: Place) -> None:
    place.clusters.refusals = [
        NoCapacity(
            (
                Shortfall(site="south", resource="memory", wanted=4096, available=1792, unit="MiB"),
                Shortfall(site="north", resource="link_egress", wanted=300, available=200,
                          unit="Mbit/s", peer="south"),
            )
        )
    ]  # fmt: skip
    said = await place.say("cluster", "create", "-f", str(place.spec))
    assert said.code == 1
    assert said.out == ""
    rows = [line.split() for line in said.err.splitlines()]
    assert ["south", "memory", "4096", "MiB", "1792", "MiB"] in rows
    assert ["north", "link", "to", "south", "link_egress", "300", "Mbit/s", "200", "Mbit/s"] in rows
    assert "NO_CAPACITY" in said.err
    assert "Try: Ask for less" in said.err


async def test_a_field_that_the_service_refuses_is_named_with_its_line(place: Place) -> None:
    place.clusters.refusals = [FieldInvalid("spec.groups[0].allocation.vcpus", "too many")]
    said = await place.say("cluster", "create", "-f", str(place.spec))
    assert said.code == 1
    assert "error: groups[0].allocation.vcpus (line 7): too many [FIELD_INVALID]" in said.err


async def test_plan_takes_nothing(place: Place) -> None:
    assert "2 node" in await place.do("plan", "-f", str(place.spec))
    assert place.clusters.clusters == {}
    assert place.clusters.requests[0].validate_only


async def test_create_with_validate_only_prints_the_plan_and_takes_nothing(place: Place) -> None:
    said = await place.say("cluster", "create", "-f", str(place.spec), "--validate-only")
    assert said.code == 0
    assert ["north", "2", "node", "0.2500"] in [line.split() for line in said.out.splitlines()]
    assert "no better plan exists." in said.out
    assert "  - north has the image\n" in said.out
    assert place.clusters.clusters == {}
    assert [each.validate_only for each in place.clusters.requests] == [True]
    assert await place.do("cluster", "list", "--all", "-o", "json") == "[]\n"


async def test_list_turns_pages_and_show_and_delete_take_short_names(place: Place) -> None:
    for name in ("a", "b", "c"):
        await place.do("cluster", "create", "-f", str(place.spec), "--no-wait", "--name", name)
    listed = json.loads(await place.do("cluster", "list", "-o", "json"))
    assert [each["name"].rpartition("/")[2] for each in listed] == ["a", "b", "c"]
    shown = json.loads(await place.do("cluster", "show", "b", "-o", "json"))
    assert shown["state"] == "SCHEDULED"
    assert shown["workspaces"][0]["ready"] is False
    assert (await place.do("cluster", "delete", "b")).endswith("/clusters/b\n")
    assert "CANCELLED" in await place.do("cluster", "list", "--all")
    assert "CANCELLED" not in await place.do("cluster", "list")


async def test_update_asks_for_what_the_file_and_the_options_say_and_for_nothing_else(
    place: Place,
) -> None:
    key = place.folder / "id.pub"
    key.write_text(KEY + "\n")
    await place.do("cluster", "create", "-f", str(place.spec), "--ssh-key", str(key))
    more = place.folder / "more.yaml"
    more.write_text(SPEC.replace("count: 2", "count: 3") + "lease: {duration: 2h}\n")
    said = await place.say("cluster", "update", "demo", "--file", str(more))
    assert (said.code, said.out) == (0, f"{AUTHORITY}/tenants/demo/clusters/demo\n"), said.err
    assert "terms 1" in said.err
    asked = place.clusters.requests[-1]
    assert list(asked.update_mask.paths) == ["spec.groups", "spec.lease.duration"]
    [group] = asked.cluster.spec.groups
    assert group.count == 3
    assert list(group.environment.contextualization.ssh_authorized_keys) == [KEY]
    assert asked.cluster.spec.lease.duration.seconds == 7200
    assert asked.request_id

    await place.do("cluster", "update", "demo", "--duration", "90m")
    asked = place.clusters.requests[-1]
    assert list(asked.update_mask.paths) == ["spec.lease.duration"]
    assert asked.cluster.spec.lease.duration.seconds == 5400
    await place.do(
        "cluster", "update", "demo", "-f", str(more), "--end", "2027-01-01T00:00:00Z", "--no-wait"
    )
    asked = place.clusters.requests[-1]
    assert list(asked.update_mask.paths) == ["spec.groups", "spec.lease.end_time"]
    assert "terms  number 3" in await place.do("cluster", "show", "demo")


async def test_an_update_that_cannot_be_is_refused_with_what_to_do(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec))
    other = place.folder / "other.yaml"
    other.write_text(SPEC + "networks:\n  - {name: lan, subnet: 10.1.0.0/24}\n")
    for arguments, code, says in (
        (["demo"], 2, "nothing is to be changed"),
        (["demo", "--end", "tomorrow"], 2, "'tomorrow' is no moment"),
        (["demo", "--duration", "2"], 2, "'2' is no span of time"),
        (["demo", "--end", "2027-01-01T00:00:00Z", "--duration", "2h"], 2, "Give one of them"),
        (["demo", "-f", str(other)], 1, "is not what the cluster has, and may not be changed"),
        (["another", "-f", str(place.spec)], 2, "is of cluster demo, not of another"),
    ):
        said = await place.say("cluster", "update", *arguments)
        assert said.code == code, said.err
        assert says in " ".join(said.err.split())
    assert len(place.clusters.requests) == 1
    place.clusters.refusals = [LeaseEnding("demo", "12:00"), AmendUnsupported("demo")]
    for says in ("LEASE_ENDING", "AMEND_UNSUPPORTED"):
        said = await place.say("cluster", "update", "demo", "--duration", "2h")
        assert said.code == 1
        assert says in said.err


async def test_workspaces_are_switched_by_name_or_all_and_waited_for(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec))
    said = await place.say("cluster", "stop", "demo", "worker-0")
    assert said.out.endswith("/demo\n")
    asked = place.clusters.requests[-1]
    assert (asked.action, list(asked.workspaces)) == (Action.STOP, ["worker-0"])
    assert asked.request_id
    for word in ("start", "reboot", "pause", "resume", "suspend"):
        await place.do("cluster", word, "demo", "--no-wait")
        asked = place.clusters.requests[-1]
        assert (Action.Name(asked.action), list(asked.workspaces)) == (word.upper(), [])
    shown = json.loads(await place.do("cluster", "suspend", "demo", "--no-wait", "-o", "json"))
    assert {each["state"] for each in shown["workspaces"]} == {"SUSPENDED"}
    place.clusters.refusals = [ActionIllegal("PAUSE", "worker-0", "STOPPED", "START")]
    said = await place.say("cluster", "pause", "demo")
    assert said.code == 1
    assert "worker-0 is STOPPED, which allows START" in " ".join(said.err.split())


async def test_ctrl_c_while_waiting_says_that_the_cluster_goes_on(place: Place) -> None:
    place.clusters.stuck = True
    process = await place.start("cluster", "create", "-f", str(place.spec))
    assert process.stdout
    assert process.stderr
    await asyncio.wait_for(process.stdout.readline(), 30)
    await asyncio.wait_for(process.stderr.readline(), 30)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    assert b"intertie cluster delete demo" in err
    assert b"Traceback" not in err


async def test_sites_and_hosts(place: Place) -> None:
    table = await place.do("site", "list")
    assert "unreachable: no answer" in table
    assert "south 160/200 Mbit/s out, 200/200 in, 5ms" in table
    assert "gateway" in await place.do("host", "list")
    shown = json.loads(await place.do("host", "show", "north/n2", "-o", "json"))
    assert shown["name"] == "sites/north/hosts/n2"
    for words in (("host", "show", "north/n9"), ("site", "show", "west")):
        said = await place.say(*words)
        assert said.code == 1
        assert "NOT_FOUND" in said.err


async def test_show_has_one_site_and_no_other(place: Place) -> None:
    table = await place.do("site", "show", "north")
    assert "south 160/200 Mbit/s out, 200/200 in, 5ms" in table
    assert "unreachable" not in table
    assert "unreachable: no answer" in await place.do("site", "show", "south")
    shown = json.loads(await place.do("site", "show", "north", "-o", "json"))
    assert shown["site"]["name"] == "sites/north"
    assert shown["reachable"] is True


async def test_show_has_one_image_by_its_name_and_by_its_digest(place: Place) -> None:
    for name in ("guest", "other"):
        image = place.folder / f"{name}.img"
        image.write_bytes(name.encode() * 1000)
        await place.do("image", "put", name, str(image))
    [shown] = json.loads(await place.do("image", "show", "guest", "-o", "json"))
    assert shown["name"] == "sites/north/tenants/demo/images/guest"
    assert shown["size_bytes"] == 5000
    rows = (await place.do("image", "show", shown["digest"])).splitlines()
    assert [row.split()[:1] for row in rows] == [["SITE"], ["north"]]
    said = await place.say("image", "show", "nosuch")
    assert said.code == 1
    assert "NOT_FOUND" in said.err


async def test_an_upload_that_breaks_off_goes_on_where_it_stopped(place: Place) -> None:
    image = place.folder / "disk.img"
    image.write_bytes(bytes(range(256)) * 12_000)
    place.images.cuts = [1_000_000, 2_000_000]
    await place.do("image", "put", "guest", str(image))
    assert place.images.offsets == [0, 1_000_000, 2_000_000]
    await place.do("image", "put", "again", str(image))
    assert place.images.offsets[-1] == image.stat().st_size
    assert "READY" in await place.do("image", "list")
    await place.do("image", "delete", "guest")


async def test_forward_joins_stdin_and_stdout_to_a_port(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    payload = bytes(range(256)) * 4096
    process = await place.start(
        "cluster", "forward", "demo", "node-0", "22", stdin=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(payload), 30)
    assert out == payload
    assert (process.returncode, err) == (0, b"")


async def test_forward_takes_a_plain_file_as_stdin(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    with place.spec.open("rb") as file:
        process = await place.start(
            "cluster", "forward", "demo", "node-0", "22", stdin=file.fileno()
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert out == place.spec.read_bytes()


async def test_forward_says_when_nothing_listens(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    said = await place.say("cluster", "forward", "demo", "node-0", "1")
    assert said.code == 1
    assert "CONNECTION_REFUSED" in said.err


async def test_the_sdk_attaches_to_a_console_and_raises_what_the_service_raised(
    place: Place,
) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    async with await place.connect() as client:
        async with await client.clusters.attach("demo", "node-0") as console:
            assert await console.read() == SERIAL
            await console.write(b"root\n")
            assert await console.read() == b"root\n"
        with pytest.raises(ConnectionRefused) as refused:
            await client.clusters.attach("demo", "node-0", port=1)
        assert refused.value.port == 1
        with pytest.raises(NotFound):
            await client.clusters.attach("nosuch", "node-0")


async def test_a_console_on_a_terminal_is_left_by_its_escape_and_the_terminal_is_as_before(
    place: Place,
) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    try:
        process = await place.start("cluster", "console", "demo", "node-0", stdin=theirs)
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readexactly(len(SERIAL)), 30) == SERIAL
        os.write(ours, b"ls\x03\r")
        assert await asyncio.wait_for(process.stdout.readexactly(4), 30) == b"ls\x03\r"
        os.write(ours, b"x\x1dy")
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, out) in {(0, b""), (0, b"x")}
        assert b"Ctrl-] leaves" in err
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


async def test_ctrl_c_before_the_answer_says_how_to_learn_it(place: Place) -> None:
    place.clusters.silent = True
    args = ("cluster", "create", "-f", str(place.spec), "--request-id", "r-1")
    process = await place.start(*args)
    await asyncio.wait_for(place.clusters.asked.wait(), 30)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (130, b"")
    assert b"--request-id r-1" in err
    assert b"Traceback" not in err


async def test_watch_with_json_prints_a_document_a_line(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    lines = (await place.do("cluster", "watch", "demo", "-o", "json")).splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["SCHEDULED", "ACTIVE"]


def told(**event: Any) -> WatchClustersResponse:
    return WatchClustersResponse(**event)


def snapshot(token: str, *names: str, reason: int = SnapshotBegin.NO_TOKEN) -> list[Any]:
    """In a message for each cluster."""
    return [
        told(snapshot_begin=SnapshotBegin(reason=reason)),  # type: ignore[arg-type]
        *(told(snapshot_clusters={"clusters": [named(each)]}) for each in names),
        told(snapshot_end={}, resume_token=token),
    ]


def named(name: str) -> Cluster:
    return Cluster(name=f"metascheds/meta/tenants/demo/clusters/{name}", state=Cluster.ACTIVE)


async def test_the_sdk_takes_up_a_broken_stream_with_its_last_token(place: Place) -> None:
    """In the middle of a snapshot, after a change, when the service lets go, and after silence."""
    begun, end = snapshot("t9", "a", "b"), snapshot("t1", "a", "b")
    place.clusters.streams = [
        [*begun[:2], NotLeading("")],
        [*end, told(changed=named("a"), resume_token="t2"), EtcdUnavailable("away")],
        [told(alive={}, resume_token="t3"), None],
        [told(gone={"name": "x", "uid": "u"}, resume_token="t4")],
        snapshot("t5", "b", reason=SnapshotBegin.TOO_OLD),
    ]
    async with await place.connect() as client:
        events = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("intertie.client.changes.SILENCE_S", 1.0)
            async with asyncio.timeout(60):
                async for event in client.clusters.watch_all():
                    events.append(event)
                    if event.token == "t5":
                        break
    assert place.clusters.resumed == ["", "", "t2", "t3", "t4"]
    first, changed, alive, gone, last = events
    assert isinstance(first, Snapshot)
    assert [each.name[-1] for each in first.clusters] == ["a", "b"], "whole, and once"
    assert first.reason is SnapshotReason.NO_TOKEN
    assert isinstance(changed, Changed)
    assert changed.cluster == named("a")
    assert isinstance(alive, Alive)
    assert gone == Gone(name="x", uid="u", token="t4")
    assert isinstance(last, Snapshot)
    assert (last.reason, len(last.clusters)) == (SnapshotReason.TOO_OLD, 1)


async def test_the_sdk_gives_up_on_what_does_not_pass(place: Place) -> None:
    place.clusters.streams = [[FieldInvalid("resume_token", "is none; leave it out")]]
    async with await place.connect() as client:
        with pytest.raises(FieldInvalid):
            await anext(client.clusters.watch_all(resume_token="x"))
        place.clusters.streams = [[EtcdUnavailable("away")] for _ in range(99)]
        with pytest.raises(EtcdUnavailable):
            await anext(client.clusters.watch_all(patience_s=1.0))
    assert len(place.clusters.resumed) >= 3


async def test_watch_of_all_prints_an_event_a_line_and_ends_with_ctrl_c(place: Place) -> None:
    place.clusters.streams = [
        [
            *snapshot("t1", "a"),
            told(changed=named("b"), resume_token="t2"),
            told(gone={"name": named("a").name, "uid": "u"}, resume_token="t3"),
            told(alive={}, resume_token="t4"),
        ]
    ]
    process = await place.start("cluster", "watch", "--resume", "t0", "-o", "json")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        lines = [json.loads(await process.stdout.readline()) for _ in range(4)]
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert place.clusters.resumed == ["t0"]
    assert [(each["event"], each["token"]) for each in lines] == [
        ("snapshot", "t1"),
        ("changed", "t2"),
        ("gone", "t3"),
        ("alive", "t4"),
    ]
    assert [each["name"] for each in lines[0]["clusters"]] == [named("a").name]
    assert lines[0]["reason"] == "NO_TOKEN"
    assert lines[1]["cluster"]["state"] == "ACTIVE"
    assert lines[2]["name"] == named("a").name


async def test_watch_of_all_in_words_says_how_to_go_on(place: Place) -> None:
    made = named("b")
    made.workspaces.add(name=f"{made.name}/workspaces/w-0", site="north", host="n1", ready=True)
    place.clusters.streams = [
        [
            *snapshot("t1", "a", reason=SnapshotBegin.TOO_OLD),
            told(changed=made, resume_token="t2"),
            told(gone={"name": named("a").name, "uid": "u"}, resume_token="t3"),
        ]
    ]
    process = await place.start("cluster", "watch", "--resume", "t0")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        said = [(await process.stdout.readline()).decode().split(maxsplit=1)[1] for _ in range(4)]
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    assert [each.split()[0] for each in said] == ["a", "b", "b", "a"]
    assert "ACTIVE" in said[0]
    assert "w-0" in said[2]
    assert "cleared away" in said[3]
    assert b"not remembered any more" in err
    assert b"intertie cluster watch --resume t3" in err


async def test_one_cluster_is_not_watched_from_a_token(place: Place) -> None:
    said = await place.say("cluster", "watch", "demo", "--resume", "t")
    assert said.code == 2
    assert "--resume is for all clusters" in said.err


async def test_nobody_at_the_address_is_said_with_what_to_do(place: Place) -> None:
    other = place.folder / "elsewhere"
    other.mkdir()
    write_config(other / "client.toml", certificate="../alice", roots="../ca")
    said = await place.say("--config", str(other / "client.toml"), "cluster", "list")
    assert said.code == 1
    assert "north does not answer at unix:" in said.err
    assert "Try: Check that the service runs" in said.err


async def test_a_deadline_that_is_too_short_is_said_with_what_to_do(place: Place) -> None:
    place.clusters.silent = True
    connection = open_connection(load(place.config).endpoint(None), SystemClock())
    stub = connection.stub(clusters_pb2_grpc.ClustersStub)
    request = clusters_pb2.CreateClusterRequest(parent="-/tenants/demo", cluster_id="a")
    with pytest.raises(TimedOut, match="north did not answer in time") as caught:
        await connection.call(stub.Create, request, timeout_s=0.05)
    assert "same --request-id takes nothing twice" in caught.value.remedy
    place.clusters.silent = False
    await connection.close()


async def test_a_certificate_of_a_foreign_authority_is_said_with_what_to_do(place: Place) -> None:
    foreign = Authority(place.folder, "foreign")
    foreign.create("foreign")
    spiffe = "spiffe://meta.meta.intertie/tenant/demo/user/mallory"
    foreign.issue("mallory", common_name="mallory", spiffe=spiffe)
    for certificate, roots in (("mallory", "ca"), ("alice", "foreign")):
        write_config(place.config, certificate=certificate, roots=roots)
        said = await place.say("cluster", "list")
        assert said.code == 1
        first, second = said.err.splitlines()
        assert first.startswith("error: ")
        assert second.startswith("Try: ")
        assert "certificate" in second


async def test_a_certificate_that_has_ended_or_is_of_another_key_is_named(place: Place) -> None:
    """The bug: both ended in what TLS said, without a word of which file or what to do."""
    spiffe = "spiffe://meta.meta.intertie/tenant/demo/user/alice"
    ended = timedelta(minutes=-1)
    place.authority.issue("late", common_name="late", spiffe=spiffe, lifetime=ended)
    place.authority.issue("mixed", common_name="mixed", spiffe=spiffe)
    shutil.copy(place.folder / "alice.key", place.folder / "mixed.key")
    for certificate, problem in (
        ("late", "it ended at 20"),
        ("mixed", "the key is not that of the certificate"),
    ):
        write_config(place.config, certificate=certificate)
        said = await place.say("cluster", "list")
        assert said.code == 1
        assert f"{certificate}.pem: {problem}" in said.err
        assert "Try: Check certificate, key and roots" in said.err


async def test_a_key_that_is_not_there_is_named(place: Place) -> None:
    write_config(place.config, certificate="nobody")
    said = await place.say("cluster", "list")
    assert said.code == 1
    assert "nobody.key: no such file" in said.err
