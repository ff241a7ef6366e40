"""The `intertie` command against a real server: mutual TLS, errors, signals."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime

from intertie.api.types.v1.action_pb2 import Action
from intertie.common.errors import (
    ActionIllegal,
    AmendPending,
    FieldInvalid,
    LeaseEnding,
    NoCapacity,
    NotLeading,
    PlanStale,
    Shortfall,
)
from intertie.common.explanation import (
    Change,
    Conflict,
    CounterOffer,
    Explanation,
    Requirement,
)
from tests.fakes.user_api import AUTHORITY
from tests.integration.cli_place import SPEC, Place

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeFakeFakeFake alice@example"


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


async def test_a_refusal_says_what_stands_against_what_and_what_could_be_had(place: Place) -> None:
    count, vcpus = "spec.groups[0].count", "spec.groups[0].allocation.vcpus"
    conflict = Conflict(
        requirements=(
            Requirement(field=count, message="2 node", enough=True),
            Requirement(field=vcpus, message="9 vCPUs for each node", enough=True),
        )
    )
    offer = CounterOffer(
        changes=(Change(field=count, value="1"),),
        message="1 node instead of 2",
        start_time=datetime(2026, 3, 1, 12, tzinfo=UTC),
        cost=0.5,
    )
    short = Shortfall(site="north", resource="vcpus", wanted=18, available=9, unit="vCPU",
                      until=datetime(2026, 3, 1, 14, tzinfo=UTC))  # fmt: skip
    told = Explanation(conflicts=(conflict,), counter_offers=(offer,))
    place.clusters.refusals = [NoCapacity((short,), told)]
    said = await place.say("plan", "-f", str(place.spec))
    assert said.code == 1
    lines = said.err.splitlines()
    assert "these cannot be had together" in lines
    assert "  * groups[0].count (line 5): 2 node" in lines
    assert "  * groups[0].allocation.vcpus (line 7): 9 vCPUs for each node" in lines
    assert "it could be had without one with *" in lines
    assert "as things stand, it could be had with" in lines
    assert (
        "  - 1 node instead of 2  (groups[0].count: 1; starts 2026-03-01 12:00:00Z, costs 0.5000)"
        in lines
    )
    assert any("ENOUGH FROM" in each for each in lines)
    assert any("2026-03-01 14:00:00Z" in each for each in lines)
    assert "Try:" not in said.err


async def test_a_field_that_the_service_refuses_is_named_with_its_line(place: Place) -> None:
    place.clusters.refusals = [FieldInvalid("spec.groups[0].allocation.vcpus", "too many")]
    said = await place.say("cluster", "create", "-f", str(place.spec))
    assert said.code == 1
    assert "error: groups[0].allocation.vcpus (line 7): too many [FIELD_INVALID]" in said.err


async def test_plan_takes_nothing(place: Place) -> None:
    assert "2 node" in await place.do("plan", "-f", str(place.spec))
    assert place.clusters.clusters == {}
    assert place.clusters.requests[0].validate_only


async def test_of_plans_to_choose_from_one_is_taken_by_its_token(place: Place) -> None:
    said = await place.say("cluster", "plan", "-f", str(place.spec))
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[1].split() == ["earliest", "at", "once", "north:", "2", "node", "0.2500", "a" * 32]
    assert "cheapest: leases that wait give way (south: vcpus 4 vCPU wanted, 1 available)" in lines
    assert "Nothing is held. Until 2027-01-15 08:05:00Z: intertie cluster create" in said.out
    assert place.clusters.clusters == {}
    told = json.loads(await place.do("cluster", "plan", "-f", str(place.spec), "-o", "json"))
    assert [each["merits"] for each in told] == [["EARLIEST"], ["CHEAPEST"]]
    token = told[1]["token"]
    await place.do("cluster", "create", "-f", str(place.spec), "--plan", token, "--no-wait")
    assert place.clusters.requests[-1].plan_token == token == "b" * 32


async def test_a_plan_that_cannot_be_had_any_more_says_what_to_do(place: Place) -> None:
    place.clusters.refusals = [PlanStale("north: vcpus 4 vCPU wanted, 1 available")]
    said = await place.say("cluster", "create", "-f", str(place.spec), "--plan", "a" * 32)
    assert said.code == 1
    assert "north: vcpus 4 vCPU wanted, 1 available; plan again [PLAN_STALE]" in said.err
    assert "Try: Plan again: `intertie cluster plan -f FILE`" in said.err


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
    place.clusters.refusals = [LeaseEnding("demo", "12:00"), AmendPending("demo")]
    for says in ("LEASE_ENDING", "AMEND_PENDING"):
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


async def test_an_image_is_made_of_a_workspace_and_waited_for(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec))
    said = await place.say("cluster", "snapshot", "demo", "node-0", "--image", "before")
    assert said.out.endswith("/images/before\n")
    assert "as after a power failure" in said.err
    asked = place.clusters.requests[-1]
    assert (asked.action, list(asked.workspaces)) == (Action.SNAPSHOT, ["node-0"])
    assert asked.image == "before"
    assert asked.request_id
    said = await place.say("cluster", "snapshot", "demo", "node-0", "--image", "broken")
    assert said.code == 1
    assert "there is no image of node-0: the pool is full" in " ".join(said.err.split())
    shown = json.loads(
        await place.do(
            "cluster", "snapshot", "demo", "node-0", "--image", "b", "--no-wait", "-o", "json"
        )
    )
    assert [each["snapshot"]["image"] for each in shown["workspaces"] if "snapshot" in each]
    said = await place.say("cluster", "snapshot", "demo", "node-0", "--image", "No Label")
    assert said.code == 1
    assert "image" in said.err


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
