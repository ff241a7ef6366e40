"""docs/configuration.md is drawn from the settings' classes.

To draw it again after a change, run this file with INTERTIE_UPDATE_DOCS=1. What a setting means is
what is written below it in its class, or in MEANINGS where nothing is.
"""

import ast
import inspect
import os
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from intertie.broker.settings import BrokerSettings
from intertie.common.settings import ServiceSettings, load
from intertie.common.tariff import RATES
from intertie.imagestore.settings import ImagestoreSettings
from intertie.metasched.settings import MetaschedSettings
from intertie.nodeagent.settings import Settings as NodeagentSettings

FOLDER = Path(__file__).parent
PATH = FOLDER.parents[1] / "docs" / "configuration.md"
TEXTS = FOLDER / "configuration"

SERVICES: Mapping[str, type[ServiceSettings]] = {
    "broker": BrokerSettings,
    "imagestore": ImagestoreSettings,
    "nodeagent": NodeagentSettings,
    "metasched": MetaschedSettings,
}

MEANINGS = {
    "BrokerSettings.site": "Name of the site; its trust domain is `{site}.site.intertie`.",
    "BrokerSettings.imagestore": "The site's image store.",
    "BrokerSettings.links": "A table a site that a link leads to; this end's directed halves.",
    "ImagestoreSettings.site": "Name of the site.",
    "LimitSettings.max_image_bytes": "A larger image is refused.",
    "LinkSettings.peer": "The site at the other end.",
    "LinkSettings.egress_mbit_s": "Payload that fits towards it: about 0.89 of the wire.",
    "LinkSettings.ingress_mbit_s": "Payload that fits from it, likewise.",
    "LinkSettings.latency_ms": "One way, as declared; nothing measures it.",
    "NamedPeerSettings.name": "Its name.",
    "PeerSettings.address": "`host:port`.",
    "PeerSettings.server_name": "DNS name that its certificate must carry, in a domain of `trust`.",
    "PeerSettings.trust_domain": "Its trust domain.",
    "NamedPeerSettings.server_name": "DNS name that the certificate of each replica must carry.",
    "NamedPeerSettings.trust_domain": "Its trust domain; of `metascheds`, whose register it is.",
    "PolicySettings.cpu_overcommit": "vCPUs promised for each that a host has.",
    "PolicySettings.memory_reserve_mib": "Of each host's memory, promised to nobody.",
    "PolicySettings.default_disk_cap_iops": "Cap of a disk whose term names neither.",
    "PolicySettings.default_disk_cap_mib_s": "Likewise, throughput.",
    "PolicySettings.hosts": "Hosts that are admitted; others may report what they like.",
    "PolicySettings.longest_lease_hours": "A longer lease is refused. 0: without bound.",
    "FencingSettings.command_timeout_s": "No exit within it says nothing; it is run again.",
    "BrokerSettings.quotas": "A table a tenant: what it may have at one time.",
    "QuotaSettings.vcpus": "Of all its parts together. Left out: no bound.",
    "QuotaSettings.memory_mib": "Likewise, memory.",
    "QuotaSettings.disk_mib": "Disk.",
    "QuotaSettings.iops": "Operations a second, by the caps of its disks.",
    "QuotaSettings.throughput_mib_s": "Throughput, by the caps of its disks.",
    "QuotaSettings.uplink_mbit_s": "What is guaranteed to it on uplinks, gateways included.",
    "TariffSettings.vcpu_hour": "Price of one vCPU for one hour.",
    "TariffSettings.memory_gib_hour": "Of one GiB of memory.",
    "TariffSettings.disk_gib_hour": "Of one GiB of disk.",
    "TariffSettings.link_mbit_s_hour": "Of one Mbit/s reserved on a link, a direction.",
    "TariffSettings.iops_hour": "Of one operation a second of a disk, by its cap.",
    "TariffSettings.throughput_mib_s_hour": "Of one MiB/s of a disk, by its cap.",
    "TariffSettings.nic_mbit_s_hour": "Of one Mbit/s guaranteed to a NIC.",
    "BrokerSettings.kind_tariffs": "A table a kind of lease that has a tariff of its own.",
    **{f"KindTariffSettings.{name}": "Likewise, for this kind." for name in RATES},
    "ListenSettings.addresses": "`host:port` or `unix:/path`, each with mutual TLS.",
    "TlsSettings.certificate": "PEM; followed.",
    "TlsSettings.key": "PEM; followed.",
    "TrustSettings.domain": "A trust domain that may call or be called.",
    "TrustSettings.roots": "PEM; they speak for this domain alone. Followed.",
    "EtcdSettings.ca": "Roots of etcd's certificate. Without it no TLS: on 127.0.0.0/8 only.",
    "EtcdSettings.certificate": "Its common name is the user of etcd.",
    "EtcdSettings.key": "The certificate's.",
    "EtcdSettings.server_name": "Name in etcd's certificate, if it is not the endpoint's.",
    "LogSettings.level": "Least level that is logged, one JSON object a line.",
    "Settings.site": "Name of the site.",
    "Settings.host": "Name of this host, as the broker's `policy.hosts` admits it.",
    "Settings.libvirt_uri": "Where libvirt is.",
    "Settings.imagestore": "The site's image store.",
    "UnderlaySettings.interface": "Interface towards the other hosts of the site.",
    "UnderlaySettings.address": "This host's address on it, which others tunnel to.",
    "UnderlaySettings.capacity_mbit_s": "Of the wire; a slower link counts as it is.",
    "GatewaySettings.interface": "Its name.",
    "GatewaySettings.address": "Its address, which other sites' gateways tunnel to.",
    "GatewaySettings.port": "UDP port of VXLAN between sites; not the underlay's 4789.",
    "GatewaySettings.capacity_mbit_s": "Of the wire.",
    "OfferSettings.vcpus": "The most vCPUs that may be promised, before overcommit.",
    "OfferSettings.memory_mib": "The most memory.",
    "OfferSettings.disk_mib": "The most disk.",
    "OfferSettings.pool_iops": "What the disk pool can do, as declared: it is not measured.",
    "OfferSettings.pool_throughput_mib_s": "Likewise, throughput.",
    "MetaschedSettings.sites": "A table a site that is planned over.",
    "CommitSettings.decide_within_s": "After so long a co-allocation is aborted.",
    "CommitSettings.rpc_timeout_s": "Of one call to a broker.",
}


