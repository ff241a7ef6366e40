"""What every background pass has in common: it runs on the leader, level-triggered, for ever."""

from collections.abc import Awaitable, Callable

import structlog

from intertie.broker.domain.ports import Hints, Ledger
from intertie.common.errors import EtcdUnavailable, NotLeading, StaleWrite

log = structlog.get_logger(__name__)


async def keep(
    name: str,
    sweep: Callable[[frozenset[str] | None], Awaitable[None]],
    ledger: Ledger,
    hints: Hints,
    *,
    period_s: float,
) -> None:
    """Sweeps over what hints say was touched, and over everything at the latest each period, while
    this replica leads. What fails is tried again within the period; the writes are guarded, so a
    pass too many does no harm."""
    async for touched in hints.passes(period_s=period_s):
        try:
            await ledger.check_leading()
            await sweep(touched)
        except NotLeading:
            continue
        except StaleWrite as error:
            log.debug("pass.lost_race", loop=name, key=error.key)
        except EtcdUnavailable as error:
            log.warning("pass.store_unavailable", loop=name, problem=str(error))
        except Exception:
            log.exception("pass.failed", loop=name)
