"""Data sets and volumes at a site: what they take, what is found for them, and that they stay."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from intertie.broker.domain.admission_policy import ACCEPT_ALL
from intertie.broker.domain.amounts import amounts_of, fixed_amounts
from intertie.broker.domain.demands import stretch_demands
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.guarantees import guarantees_of
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.migrating import only_kept
from intertie.broker.domain.planning import Image, check_disks, part_spec_of, pinned
from intertie.broker.domain.renegotiating import same_disks
from intertie.broker.domain.site_caps import with_site_defaults
from intertie.broker.domain.usage import charge_kept, charge_of
from intertie.broker.domain.wanted import wanted_of
from intertie.broker.usecases.find_images import find_images
from intertie.common.amend_rules import GROUPS
from intertie.common.errors import FieldInvalid, ImageNotReady
from intertie.common.guarantees import GuaranteeKind
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.part_spec import FurtherDisk, PartWorkspace
from intertie.common.quantities import Vector
from intertie.common.spec import ClusterSpec, Dataset, DiskTerm, Volume
from intertie.common.tariff import Rates, part_hour
from intertie.common.values import replace
from tests.unit.broker import test_amending, test_elsewhere, test_migrating, vacating
from tests.unit.broker.line import name_of, part_of, with_records
from tests.unit.broker.samples import DIGEST, HOUR, NOW, POLICY, facts, part, part_spec, workspace
from tests.unit.broker.standing import group, spec

DATA_DIGEST = "b3:" + "cd" * 32
DATA = FurtherDisk(name="genomes", image=DATA_DIGEST)
SCRATCH = FurtherDisk(
    name="scratch", size_mib=256, disk=DiskTerm(guarantee_iops=40, cap_iops=50, cap_mib_s=5)
)
NAME = ClusterName.parse("sites/north/tenants/demo/clusters/one")
TAKES = Vector(disk_mib=256, iops=50 + 500, throughput_mib_s=5 + 100)
"""Of both, with the site's default caps for the data set."""


def with_disks(group: str = "w", index: int = 0) -> PartWorkspace:
    return replace(workspace(group, index), disks=(DATA, SCRATCH))


def asked(*groups: str) -> ClusterSpec:
    return replace(
        spec(*(group(each, 1) for each in groups or ("a",))),
        datasets=(Dataset(name="genomes", source="genomes-v2"),),
        volumes=(Volume(name="scratch", size_mib=256, disk=SCRATCH.disk, group="a"),),
    )


@dataclass
class Store:
    sizes: dict[str, int] = field(default_factory=dict)

    async def find(self, tenant: str, image: str) -> Image | None:
        size = self.sizes.get(image)
        if size is None:
            return None
        return Image(digest=DATA_DIGEST, size_bytes=size, virtual_size_bytes=size)


def test_they_take_of_their_host_what_a_root_disk_would_and_the_octets_of_data_nothing() -> None:
    of = with_site_defaults(part_spec(with_disks()), POLICY)
    [placed] = of.workspaces
    assert fixed_amounts(placed) - fixed_amounts(workspace()) == TAKES
    amounts = amounts_of(of, {"w-0": "n1"}, "")
    assert amounts["host/n1/disk_mib"] == 128 + 256
    assert amounts["host/n1/iops"] == 100 + 550


def test_while_it_is_put_aside_its_volumes_are_kept_and_charged_for() -> None:
    spec = with_site_defaults(part_spec(with_disks()), POLICY)
    keeping = Keeping(mib_s=10, save=HOUR / 60, until=NOW + 9 * HOUR)
    of = part(spec=spec, keeping=keeping)
    _, kept = stretch_demands(of, keeping, ACCEPT_ALL)
    host = of.placed[0].host
    assert kept.amounts == {f"host/{host}/disk_mib": 128 + 256 + 128}
    assert charge_kept(of).reserved.hosts == Vector(disk_mib=128 + 256 + 128)
    assert charge_of(of).reserved.hosts.disk_mib == 128 + 256
    [rest] = only_kept(spec).workspaces
    assert fixed_amounts(rest) == Vector(disk_mib=128 + 256 + 128)


def test_they_cost_what_other_disk_does() -> None:
    rates = Rates(disk_gib_hour=1024.0, iops_hour=1.0, throughput_mib_s_hour=1000.0)
    with_them, without = (
        part_hour(rates, with_site_defaults(part_spec(each), POLICY))
        for each in (with_disks(), workspace())
    )
    assert with_them - without == pytest.approx(256 + 550 + 105_000)


def test_what_they_are_promised_stands_among_the_guarantees() -> None:
    [iops] = guarantees_of(part_spec(with_disks()))
    assert (iops.kind, iops.source, iops.target) == (GuaranteeKind.DISK_IOPS, "w-0", "scratch")
    assert (iops.guarantee, iops.cap) == (40, 50)


