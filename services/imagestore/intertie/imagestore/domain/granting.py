"""A broker's leave for a host to put the snapshot of one workspace, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.errors import MAX_SKEW, FieldInvalid
from intertie.common.names import ImageName
from intertie.common.snapshot import GRANT_LASTS
from intertie.imagestore.domain.image import Announcement, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a site's broker has signed."""

    image: ImageName
    host: str
    cluster: str
    workspace: str
    owner: str
    sign_time: datetime
    expire_time: datetime


def objection(grant: Grant, said: Announcement, *, site: str, host: str, now: datetime) -> str:
    """Why it is no leave for this host to put this; empty where it is."""
    if grant.sign_time > now + MAX_SKEW:
        return f"its grant is signed at {grant.sign_time:%FT%TZ}, which is yet to come"
    if grant.expire_time - grant.sign_time > GRANT_LASTS:
        return f"its grant is for more than {GRANT_LASTS // timedelta(hours=1)} hours"
    if now >= grant.expire_time:
        return f"its grant has run out at {grant.expire_time:%FT%TZ}"
    if grant.host != host:
        return f"its grant is for host {grant.host}"
    asked = ImageName(site, said.tenant, said.image_id)
    if grant.image != asked:
        return f"its grant is for {grant.image}, not for {asked}"
    return ""


def source_of(grant: Grant, taken_time: datetime, *, quiesced: bool) -> Source:
    """FieldInvalid for a disk of before it was asked for."""
    if taken_time + MAX_SKEW < grant.sign_time:
        raise FieldInvalid("header.taken_time", "must not be before the snapshot was asked for")
    return Source(
        cluster=grant.cluster,
        workspace=grant.workspace,
        taken_time=taken_time,
        quiesced=quiesced,
        asked_time=grant.sign_time,
    )
