"""What a meta-scheduler refuses while its etcd, or a site's, is short of room."""

from __future__ import annotations

import pytest

from intertie.common.errors import LedgerFull
from intertie.common.names import ClusterName
from intertie.metasched.domain.cluster import ClusterState
from tests.fakes.part import State
from tests.unit.metasched.test_update import standing, update
from tests.unit.metasched.world import NAME, World, order, spec


async def test_what_is_new_or_more_is_refused_and_what_stands_goes_on() -> None:
    world = World()
    process = await world.process()
    await process.create(order(what=spec(3)))
    await process.create.drain()
    world.boot()
    world.room.short = True
    with pytest.raises(LedgerFull):
        await process.create(order("r2", ClusterName(NAME.parent, "other"), spec(1)))
    with pytest.raises(LedgerFull):
        await process.update(update(spec(4)))
    # No site was asked, the same request is answered, less is given back, and the end is written.
    assert len(world.states()) == 1
    assert (await process.create(order(what=spec(3)))).record.terms == 0
    await process.update(update(spec(2), request_id="u2"))
    await process.update.drain()
    assert (await standing(process)).terms == 1
    await process.delete(str(NAME))
    await world.settle(process)
    assert (await standing(process)).state is ClusterState.CANCELLED
    assert all(
        state is State.ENDED for parts in world.states().values() for state in parts.values()
    )


async def test_a_site_that_is_short_of_room_is_left_out_where_another_is_not() -> None:
    world = World(vcpus=20)
    process = await world.process()
    world.north.ledger_full = True
    view = await process.create(order(what=spec(3)))
    assert {each.site for each in view.workspaces} == {"south"}


async def test_where_no_other_has_room_its_ledger_is_why() -> None:
    world = World()
    process = await world.process()
    world.north.ledger_full = world.south.ledger_full = True
    with pytest.raises(LedgerFull) as refused:
        await process.create(order(what=spec(5)))
    assert "82 of 100 MiB" in str(refused.value)
    assert await process.clusters.listed() == ()


async def test_a_cluster_that_would_grow_keeps_its_terms_where_a_site_is_short_of_room() -> None:
    world = World()
    process = await world.process()
    await process.create(order(what=spec(3)))
    await process.create.drain()
    world.boot()
    world.north.ledger_full = world.south.ledger_full = True
    with pytest.raises(LedgerFull, match="82 of 100 MiB"):
        await process.update(update(spec(4)))
    assert (await standing(process)).terms == 0
