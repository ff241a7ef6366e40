"""For every test."""

from __future__ import annotations

import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hosts",
        choices=("with", "without", "only"),
        default="with",
        help="tests that need hosts of the testbed or guests (marked root or e2e): they want the"
        " machine to themselves, all others may run several at a time",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--hosts")
    if wanted == "with":
        return
    kept: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        with_hosts = any(map(item.get_closest_marker, ("root", "e2e")))
        (kept if with_hosts == (wanted == "only") else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = kept


def pytest_configure(config: pytest.Config) -> None:
    """A shell that runs the tests in the background has them ignore SIGINT, and so all that they
    start, which is interrupted by some of them."""
    del config
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
