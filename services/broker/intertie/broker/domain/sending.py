"""Images that this site's store sends to others' for a part, or gets from them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime, timedelta
from enum import Enum

from intertie.common.errors import MAX_SKEW, FieldInvalid, NoCapacity, Shortfall
from intertie.common.part_spec import PartSpec, Transfer
from intertie.common.transfer import TransferGrant
from intertie.common.values import Struct, replace

GRACE = timedelta(seconds=2)
"""After a transfer's window a store that is a little late may still send the rest, at its rate."""

MOST_NAMES, MOST_OCTETS = 16, 1 << 14
"""Of where an image comes from, and by what leave: it is kept with a part."""


class StoreAddress(Struct, frozen=True, kw_only=True):
    """This site's image store, as those of other sites reach it."""

    addresses: tuple[str, ...]
    server_name: str


class ImageSource(Struct, frozen=True, kw_only=True):
    """From where the store of `to_site` gets an image, and by what leave."""

    digest: str
    from_site: str
    to_site: str
    addresses: tuple[str, ...]
    server_name: str
    end_time: datetime
    """Of the grant."""
    grant: bytes

    @property
    def is_small(self) -> bool:
        """As what an honest site says is."""
        names = (*self.addresses, self.server_name)
        return len(names) <= MOST_NAMES and sum(map(len, names)) + len(self.grant) <= MOST_OCTETS


class ArrivalState(Enum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"


class Arrival(Struct, frozen=True, kw_only=True):
    """How far an image is that is brought to this site."""

    digest: str
    done_bytes: int
    state: ArrivalState
    message: str = ""


def check_can_send(transfers: Iterable[Transfer], site: str, store: StoreAddress | None) -> None:
    """NoCapacity where other sites' stores cannot reach this one's."""
    for each in transfers:
        if each.from_site == site and store is None:
            message = f"{site}: its image store has no address that other sites reach"
            short = Shortfall(
                site=site, resource="reachability", peer=each.to_site, message=message
            )
            raise NoCapacity((short,))


def check_not_begun(transfers: Iterable[Transfer], site: str, *, now: datetime) -> None:
    """NoCapacity where a transfer should be under way already: it would not be there in time."""
    for each in transfers:
        if each.window.start < now - MAX_SKEW:
            what = f"what {each.from_site} sends to {each.to_site}"
            message = f"{site}: {what} should have begun by now"
            raise NoCapacity((Shortfall(site=site, resource="data", message=message),))


def new_transfers(asked: PartSpec, had: PartSpec) -> tuple[Transfer, ...]:
    """Of other terms for a part, what those in force do not have."""
    return tuple(each for each in asked.transfers if each not in had.transfers)


def with_transfers_kept(
    asked: PartSpec, had: PartSpec, arrivals: Iterable[Arrival], *, now: datetime
) -> PartSpec:
    """Other terms with the transfers of those in force, whether they name them or not: what is
    agreed on stands. One that is over, or was given up, makes way for another of the same to the
    same site; FieldInvalid where it may still come."""
    failed = {each.digest for each in arrivals if each.state is ArrivalState.FAILED}
    again = {
        (each.digest, each.to_site): f"spec.transfers[{position}]"
        for position, each in enumerate(asked.transfers)
        if each not in had.transfers
    }
    kept = []
    for each in had.transfers:
        field = again.get((each.digest, each.to_site))
        if field is None:
            kept.append(each)
        elif now < each.window.end + GRACE and each.digest not in failed:
            raise FieldInvalid(field, f"is on its way from {each.from_site} already")
    return replace(asked, transfers=(*kept, *new_transfers(asked, had)))


def arrivals_kept(
    arrivals: Iterable[Arrival], asked: PartSpec, had: PartSpec, site: str
) -> tuple[Arrival, ...]:
    """Of what is brought once more, nothing is said of how far it was."""
    again = {each.digest for each in new_transfers(asked, had) if each.to_site == site}
    return tuple(each for each in arrivals if each.digest not in again)


def awaiting(
    spec: PartSpec, arrivals: Iterable[Arrival], site: str, there: Set[str]
) -> tuple[str, ...]:
    """Workspaces, by label, beside those that are there already, that begin once what they need
    has been brought."""
    coming = {each.digest for each in still_to_come(spec, arrivals, site)}
    return tuple(
        each.label
        for each in spec.workspaces
        if each.label not in there and not coming.isdisjoint(each.images)
    )


def grants_for(
    transfers: Iterable[Transfer], *, site: str, tenant: str, tx: str, now: datetime
) -> Iterator[TransferGrant]:
    """What other sites' stores may get here."""
    for each in transfers:
        if each.from_site == site:
            yield TransferGrant(
                digest=each.digest,
                source_site=site,
                target_site=each.to_site,
                mbit_s=each.mbit_s,
                begin_time=each.window.start,
                end_time=each.window.end + GRACE,
                sign_time=now,
                tenant=tenant,
                tx=tx,
            )


def sources_for(
    spec: PartSpec,
    site: str,
    said: Mapping[str, Iterable[ImageSource]],
    known: Sequence[ImageSource] = (),
) -> tuple[ImageSource, ...]:
    """Of what is brought to this site, as each source's own receipt has `said` it; else as is
    `known` from an earlier one."""
    ends = {
        (each.digest, each.from_site): each.window.end + GRACE
        for each in spec.transfers
        if each.to_site == site
    }
    found: dict[tuple[str, str], ImageSource] = {}
    for signer in sorted(said):
        for each in said[signer]:
            key = each.digest, each.from_site
            good = each.to_site == site and each.from_site == signer and each.is_small
            if good and ends.get(key) == each.end_time:
                found.setdefault(key, each)
    for each in known:
        if ends.get(key := (each.digest, each.from_site)) == each.end_time:
            found.setdefault(key, each)
    return tuple(found.values())


def still_to_come(spec: PartSpec, arrivals: Iterable[Arrival], site: str) -> tuple[Transfer, ...]:
    """To this site."""
    over = {
        each.digest for each in arrivals if each.state in (ArrivalState.DONE, ArrivalState.FAILED)
    }
    return tuple(
        each for each in spec.transfers if each.to_site == site and each.digest not in over
    )


def is_news(before: Arrival | None, after: Arrival, size_bytes: int) -> bool:
    """Worth a write: another state or message, or a tenth more of it."""
    if before is None or (before.state, before.message) != (after.state, after.message):
        return True
    return (after.done_bytes - before.done_bytes) * 10 >= size_bytes
