"""Processes of an instance: pid files that survive the testbed, and finding those without one."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.places import MARK, NETNS, Places

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """What a pid file says: enough to know the process again after pids were reused."""

    pid: int
    start_time: int
    """Field 22 of /proc/PID/stat: clock ticks since boot."""
    boot_id: str
    argv: tuple[str, ...]

    def alive(self) -> bool:
        """The same process, and not a zombie."""
        if self.boot_id != _boot_id():
            return False
        found = _stat(self.pid)
        return found is not None and found == (self.start_time, True)

    def stopped(self) -> bool:
        """All of it, as by SIGSTOP."""
        threads = (_PROC / str(self.pid) / "task").glob("*/stat")
        try:
            return self.alive() and all(
                each.read_text().rpartition(")")[2].split()[0] == "T" for each in threads
            )
        except (FileNotFoundError, ProcessLookupError):
            return False

    def send(self, number: signal.Signals) -> bool:
        """False when it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def record_of(pid: int, argv: tuple[str, ...]) -> ProcessRecord:
    """For a child of this process that has just been started."""
    found = _stat(pid)
    if found is None:
        raise ProcessLookupError(pid)
    return ProcessRecord(pid=pid, start_time=found[0], boot_id=_boot_id(), argv=argv)


def write_record(path: Path, record: ProcessRecord) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record)))
    fresh.replace(path)


def read_record(path: Path) -> ProcessRecord | None:
    try:
        raw = json.loads(path.read_text())
        return ProcessRecord(**(raw | {"argv": tuple(raw["argv"])}))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def parse_stat(text: str) -> tuple[int, bool]:
    """Start time, and whether it still runs, out of /proc/PID/stat.

    A process that was killed is a zombie before its last thread has ended, and until then its
    files are open and its ports taken.
    """
    fields = text.rpartition(")")[2].split()
    state, threads = fields[0], int(fields[17])
    return int(fields[19]), state not in "ZX" or (state == "Z" and threads > 1)


def _stat(pid: int) -> tuple[int, bool] | None:
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def netns_names(places: Places) -> list[str]:
    """The instance's namespaces that exist now."""
    if not NETNS.is_dir():
        return []
    own = re.compile(re.escape(places.netns_prefix) + r"[a-z0-9]+(-[a-z0-9]+)?")
    return sorted(entry.name for entry in NETNS.iterdir() if own.fullmatch(entry.name))


def instance_pids(places: Places) -> list[int]:
    """Processes in the instance's network namespaces or with its mark in their environment.

    Leaves out this process and its ancestors, so that `down` may be typed inside a host.
    """
    spaces = set()
    for name in netns_names(places):
        found = (NETNS / name).stat()
        spaces.add((found.st_dev, found.st_ino))
    mark = f"{MARK}={places.instance}".encode()
    return [pid for pid in _others() if _belongs(pid, spaces, mark)]


def _others() -> Iterator[int]:
    own = set(_ancestors())
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) not in own:
            yield int(entry.name)


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 1:
        yield pid
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        pid = int(fields[1])


def _belongs(pid: int, spaces: set[tuple[int, int]], mark: bytes) -> bool:
    folder = _PROC / str(pid)
    try:
        stat = _stat(pid)
        if stat is None or not stat[1]:
            return False
        space = (folder / "ns/net").stat()
        if (space.st_dev, space.st_ino) in spaces:
            return True
        return mark in (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def kill_all(places: Places, *, within_s: float = 10) -> None:
    """SIGKILL to everything of the instance, until nothing is found any more."""
    until = time.monotonic() + within_s
    while pids := instance_pids(places):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > until:
            raise TimeoutError(f"processes that do not die: {pids}")
        time.sleep(0.02)


def name_of(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "gone"