def drawn() -> str:
    sections = [(TEXTS / "head.md").read_text()]
    for service, kind in SERVICES.items():
        sections += [
            f"## intertie-{service}",
            "\n".join(_table(kind)),
            f"For example:\n\n```toml\n{_example(service).read_text().strip()}\n```",
        ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _table(kind: type[BaseModel]) -> Iterator[str]:
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, told, default, meaning in _settings(kind, ""):
        yield f"| `{name}` | {told} | {default} | {meaning} |"


Line = tuple[str, str, str, str]


def _settings(kind: type[BaseModel], before: str) -> Iterator[Line]:
    """Every setting by its full name; what is in a table after the table's own line."""
    said = _said_in(kind)
    order = sorted(
        kind.model_fields, key=lambda name: _section(kind.model_fields[name]) is not None
    )
    for name in order:
        info = kind.model_fields[name]
        meaning = said.get(name) or _meaning(kind, name)
        section = _section(info)
        if section is None:
            default = "required" if info.is_required() else _told(info.default)
            yield f"{before}{name}", _type(info), default, meaning
            continue
        if _is_list(info.annotation):
            needed = info.is_required() or bool(_bounds(info))
            default = "required" if needed else "none"
            yield f"{before}[[{name}]]", "tables", default, meaning or _first_line(section)
            yield from _settings(section, f"{before}{name}[].")
        else:
            if info.default is None and not info.is_required():
                yield f"{before}[{name}]", "table", "none", meaning or _first_line(section)
            yield from _settings(section, f"{before}{name}.")


def _meaning(kind: type[BaseModel], name: str) -> str:
    for each in kind.__mro__:
        if meaning := MEANINGS.get(f"{each.__name__}.{name}"):
            return meaning
    return ""


def _section(info: FieldInfo) -> type[BaseModel] | None:
    """The class of a table, or of each table of a list."""
    for each in _pieces(info.annotation):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _pieces(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) is not Literal:
        for each in get_args(annotation):
            yield from _pieces(each)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _type(info: FieldInfo) -> str:
    annotation = info.annotation
    if get_origin(annotation) in (Union, UnionType):
        [annotation] = [each for each in get_args(annotation) if each is not NoneType]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{each}`" for each in get_args(annotation))
    if _is_list(annotation):
        return "strings" + (", 1 or more" if _bounds(info) else "")
    names: dict[Any, str] = {
        str: "string",
        int: "integer",
        float: "number",
        bool: "true or false",
        Path: "path",
    }
    return names[annotation] + "".join(f", {each}" for each in _bounds(info))


def _bounds(info: FieldInfo) -> list[str]:
    """What the type does not say: `>= 1`. That text is not empty goes without saying."""
    found = []
    for each in info.metadata:
        match each:
            case annotated_types.Ge(ge=least):
                found.append(f"≥ {least}")
            case annotated_types.Gt(gt=below):
                found.append(f"> {below}")
            case annotated_types.Le(le=most):
                found.append(f"≤ {most}")
            case annotated_types.MinLen(min_length=least) if _is_list(info.annotation):
                found.append(f"at least {least}")
            case _ if pattern := getattr(each, "pattern", None):
                found.append(f"`{pattern}`".replace("|", "\\|"))
    return found


def _told(default: Any) -> str:
    match default:
        case None | "" | ():
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case int() | float():
            return f"{default:g}" if isinstance(default, float) else str(default)
        case _:
            return f"`{default}`"


def _said_in(kind: type[BaseModel]) -> dict[str, str]:
    """What is written below each setting of the class, as one line."""
    said: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not each.__module__.startswith("intertie."):
            continue
        [body] = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(body, ast.ClassDef)
        for above, below in zip(body.body, body.body[1:], strict=False):
            match above, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as text)),
                ):
                    said[name] = " ".join(text.split())
    return said


def _first_line(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().partition("\n")[0]


def _example(service: str) -> Path:
    return TEXTS / f"{service}.toml"


def _every_line() -> list[Line]:
    return [line for kind in SERVICES.values() for line in _settings(kind, "")]


def test_the_document_is_what_the_classes_say() -> None:
    if os.environ.get("INTERTIE_UPDATE_DOCS"):
        PATH.write_text(drawn())
    assert PATH.read_text() == drawn()


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, _, _, meaning in _every_line() if not meaning] == []


def test_no_meaning_is_left_over() -> None:
    kinds: dict[str, type[BaseModel]] = {}
    for service in SERVICES.values():
        _collect(service, kinds)
    owners = {
        f"{name}.{setting}"
        for name, kind in kinds.items()
        for setting in kind.model_fields
        if setting not in _said_in(kind)
    }
    assert set(MEANINGS) - owners == set()


def _collect(kind: type[BaseModel], found: dict[str, type[BaseModel]]) -> None:
    for each in kind.__mro__:
        if issubclass(each, BaseModel) and each.__module__.startswith("intertie."):
            found[each.__name__] = each
    for info in kind.model_fields.values():
        if (section := _section(info)) is not None:
            _collect(section, found)


@pytest.mark.parametrize("service", SERVICES)
def test_the_example_is_taken(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("INTERTIE_")]:
        monkeypatch.delenv(name)
    settings = load(SERVICES[service], _example(service))
    given = tomllib.loads(_example(service).read_text())
    assert settings.model_dump(mode="json", exclude_unset=True) == given
