"""`intertie-imagestore --config FILE`: the images of one site."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from intertie.api.imagestore.v1 import (
    images_pb2,
    images_pb2_grpc,
    transfers_pb2,
    transfers_pb2_grpc,
)
from intertie.common import logs, points
from intertie.common.clock import SystemClock
from intertie.common.errors import IdentityUnknown
from intertie.common.process import run_until_signalled
from intertie.common.rpc.credentials import Credentials
from intertie.common.rpc.server import ListenFailed, Server
from intertie.common.settings import SettingsInvalid, load
from intertie.imagestore.adapters.files import FileImageFiles, FolderDamaged, FolderTaken
from intertie.imagestore.adapters.grants import SignedGrants
from intertie.imagestore.adapters.peer_stores import GrpcPeerStores
from intertie.imagestore.loops.sweep import Sweep
from intertie.imagestore.servicers.images import ImagesServicer, UseCases
from intertie.imagestore.servicers.transfers import TransfersServicer
from intertie.imagestore.settings import ImagestoreSettings
from intertie.imagestore.usecases.bring_image import BringImage
from intertie.imagestore.usecases.put_image import PutImage
from intertie.imagestore.usecases.read_images import FetchImage, ListImages, StatImage
from intertie.imagestore.usecases.send_image import SendImage
from intertie.imagestore.usecases.shelf import Shelf


def main() -> int:
    parser = argparse.ArgumentParser(prog="intertie-imagestore", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    given = parser.parse_args()
    try:
        settings = load(ImagestoreSettings, given.config)
        logs.configure("imagestore", settings.log.level)
        points.stop_in(settings.fault_points)
        asyncio.run(serve(settings))
    except (
        SettingsInvalid,
        FolderTaken,
        FolderDamaged,
        ListenFailed,
        IdentityUnknown,
        OSError,
    ) as error:
        sys.stderr.write(f"intertie-imagestore: {error}\n")
        return 1
    return 0


async def serve(settings: ImagestoreSettings) -> None:
    """Until SIGTERM or SIGINT."""
    clock = SystemClock()
    files = FileImageFiles(settings.data)
    files.claim()
    shelf = Shelf(files, clock, site=settings.site)
    await shelf.load()
    put = PutImage(files, shelf, clock, max_bytes=settings.limits.max_image_bytes)
    fetch = FetchImage(files, shelf)
    usecases = UseCases(
        put=put,
        stat=StatImage(files, shelf),
        list=ListImages(shelf),
        fetch=fetch,
        shelf=shelf,
    )
    credentials = Credentials(settings.tls, settings.trust, clock)
    grants = SignedGrants(credentials.trust, settings.site)
    bring = BringImage(files, shelf, put, GrpcPeerStores(credentials), clock)
    send = SendImage(fetch, clock, site=settings.site)
    server = Server(
        settings,
        clock,
        [
            (
                images_pb2_grpc.add_ImagesServicer_to_server,
                ImagesServicer(usecases, grants, clock, site=settings.site),
                images_pb2.DESCRIPTOR.services_by_name["Images"],
            ),
            (
                transfers_pb2_grpc.add_TransfersServicer_to_server,
                TransfersServicer(bring, send, grants, site=settings.site),
                transfers_pb2.DESCRIPTOR.services_by_name["Transfers"],
            ),
        ],
        credentials,
    )
    retention = timedelta(hours=settings.limits.upload_retention_h)
    sweep = Sweep(files, shelf, clock, retention=retention)
    await run_until_signalled(server, [sweep.run(), bring.run()])
    files.release()


if __name__ == "__main__":
    sys.exit(main())
