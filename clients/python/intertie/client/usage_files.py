"""A site's chain of usage, and checkpoints of it, as files: to be verified later, or by others,
without the site."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import json_format

from intertie.api.broker.v1.usage_pb2 import ListUsageEntriesResponse, UsageCheckpoint
from intertie.client.errors import UsageFileInvalid
from intertie.client.usage_chain import ChainBroken, Signed, opened
from intertie.common.rpc.identity import SITE_SUFFIX, Identities, Trust, roots_in
from intertie.common.usage_chain import name_of_certificate


def page_to_line(page: ListUsageEntriesResponse) -> str:
    """One line of a chain's file: a page, as JSON."""
    return json_format.MessageToJson(page, preserving_proto_field_name=True, indent=None)


def pages_in(path: Path) -> Iterator[ListUsageEntriesResponse]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json_format.Parse(line, ListUsageEntriesResponse())
            except json_format.ParseError as error:
                problem = str(error).partition("\n")[0]
                raise UsageFileInvalid(
                    path, f"line {number} is no page of a chain: {problem}"
                ) from None


def trust_of(site: str, roots: Path) -> Trust:
    """Of the site's own authority: nobody else can speak for its broker."""
    try:
        return Trust(roots_in([(f"{site}{SITE_SUFFIX}", roots.read_bytes())]))
    except ValueError:
        raise UsageFileInvalid(roots, "it holds no PEM certificates") from None


def write_checkpoint(path: Path, signed: Signed) -> None:
    """Whole or not at all: what was there is good until then."""
    plain = {
        "site": signed.site,
        "number": signed.number,
        "sign_time": f"{signed.sign_time:%FT%TZ}",
        "body": base64.b64encode(signed.checkpoint.body).decode(),
        "signature": base64.b64encode(signed.checkpoint.signature).decode(),
        "certificate": signed.certificate.decode(),
    }
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)


def read_checkpoint(path: Path, site: str, trust: Trust) -> Signed:
    """UsageFileInvalid unless the site has signed it."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        body, signature = (base64.b64decode(plain[each]) for each in ("body", "signature"))
        certificate = str(plain["certificate"]).encode()
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise UsageFileInvalid(path, "is no checkpoint; `--keep-checkpoint` writes one") from None
    checkpoint = UsageCheckpoint(
        body=body, signature=signature, certificate=name_of_certificate(certificate)
    )
    try:
        return opened(checkpoint, certificate, site, Identities(trust))
    except ChainBroken as error:
        raise UsageFileInvalid(path, f"is no checkpoint of {site}: {error}") from None
