"""Two sites, and a cluster over both of them that was committed."""

import pytest

from tests.unit.metasched.world import Process, World, committed


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def process(world: World) -> Process:
    return await committed(world)
