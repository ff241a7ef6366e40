"""What a site's calendar answers, and what an admission costs, as the site grows.

Not `calendar.py`: some of the files beside it are run as programs, and would take it for the
standard library's.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from bench.big_site import BigSite, asked, big_site
from bench.report import Row, show
from intertie.broker.domain.amounts import amounts_alone, keyed
from intertie.broker.domain.ledger import LedgerView, calendar_of, free_vector
from intertie.broker.domain.planning import draft
from intertie.common.calendar import Calendar, Demand
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.process import collect_gently
from intertie.common.spec import ClusterSpec, LeaseTerms
from intertie.common.values import replace

SIZES = (10, 100, 1000)
NAME = ClusterName.parse("sites/north/tenants/demo/clusters/one")
QUESTIONS = {
    "fits": "does it fit: a window, all dimensions of one host",
    "earliest": "earliest fit within 30 days, on one host",
    "free": "how much is free over a window, all dimensions of one host",
    "admission_now": "admission decided: 1 workspace, from now on",
    "admission_later": "admission decided: 1 workspace, at any time ahead",
    "admission_8": "admission decided: 8 workspaces, at any time ahead",
    "admission_waits": "admission decided: 24 vCPUs on one host, within 30 days",
    "taken": "taken and given back: one workspace in the calendar",
}


def run(quick: bool) -> None:
    """No testbed: the calendar and the planning of a leader, on a book in memory."""
    parts, seconds = (10_000, 0.3) if quick else (100_000, 2.0)
    collect_gently()  # as a broker does
    rates: dict[int, dict[str, float]] = {}
    for hosts in SIZES:
        rates[hosts] = _Questions.of(big_site(hosts, parts)).rates(seconds)
        gc.collect()
    first = rates[SIZES[0]]
    rows = [
        Row(
            what=f"{QUESTIONS[name]}, {hosts:,} hosts",
            value=rates[hosts][name],
            unit="/s",
            against="" if hosts == SIZES[0] else f"{SIZES[0]} hosts",
            ratio=None if hosts == SIZES[0] else rates[hosts][name] / first[name],
        )
        for name in QUESTIONS
        for hosts in SIZES
    ]
    show(
        "calendar",
        rows,
        {
            "parts": parts,
            "per_s": {
                str(hosts): {name: round(each, 1) for name, each in found.items()}
                for hosts, found in rates.items()
            },
            "time_grows": {
                f"{a}_to_{b}": {
                    name: round(rates[a][name] / rates[b][name], 2) for name in QUESTIONS
                }
                for a, b in itertools.pairwise(SIZES)
            },
        },
    )


@dataclass(slots=True, kw_only=True)
class _Questions:
    site: BigSite
    view: LedgerView
    calendar: Calendar
    draw: random.Random

    @classmethod
    def of(cls, site: BigSite) -> _Questions:
        view = site.book().view(site.fleet, {})
        calendar = calendar_of(view, site.policy)
        return cls(site=site, view=view, calendar=calendar, draw=random.Random(2))

    def rates(self, seconds: float) -> dict[str, float]:
        """Of each question, a second."""
        questions: dict[str, Callable[[], object]] = {
            "fits": lambda: self.calendar.fits(self._demand(8)),
            "earliest": self._earliest,
            "free": lambda: free_vector(
                self.calendar,
                self.site.fleet.facts[self._host()],
                self.site.policy,
                self._window(),
            ),
            "admission_now": lambda: self._draft(asked(1)),
            "admission_later": lambda: self._draft(self._later(asked(1))),
            "admission_8": lambda: self._draft(self._later(asked(8))),
            "admission_waits": lambda: self._draft(self._waits(asked(1, vcpus=24))),
            "taken": self._take,
        }
        return {name: _rate(ask, seconds) for name, ask in questions.items()}

    def _host(self) -> str:
        return self.draw.choice(self.site.policy.hosts)

    def _window(self) -> Window:
        """Of an hour to a day, at some time at which the site is busy."""
        start = self.site.now + (self.site.until - self.site.now) * self.draw.random()
        return Window(start, start + timedelta(hours=self.draw.uniform(1, 24)))

    def _demand(self, vcpus: int) -> Demand:
        allocation = asked(1, vcpus=vcpus).groups[0].allocation
        return Demand("new", self._window(), keyed(self._host(), amounts_alone(allocation, 1)))

    def _earliest(self) -> object:
        """More than is free at most times."""
        demand = self._demand(24)
        return self.calendar.earliest(demand, demand.window.start + timedelta(days=30))

    def _later(self, spec: ClusterSpec) -> ClusterSpec:
        window = self._window()
        lease = LeaseTerms(start_time=window.start, duration=window.duration)
        return replace(spec, lease=lease)

    def _waits(self, spec: ClusterSpec) -> ClusterSpec:
        lease = LeaseTerms(duration=timedelta(hours=4), max_delay=timedelta(days=30))
        return replace(spec, lease=lease)

    def _draft(self, spec: ClusterSpec) -> object:
        return draft(NAME, "u", spec, self.view, self.site.policy, now=self.site.now)

    def _take(self) -> None:
        self.calendar.add(self._demand(1))
        self.calendar.remove("new")


def _rate(ask: Callable[[], object], seconds: float) -> float:
    """Asked for that long, and 5 times at least."""
    asked_times, begin = 0, time.perf_counter()
    while asked_times < 5 or time.perf_counter() - begin < seconds:
        ask()
        asked_times += 1
    return asked_times / (time.perf_counter() - begin)
