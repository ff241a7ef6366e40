"""Names are paths, ids are DNS labels, devices are named by uids, never by text of users."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from intertie.common.errors import FieldInvalid

ANY = "-"
"""In the place of an authority or a site: the service that is asked."""

REMEMBERED = 1 << 16
"""Names that are kept as they were taken apart: a ledger asks for the same ones again and again."""

_A_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LABEL = re.compile(_A_LABEL)
_TENANTS = f"tenants/({_A_LABEL})"
_CLUSTER = re.compile(f"((?:sites|metascheds)/{_A_LABEL})/{_TENANTS}/clusters/({_A_LABEL})")
_PART = re.compile(f"sites/({_A_LABEL})/{_TENANTS}/parts/({_A_LABEL})")
"""Whole names, at one look; what is none is taken apart, to say what is wrong with it."""
_DIGEST = re.compile(r"b3:[0-9a-f]{64}")


def check_label(text: str, field: str) -> str:
    """`text`, if it is a DNS label: at most 63 of a to z, 0 to 9 and -, no - at either end."""
    if not text:
        raise FieldInvalid(field, "must not be empty; give a name like `worker`")
    if len(text) > 63:
        raise FieldInvalid(field, f"has {len(text)} characters; at most 63 are allowed")
    if not text.isascii() or not _LABEL.fullmatch(text):
        raise FieldInvalid(
            field,
            f"{text!r} is no DNS label; use a-z, 0-9 and `-`, with a letter or digit at both ends",
        )
    return text


def is_digest(text: str) -> bool:
    """Whether `text` names an image by content: `b3:` and 64 hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class Parent:
    """Where a tenant's things are: `{authority}/tenants/{tenant}`, the authority being
    `sites/{site}`, `metascheds/{metasched}` or `-` for whatever service is asked."""

    authority: str
    tenant: str

    @classmethod
    def parse(cls, text: str, field: str = "parent") -> "Parent":
        return _whole_parent(text, field)

    def at(self, authority: str) -> Self:
        """The same tenant under the authority that `-` stood for."""
        return type(self)(authority, self.tenant) if self.authority == ANY else self

    @property
    def site(self) -> str:
        """Empty unless the authority is a site."""
        kind, _, place = self.authority.partition("/")
        return place if kind == "sites" else ""

    def __str__(self) -> str:
        return f"{self.authority}/tenants/{self.tenant}"


@dataclass(frozen=True, slots=True, order=True)
class ClusterName:
    """`{parent}/clusters/{id}`"""

    parent: Parent
    cluster_id: str

    @classmethod
    def parse(cls, text: str, field: str = "name") -> "ClusterName":
        return _cluster_name(text, field)

    @property
    def tenant(self) -> str:
        return self.parent.tenant

    @property
    def authority(self) -> str:
        return self.parent.authority

    def at(self, authority: str) -> Self:
        return type(self)(self.parent.at(authority), self.cluster_id)

    def __str__(self) -> str:
        return f"{self.parent}/clusters/{self.cluster_id}"


@dataclass(frozen=True, slots=True, order=True)
class PartName:
    """`sites/{site}/tenants/{tenant}/parts/{part}`"""

    site: str
    tenant: str
    part_id: str

    @classmethod
    def parse(cls, text: str, field: str = "name") -> "PartName":
        return _part_name(text, field)

    @property
    def uid(self) -> str:
        return _uid_of_part(self)

    def __str__(self) -> str:
        return f"sites/{self.site}/tenants/{self.tenant}/parts/{self.part_id}"


@dataclass(frozen=True, slots=True, order=True)
class HostName:
    """`sites/{site}/hosts/{host}`"""

    site: str
    host: str

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        pieces = text.split("/")
        if len(pieces) != 4 or pieces[0] != "sites" or pieces[2] != "hosts":
            raise FieldInvalid(field, f"{text!r} must read sites/SITE/hosts/HOST")
        site = pieces[1] if pieces[1] == ANY else check_label(pieces[1], field)
        return cls(site, check_label(pieces[3], field))

    def __str__(self) -> str:
        return f"sites/{self.site}/hosts/{self.host}"


@dataclass(frozen=True, slots=True, order=True)
class ImageName:
    """`sites/{site}/tenants/{tenant}/images/{id}`; the id is a label or a digest."""

    site: str
    tenant: str
    image_id: str

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        parent, image_id = _split(text, "images", field)
        site, tenant = _site_and_tenant(parent, text, field)
        if not is_digest(image_id):
            check_label(image_id, field)
        return cls(site, tenant, image_id)

    def __str__(self) -> str:
        return f"sites/{self.site}/tenants/{self.tenant}/images/{self.image_id}"


def split_workspace(text: str, field: str = "workspace") -> tuple[str, str]:
    """`{owner}/workspaces/{workspace}` as the owner's name (a cluster or a part) and the label."""
    owner, workspace = _split(text, "workspaces", field)
    return owner, check_label(workspace, field)


