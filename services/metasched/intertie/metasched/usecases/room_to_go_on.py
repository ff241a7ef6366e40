"""Looks for room in which a lease with a deadline could go on if it were put aside."""

from intertie.common.values import replace
from intertie.metasched.domain.aside import where_it_was
from intertie.metasched.domain.in_time import rooms_after
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.planned import with_room_to_go_on
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.planning import Planning


class RoomToGoOn:
    def __init__(self, planning: Planning) -> None:
        self._planning = planning

    async def __call__(self, brief: Brief, plan: Plan) -> Plan:
        """The plan, with the latest room for all of it at its sites of which they offer it enough:
        that holds up others the least. As it is where there is none, or none is looked for: nobody
        puts it aside then."""
        rooms = rooms_after(brief.spec, plan) if brief.to_go_on else ()
        if not rooms:
            return plan
        later = replace(brief, windows=rooms, cuts=(), others_give_way=False)
        offered, _ = await self._planning.problem(later)
        problem = where_it_was(offered, plan, kept=False)

        return await self._planning.found(
            with_room_to_go_on, plan, problem, rooms, effort=self._planning.effort.solver
        )
