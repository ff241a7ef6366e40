"""A real etcd of one member on loopback, without TLS, on data in a folder."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from intertie.common.settings import EtcdSettings

_READY_WITHIN_S = 30.0


class EtcdServer:
    """Can be killed, and started again on the same data and ports."""

    scheme = "http"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._client_port, self._peer_port, self._metrics_port = free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._client_port}"

    def settings(self, prefix: str) -> EtcdSettings:
        return EtcdSettings(endpoints=(self.endpoint,), prefix=prefix)

    def options(self) -> list[str]:
        """More command line options, for kinds of servers that derive from this one."""
        return []

    def start(self) -> None:
        client, peer = f"{self.scheme}://{self.endpoint}", f"http://127.0.0.1:{self._peer_port}"
        with (self._folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "etcd",
                    f"--data-dir={self._folder / 'data'}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--logger=zap",
                    f"--listen-metrics-urls=http://127.0.0.1:{self._metrics_port}",
                    *self.options(),
                ],
                stdout=log,
                stderr=log,
            )
        self._wait_until_ready()

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _wait_until_ready(self) -> None:
        health = f"http://127.0.0.1:{self._metrics_port}/health"
        end = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(health, timeout=1) as answer:
                    if b"true" in answer.read():
                        return
            except OSError:
                time.sleep(0.05)
        log = (self._folder / "etcd.log").read_text(errors="replace")
        raise TimeoutError(f"etcd was not ready in time:\n{log[-2000:]}")


class SmallQuota(EtcdServer):
    """Its database may not grow beyond so many MiB."""

    def __init__(self, folder: Path, quota_mib: int) -> None:
        super().__init__(folder)
        self._quota_mib = quota_mib

    def options(self) -> list[str]:
        return [f"--quota-backend-bytes={self._quota_mib << 20}"]

    def ctl(self, *words: str) -> str:
        argv = ["etcdctl", f"--endpoints={self.endpoint}", "--command-timeout=30s", *words]
        ran = subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True)
        return ran.stdout

    def make_room(self) -> None:
        """As the operator does, but for the alarm."""
        status = json.loads(self.ctl("endpoint", "status", "-w", "json"))
        self.ctl("compaction", str(status[0]["Status"]["header"]["revision"]))
        self.ctl("defrag")


def free_ports(count: int) -> list[int]:
    """Of loopback, that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
