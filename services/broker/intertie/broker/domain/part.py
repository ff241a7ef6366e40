"""A part: the piece of a lease at this site, and what may happen to it."""

from datetime import datetime
from enum import Enum

from intertie.broker.domain.charge import PastCharge
from intertie.broker.domain.counted import UsedAt
from intertie.broker.domain.keeping import Keeping, Vacating
from intertie.broker.domain.moving import Left, Moving
from intertie.broker.domain.networks import Endpoint, NetworkId, RemoteEndpoint
from intertie.broker.domain.placed import Placed, all_hosts
from intertie.broker.domain.sending import Arrival, ImageSource
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.terms import Amend, AmendState, Shed
from intertie.common.actions import Switched
from intertie.common.errors import IllegalMove
from intertie.common.intervals import Window
from intertie.common.names import PartName, uid_of
from intertie.common.part_spec import PartSpec
from intertie.common.refund import RefundItem
from intertie.common.snapshot import Snapshot
from intertie.common.values import Struct, replace


class PartState(Enum):
    HELD = "HELD"
    PREPARED = "PREPARED"
    CONFIRMED = "CONFIRMED"
    ENDED = "ENDED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


NEXT: dict[PartState, frozenset[PartState]] = {
    PartState.HELD: frozenset({PartState.PREPARED, PartState.RELEASED, PartState.EXPIRED}),
    PartState.PREPARED: frozenset({PartState.CONFIRMED, PartState.RELEASED}),
    PartState.CONFIRMED: frozenset({PartState.ENDED}),
    PartState.ENDED: frozenset(),
    PartState.RELEASED: frozenset(),
    PartState.EXPIRED: frozenset(),
}
"""Every edge there is. docs/states.md is drawn from this table by a test."""

FIRST: frozenset[PartState] = frozenset({PartState.HELD, PartState.PREPARED, PartState.CONFIRMED})
"""How a part may begin: PREPARED where it was held and prepared in one transaction; CONFIRMED only
for a cluster of this site alone, whose coordinator is the broker itself."""

COUNTED: frozenset[PartState] = frozenset({PartState.HELD, PartState.PREPARED, PartState.CONFIRMED})
"""Those that take capacity, one whose end has been asked for included."""


class Moved(Struct, frozen=True, kw_only=True):
    """A workspace that was begun anew on another host because its own was lost."""

    workspace: str
    times: int
    host: str
    """That was lost last."""
    at: datetime


class PartSnapshot(Struct, frozen=True, kw_only=True):
    """The newest image that was asked for of a workspace's disk."""

    workspace: str
    id: str
    host: str
    """That makes it, and no other: elsewhere is another disk."""
    grant: bytes
    """What the image store takes it for; empty once it is over."""
    shown: Snapshot
    """As last known for good: how far it is meanwhile its host says."""


