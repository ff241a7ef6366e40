"""A site whose authority is changed while its broker serves, on real etcd."""

from __future__ import annotations

from pathlib import Path

import pytest

from intertie.api.broker.v1 import part_pb2
from intertie.common import followed
from intertie.common.clock import SystemClock
from intertie.common.rpc.client import channel
from intertie.common.rpc.identity import Identities
from intertie.common.rpc.signing import verify
from tests.integration.broker_site import cluster_spec, create, hold, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain, trust_in
from tests.integration.renewal import Renewed, renew_certificate, renew_key

pytestmark = pytest.mark.etcd


async def test_a_broker_serves_asks_and_signs_through_a_change_of_authority(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    meta: TestDomain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks its image store with the new certificate, which trusts no other by then; receipts
    that it signs are of the new certificate; what it had admitted is still there."""
    monkeypatch.setattr(followed, "LOOK_S", 0.0)
    north = Renewed(tmp_path / "pki", "north.site.intertie")
    settings = etcd_server.settings(etcd_prefix)
    clock = SystemClock()
    async with site(tmp_path / "site", settings, north.live, (meta,)) as here:
        alice = here.clusters()
        spec = cluster_spec(count=1, pair_mbit_s=0)
        await alice.Create(create("before", spec, "r-before"))
        seen = set()
        for turn in range(3):
            north.begin()
            for service in ("broker", "imagestore"):
                fresh = north.now.service(service)
                live = north.live.folder / fresh.certificate.name
                shown = fresh.model_copy(
                    update={"certificate": live, "key": live.with_suffix(".key")}
                )
                renew_certificate(shown, fresh)
                renew_key(shown, fresh)
            north.end()
            line = channel(
                here.address,
                north.now.user("demo", "alice"),
                trust_in(north.live),
                north.live.server_name("broker"),
            )
            here.channels.append(line)
            stub = type(alice)(line)
            made = await stub.Create(create(f"c{turn}", spec, f"r{turn}"))
            assert made.workspaces
            metasched = here.parts(meta.service("metasched"))
            held = await metasched.Hold(
                hold(f"{turn}" * 16, clock, "spiffe://meta.meta.intertie/metasched")
            )
            receipt: part_pb2.Receipt = held.receipt
            signer = verify(
                receipt.body,
                receipt.signature,
                receipt.certificate,
                Identities(trust_in(north.now)),
                now=clock.now(),
            )
            assert signer.site == "north"
            seen.add(receipt.certificate)
        assert len(seen) == 3
        assert len((await here.etcd.range("clusters/")).entries) == 4
