"""The demo: `python -m testbed.demo [--keep]`.

Two sites of two hosts and a meta-scheduler come up on this machine; one cluster over both is
asked for, looked at from inside, and deleted. All that is done to Intertie is done by its own
command, which is shown. Whatever happens, a signal included, everything is taken down again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from setup.guest_image import image_path
from testbed import bed as beds
from testbed.bed import Progress, Testbed
from testbed.commands import CommandFailed
from testbed.component import ComponentFailed
from testbed.demo_guests import Guests, GuestSilent
from testbed.demo_tables import (
    bandwidths,
    comparisons,
    differences,
    disks,
    measuring_order,
    pairs_of,
    ping_matrix,
    unanswered,
)
from testbed.interrupts import interrupt_once, undisturbed
from testbed.places import MARK
from testbed.preflight import MachineUnfit
from testbed.topology import default_topology

INTERTIE = Path(sys.executable).parent / "intertie"
EXAMPLE = Path("examples/two-sites.yaml")
CLUSTER = "two-sites"
IMAGE = "intertie-guest"
DEFAULT_INSTANCE = "demo"
SECONDS = 3
"""How long each measurement takes."""
AGAIN = 2
"""How often what was below its promise is measured again, alone: emulated guests share the cores of
this machine, and one that gets none cannot use what it was promised."""
INTERRUPTED = 130
CACHES = ("file agent/cache/", "file libvirt/")
"""What hosts keep on purpose: images for the next cluster, and libvirt's own files."""


class DemoFailed(RuntimeError):
    """A step went wrong; the message says which and why."""


