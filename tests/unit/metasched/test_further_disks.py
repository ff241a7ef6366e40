"""Data sets and volumes over several sites: where they may be, and what they take there."""

from __future__ import annotations

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.layout import layout
from intertie.common.part_spec import FurtherDisk
from intertie.common.quantities import Vector
from intertie.common.spec import ClusterSpec, Dataset, DiskTerm, Volume, normalise
from intertie.common.values import replace
from intertie.metasched.domain.amending import Growth, to_plan
from intertie.metasched.domain.assemble import assembled
from intertie.metasched.domain.candidates import check_disks, hindrance, images_missing
from intertie.metasched.domain.conflicts import conflicts_of, verdict_of
from intertie.metasched.domain.feasibility import Feasibility
from intertie.metasched.domain.guarantees import guarantees_of
from intertie.metasched.domain.parts import part_specs
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import first_plan
from intertie.metasched.domain.problem import ImageFound, Problem, problem_of
from intertie.metasched.domain.requirements import Times, asked_of
from intertie.metasched.domain.solver import solve
from tests.unit.metasched import world
from tests.unit.metasched.problems import DIGEST, IMAGES, NOW, OTHER_DIGEST, offer, room, window

DATA = {"genomes-v2": ImageFound(digest=OTHER_DIGEST, size_bytes=1024)}
BOTH = {**IMAGES, **DATA}


def asked(workers: int = 2, *, size_mib: int = 256) -> ClusterSpec:
    spec = replace(
        world.spec(workers),
        datasets=(Dataset(name="genomes", source="genomes-v2", groups=("worker",)),),
        volumes=(
            Volume(
                name="scratch",
                size_mib=size_mib,
                group="worker",
                disk=DiskTerm(guarantee_iops=40, cap_iops=50),
            ),
        ),
    )
    return normalise(spec, now=NOW)


def given(spec: ClusterSpec, **images: dict[str, ImageFound]) -> Problem:
    """Of sites with a host each that has room for all of it."""
    offers = {
        name: (replace(offer(room(8), images=found), default_iops=500, default_mib_s=100),)
        for name, found in images.items()
    }
    return problem_of(spec, (window(),), offers)


def planned(problem: Problem) -> Plan | None:
    """Solved and searched for: both find one, or neither."""
    found = solve(problem)
    assert (first_plan(problem, steps=1000) is None) == (found is None)
    return found


def test_a_group_is_only_where_its_data_sets_are() -> None:
    problem = given(asked(), a=IMAGES, b=BOTH)
    head, worker = problem.groups
    a, b = problem.sites
    assert hindrance(head, a) is None
    assert hindrance(worker, b) is None
    found = hindrance(worker, a)
    assert found is not None
    assert (found.resource, found.site) == ("image", "a")
    assert "data set genomes for worker" in found.message
    plan = planned(problem)
    assert plan is not None
    assert plan.site_of()["worker-0"] == "b"
    assert plan.data == {"worker": (OTHER_DIGEST,)}
    assert not check(problem, plan)
    lacking = replace(plan, data={})
    assert any(each.resource == "image" for each in check(problem, lacking))


def test_one_that_no_site_has_is_named_as_a_missing_image() -> None:
    assert images_missing(given(asked(), a=IMAGES)) == ("genomes-v2",)
    assert images_missing(given(asked(), a=BOTH)) == ()


def test_all_of_a_group_read_the_same_octets() -> None:
    """Also where sites use one name for several."""
    other = {**IMAGES, "genomes-v2": ImageFound(digest="b3:" + "3" * 64, size_bytes=512)}
    spec = asked(workers=12)
    spec = replace(spec, groups=spec.groups[1:])
    assert planned(given(spec, a=BOTH, b=other)) is None
    assert planned(given(spec, a=BOTH, b=BOTH)) is None, "there is no link between them"
    alone = replace(spec, groups=(replace(spec.groups[0], networks=()),), networks=())
    assert planned(given(alone, a=BOTH, b=BOTH)) is not None
    assert planned(given(alone, a=BOTH, b=other)) is None


