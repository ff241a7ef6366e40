"""Requests that this site cannot serve alone are handed on to its meta-scheduler.

The record comes first, so that a retry, or another replica, asks again with the same derived
request id, and the meta-scheduler answers as it did before.
"""

import structlog

from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.ledger import Versioned
from intertie.broker.domain.ports import (
    Caller,
    Foreign,
    ForeignPlans,
    Ledger,
    Metasched,
    RefusedSoFar,
    Room,
)
from intertie.broker.domain.records import (
    Change,
    Erase,
    ForwardRecord,
    RequestKey,
    RequestRecord,
    Unchanged,
    Write,
    forward_uid,
    forwarded_request_id,
)
from intertie.broker.usecases.admission import contend
from intertie.broker.usecases.copies import AtWork
from intertie.common.actions import Action
from intertie.common.clock import Clock
from intertie.common.errors import (
    EtcdUnavailable,
    FieldInvalid,
    ImageNotReady,
    NameTaken,
    NoCapacity,
    NotFound,
    NotLeading,
    PlanStale,
    SolverFailed,
    StaleWrite,
)
from intertie.common.names import ClusterName
from intertie.common.spec import ClusterSpec

log = structlog.get_logger(__name__)

FINAL = (NoCapacity, PlanStale, SolverFailed, ImageNotReady, FieldInvalid, NameTaken)
"""Refusals after which nothing is left at the meta-scheduler, so nothing is to be found again."""


