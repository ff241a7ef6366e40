"""What counts as left behind."""

import pytest

from setup.leftovers import is_ours, left_since, mount_points


def test_only_what_is_new_is_left() -> None:
    assert left_since({"mount /", "namespace old"}, {"mount /", "namespace x"}) == ["namespace x"]


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/qemu-system-x86_64 -name a",
        "libvirtd --pid-file x",
        "/w/.venv/bin/python /w/.venv/bin/intertie-broker --config f",
        "/w/.venv/bin/python -m testbed up",
    ],
)
def test_what_a_testbed_runs_is_ours(command: str) -> None:
    assert is_ours(command.split())


@pytest.mark.parametrize("command", ["sshd: listener", "python3 -m http.server", "cat my-intertie"])
def test_what_others_run_is_not(command: str) -> None:
    assert not is_ours(command.split())


def test_mount_points_are_read_from_mountinfo() -> None:
    line = "36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw"
    assert mount_points(line) == ["/mnt/parent"]
