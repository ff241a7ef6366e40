"""What guests say of themselves: who reaches whom, and how fast network and disk are in there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

PING_COUNT = 2
AT_ONCE = 2
"""Guests that are asked at the same time: emulated ones share the machine's processors."""
_ROUND_TRIP = re.compile(r"min/avg/max = ([0-9.]+)/")

Progress = Callable[[], None]
Answer = TypeVar("Answer")


class GuestSilent(RuntimeError):
    """A guest did not do what it was asked for; the message has what it said instead."""


@dataclass(slots=True, kw_only=True)
class Guests:
    """The workspaces of one cluster, asked through `intertie cluster ssh`."""

    cluster: str
    key: Path
    command: Sequence[str]
    """The `intertie` program."""
    environment: Mapping[str, str]
    _asked: set[subprocess.Popen[str]] = field(default_factory=set)

    def shell(self, workspace: str, script: str, *, timeout_s: float = 90) -> str:
        """What `script` wrote to stdout inside."""
        words = ["cluster", "ssh", self.cluster, workspace, "-i", str(self.key), "--", script]
        with subprocess.Popen(
            [*self.command, *words],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self._asked.add(process)
            try:
                out, err = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise GuestSilent(f"{workspace}: no answer within {timeout_s:.0f} s") from None
            finally:
                process.kill()
                self._asked.discard(process)
        if process.returncode and not out.strip():
            raise GuestSilent(f"{workspace}: {err.strip() or f'exit {process.returncode}'}")
        return out

    def _each(self, ask: Callable[[str], Answer], names: Sequence[str]) -> list[Answer]:
        """A few at a time. An interrupt, or the first failure, ends the others."""
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            try:
                return list(pool.map(ask, names))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self._asked):
                    process.kill()
                raise

    def ping_all(self, names: Sequence[str], told: Progress) -> dict[tuple[str, str], float | None]:
        """Shortest round trip in ms from each to each, by name; None where no answer came."""

        def from_one(source: str) -> dict[tuple[str, str], float | None]:
            others = [name for name in names if name != source]
            lines = [f"echo to {name}; ping -q -c {PING_COUNT} -W 3 {name}" for name in others]
            said = self.shell(source, "; ".join(lines))
            told()
            return {(source, name): trip for name, trip in parse_pings(said, others).items()}

        found: dict[tuple[str, str], float | None] = {}
        for answers in self._each(from_one, names):
            found.update(answers)
        return found

    def measure_bandwidth(
        self, source: str, peers: Sequence[str], seconds: int
    ) -> dict[tuple[str, str], float]:
        """Mbit/s of TCP from `source` to each peer and back, one after the other."""
        words = [
            f"measure-bandwidth {peer} {seconds}{way}" for peer in peers for way in ("", " reverse")
        ]
        said = self.shell(source, "; ".join(words), timeout_s=60 + 15 * len(words))
        answers = _answers(source, said, "mbit_s", len(words))
        rates: dict[tuple[str, str], float] = {}
        for index, peer in enumerate(peers):
            rates[source, peer] = answers[2 * index]
            rates[peer, source] = answers[2 * index + 1]
        return rates

    def measure_iops(self, names: Sequence[str], seconds: int, told: Progress) -> dict[str, float]:
        """Random reads of 4 KiB a second, direct, on each one's own disk."""

        def of_one(name: str) -> float:
            said = self.shell(name, f"measure-iops {seconds}")
            told()
            return _answers(name, said, "iops", 1)[0]

        return dict(zip(names, self._each(of_one, names), strict=True))


def parse_pings(text: str, names: Iterable[str]) -> dict[str, float | None]:
    """Of busybox's ping, each run of which is headed by `to NAME`."""
    found: dict[str, float | None] = dict.fromkeys(names)
    current = ""
    for line in text.splitlines():
        if line.startswith("to "):
            current = line.removeprefix("to ")
        elif (trip := _ROUND_TRIP.search(line)) and current in found:
            found[current] = float(trip[1])
    return found


def _answers(source: str, text: str, key: str, count: int) -> list[float]:
    """One number out of every line of JSON."""
    answers: list[Any] = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    for answer in answers:
        if key not in answer:
            raise GuestSilent(f"{source}: {answer.get('error', answer)}")
    if len(answers) != count:
        raise GuestSilent(f"{source}: {len(answers)} answers of {count}: {text.strip()!r}")
    return [float(answer[key]) for answer in answers]