class Forwarding:
    def __init__(
        self,
        ledger: Ledger,
        metasched: Metasched | None,
        clock: Clock,
        room: Room,
    ) -> None:
        self._ledger = ledger
        self._metasched = metasched
        self._clock = clock
        self._room = room
        self._at_work = AtWork()

    @property
    def possible(self) -> bool:
        return self._metasched is not None

    async def plan(
        self, caller: Caller, name: ClusterName, spec: ClusterSpec, *, plan_token: str
    ) -> Foreign:
        """Asks what would be given; writes nothing."""
        return await self._to().create(
            caller,
            name.tenant,
            name.cluster_id,
            spec,
            request_id="",
            validate_only=True,
            plan_token=plan_token,
        )

    async def plans(self, caller: Caller, name: ClusterName, spec: ClusterSpec) -> ForeignPlans:
        """Asks for plans to choose from; writes nothing."""
        return await self._to().plan(caller, name.tenant, name.cluster_id, spec)

    async def create(
        self,
        caller: Caller,
        name: ClusterName,
        spec: ClusterSpec,
        request: RequestKey,
        *,
        plan_token: str,
    ) -> Foreign:
        """Writes down that it is handed on, then does so. A refusal is forgotten, so that the next
        attempt may find room here, where no copy can still be on its way: one that came late would
        lead to a second cluster. Else every attempt of this request is handed on."""
        with self._at_work.on(request) as copies:
            async with copies.lock:
                term = await self._ledger.check_leading()
                record, is_new = await contend(lambda: self._record(caller, name, request))
                if is_new:
                    copies.known_since = term
            try:
                return await self._hand_on(caller, name, spec, record, plan_token)
            except FINAL:
                async with copies.lock:
                    if copies.here == 1 and copies.known_since is not None:
                        await self._forget(record, request, copies.known_since)
                raise
            except RefusedSoFar as unsure:
                copies.known_since = None
                raise unsure.error from None
            except BaseException:
                copies.known_since = None
                raise

    async def _hand_on(
        self,
        caller: Caller,
        name: ClusterName,
        spec: ClusterSpec,
        record: ForwardRecord,
        plan_token: str,
    ) -> Foreign:
        log.info("forward.create", cluster=record.name, metasched=record.metasched)
        return await self._to().create(
            caller,
            name.tenant,
            name.cluster_id,
            spec,
            request_id=record.request_id,
            validate_only=False,
            plan_token=plan_token,
        )

    async def find(self, name: ClusterName) -> Versioned[ForwardRecord] | None:
        if name.authority.startswith("metascheds/"):
            return None
        return await self._ledger.forward(name.tenant, name.cluster_id)

    async def reaches(self, name: ClusterName) -> bool:
        """Whether the meta-scheduler is to be asked: the name is under it, or it is a local name
        under which a request was handed on."""
        if self._metasched is not None and name.authority == f"metascheds/{self._metasched.name}":
            return True
        return await self.find(name) is not None

    async def get(self, caller: Caller, name: ClusterName) -> Foreign:
        return await self._to().get(caller, name.tenant, name.cluster_id)

    async def delete(self, caller: Caller, name: ClusterName, etag: str) -> Foreign:
        return await self._to().delete(caller, name.tenant, name.cluster_id, etag)

    async def act(
        self,
        caller: Caller,
        name: ClusterName,
        action: Action,
        workspaces: tuple[str, ...],
        etag: str,
        request: RequestKey,
        *,
        image: str,
    ) -> Foreign:
        return await self._to().act(
            caller,
            name.tenant,
            name.cluster_id,
            action,
            workspaces,
            image=image,
            etag=etag,
            request_id=forwarded_request_id(request),
        )

    async def update(
        self,
        caller: Caller,
        name: ClusterName,
        spec: ClusterSpec,
        paths: tuple[str, ...],
        etag: str,
        request: RequestKey,
        *,
        validate_only: bool,
    ) -> Foreign:
        return await self._to().update(
            caller,
            name.tenant,
            name.cluster_id,
            spec,
            paths,
            etag=etag,
            request_id="" if validate_only else forwarded_request_id(request),
            validate_only=validate_only,
        )

    def metasched(self) -> Metasched:
        return self._to()

    async def check_free(
        self, caller: Caller, name: ClusterName
    ) -> Versioned[ForwardRecord] | None:
        """NameTaken while a cluster that was handed on under this name lives; else the record
        that may be written over."""
        found = (await self._ledger.view()).forwards.get(str(name))
        if found is None:
            return None
        try:
            living = not (await self.get(caller, name)).over
        except NotFound:
            living = False
        if living:
            raise NameTaken(str(name))
        return found

    def _to(self) -> Metasched:
        if self._metasched is None:
            raise NotFound("a meta-scheduler of this site")
        return self._metasched

    async def _record(
        self, caller: Caller, name: ClusterName, request: RequestKey
    ) -> tuple[ForwardRecord, bool]:
        """As it stands, and whether it was written now."""
        before = await self._ledger.request(request.caller, request.request_id)
        now = self._clock.now()
        if before is not None and before.value.answers(request, now=now):
            found = await self.find(name)
            if found is not None and found.value.request_id == forwarded_request_id(request):
                # Written again, as `_forget` may have taken it back without having heard so, or
                # may do so yet: what nobody knows to be on record is not handed on.
                again = Write(record=found.value, read_at=found.revision)
                await self._ledger.commit(Change(writes=(again,)))
                return found.value, False
        self._room.check()
        here = check_no_cluster(await self._ledger.cluster(name.tenant, name.cluster_id), name)
        old = await self.check_free(caller, name)
        record = ForwardRecord(
            name=str(name),
            metasched=self._to().name,
            request_id=forwarded_request_id(request),
            caller=caller.spiffe,
            create_time=now,
        )
        answer = RequestRecord.of(request, answer=str(name), uid=forward_uid(request), now=now)
        change = Change(
            writes=(
                Write(record=record, read_at=old.revision if old else 0),
                Write(record=answer, read_at=before.revision if before else 0),
            ),
            unchanged=(
                Unchanged(
                    kind=ClusterRecord,
                    name=str(name),
                    read_at=here.revision if here else 0,
                ),
            ),
        )
        try:
            await self._ledger.commit(change)
        except EtcdUnavailable:
            written = await self.find(name)
            if written is None or written.value != record:
                raise
        return record, True

    async def _forget(self, record: ForwardRecord, request: RequestKey, term: int) -> None:
        """Takes the records back, unless another has led since `term`, who may have handed the
        request on too. Where they stay, a retry asks again with the same id."""
        name = ClusterName.parse(record.name)
        try:
            forward = await self.find(name)
            answer = await self._ledger.request(request.caller, request.request_id)
            if forward is None or answer is None or forward.value != record:
                return
            if await self._ledger.check_leading() != term:
                return
            erasures = tuple(
                Erase(record=each.value, read_at=each.revision) for each in (forward, answer)
            )
            await self._ledger.commit(Change(erasures=erasures))
        except (StaleWrite, EtcdUnavailable, NotLeading) as error:
            log.info("forward.not_forgotten", cluster=record.name, problem=str(error))


def check_no_cluster(
    old: Versioned[ClusterRecord] | None, name: ClusterName
) -> Versioned[ClusterRecord] | None:
    """NameTaken while a cluster of that name lives at this site; else what it may be written
    over."""
    if old is not None and not old.value.over:
        raise NameTaken(str(name))
    return old


def still_free(
    now_there: Versioned[ForwardRecord] | None,
    name: ClusterName,
    free: Versioned[ForwardRecord] | None,
) -> Unchanged:
    """What a cluster of this site that takes the name must compare. NameTaken when it was handed
    on since `check_free` found it as `free`."""
    if now_there is not None and (free is None or free.revision != now_there.revision):
        raise NameTaken(str(name))
    return Unchanged(
        kind=ForwardRecord, name=str(name), read_at=now_there.revision if now_there else 0
    )
