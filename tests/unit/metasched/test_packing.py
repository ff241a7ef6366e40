"""Which hosts of a site workspaces go on."""

import pytest

from intertie.metasched.domain.packing import Packer
from tests.unit.metasched.problems import group, offer, problem


def test_a_site_that_is_full_is_not_put_anew_for_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: a search that met full sites took a hundred times as long as its steps say."""
    given = problem([group(), group("large", vcpus=3)], {"a": offer(4, 4)})
    [site] = given.sites
    packer = Packer(given, 0, {"worker": 9, "large": 1})
    spread = packer.with_more(site, packer.empty(site), "worker", 5)
    assert spread is not None
    assert [host["worker"] for host in spread.counts] == [4, 1]
    full = packer.with_more(site, spread, "large", 1)
    assert full is not None
    monkeypatch.setattr(packer, "empty", None)
    assert packer.with_more(site, full, "worker", 1) is None
    assert packer.with_more(site, spread, "large", 2) is None
