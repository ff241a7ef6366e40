"""The command: `python -m testbed up`, `down`, `status` and so on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from testbed.bed import InstanceAbsent, InstanceBusy, InstanceExists, Progress, Testbed
from testbed.commands import CommandFailed
from testbed.component import ComponentFailed, environment_of
from testbed.interrupts import interrupt_once
from testbed.preflight import MachineUnfit
from testbed.sweep import known_instances
from testbed.topology import InvalidTopology, Topology, default_topology

_FAILURES = (
    CommandFailed,
    ComponentFailed,
    InstanceAbsent,
    InstanceBusy,
    InstanceExists,
    InvalidTopology,
    MachineUnfit,
)


def main(words: list[str] | None = None) -> int:
    options = command_line().parse_args(words)
    interrupt_once()
    act: Callable[[argparse.Namespace], int] = options.act
    try:
        return act(options)
    except _FAILURES as failure:
        print(f"testbed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("testbed: interrupted", file=sys.stderr)
        return 130


def _up(options: argparse.Namespace) -> int:
    topology = default_topology()
    if options.topology:
        with open(options.topology, encoding="utf-8") as file:
            topology = Topology.from_json(file.read())
    bed = Testbed.create(topology, options.instance)
    bed.up(_report, services=not options.no_services, keep_failed=options.keep_failed)
    print(f"export INTERTIE_CONFIG={bed.places.run / 'client.toml'}")
    return 0


def _report(progress: Progress) -> None:
    print(f"[{progress.done}/{progress.total}] {progress.step}", file=sys.stderr, flush=True)


def _down(options: argparse.Namespace) -> int:
    names = known_instances() if options.all else [options.instance]
    left = []
    for name in names:
        bed = Testbed.create(default_topology(), name)
        bed.down()
        left += bed.leftovers()
    for line in left:
        print(f"left: {line}", file=sys.stderr)
    return 1 if left else 0


def _status(options: argparse.Namespace) -> int:
    bed = Testbed.find(options.instance)
    for name, component in bed.components().items():
        print(f"{name:24} {component.pid or 'down'}")
    return 0


def _exec(options: argparse.Namespace) -> int:
    bed = Testbed.find(options.instance)
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    argv = bed.command(options.place, words or ["/bin/sh"])
    keep = {name: os.environ[name] for name in ("TERM",) if name in os.environ}
    os.execvpe(argv[0], argv, environment_of(bed.places) | keep)


def _signal(options: argparse.Namespace) -> int:
    component = Testbed.find(options.instance).component(options.component)
    acts = {
        "kill": component.kill9,
        "stop": component.stop,
        "cont": component.cont,
        "restart": component.restart,
    }
    acts[options.verb]()
    return 0


def _link(options: argparse.Namespace) -> int:
    """Between two sites, or a site and meta; a single SITE/HOST is that host's uplink."""
    bed = Testbed.find(options.instance)
    match options.verb, options.ends:
        case "cut", [host]:
            bed.cut_host_uplink(host)
        case "cut", [a, b]:
            bed.cut_link(a, b)
        case "slow", [host]:
            bed.slow_host_uplink(host, options.mbps)
        case "slow", [a, b]:
            bed.slow_link(a, b, options.mbps)
        case "heal", [host]:
            bed.heal_host_uplink(host)
        case "heal", [a, b]:
            bed.heal_link(a, b)
        case _, ends:
            raise InvalidTopology(
                f"a link has two ends, not {len(ends)}; SITE/HOST alone is that host's uplink"
            )
    return 0


def _mbps(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: from 1 Mbit/s up; `cut` lets nothing through")
    return number


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--instance", default="demo", help="name of the instance (demo)")
    verbs = parser.add_subparsers(required=True, dest="verb", metavar="VERB")

    def verb(
        name: str, act: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, parents=[shared], help=text, description=text)
        made.set_defaults(act=act)
        return made

    up = verb("up", _up, "bring an instance up; interrupted, it takes it down again")
    up.add_argument("--no-services", action="store_true", help="hosts, network and etcd only")
    up.add_argument(
        "--keep-failed", action="store_true", help="when a component fails, leave all for a look"
    )
    up.add_argument("--topology", metavar="FILE", help="JSON; two sites of two hosts without it")
    down = verb("down", _down, "remove everything of an instance, whatever became of its testbed")
    down.add_argument("--all", action="store_true", help="every instance found")
    verb("status", _status, "list the components with their pids")
    inside = verb("exec", _exec, "run a command inside a host, SITE/ctl, meta or fabric")
    inside.add_argument("place", metavar="SITE/HOST")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    for name, text in (
        ("kill", "SIGKILL"),
        ("stop", "SIGSTOP"),
        ("cont", "SIGCONT"),
        ("restart", "end and start again"),
    ):
        verb(name, _signal, f"a component: {text}").add_argument("component")
    for name, text in (
        ("cut", "drop all between two sites, or a site and meta; or to and from a host"),
        ("slow", "give such a link another capacity, each way"),
        ("heal", "back to the declared capacity, after cut and slow"),
    ):
        link = verb(name, _link, text)
        link.add_argument(
            "ends", nargs="+", metavar="END", help="two sites, or SITE/HOST for its uplink"
        )
        if name == "slow":
            link.add_argument("mbps", type=_mbps, metavar="MBPS", help="Mbit/s, 1 or more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
