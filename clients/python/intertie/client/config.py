"""Where services are and who the user is towards them: one TOML file.

    default = "meta"
    [endpoints.meta]
    kind = "metasched"                    # or "site"
    addresses = ["meta-a.example.org:7400", "meta-b.example.org:7400"]
    server_name = "metasched.meta.meta.intertie"
    certificate = "alice.pem"             # relative to the file itself
    key = "alice.key"
    roots = "meta-ca.pem"
    tenant = "demo"

`addresses` are those of all replicas of the service; of one alone, `address = "..."` says the same.
A site may have an image store too: `images_address` and `images_server_name`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from intertie.client.errors import ConfigInvalid, ConfigMissing, EndpointUnknown

ENVIRONMENT = "INTERTIE_CONFIG"
Kind = Literal["metasched", "site"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One service that answers users, and the identity to show it."""

    name: str
    kind: Kind
    addresses: tuple[str, ...]
    """`host:port`, or `unix:/path`, of each of its replicas."""
    server_name: str
    """What the server's certificate must say."""
    certificate: Path
    key: Path
    roots: Path
    tenant: str
    trust_domain: str = ""
    images_address: str = ""
    images_server_name: str = ""

    @property
    def parent(self) -> str:
        """The tenant's own place at whatever service is asked."""
        return f"-/tenants/{self.tenant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    path: Path
    default: str
    endpoints: Mapping[str, Endpoint]

    def endpoint(self, name: str | None = None) -> Endpoint:
        """The endpoint of that name, the default one when there is none."""
        wanted = name or self.default
        if wanted not in self.endpoints:
            raise EndpointUnknown(wanted, tuple(self.endpoints))
        return self.endpoints[wanted]

    def image_stores(self) -> tuple[Endpoint, ...]:
        return tuple(each for each in self.endpoints.values() if each.images_address)


def default_path() -> Path:
    """What INTERTIE_CONFIG names, else ~/.config/intertie/client.toml."""
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named else Path.home() / ".config" / "intertie" / "client.toml"


def load(path: Path | None = None) -> Config:
    path = path or default_path()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigMissing(path) from None
    except OSError as error:
        raise ConfigInvalid(path, "", f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(path, "", f"is not TOML: {error}") from None
    return parse(raw, path)


def parse(raw: Mapping[str, Any], path: Path) -> Config:
    tables = raw.get("endpoints")
    if not isinstance(tables, dict) or not tables:
        raise ConfigInvalid(path, "endpoints", "at least one [endpoints.NAME] is needed")
    endpoints = {name: _endpoint(name, table, path) for name, table in tables.items()}
    default = raw.get("default", next(iter(endpoints)))
    if default not in endpoints:
        raise ConfigInvalid(path, "default", f"{default!r} is none of {', '.join(endpoints)}")
    return Config(path=path, default=default, endpoints=endpoints)


def _endpoint(name: str, table: object, path: Path) -> Endpoint:
    where = f"endpoints.{name}"
    if not isinstance(table, dict):
        raise ConfigInvalid(path, where, "must be a table")

    def text(key: str, otherwise: str | None = None) -> str:
        value = table.get(key, otherwise)
        if not isinstance(value, str) or (not value and otherwise is None):
            raise ConfigInvalid(path, f"{where}.{key}", "must be given, as text")
        return value

    kind = text("kind")
    if kind not in ("metasched", "site"):
        raise ConfigInvalid(path, f"{where}.kind", f'must be "metasched" or "site", not {kind!r}')
    return Endpoint(
        name=name,
        kind=cast(Kind, kind),
        addresses=_addresses(where, table, path),
        server_name=text("server_name"),
        certificate=path.parent / text("certificate"),
        key=path.parent / text("key"),
        roots=path.parent / text("roots"),
        tenant=text("tenant"),
        trust_domain=text("trust_domain", ""),
        images_address=text("images_address", ""),
        images_server_name=text("images_server_name", ""),
    )


def _addresses(where: str, table: Mapping[str, object], path: Path) -> tuple[str, ...]:
    one, several = table.get("address"), table.get("addresses")
    if several is None:
        if not isinstance(one, str) or not one:
            problem = "must be given, as text; or addresses, a list, of several replicas"
            raise ConfigInvalid(path, f"{where}.address", problem)
        return (one,)
    if one is not None:
        raise ConfigInvalid(path, f"{where}.address", "give this or addresses, not both")
    texts = several if isinstance(several, list) else []
    if not texts or not all(isinstance(each, str) and each for each in texts):
        raise ConfigInvalid(path, f"{where}.addresses", "must be a list of texts, one or more")
    return tuple(texts)