class Part(Struct, frozen=True, kw_only=True):
    name: str
    state: PartState
    spec: PartSpec
    owner: str
    create_time: datetime
    seed: str
    """Secret; the words that guests must say when they are ready are derived from it."""
    placed: tuple[Placed, ...] = ()
    gateway: str = ""
    """The host that carries traffic to other sites; empty where none leaves the site."""
    tx: str = ""
    digest: str = ""
    coordinator: str = ""
    participants: tuple[str, ...] = ()
    expire_time: datetime | None = None
    decide_by: datetime | None = None
    generation: int = 0
    """Of what the agents are told: 0 until they have been told anything."""
    told: str = ""
    """Fingerprint of what they were told at that generation."""
    network_ids: tuple[NetworkId, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    remotes: tuple[RemoteEndpoint, ...] = ()
    confirm_time: datetime | None = None
    """Of one that was not so from the start."""
    end_requested_time: datetime | None = None
    end_reason: str = ""
    end_time: datetime | None = None
    """When it reached a state that it does not leave."""
    switched: tuple[tuple[str, Switched], ...] = ()
    """Workspaces, by label, that their owner has switched otherwise than they began."""
    terms: int = 0
    """The number of the terms in force: how often it was amended."""
    shed: tuple[Shed, ...] = ()
    """The oldest first."""
    charged: tuple[PastCharge, ...] = ()
    """By which terms it was reserved before, as far as that may not be written down yet; the
    oldest first."""
    moved: tuple[Moved, ...] = ()
    silent: tuple[tuple[str, datetime], ...] = ()
    """Hosts of it that do not report, and since when that is on record."""
    end_message: str = ""
    """More of `end_reason`, in words."""
    price: tuple[Stretch, ...] = ()
    """What was agreed that it costs, the oldest first; none: by a release that knew no prices."""
    sent: tuple[Stretch, ...] = ()
    """What was agreed beside that for each transfer, in its own window: whatever becomes of the
    terms, it stands."""
    used: tuple[UsedAt, ...] = ()
    """What hosts had counted when their records of it were taken away."""
    refunds: tuple[RefundItem, ...] = ()
    """Given back of its price. None is ever taken away, and only the newest of one direction of a
    promise grows."""
    amend: Amend | None = None
    """At most one at a time."""
    moving: tuple[Moving, ...] = ()
    """Workspaces that are on their way to another host, at most once each: counted there too."""
    left: tuple[Left, ...] = ()
    """At most one a workspace."""
    vacating: Vacating | None = None
    """Some of `moving` are for another lease."""
    unmoved: tuple[tuple[str, str], ...] = ()
    """Workspaces, by label, that did not get to where they were to go last, and why."""
    keeping: Keeping | None = None
    """Of one that its site may put aside. Its window is then one stretch of its running."""
    recalled_end: datetime | None = None
    """To which the site has put it aside by itself; its coordinator is to agree on an end."""
    snapshots: tuple[PartSnapshot, ...] = ()
    """At most one a workspace."""
    sources: tuple[ImageSource, ...] = ()
    """Of what is brought here."""
    arrivals: tuple[Arrival, ...] = ()
    """At most one of each."""
    awaiting: tuple[str, ...] = ()
    """Workspaces, by label, that came with other terms: hosts hear of them once what is brought for
    them is there, however long the others have run by then."""

    @property
    def path(self) -> PartName:
        return PartName.parse(self.name)

    @property
    def uid(self) -> str:
        return self.path.uid

    @property
    def window(self) -> Window:
        return self.spec.window

    @property
    def agreed(self) -> tuple[Stretch, ...]:
        """All that it costs."""
        return (*self.sent, *self.price)

    @property
    def ends(self) -> datetime:
        """When hosts take everything away."""
        kept = self.keeping.until if self.keeping is not None else None
        return kept or self.spec.window.end

    @property
    def recallable(self) -> bool:
        """Its site may put it aside, and a coordinator elsewhere is to see that."""
        return self.keeping is not None and bool(self.coordinator) and not self.over

    @property
    def counted(self) -> bool:
        return self.state in COUNTED

    @property
    def undecided(self) -> bool:
        """It, or other terms for it, are held or prepared: not for long."""
        return (
            self.state is PartState.HELD
            or self.state is PartState.PREPARED
            or self.amend is not None
        )

    @property
    def bound(self) -> bool:
        """Other terms for it are prepared: until they are decided its end may not come."""
        return self.amend is not None and self.amend.state is AmendState.PREPARED

    @property
    def over(self) -> bool:
        return not NEXT[self.state]

    def host_of(self, workspace: str) -> str:
        """Empty where it is not of this part."""
        return next((each.host for each in self.placed if each.workspace == workspace), "")

    def switch_of(self, workspace: str) -> Switched:
        return next((how for label, how in self.switched if label == workspace), Switched())

    def moved_of(self, workspace: str) -> Moved | None:
        return next((each for each in self.moved if each.workspace == workspace), None)

    def moving_of(self, workspace: str) -> Moving | None:
        return next((each for each in self.moving if each.workspace == workspace), None)

    def vacates_in_vain(self) -> bool:
        """It gives way by migration, and some workspace stays where it was."""
        leaves = self.vacating.leaves if self.vacating is not None else ()
        return any(
            self.host_of(each.workspace) == each.host and self.moving_of(each.workspace) is None
            for each in leaves
        )

    def between(self, *, live: bool | None = None) -> tuple[Placed, ...]:
        """Where its workspaces may come to be, or may be still, beside where they are placed.
        `live`: only those that go while they run, or only the others."""
        moving = ((each.workspace, each.host, not each.aside) for each in self.moving)
        left = ((each.workspace, each.host, each.live) for each in self.left)
        return tuple(
            Placed(workspace=label, host=host)
            for label, host, runs in (*moving, *left)
            if live is None or live is runs
        )

    @property
    def gives_up_by(self) -> datetime | None:
        """When what it gave up is there for others; None where it has given up nothing, or not by
        a moment."""
        return max((each.until for each in self.shed if each.until is not None), default=None)

    def vni_of(self, network: str) -> int:
        return next((each.vni for each in self.network_ids if each.network == network), 0)

    def hosts(self) -> tuple[str, ...]:
        """Every host that has something of the part, in the order of their names."""
        if not self.moving:
            return all_hosts(self.placed, self.gateway)
        return tuple(
            sorted({*all_hosts(self.placed, self.gateway), *(each.host for each in self.moving)})
        )

    def left_hosts(self) -> tuple[str, ...]:
        """Those that have something of what was before, and nothing of what is."""
        before = {host for each in self.shed for host in each.hosts()}
        before.update(each.host for each in self.left)
        return tuple(sorted(before.difference(self.hosts())))

    def expired(self, *, now: datetime) -> bool:
        """A hold ends when its time is over on this site's clock, and not a moment before."""
        return (
            self.state is PartState.HELD
            and self.expire_time is not None
            and now >= self.expire_time
        )

    def in_doubt(self, *, now: datetime) -> bool:
        """Prepared, and past the moment by which its coordinator promised to decide."""
        return (
            self.state is PartState.PREPARED
            and self.decide_by is not None
            and now >= self.decide_by
        )

    def amend_expired(self, *, now: datetime) -> bool:
        held = self.amend
        return (
            held is not None
            and held.state is AmendState.HELD
            and held.expire_time is not None
            and now >= held.expire_time
        )

    def amend_in_doubt(self, *, now: datetime) -> bool:
        return self.bound and self.amend is not None and now >= self.amend.decide_by

    def let_go(self, to: AmendState) -> "Part":
        """Without the other terms that were held for it."""
        if self.amend is None:
            return self
        self.amend.move(to)
        return replace(self, amend=None)

    def move(self, to: PartState, *, now: datetime, reason: str = "") -> "Part":
        """The part after one step. `now` is given, never asked for."""
        if to not in NEXT[self.state]:
            raise IllegalMove(f"{self.name}: {self.state.name} to {to.name}")
        over = not NEXT[to]
        return replace(
            self,
            state=to,
            expire_time=None,
            confirm_time=now if to is PartState.CONFIRMED else self.confirm_time,
            end_reason=reason or self.end_reason if over else self.end_reason,
            end_time=now if over else None,
        )

    def ending(self, *, now: datetime, reason: str, message: str = "") -> "Part":
        """Its end is asked for: it counts until nothing is left on any host. The first reason
        stands. Other terms that are held for it go with it."""
        if self.state is not PartState.CONFIRMED or self.bound:
            state = "in doubt" if self.bound else self.state.name
            raise IllegalMove(f"{self.name}: the end of a part that is {state}")
        if self.end_requested_time is not None:
            return self
        over = self.let_go(AmendState.RELEASED)
        return replace(over, end_requested_time=now, end_reason=reason, end_message=message)


Standing = Part | Shed | Amend
"""Terms that are placed."""


def workspace_uid(part_name: str, workspace: str) -> str:
    return uid_of(part_name, workspace)


def nonce_of(part: Part, workspace: str) -> str:
    """What the guest must say: known to it and to this site only."""
    return uid_of("nonce", part.seed, workspace)
