"""A host is lost, by real etcd: fenced by a real program, and what was on it goes elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from intertie.api.broker.v1 import site_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import resources_pb2
from intertie.broker.adapters import keys
from intertie.broker.adapters.fences import CommandFence
from intertie.broker.domain.ports import NotCertain
from intertie.broker.settings import FencingSettings
from intertie.common.clock import SystemClock
from tests.integration.broker_site import HOST, Site, cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.unit.broker.samples import facts

LOST_AFTER_S = 12.0
"""Below what a setting allows; agents report each 5 s."""
WITHIN_S = 60


def a_switch(folder: Path) -> tuple[str, ...]:
    """Turns a host off where there is a file `may`, and writes down whom it was asked for."""
    path = folder / "switch"
    path.write_text(
        f'#!/bin/sh\necho "$1" >>{folder}/asked\n'
        f"[ -e {folder}/may ] || {{ echo no power; exit 3; }}\n"
    )
    path.chmod(0o700)
    return (str(path),)


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
) -> AsyncIterator[Site]:
    fencing = FencingSettings.model_construct(
        method="command",
        lost_after_s=LOST_AFTER_S,
        command=a_switch(tmp_path),
        command_timeout_s=10.0,
    )
    hosts = {"n1": HOST, "n2": HOST, "n3": HOST}
    etcd = etcd_server.settings(etcd_prefix)
    async with site(tmp_path / "b", etcd, north, (south,), hosts=hosts, fencing=fencing) as made:
        yield made


def asked(term: str) -> cluster_pb2.ClusterSpec:
    spec = cluster_spec(count=3, pair_mbit_s=0)
    on_host_loss = resources_pb2.AvailabilityTerm.OnHostLoss.Value(term)
    spec.groups[0].allocation.availability.on_host_loss = on_host_loss
    return spec


async def get(here: Site, name: str) -> cluster_pb2.Cluster:
    return await here.clusters().Get(clusters_pb2.GetClusterRequest(name=name))


async def state(here: Site, host: str) -> site_pb2.Host:
    stub = here.hosts(here.domain.operator("olga"))
    return await stub.Get(site_pb2.GetHostRequest(name=f"sites/north/hosts/{host}"))


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await true():
            await SystemClock().sleep(0.2)


async def until_state(here: Site, host: str, wanted: str) -> site_pb2.Host:
    async def is_so() -> bool:
        return (await state(here, host)).state == site_pb2.Host.State.Value(wanted)

    await until(is_so)
    return await state(here, host)


async def is_whole_without(here: Site, name: str, host: str) -> bool:
    now = await get(here, name)
    return now.state == cluster_pb2.Cluster.ACTIVE and all(
        each.ready and each.host != host for each in now.workspaces
    )


async def has_failed(here: Site, name: str) -> bool:
    return (await get(here, name)).state == cluster_pb2.Cluster.FAILED


async def is_refused(here: Site, host: str) -> bool:
    return "exited with 3" in (await state(here, host)).state_message


@pytest.mark.etcd
async def test_what_was_on_a_lost_host_goes_elsewhere_once_it_is_off_and_not_before(
    here: Site, tmp_path: Path
) -> None:
    clusters = here.clusters()
    restarts = await clusters.Create(create("again", asked("RESTART"), "r1"))
    ends = await clusters.Create(create("ends", asked("END"), "r2"))
    later = asked("END")
    later.lease.start_time.FromDatetime(restarts.window.end_time.ToDatetime() + timedelta(hours=1))
    later.lease.duration.FromTimedelta(timedelta(hours=1))
    future = await clusters.Create(create("later", later, "r3"))
    for each in (restarts, ends, future):
        assert {w.host for w in (await get(here, each.name)).workspaces} == {"n1", "n2", "n3"}

    here.agents.silent.add("n3")
    fencing = await until_state(here, "n3", "FENCING")
    assert fencing.epoch == 1
    await until(lambda: is_refused(here, "n3"))
    # The switch says no: nothing that may run is begun elsewhere; what no host knows of is moved.
    assert "n3" in {w.host for w in (await get(here, restarts.name)).workspaces}
    assert (await get(here, ends.name)).state != cluster_pb2.Cluster.FAILED
    said = {w.host: w.message for w in (await get(here, restarts.name)).workspaces}
    assert "silent since" in said["n3"]
    assert said["n1"] == ""
    assert "n3" not in {w.host for w in (await get(here, future.name)).workspaces}

    (tmp_path / "may").touch()
    await until_state(here, "n3", "FENCED")
    assert set((tmp_path / "asked").read_text().split()) == {"n3"}
    await until(lambda: is_whole_without(here, restarts.name, "n3"))
    await until(lambda: has_failed(here, ends.name))
    now, over = await get(here, restarts.name), await get(here, ends.name)
    assert sorted(w.restarts for w in now.workspaces) == [0, 0, 1]
    before = {w.name: w.addresses for w in restarts.workspaces}
    assert {w.name: w.addresses for w in now.workspaces} == before
    assert sum("was lost" in w.message for w in now.workspaces) == 1
    assert over.failure.reason == "HOST_LOST"
    assert "n3" in over.failure.message

    # It comes back: what it is told of itself is all that is left there.
    here.agents.silent.discard("n3")
    await until_state(here, "n3", "UP")
    left = (await here.etcd.range("wanted/n3/")).entries
    assert [each.key for each in left] == [keys.wanted_host_key("n3")]
    told = records_pb2.WantedHost.FromString(left[0].value)
    assert (told.hold, told.epoch) == (records_pb2.WantedHost.NONE, 1)


async def certain(command: tuple[str, ...], within_s: float = 5) -> str:
    fence = CommandFence(command, within=timedelta(seconds=within_s))
    return await fence.fence(facts("n3"), timedelta())


async def test_only_exit_0_says_that_a_host_is_off(tmp_path: Path) -> None:
    assert "off" in await certain(("/bin/sh", "-c", f'echo "$0" >{tmp_path}/host'))
    assert (tmp_path / "host").read_text() == "n3\n"
    with pytest.raises(NotCertain, match=r"exited with 4$"):
        await certain(("/bin/sh", "-c", "echo one; echo no such plug >&2; exit 4"))
    with pytest.raises(NotCertain, match="/no/such/program: No such file"):
        await certain(("/no/such/program",))
    with pytest.raises(NotCertain, match="did not end within"):
        await certain(("/bin/sh", "-c", "sleep 60 & wait"), within_s=0.5)


async def test_a_program_that_leaves_something_behind_is_not_waited_for_beyond_its_own_end() -> (
    None
):
    """A child of its own session kept the pipe open: what had exited 0 was said not to have ended,
    and a program that hung held up its host's fencing for as long as its child ran."""
    clock = SystemClock()
    before = clock.monotonic()
    assert "off" in await certain(("/bin/sh", "-c", "setsid sleep 30 & exit 0"), within_s=10)
    with pytest.raises(NotCertain, match=r"did not end within 0\.5 s"):
        await certain(("/bin/sh", "-c", "setsid sleep 30 & sleep 60"), within_s=0.5)
    assert clock.monotonic() - before < 15


async def test_what_a_program_says_is_for_logs_and_not_for_users(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its last line was in the host's state message, which every tenant may read."""
    with pytest.raises(NotCertain) as said:
        await certain(("/bin/sh", "-c", "echo password is xyzzy; exit 4"))
    assert "xyzzy" not in str(said.value)
    assert "xyzzy" in "".join(capsys.readouterr())
