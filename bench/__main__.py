"""Figures against floors and promises of the same run: `python -m bench [--quick] [NAME ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bench import (
    admission,
    capacity,
    control,
    coordination,
    deploy,
    guarantees,
    idle,
    retention,
    trace,
)

BENCHES: dict[str, Callable[[bool], None]] = {
    "admission": admission.run,
    "calendar": capacity.run,
    "control": control.run,
    "coordination": coordination.run,
    "deploy": deploy.run,
    "guarantees": guarantees.run,
    "idle": idle.run,
    "retention": retention.run,
    "trace": trace.run,
}


def main() -> None:
    """Runs those that are named, or all. `trace` alone has options of its own."""
    if sys.argv[1:2] == ["trace"]:
        trace.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, the same figures")
    arguments = parser.parse_args()
    for name in arguments.names or BENCHES:
        BENCHES[name](arguments.quick)


if __name__ == "__main__":
    main()