def workspace_label(group: str, index: int) -> str:
    """What a workspace is called inside its cluster, its host name too."""
    return f"{group}-{index}"


def uid_of(*parts: str) -> str:
    """12 hex digits, the same for the same parts everywhere and always."""
    return _blake(*parts, size=6).hex()


def mac_of(cluster_uid: str, network: str, group: str, index: int) -> str:
    """A locally administered unicast address, fixed by where in the cluster the NIC is."""
    octets = bytearray(_blake("mac", cluster_uid, network, group, str(index), size=6))
    octets[0] = (octets[0] & 0b1111_1100) | 0b0000_0010
    return ":".join(f"{octet:02x}" for octet in octets)


@dataclass(frozen=True, slots=True)
class DeviceNames:
    """Names of libvirt domains and kernel devices; the latter have 15 characters at most."""

    @staticmethod
    def domain(workspace_uid: str) -> str:
        return f"it-{workspace_uid}"

    @staticmethod
    def tap(workspace_uid: str, nic: int) -> str:
        return f"it{workspace_uid[:8]}{nic:x}"

    @staticmethod
    def ifb(workspace_uid: str, nic: int) -> str:
        """Carries what the guest sends, so that it can be shaped."""
        return f"ii{workspace_uid[:8]}{nic:x}"

    @staticmethod
    def bridge(network_uid: str) -> str:
        return f"ib{network_uid[:10]}"

    @staticmethod
    def vxlan(network_uid: str) -> str:
        """Towards the other hosts of the site."""
        return f"iv{network_uid[:10]}"

    @staticmethod
    def wide_vxlan(network_uid: str) -> str:
        """Towards the gateways of other sites."""
        return f"iw{network_uid[:10]}"


@lru_cache(maxsize=REMEMBERED)
def _whole_parent(text: str, field: str) -> Parent:
    pieces = text.split("/")
    if pieces[:1] == [ANY] and len(pieces) == 3 and pieces[1] == "tenants":
        return Parent(ANY, check_label(pieces[2], field))
    if len(pieces) == 4 and pieces[0] in ("sites", "metascheds") and pieces[2] == "tenants":
        place = pieces[1] if pieces[1] == ANY else check_label(pieces[1], field)
        tenant = pieces[3] if pieces[3] == ANY else check_label(pieces[3], field)
        authority = ANY if place == ANY else f"{pieces[0]}/{place}"
        return Parent(authority, tenant)
    raise FieldInvalid(
        field,
        f"{text!r} must read sites/SITE/tenants/TENANT, metascheds/NAME/tenants/TENANT "
        "or -/tenants/TENANT",
    )


@lru_cache(maxsize=REMEMBERED)
def _cluster_name(text: str, field: str) -> ClusterName:
    if whole := _CLUSTER.fullmatch(text):
        authority, tenant, cluster_id = whole.groups()
        return ClusterName(Parent(authority, tenant), cluster_id)
    parent, cluster_id = _split(text, "clusters", field)
    return ClusterName(_parent(parent, text, field), check_label(cluster_id, field))


@lru_cache(maxsize=REMEMBERED)
def _part_name(text: str, field: str) -> PartName:
    if whole := _PART.fullmatch(text):
        return PartName(*whole.groups())
    parent, part_id = _split(text, "parts", field)
    site, tenant = _site_and_tenant(parent, text, field)
    return PartName(site, tenant, check_label(part_id, field))


@lru_cache(maxsize=REMEMBERED)
def _uid_of_part(name: PartName) -> str:
    return uid_of(str(name))


def _blake(*parts: str, size: int) -> bytes:
    """Parts are length-prefixed: ("a", "bc") and ("ab", "c") differ."""
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        octets = part.encode()
        digest.update(len(octets).to_bytes(4, "big") + octets)
    return digest.digest()


def _split(text: str, collection: str, field: str) -> tuple[str, str]:
    owner, separator, last = text.rpartition(f"/{collection}/")
    if not separator or not owner or "/" in last:
        raise FieldInvalid(field, f"{text!r} must end in /{collection}/NAME")
    return owner, last


def _parent(parent: str, text: str, field: str) -> Parent:
    try:
        found = Parent.parse(parent, field)
    except FieldInvalid as error:
        raise FieldInvalid(field, f"{text!r}: {error.problem}") from None
    if found.tenant == ANY:
        raise FieldInvalid(field, f"{text!r} must name a tenant")
    return found


def _site_and_tenant(parent: str, text: str, field: str) -> tuple[str, str]:
    """Of `sites/{site}/tenants/{tenant}`; the site may be `-`, or the authority as a whole."""
    found = _parent(parent, text, field)
    if found.authority != ANY and not found.site:
        raise FieldInvalid(field, f"{text!r} must begin with sites/SITE/tenants/TENANT")
    return found.site or ANY, found.tenant
