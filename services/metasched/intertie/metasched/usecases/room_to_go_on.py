"""Looks for room in which a lease with a deadline could go on if it were put aside."""

from collections.abc import Callable

from intertie.common.values import replace
from intertie.metasched.domain.aside import where_it_was
from intertie.metasched.domain.in_time import rooms_after, with_promise
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Problem, over
from intertie.metasched.usecases.planning import Brief, Planning


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

        def look(solve: Callable[[Problem], Plan | None]) -> Plan:
            for slot in reversed(range(len(rooms))):
                if solve(over(problem, (slot,))) is not None:
                    return with_promise(plan, rooms[slot])
            return plan

        return await self._planning.found(look)
