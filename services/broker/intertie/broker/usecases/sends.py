"""What this site vouches for of the images that its store is to send."""

from datetime import datetime

from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Grants
from intertie.broker.domain.sending import (
    ImageSource,
    StoreAddress,
    check_can_send,
    grants_for,
)
from intertie.common.part_spec import PartSpec


class Sends:
    """`store`: None where other sites' stores do not reach that of this site."""

    def __init__(self, site: str, store: StoreAddress | None, grants: Grants | None) -> None:
        self._site = site
        self._store = store
        self._grants = grants

    def check(self, spec: PartSpec) -> None:
        """NoCapacity where the part is to send what nobody could fetch."""
        check_can_send(spec, self._site, self._store)

    def __call__(self, part: Part, *, now: datetime) -> tuple[ImageSource, ...]:
        """For its receipt: from where, and by what leave, others get what it sends."""
        store, grants = self._store, self._grants
        if store is None or grants is None or not part.spec.transfers:
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
                part.spec, site=self._site, tenant=part.path.tenant, tx=part.tx, now=now
            )
        )


SENDS_NOTHING = Sends("", None, None)
