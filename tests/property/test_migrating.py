"""Workspaces that go from host to host, while agents, hosts and brokers are killed and cut off at
any moment: none ever runs twice, and none that no host was lost of begins anew."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.common.spec import OnHostLoss
from tests.property.moving_site import MovingSite, settled, started

STEPS = 120


@pytest.fixture(autouse=True)
def short_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many are broken off while they are sent, or just when they were."""
    monkeypatch.setattr("intertie.broker.domain.migrating.SENT_WITHIN", timedelta(seconds=20))


@pytest.mark.parametrize("seed", range(16))
async def test_none_runs_twice_whoever_is_lost(seed: int) -> None:
    site = MovingSite(seed)
    await site.steps(3)
    await site.create("one", 2, OnHostLoss.RESTART)
    await site.create("two", 2, OnHostLoss.RESTART)
    for number in range(STEPS):
        if number > 8 and site.rng.random() < 0.3:
            await site.migrate()
        if number > 8 and site.rng.random() < 0.15:
            site.trouble()
        await site.step()
    assert site.migrations
    await settled(site, 80)


@pytest.mark.parametrize("seed", range(16))
async def test_none_begins_anew_while_no_host_is_lost(seed: int, monkeypatch: Any) -> None:
    """Agents and brokers die, and are cut off, but no host is off, nor taken for lost."""
    monkeypatch.setattr("tests.property.test_lost_hosts.LOST_AFTER", timedelta(days=1))
    site = MovingSite(seed)
    before = await started(site)
    for _ in range(STEPS):
        if site.rng.random() < 0.3:
            await site.migrate()
        if site.rng.random() < 0.15:
            site.trouble(gently=True)
        await site.step()
    await settled(site)
    assert site.lives() == before


async def test_they_get_there_where_nothing_happens() -> None:
    """The simulation does come to what it is about."""
    site = MovingSite(3)
    before = await started(site)
    for _ in range(60):
        await site.migrate()
        await site.step()
    await settled(site)
    assert site.lives() == before
    assert all(len(hosts) > 1 for hosts in site.ran_on.values())
