"""Services that are started on certificates they cannot use: a sentence, and no traceback."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from intertie.common.clock import SystemClock
from intertie.common.rpc.credentials import Credentials
from intertie.common.settings import PeerSettings, SettingsInvalid, TlsSettings
from intertie.nodeagent.adapters.imagestore_client import to_imagestore
from tests.integration.pki import TestDomain

MAIN = {
    "broker": 'site = "north"\nimagestore = {{address = "127.0.0.1:1", server_name = "i"}}\n',
    "metasched": 'name = "m"\nsites = [{{name = "a", addresses = ["a:1"], server_name = "a"}}]\n',
    "imagestore": 'site = "north"\ndata = "{folder}/data"\n',
}
ETCD = '[etcd]\nendpoints = ["127.0.0.1:1"]\nprefix = "/intertie/north"\n'


def written(folder: Path, service: str, domain: TestDomain, tls: TlsSettings) -> Path:
    config = folder / f"{service}.toml"
    config.write_text(
        MAIN[service].format(folder=folder)
        + f'[listen]\naddresses = ["unix:{folder}/socket"]\n'
        + f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        + f'[[trust]]\ndomain = "{domain.name}"\nroots = "{domain.trust.roots}"\n'
        + ("" if service == "imagestore" else ETCD)
    )
    return config


@pytest.mark.parametrize("service", MAIN)
async def test_a_service_says_why_it_does_not_start(tmp_path: Path, service: str) -> None:
    """The bug: brokers and meta-schedulers ended with a traceback."""
    name = "meta.meta.intertie" if service == "metasched" else "north.site.intertie"
    domain = TestDomain.create(tmp_path, name)
    ended = domain.issue(f"spiffe://{name}/{service}", lifetime=timedelta(minutes=-1))
    config = written(tmp_path, service, domain, ended)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"from intertie.{service}.main import main; raise SystemExit(main())",
        "--config", str(config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    [line] = said.decode().splitlines()
    assert line.startswith(f"intertie-{service}: tls: {ended.certificate}")
    assert "is not valid at" in line
    assert not (tmp_path / "socket").exists()


async def test_an_agent_does_not_start_where_nobody_speaks_for_its_image_store(
    tmp_path: Path,
) -> None:
    """It used to run, and to fail each image that its guests needed."""
    north = TestDomain.create(tmp_path, "north.site.intertie")
    credentials = Credentials(north.service("agent/n1"), (north.trust,), SystemClock())
    peer = PeerSettings(address="127.0.0.1:1", server_name="imagestore.south.site.intertie")
    with pytest.raises(SettingsInvalid, match=r"^imagestore.server_name: imagestore.south.*trust"):
        to_imagestore(peer, credentials)
