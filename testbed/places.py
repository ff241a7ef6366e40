"""Where everything of an instance is: names of namespaces, folders, sockets.

All of it follows from the instance's name, so that what a killed testbed left can be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.topology import check_name

RUN = Path("/run/intertie")
DISK = Path("/var/lib/intertie/testbed")
NETNS = Path("/run/netns")
MARK = "TESTBED_INSTANCE"
"""Environment variable of every process that the testbed starts; its value is the instance."""


@dataclass(frozen=True, slots=True)
class Places:
    """The names of one instance."""

    instance: str

    def __post_init__(self) -> None:
        check_name("instance", self.instance)

    @property
    def run(self) -> Path:
        return RUN / self.instance

    @property
    def disk(self) -> Path:
        return DISK / self.instance

    @property
    def pids(self) -> Path:
        return self.run / "pid"

    @property
    def logs(self) -> Path:
        return self.run / "log"

    @property
    def configs(self) -> Path:
        return self.run / "etc"

    @property
    def pki(self) -> Path:
        return self.run / "pki"

    @property
    def sockets(self) -> Path:
        return self.run / "sock"

    @property
    def clients(self) -> Path:
        """Client configuration for users, a folder each."""
        return self.run / "client"

    def points(self, component: str) -> Path:
        """Where points of a service are armed, see intertie.common.points."""
        return self.run / "points" / component.replace("/", ".")

    @property
    def topology_file(self) -> Path:
        return self.run / "topology.json"

    @property
    def netns_prefix(self) -> str:
        return f"it-{self.instance}-"

    @property
    def cgroup_name(self) -> str:
        return f"it-{self.instance}"

    @property
    def fabric_netns(self) -> str:
        return f"{self.netns_prefix}fabric"

    @property
    def meta_netns(self) -> str:
        return f"{self.netns_prefix}meta"

    def ctl_netns(self, site: str) -> str:
        return f"{self.netns_prefix}{site}-ctl"

    def host_netns(self, site: str, host: str) -> str:
        return f"{self.netns_prefix}{site}-{host}"

    def host_run(self, site: str, host: str) -> Path:
        """Holds the folders that a host sees as its own /etc/libvirt, /run/libvirt and so on."""
        return self.run / "host" / f"{site}-{host}"

    def host_disk(self, site: str, host: str) -> Path:
        return self.disk / f"{site}-{host}"

    def libvirt_socket(self, site: str, host: str) -> Path:
        """As seen from outside of the host."""
        return self.host_run(site, host) / "run" / "libvirt-sock"

    def libvirt_uri(self, site: str, host: str) -> str:
        return f"qemu+unix:///system?socket={self.libvirt_socket(site, host)}"

    def pid_file(self, component: str) -> Path:
        return self.pids / (component.replace("/", ".") + ".json")

    def log_file(self, component: str) -> Path:
        return self.logs / (component.replace("/", ".") + ".log")
