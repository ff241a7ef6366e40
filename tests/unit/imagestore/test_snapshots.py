"""What a host may put: the one snapshot for which a broker of its site has signed, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.common.errors import FieldInvalid, IdentityUnknown, NameTaken
from intertie.common.names import ImageName
from intertie.common.rpc.signing import Signer
from intertie.common.values import replace
from intertie.imagestore.adapters.grants import SignedGrants
from intertie.imagestore.domain.granting import Grant, objection, source_of
from intertie.imagestore.domain.image import Announcement
from tests.unit.common_rpc.authority import NOW, MemoryAuthority, trust_in
from tests.unit.imagestore.test_put_image import (
    OCTETS,
    OTHER,
    Store,
    blocks,
    named,
    saying,
    store,
)

__all__ = ["store"]

NORTH, SOUTH = MemoryAuthority("north.site.intertie"), MemoryAuthority("south.site.intertie")
BROKER = "spiffe://north.site.intertie/broker"
GRANT = Grant(
    image=ImageName("north", "demo", "a"),
    host="n1",
    cluster="sites/north/tenants/demo/clusters/c",
    workspace="w-0",
    owner="spiffe://north.site.intertie/tenant/demo/user/alice",
    sign_time=NOW,
    expire_time=NOW + timedelta(hours=24),
)


def signed(signer: Signer, **changes: Any) -> pb.SnapshotGrant:
    body = pb.SnapshotGrantBody(
        image=str(GRANT.image),
        host=GRANT.host,
        cluster=GRANT.cluster,
        workspace=GRANT.workspace,
        owner=GRANT.owner,
    )
    body.sign_time.FromDatetime(changes.pop("sign_time", GRANT.sign_time))
    body.expire_time.FromDatetime(GRANT.expire_time)
    for name, value in changes.items():
        setattr(body, name, value)
    octets = body.SerializeToString()
    by = signer.sign(octets)
    return pb.SnapshotGrant(body=octets, signature=by.signature, certificate=by.certificate)


def opened(grant: pb.SnapshotGrant) -> Grant:
    return SignedGrants(trust_in(NORTH, SOUTH), "north").open(grant)


def test_a_grant_says_what_its_broker_has_signed() -> None:
    assert opened(signed(NORTH.issue(BROKER))) == GRANT


@pytest.mark.parametrize(
    ("signer", "why"),
    [
        (SOUTH.issue("spiffe://south.site.intertie/broker"), "no broker of north"),
        (NORTH.issue("spiffe://north.site.intertie/agent/n1"), "no broker of north"),
        (NORTH.issue("spiffe://north.site.intertie/operator/root"), "no broker of north"),
        (SOUTH.issue(BROKER), "not issued by a trusted root"),
        (NORTH.issue(BROKER, ends=NOW - timedelta(seconds=1)), "not valid at"),
    ],
    ids=["another site", "a host", "an operator", "forged", "too old"],
)
def test_nobody_else_s_word_counts(signer: Signer, why: str) -> None:
    with pytest.raises(IdentityUnknown, match=why):
        opened(signed(signer))


def test_one_that_was_changed_or_cannot_be_read_is_none() -> None:
    grant = signed(NORTH.issue(BROKER))
    other = pb.SnapshotGrantBody.FromString(grant.body)
    other.host = "n2"
    grant.body = other.SerializeToString()
    with pytest.raises(IdentityUnknown, match="signature is not valid"):
        opened(grant)
    for body in (b"\xff", b""):
        with pytest.raises(IdentityUnknown, match="cannot be read"):
            opened(pb.SnapshotGrant(body=body))


@pytest.mark.parametrize(
    ("changes", "asks", "why"),
    [
        ({}, {}, ""),
        ({}, {"host": "n2"}, "for host n1"),
        ({}, {"now": GRANT.expire_time}, "has run out"),
        ({}, {"now": NOW - timedelta(minutes=1)}, "yet to come"),
        ({"image_id": "b"}, {}, "not for sites/north/tenants/demo/images/b"),
        ({"tenant": "other"}, {}, "not for sites/north/tenants/other/images/a"),
    ],
)
def test_it_is_for_one_host_one_image_and_a_while(
    changes: dict[str, Any], asks: dict[str, Any], why: str
) -> None:
    asked: dict[str, Any] = {"site": "north", "host": "n1", "now": NOW, **asks}
    found = objection(GRANT, replace(saying(), **changes), **asked)
    assert (found == "") if not why else (why in found)


def test_a_grant_for_longer_than_any_broker_gives_one_is_none() -> None:
    longer = replace(GRANT, expire_time=GRANT.expire_time + timedelta(seconds=1))
    asked: dict[str, Any] = {"site": "north", "host": "n1", "now": NOW}
    assert "for more than 24 hours" in objection(longer, saying(), **asked)


def test_a_disk_of_before_it_was_asked_for_is_refused() -> None:
    with pytest.raises(FieldInvalid, match="taken_time"):
        source_of(GRANT, NOW - timedelta(minutes=1), quiesced=False)


def snapshot(octets: bytes, asked: datetime) -> Announcement:
    source = source_of(replace(GRANT, sign_time=asked), asked, quiesced=True)
    return replace(saying(octets), source=source)


async def test_an_image_says_where_it_came_from_over_a_restart(store: Store) -> None:
    asked = store.clock.now()
    image = await store.put(snapshot(OCTETS, asked), 0, blocks(OCTETS))
    assert image.source is not None
    assert (image.source.cluster, image.source.workspace) == (GRANT.cluster, "w-0")
    restarted = Store(store.files, store.clock)
    await restarted.shelf.load()
    assert await restarted.stat(named("a"), any_tenant=False) == image


async def test_it_replaces_what_was_there_and_nothing_that_came_later(store: Store) -> None:
    """So a host can do once, and not again, what it was given leave for."""
    await store.put(saying(OTHER), 0, blocks(OTHER))
    await store.clock.advance(1)
    asked = store.clock.now()
    await store.clock.advance(1)
    made = await store.put(snapshot(OCTETS, asked), 0, blocks(OCTETS))
    assert await store.put(snapshot(OCTETS, asked), 0, blocks()) == made, "a retry"
    with pytest.raises(NameTaken):
        await store.put(snapshot(b"evil" * 300, asked), 0, blocks(b"evil" * 300))
    await store.put(saying(OTHER), 0, blocks(OTHER))
    with pytest.raises(NameTaken):
        await store.put(snapshot(OCTETS, asked), 0, blocks(OCTETS))
    assert await store.read("a") == OTHER


async def test_of_two_orders_the_later_one_is_the_image_in_whatever_order_they_come(
    store: Store,
) -> None:
    first = store.clock.now()
    await store.clock.advance(30)
    second = store.clock.now()
    await store.clock.advance(30)
    await store.put(snapshot(OTHER, first), 0, blocks(OTHER))
    await store.put(snapshot(OCTETS, second), 0, blocks(OCTETS))
    with pytest.raises(NameTaken):
        await store.put(snapshot(OTHER, first), 0, blocks(OTHER))
    assert await store.read("a") == OCTETS


async def test_one_that_is_overtaken_on_its_way_is_not_published(store: Store) -> None:
    asked = store.clock.now()

    async def overtaken() -> AsyncIterator[bytes]:
        yield OCTETS[:5000]
        await store.clock.advance(1)
        await store.put(saying(OTHER), 0, blocks(OTHER))
        yield OCTETS[5000:]

    with pytest.raises(NameTaken):
        await store.put(snapshot(OCTETS, asked), 0, overtaken())
    assert await store.read("a") == OTHER
    assert await store.files.uploads() == []
    assert len(await store.files.blobs()) == 1
