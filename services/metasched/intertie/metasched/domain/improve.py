"""Better plans from a plan: a few pieces are taken up and put down again in the best way there is,
over and over."""

from random import Random

from intertie.metasched.domain.search import Search

SIZES = (2, 3, 4, 5, 6)
"""Of neighbourhoods: pieces that are taken up together."""
ROUND_STEPS, ROUND_WIDTH = 200, 50
"""Of one neighbourhood: nearly always all of it."""
NEXT_TO = 0.8
"""How often the next piece is one to which something is promised."""


def improve(search: Search, *, steps: int, patience: int) -> None:
    """Until the plan costs no more than any could, the search has made so many steps, or
    `patience` neighbourhoods one after another had nothing better. Which ones is drawn from a
    sequence that is always the same."""
    pieces, bound, draw = len(search.board.pieces), search.bound(), Random(1)
    in_vain = 0
    while pieces > 1 and search.cost > bound and search.steps < steps and in_vain < patience:
        better = _once_more(search, draw)
        in_vain = 0 if better else in_vain + 1


def _once_more(search: Search, draw: Random) -> bool:
    best = search.best
    assert best is not None
    free = _neighbourhood(search, draw)
    return search.run(sorted(free), best.where, steps=ROUND_STEPS, width=ROUND_WIDTH)


def _neighbourhood(search: Search, draw: Random) -> set[int]:
    """A piece at an end of a way over several links, if there is one, and others about it; of what
    goes to one site all."""
    board, best = search.board, search.best
    assert best is not None
    pieces = range(len(board.pieces))
    far = [
        (demand.one, demand.two)
        for demand, way in zip(best.demands, best.ways, strict=True)
        if len(way) > 2 and demand.mbit_s
    ]
    first = draw.randrange(len(pieces))
    if far:
        site = draw.choice(draw.choice(far))
        first = draw.choice([piece for piece, at in sorted(best.where.items()) if at == site])
    free = [first]
    size = min(draw.choice(SIZES), len(pieces))
    while len(free) < size:
        beside = [
            other
            for piece in free
            for other, tie in board.ties[piece].items()
            if tie.mbit_s > 0 and other not in free
        ]
        if beside and draw.random() < NEXT_TO:
            free.append(draw.choice(beside))
        else:
            free.append(draw.choice([piece for piece in pieces if piece not in free]))
    whole = (block for block in board.blocks if not set(block).isdisjoint(free))
    return set(free).union(*whole)
