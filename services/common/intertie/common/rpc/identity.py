"""Who calls: a SPIFFE name in a certificate, issued by a root of that name's own trust domain.

TLS alone accepts a certificate of any root that a server trusts. Here a root speaks for its own
domain only, so that one site cannot issue certificates in the name of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from intertie.common.errors import FieldInvalid, IdentityUnknown
from intertie.common.names import check_label

SITE_SUFFIX = ".site.intertie"
META_SUFFIX = ".meta.intertie"


class Role(Enum):
    USER = "user"
    OPERATOR = "operator"
    BROKER = "broker"
    AGENT = "agent"
    IMAGESTORE = "imagestore"
    METASCHED = "metasched"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBehalfOf:
    """The user whose request a broker handed on, as the broker vouches for it."""

    spiffe: str
    tenant: str
    """Empty: an operator, of no tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    spiffe: str
    trust_domain: str
    role: Role
    name: str
    """Of the user, operator, host, or the service itself."""
    tenant: str | None = None
    """Only of users."""
    host: str | None = None
    """Only of agents."""
    on_behalf_of: OnBehalfOf | None = None

    @property
    def caller(self) -> str:
        """SPIFFE name of who wants it: the user, also when a broker handed the request on."""
        return self.on_behalf_of.spiffe if self.on_behalf_of else self.spiffe

    @property
    def own_tenant(self) -> str | None:
        """The only tenant that this call may touch; None: the role is bound to none."""
        if self.on_behalf_of:
            return self.on_behalf_of.tenant or None
        return self.tenant

    @property
    def site(self) -> str:
        """The site whose domain it is; empty for others."""
        return site_of(self.trust_domain)

    def __str__(self) -> str:
        return self.spiffe


Roots = Mapping[str, tuple[x509.Certificate, ...]]
"""By trust domain. Never changed: other roots are another mapping."""


class DomainRoots(Protocol):
    """A trust domain and the file of its roots, as TrustSettings have them."""

    @property
    def domain(self) -> str: ...

    @property
    def roots(self) -> Path: ...


class Trust:
    """The domains that may call or be called, each with its own roots.

    Given a callable, it asks that for the roots each time: one that `Credentials` has made follows
    the files that they stand in.
    """

    def __init__(self, roots: Roots | Callable[[], Roots]) -> None:
        self._of_now: Callable[[], Roots] = roots if callable(roots) else lambda: roots

    @classmethod
    def load(cls, settings: Iterable[DomainRoots]) -> Trust:
        """As the PEM files are now. The same domain may be named twice, while its root changes."""
        return cls(roots_in((each.domain, Path(each.roots).read_bytes()) for each in settings))

    @property
    def roots(self) -> Roots:
        """As they are now; the same mapping for as long as they stay the same."""
        return self._of_now()

    @property
    def domains(self) -> frozenset[str]:
        return frozenset(self.roots)

    def roots_of(self, domain: str) -> tuple[x509.Certificate, ...]:
        return self.roots.get(domain, ())

    def domain_of(self, server_name: str) -> str:
        """The trust domain that a server's DNS name lies in, or ValueError."""
        for domain in self.roots:
            if server_name == domain or server_name.endswith(f".{domain}"):
                return domain
        raise ValueError(f"{server_name}: no [[trust]] names its domain")

    def pem(self, domain: str = "") -> bytes:
        """Roots of one domain, or of all."""
        all_of_them = self.roots
        chosen = [all_of_them[domain]] if domain else all_of_them.values()
        return b"".join(root.public_bytes(Encoding.PEM) for roots in chosen for root in roots)


def roots_in(files: Iterable[tuple[str, bytes]]) -> Roots:
    """Of domains and their PEM files; ValueError for one that holds no certificate."""
    roots: dict[str, tuple[x509.Certificate, ...]] = {}
    for domain, pem in files:
        found = tuple(x509.load_pem_x509_certificates(pem))
        roots[domain] = roots.get(domain, ()) + found
    return roots


def identity_of(certificate: bytes | x509.Certificate, trust: Trust, *, now: datetime) -> Identity:
    """Whom a leaf certificate (PEM) speaks for, or IdentityUnknown."""
    leaf = certificate if isinstance(certificate, x509.Certificate) else load_leaf(certificate)
    return Verified.of(leaf, trust).at(now)


