"""Who may call what: one table, and everything that is not in it is refused.

A test enumerates the descriptors of `intertie.api`, so that no method is missing.
"""

from __future__ import annotations

from typing import Any

from intertie.common.errors import FieldInvalid, RoleDenied
from intertie.common.rpc.identity import Identity, Role, site_of

_USER, _OPERATOR, _BROKER = Role.USER, Role.OPERATOR, Role.BROKER
_AGENT, _METASCHED, _IMAGESTORE = Role.AGENT, Role.METASCHED, Role.IMAGESTORE

_ANYONE = frozenset(Role)
_OWNERS = frozenset({_USER, _BROKER})
_READERS = frozenset({_USER, _OPERATOR, _BROKER})
_PEOPLE = frozenset({_USER, _OPERATOR})
_COORDINATOR = frozenset({_METASCHED})
_WATCHERS = frozenset({_METASCHED, _OPERATOR})
_INQUIRERS = frozenset({_USER, _OPERATOR, _METASCHED, _BROKER})
_KEEPERS = frozenset({_BROKER, _OPERATOR})

_CLUSTERS = "/intertie.api.cluster.v1.Clusters"
_PARTS = "/intertie.api.broker.v1.Parts"
_HOSTS = "/intertie.api.broker.v1.Hosts"
_SITES = "/intertie.api.broker.v1.Sites"
_USAGE = "/intertie.api.broker.v1.Usage"
_AGENTS = "/intertie.api.nodeagent.v1.NodeAgent"
_IMAGES = "/intertie.api.imagestore.v1.Images"
_TRANSFERS = "/intertie.api.imagestore.v1.Transfers"
_DECISIONS = "/intertie.api.metasched.v1.Decisions"
_KNOWN_SITES = "/intertie.api.metasched.v1.KnownSites"
_HEALTH = "/grpc.health.v1.Health"

ACCESS: dict[str, frozenset[Role]] = {
    f"{_CLUSTERS}/Create": _OWNERS,
    f"{_CLUSTERS}/Plan": _OWNERS,
    f"{_CLUSTERS}/Get": _READERS,
    f"{_CLUSTERS}/List": _READERS,
    f"{_CLUSTERS}/Watch": _READERS,
    f"{_CLUSTERS}/Update": _OWNERS,
    f"{_CLUSTERS}/WatchAll": _READERS,
    f"{_CLUSTERS}/Act": _READERS,
    f"{_CLUSTERS}/Delete": _READERS,
    f"{_CLUSTERS}/Attach": _OWNERS,
    f"{_PARTS}/ListOffers": _WATCHERS,
    f"{_PARTS}/Hold": _COORDINATOR,
    f"{_PARTS}/BatchHold": _COORDINATOR,
    f"{_PARTS}/Prepare": _COORDINATOR,
    f"{_PARTS}/Resolve": _COORDINATOR,
    f"{_PARTS}/Release": _COORDINATOR,
    f"{_PARTS}/Act": _COORDINATOR,
    f"{_PARTS}/Get": _WATCHERS,
    f"{_PARTS}/List": _WATCHERS,
    f"{_PARTS}/Attach": _COORDINATOR,
    f"{_HOSTS}/List": _INQUIRERS,
    f"{_HOSTS}/Get": _INQUIRERS,
    f"{_HOSTS}/Watch": _INQUIRERS,
    f"{_SITES}/Get": _INQUIRERS,
    f"{_USAGE}/List": _PEOPLE,
    f"{_USAGE}/ListEntries": _PEOPLE,
    f"{_AGENTS}/GetFacts": _KEEPERS,
    f"{_AGENTS}/ListWorkspaces": _KEEPERS,
    f"{_AGENTS}/ListMeasurements": _KEEPERS,
    f"{_AGENTS}/Attach": frozenset({_BROKER}),
    f"{_AGENTS}/BeginMigration": frozenset({_AGENT}),
    f"{_AGENTS}/Tunnel": frozenset({_AGENT}),
    f"{_AGENTS}/TakeOver": frozenset({_AGENT}),
    # Agents by a broker's grant alone, which the store looks at.
    f"{_IMAGES}/Put": _PEOPLE | {_AGENT},
    f"{_IMAGES}/Stat": frozenset({_USER, _OPERATOR, _BROKER, _AGENT, _METASCHED}),
    f"{_IMAGES}/List": _INQUIRERS,
    f"{_IMAGES}/Fetch": frozenset({_USER, _OPERATOR, _AGENT}),
    f"{_IMAGES}/Delete": _PEOPLE,
    f"{_TRANSFERS}/Bring": frozenset({_BROKER}),
    f"{_TRANSFERS}/Get": frozenset({_BROKER}),
    # Other sites' stores, by a grant of this site's broker alone, which the store looks at.
    f"{_TRANSFERS}/Send": frozenset({_IMAGESTORE}),
    f"{_DECISIONS}/Get": frozenset({_BROKER, _METASCHED, _OPERATOR}),
    f"{_DECISIONS}/Resolve": frozenset({_BROKER, _METASCHED}),
    f"{_KNOWN_SITES}/List": _PEOPLE,
    f"{_KNOWN_SITES}/ListHosts": _PEOPLE,
    f"{_HEALTH}/Check": _ANYONE,
    f"{_HEALTH}/Watch": _ANYONE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ANYONE,
}

