"""Minimal sets of requirements that cannot be met together, and minimal ones to give up.

Conflicts are shrunk by QuickXplain (U. Junker, 2004), and found one after another in a tree of
what is given up (R. Reiter, 1987). Both only ask whether a set of requirements can be met.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from intertie.metasched.domain.feasibility import Feasibility
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.requirements import Asked, Times, without

Set = frozenset[int]
Verdict = Callable[[Set], bool | None]
"""Whether all of these can be met, of requirements by their numbers; None: nobody knows."""

MOST_CONFLICTS = 4
"""Unless it takes more to say what is enough."""
MOST_GIVEN_UP = 4
"""At one time."""
MOST_WAYS = 32
"""Of giving up one of each of several conflicts, that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflicts:
    sets: tuple[Set, ...] = ()
    """Each cannot be met, and could be without any one of it."""
    enough: tuple[Set, ...] = ()
    """Some of each: without one of these of each, whichever, all the rest can be met. Empty ones
    where nobody knows."""
    ways: tuple[Set, ...] = ()
    """To choose them; each as small as it can be."""


def conflicts_of(count: int, verdict: Verdict) -> Conflicts:
    """Of requirements 0 to `count`. None where all can be met, where they cannot for something
    else, or where nobody knows."""
    everything = frozenset(range(count))
    sets: list[Set] = []
    given_up: list[Set] = []
    waiting = deque([frozenset[int]()])
    seen: set[Set] = set()
    while waiting:
        dropped = waiting.popleft()
        if given_up and len(sets) >= MOST_CONFLICTS and len(dropped) > len(given_up[0]):
            break
        if any(each <= dropped for each in given_up):
            continue
        known = next((each for each in sets if not each & dropped), None)
        if known is None:
            kept = everything - dropped
            answer = verdict(kept)
            if answer and not dropped:
                return Conflicts()
            if answer:
                given_up.append(dropped)
            if answer is not False or (given_up and len(sets) >= MOST_CONFLICTS):
                continue
            known = shrunk(sorted(kept), verdict)
            if known is None:
                continue
            if not known:
                return Conflicts()
            sets.append(known)
        if len(dropped) < MOST_GIVEN_UP:
            more = {dropped | {each} for each in known} - seen
            seen |= more
            waiting.extend(sorted(more, key=sorted))
    if not given_up:
        return _nobody_knows(sets)
    alone = [each for each in given_up if len(each) == 1]
    if alone:
        every = frozenset[int]().union(*alone)
        return Conflicts(
            sets=tuple(sets), enough=tuple(each & every for each in sets), ways=tuple(alone)
        )
    return _several(everything, sets, given_up[0], verdict)


def _several(everything: Set, sets: list[Set], least: Set, verdict: Verdict) -> Conflicts:
    """Where it takes to give up `least`, and no less: of each of these a conflict that the others
    are not in, and what could be given up in its place, in every combination."""
    of: dict[int, Set] = {}
    instead: dict[int, Set] = {}
    for each in sorted(least):
        kept = everything - (least - {each})
        among = [known for known in sets if not known & (least - {each})]
        conflict = among[0] if among else shrunk(sorted(kept), verdict)
        if conflict is None:
            return _nobody_knows(sets)
        of[each] = conflict
        instead[each] = frozenset(
            other for other in of[each] if other == each or verdict(kept - {other})
        )
    while True:
        ways = {frozenset(way) for way in product(*(instead[each] for each in of))}
        ordered = sorted(ways, key=lambda way: (len(way - least), sorted(way)))
        bad = next((way for way in ordered if not verdict(everything - way)), None)
        if bad is None and len(ordered) <= MOST_WAYS:
            break
        # What was found to be enough stays. Of the rest, what may not go with some other.
        worst = max(instead, key=lambda each: len(instead[each]))
        if bad is not None:
            worst = next(each for each in instead if instead[each] & bad - least)
            instead[worst] -= bad - least
        else:
            instead[worst] = frozenset({worst})
    together = list(dict.fromkeys((*of.values(), *sets)))
    enough = {of[each]: instead[each] for each in of}
    return Conflicts(
        sets=tuple(together),
        enough=tuple(enough.get(each, each & least) for each in together),
        ways=tuple(ordered),
    )


def _nobody_knows(sets: Sequence[Set]) -> Conflicts:
    """What is enough."""
    return Conflicts(sets=tuple(sets), enough=(frozenset[int](),) * len(sets))


def shrunk(kept: Sequence[int], verdict: Verdict) -> Set | None:
    """A part of these, which cannot be met, that cannot either, and could be without any one of it.
    Empty where nothing at all can be met; None where nobody knows."""
    unsure = False

    def answered(these: Set) -> bool | None:
        nonlocal unsure
        answer = verdict(these)
        unsure = unsure or answer is None
        return answer

    if answered(frozenset()) is False:
        return frozenset()
    found = _part(frozenset(), False, list(kept), answered)
    if unsure and not all(verdict(found - {each}) for each in found):
        return None
    return found


def _part(beside: Set, grown: bool, among: list[int], verdict: Verdict) -> Set:
    """What of `among` it takes to be in conflict, beside those. What nobody knows of is taken to be
    possible: then there may be more in it than it takes."""
    if grown and verdict(beside) is False:
        return frozenset()
    if len(among) == 1:
        return frozenset(among)
    half = (len(among) + 1) // 2
    first, second = among[:half], among[half:]
    of_second = _part(beside | frozenset(first), True, second, verdict)
    of_first = _part(beside | of_second, bool(of_second), first, verdict)
    return of_first | of_second


def verdict_of(
    problem: Problem, times: Times, asked: Sequence[Asked], feasibility: Feasibility
) -> Verdict:
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
        answer = feasibility.of(without(problem, times, dropped))
        if answer is not None:
            (possible if answer else impossible).append(these)
        return answer

    return verdict
