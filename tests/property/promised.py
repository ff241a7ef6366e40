"""What parts were promised of a host, counted workspace by workspace: it shares nothing with the
ledger's counting."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from intertie.broker.domain.part import Part


def promised_of(part: Part, host: str, at: datetime) -> tuple[int, int]:
    """vCPUs, and MiB of disk, of which each guest has 128 and as much memory."""
    here = sum(each.host == host for each in part.placed)
    if part.keeping is None:
        return (here, here * 128) if part.window.contains(at) else (0, 0)
    kept = part.keeping.until is not None
    saved = part.window.end + (part.keeping.save if kept else timedelta())
    runs = part.window.start <= at < saved
    again = part.amend is not None and part.amend.spec.window.contains(at)
    promises = [part.spec, *((part.amend.spec,) if part.amend else ())]
    promised = [each.recallable.promised for each in promises if each.recallable]
    later = any(each is not None and each.contains(at) for each in promised)
    disk = 256 if part.keeping.save or part.ends > part.window.end else 128
    if runs or again or later:
        return here, here * disk
    last = max((part.ends, *(each.end for each in promised if each is not None)))
    return (0, here * disk) if part.window.start <= at < last else (0, 0)


def moments_of(parts: list[Part]) -> Iterator[datetime]:
    for part in parts:
        yield from (part.window.start, part.window.end, part.ends)
        if part.keeping is not None:
            yield part.window.end + part.keeping.save
        for each in (part.spec, part.amend.spec if part.amend else part.spec):
            yield from (each.window.start, each.window.end)
            if each.recallable is not None and each.recallable.promised is not None:
                yield from (each.recallable.promised.start, each.recallable.promised.end)
