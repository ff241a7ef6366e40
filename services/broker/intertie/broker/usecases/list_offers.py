"""What this site could give over each of some windows."""

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.offers import MAX_WINDOWS, ImageOffer, Offer, offers_of
from intertie.broker.domain.ports import Images, Ledger
from intertie.common.clock import Clock
from intertie.common.errors import FieldInvalid
from intertie.common.intervals import Window


class ListOffers:
    def __init__(self, ledger: Ledger, images: Images, policy: Policy, clock: Clock) -> None:
        self._ledger = ledger
        self._images = images
        self._policy = policy
        self._clock = clock

    async def __call__(
        self,
        tenant: str,
        windows: tuple[Window, ...],
        images: tuple[str, ...],
        *,
        before_others: bool = False,
    ) -> tuple[Offer, ...]:
        if not 1 <= len(windows) <= MAX_WINDOWS:
            raise FieldInvalid("windows", f"{len(windows)} are given; give 1 to {MAX_WINDOWS}")
        found = tuple(
            [
                ImageOffer(asked=image, image=await self._images.find(tenant, image))
                for image in dict.fromkeys(images)
            ]
        )
        view = await self._ledger.view()
        now = self._clock.now()
        return offers_of(view, self._policy, windows, found, now=now, before_others=before_others)
