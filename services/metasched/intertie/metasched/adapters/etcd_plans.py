"""Plans that were told to choose from, in the meta-scheduler's etcd, for as long as they may be
accepted."""

from collections.abc import Mapping
from datetime import timedelta

from intertie.common.etcd.client import Etcd, Put
from intertie.common.etcd.records import check_size, decode, encode
from intertie.metasched.domain.told_plan import ToldPlan


class EtcdPlans:
    """See domain.ports.ToldPlans. Every replica writes here, each under names of its own that
    nobody can guess, so nothing is compared."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd

    async def keep(self, tenant: str, plans: Mapping[str, ToldPlan], within: timedelta) -> None:
        octets = {_key(tenant, token): encode(plan) for token, plan in plans.items()}
        check_size(octets.values())
        lease = await self._etcd.grant(round(within.total_seconds()) + 1)
        await self._etcd.txn([], [Put(key, value, lease=lease) for key, value in octets.items()])

    async def get(self, tenant: str, token: str) -> ToldPlan | None:
        entry = await self._etcd.get(_key(tenant, token))
        return decode(ToldPlan, entry.value) if entry else None


def _key(tenant: str, token: str) -> str:
    return f"plans/{tenant}/{token}"
