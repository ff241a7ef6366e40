"""A site's leave for another's image store to fetch one image from its own, at a reserved rate."""

from datetime import datetime

from intertie.common.values import Struct


class TransferGrant(Struct, frozen=True, kw_only=True):
    """What the source's broker signs; fields as in imagestore.v1.TransferGrantBody."""

    digest: str
    source_site: str
    target_site: str
    mbit_s: int
    begin_time: datetime
    end_time: datetime
    sign_time: datetime
    tenant: str
    tx: str