async def test_a_data_set_that_is_not_at_the_site_is_named_with_its_field() -> None:
    image = asked().groups[0].environment.image
    with pytest.raises(ImageNotReady) as caught:
        await find_images(Store({image: 512}), asked(), "demo", site="north")
    assert caught.value.field == "spec.datasets[0].source"
    assert caught.value.image == "genomes-v2"
    both = await find_images(Store({image: 512, "genomes-v2": 512}), asked(), "demo", site="n")
    assert both.keys() == {image, "genomes-v2"}


def test_a_data_set_of_half_a_sector_is_refused_with_its_field() -> None:
    of = asked()
    images = {
        name: Image(digest=DIGEST, size_bytes=size, virtual_size_bytes=size)
        for name, size in ((of.groups[0].environment.image, 100), ("genomes-v2", 1000))
    }
    with pytest.raises(FieldInvalid, match="multiples of 512") as caught:
        check_disks(of, images)
    assert caught.value.field == "spec.datasets[0].source"


def test_a_part_has_the_digest_of_its_data_and_the_sites_caps_and_its_host_is_told() -> None:
    of = asked("a", "b")
    names = (of.groups[0].environment.image, "genomes-v2")
    images = {
        name: Image(digest=digest, size_bytes=512, virtual_size_bytes=512)
        for name, digest in zip(names, (DIGEST, DATA_DIGEST), strict=True)
    }
    window = Window(NOW, NOW + HOUR)
    made = part_spec_of(NAME, "0" * 12, pinned(of, images, POLICY), {"a": 1, "b": 1}, window, "n")
    data = replace(DATA, disk=DiskTerm(cap_iops=500, cap_mib_s=100))
    assert {each.label: each.disks for each in made.workspaces} == {
        "a-0": (data, SCRATCH),
        "b-0": (data,),
    }
    assert made.workspaces[0].images == (DIGEST, DATA_DIGEST)
    standing = part(spec=part_spec(with_disks()))
    told = wanted_of(standing, Fleet.of([facts("n1")], POLICY), POLICY, gone=False)
    [wanted] = told[standing.placed[0].host].workspaces
    assert wanted.disks == (DATA, SCRATCH)


def test_who_comes_later_has_the_disks_of_its_group_as_they_were_admitted() -> None:
    """Not those that the names stand for by now, nor the caps that are the default by now."""
    record, part = test_amending.made(asked())
    admitted = tuple(replace(each, disks=(DATA, SCRATCH)) for each in part.spec.workspaces)
    part = replace(part, spec=replace(part.spec, workspaces=admitted))
    more = replace(asked(), groups=(group("a", 2),))
    after = test_amending.changed((record, part), more, GROUPS)
    assert [each.disks for each in after.part.spec.workspaces] == [(DATA, SCRATCH)] * 2


def test_a_coordinator_that_says_no_cap_leaves_those_in_force_and_may_change_no_disk() -> None:
    had = (replace(DATA, disk=DiskTerm(cap_iops=700, cap_mib_s=70)), SCRATCH)
    assert same_disks((DATA, SCRATCH), had)
    assert not same_disks((DATA,), had)
    assert not same_disks((DATA, replace(SCRATCH, size_mib=257)), had)
    assert not same_disks((replace(DATA, disk=DiskTerm(cap_iops=1)), SCRATCH), had)


def test_who_has_any_does_not_migrate_and_is_told_why_while_others_of_the_part_do() -> None:
    of = test_migrating.of_two()
    first, second = of.spec.workspaces
    of = replace(of, spec=replace(of.spec, workspaces=(replace(first, disks=(SCRATCH,)), second)))
    with pytest.raises(FieldInvalid, match="w-0 has scratch; it stays where it is") as caught:
        test_migrating.asked(of, "w-0")
    assert caught.value.field == "action"
    with pytest.raises(FieldInvalid, match="w-0 has scratch"):
        test_migrating.asked(of)
    assert test_migrating.asked(of, "w-1") is not None


def test_who_has_any_gives_way_by_being_put_aside_and_not_by_migration() -> None:
    here = vacating.split()
    before = part_of(here, "b")
    [own] = before.spec.workspaces
    for disks in ((DATA,), (SCRATCH,)):
        spec = replace(before.spec, workspaces=(replace(own, disks=disks),))
        there = with_records(here, replace(before, spec=with_site_defaults(spec, POLICY)))
        then = part_of(vacating.after(there, vacating.asks(there)), "b")
        assert (then.moving, then.vacating) == ((), None)
        assert then.window.end < before.window.end


def test_who_has_any_waits_where_it_is_put_aside_and_is_not_brought_elsewhere() -> None:
    here, host = test_elsewhere.put()
    here = with_records(here, test_elsewhere.full(host, until=NOW + 9 * HOUR))
    before = part_of(here, "a")
    [own] = before.spec.workspaces
    held = replace(before, spec=replace(before.spec, workspaces=(replace(own, disks=(SCRATCH,)),)))
    assert test_elsewhere.brought_to(with_records(here, held)) == {}
    assert test_elsewhere.brought_to(here) != {}
    assert name_of("a") in here.clusters