FROM_OTHER_DOMAINS: dict[str, Role] = {
    _CLUSTERS: _BROKER,
    _DECISIONS: _BROKER,
    _PARTS: _METASCHED,
    _HOSTS: _METASCHED,
    _SITES: _METASCHED,
    _IMAGES: _METASCHED,
    _TRANSFERS: _IMAGESTORE,
}
"""The one role that may come from another trust domain than the server's own, for a service.
Everybody else is known at home only: a peer's users are nobody's tenants here."""

TENANT_BOUND = frozenset({_CLUSTERS, _IMAGES, _USAGE})
"""Services whose requests name a tenant, which must be the caller's own."""


def check_role(method: str, identity: Identity, own_domain: str) -> None:
    """RoleDenied unless the table says that this caller may call this method of this server."""
    if identity.role not in ACCESS.get(method, frozenset()):
        raise RoleDenied(identity.spiffe, method, f"role {identity.role.name} may not")
    service = service_of(method)
    if (
        identity.trust_domain != own_domain
        and ACCESS[method] != _ANYONE
        and FROM_OTHER_DOMAINS.get(service) is not identity.role
    ):
        raise RoleDenied(identity.spiffe, method, f"only callers of {own_domain} may")
    if service == _CLUSTERS and identity.role is _BROKER:
        if site_of(own_domain):
            raise RoleDenied(identity.spiffe, method, "requests are handed on to meta-schedulers")
        if identity.on_behalf_of is None:
            raise RoleDenied(identity.spiffe, method, "a broker may only hand on a user's request")


def check_tenant(method: str, identity: Identity, message: Any) -> None:
    """RoleDenied when the request (of a stream: the first one) names another's tenant."""
    if identity.own_tenant is None or service_of(method) not in TENANT_BOUND:
        return
    field, name = _named(message)
    tenant = tenant_in(name)
    if tenant is None:
        raise FieldInvalid(field, f"{name!r} must name a tenant: …/tenants/{identity.own_tenant}/…")
    if tenant != identity.own_tenant:
        raise RoleDenied(identity.caller, method, f"tenant {tenant} is not its own")


def service_of(method: str) -> str:
    return method.rpartition("/")[0]


def tenant_in(name: str) -> str | None:
    """The tenant in a resource's name, `-/tenants/{tenant}…` or `{kind}/{id}/tenants/{tenant}…`."""
    match name.split("/"):
        case ["-", "tenants", tenant, *_]:
            return tenant
        case ["sites" | "metascheds", _, "tenants", tenant, *_]:
            return tenant
    return None


_NAMING_FIELDS = (
    ("open", "workspace"),
    ("header", "parent"),
    ("cluster", "name"),
    ("parent",),
    ("name",),
)


def _named(message: Any) -> tuple[str, str]:
    """The field by which a request names what it is about, and what it says."""
    for path in _NAMING_FIELDS:
        value = message
        for step in path:
            value = getattr(value, step, None)
        if isinstance(value, str):
            return ".".join(path), value
    return "name", ""