@dataclass(slots=True, kw_only=True)
class Demo:
    """One run on one testbed."""

    bed: Testbed
    screen: Console
    keep: bool = False
    """The cluster stays, and the sites with it."""
    begun: float = field(default_factory=time.monotonic)
    problems: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.bed.places.run / "client.toml"

    @property
    def key(self) -> Path:
        return self.bed.places.run / "demo-key"

    @property
    def environment(self) -> dict[str, str]:
        """With the instance's mark, so that nothing that the demo started outlives it."""
        own = {"INTERTIE_CONFIG": str(self.config), MARK: self.bed.places.instance}
        return {**os.environ, **own}

    @property
    def guests(self) -> Guests:
        return Guests(
            cluster=CLUSTER, key=self.key, command=[str(INTERTIE)], environment=self.environment
        )

    def say(self, text: str, style: str = "") -> None:
        self.screen.print(Text(text, style))

    def show(self, table: Table) -> None:
        """A pipe gets no blanks at the ends of lines."""
        with self.screen.capture() as captured:
            self.screen.print(table)
        for line in captured.get().splitlines():
            self.screen.out(line if self.screen.is_terminal else line.rstrip(), highlight=False)

    def title(self, text: str) -> None:
        took_s = time.monotonic() - self.begun
        self.screen.print()
        self.screen.print(Text.assemble((text, "bold"), (f"  ({took_s:.0f} s)", "dim")))

    def intertie(self, *words: str) -> None:
        """Shows the command, runs it, shows what it says."""
        self.say(f"$ intertie {shlex.join(words)}", "cyan")
        done = subprocess.run([str(INTERTIE), *words], env=self.environment, check=False)
        if done.returncode:
            raise DemoFailed(f"`intertie {' '.join(words)}` ended with {done.returncode}")

    def ask(self, *words: str) -> Any:
        """The same for a program: nothing is shown."""
        argv = [str(INTERTIE), *words, "-o", "json"]
        done = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DemoFailed(f"`intertie {' '.join(words)}`: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def bars(self) -> Bars:
        return Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            console=self.screen,
            transient=True,
            disable=not self.screen.is_terminal,
        )

    def inventories(self) -> dict[str, list[str]]:
        """Of every host, without what it keeps on purpose."""
        hosts = [f"{site.name}/{host.name}" for site, host in self.bed.topology.hosts()]
        return {
            host: [line for line in self.bed.inventory(host) if not line.startswith(CACHES)]
            for host in hosts
        }

    # The steps

    def run(self) -> None:
        self.bring_up()
        self.look_at_sites()
        before, free_before = self.inventories(), self.free()
        self.create()
        names = self.look_at_cluster()
        self.ping(names)
        self.measure()
        if not self.keep:
            self.delete(before, free_before)

    def bring_up(self) -> None:
        self.title("Two sites of two hosts each and a meta-scheduler come up on this machine")
        with self.bars() as bars:
            task = bars.add_task("starting", total=None)

            def told(step: Progress) -> None:
                bars.update(task, description=step.step, completed=step.done, total=step.total)

            self.bed.up(told)
        kinds = Counter(name.rpartition("/")[2].partition("-")[0] for name in self.bed.components())
        self.say("Running: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
        make_key(self.key)

    def look_at_sites(self) -> None:
        self.title("The guest image is put into the store of each site")
        self.intertie("image", "put", IMAGE, str(image_path()))
        self.title("Sites and hosts, as the meta-scheduler sees them")
        self.intertie("site", "list")
        self.intertie("host", "list")

    def free(self) -> list[Any]:
        """What each host has left to promise, by Intertie's own account."""
        return [(host["name"], host["free"]) for host in self.ask("host", "list")]

    def create(self) -> None:
        self.title("What would go where, and why; nothing is taken yet")
        self.intertie("plan", "-f", str(EXAMPLE))
        self.title("The cluster: planned, held and committed at both sites, or at none")
        self.intertie("cluster", "create", "-f", str(EXAMPLE), "--ssh-key", f"{self.key}.pub")

    def look_at_cluster(self) -> list[str]:
        self.intertie("cluster", "show", CLUSTER)
        workspaces = self.ask("cluster", "show", CLUSTER)["workspaces"]
        return [each["name"].rpartition("/")[2] for each in workspaces]

    def ping(self, names: list[str]) -> None:
        self.title("Every guest pings every other by name, over the cluster's own network")
        with self.bars() as bars:
            task = bars.add_task("guests asked", total=len(names))
            trips = self.guests.ping_all(names, lambda: bars.advance(task))
        self.show(ping_matrix(names, trips))
        self.problems += [f"no answer to the ping from {each}" for each in unanswered(trips)]

    def measure(self) -> None:
        self.title("What was promised, and what guests measure")
        guarantees = self.ask("cluster", "show", CLUSTER)["guarantees"]
        pairs = pairs_of(guarantees)
        order = measuring_order(pairs)
        disk_owners = [each["from"] for each in guarantees if each["kind"] == "DISK_IOPS"]
        rates: dict[tuple[str, str], float] = {}
        with self.bars() as bars:
            task = bars.add_task("measured", total=len(order) + len(disk_owners))
            for source, peers in order.items():
                rates.update(self.guests.measure_bandwidth(source, peers, SECONDS))
                bars.advance(task)
            iops = self.guests.measure_iops(disk_owners, SECONDS, lambda: bars.advance(task))
        found = [*bandwidths(pairs, rates), *disks(guarantees, iops)]
        for _ in range(AGAIN):
            below = [each for each in found if not each.kept]
            if not below:
                break
            self.say(f"{len(below)} of {len(found)} below: measured again, one guest at a time")
            for each in below:
                if each.peer:
                    rates.update(self.guests.measure_bandwidth(each.owner, [each.peer], SECONDS))
                else:
                    iops.update(self.guests.measure_iops([each.owner], SECONDS, lambda: None))
            found = [*bandwidths(pairs, rates), *disks(guarantees, iops)]
        self.show(comparisons(found))
        self.problems += [
            f"{each.what} {each.where}: {each.promised:g} {each.unit} promised,"
            f" {each.measured:.1f} measured"
            for each in found
            if not each.kept
        ]

    def delete(self, before: dict[str, list[str]], free_before: list[Any]) -> None:
        self.title("The cluster is deleted, and nothing of it is left")
        self.intertie("cluster", "delete", CLUSTER)
        left = differences(before, self.inventories())
        if self.free() != free_before:
            left.append("the ledger: less is free than before the cluster")
        for line in left:
            self.say(line, "red")
        self.problems += left
        if not left:
            count = sum(map(len, before.values()))
            self.say(
                f"Domains, links, queues, filters and files of all {len(before)} hosts"
                f" ({count} lines) are as they were before; all is free again.",
                "green",
            )


def make_key(path: Path) -> None:
    """For this run only: it goes with the instance's folder."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


_FAILURES = (
    DemoFailed,
    GuestSilent,
    CommandFailed,
    ComponentFailed,
)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m testbed.demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave all of it up and say how to talk to it"
    )
    parser.add_argument(
        "--instance", default=DEFAULT_INSTANCE, help="name of the testbed's instance"
    )
    options = parser.parse_args(words)
    interrupt_once()
    os.chdir(Path(__file__).resolve().parent.parent)
    screen = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    bed = Testbed.create(default_topology(), options.instance)
    demo = Demo(bed=bed, screen=screen, keep=options.keep)
    try:
        code = _run(demo)
        keep = options.keep and code != INTERRUPTED
    except beds.InstanceExists as error:
        demo.say(f"demo: {error}\nTry: `make down` removes it.", "bold red")
        return 1
    except (beds.InstanceBusy, MachineUnfit) as error:
        demo.say(f"demo: {error}", "bold red")
        return 1
    except BaseException:
        _stop(demo, quietly=True)
        raise
    if keep:
        _say_how_to_talk_to_it(demo)
        return code
    return max(code, _stop(demo, quietly=code == INTERRUPTED))


def _run(demo: Demo) -> int:
    """The exit code. What leaves here was raised before anything was made."""
    try:
        demo.run()
    except KeyboardInterrupt:
        demo.say("\ninterrupted", "yellow")
        return INTERRUPTED
    except _FAILURES as error:
        demo.problems.append(str(error))
    for problem in demo.problems:
        demo.say(f"demo: {problem}", "bold red")
    return 1 if demo.problems else 0


def _stop(demo: Demo, *, quietly: bool) -> int:
    """Takes everything down; says so, and whether it is true."""
    if not quietly:
        demo.title("Both sites stop")
    with undisturbed():
        demo.bed.down()
        left = demo.bed.leftovers()
    for line in left:
        demo.say(f"demo: left: {line}", "bold red")
    if not left and not quietly:
        took_s = time.monotonic() - demo.begun
        demo.say(
            "No process, namespace, mount or file of it is left on this machine."
            f" The demo took {took_s:.0f} s.",
            "green",
        )
    return 1 if left else 0


def _say_how_to_talk_to_it(demo: Demo) -> None:
    instance = demo.bed.places.instance
    demo.title("Sites and cluster stay up. To talk to them:")
    demo.say(f"  export INTERTIE_CONFIG={demo.config} PATH={INTERTIE.parent}:$PATH")
    demo.say("  intertie cluster list")
    demo.say(f"  intertie cluster ssh {CLUSTER} head-0 -i {demo.key}")
    demo.say(f"  intertie cluster console {CLUSTER} head-0")
    demo.say(f"  intertie cluster delete {CLUSTER}")
    demo.say(
        "  make down"
        if instance == DEFAULT_INSTANCE
        else f"  python -m testbed down --instance {instance}"
    )


if __name__ == "__main__":
    sys.exit(main())
