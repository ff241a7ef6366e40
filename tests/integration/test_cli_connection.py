"""What the `intertie` command says where it does not get through."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.client import (
    load,
)
from intertie.client.connection import open_connection
from intertie.client.errors import TimedOut
from intertie.common.clock import SystemClock
from testbed.pki import Authority
from tests.integration.cli_place import Place, write_config


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
