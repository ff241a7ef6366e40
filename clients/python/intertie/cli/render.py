"""Clusters, plans, sites, hosts and images as tables. Pure: values in, renderables out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from intertie.api.broker.v1.site_pb2 import Host
from intertie.api.cluster.v1.cluster_pb2 import Cluster, Guarantee, Plan, PlannedPart, Workspace
from intertie.api.cluster.v1.clusters_pb2 import PlanOption
from intertie.api.imagestore.v1.images_pb2 import Image
from intertie.api.metasched.v1.sites_pb2 import KnownSite
from intertie.api.types.v1.price_pb2 import Price
from intertie.api.types.v1.refund_pb2 import Refund
from intertie.api.types.v1.snapshot_pb2 import Snapshot
from intertie.cli.failures import shortfall_table
from intertie.cli.guarantees import guarantees
from intertie.cli.tables import BAD, GOOD, WAITING, moment, table
from intertie.cli.terminal import styled
from intertie.cli.ways import known_ways, said_of_ways, ways
from intertie.client.spans import format_span
from intertie.common.room_words import give_way
from intertie.common.rpc.shortfalls_proto import shortfall_from_proto

_CLUSTER_STYLES = {Cluster.ACTIVE: GOOD, Cluster.FAILED: BAD, Cluster.REJECTED: BAD}
_WORKSPACE_STYLES = {Workspace.RUNNING: GOOD, Workspace.FAILED: BAD}
WAITING_STATES = (Cluster.QUEUED, Cluster.SUSPENDED)
"""In which a cluster waits for room."""


def last(name: str) -> str:
    """The id at the end of a name."""
    return name.rpartition("/")[2]


def span(duration: Duration) -> str:
    return format_span(duration.seconds * 1_000_000_000 + duration.nanos)


def size(count: int) -> str:
    """Bytes as MiB, or GiB from ten of them on."""
    mib = count / (1 << 20)
    return f"{mib / 1024:.1f} GiB" if mib >= 10 * 1024 else f"{mib:.1f} MiB"


def cluster_state(cluster: Cluster) -> str:
    """With the word ENDING beside the state once the end is asked for."""
    name = Cluster.State.Name(cluster.state)
    ending = cluster.HasField("end_requested_time") and not _is_over(cluster)
    return f"{name}, ending" if ending else name


def _is_over(cluster: Cluster) -> bool:
    return cluster.state in (
        Cluster.ENDED,
        Cluster.REJECTED,
        Cluster.CANCELLED,
        Cluster.FAILED,
    )


def readiness(cluster: Cluster) -> str:
    ready = sum(each.ready for each in cluster.workspaces)
    return f"{ready}/{len(cluster.workspaces)}"


def clusters(found: Iterable[Cluster]) -> RenderableType:
    made = table("NAME", "STATE", "READY", "SITES", "UNTIL")
    for each in found:
        sites = sorted({workspace.site for workspace in each.workspaces})
        made.add_row(
            styled(last(each.name)),
            styled(cluster_state(each), _CLUSTER_STYLES.get(each.state, "")),
            readiness(each),
            styled(", ".join(sites)),
            moment(each.window.end_time),
        )
    return made


def cluster(shown: Cluster, now: datetime) -> RenderableType:
    head = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    head.add_column(style="bold")
    head.add_column(overflow="fold")
    head.add_row("name", styled(shown.name))
    head.add_row("state", styled(cluster_state(shown), _CLUSTER_STYLES.get(shown.state, "")))
    if shown.HasField("failure"):
        head.add_row("failure", styled(f"{shown.failure.reason}: {shown.failure.message}", BAD))
    if shown.HasField("window"):
        window = f"{moment(shown.window.start_time)} to {moment(shown.window.end_time)}"
        head.add_row("window", window)
    if shown.state in WAITING_STATES:
        start = moment(shown.plan.start_time)
        if start:
            head.add_row("starts", f"{start}, as things stand")
        for reason in shown.plan.reasons:
            head.add_row("waits", styled(reason, WAITING))
    if shown.spec.lease.HasField("deadline"):
        head.add_row("deadline", moment(shown.spec.lease.deadline))
    if shown.HasField("run_time") and (shown.run_time.seconds or shown.run_time.nanos):
        head.add_row("ran", span(shown.run_time))
    if shown.terms:
        head.add_row("terms", f"number {shown.terms}; it was made with 0")
    head.add_row("owner", styled(shown.owner))
    if shown.HasField("price"):
        head.add_row("price", f"{shown.price.amount:.4f}")
        for said in _rooms(shown.price):
            head.add_row("", styled(said))
    if shown.HasField("refund"):
        head.add_row("refund", styled(f"{shown.refund.amount:.4f}", WAITING))
    pieces: list[RenderableType] = [head]
    if shown.workspaces:
        pieces += [Text(), workspaces(shown.workspaces)]
    if waiting := [each for each in shown.workspaces if each.pending]:
        pieces += [Text(), pending(waiting)]
    if imaged := [each for each in shown.workspaces if each.HasField("snapshot")]:
        pieces += [Text(), snapshots(imaged)]
    if shown.guarantees:
        pieces += [Text(), guarantees(shown.guarantees, now)]
    if known_ways(shown.plan):
        pieces += [Text(), ways(shown.plan)]
    if shown.state in WAITING_STATES and shown.plan.shortfalls:
        pieces += [Text(), shortfall_table(map(shortfall_from_proto, shown.plan.shortfalls))]
    if len(shown.price.terms) > 1:
        pieces += [Text(), price(shown.price)]
    if shown.refund.items:
        pieces += [Text(), refund(shown.refund)]
    if shown.failure.shortfalls:
        pieces += [Text(), shortfall_table(map(shortfall_from_proto, shown.failure.shortfalls))]
    return Group(*pieces)


def price(shown: Price) -> Table:
    """Term by term."""
    made = table("PRICE OF", "FROM", "TO", "KIND", "AMOUNT", right=("AMOUNT",))
    for each in shown.terms:
        made.add_row(
            styled(each.site),
            moment(each.window.start_time),
            moment(each.window.end_time),
            styled(each.kind or "planned"),
            f"{each.amount:.4f}",
        )
    return made


def refund(shown: Refund) -> Table:
    """Item by item, with the promise that was not kept."""
    made = table("REFUND OF", "FOR", "FROM", "TO", "PROMISED", "MEASURED", "AMOUNT",
                 right=("PROMISED", "MEASURED", "AMOUNT"))  # fmt: skip
    kinds: dict[int, str] = {number: name for name, number in Guarantee.Kind.items()}
    for each in shown.items:
        subject = " ".join(filter(None, (getattr(each, "from"), "to" * bool(each.to), each.to)))
        kind = kinds.get(each.kind, "")
        made.add_row(
            styled(each.site),
            styled(f"{kind} {subject}" if each.kind else each.reason),
            moment(each.window.start_time),
            moment(each.window.end_time),
            str(each.promised) if each.kind else "",
            f"{each.measured:.1f}" if each.kind else "",
            f"{each.amount:.4f}",
        )
    return made


def changes(shown: Cluster, said: dict[str, str]) -> list[str]:
    """A line for whatever differs from what was said before; `said` is brought up to date."""
    now = {"cluster": f"{cluster_state(shown)}, {readiness(shown)} ready"}
    if shown.state in WAITING_STATES:
        now["cluster"] = queue_line(shown)
    for each in shown.workspaces:
        ready = ", ready" if each.ready else ""
        place = f"{each.site}/{last(each.host)}"
        now[last(each.name)] = f"{place:<12} {workspace_state(each)}{ready}"
    now |= {where: text for where, text, lost in said_of_ways(shown.plan) if lost or where in said}
    lines = [f"{name:<12} {text}" for name, text in now.items() if said.get(name) != text]
    said.update(now)
    return lines


def queue_line(shown: Cluster) -> str:
    """What one that waits waits for."""
    start = moment(shown.plan.start_time)
    when = f"; starts at {start} as things stand" if start else ""
    return f"{cluster_state(shown)}: {', '.join(shown.plan.reasons)}{when}"


def workspaces(found: Iterable[Workspace]) -> Table:
    made = table("WORKSPACE", "SITE", "HOST", "ADDRESS", "STATE", "READY")
    for each in found:
        made.add_row(
            styled(last(each.name)),
            styled(each.site),
            styled(last(each.host)),
            styled(", ".join(address.address for address in each.addresses)),
            workspace_state(each),
            styled("yes", GOOD) if each.ready else styled("no", WAITING),
        )
    return made


def pending(found: Iterable[Workspace]) -> Table:
    """What is not in force yet of their terms."""
    made = table("WORKSPACE", "NOT IN FORCE YET")
    for each in found:
        made.add_row(styled(last(each.name)), styled(each.pending, WAITING))
    return made


def workspace_state(shown: Workspace) -> Text:
    name = Workspace.State.Name(shown.state)
    style = _WORKSPACE_STYLES.get(shown.state, WAITING)
    return styled(f"{name}: {shown.message}" if shown.message else name, style)


def plan(shown: Plan, at: Price | None = None) -> RenderableType:
    parts = table("SITE", "WORKSPACES", "COST", right=("COST",))
    for part in shown.parts:
        parts.add_row(styled(part.site), styled(_counts(part)), f"{part.cost:.4f}")
    pieces: list[RenderableType] = [parts]
    if shown.links:
        links = table("LINK FROM", "TO", "RESERVED", "LATENCY", right=("RESERVED", "LATENCY"))
        for link in shown.links:
            links.add_row(
                styled(link.from_site),
                styled(link.to_site),
                f"{link.mbit_s} Mbit/s",
                span(link.latency),
            )
        pieces += [Text(), links]
    pieces += [Text(), styled(_plan_in_a_line(shown))]
    pieces += [styled(f"  - {said}") for said in _rooms(at)] if at is not None else []
    pieces += [styled(f"  - {reason}") for reason in shown.reasons]
    if shown.shortfalls:
        pieces += [Text(), shortfall_table(map(shortfall_from_proto, shown.shortfalls))]
    return Group(*pieces)


def options(found: Sequence[PlanOption]) -> RenderableType:
    made = table("BEST AS", "STARTS", "WORKSPACES", "PRICE", "TOKEN", right=("PRICE",))
    for each in found:
        made.add_row(
            _merits(each),
            moment(each.plan.start_time) or "at once",
            styled("; ".join(f"{part.site}: {_counts(part)}" for part in each.plan.parts)),
            f"{each.price.amount:.4f}",
            styled(each.token),
        )
    pieces: list[RenderableType] = [made, Text()]
    for each in found:
        if each.gives_way:
            short = "; ".join(str(shortfall_from_proto(one)) for one in each.gives_way)
            pieces.append(styled(f"{_merits(each)}: leases that wait give way ({short})"))
        pieces += [styled(f"{_merits(each)}: {said}") for said in _rooms(each.price)]
    until = {moment(each.accept_before) for each in found if each.token}
    if until:
        pieces.append(
            styled(
                f"Nothing is held. Until {min(until)}: intertie cluster create -f FILE --plan TOKEN"
            )
        )
    return Group(*pieces)


def _rooms(shown: Price) -> list[str]:
    """What of it is for leases that give way, at which site."""
    return [
        give_way(vcpus=room.vcpus, memory_mib=room.memory_mib, site=each.site, amount=room.amount)
        for each in shown.terms
        if each.HasField("room_made")
        for room in (each.room_made,)
    ]


def _merits(option: PlanOption) -> str:
    names = (PlanOption.Merit.Name(each) for each in option.merits)
    return ", ".join(each.lower().replace("_", " ") for each in names)


def _counts(part: PlannedPart) -> str:
    return ", ".join(f"{count} {group}" for group, count in sorted(part.counts.items()))


def _plan_in_a_line(shown: Plan) -> str:
    start = moment(shown.start_time)
    best = "no better plan exists" if shown.optimal else "a better plan may exist"
    return f"Starts {start or 'at once'}, costs {shown.cost:.4f}; {best}."


def sites(found: Iterable[KnownSite]) -> RenderableType:
    made = table("SITE", "HOSTS", "VCPUS", "MEMORY", "DISK", "IOPS", "LINKS")
    for known in found:
        site = known.site
        if not known.reachable:
            made.add_row(styled(last(site.name)), styled(f"unreachable: {known.message}", BAD))
            continue
        links = [
            f"{link.peer} {link.free_egress_mbit_s}/{link.egress_mbit_s} Mbit/s out,"
            f" {link.free_ingress_mbit_s}/{link.ingress_mbit_s} in, {span(link.latency)}"
            for link in site.links
        ]
        made.add_row(
            styled(last(site.name)),
            f"{site.hosts_alive}/{site.hosts}",
            f"{site.free.vcpus}/{site.capacity.vcpus}",
            f"{site.free.memory_mib}/{site.capacity.memory_mib} MiB",
            f"{site.free.disk_mib}/{site.capacity.disk_mib} MiB",
            f"{site.free.iops}/{site.capacity.iops}",
            styled("; ".join(links)),
        )
    made.caption = "Amounts are free/total."
    made.caption_justify = "left"
    return made


def hosts(found: Iterable[Host]) -> RenderableType:
    made = table(
        "HOST", "ALIVE", "ROLE", "VCPUS", "MEMORY", "DISK", "IOPS", "UPLINK", "GUESTS", "MISSING"
    )
    for host in found:
        name = host.name.split("/")
        made.add_row(
            styled("/".join(name[1::2])),
            _alive(host),
            "gateway" if host.gateway else "",
            f"{host.free.vcpus}/{host.capacity.vcpus}",
            f"{host.free.memory_mib}/{host.capacity.memory_mib} MiB",
            f"{host.free.disk_mib}/{host.capacity.disk_mib} MiB",
            f"{host.free.iops}/{host.capacity.iops}",
            f"{host.free.uplink_mbit_s}/{host.capacity.uplink_mbit_s} Mbit/s",
            str(host.workspaces),
            styled("; ".join((*_why_not_up(host), *host.missing)), WAITING),
        )
    made.caption = "Amounts are free/total."
    made.caption_justify = "left"
    return made


_UP = (Host.STATE_UNSPECIFIED, Host.UP)


def _alive(host: Host) -> Text:
    """One that its site has given up is that, whatever it says of itself."""
    if host.state not in _UP:
        return styled(Host.State.Name(host.state).lower(), BAD)
    return styled("yes", GOOD) if host.alive else styled("no", BAD)


def _why_not_up(host: Host) -> tuple[str, ...]:
    if host.state in _UP or not host.state_message:
        return ()
    return (f"since {moment(host.state_time)}: {host.state_message}",)


def images(found: Iterable[tuple[str, Image]]) -> RenderableType:
    """Each with the endpoint that it was found at."""
    shown = list(found)
    made = table("SITE", "NAME", "STATE", "SIZE", "DISK", "DIGEST", right=("SIZE", "DISK"))
    told = any(image.HasField("source") for _, image in shown)
    if told:
        made.add_column("OF")
        made.add_column("TAKEN")
    for site, image in shown:
        state = Image.State.Name(image.state)
        if image.state == Image.UPLOADING:
            state += f" {size(image.uploaded_bytes)}"
        made.add_row(
            styled(site),
            styled(last(image.name)),
            styled(state, GOOD if image.state == Image.READY else WAITING),
            size(image.size_bytes),
            size(image.virtual_size_bytes),
            styled(image.digest),
            *(_source(image) if told else ()),
        )
    return made


def _source(image: Image) -> tuple[Text, str]:
    """Which workspace's disk it is, and when; empty of one that was put."""
    if not image.HasField("source"):
        return Text(), ""
    source = image.source
    return styled(f"{last(source.cluster)}/{source.workspace}"), moment(source.taken_time)


def snapshots(shown: Iterable[Workspace]) -> Table:
    """How far each is; why there is none."""
    made = table("SNAPSHOT OF", "IMAGE", "STATE", "TAKEN", "SENT", "WHY", right=("SENT",))
    styles = {Snapshot.READY: GOOD, Snapshot.FAILED: BAD}
    for each in shown:
        one = each.snapshot
        made.add_row(
            styled(last(each.name)),
            styled(last(one.image)),
            styled(Snapshot.State.Name(one.state), styles.get(one.state, WAITING)),
            moment(one.taken_time) if one.HasField("taken_time") else "",
            size(one.done_bytes) if one.state == Snapshot.UPLOADING else "",
            styled(one.message),
        )
    return made
