"""A trust domain whose certificates and authority are replaced while they are in use."""

from __future__ import annotations

from pathlib import Path

from intertie.common.settings import TlsSettings
from tests.integration.pki import TestDomain


class Renewed:
    """Files of `live` are what services and users read; each authority has its own folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._number = 0
        self.live = TestDomain.create(folder / "live", name)
        self.before = self.live
        self.now = self.live
        self._old_roots = b""

    def begin(self) -> None:
        """First step of a change of authority: the new root is trusted beside the old one."""
        self._number += 1
        self._old_roots = self.live.trust.roots.read_bytes()
        self.before = self.now
        self.now = TestDomain.create(self._folder / f"g{self._number}", self._name)
        new_root = self.now.trust.roots.read_bytes()
        replace(self.live.trust.roots, self._old_roots + new_root)

    def end(self) -> None:
        """Last step: the old root is trusted no more."""
        replace(self.live.trust.roots, self.now.trust.roots.read_bytes())


def replace(path: Path, content: bytes) -> None:
    """As a renewal should: nobody reads half of it."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.rename(path)


def renew_certificate(shown: TlsSettings, fresh: TlsSettings) -> None:
    replace(shown.certificate, fresh.certificate.read_bytes())


def renew_key(shown: TlsSettings, fresh: TlsSettings) -> None:
    replace(shown.key, fresh.key.read_bytes())