class Identities:
    """`identity_of` for those who come again and again: verifies a certificate once for the roots
    that there are, and looks at its dates, and those of its roots, every time. So a root that is
    taken away ends its callers' calls on connections that stand, too."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._judged_by = trust.roots
        self._known: dict[bytes, Verified] = {}

    def of(self, pem: bytes, *, now: datetime) -> Identity:
        return self.verified(pem).at(now)

    def verified(self, pem: bytes) -> Verified:
        """Of a leaf certificate, whatever its dates."""
        roots = self._trust.roots
        if roots is not self._judged_by:
            self._judged_by = roots
            self._known.clear()
        known = self._known.get(pem)
        if known is None:
            if len(self._known) >= _CERTIFICATES_KEPT:
                self._known.clear()
            known = self._known[pem] = Verified.of(load_leaf(pem), self._trust)
        return known


@dataclass(frozen=True, slots=True)
class Verified:
    """Whom a certificate speaks for, and when."""

    identity: Identity
    key: CertificatePublicKeyTypes
    valid: tuple[datetime, datetime]
    roots_valid: tuple[tuple[datetime, datetime], ...]
    """Of those roots of its own domain that have issued it."""

    @classmethod
    def of(cls, leaf: x509.Certificate, trust: Trust) -> Verified:
        identity = parse_spiffe(_spiffe_of(leaf))
        issuers = (root for root in trust.roots_of(identity.trust_domain) if _issued(leaf, root))
        return cls(
            identity,
            leaf.public_key(),
            _validity(leaf),
            tuple(_validity(root) for root in issuers),
        )

    def at(self, now: datetime) -> Identity:
        if not self.valid[0] <= now < self.valid[1]:
            raise IdentityUnknown(f"{self.identity}: its certificate is not valid at {now:%FT%TZ}")
        if not any(first <= now < last for first, last in self.roots_valid):
            raise IdentityUnknown(
                f"{self.identity}: not issued by a trusted root of its own domain"
            )
        return self.identity


def _validity(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


_CERTIFICATES_KEPT = 1024


def load_leaf(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM file."""
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise IdentityUnknown("its certificate cannot be read") from None


def parse_spiffe(spiffe: str) -> Identity:
    """What a SPIFFE name says; whether it is true is another question."""
    scheme, separator, rest = spiffe.partition("://")
    domain, _, path = rest.partition("/")
    if scheme != "spiffe" or not separator:
        raise IdentityUnknown(f"{spiffe!r} is no SPIFFE name")
    try:
        return _parse_path(spiffe, domain, path.split("/"))
    except FieldInvalid as error:
        raise IdentityUnknown(f"{spiffe!r}: {error.problem}") from None


def site_of(domain: str) -> str:
    """`north` of `north.site.intertie`; empty for a domain of another kind."""
    return domain.removesuffix(SITE_SUFFIX) if domain.endswith(SITE_SUFFIX) else ""


def agent_server_name(host: str, site: str) -> str:
    """The DNS name in the certificate of a host's agent."""
    return f"{host}.agent.{site}{SITE_SUFFIX}"


_current: ContextVar[Identity] = ContextVar("identity")


def current_identity() -> Identity:
    """Of the call that is being handled."""
    return _current.get()


def set_current_identity(identity: Identity) -> None:
    """For the interceptor, once a call. Every call is a task of its own, so nothing is reset."""
    _current.set(identity)


def _parse_path(spiffe: str, domain: str, path: list[str]) -> Identity:
    at_site, at_meta = domain.endswith(SITE_SUFFIX), domain.endswith(META_SUFFIX)
    match path:
        case ["tenant", tenant, "user", name] if at_site or at_meta:
            tenant = check_label(tenant, "tenant")
            return Identity(
                spiffe=spiffe, trust_domain=domain, role=Role.USER, name=name, tenant=tenant
            )
        case ["operator", name] if at_site or at_meta:
            return Identity(spiffe=spiffe, trust_domain=domain, role=Role.OPERATOR, name=name)
        case ["agent", host] if at_site:
            host = check_label(host, "host")
            return Identity(
                spiffe=spiffe, trust_domain=domain, role=Role.AGENT, name=host, host=host
            )
        case ["broker" | "imagestore" as service] if at_site:
            return Identity(spiffe=spiffe, trust_domain=domain, role=Role(service), name=service)
        case ["metasched"] if at_meta:
            return Identity(
                spiffe=spiffe, trust_domain=domain, role=Role.METASCHED, name="metasched"
            )
    raise IdentityUnknown(f"{spiffe!r} has no role here")


def _spiffe_of(leaf: x509.Certificate) -> str:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        raise IdentityUnknown("its certificate has no SPIFFE name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityUnknown(f"its certificate has {len(uris)} URI names, one is expected")
    return uris[0]


def _issued(leaf: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
