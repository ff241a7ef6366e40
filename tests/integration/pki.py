"""Trust domains for tests: authorities, and certificates of every role, in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from intertie.common.rpc.identity import Trust
from intertie.common.settings import TlsSettings, TrustSettings
from testbed.pki import LIFETIME, Authority


@dataclass(frozen=True, slots=True)
class TestDomain:
    """One trust domain: `north.site.intertie`, `meta.meta.intertie`."""

    __test__ = False

    name: str
    folder: Path

    @classmethod
    def create(cls, folder: Path, name: str) -> TestDomain:
        domain = cls(name, folder / name)
        Authority(domain.folder).create(f"{name} authority")
        return domain

    @property
    def trust(self) -> TrustSettings:
        return TrustSettings(domain=self.name, roots=Authority(self.folder).roots)

    def server_name(self, service: str) -> str:
        return f"{service}.{self.name}"

    def service(self, path: str) -> TlsSettings:
        """`broker`, `imagestore`, `metasched` or `agent/{host}`."""
        host = path.removeprefix("agent/")
        dns = f"{host}.agent.{self.name}" if path.startswith("agent/") else f"{path}.{self.name}"
        return self.issue(f"spiffe://{self.name}/{path}", dns=(dns, "localhost"))

    def user(self, tenant: str, name: str) -> TlsSettings:
        return self.issue(f"spiffe://{self.name}/tenant/{tenant}/user/{name}")

    def operator(self, name: str) -> TlsSettings:
        return self.issue(f"spiffe://{self.name}/operator/{name}")

    def issue(
        self, spiffe: str, dns: tuple[str, ...] = (), lifetime: timedelta = LIFETIME
    ) -> TlsSettings:
        """A certificate for any SPIFFE name, this domain's or, as a forger would, another's."""
        file_name = spiffe.removeprefix("spiffe://").replace("/", "-")
        Authority(self.folder).issue(
            file_name,
            common_name=file_name[:60],
            spiffe=spiffe,
            dns=dns,
            addresses=("127.0.0.1",),
            lifetime=lifetime,
        )
        return TlsSettings(
            certificate=self.folder / f"{file_name}.pem", key=self.folder / f"{file_name}.key"
        )


def trust_in(*domains: TestDomain) -> Trust:
    return Trust.load(domain.trust for domain in domains)
