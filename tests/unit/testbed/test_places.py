from __future__ import annotations

import re

import pytest

from testbed.places import Places
from testbed.services import service_socket
from testbed.topology import InvalidTopology

LONGEST = "a2345678901"
UNIX_PATH_MAX = 107


def test_socket_paths_fit_the_kernels_limit_with_the_longest_names() -> None:
    places = Places(LONGEST)
    sockets = (
        places.libvirt_socket(LONGEST, LONGEST),
        service_socket(places, f"{LONGEST}/imagestore"),
        service_socket(places, f"{LONGEST}/{LONGEST}/nodeagent"),
    )
    assert all(len(str(path)) <= UNIX_PATH_MAX for path in sockets)


@pytest.mark.parametrize("instance", ["", "a-b", "../x", "A", "."])
def test_an_instance_cannot_be_named_as_a_path_or_part_of_another(instance: str) -> None:
    with pytest.raises(InvalidTopology):
        Places(instance)


def test_no_instances_namespaces_start_with_anothers() -> None:
    assert not Places("ab").fabric_netns.startswith(Places("a").netns_prefix)


def test_pid_files_of_components_are_flat_and_distinct() -> None:
    names = ["north/etcd-0", "north/n1/libvirtd", "meta/metasched"]
    files = {Places("demo").pid_file(name).name for name in names}
    assert len(files) == 3
    assert all(re.fullmatch(r"[a-z0-9.-]+\.json", name) for name in files)
