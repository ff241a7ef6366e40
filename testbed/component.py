"""A component: one process that the testbed starts, and that a test may kill and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.places import MARK, NETNS, Places
from testbed.processes import ProcessRecord, read_record, record_of, write_record

_ENTER_HOST = """
set -eu
netns=$1 run=$2 disk=$3; shift 3
cgroups=$(cat "$run/cgroups")
for entry in $cgroups; do echo $$ >"${entry#*=}/cgroup.procs"; done
exec nsenter --net="$netns" -- unshare --mount --cgroup --propagation slave -- /bin/sh -euc '
run=$1 disk=$2 cgroups=$3; shift 3
mount -t tmpfs -o mode=755 tmpfs "$run/cgroup"
for entry in $cgroups; do
  mkdir "$run/cgroup/${entry%%=*}"
  mount --bind "${entry#*=}" "$run/cgroup/${entry%%=*}"
done
umount -l /sys
mount -t sysfs sysfs /sys
mount --rbind "$run/cgroup" /sys/fs/cgroup
mount --bind "$run/run" /run/libvirt
mount --bind "$run/etc" /etc/libvirt
mount --bind "$run/log" /var/log/libvirt
mount --bind "$run/cache" /var/cache/libvirt
mount --bind "$disk/libvirt" /var/lib/libvirt
exec "$@"
' enter "$run" "$disk" "$cgroups" "$@"
"""
"""Enters a host: its cgroups, its network namespace, and a mount namespace made anew with the same
folders each time, so that nothing need keep one alive between two processes."""


@dataclass(eq=False)
class ComponentFailed(RuntimeError):
    """A component ended, or did not get ready in time."""

    name: str
    problem: str
    log_tail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}\n{self.log_tail}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Where a process runs: a network namespace and, for a host, the host's own folders."""

    netns: str
    host_run: Path | None = None
    host_disk: Path | None = None

    def wrap(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command that enters and then becomes `argv`, under the same pid."""
        netns = str(NETNS / self.netns)
        if self.host_run is None:
            return ("nsenter", f"--net={netns}", "--", *argv)
        folders = (str(self.host_run), str(self.host_disk))
        return ("/bin/sh", "-c", _ENTER_HOST, "enter", netns, *folders, *argv)


@dataclass(slots=True, kw_only=True)
class Component:
    """Handles of one process. All state is in its pid file: any process may act on it."""

    name: str
    places: Places
    inside: Inside
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    """Cheap; called until it is true."""
    ready_within_s: float = 30
    environment: dict[str, str] = field(default_factory=dict)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def log_path(self) -> Path:
        return self.places.log_file(self.name)

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        record = self._record()
        return record.pid if record else None

    @property
    def running(self) -> bool:
        return self._record() is not None

    @property
    def stopped(self) -> bool:
        """As by SIGSTOP."""
        record = self._record()
        return record is not None and record.stopped()

    def start(self, *, wait: bool = True) -> None:
        """Starts it; with `wait`, returns when it is ready."""
        if self.running:
            raise ComponentFailed(self.name, "runs already", "")
        argv = self.inside.wrap(self.argv)
        with self.log_path.open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment_of(self.places) | self.environment,
                start_new_session=True,
            )
        write_record(self.places.pid_file(self.name), record_of(child.pid, self.argv))
        self._children.append(child)
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        _wait_all_ready([self], lambda _: None)

    def is_ready(self, *, waited_s: float) -> bool:
        """ComponentFailed when it has ended, or has been waited for too long."""
        if self.ready():
            return True
        if not self.running:
            raise ComponentFailed(self.name, "ended while starting", self.log_tail())
        if waited_s > self.ready_within_s:
            raise ComponentFailed(
                self.name, f"not ready after {self.ready_within_s:g} s", self.log_tail()
            )
        return False

    def kill9(self) -> None:
        self._send(signal.SIGKILL)
        self.wait_gone()

    def stop(self) -> None:
        """SIGSTOP: it is there and does not answer."""
        self._send(signal.SIGSTOP)

    def cont(self) -> None:
        self._send(signal.SIGCONT)

    def terminate(self, *, grace_s: float = 10) -> None:
        """SIGTERM, and SIGKILL when it has not ended within the grace."""
        record = self._record()
        if record is None:
            return
        record.send(signal.SIGTERM)
        record.send(signal.SIGCONT)
        try:
            self.wait_gone(within_s=grace_s)
        except TimeoutError:
            self.kill9()

    def restart(self) -> None:
        """Ends it if it runs; returns when the new one is ready."""
        self.terminate()
        self.start()

    def wait_gone(self, *, within_s: float = 10) -> None:
        until = time.monotonic() + within_s
        while self.running:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name} still runs after {within_s:g} s")
            time.sleep(0.01)

    def log_tail(self, lines: int = 15) -> str:
        try:
            text = self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _send(self, number: signal.Signals) -> None:
        record = self._record()
        if record is None or not record.send(number):
            raise ComponentFailed(self.name, f"does not run: no {number.name} sent", "")

    def _record(self) -> ProcessRecord | None:
        self._children[:] = [child for child in self._children if child.poll() is None]
        record = read_record(self.places.pid_file(self.name))
        return record if record and record.alive() else None


def start_all(
    components: Sequence[Component], tell: Callable[[str], None] = lambda _: None
) -> None:
    """All at once, and tells of each that is ready; the first failure is raised."""
    for each in components:
        each.start(wait=False)
    _wait_all_ready(components, tell)


def _wait_all_ready(components: Sequence[Component], tell: Callable[[str], None]) -> None:
    """Looks at one after the other, again and again.

    In this one thread alone, since a signal may come at any moment. It once came within
    `concurrent.futures.wait`, which takes the locks of all futures and, interrupted, keeps them.
    """
    pending, began, pause_s = list(components), time.monotonic(), 0.02
    while pending:
        for each in tuple(pending):
            if each.is_ready(waited_s=time.monotonic() - began):
                pending.remove(each)
                tell(each.name)
        if pending:
            time.sleep(pause_s)
            pause_s = min(0.25, pause_s * 1.5)


def environment_of(places: Places) -> dict[str, str]:
    """Nothing of the caller's environment but the path: components run the same for everyone."""
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        MARK: places.instance,
    }
