"""Who may have signed a site's chain, and what one who has no key can do to it unseen: nothing."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from intertie.api.broker.v1.usage_pb2 import (
    ListUsageEntriesResponse,
    UsageCheckpoint,
    UsageCheckpointBody,
    UsageRecord,
)
from intertie.client.errors import UsageFileInvalid
from intertie.client.usage_chain import Audit, ChainBroken, Verdict
from intertie.client.usage_files import (
    page_to_line,
    pages_in,
    read_checkpoint,
    trust_of,
    write_checkpoint,
)
from intertie.common.intervals import Window
from intertie.common.rpc.identity import Trust
from intertie.common.rpc.signing import Signer
from intertie.common.rpc.terms_proto import timestamp_to_proto
from intertie.common.usage_chain import (
    SIGNED,
    before_first,
    digest_of,
    link,
    name_of_certificate,
)
from tests.fakes.accounts import AUTHORITY, BROKER, SIGNER, START, YEARS, Accounts
from tests.unit.broker.samples import HOUR, part, part_spec, workspace
from tests.unit.common_rpc.authority import NOW, MemoryAuthority, trust_in

TRUST = trust_in(AUTHORITY)


@cache
def chain() -> ListUsageEntriesResponse:
    """Six records of two tenants, signed at 3 and 6."""

    async def write() -> ListUsageEntriesResponse:
        site = Accounts()
        for number in range(6):
            window = Window(START, START + (1 + number // 3) * HOUR)
            await site.write(
                part(
                    name=f"sites/north/tenants/{'ab'[number % 2]}/parts/t{number}",
                    spec=part_spec(workspace(), window=window),
                    create_time=START,
                )
            )
        for _ in range(2):
            await site.clock.advance(3600)
            await site.accounting.sweep()
        [page] = await site.pages(size=100)
        return page

    return asyncio.run(write())


def copied() -> ListUsageEntriesResponse:
    page = ListUsageEntriesResponse()
    page.CopyFrom(chain())
    return page


def verify(*pages: ListUsageEntriesResponse, trust: Trust = TRUST) -> Verdict:
    audit = Audit(trust)
    for page in pages:
        audit.take(page)
    return audit.end()


def number_of_break(*pages: ListUsageEntriesResponse, trust: Trust = TRUST) -> int:
    with pytest.raises(ChainBroken) as caught:
        verify(*pages, trust=trust)
    return caught.value.number


def chained_anew(page: ListUsageEntriesResponse) -> None:
    """As one can who has the store, and no key."""
    before = before_first("north")
    for number, entry in enumerate(page.entries, start=1):
        record = UsageRecord.FromString(entry.record)
        record.number = entry.number = number
        entry.record = record.SerializeToString()
        entry.digest = digest_of(entry.record)
        before = entry.hash = link(before, number, entry.digest)


def sign_again(
    page: ListUsageEntriesResponse,
    signer: Signer,
    *,
    site: str = "north",
    at: datetime = NOW,
    purpose: bytes = SIGNED,
) -> None:
    """At the end alone."""
    last = page.entries[-1]
    body = UsageCheckpointBody(
        site=site, number=last.number, hash=last.hash, sign_time=timestamp_to_proto(at)
    ).SerializeToString()
    signed = signer.sign(purpose + body)
    name = name_of_certificate(signed.certificate)
    del page.checkpoints[:]
    page.checkpoints.append(
        UsageCheckpoint(body=body, signature=signed.signature, certificate=name)
    )
    page.certificates[name] = signed.certificate


def test_a_good_chain_says_how_much_it_has_and_who_signed_it() -> None:
    found = verify(chain())
    assert (found.site, found.records, found.shown, found.checkpoints) == ("north", 6, 6, 2)
    assert found.last is not None
    assert (found.last.number, found.last.signer) == (6, BROKER)
    empty = verify(ListUsageEntriesResponse(site="north"))
    assert (empty.records, empty.last) == (0, None)


@pytest.mark.parametrize("which", range(6))
def test_a_chain_that_was_made_anew_without_the_key_is_found(which: int) -> None:
    """At the first checkpoint from there on."""
    page = copied()
    record = UsageRecord.FromString(page.entries[which].record)
    record.reserved.hosts.vcpus += 1
    page.entries[which].record = record.SerializeToString()
    chained_anew(page)
    assert number_of_break(page) == (3 if which < 3 else 6)
    page = copied()
    del page.entries[which]
    chained_anew(page)
    assert number_of_break(page) in (3, 6)


def test_what_is_signed_anew_by_the_site_itself_passes_and_is_found_by_a_checkpoint() -> None:
    """The site has the key: only who kept a checkpoint can hold it to what it had said."""
    kept = verify(chain()).last
    page = copied()
    record = UsageRecord.FromString(page.entries[4].record)
    record.reserved.hosts.vcpus = 0
    page.entries[4].record = record.SerializeToString()
    chained_anew(page)
    sign_again(page, SIGNER)
    verify(page)
    audit = Audit(TRUST, kept)
    with pytest.raises(ChainBroken, match="not what the site had signed") as caught:
        audit.take(page)
    assert caught.value.number == 6


@pytest.mark.parametrize(
    "spiffe",
    [
        "spiffe://north.site.intertie/imagestore",
        "spiffe://north.site.intertie/agent/n1",
        "spiffe://north.site.intertie/operator/olga",
        "spiffe://north.site.intertie/tenant/a/user/alice",
        "spiffe://south.site.intertie/broker",
        "spiffe://meta.meta.intertie/metasched",
    ],
)
def test_nobody_but_the_sites_own_broker_signs_its_chain(spiffe: str) -> None:
    page = copied()
    sign_again(page, AUTHORITY.issue(spiffe, ends=NOW + YEARS))
    assert number_of_break(page) == 6


def test_no_other_authority_makes_a_broker_of_the_site() -> None:
    other = MemoryAuthority("north.site.intertie")
    page = copied()
    sign_again(page, other.issue(BROKER))
    assert number_of_break(page) == 6
    south = MemoryAuthority("south.site.intertie")
    sign_again(page, south.issue("spiffe://south.site.intertie/broker"))
    assert number_of_break(page, trust=trust_in(AUTHORITY, south)) == 6


def test_a_certificate_counts_for_when_it_was_good() -> None:
    """One that has ended since is good; one that had ended when it signed is not."""
    old = AUTHORITY.issue(BROKER, begins=NOW - timedelta(hours=2), ends=NOW - timedelta(hours=1))
    page = copied()
    sign_again(page, old, at=NOW - timedelta(minutes=90))
    assert verify(page).records == 6
    sign_again(page, old)
    assert number_of_break(page) == 6


def test_a_signature_of_something_else_and_a_checkpoint_of_another_site_are_none() -> None:
    page = copied()
    sign_again(page, SIGNER, purpose=b"")
    assert number_of_break(page) == 6
    sign_again(page, SIGNER, site="south")
    assert number_of_break(page) == 6


def test_a_certificate_that_is_missing_or_another_is_said() -> None:
    page = copied()
    page.certificates.clear()
    assert number_of_break(page) == 3
    page = copied()
    page.checkpoints[1].certificate = "00"
    assert number_of_break(page) == 6
    page = copied()
    page.checkpoints[1].body = b"\xff"
    with pytest.raises(ChainBroken, match=r"^a checkpoint is damaged"):
        verify(page)


def test_an_end_that_is_not_signed_is_said_from_where_on() -> None:
    page = copied()
    del page.checkpoints[1]
    with pytest.raises(ChainBroken, match="record 4 is not signed"):
        verify(page)


def test_pages_of_two_sites_and_records_of_another_site_are_no_chain() -> None:
    second = copied()
    second.site = "south"
    with pytest.raises(ChainBroken, match="north and of south"):
        verify(chain(), second)
    page = copied()
    record = UsageRecord.FromString(page.entries[0].record)
    record.site = "south"
    page.entries[0].record = record.SerializeToString()
    chained_anew(page)
    assert number_of_break(page) == 1


@pytest.mark.parametrize(("by", "says"), [(-1, "overlaps"), (1, "leaves a gap")])
def test_periods_of_a_part_that_do_not_meet_are_said(by: int, says: str) -> None:
    """A site that signs such a thing is at fault itself."""
    page = copied()
    first = UsageRecord.FromString(page.entries[0].record)
    first.final = False
    page.entries[0].record = first.SerializeToString()
    later = UsageRecord.FromString(page.entries[4].record)
    later.part = first.part
    later.period.start_time.FromDatetime(first.period.end_time.ToDatetime() + by * HOUR)
    later.period.end_time.FromDatetime(first.period.end_time.ToDatetime() + 2 * HOUR)
    page.entries[4].record = later.SerializeToString()
    chained_anew(page)
    sign_again(page, SIGNER)
    with pytest.raises(ChainBroken, match=says) as caught:
        verify(page)
    assert caught.value.number == 5


def test_what_is_withheld_is_followed_and_what_is_missing_is_not_taken_for_it() -> None:
    page = copied()
    page.entries[2].record, page.entries[2].withheld = b"", True
    assert (verify(page).records, verify(page).shown) == (6, 5)
    page.entries[2].withheld = False
    assert number_of_break(page) == 3
    page = copied()
    page.entries[2].withheld = True
    assert number_of_break(page) == 3


def test_a_chain_and_a_checkpoint_come_back_from_their_files(tmp_path: Path) -> None:
    file, kept, roots = tmp_path / "chain", tmp_path / "kept", tmp_path / "roots.pem"
    roots.write_bytes(TRUST.pem())
    file.write_text(page_to_line(chain()) + "\n")
    [page] = pages_in(file)
    assert page == chain()
    trust = trust_of("north", roots)
    found = verify(page, trust=trust)
    assert found.last is not None
    write_checkpoint(kept, found.last)
    assert read_checkpoint(kept, "north", trust) == found.last
    with pytest.raises(UsageFileInvalid, match="no checkpoint of south"):
        read_checkpoint(kept, "south", trust)
    kept.write_text(kept.read_text().replace('"signature": "', '"signature": "AAAA'))
    with pytest.raises(UsageFileInvalid, match="no checkpoint of north"):
        read_checkpoint(kept, "north", trust)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"body": 1}', "\x00", '{"body": "?"}'])
def test_a_file_that_is_no_checkpoint_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "kept").write_text(text)
    with pytest.raises(UsageFileInvalid, match="--keep-checkpoint"):
        read_checkpoint(tmp_path / "kept", "north", TRUST)


def test_a_line_that_is_no_page_is_said_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "chain"
    for wrong in (b"{", b'{"sites": 1}', b"\x00", b"\xff"):
        file.write_bytes(page_to_line(chain()).encode() + b"\n" + wrong + b"\n")
        pages = pages_in(file)
        next(pages)
        with pytest.raises(UsageFileInvalid, match="line 2 is no page"):
            next(pages)
    (tmp_path / "roots").write_text("nothing")
    with pytest.raises(UsageFileInvalid, match="no PEM"):
        trust_of("north", tmp_path / "roots")


def test_no_two_sites_have_one_chain_and_no_two_places_one_hash() -> None:
    assert before_first("north") != before_first("south")
    digest = digest_of(b"record")
    hashes = {
        link(before_first(site), number, digest) for site in ("north", "south") for number in (1, 2)
    }
    assert len(hashes) == 4
    assert digest_of(b"") != before_first("")
