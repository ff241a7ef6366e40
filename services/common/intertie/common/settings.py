"""Settings of the services: one TOML file each, fields of it overridden by INTERTIE_ variables.

`INTERTIE_LOG__LEVEL=debug` stands for `level` in `[log]`. Read once, in a service's
`main`; frozen from then on.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

NonEmpty = Annotated[str, Field(min_length=1)]
_IPV4_PORT = re.compile(r"\d{1,3}(\.\d{1,3}){3}:\d+")


class SettingsInvalid(Exception):
    """A settings file that cannot be used; the message names file, field and problem."""


class Section(BaseModel):
    """A table of a settings file. Unknown fields are refused: they are misspelt ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceSettings(BaseSettings):
    """What every service's settings derive from."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="INTERTIE_", env_nested_delimiter="__"
    )

    fault_points: Path | None = None
    """For tests of faults alone: a folder in which a file named for a point of
    `intertie.common.points` makes the service stop there once. `INTERTIE_FAULT_POINTS`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


class ListenSettings(Section):
    """Where a server listens: `10.201.0.2:7400` or `unix:/run/…/broker.sock`."""

    addresses: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]


class TlsSettings(Section):
    """The service's own certificate and key, PEM files."""

    certificate: Path
    key: Path


class TrustSettings(Section):
    """A trust domain that may call or be called; only `roots` speak for `domain`."""

    domain: NonEmpty
    roots: Path


class PeerSettings(Section):
    """Another service, and the name that its certificate must carry."""

    address: NonEmpty
    server_name: NonEmpty
    trust_domain: str = ""


class NamedPeerSettings(Section):
    """One of several peers: a site of a meta-scheduler, a meta-scheduler of a site."""

    name: NonEmpty
    addresses: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    """`host:port` of each of its replicas: any of them may lead."""
    server_name: NonEmpty
    trust_domain: str = ""


class EtcdSettings(Section):
    """The etcd of the service's own trust domain. Without `ca`, no TLS: on loopback only."""

    endpoints: Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
    """`address:port` of each member, IPv4; or one `name:port`, whose addresses are the members'."""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""
    prefix: Annotated[str, Field(pattern=r"^/[^ ]*[^/ ]$")]
    """Before every key: `/intertie/north`."""

    @property
    def by_name(self) -> bool:
        """Whether the members are found by asking for the addresses of one name."""
        return not _IPV4_PORT.fullmatch(self.endpoints[0])

    @model_validator(mode="after")
    def _addresses_or_one_name(self) -> Self:
        names = [each for each in self.endpoints if not _IPV4_PORT.fullmatch(each)]
        if names and len(self.endpoints) > 1:
            raise ValueError(
                f"endpoints: several are IPv4 addresses with ports, and {names[0]} is none; "
                "write its address, or a single name that has the addresses of all members"
            )
        return self

    @model_validator(mode="after")
    def _plain_on_loopback_only(self) -> Self:
        given = [file is not None for file in (self.ca, self.certificate, self.key)]
        if all(given):
            return self
        if any(given):
            raise ValueError("ca, certificate and key go together; give all three")
        if not all(endpoint.startswith("127.") for endpoint in self.endpoints):
            raise ValueError("ca, certificate and key are required unless etcd is on 127.0.0.0/8")
        return self


class RoomSettings(Section):
    """How much may be in the service's etcd."""

    quota_mib: Annotated[int, Field(ge=16)] = 2048
    """etcd's `--quota-backend-bytes`, where etcd does not say it: before 3.6 it does not."""
    refuse_above: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Of the quota: with more in use nothing new is taken. Ends and decisions have the rest."""
    compact: bool = False
    """Short of room, the leader has etcd forget what is older than an hour. For an etcd that does
    not compact by itself, and that nobody else uses."""


class LogSettings(Section):
    level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "info"


class ServingSettings(ServiceSettings):
    """What the files of all services have in common. The rest of one is not looked at."""

    model_config = SettingsConfigDict(extra="ignore")

    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...]


S = TypeVar("S", bound=ServiceSettings)


def load(settings: type[S], path: str | Path) -> S:
    """The settings in a file, or SettingsInvalid."""
    try:
        with Path(path).open("rb") as file:
            values: dict[str, Any] = tomllib.load(file)
    except OSError as error:
        raise SettingsInvalid(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path}: is not TOML: {error}") from None
    try:
        return settings(**values)
    except ValidationError as error:
        raise SettingsInvalid(_explain(path, error)) from None


def _explain(path: str | Path, error: ValidationError) -> str:
    lines = [f"{path}: {_problem(each['loc'], each['msg'])}" for each in error.errors()]
    return "\n".join(lines)


def _problem(place: tuple[int | str, ...], message: str) -> str:
    """`tls.key: Field required`; never the value, which may be a secret."""
    field = ""
    for step in place:
        field += f"[{step}]" if isinstance(step, int) else f".{step}" if field else str(step)
    if message == "Extra inputs are not permitted":
        message = "is not a setting; check its spelling and its table"
    return f"{field}: {message}"
