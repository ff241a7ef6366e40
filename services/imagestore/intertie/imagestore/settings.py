"""`imagestore.toml`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from intertie.common.settings import (
    ListenSettings,
    LogSettings,
    NonEmpty,
    Section,
    ServiceSettings,
    TlsSettings,
    TrustSettings,
)


class LimitSettings(Section):
    max_image_bytes: Annotated[int, Field(ge=1)] = 64 * 2**30
    upload_retention_h: Annotated[float, Field(gt=0)] = 24
    """An upload that nobody goes on with is forgotten after so long."""


class ImagestoreSettings(ServiceSettings):
    site: NonEmpty
    data: Path
    """The store's folder; no other process may use it."""
    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...]
    log: LogSettings = LogSettings()
    limits: LimitSettings = LimitSettings()
