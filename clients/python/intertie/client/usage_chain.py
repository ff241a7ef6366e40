"""Whether a site's records of usage are as they were written: nothing edited, left out, put
elsewhere or cut off.

What can be known by the chain alone is that it is one that the site signed. That it was not cut off
at its end, or written anew by the site itself, is known to who has kept a checkpoint of before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from google.protobuf.message import DecodeError

from intertie.api.broker.v1.usage_pb2 import (
    ListUsageEntriesResponse,
    UsageCheckpoint,
    UsageCheckpointBody,
    UsageEntry,
    UsageRecord,
)
from intertie.client.errors import ClientError
from intertie.common.errors import IdentityUnknown
from intertie.common.rpc.identity import Identities, Role, Trust
from intertie.common.rpc.signing import verify
from intertie.common.usage_chain import (
    SIGNED,
    before_first,
    digest_of,
    link,
    name_of_certificate,
)


class ChainBroken(ClientError):
    """`number` is of the first record that is not as it was written; 0: of the whole chain."""

    remedy = "Tell the site's operator; a checkpoint that you have kept is your proof."

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"record {number} {problem}" if number else problem)
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A checkpoint whose signature is good, and all that somebody else needs to see that."""

    site: str
    number: int
    hash: bytes
    sign_time: datetime
    signer: str
    """SPIFFE name."""
    checkpoint: UsageCheckpoint
    certificate: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """On a chain in which nothing is wrong."""

    site: str
    records: int
    shown: int
    """Of them were not withheld."""
    checkpoints: int
    last: Signed | None
    """None: there are no records."""


def opened(checkpoint: UsageCheckpoint, certificate: bytes, site: str, known: Identities) -> Signed:
    """ChainBroken unless it was signed by this site's broker, with a certificate that was good when
    it was signed."""
    try:
        body = UsageCheckpointBody.FromString(checkpoint.body)
        sign_time = body.sign_time.ToDatetime(tzinfo=UTC)
    except (DecodeError, ValueError, OverflowError):
        raise ChainBroken(0, "a checkpoint is damaged") from None
    number = body.number
    if not number:
        raise ChainBroken(0, "a checkpoint is damaged")
    if not certificate or name_of_certificate(certificate) != checkpoint.certificate:
        raise ChainBroken(number, "has a checkpoint whose certificate is missing or another")
    try:
        identity = verify(
            SIGNED + checkpoint.body,
            checkpoint.signature,
            certificate,
            known,
            now=sign_time,
        )
    except (IdentityUnknown, ValueError) as error:
        problem = error.problem if isinstance(error, IdentityUnknown) else str(error)
        raise ChainBroken(number, f"has a checkpoint that is not good: {problem}") from None
    if identity.role is not Role.BROKER or identity.site != site or body.site != site:
        raise ChainBroken(number, f"has a checkpoint of {identity} for {body.site}, not of {site}")
    return Signed(
        site=body.site,
        number=number,
        hash=body.hash,
        sign_time=sign_time,
        signer=identity.spiffe,
        checkpoint=checkpoint,
        certificate=certificate,
    )


@dataclass(slots=True)
class Audit:
    """Of one site's chain, page by page from its first one on. ChainBroken at the first thing that
    is wrong."""

    trust: Trust
    since: Signed | None = None
    site: str = ""
    _number: int = 0
    _hash: bytes = b""
    _shown: int = 0
    _signed: int = 0
    _last: Signed | None = None
    _until: dict[str, datetime] = field(default_factory=dict)
    """To where each part's records have come, by its name."""
    _known: Identities = field(init=False)

    def __post_init__(self) -> None:
        self._known = Identities(self.trust)

    def take(self, page: ListUsageEntriesResponse) -> None:
        if not self.site:
            self.site, self._hash = page.site, before_first(page.site)
        if page.site != self.site:
            raise ChainBroken(0, f"there are pages of {self.site} and of {page.site}")
        signed: dict[int, Signed] = {}
        for checkpoint in page.checkpoints:
            certificate = page.certificates.get(checkpoint.certificate, b"")
            found = opened(checkpoint, certificate, self.site, self._known)
            signed[found.number] = found
        for entry in page.entries:
            self._follow(entry)
            if (word := signed.pop(entry.number, None)) is not None:
                self._compare(word)
        if signed:
            raise ChainBroken(
                self._number + 1,
                f"is missing: the site has signed the chain up to record {max(signed)}",
            )

    def end(self) -> Verdict:
        """After the last page."""
        if self.since is not None and self.since.number > self._number:
            raise ChainBroken(
                self._number + 1,
                f"is missing: the chain is cut off, and had {self.since.number} records at the"
                " checkpoint",
            )
        if self._number and (self._last is None or self._last.number != self._number):
            first = self._last.number + 1 if self._last else 1
            raise ChainBroken(first, "is not signed, and neither is what follows it")
        return Verdict(
            site=self.site,
            records=self._number,
            shown=self._shown,
            checkpoints=self._signed,
            last=self._last,
        )

    def _follow(self, entry: UsageEntry) -> None:
        wanted = self._number + 1
        if entry.number > wanted:
            raise ChainBroken(wanted, "is missing")
        if entry.number < wanted:
            raise ChainBroken(wanted, f"is out of place: record {entry.number} stands there")
        if entry.withheld:
            if entry.record:
                raise ChainBroken(wanted, "is said to be withheld, and is there")
        else:
            self._read(entry)
        if link(self._hash, wanted, entry.digest) != entry.hash:
            raise ChainBroken(
                wanted,
                "does not follow from the one before it: it was edited, or stood elsewhere, or one"
                " before it was left out",
            )
        self._number, self._hash = wanted, entry.hash
        if self.since is not None and self.since.number == wanted and self.since.hash != self._hash:
            raise ChainBroken(
                wanted, "or one before it is not what the site had signed at the checkpoint"
            )

    def _read(self, entry: UsageEntry) -> None:
        if not entry.record:
            raise ChainBroken(entry.number, "is missing: only its place in the chain is there")
        try:
            record = UsageRecord.FromString(entry.record)
        except DecodeError:
            raise ChainBroken(entry.number, "was edited: it cannot be read any more") from None
        if record.number != entry.number:
            raise ChainBroken(
                entry.number, f"is out of place: what stands there was record {record.number}"
            )
        if digest_of(entry.record) != entry.digest:
            raise ChainBroken(entry.number, "was edited: its digest is another")
        if record.site != self.site:
            raise ChainBroken(entry.number, f"is of site {record.site}, not of {self.site}")
        start = record.period.start_time.ToDatetime(tzinfo=UTC)
        before = self._until.get(record.part)
        if before is not None and before != start:
            what = "overlaps with" if start < before else "leaves a gap after"
            raise ChainBroken(entry.number, f"{what} the record before it of {record.part}")
        self._until[record.part] = record.period.end_time.ToDatetime(tzinfo=UTC)
        if record.final:
            del self._until[record.part]
        self._shown += 1

    def _compare(self, word: Signed) -> None:
        if word.hash != self._hash:
            raise ChainBroken(word.number, "or one before it is not what the site has signed")
        self._signed, self._last = self._signed + 1, word
