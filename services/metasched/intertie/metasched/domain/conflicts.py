"""Minimal sets of requirements that cannot be met together, and minimal ones to give up.

Conflicts are shrunk by QuickXplain (U. Junker, 2004), and found one after another in a tree of
what is given up (R. Reiter, 1987). Both only ask whether a set of requirements can be met.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from intertie.common.values import replace
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.requirements import Asked, Times, without
from intertie.metasched.domain.solver import feasible

Set = frozenset[int]
Verdict = Callable[[Set], bool | None]
"""Whether all of these can be met, of requirements by their numbers; None: nobody knows."""

MOST_CONFLICTS = 6
MOST_GIVEN_UP = 3
"""At one time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflicts:
    sets: tuple[Set, ...] = ()
    """Each cannot be met, and could be without any one of it."""
    given_up: tuple[Set, ...] = ()
    """Without all of one of these the rest can be met, and without less of it not. The smallest
    first."""
    complete: bool = True
    """There are no others: without one of each of `sets`, whichever, the rest can be met."""

    def enough(self, number: int) -> bool:
        """Whether to give it up alone is."""
        return frozenset({number}) in self.given_up


def conflicts_of(count: int, verdict: Verdict) -> Conflicts:
    """Of requirements 0 to `count`, which cannot all be met. None where they cannot be met for
    something else, or where nobody knows."""
    everything = frozenset(range(count))
    sets: list[Set] = []
    given_up: list[Set] = []
    complete = True
    seen: set[Set] = set()
    waiting = deque([frozenset[int]()])
    while waiting:
        dropped = waiting.popleft()
        if any(each <= dropped for each in given_up):
            continue
        known = next((each for each in sets if not each & dropped), None)
        if known is None:
            kept = everything - dropped
            answer = verdict(kept)
            if answer:
                given_up.append(dropped)
                continue
            if answer is None or len(sets) == MOST_CONFLICTS:
                complete = False
                continue
            known = shrunk(sorted(kept), verdict)
            if not known:
                return Conflicts(complete=False)
            sets.append(known)
        if len(dropped) == MOST_GIVEN_UP:
            complete = False
            continue
        for each in sorted(known):
            child = dropped | {each}
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    return Conflicts(sets=tuple(sets), given_up=tuple(given_up), complete=complete)


def shrunk(kept: Sequence[int], verdict: Verdict) -> Set:
    """A smallest part of these, which cannot be met, that cannot either; smaller ones may exist
    elsewhere. Empty where nothing at all can be met. What nobody knows of is taken to be possible:
    then it may be larger than it needs to be."""
    if verdict(frozenset()) is False:
        return frozenset()
    return _part(frozenset(), False, list(kept), verdict)


def _part(beside: Set, grown: bool, among: list[int], verdict: Verdict) -> Set:
    """What of `among` it takes to be in conflict, beside those."""
    if grown and verdict(beside) is False:
        return frozenset()
    if len(among) == 1:
        return frozenset(among)
    half = (len(among) + 1) // 2
    first, second = among[:half], among[half:]
    of_second = _part(beside | frozenset(first), True, second, verdict)
    of_first = _part(beside | of_second, bool(of_second), first, verdict)
    return of_first | of_second


class Budget:
    """How much may be asked of the solver; it does not depend on the machine."""

    def __init__(self, *, effort: float, each: float, size: int) -> None:
        """`effort` in all, `each` for one problem: CP-SAT's deterministic time. `size` is the sum
        of the problems' sizes, as they are built too."""
        self._effort, self._each, self._size = effort, each, size

    def fits(self, problem: Problem) -> bool | None:
        size = size_of(problem)
        if self._effort <= 0 or self._size < size:
            return None
        self._size -= size
        answer, took = feasible(fewest(problem), effort=min(self._each, self._effort))
        self._effort -= took
        return answer


def size_of(problem: Problem) -> int:
    """About how much there is to build: places of workspaces, over all windows."""
    hosts = sum(len(each.offers[0].hosts) if each.offers else 0 for each in problem.sites)
    return (hosts + 1) * (len(problem.groups) + len(problem.promises) + len(problem.windows))


def fewest(problem: Problem) -> Problem:
    """With no more of any group than it has to have: who fits with more fits so too."""
    return replace(
        problem,
        groups=tuple(
            replace(each, most=min(each.most, max(each.fewest, each.min_sites)))
            for each in problem.groups
        ),
    )


def verdict_of(problem: Problem, times: Times, asked: Sequence[Asked], budget: Budget) -> Verdict:
    """Nothing is asked twice, and what follows from an answer is not asked at all."""
    possible: list[Set] = []
    impossible: list[Set] = []

    def verdict(kept: Iterable[int]) -> bool | None:
        these = frozenset(kept)
        if any(these <= each for each in possible):
            return True
        if any(each <= these for each in impossible):
            return False
        dropped = [each for number, each in enumerate(asked) if number not in these]
        answer = budget.fits(without(problem, times, dropped))
        if answer is not None:
            (possible if answer else impossible).append(these)
        return answer

    return verdict
