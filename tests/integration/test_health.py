"""Whether a service serves, as what watches its process is told."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from intertie.common.clock import SystemClock
from intertie.common.rpc.health import NotServing, check, dialled
from intertie.common.rpc.server import Server
from intertie.common.settings import ListenSettings, ServingSettings, TlsSettings, load
from tests.integration.pki import TestDomain
from tests.integration.rpc_service import Clusters, Settings, serving

INTERTIE_HEALTH = Path(sys.executable).parent / "intertie-health"
SOON = timedelta(seconds=10)


def written(folder: Path, address: str, domain: TestDomain, tls: TlsSettings) -> Path:
    """A broker's settings, with more in them than is looked at."""
    config = folder / "broker.toml"
    config.write_text(
        f'site = "north"\n[listen]\naddresses = ["{address}", "127.0.0.1:1"]\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        f'[[trust]]\ndomain = "{domain.name}"\nroots = "{domain.trust.roots}"\n'
        '[etcd]\nendpoints = ["127.0.0.1:1"]\nprefix = "/intertie/north"\n'
    )
    return config


def settings_of(
    folder: Path, address: str, domain: TestDomain, tls: TlsSettings
) -> ServingSettings:
    return load(ServingSettings, written(folder, address, domain, tls))


async def run(config: Path) -> tuple[int, str]:
    """Exit code of the command, and what it says."""
    process = await asyncio.create_subprocess_exec(
        str(INTERTIE_HEALTH), "--config", str(config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_the_command_says_nothing_of_a_service_that_serves(
    tmp_path: Path, north: TestDomain
) -> None:
    tls = north.service("broker")
    async with serving(tls, [north], Clusters()) as address:
        assert await run(written(tmp_path, address, north, tls)) == (0, "")


async def test_the_command_names_where_nobody_answers(tmp_path: Path, north: TestDomain) -> None:
    config = written(tmp_path, f"unix:{tmp_path}/none", north, north.service("broker"))
    code, said = await run(config)
    assert code == 1
    assert said.startswith(f"intertie-health: unix:{tmp_path}/none: UNAVAILABLE: ")
    assert len(said.splitlines()) == 1


async def test_the_command_names_the_field_that_is_wrong(tmp_path: Path, north: TestDomain) -> None:
    config = written(tmp_path, "127.0.0.1:1", north, north.service("broker"))
    config.write_text(config.read_text().replace("key =", "keys ="))
    code, said = await run(config)
    assert code == 1
    assert "tls.key: Field required" in said


@pytest.mark.parametrize("role", ["broker", "imagestore", "agent/n1"])
async def test_every_role_may_ask_itself(tmp_path: Path, north: TestDomain, role: str) -> None:
    tls = north.service(role)
    socket = f"unix:{tmp_path}/socket"
    async with serving(tls, [north], Clusters(), socket):
        await check(settings_of(tmp_path, socket, north, tls), within=SOON)


async def test_another_s_service_in_its_place_is_not_it(
    tmp_path: Path, north: TestDomain, south: TestDomain
) -> None:
    async with serving(south.service("broker"), [north, south], Clusters()) as address:
        settings = settings_of(tmp_path, address, north, north.service("broker"))
        with pytest.raises(NotServing, match="UNAVAILABLE"):
            await check(settings, within=SOON)


async def test_one_that_accepts_and_stays_silent_does_not_serve(
    tmp_path: Path, north: TestDomain
) -> None:
    silent = await asyncio.start_unix_server(lambda *_: None, f"{tmp_path}/socket")
    async with silent:
        settings = settings_of(tmp_path, f"unix:{tmp_path}/socket", north, north.service("broker"))
        with pytest.raises(NotServing, match="DEADLINE_EXCEEDED"):
            await check(settings, within=timedelta(seconds=0.5))


async def test_one_that_says_so_does_not_serve(tmp_path: Path, north: TestDomain) -> None:
    tls, address = north.service("broker"), f"unix:{tmp_path}/socket"
    served = Settings(ListenSettings(addresses=(address,)), tls, (north.trust,))
    server = Server(served, SystemClock(), [])
    await server.start()
    try:
        await server._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        with pytest.raises(NotServing, match="says NOT_SERVING"):
            await check(settings_of(tmp_path, address, north, tls), within=SOON)
    finally:
        await server.stop(0)


async def test_a_certificate_without_a_name_to_go_by_is_named(
    tmp_path: Path, north: TestDomain, south: TestDomain
) -> None:
    tls = north.service("broker")
    settings = settings_of(tmp_path, "127.0.0.1:1", south, tls)
    with pytest.raises(NotServing, match=r"\(broker.north.site.intertie, localhost\)"):
        await check(settings, within=SOON)


@pytest.mark.parametrize(
    ("listened", "reached"),
    [
        ("0.0.0.0:7400", "127.0.0.1:7400"),
        ("[::]:7400", "[::1]:7400"),
        ("10.1.0.11:7402", "10.1.0.11:7402"),
        ("unix:/run/intertie/broker.sock", "unix:/run/intertie/broker.sock"),
    ],
)
def test_where_all_of_a_machine_s_addresses_are_listened_on_its_own_is_dialled(
    listened: str, reached: str
) -> None:
    assert dialled(listened) == reached
