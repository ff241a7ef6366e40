"""Seeded instances of virtual network embedding, of the form of the published ones: a Waxman graph,
and requests that come at random and last at random."""

from math import exp, hypot
from random import Random

from bench.vne_world import Instance, Request


def instance(seed: int, *, nodes: int, requests: int, between_s: float, most: int = 10) -> Instance:
    """`between_s`: of one arrival and the next, in the mean; `most` nodes of a request. One lasts
    500 s in the mean."""
    draw = Random(seed)
    return Instance(
        cpus=tuple(draw.randint(50, 100) for _ in range(nodes)),
        links=_substrate(draw, nodes),
        requests=tuple(_requests(draw, requests, between_s, most)),
    )


def _substrate(draw: Random, nodes: int) -> tuple[tuple[int, int, int], ...]:
    """About ten links a node, more often to nearer ones; and a ring, so that all reach all."""
    places = [(draw.random(), draw.random()) for _ in range(nodes)]
    share = min(1000 / nodes / 100, 1.0)
    links = {(at, at + 1) for at in range(nodes - 1)} | {(0, nodes - 1)}
    for u in range(nodes):
        for v in range(u + 1, nodes):
            apart = hypot(places[u][0] - places[v][0], places[u][1] - places[v][1])
            if draw.random() < 5 * share * exp(-apart / 0.28):
                links.add((u, v))
    return tuple((u, v, draw.randint(50, 100)) for u, v in sorted(links))


def _requests(draw: Random, count: int, between_s: float, most: int) -> list[Request]:
    now_s, found = 0.0, []
    for number in range(count):
        now_s += draw.expovariate(1 / between_s)
        size = draw.randint(2, most)
        links = [
            (a, b, draw.randint(0, 50))
            for a in range(size)
            for b in range(a + 1, size)
            if draw.random() < 0.5
        ]
        found.append(
            Request(
                id=number,
                arrival_s=now_s,
                lifetime_s=draw.expovariate(1 / 500),
                cpus=tuple(draw.randint(0, 20) for _ in range(size)),
                links=tuple(links),
            )
        )
    return found
