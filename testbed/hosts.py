"""A host: the folders it sees as its own, its libvirt's configuration, its two daemons."""

from __future__ import annotations

import socket
import uuid
from functools import partial
from pathlib import Path

from testbed import cgroups
from testbed.component import Component, Inside
from testbed.places import Places
from testbed.topology import Topology

_MOUNT_POINTS = (
    "/run/libvirt",
    "/etc/libvirt",
    "/var/log/libvirt",
    "/var/cache/libvirt",
    "/var/lib/libvirt",
)
"""Where a host mounts its own folders. On the machine itself they may be empty, but must be."""

_NAMESPACE = uuid.UUID("6b1f0c56-4c0f-5d1c-9d0e-2c5d9f1f6a77")

_QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = [{controllers}]
"""

_LIBVIRTD_CONF = """\
host_uuid = "{host_uuid}"
listen_tls = 0
listen_tcp = 0
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:stderr"
"""


def host_uuid(instance: str, site: str, host: str) -> uuid.UUID:
    """The same at every start, different for every host of every instance."""
    return uuid.uuid5(_NAMESPACE, f"{instance}/{site}/{host}")


def prepare_host(places: Places, site: str, host: str, *, vcpus: int) -> None:
    """Its folders, its configuration, its cgroups. Done once, before the first daemon."""
    for point in _MOUNT_POINTS:
        Path(point).mkdir(parents=True, exist_ok=True)
    run = places.host_run(site, host)
    for name in ("run", "etc", "log", "cache", "cgroup"):
        (run / name).mkdir(parents=True)
    (places.host_disk(site, host) / "libvirt" / "qemu").mkdir(parents=True)
    agent_data(places, site, host).mkdir(parents=True)
    (run / "etc" / "qemu" / "networks").mkdir(parents=True)
    quoted = ", ".join(f'"{name}"' for name in cgroups.controllers())
    (run / "etc" / "qemu.conf").write_text(_QEMU_CONF.format(controllers=quoted))
    own = host_uuid(places.instance, site, host)
    (run / "etc" / "libvirtd.conf").write_text(_LIBVIRTD_CONF.format(host_uuid=own))
    (run / "etc" / "virtlogd.conf").write_text('log_outputs = "2:stderr"\n')
    (run / "etc" / "libvirt.conf").write_text("")
    folders = cgroups.ensure(places.cgroup_name, f"{site}-{host}", vcpus=vcpus)
    own_cgroups = " ".join(f"{name}={folder}" for name, folder in folders.items())
    (run / "cgroups").write_text(own_cgroups)


def agent_data(places: Places, site: str, host: str) -> Path:
    """The node agent's own disk: pool, image cache, seeds, state."""
    return places.host_disk(site, host) / "agent"


def inside_host(places: Places, site: str, host: str) -> Inside:
    """For a process of the host; the host need not exist yet."""
    return Inside(
        netns=places.host_netns(site, host),
        host_run=places.host_run(site, host),
        host_disk=places.host_disk(site, host),
    )


def host_components(places: Places, topology: Topology) -> list[Component]:
    components = []
    for site, host in topology.hosts():
        path = f"{site.name}/{host.name}"
        sockets = places.host_run(site.name, host.name) / "run"
        inside = inside_host(places, site.name, host.name)
        for daemon, name in (("virtlogd", "virtlogd-sock"), ("libvirtd", "libvirt-sock")):
            components.append(
                Component(
                    name=f"{path}/{daemon}",
                    places=places,
                    inside=inside,
                    argv=(daemon, "--pid-file", f"/run/libvirt/{daemon}.pid"),
                    ready=partial(answers, sockets / name),
                )
            )
    return components


def answers(path: Path) -> bool:
    """Somebody listens on the unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return True
