"""Trust domains of a testbed: who has which certificate, and where its files are.

Each site is a domain `{site}.site.intertie`, the meta-scheduler one `{name}.meta.intertie`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.pki import Authority
from testbed.places import Places
from testbed.topology import META, Topology

ETCD_ROOT = "root"
_LOCAL = ("127.0.0.1",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Files of one identity."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One trust domain and its folder of certificates."""

    label: str
    """The site's name, or `meta`."""
    name: str
    folder: Path

    @property
    def roots(self) -> Path:
        return self._authority.roots

    @property
    def etcd_roots(self) -> Path:
        return self._etcd_authority.roots

    @property
    def _authority(self) -> Authority:
        return Authority(self.folder)

    @property
    def _etcd_authority(self) -> Authority:
        return Authority(self.folder, "etcd-ca")

    def create(self) -> None:
        self._authority.create(f"{self.name} authority")
        self._etcd_authority.create(f"{self.name} etcd authority")

    def issue_service(self, path: str, dns: str, addresses: tuple[str, ...]) -> None:
        """For `spiffe://{domain}/{path}`; the file is named for the path."""
        self._authority.issue(
            _file_name(path),
            common_name=_file_name(path),
            spiffe=f"spiffe://{self.name}/{path}",
            dns=(dns, "localhost"),
            addresses=(*addresses, *_LOCAL),
        )

    def issue_etcd_server(self, addresses: tuple[str, ...]) -> None:
        self._etcd_authority.issue(
            "etcd",
            common_name="etcd",
            spiffe=f"spiffe://{self.name}/etcd",
            dns=(self.etcd_server_name, "localhost"),
            addresses=(*addresses, *_LOCAL),
        )

    def issue_etcd_client(self, user: str, path: str) -> None:
        """The common name is the etcd user."""
        self._etcd_authority.issue(
            f"etcd-{user}", common_name=user, spiffe=f"spiffe://{self.name}/{path}"
        )

    def issue_user(self, user: str, tenant: str) -> Credential:
        self._authority.issue(
            f"user-{tenant}-{user}",
            common_name=user,
            spiffe=f"spiffe://{self.name}/tenant/{tenant}/user/{user}",
        )
        return self.credential(f"user-{tenant}-{user}")

    def issue_operator(self, name: str) -> Credential:
        self._authority.issue(
            f"operator-{name}", common_name=name, spiffe=f"spiffe://{self.name}/operator/{name}"
        )
        return self.credential(f"operator-{name}")

    def credential(self, file_name: str) -> Credential:
        return Credential(
            certificate=self.folder / f"{file_name}.pem", key=self.folder / f"{file_name}.key"
        )

    def service_credential(self, path: str) -> Credential:
        return self.credential(_file_name(path))

    def etcd_credential(self, user: str) -> Credential:
        return self.credential(f"etcd-{user}")

    @property
    def etcd_server_name(self) -> str:
        return f"etcd.{self.name}"

    def server_name(self, service: str) -> str:
        """The DNS name in a service's certificate: `broker.north.site.intertie`."""
        return f"{service}.{self.name}"


def site_domain(places: Places, site: str) -> Domain:
    return Domain(label=site, name=f"{site}.site.intertie", folder=places.pki / site)


def meta_domain(places: Places, topology: Topology) -> Domain:
    name = f"{topology.metasched}.meta.intertie"
    return Domain(label=META, name=name, folder=places.pki / META)


def domains(places: Places, topology: Topology) -> list[Domain]:
    sites = [site_domain(places, site.name) for site in topology.sites]
    return [*sites, meta_domain(places, topology)]


def create_certificates(places: Places, topology: Topology) -> None:
    """All authorities and all services' certificates. Users' are made on demand."""
    for site in topology.sites:
        domain = site_domain(places, site.name)
        domain.create()
        ctl = (topology.ctl_address(site.name), topology.ctl_wan_address(site.name))
        domain.issue_service("broker", domain.server_name("broker"), ctl)
        domain.issue_service("imagestore", domain.server_name("imagestore"), ctl)
        domain.issue_etcd_server(ctl)
        domain.issue_etcd_client(ETCD_ROOT, f"operator/{ETCD_ROOT}")
        domain.issue_etcd_client("broker", "broker")
        domain.issue_etcd_client("imagestore", "imagestore")
        for host in site.hosts:
            path = f"agent/{host.name}"
            own = (topology.host_address(site.name, host.name),)
            domain.issue_service(path, domain.server_name(f"{host.name}.agent"), own)
            domain.issue_etcd_client(f"agent-{host.name}", path)
    meta = meta_domain(places, topology)
    meta.create()
    own = (topology.meta_address(),)
    meta.issue_service("metasched", meta.server_name("metasched"), own)
    meta.issue_etcd_server(own)
    meta.issue_etcd_client(ETCD_ROOT, f"operator/{ETCD_ROOT}")
    meta.issue_etcd_client("metasched", "metasched")


def _file_name(path: str) -> str:
    return path.replace("/", "-")
