"""Between the messages of intertie.api.imagestore and the domain."""

from __future__ import annotations

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.common.errors import FieldInvalid
from intertie.common.names import ImageName, Parent, check_label
from intertie.common.rpc.terms_proto import timestamp_to_proto
from intertie.imagestore.domain.image import Announcement, Format, Image, Source, Upload

_FORMATS = {Format.RAW: pb.Image.RAW, Format.QCOW2: pb.Image.QCOW2}


def announcement_from_proto(
    header: pb.PutImageRequest.Header, *, site: str, owner: str
) -> Announcement:
    parent = Parent.parse(header.parent, "header.parent")
    if parent.authority not in ("-", f"sites/{site}"):
        raise FieldInvalid("header.parent", f"{header.parent!r}: this store is sites/{site}")
    if parent.tenant == "-":
        raise FieldInvalid("header.parent", "must name a tenant")
    return Announcement(
        tenant=parent.tenant,
        image_id=check_label(header.image_id, "header.image_id"),
        digest=header.digest,
        size_bytes=header.size_bytes,
        owner=owner,
    )


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
