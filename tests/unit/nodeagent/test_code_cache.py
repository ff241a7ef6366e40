"""Whether an emulated guest can be given a vCPU without the end of its emulator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intertie.nodeagent.domain.code_cache import CodeCache, has_room, regions
from intertie.nodeagent.domain.failures import HostFailure

SAID = """Translation buffer state:
gen code size       {used}/{size}
TB count            154321
TB avg target size  14 max=1980 bytes
"""


def cache(used: int, size: int, *, mib: int = 64, most: int = 2) -> CodeCache:
    return CodeCache(mib=mib, most_vcpus=most, said=SAID.format(used=used, size=size))


@pytest.mark.parametrize(
    ("mib", "most", "number"),
    [(64, 2, 16), (64, 4, 32), (64, 8, 32), (64, 40, 40), (128, 2, 16), (128, 4, 32), (128, 8, 64)],
)
def test_a_cache_is_cut_as_the_emulator_does_it(mib: int, most: int, number: int) -> None:
    assert regions(mib, most) == number


@pytest.mark.parametrize(
    ("used", "size", "mib", "room"),
    [
        # As six of six guests had it that were lost.
        (66591123, 67026944, 64, False),
        (66267683, 67026944, 64, False),
        # As those had it that went on.
        (66762323, 134135808, 128, True),
        (5302675, 67026944, 64, True),
    ],
)
def test_guests_that_were_lost_would_not_have_been_given_any(
    used: int, size: int, mib: int, room: bool
) -> None:
    assert has_room(cache(used, size, mib=mib), total=2) is room


def test_each_that_comes_and_each_that_is_there_has_a_region() -> None:
    part = 67026944 // 32
    for total, most_full in ((2, 29), (4, 27)):
        for full in range(32):
            found = has_room(cache(full * part + 1024, 67026944, most=4), total=total)
            assert found is (full <= most_full), (total, full)


@pytest.mark.parametrize("said", ["", "gen code size 1", "gen code size 0/0", "[TCG is not used]"])
def test_an_emulator_that_does_not_tell_is_not_tried(said: str) -> None:
    with pytest.raises(HostFailure, match="does not tell"):
        has_room(CodeCache(mib=64, most_vcpus=2, said=said), total=2)


@given(st.data())
def test_where_room_is_seen_there_is_some(data: st.DataObject) -> None:
    """However the vCPUs have filled their regions, and though the first one is smaller."""
    most = data.draw(st.integers(min_value=2, max_value=20))
    mib = data.draw(st.sampled_from([64, 128]))
    number = regions(mib, most)
    usable = mib * 1024 * 1024 // number - 1024 - 4096
    vcpus = data.draw(st.integers(min_value=1, max_value=most - 1))
    total = data.draw(st.integers(min_value=vcpus + 1, max_value=most))
    full = data.draw(st.integers(min_value=0, max_value=number - vcpus))
    prologue = data.draw(st.integers(min_value=0, max_value=usable // 2))
    begun = [data.draw(st.integers(min_value=0, max_value=usable)) for _ in range(vcpus)]
    used = max(full * usable - prologue, 0) + sum(begun)
    found = cache(used, number * usable, mib=mib, most=most)
    if has_room(found, total=total):
        assert full + vcpus + (total - vcpus) <= number
