"""Data sets and volumes on a host: what is made of them before a guest starts, and counted."""

from __future__ import annotations

import pytest

from intertie.common.actions import AS_BEGUN, Power, Switched
from intertie.common.errors import FieldInvalid
from intertie.common.guarantees import GuaranteeKind
from intertie.common.part_spec import FurtherDisk
from intertie.common.terms import DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.measured import DiskCounters, Reading, measure
from intertie.nodeagent.domain.meters import Promise, meters_of, of_device
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import (
    DomainState,
    Listing,
    Note,
    Observed,
    Phase,
    Step,
    steps,
)
from intertie.nodeagent.domain.record_rules import check_part
from intertie.nodeagent.loops.usage import UsageMeter
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, NOW, PART, PLACE, WORKSPACE
from tests.unit.nodeagent.test_usage import Using

DATA_DIGEST = "b3:" + "cd" * 32
DATA = FurtherDisk(name="genomes", image=DATA_DIGEST, disk=DiskTerm(guarantee_mib_s=50))
SCRATCH = FurtherDisk(name="scratch", size_mib=64, disk=DiskTerm(cap_iops=90))
WITH_DISKS = replace(PART, workspaces=(replace(WORKSPACE, disks=(DATA, SCRATCH)),))
DOMAIN = f"it-{A_UID}"


@pytest.fixture
def host() -> Host:
    made = Host()
    made.records.listing = Listing(parts=(WITH_DISKS,))
    made.images.here.add(DIGEST)
    return made


async def test_a_guest_starts_once_its_data_is_here_and_its_volume_is_made(host: Host) -> None:
    await host.agent.sweep()
    assert host.hypervisor.domains == {}
    assert host.images.asked == [f"demo/{DATA_DIGEST}"]
    host.images.data.add(DATA_DIGEST)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert host.storage.volumes == {(A_UID, 1): 64}


async def test_a_volume_is_kept_over_a_start_and_gone_with_its_workspace(host: Host) -> None:
    host.images.data.add(DATA_DIGEST)
    await host.agent.sweep()
    host.storage.volumes[A_UID, 1] = 65  # as one would see that it was made anew
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    host.start()
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert host.storage.volumes == {(A_UID, 1): 65}
    host.records.listing = Listing()
    await host.agent.sweep()
    assert host.storage.volumes == {}


async def test_what_is_told_of_staging_is_of_the_image_and_the_data(host: Host) -> None:
    await host.agent.sweep()
    assert host.agent.report is not None
    [part] = host.agent.report
    [workspace] = part.workspaces
    assert (workspace.staging_done_bytes, workspace.staging_total_bytes) == (2, 4)


def test_nothing_is_started_and_nobody_goes_on_without_its_data() -> None:
    """Also where it ran before: its data may have gone from the cache."""
    off = Observed(image=True, disk=True, seed=True, domain=DomainState.OFF, data=False)
    kept = replace(off, memory=Memory.SAVED)
    for seen in (off, kept):
        assert steps(Phase.RUN, seen, Note(), AS_BEGUN, isolated=False) == (Step.STAGE_IMAGE,)
    saved = Switched(power=Power.SAVED)
    assert steps(Phase.RUN, kept, Note(), saved, isolated=False) == ()
    running = replace(off, domain=DomainState.RUNNING)
    assert steps(Phase.RUN, running, Note(), AS_BEGUN, isolated=False) == ()
    lacking = replace(off, data=True, volumes=False)
    assert steps(Phase.RUN, lacking, Note(), AS_BEGUN, isolated=False) == (
        Step.MAKE_VOLUMES,
        Step.DEFINE,
        Step.START,
    )


def test_a_disk_that_no_document_should_name_is_refused() -> None:
    evil = FurtherDisk(name="../../etc", size_mib=1)
    with pytest.raises(FieldInvalid, match="no DNS label"):
        check_part(replace(PART, workspaces=(replace(WORKSPACE, disks=(evil,)),)))
    check_part(WITH_DISKS)


def test_what_a_data_set_is_promised_is_measured_by_its_own_counters() -> None:
    [meter] = meters_of([WITH_DISKS], PLACE).disks
    assert (meter.workspace, meter.disk, meter.device) == ("a-0", "genomes", "vdc")
    key = of_device(DOMAIN, "vdc")
    none = DiskCounters(operations=0, bytes=0, busy_ns=0)
    before = Reading(at=NOW, seconds=0, disks={DOMAIN: none, key: none})
    busy = DiskCounters(operations=40, bytes=40 << 20, busy_ns=4_000_000_000)
    after = Reading(at=NOW, seconds=4, disks={DOMAIN: none, key: busy})
    [(promise, found)] = measure(meters_of([WITH_DISKS], PLACE), before, after, {}).items()
    assert promise == Promise(
        part_uid=PART.uid,
        kind=GuaranteeKind.DISK_THROUGHPUT,
        source="a-0",
        target="genomes",
    )
    assert (found.value, found.backlogged, found.below_since) == (10.0, True, NOW)


async def test_what_a_guest_does_with_its_other_disks_it_has_used(tmp_path) -> None:  # type: ignore[no-untyped-def]
    using = Using(tmp_path)
    assert isinstance(using.meter, UsageMeter)
    for operations in (0, 7):
        other = DiskCounters(operations=operations, bytes=operations * 512, busy_ns=0)
        await using.read(read_operations=operations, others={"vdc": other})  # type: ignore[arg-type]
    tally = using.meter.of(PART.uid)[A_UID]
    assert (tally.disk_operations, tally.disk_bytes) == (14, 7 * 512)
