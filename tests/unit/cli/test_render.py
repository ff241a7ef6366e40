"""Tables as text: golden files in tests/golden/cli. INTERTIE_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import io
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.text_format import Parse
from rich.console import Console, RenderableType

from intertie.api.broker.v1.site_pb2 import Host
from intertie.api.cluster.v1.cluster_pb2 import Cluster, Plan, Workspace
from intertie.api.cluster.v1.clusters_pb2 import PlanClusterResponse, PlanOption
from intertie.api.imagestore.v1.images_pb2 import Image
from intertie.api.metasched.v1.sites_pb2 import KnownSite
from intertie.api.types.v1.price_pb2 import Price, PriceTerm
from intertie.cli import render
from intertie.cli.failures import shortfall_table
from intertie.cli.tables import moment
from intertie.cli.terminal import shown
from intertie.cli.waiting import Bars, Lines, display, staged
from intertie.common.errors import Shortfall

NOW = datetime.fromtimestamp(1_800_000_300, tz=UTC)
GOLDEN = Path(__file__).parents[2] / "golden" / "cli"

CLUSTER = Parse(
    """
    name: "metascheds/meta/tenants/demo/clusters/two-sites"
    state: SCHEDULED
    owner: "spiffe://meta.meta.intertie/tenant/demo/user/alice"
    window { start_time { seconds: 1800000000 } end_time { seconds: 1800003600 } }
    workspaces {
      name: "x/workspaces/head-0" site: "north" host: "n1" state: RUNNING ready: true
      addresses { network: "lan" address: "10.1.0.10/24" }
      staging_done_bytes: 1048576 staging_total_bytes: 1048576 image_digest: "b3:1"
    }
    workspaces {
      name: "x/workspaces/worker-0" site: "south" host: "s1" state: STAGING
      addresses { network: "lan" address: "10.1.0.11/24" }
      staging_done_bytes: 524288 staging_total_bytes: 1048576 image_digest: "b3:1"
    }
    workspaces {
      name: "x/workspaces/worker-1" site: "south" host: "s1"
      state: FAILED message: "no\\x1b[2J disk"
      staging_done_bytes: 524288 staging_total_bytes: 1048576 image_digest: "b3:1"
    }
    guarantees {
      kind: PAIR_BANDWIDTH from: "head-0" to: "worker-0" network: "lan"
      guarantee: 20 cap: 40 unit: "Mbit/s"
      measured {
        from: "head-0" to: "worker-0" value: 12.34 backlogged: true
        measured_time { seconds: 1800000295 } below_since { seconds: 1800000120 }
      }
      measured { from: "worker-0" to: "head-0" value: 0.04 measured_time { seconds: 1800000299 } }
    }
    guarantees {
      kind: NIC_BANDWIDTH from: "head-0" network: "lan" guarantee: 5 unit: "Mbit/s"
      measured { from: "head-0" value: 0 measured_time { seconds: 1800000000 } }
      measured { to: "head-0" value: 5.04 measured_time { seconds: 1800000299 } }
    }
    guarantees {
      kind: DISK_IOPS from: "head-0" guarantee: 150 cap: 200 unit: "1/s"
      measured {
        from: "head-0" value: 199.6 backlogged: true measured_time { seconds: 1800000299 }
      }
    }
    guarantees { kind: DISK_THROUGHPUT from: "worker-1" guarantee: 10 cap: 20 unit: "MiB/s" }
    guarantees {
      kind: LINK_BANDWIDTH from: "north" to: "south" network: "lan"
      guarantee: 20 unit: "Mbit/s"
      measured { from: "north" to: "south" value: 19.96 measured_time { seconds: 1800000299 } }
    }
    """,
    Cluster(),
)
AMENDED = Parse(
    """
    name: "sites/north/tenants/demo/clusters/one"
    state: ACTIVE terms: 2
    owner: "spiffe://north.site.intertie/tenant/demo/user/alice"
    window { start_time { seconds: 1800000000 } end_time { seconds: 1800007200 } }
    workspaces {
      name: "x/workspaces/head-0" site: "north" host: "n1" state: RUNNING ready: true
      addresses { network: "lan" address: "10.1.0.10/24" }
      pending: "512 MiB of memory instead of 128, at its next start"
    }
    workspaces { name: "x/workspaces/worker-0" site: "north" host: "n2" state: PLANNED }
    price {
      amount: 0.75
      terms {
        site: "north" kind: "immediate" amount: 0.25
        window { start_time { seconds: 1800000000 } end_time { seconds: 1800003600 } }
      }
      terms {
        site: "north" kind: "immediate" amount: 0.5
        window { start_time { seconds: 1800003600 } end_time { seconds: 1800007200 } }
      }
    }
    refund {
      amount: 0.2625
      items {
        site: "north" reason: "GUARANTEE" kind: 3 from: "head-0" amount: 0.0125
        promised: 300 measured: 101.25
        window { start_time { seconds: 1800000600 } end_time { seconds: 1800000900 } }
      }
      items {
        site: "north" reason: "GUARANTEE" kind: 1 from: "head-0" to: "worker-0" network: "lan"
        promised: 20 measured: 11.5
        window { start_time { seconds: 1800000600 } end_time { seconds: 1800000900 } }
      }
      items {
        site: "north" reason: "WORKSPACE_FAILED" amount: 0.25
        window { start_time { seconds: 1800005400 } end_time { seconds: 1800007200 } }
      }
    }
    """,
    Cluster(),
)
OPTIONS = Parse(
    """
    options {
      merits: EARLIEST merits: MOST_LOCAL
      plan {
        start_time { seconds: 1800000000 }
        parts { site: "north" counts { key: "head" value: 1 } counts { key: "worker" value: 3 } }
      }
      price { amount: 0.5 }
      gives_way {
        site: "north" resource: "vcpus" wanted: 4 available: 1 unit: "vCPU"
      }
      token: "00112233445566778899aabbccddeeff" accept_before { seconds: 1800000300 }
    }
    options {
      merits: CHEAPEST merits: MOST_RELIABLE
      plan {
        start_time { seconds: 1800003600 }
        parts { site: "north" counts { key: "head" value: 1 } counts { key: "worker" value: 1 } }
        parts { site: "south" counts { key: "worker" value: 2 } }
      }
      price { amount: 0.25 }
      token: "ffeeddccbbaa99887766554433221100" accept_before { seconds: 1800000300 }
    }
    """,
    PlanClusterResponse(),
)
PLAN = Parse(
    """
    start_time { seconds: 1800000000 } cost: 0.1234 optimal: true
    parts {
      site: "north" cost: 0.05
      counts { key: "worker" value: 1 } counts { key: "head" value: 1 }
    }
    parts { site: "south" counts { key: "worker" value: 2 } cost: 0.0734 }
    links { from_site: "north" to_site: "south" mbit_s: 40 latency { nanos: 5000000 } }
    reasons: "worker asks for 2 sites"
    """,
    Plan(),
)
LINKED = Parse(
    """
    name: "metascheds/meta/tenants/demo/clusters/two-sites"
    state: ACTIVE
    plan {
      links {
        from_site: "east" to_site: "north" lost_since { seconds: 1800000120 }
      }
      links {
        from_site: "north" to_site: "south" mbit_s: 40 latency { nanos: 20000000 }
        round_trip { nanos: 41234567 }
      }
      links {
        from_site: "south" to_site: "north" mbit_s: 40 latency { nanos: 20000000 }
        round_trip { nanos: 41334567 }
      }
      links {
        from_site: "south" to_site: "west" mbit_s: 40 latency { nanos: 5000000 }
        lost_since { seconds: 1800000120 }
      }
      links { from_site: "west" to_site: "north" mbit_s: 40 latency { nanos: 5000000 } }
    }
    """,
    Cluster(),
)
SITES = [
    Parse(
        """
        reachable: true
        site {
          name: "sites/north" hosts: 2 hosts_alive: 1
          capacity { vcpus: 32 memory_mib: 3584 disk_mib: 16384 iops: 4000 }
          free { vcpus: 30 memory_mib: 3328 disk_mib: 15872 iops: 3600 }
          links {
            peer: "south" egress_mbit_s: 200 ingress_mbit_s: 200
            free_egress_mbit_s: 160 free_ingress_mbit_s: 200 latency { nanos: 5000000 }
          }
        }
        """,
        KnownSite(),
    ),
    Parse('site { name: "sites/south" } message: "no answer"', KnownSite()),
]
HOST = Parse(
    """
    name: "sites/north/hosts/n1" alive: true gateway: true workspaces: 2
    capacity { vcpus: 16 memory_mib: 1792 disk_mib: 8192 iops: 2000 uplink_mbit_s: 400 }
    free { vcpus: 14 memory_mib: 1536 disk_mib: 7680 iops: 1600 uplink_mbit_s: 340 }
    missing: "no KVM"
    """,
    Host(),
)
IMAGE = Parse(
    'name: "sites/north/tenants/demo/images/guest" digest: "b3:ab" state: READY'
    " size_bytes: 17863168 virtual_size_bytes: 67108864",
    Image(),
)
SNAPSHOT = Parse(
    'name: "sites/north/tenants/demo/images/before" digest: "b3:cd" state: READY'
    " size_bytes: 109379584 virtual_size_bytes: 536870912"
    ' source { cluster: "sites/north/tenants/demo/clusters/c" workspace: "worker-0"'
    " taken_time { seconds: 1800000000 } }",
    Image(),
)
IMAGED = Parse(
    'name: "sites/north/tenants/demo/clusters/c" state: ACTIVE owner: "alice"'
    ' workspaces { name: "x/workspaces/worker-0" site: "north" host: "n1" state: RUNNING'
    ' snapshot { image: "x/images/before" state: READY taken_time { seconds: 1800000000 } } }'
    ' workspaces { name: "x/workspaces/worker-1" site: "north" host: "n1" state: RUNNING'
    ' snapshot { image: "x/images/other" state: FAILED message: "the pool is full" } }',
    Cluster(),
)
SHORT = (
    Shortfall(site="south", host="s1", group="worker", resource="memory", wanted=4096,
              available=1792, unit="MiB"),
    Shortfall(site="north", peer="south", resource="link_egress", wanted=300, available=200,
              unit="Mbit/s"),
    Shortfall(site="south", resource="image", message="image nosuch is not there"),
)  # fmt: skip


def text_of(renderable: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=140, highlight=False, markup=False).print(renderable)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("name", "renderable"),
    [
        ("clusters", render.clusters([CLUSTER])),
        ("cluster", render.cluster(CLUSTER, NOW)),
        ("amended", render.cluster(AMENDED, NOW)),
        ("linked", render.cluster(LINKED, NOW)),
        ("plan", render.plan(PLAN)),
        ("options", render.options(OPTIONS.options)),
        ("sites", render.sites(SITES)),
        ("hosts", render.hosts([HOST])),
        ("images", render.images([("north", IMAGE)])),
        ("images-made", render.images([("north", IMAGE), ("north", SNAPSHOT)])),
        ("snapshots", render.cluster(IMAGED, NOW)),
        ("shortfalls", shortfall_table(SHORT)),
    ],
)
def test_a_table_reads_as_its_golden_file(name: str, renderable: RenderableType) -> None:
    path = GOLDEN / f"{name}.txt"
    text = text_of(renderable)
    if os.environ.get("INTERTIE_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_a_deadline_is_shown() -> None:
    by = Cluster()
    by.CopyFrom(CLUSTER)
    assert "deadline" not in text_of(render.cluster(by, NOW))
    by.spec.lease.deadline.FromSeconds(1_800_007_200)
    assert f"deadline  {moment(by.spec.lease.deadline)}" in text_of(render.cluster(by, NOW))


SAID = "2 vCPUs of best-effort leases at south give way: +3.20"


def test_what_of_a_price_is_for_those_who_give_way_is_shown_wherever_a_price_is() -> None:
    price = Price(amount=7.2, terms=[PriceTerm(site="south", amount=7.2)])
    made = Cluster(name="c", price=price)
    option = PlanOption(merits=[PlanOption.CHEAPEST], price=price)

    def told() -> list[str]:
        shown = (
            render.cluster(made, NOW),
            render.plan(PLAN, made.price),
            render.options([option]),
        )
        return [text_of(each) for each in shown]

    assert not any("give way" in each for each in told())
    room = made.price.terms[0].room_made
    room.vcpus, room.amount = 2, 3.2
    option.price.CopyFrom(made.price)
    cluster, plan, options = told()
    assert f"price  7.2000\n       {SAID}" in cluster
    assert f"  - {SAID}" in plan
    assert f"cheapest: {SAID}" in options


def test_what_others_say_cannot_drive_the_terminal() -> None:
    assert shown("a\x1b[2Jb\rc\nd") == "a?[2Jb?c\nd"
    assert "\x1b" not in text_of(render.cluster(CLUSTER, NOW))


def test_guests_of_one_image_on_one_host_share_its_bytes() -> None:
    mib = 1024 * 1024
    assert staged(CLUSTER.workspaces) == (mib + mib // 2, 2 * mib)


def test_without_a_terminal_every_change_is_a_line_and_said_once() -> None:
    out = io.StringIO()
    notes = Console(file=out, width=140)
    again = Cluster()
    again.CopyFrom(CLUSTER)
    again.workspaces[1].state = Workspace.RUNNING
    with Lines(notes) as lines:
        for cluster in (CLUSTER, CLUSTER, again):
            lines.update(cluster)
    assert out.getvalue().splitlines() == [
        "head-0       north/n1     ready",
        "worker-0     south/s1     staging",
        "worker-1     south/s1     failed: no?[2J disk",
        "worker-0     south/s1     booting",
    ]
    again.end_requested_time.FromSeconds(1)
    again.workspaces[0].state = Workspace.ENDED
    with Lines(notes) as lines:
        lines.update(again)
    assert out.getvalue().splitlines()[4:6] == [
        "head-0       north/n1     ended",
        "worker-0     south/s1     being taken back",
    ]


def terminal(out: io.StringIO, kind: str = "xterm") -> Console:
    settings = {"TERM": kind}
    return Console(file=out, width=100, force_terminal=True, color_system=None, _environ=settings)


def bars_of(*clusters: Cluster) -> list[str]:
    """The lines that a terminal without colours shows last, without their blanks; each piece of a
    bar is a dash."""
    out = io.StringIO()
    with display(terminal(out)) as bars:
        assert isinstance(bars, Bars)
        for cluster in clusters:
            bars.update(cluster)
    drawn = out.getvalue()
    # Each drawing but the first begins by wiping out the lines of the one before.
    frames = [frame for frame in re.split(r"(?:\x1b\[1A|\x1b\[2K|\r)+", drawn) if frame.strip()]
    last = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", frames[-1])
    return [" ".join(line.replace("━", "-").split()) for line in last.splitlines() if line]


def test_on_a_terminal_there_are_bars_of_staging_and_of_every_workspace() -> None:
    later, over = Cluster(), Cluster()
    later.CopyFrom(CLUSTER)
    for workspace in later.workspaces[1:]:
        workspace.staging_done_bytes = workspace.staging_total_bytes
        workspace.state = Workspace.RUNNING
    later.workspaces[2].ready = True
    over.CopyFrom(later)
    over.end_requested_time.FromSeconds(1)
    over.workspaces[0].state = Workspace.ENDED
    whole, most = "-" * 24, "-" * 18
    assert bars_of(CLUSTER) == [
        f"staging {most} 1.5 MiB of 2.0 MiB",
        f"head-0 {whole} north/n1 ready",
        "worker-0 ------ south/s1 staging",
        "worker-1 south/s1 failed: no?[2J disk",
    ]
    assert bars_of(CLUSTER, later) == [
        f"staging {whole} 2.0 MiB of 2.0 MiB",
        f"head-0 {whole} north/n1 ready",
        f"worker-0 {most} south/s1 booting",
        f"worker-1 {whole} south/s1 ready",
    ]
    assert bars_of(over) == [
        f"head-0 {whole} north/n1 ended",
        "worker-0 south/s1 being taken back",
        "worker-1 south/s1 being taken back",
    ]


def test_where_nothing_can_be_wiped_out_again_there_are_lines() -> None:
    """The bug: on a terminal that says it is dumb, nothing was shown at all."""
    assert isinstance(display(Console(file=io.StringIO())), Lines)
    dumb = io.StringIO()
    with display(terminal(dumb, "dumb")) as lines:
        lines.update(CLUSTER)
    assert "worker-0     south/s1     staging" in dumb.getvalue()


def test_a_watch_says_what_has_changed_only() -> None:
    said: dict[str, str] = {}
    assert len(render.changes(CLUSTER, said)) == 4
    assert render.changes(CLUSTER, said) == []
    again = Cluster()
    again.CopyFrom(CLUSTER)
    again.end_requested_time.FromSeconds(1)
    assert render.changes(again, said) == ["cluster      SCHEDULED, ending, 1/3 ready"]


def test_a_watch_says_that_a_link_is_lost_and_that_it_is_there_again() -> None:
    said: dict[str, str] = {}
    render.changes(CLUSTER, said)
    linked = Cluster()
    linked.CopyFrom(CLUSTER)
    for ends in (("north", "south"), ("south", "north")):
        link = linked.plan.links.add(from_site=ends[0], to_site=ends[1])
        link.round_trip.FromMilliseconds(21)
    assert render.changes(linked, said) == [], "that it is there is no news"
    for link in linked.plan.links:
        link.lost_since.FromSeconds(1_800_000_120)
    lost = ["north, south link lost since 2027-01-15 08:02:00Z"]
    assert render.changes(linked, said) == lost
    assert render.changes(linked, said) == []
    for link in linked.plan.links:
        link.ClearField("lost_since")
        link.ClearField("round_trip")
    assert render.changes(linked, said) == [], "nobody knows"
    for link in linked.plan.links:
        link.round_trip.FromMilliseconds(21)
    assert render.changes(linked, said) == ["north, south link is there again"]
    assert render.changes(linked, said) == []


def test_a_host_that_was_given_up_is_shown_so_whatever_it_says_of_itself() -> None:
    lost = Host()
    lost.CopyFrom(HOST)
    lost.MergeFrom(
        Parse('state: FENCED state_message: "it is off" state_time { seconds: 1767225600 }', Host())
    )
    said = " ".join(text_of(render.hosts([lost])).split())
    assert "fenced" in said
    assert "yes" not in said
    assert "it is off" in said
