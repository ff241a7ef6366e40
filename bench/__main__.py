"""Figures against floors and promises of the same run: `python -m bench [--quick] [NAME ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from bench import (
    admission,
    batches,
    capacity,
    coalloc,
    control,
    coordination,
    deploy,
    explain,
    guarantees,
    idle,
    responsiveness,
    retention,
    trace,
    vne,
)

BENCHES: dict[str, Callable[[bool], None]] = {
    "admission": admission.run,
    "batches": batches.run,
    "calendar": capacity.run,
    "coalloc": coalloc.run,
    "control": control.run,
    "coordination": coordination.run,
    "deploy": deploy.run,
    "explain": explain.run,
    "guarantees": guarantees.run,
    "idle": idle.run,
    "responsiveness": responsiveness.run,
    "retention": retention.run,
    "trace": trace.run,
    "vne": vne.run,
}

OWN: dict[str, Callable[[Sequence[str]], None]] = {
    "batches": batches.main,
    "coalloc": coalloc.main,
    "explain": explain.main,
    "responsiveness": responsiveness.main,
    "trace": trace.main,
    "vne": vne.main,
}
"""With options of their own."""


def main() -> None:
    """Runs those that are named, or all. Some have options of their own."""
    if sys.argv[1:2] and (own := OWN.get(sys.argv[1])) is not None:
        own(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, the same figures")
    arguments = parser.parse_args()
    for name in arguments.names or BENCHES:
        BENCHES[name](arguments.quick)


if __name__ == "__main__":
    main()
