"""What libvirt is asked for while a guest's disk is copied, and what its answers mean.

By a domain that notes what it is asked; that libvirt and QEMU do it is shown with a real guest.
"""

from __future__ import annotations

import json
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from intertie.nodeagent.adapters import libvirt_copies
from intertie.nodeagent.adapters.libvirt_hypervisor import LibvirtHypervisor
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.ports import CopyJob

BACKUP = libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP


class Domain:
    """Refuses what is in `refuses`."""

    def __init__(self, *refuses: str) -> None:
        self.refuses = refuses
        self.asked: list[str] = []
        self.active = True
        self.now: dict[str, Any] = {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        self.ended: dict[str, Any] = {}
        self.document = ""
        self.frozen = False
        """As its agent says it."""

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.refuses:
            raise libvirt.libvirtError(what)

    def name(self) -> str:
        return "it-aaaaaaaaaaaa"

    def isActive(self) -> bool:
        return self.active

    def agentSetResponseTimeout(self, _seconds: int) -> None:
        pass

    def fsFreeze(self) -> None:
        self._ask("freeze")

    def fsThaw(self) -> None:
        self._ask("thaw")

    def backupBegin(self, document: str, _checkpoint: None, flags: int) -> None:
        assert flags == libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL
        self.document = document
        self._ask("begin")

    def abortJob(self) -> None:
        self._ask("abort")

    def jobStats(self, flags: int = 0) -> dict[str, Any]:
        return self.ended if flags else self.now


@pytest.fixture(autouse=True)
def monitor(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What QEMU is asked; it has a job of another kind, too."""
    asked: list[dict[str, Any]] = []
    jobs = [{"device": "b1", "type": "backup"}, {"device": "m1", "type": "mirror"}]

    def command(_domain: Domain, text: str, _flags: int) -> str:
        said = json.loads(text)
        asked.append(said)
        return json.dumps({"return": jobs if said["execute"] == "query-block-jobs" else {}})

    def agent(domain: Domain, text: str, _timeout_s: int, _flags: int) -> str:
        assert json.loads(text) == {"execute": "guest-fsfreeze-status"}
        return json.dumps({"return": "frozen" if domain.frozen else "thawed"})

    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", command)
    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", agent)
    return asked


def test_file_systems_are_frozen_for_the_moment_at_which_it_begins(
    monitor: list[dict[str, Any]],
) -> None:
    domain = Domain()
    assert libvirt_copies.begin(domain, "/pool/a.copying", 8, quiesce=True)
    assert domain.asked == ["freeze", "begin", "thaw"]
    assert "/pool/a.copying" in domain.document
    assert monitor[1:] == [
        {"execute": "block-job-set-speed", "arguments": {"device": "b1", "speed": 8 << 20}}
    ]


def test_they_are_thawed_where_nothing_was_begun() -> None:
    domain = Domain("begin")
    with pytest.raises(libvirt.libvirtError):
        libvirt_copies.begin(domain, "/pool/a.copying", 8, quiesce=True)
    assert domain.asked == ["freeze", "begin", "thaw"]


@pytest.mark.parametrize(
    ("quiesce", "asked"), [(True, ["freeze", "thaw", "begin"]), (False, ["begin"])]
)
def test_without_the_guest_s_agent_it_is_as_after_a_power_failure(
    *, quiesce: bool, asked: list[str]
) -> None:
    domain = Domain("freeze")
    assert not libvirt_copies.begin(domain, "/pool/a.copying", 8, quiesce=quiesce)
    assert domain.asked == asked


def test_one_is_thawed_where_its_agent_says_so() -> None:
    domain = Domain()
    assert libvirt_copies.thaw(domain)
    assert domain.asked == ["thaw"]
    domain.frozen = True
    assert not libvirt_copies.thaw(domain)
    with pytest.raises(libvirt.libvirtError):
        libvirt_copies.thaw(Domain("thaw"))


@pytest.mark.parametrize(
    ("now", "ended", "expected"),
    [
        (
            {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "disk_processed": 3, "disk_total": 9},
            {},
            CopyJob(over=False, done_bytes=3, total_bytes=9),
        ),
        (
            {},
            {"type": libvirt.VIR_DOMAIN_JOB_COMPLETED, "operation": BACKUP, "disk_total": 9},
            CopyJob(over=True, done_bytes=9, total_bytes=9),
        ),
        (
            {},
            {"type": libvirt.VIR_DOMAIN_JOB_FAILED, "operation": BACKUP, "errmsg": "no space"},
            CopyJob(over=True, problem="no space"),
        ),
        (
            {},
            {"type": libvirt.VIR_DOMAIN_JOB_CANCELLED, "operation": BACKUP},
            CopyJob(over=True, problem="it was broken off"),
        ),
        ({}, {}, CopyJob(over=True, problem="nobody knows what became of it")),
    ],
)
def test_one_is_whole_only_where_libvirt_says_so(
    now: dict[str, Any], ended: dict[str, Any], expected: CopyJob
) -> None:
    domain = Domain()
    domain.now = {"type": libvirt.VIR_DOMAIN_JOB_NONE} | now
    domain.ended = ended
    assert libvirt_copies.look(domain) == expected


def test_of_a_guest_that_is_off_there_is_none() -> None:
    domain = Domain()
    domain.active = False
    with pytest.raises(HostFailure, match="switched off"):
        libvirt_copies.look(domain)
    libvirt_copies.end(domain)
    assert domain.asked == []


async def test_of_a_guest_that_is_no_more_there_is_nothing_to_end() -> None:
    await LibvirtHypervisor("test:///default").end_copy("it-aaaaaaaaaaaa")


def test_no_other_job_is_ended_for_it() -> None:
    domain = Domain()
    domain.now = {"type": 2, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE}
    libvirt_copies.end(domain)
    assert domain.asked == [], "nor is the guest's agent waited for"
    domain.now = {"type": 2, "operation": BACKUP}
    libvirt_copies.end(domain)
    assert domain.asked == ["abort"]
