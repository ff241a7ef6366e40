"""What two sites say of the way between them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from intertie.common.ways import Way, between, known_ends, lost_ways

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(minutes=1)
SOON, LATER = timedelta(milliseconds=20), timedelta(milliseconds=21)


def test_a_site_s_own_word_goes_for_the_round_trip_and_else_the_other_s() -> None:
    south = (Way(site="south", round_trip=SOON),)
    north = (Way(site="north", round_trip=LATER), Way(site="east", round_trip=LATER * 9))
    both = {"north": south, "south": north}
    assert between(both, "north", "south") == Way(site="south", round_trip=SOON)
    assert between(both, "south", "north") == Way(site="north", round_trip=LATER)
    assert between({"south": north}, "north", "south") == Way(site="south", round_trip=LATER)
    assert between({}, "north", "south") == Way(site="south")


def test_it_is_lost_by_either_s_word_since_the_first_of_them_said_so() -> None:
    here = {"north": (Way(site="south", lost_since=NOW),)}
    there = {"south": (Way(site="north", lost_since=BEFORE),)}
    for ways, since in ((here, NOW), (there, BEFORE), ({**here, **there}, BEFORE)):
        assert between(ways, "north", "south").lost_since == since
        assert between(ways, "south", "north").lost_since == since


def test_of_ends_of_which_nothing_is_known_nothing_is_said() -> None:
    ways = {
        "north": (Way(site="east"), Way(site="south", round_trip=SOON)),
        "west": (Way(site="north", lost_since=NOW),),
    }
    assert known_ends(ways) == (
        ("north", "south"),
        ("north", "west"),
        ("south", "north"),
        ("west", "north"),
    )


def test_only_what_is_lost_is_compared() -> None:
    south = Way(site="south", round_trip=SOON, lost_since=NOW)
    assert lost_ways((south, Way(site="east", round_trip=SOON))) == (
        Way(site="south", lost_since=NOW),
    )
