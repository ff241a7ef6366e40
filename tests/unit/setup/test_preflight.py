"""A machine that fits has no problems; each way not to fit is named, with what to do."""

import signal
from dataclasses import replace
from typing import Any

import pytest

import setup.__main__
from setup.facts import KERNEL_PROBES, Facts
from setup.preflight import problems

FIT = Facts(
    root=True,
    os_id="debian",
    os_version="12",
    os_name="Debian GNU/Linux 12 (bookworm)",
    architecture="x86_64",
    python=(3, 11),
    tun_device=True,
    kernel_lacks=(),
    free_disk_mib=10_000,
)


def test_a_fit_machine_has_no_problems() -> None:
    assert problems(FIT) == []


def test_a_kernel_that_cannot_be_asked_yet_is_no_problem_yet() -> None:
    assert problems(replace(FIT, kernel_lacks=None)) == []


@pytest.mark.parametrize(
    ("change", "named", "remedy"),
    [
        ({"root": False}, "not root", "sudo"),
        ({"os_id": "ubuntu", "os_name": "Ubuntu 24.04"}, "Ubuntu 24.04", "Debian 12"),
        ({"os_version": "11", "os_name": "Debian 11"}, "Debian 11", "Debian 12"),
        ({"architecture": "aarch64"}, "aarch64", "x86_64"),
        ({"python": (3, 13)}, "3.13", "apt-get install"),
        ({"tun_device": False}, "/dev/net/tun", "modprobe tun"),
        ({"kernel_lacks": ("ifb", "HTB")}, "ifb, HTB", "kernel"),
        ({"free_disk_mib": 100}, "100 MiB", "Make room"),
    ],
)
def test_each_problem_is_named_with_its_remedy(
    change: dict[str, Any], named: str, remedy: str
) -> None:
    [problem] = problems(replace(FIT, **change))
    assert named in problem
    assert remedy in problem


def test_all_problems_are_told_at_once() -> None:
    unfit = replace(FIT, root=False, tun_device=False, kernel_lacks=tuple(KERNEL_PROBES))
    assert len(problems(unfit)) == 3


def test_a_machine_that_does_not_fit_is_told_so_before_anything_is_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def changed(*_: object) -> None:
        raise AssertionError("something was changed")

    for step in ("_packages", "_environment", "_guest_image"):
        monkeypatch.setattr(setup.__main__, step, changed)
    monkeypatch.setattr(setup.__main__, "probe", lambda _: replace(FIT, tun_device=False))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert setup.__main__.main() == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr().err
    assert "/dev/net/tun" in said
    assert "modprobe tun" in said
