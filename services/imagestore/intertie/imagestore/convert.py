"""Between the messages of intertie.api.imagestore and the domain."""

from __future__ import annotations

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.api.imagestore.v1 import transfers_pb2
from intertie.common.errors import FieldInvalid
from intertie.common.names import ImageName, Parent, check_label, is_digest
from intertie.common.rpc.terms_proto import timestamp_from_proto, timestamp_to_proto
from intertie.common.rpc.transfer_proto import grant_from_body
from intertie.common.transfer import TransferGrant
from intertie.common.values import field_names
from intertie.imagestore.domain.image import Announcement, Format, Image, Source, Upload
from intertie.imagestore.domain.transfers import Order, PeerStore, Transfer

_FORMATS = {Format.RAW: pb.Image.RAW, Format.QCOW2: pb.Image.QCOW2}


def announcement_from_proto(
    header: pb.PutImageRequest.Header, *, site: str, owner: str
) -> Announcement:
    return Announcement(
        tenant=tenant_from_parent(header.parent, "header.parent", site=site),
        image_id=check_label(header.image_id, "header.image_id"),
        digest=header.digest,
        size_bytes=header.size_bytes,
        owner=owner,
        data=header.data,
    )


def tenant_from_parent(text: str, field: str, *, site: str) -> str:
    parent = Parent.parse(text, field)
    if parent.authority not in ("-", f"sites/{site}"):
        raise FieldInvalid(field, f"{text!r}: this store is sites/{site}")
    if parent.tenant == "-":
        raise FieldInvalid(field, "must name a tenant")
    return parent.tenant


def image_to_proto(image: Image, *, site: str, deleted: bool = False) -> pb.Image:
    return pb.Image(
        name=image.name_at(site),
        digest=image.digest,
        size_bytes=image.size_bytes,
        virtual_size_bytes=image.virtual_size_bytes,
        state=pb.Image.DELETED if deleted else pb.Image.READY,
        format=_FORMATS[image.format],
        create_time=timestamp_to_proto(image.create_time),
        owner=image.owner,
        etag=image.etag,
        source=_source_to_proto(image.source),
    )


def _source_to_proto(source: Source | None) -> pb.ImageSource | None:
    if source is None:
        return None
    return pb.ImageSource(
        cluster=source.cluster,
        workspace=source.workspace,
        taken_time=timestamp_to_proto(source.taken_time),
        quiesced=source.quiesced,
    )


def upload_to_proto(upload: Upload, *, site: str) -> pb.Image:
    said = upload.announcement
    return pb.Image(
        name=str(ImageName(site, said.tenant, said.image_id)),
        digest=said.digest,
        size_bytes=said.size_bytes,
        state=pb.Image.UPLOADING,
        uploaded_bytes=upload.uploaded_bytes,
        owner=said.owner,
    )


def checked_digest(text: str) -> str:
    if not is_digest(text):
        raise FieldInvalid("digest", "must read b3: and 64 hexadecimal digits (BLAKE3)")
    return text


def order_from_proto(request: transfers_pb2.BringRequest, *, site: str, owner: str) -> Order:
    """FieldInvalid where its grant is for anything else than what it says."""
    tenant = tenant_from_parent(request.parent, "parent", site=site)
    checked_digest(request.digest)
    image_id = request.image_id or f"t-{request.digest.removeprefix('b3:')[:12]}"
    source = _peer_store(request.source)
    grant = grant_from_body(request.grant.body)
    said = TransferGrant(
        digest=request.digest,
        source_site=source.site,
        target_site=site,
        mbit_s=request.mbit_s,
        begin_time=timestamp_from_proto(request.begin_time, "begin_time"),
        end_time=timestamp_from_proto(request.end_time, "end_time"),
        sign_time=grant.sign_time,
        tenant=tenant,
        tx=grant.tx,
    )
    different = [name for name in field_names(TransferGrant) if _differ(said, grant, name)]
    if different:
        raise FieldInvalid("grant", f"is for something else, by {', '.join(different)}")
    return Order(
        said=Announcement(
            tenant=tenant,
            image_id=check_label(image_id, "image_id"),
            digest=request.digest,
            size_bytes=request.size_bytes,
            owner=owner,
            replaces=False,
            data=request.data,
        ),
        named=bool(request.image_id),
        source=source,
        grant=grant,
        signed=request.grant.SerializeToString(deterministic=True),
    )


def _differ(said: TransferGrant, grant: TransferGrant, field: str) -> bool:
    return bool(getattr(said, field) != getattr(grant, field))


def _peer_store(source: transfers_pb2.TransferSource) -> PeerStore:
    if not source.addresses or not all(source.addresses):
        raise FieldInvalid("source.addresses", "must say where the store is, as host:port")
    return PeerStore(
        site=check_label(source.site, "source.site"),
        addresses=tuple(source.addresses),
        server_name=source.server_name,
    )


def transfer_to_proto(transfer: Transfer) -> transfers_pb2.Transfer:
    return transfers_pb2.Transfer(
        digest=transfer.digest,
        size_bytes=transfer.size_bytes,
        done_bytes=transfer.done_bytes,
        state=transfers_pb2.Transfer.State.Value(transfer.state.value),
        message=transfer.message,
    )
