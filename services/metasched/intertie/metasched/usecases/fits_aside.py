"""Refuses a lease that waits and could not be put aside, as that is written down at once for all of
its sites."""

from datetime import datetime

from intertie.common.names import PartName
from intertie.common.values import replace
from intertie.metasched.domain.aside import amend_of, aside_tx, put_aside
from intertie.metasched.domain.cluster import ClusterRecord
from intertie.metasched.domain.commit import tx_name
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.ports import Register
from intertie.metasched.domain.queue_policy import QueuePolicy

SPARE_BYTES = 50_000
"""For what its record has more of by then: what it waits for, what it has cost."""
_TX = tx_name("0" * 32)


class FitsAside:
    def __init__(self, register: Register, policy: QueuePolicy, coordinator: str) -> None:
        self._register = register
        self._policy = policy
        self._coordinator = coordinator

    def check(self, record: ClusterRecord, plan: Plan, *, now: datetime) -> None:
        """FieldInvalid where the lease, if it ran by that plan, would be too large to be put aside,
        or to go on."""
        tenant = record.path.tenant
        parts = {site: str(PartName(site, tenant, _TX)) for site in plan.site_names}
        planned = replace(record, plan=plan, parts=parts, tx=_TX)
        stretch = put_aside(planned, plan.window.end, self._policy)
        tx, decision = aside_tx(
            planned, stretch, _TX, coordinator=self._coordinator, decide_by=now, now=now
        )
        self._register.check_amend(tx, stretch.record, decision, spare_bytes=SPARE_BYTES)
        under = replace(planned, amend=amend_of(_TX, planned, now=now))
        self._register.check_amend(replace(tx, specs={}), under, None, spare_bytes=SPARE_BYTES)
