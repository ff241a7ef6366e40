"""Hosts put snapshots into the image store as a process, over mutual TLS, by a broker's grant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.signing import Signer
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal
from tests.integration.test_imagestore import (
    NAME,
    OCTETS,
    PARENT,
    Process,
    fetched,
    frames,
    put,
    store,
)

__all__ = ["store"]

CLUSTER = f"{PARENT}/clusters/c"
OWNER = "spiffe://north.site.intertie/tenant/demo/user/alice"


def granted(
    domain: TestDomain,
    asked: datetime,
    *,
    lasts: timedelta = timedelta(hours=1),
    **changes: str,
) -> pb.SnapshotGrant:
    values = {"image": NAME, "host": "n1", "cluster": CLUSTER, "workspace": "w-0", "owner": OWNER}
    body = pb.SnapshotGrantBody()
    for name, value in (values | changes).items():
        setattr(body, name, value)
    body.sign_time.FromDatetime(asked)
    body.expire_time.FromDatetime(asked + lasts)
    octets = body.SerializeToString()
    signed = Signer.load(domain.service("broker")).sign(octets)
    return pb.SnapshotGrant(body=octets, signature=signed.signature, certificate=signed.certificate)


async def test_a_host_puts_what_it_has_leave_for_and_its_tenant_has_it(
    store: Process, north: TestDomain, south: TestDomain
) -> None:
    asked = SystemClock().now()
    more: dict[str, Any] = {"taken_time": asked, "quiesced": True}
    good = granted(north, asked)
    async with store.calling(north.service("agent/n1")) as agent:
        for refused in (
            frames(**more),
            frames(grant=granted(south, asked), **more),
            frames(grant=granted(north, asked, host="n2"), **more),
            frames(grant=granted(north, asked, lasts=timedelta()), **more),
            frames(image_id="b", grant=good, **more),
            frames(parent="sites/north/tenants/other", grant=good, **more),
        ):
            assert isinstance(await refusal(put(agent, refused)), errors.RoleDenied)
        untimed = await refusal(put(agent, frames(grant=good)))
        assert isinstance(untimed, errors.FieldInvalid)
        assert untimed.field == "header.taken_time"
        image = await put(agent, frames(grant=good, **more))
        assert (image.name, image.owner) == (NAME, OWNER)
        assert await put(agent, frames(len(OCTETS), grant=good, **more)) == image
    async with store.calling(north.service("agent/n2")) as agent:
        other = await refusal(put(agent, frames(grant=good, **more)))
        assert isinstance(other, errors.RoleDenied)
    async with store.calling(north.user("demo", "bob")) as images:
        assert await fetched(images) == OCTETS
        told = await images.Stat(pb.StatImageRequest(name=NAME))
        assert (told.source.cluster, told.source.workspace) == (CLUSTER, "w-0")
        assert told.source.taken_time.ToDatetime(UTC) == asked
        assert told.source.quiesced
        [listed] = (await images.List(pb.ListImagesRequest(parent=PARENT))).images
        assert listed.source == told.source
        given = await refusal(put(images, frames(grant=good, **more)))
        assert isinstance(given, errors.FieldInvalid)
        assert given.field == "header.grant"
