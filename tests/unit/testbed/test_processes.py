from __future__ import annotations

import pytest

from testbed.component import Inside
from testbed.processes import ProcessRecord, parse_stat

TAIL = "1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 55012 2441216 220"
THREE_THREADS = "1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 3 0 55012 2441216 220"


@pytest.mark.parametrize("name", ["sleep", "a) Z (b", "two words"])
@pytest.mark.parametrize(("state", "runs"), [("S", True), ("T", True), ("Z", False), ("X", False)])
def test_stat_is_read_whatever_the_process_is_called(name: str, state: str, runs: bool) -> None:
    assert parse_stat(f"7 ({name}) {state} {TAIL}") == (55012, runs)


def test_a_killed_process_is_not_gone_while_a_thread_of_it_still_has_its_ports() -> None:
    assert parse_stat(f"7 (etcd) Z {THREE_THREADS}") == (55012, True)


def test_a_record_of_another_boot_is_not_alive_even_if_the_pid_is() -> None:
    record = ProcessRecord(pid=1, start_time=0, boot_id="another", argv=("init",))
    assert not record.alive()


def test_the_command_follows_what_enters_the_namespace() -> None:
    wrapped = Inside(netns="it-demo-meta").wrap(("ls", "-l"))
    assert wrapped == ("nsenter", "--net=/run/netns/it-demo-meta", "--", "ls", "-l")
