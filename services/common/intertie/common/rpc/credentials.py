"""What a service shows and whom it believes, as its files say now: nothing is started again for
a renewal.

Replace a file by renaming another one over it; certificate and key one after the other, in either
order: until both are there, the old pair is shown. Change an authority in three steps, each after
the one before has reached all who call or are called: its root beside the old one, then the
certificates, then the old root taken away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import IdentityUnknown
from intertie.common.followed import Followed
from intertie.common.rpc.identity import Identity, Roots, Trust, identity_of, roots_in
from intertie.common.rpc.signing import Pair, Signer
from intertie.common.settings import SettingsInvalid, TlsSettings, TrustSettings

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Own:
    """The service's certificate (with what follows it in the file) and key, PEM."""

    chain: bytes
    key: bytes
    pair: Pair


@dataclass(frozen=True, slots=True, eq=False)
class Papers:
    """Everything at one moment. The same object for as long as no file holds anything else."""

    own: Own
    roots: Roots

    @property
    def trust(self) -> Trust:
        return Trust(self.roots)


class Credentials:
    """One for a process: its server, its channels, its signatures and its judgement of callers
    all change together, within a second of the files.

    Roots are taken whenever every file holds certificates. A certificate and key are taken when
    they belong together, are valid now, of a trusted root, and still in the service's own name;
    until then what was there before stays, and a warning says so once.
    """

    def __init__(self, tls: TlsSettings, trust: Iterable[TrustSettings], clock: Clock) -> None:
        """SettingsInvalid where the files are of no use from the start."""
        domains = tuple(trust)
        names = [each.domain for each in domains]
        self._clock = clock
        self._identity: Identity | None = None
        self._lock = threading.Lock()
        self._roots = _followed(
            [each.roots for each in domains],
            lambda contents: roots_in(zip(names, contents, strict=True)),
            clock,
            "trust.roots",
        )
        self.trust = Trust(self._roots.now)
        """Follows the roots."""
        self._own = _followed((tls.certificate, tls.key), self._make_own, clock, "tls")
        self.signer = Signer(lambda: self._own.now().pair)
        """Signs with the key of now."""
        self._papers = Papers(self._own.now(), self._roots.now())

    @property
    def identity(self) -> Identity:
        """The service's own; the same for as long as it runs."""
        assert self._identity is not None
        return self._identity

    def papers(self, *, at_once: bool = False) -> Papers:
        """`at_once` looks at the files whenever they were looked at last."""
        with self._lock:
            roots, own = self._roots.now(at_once=at_once), self._own.now(at_once=at_once)
            if own is not self._papers.own or roots is not self._papers.roots:
                self._papers = Papers(own, roots)
            return self._papers

    def _make_own(self, contents: tuple[bytes, ...]) -> Own:
        chain, key = contents
        pair = Pair.of(chain, key)
        identity = identity_of(pair.certificate, self.trust, now=self._clock.now())
        if self._identity is None:
            self._identity = identity
        elif identity.spiffe != self._identity.spiffe:
            raise ValueError(f"it is the certificate of {identity}, not of {self._identity}")
        return Own(chain, key, pair)


def _followed(
    files: Iterable[Path], make: Callable[[tuple[bytes, ...]], T], clock: Clock, field: str
) -> Followed[T]:
    paths = tuple(files)
    names = ", ".join(str(each) for each in dict.fromkeys(paths))

    def refused(problem: Exception) -> None:
        log.warning("credentials.kept", field=field, files=names, problem=_said(problem))

    try:
        return Followed(paths, make, clock, refused=refused)
    except (OSError, ValueError, TypeError, IdentityUnknown) as error:
        raise SettingsInvalid(f"{field}: {names}: {_said(error)}") from None


def _said(problem: Exception) -> str:
    if isinstance(problem, OSError):
        return f"{problem.filename}: {problem.strerror}"
    return str(problem)
