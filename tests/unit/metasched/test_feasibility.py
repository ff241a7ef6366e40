"""Whether there is any plan: what is said without the model, and what with it."""

from intertie.metasched.domain.feasibility import Feasibility
from intertie.metasched.domain.problem import Problem
from tests.unit.metasched.problems import (
    chained,
    forwarding,
    group,
    link,
    offer,
    problem,
    promise,
)

HEAD, WORKER = group("head", allow_sites=("a",)), group(fewest=3, allow_sites=("z",))
PAIRS = (promise("head", "worker", 30),)


def found(given: Problem) -> bool | None:
    return Feasibility(effort=60, each=5, size=10**9).of(given)


def test_a_site_that_only_forwards_is_part_of_what_is_possible() -> None:
    offers = {"a": offer(9), "b": offer(), "z": offer(9)}
    sites = chained({("a", "b"): link(90), ("b", "z"): link(90)}, offers)
    given = problem([HEAD, WORKER], sites, promises=PAIRS)
    assert found(forwarding(given, "b")) is True
    assert found(given) is False
    narrow = chained({("a", "b"): link(90), ("b", "z"): link(89)}, offers)
    assert found(forwarding(problem([HEAD, WORKER], narrow, promises=PAIRS), "b")) is False