def test_a_data_set_of_half_a_sector_is_refused_with_its_field() -> None:
    half = {**IMAGES, "genomes-v2": ImageFound(digest=OTHER_DIGEST, size_bytes=1000)}
    with pytest.raises(FieldInvalid, match="multiples of 512") as caught:
        check_disks(given(asked(), a=half))
    assert caught.value.field == "spec.datasets[0].source"
    check_disks(given(asked(), a=BOTH))


def test_each_disk_takes_what_its_site_admits_it_by() -> None:
    problem = given(asked(), a=BOTH)
    [site], (head, worker) = problem.sites, problem.groups
    alone = site.takes(replace(worker, further=()))
    assert site.takes(head) == alone
    more = Vector(disk_mib=256, iops=50 + 500, throughput_mib_s=100 + 100)
    assert site.takes(worker) - alone == more
    assert site.charges(worker) - site.charges(replace(worker, further=())) == more


def test_parts_have_digests_and_their_promises() -> None:
    spec = asked()
    problem = given(spec, a=BOTH)
    plan = planned(problem)
    assert plan is not None
    placed = layout("uid", spec, {"head": 1, "worker": 2}, plan.site_of(), "c1")
    part = part_specs("c1", "uid", spec, plan, placed)["a"]
    disks = (
        FurtherDisk(name="genomes", image=OTHER_DIGEST),
        FurtherDisk(name="scratch", size_mib=256, disk=DiskTerm(guarantee_iops=40, cap_iops=50)),
    )
    assert {each.label: each.disks for each in part.workspaces} == {
        "head-0": (),
        "worker-0": disks,
        "worker-1": disks,
    }
    told = guarantees_of(spec, plan, placed, {})
    assert {(each.source, each.target) for each in told} == {
        ("worker-0", "scratch"),
        ("worker-1", "scratch"),
    }


def test_who_comes_later_has_the_data_that_the_plan_in_force_has() -> None:
    spec = asked()
    plan = planned(given(spec, a=BOTH))
    assert plan is not None
    bounds = {each.name: (each.fewest, each.most) for each in spec.groups}
    growth = Growth(standing={}, least={}, base={}, bounds=bounds)
    again = to_plan(spec, growth, plan)
    newer = {**BOTH, "genomes-v2": ImageFound(digest="b3:" + "3" * 64)}
    there = {**newer, DIGEST: IMAGES["guest"], OTHER_DIGEST: DATA["genomes-v2"]}
    found = planned(given(again, a=there))
    assert found is not None
    assert found.data == plan.data


def test_a_volume_that_fits_nowhere_is_named_as_what_stands_in_the_way() -> None:
    problem = given(asked(size_mib=1 << 20), a=BOTH)
    times = Times(asked=(0,))
    found = asked_of(problem, times, ("lan",))
    verdict = verdict_of(problem, times, found, Feasibility(effort=60, each=5, size=10**9))
    [conflict] = conflicts_of(len(found), verdict).sets
    assert [found[each].field for each in conflict] == ["spec.volumes[0]"]
    assert "volume scratch of 1048576 MiB for each worker" in found[min(conflict)].message


def test_who_stays_is_not_asked_for_its_data_again() -> None:
    """Also where its store has not got it any more; nothing was to be brought there."""
    spec = asked()
    lone = replace(spec, groups=spec.groups[1:])
    problem = replace(
        given(lone, a=IMAGES),
        standing={("worker", "a"): 2},
        least={("worker", "a"): 2},
    )
    plan = assembled(problem, 0, {}, {}, counts={"a": {"worker": 2}})
    assert plan.data == {"worker": ("",)}
    assert not [each for each in check(problem, plan) if each.resource == "image"]
