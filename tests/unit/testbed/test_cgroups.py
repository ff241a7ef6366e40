from __future__ import annotations

from pathlib import Path

from testbed.cgroups import hierarchies

SEPARATE = """\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:50 / /somewhere/else/cpuset rw - cgroup cgroup rw,cpuset
"""


def test_only_usable_controllers_count_each_below_ones_own_place() -> None:
    found = hierarchies(SEPARATE, "4:memory:/box/7\n1:cpu:/\n0::/")
    assert [(each.controllers, each.own) for each in found] == [
        (("cpu",), Path("/sys/fs/cgroup/cpu")),
        (("memory",), Path("/sys/fs/cgroup/memory/box/7")),
    ]


def test_controllers_that_share_a_mount_are_one_hierarchy() -> None:
    line = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
    (found,) = hierarchies(line, "2:cpu,cpuacct:/user")
    assert found.controllers == ("cpu", "cpuacct")
    assert found.own == Path("/sys/fs/cgroup/cpu,cpuacct/user")


def test_version_two_alone_gives_none() -> None:
    assert hierarchies("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "0::/user") == ()
