"""What a meta-scheduler is told by its file; `INTERTIE_` variables override single fields."""

import os
import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator

from intertie.common.leasing.plugins import BACKFILLINGS, FAIRNESS, ORDERS
from intertie.common.settings import (
    EtcdSettings,
    ListenSettings,
    LogSettings,
    NamedPeerSettings,
    NonEmpty,
    RoomSettings,
    Section,
    ServiceSettings,
    TlsSettings,
    TrustSettings,
)
from intertie.metasched.domain.lost_sites import LossPolicy
from intertie.metasched.domain.queue_policy import QueuePolicy

FAULT_POINTS = ("after_prepare", "after_decide")
_FAULT = re.compile(rf"({'|'.join(FAULT_POINTS)}):(\d+(?:\.\d+)?)")

Positive = Annotated[float, Field(gt=0)]


class PlanningSettings(Section):
    horizon_h: Positive = 24.0
    """Nothing is put off beyond this."""
    slot_min: Positive = 5.0
    """Starts are tried so far apart."""
    effort: Positive = 2.0
    """CP-SAT's deterministic time for each objective; about seconds."""
    solvers: int | None = Field(default=None, ge=1, le=64)
    """At most so many processes solve what callers wait for; two where nothing is said, one on a
    machine with one processor. One more may look ahead for leases that wait, one look for plans to
    choose from, and one explain a refusal."""
    solver_memory_mib: int = Field(default=2048, ge=256, le=1048576)
    """Of one such process. A request that takes more is refused with SOLVER_FAILED."""
    accept_within_s: Annotated[float, Field(ge=10, le=3600)] = 300.0
    """So long a plan may be accepted that was told to choose from. Nothing is held for it."""

    @property
    def at_a_time(self) -> int:
        return self.solvers or min(2, len(os.sched_getaffinity(0)))


class CommitSettings(Section):
    decide_within_s: Annotated[float, Field(gt=0, le=600)] = 20.0
    rpc_timeout_s: Positive = 5.0


class LossSettings(Section):
    """When a site or a link is lost to the clusters that are there, of which what may begin anew at
    other sites does: `on_site_loss: REPLACE`, `on_link_loss: MOVE`."""

    site_lost_after_s: float = Field(default=300.0, ge=20, le=86400)
    """A site that has not answered for so long is lost to them. While more than half of the sites
    at which clusters are do not answer, no time counts. What is silent may well go on, so no
    shorter than what an outage takes that one would rather sit out. The same for a link that
    carries nothing, or too little."""
    replan_within_s: float = Field(default=60.0, ge=0, le=86400)
    """So long it is tried to have elsewhere what a site has given up, before the cluster ends."""

    def policy(self) -> LossPolicy:
        return LossPolicy(
            site_lost_after=timedelta(seconds=self.site_lost_after_s),
            replan_within=timedelta(seconds=self.replan_within_s),
        )


class QueueSettings(Section):
    """How leases wait that run when there is room at several sites."""

    order: Literal["first-come", "shortest", "held-up"] = "first-come"
    """Who of them goes first: who came first; who has the least left; who has done little and
    waited long."""
    fairness: Literal["none", "dominant-resource"] = "none"
    """Between tenants. None: only that order counts. Dominant-resource: next is the first, by that
    order, of the tenant that has the least, as the largest of its shares of vCPUs, memory and disk;
    a day of waiting counts as much as a share of everything."""
    backfilling: Literal["aggressive", "conservative"] = "aggressive"
    """Whom others may pass: all but the first; nobody."""
    longest_wait_hours: float = Field(default=720.0, gt=0, le=8784)
    """A lease that gets no room for so long ends; one that says less itself, sooner."""
    queued_leases: int | None = Field(default=None, ge=0)
    """How many leases of a tenant may wait here for a first start at one time."""

    def policy(self) -> QueuePolicy:
        return QueuePolicy(
            order=ORDERS[self.order],
            fairness=FAIRNESS[self.fairness],
            backfilling=BACKFILLINGS[self.backfilling],
            longest_wait=timedelta(hours=self.longest_wait_hours),
            queued_leases=self.queued_leases,
        )


class MetaschedSettings(ServiceSettings):
    name: NonEmpty
    """`meta` of `metascheds/meta`."""
    replica: str = ""
    """What other replicas see of this one; its first listening address, when empty."""
    listen: ListenSettings
    tls: TlsSettings
    trust: Annotated[tuple[TrustSettings, ...], Field(min_length=1)]
    etcd: EtcdSettings
    room: RoomSettings = RoomSettings()
    log: LogSettings = LogSettings()
    sites: Annotated[tuple[NamedPeerSettings, ...], Field(min_length=1)]
    planning: PlanningSettings = PlanningSettings()
    commit: CommitSettings = CommitSettings()
    queue: QueueSettings = QueueSettings()
    losses: LossSettings = LossSettings()
    fault_pause: str = ""
    """For tests of faults alone: `after_prepare:30` makes the coordinator of every co-allocation
    wait 30 s at that point, so that something can be killed there. `INTERTIE_FAULT_PAUSE`."""

    @field_validator("fault_pause")
    @classmethod
    def _names_a_point(cls, text: str) -> str:
        if text and not _FAULT.fullmatch(text):
            raise ValueError(f"must read POINT:SECONDS, POINT being one of {FAULT_POINTS}")
        return text

    @property
    def fault(self) -> tuple[str, float] | None:
        """The point and the seconds."""
        found = _FAULT.fullmatch(self.fault_pause)
        return (found[1], float(found[2])) if found else None
