"""What this site vouches for of the images that its store is to send."""

from collections.abc import Iterable
from datetime import datetime

from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Grants
from intertie.broker.domain.sending import (
    ImageSource,
    StoreAddress,
    check_can_send,
    grants_for,
    new_transfers,
)
from intertie.common.part_spec import Transfer


class Sends:
    """`store`: None where other sites' stores do not reach that of this site."""

    def __init__(self, site: str, store: StoreAddress | None, grants: Grants | None) -> None:
        self._site = site
        self._store = store
        self._grants = grants

    def check(self, transfers: Iterable[Transfer]) -> None:
        """NoCapacity where the site is to send what nobody could fetch."""
        check_can_send(transfers, self._site, self._store)

    def __call__(self, part: Part, *, now: datetime) -> tuple[ImageSource, ...]:
        """For its receipt: from where, and by what leave, others get what it sends."""
        return self._said(part, part.spec.transfers, part.tx, now=now)

    def by_amend(self, part: Part, tx: str, *, now: datetime) -> tuple[ImageSource, ...]:
        """For the receipt of other terms that are prepared: of what these send beyond those in
        force. What is only held may be let go, and nobody fetches anything for it."""
        amend = part.amend
        if amend is None or amend.tx != tx or not part.bound:
            return ()
        return self._said(part, new_transfers(amend.spec, part.spec), tx, now=now)

    def _said(
        self, part: Part, transfers: tuple[Transfer, ...], tx: str, *, now: datetime
    ) -> tuple[ImageSource, ...]:
        store, grants = self._store, self._grants
        if store is None or grants is None or not transfers:
            return ()
        return tuple(
            ImageSource(
                digest=each.digest,
                from_site=each.source_site,
                to_site=each.target_site,
                addresses=store.addresses,
                server_name=store.server_name,
                end_time=each.end_time,
                grant=grants.sign_transfer(each),
            )
            for each in grants_for(
                transfers, site=self._site, tenant=part.path.tenant, tx=tx, now=now
            )
        )


SENDS_NOTHING = Sends("", None, None)
