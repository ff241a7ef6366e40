"""What links have free for what could be brought later, and what is told of it."""

from datetime import timedelta

from intertie.common.intervals import Window
from intertie.metasched.domain.brought_later import AHEAD, Links, spans_ahead
from intertie.metasched.domain.problem import LinkRoom
from tests.unit.metasched.problems import NOW

S = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def room(out: int, into: int) -> LinkRoom:
    return LinkRoom(egress_mbit_s=out, ingress_mbit_s=into, latency=S)


def links() -> Links:
    spans = tuple(Window(NOW + a * HOUR, NOW + (a + 1) * HOUR) for a in range(3))
    south = [{"south": room(10, 7)}, {"south": room(2, 9)}, {"south": room(30, 30)}]
    return Links(spans=spans, room={"north": south})


def test_spans_reach_to_the_horizon_and_are_ever_longer() -> None:
    spans = spans_ahead(NOW, 24 * HOUR)
    lasts = [each.duration for each in spans]
    assert len(spans) == AHEAD
    assert lasts == sorted(lasts)
    assert (spans[0].start, spans[-1].end) == (NOW, NOW + 24 * HOUR)


def test_up_to_a_start_a_link_has_what_it_has_all_the_time() -> None:
    """As sites say it of one span up to that, when the start is asked for by itself."""
    spans, free = links().until([NOW + 1.5 * HOUR])
    assert spans == (Window(NOW, NOW + 1.5 * HOUR),)
    assert free["north"][0]["south"] == room(2, 7)
    spans, free = links().until([NOW + HOUR, NOW + 9 * HOUR])
    assert [each.end for each in spans] == [NOW + HOUR, NOW + 3 * HOUR]
    assert [each["south"] for each in free["north"]] == [room(10, 7), room(2, 9)]
