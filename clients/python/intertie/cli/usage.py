"""`intertie usage ...`: what a tenant had reserved at a site, and whether the records of it are as
they were written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from intertie.api.broker.v1.usage_pb2 import UsageRecord
from intertie.cli import apel
from intertie.cli.command import Format, Run, command, usage
from intertie.cli.tables import moment, table
from intertie.cli.terminal import print_table, styled
from intertie.client.usage import ALL
from intertie.client.usage_chain import Audit, Verdict
from intertie.client.usage_files import (
    page_to_line,
    pages_in,
    read_checkpoint,
    trust_of,
    write_checkpoint,
)

HOUR_S = 3600


class Form(StrEnum):
    APEL = "apel"
    CHAIN = "chain"


TenantOption = Annotated[
    str, typer.Option("--tenant", metavar="TENANT", help="Another than the endpoint's.")
]
AllOption = Annotated[
    bool, typer.Option("--all-tenants", help="Of every tenant; for operators of the site.")
]
_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]
SinceOption = Annotated[
    datetime | None,
    typer.Option("--since", formats=_MOMENTS, help="Only what was had after it, UTC."),
]
UntilOption = Annotated[
    datetime | None,
    typer.Option("--until", formats=_MOMENTS, help="Only what was had before it, UTC."),
]


def register(app: typer.Typer) -> None:
    command(app, "list")(list_records)
    command(app, "verify")(verify)
    command(app, "export")(export)


async def list_records(
    run: Run,
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    tenant: TenantOption = "",
    all_tenants: AllOption = False,
) -> None:
    """What was reserved, as it was written down: when a lease ended, and each midnight."""
    start, end = _span(since, until)
    async with await run.connect() as client:
        found = await client.usage.list(_whose(tenant, all_tenants), start=start, end=end)
    run.show(list(found), lambda: records(found))


async def verify(
    run: Run,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="A chain that was exported, instead of the site's own."),
    ] = None,
    roots: Annotated[
        Path | None,
        typer.Option("--roots", help="PEM of the site's authority; else the endpoint's roots."),
    ] = None,
    since_checkpoint: Annotated[
        Path | None,
        typer.Option("--since-checkpoint", metavar="FILE", help="That was kept of before."),
    ] = None,
    keep_checkpoint: Annotated[
        Path | None,
        typer.Option("--keep-checkpoint", metavar="FILE", help="Where to keep the newest one."),
    ] = None,
    tenant: TenantOption = "",
    all_tenants: AllOption = False,
) -> None:
    """Whether every record is as the site wrote and signed it. Says the first that is not."""
    trusted = roots or run.config().endpoint(run.endpoint).roots
    audit: Audit | None = None

    def begun(site: str) -> Audit:
        trust = trust_of(site, trusted)
        since = read_checkpoint(since_checkpoint, site, trust) if since_checkpoint else None
        return Audit(trust, since)

    if file is not None:
        for page in pages_in(file):
            audit = audit or begun(page.site)
            audit.take(page)
    else:
        async with await run.connect() as client:
            async for page in client.usage.chain(_whose(tenant, all_tenants)):
                audit = audit or begun(page.site)
                audit.take(page)
    if audit is None:
        raise usage(
            f"{file} holds no chain", "Write one with `intertie usage export --form chain`."
        )
    found = audit.end()
    if keep_checkpoint is not None and found.last is not None:
        write_checkpoint(keep_checkpoint, found.last)
    run.note(f"{found.site}: all {found.records} records are as they were written")
    if run.output is Format.TABLE:
        print_table(run.results, verdict(found))
    else:
        run.write(_plain(found))


async def export(
    run: Run,
    *,
    form: Annotated[
        Form,
        typer.Option("--form", help="APEL cloud records, or the chain for `verify --file`."),
    ] = Form.APEL,
    since: SinceOption = None,
    until: UntilOption = None,
    tenant: TenantOption = "",
    all_tenants: AllOption = False,
) -> None:
    """Records for other programs, to stdout."""
    start, end = _span(since, until)
    whose = _whose(tenant, all_tenants)
    if form is Form.CHAIN and (start or end):
        raise usage("a chain is exported whole", "Leave --since and --until out.")
    async with await run.connect() as client:
        if form is Form.CHAIN:
            async for page in client.usage.chain(whose):
                run.print_lines(page_to_line(page))
            return
        found = await client.usage.list(whose, end=end)
    run.print_lines(apel.message(found, since=start).rstrip("\n"))


def records(found: Sequence[UsageRecord]) -> RenderableType:
    amounts = ("VCPUS", "MEMORY", "DISK", "IOPS", "UPLINK", "VCPU HOURS", "USED", "PRICE", "REFUND")
    made = table(
        "NUMBER", "TENANT", "CLUSTER", "FROM", "UNTIL", *amounts, right=("NUMBER", *amounts)
    )
    total = 0.0
    for each in found:
        has, hours = each.reserved.hosts, _hours(each) * each.reserved.hosts.vcpus
        total += hours
        made.add_row(
            str(each.number),
            styled(each.tenant),
            styled(each.cluster.rpartition("/")[2]),
            moment(each.period.start_time),
            moment(each.period.end_time),
            str(has.vcpus),
            f"{has.memory_mib} MiB",
            f"{has.disk_mib} MiB",
            str(has.iops),
            f"{has.uplink_mbit_s} Mbit/s",
            f"{hours:.2f}",
            used_hours(each),
            f"{each.price.amount:.4f}" if each.HasField("price") else "-",
            f"{each.refund.amount:.4f}" if each.HasField("refund") else "",
        )
    if found:
        made.add_row(*[""] * 9, "total", f"{total:.2f}", "", *_owed(found))
    return made


def _owed(found: Sequence[UsageRecord]) -> tuple[str, str]:
    prices, refunds = (
        sum(each.price.amount for each in found),
        sum(each.refund.amount for each in found),
    )
    return f"{prices:.4f}", f"{refunds:.4f}" if refunds else ""


def used_hours(record: UsageRecord) -> str:
    """Of processors. At least so much, where not all of it is known; a dash where nothing is."""
    known = [each.used for each in record.used if each.used.HasField("read_time")]
    if not known:
        return "-"
    hours = sum(each.cpu_time.ToNanoseconds() for each in known) / 1e9 / HOUR_S
    return f"{'≥ ' if any(each.unknown for each in record.used) else ''}{hours:.2f}"


def verdict(found: Verdict) -> RenderableType:
    made = table(
        "SITE", "RECORDS", "SHOWN", "CHECKPOINTS", "SIGNED", "BY", right=("RECORDS", "SHOWN")
    )
    last = found.last
    made.add_row(
        styled(found.site),
        str(found.records),
        str(found.shown),
        str(found.checkpoints),
        f"{last.sign_time:%Y-%m-%d %H:%M:%SZ}" if last else "",
        styled(last.signer if last else ""),
    )
    return made


def _plain(found: Verdict) -> dict[str, Any]:
    last = found.last
    return {
        "site": found.site,
        "records": found.records,
        "shown": found.shown,
        "checkpoints": found.checkpoints,
        "hash": last.hash.hex() if last else "",
        "sign_time": f"{last.sign_time:%Y-%m-%dT%H:%M:%SZ}" if last else "",
        "signer": last.signer if last else "",
    }


def _hours(record: UsageRecord) -> float:
    span = record.period.end_time.ToDatetime() - record.period.start_time.ToDatetime()
    return span.total_seconds() / HOUR_S


def _whose(tenant: str, all_tenants: bool) -> str:
    if tenant and all_tenants:
        raise usage("--tenant and --all-tenants do not go together", "Leave one out.")
    return ALL if all_tenants else tenant


def _span(
    since: datetime | None, until: datetime | None
) -> tuple[datetime | None, datetime | None]:
    start, end = (each.replace(tzinfo=UTC) if each else None for each in (since, until))
    if start and end and not start < end:
        raise usage("--until must be later than --since")
    return start, end
