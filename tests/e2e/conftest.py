"""A testbed of two sites with all services, one for the whole run of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.bed import Testbed
from testbed.topology import default_topology
from tests.e2e.driver import User, standing, user_with_image

INSTANCE = "e2e"


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """Two sites of two hosts and a meta-scheduler, the guest image at both."""
    with standing(default_topology(), INSTANCE) as testbed:
        yield testbed


@pytest.fixture(scope="session")
def _user(sites: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    return user_with_image(sites, tmp_path_factory.mktemp("user"))


@pytest.fixture
def user(_user: User, tmp_path: Path) -> Iterator[User]:
    """Deletes what its test created, whatever became of it."""
    mine = User(testbed=_user.testbed, config=_user.config, folder=tmp_path, key=_user.key)
    yield mine
    for name in mine.created:
        mine.say("cluster", "delete", name, "--wait")
