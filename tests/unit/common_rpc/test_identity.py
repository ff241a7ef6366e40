"""Whom a certificate speaks for, and whom it does not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.common.errors import IdentityUnknown
from intertie.common.rpc.identity import Identities, Role, identity_of, parse_spiffe
from intertie.common.rpc.signing import verify
from tests.unit.common_rpc.authority import NOW, MemoryAuthority, trust_in

NORTH = MemoryAuthority("north.site.intertie")
SOUTH = MemoryAuthority("south.site.intertie")
TRUST = trust_in(NORTH, SOUTH)
KNOWN = Identities(TRUST)


@pytest.mark.parametrize(
    ("spiffe", "role", "name", "tenant", "host"),
    [
        ("spiffe://north.site.intertie/broker", Role.BROKER, "broker", None, None),
        ("spiffe://north.site.intertie/imagestore", Role.IMAGESTORE, "imagestore", None, None),
        ("spiffe://north.site.intertie/agent/n1", Role.AGENT, "n1", None, "n1"),
        ("spiffe://meta.meta.intertie/metasched", Role.METASCHED, "metasched", None, None),
        ("spiffe://north.site.intertie/operator/root", Role.OPERATOR, "root", None, None),
        ("spiffe://m.meta.intertie/tenant/demo/user/al", Role.USER, "al", "demo", None),
    ],
)
def test_roles_are_read_from_the_name(
    spiffe: str, role: Role, name: str, tenant: str | None, host: str | None
) -> None:
    identity = parse_spiffe(spiffe)
    assert (identity.role, identity.name, identity.tenant, identity.host) == (
        role, name, tenant, host,
    )  # fmt: skip
    assert identity.caller == str(identity) == spiffe


@pytest.mark.parametrize(
    "spiffe",
    [
        "",
        "https://north.site.intertie/broker",
        "spiffe://north.site.intertie",
        "spiffe://north.site.intertie/",
        "spiffe://north.site.intertie/etcd",
        "spiffe://north.site.intertie/broker/x",
        "spiffe://north.site.intertie/metasched",
        "spiffe://meta.meta.intertie/broker",
        "spiffe://elsewhere.example/operator/root",
        "spiffe://north.site.intertie/tenant/-/user/alice",
        "spiffe://north.site.intertie/tenant/../user/alice",
        "spiffe://north.site.intertie/agent/N_1",
    ],
)
def test_other_names_have_no_role(spiffe: str) -> None:
    with pytest.raises(IdentityUnknown):
        parse_spiffe(spiffe)


def test_a_leaf_of_its_own_domains_root_is_known() -> None:
    leaf = NORTH.issue("spiffe://north.site.intertie/broker").certificate
    assert identity_of(leaf, TRUST, now=NOW).site == "north"


def test_a_root_speaks_for_its_own_domain_only() -> None:
    leaf = SOUTH.issue("spiffe://north.site.intertie/broker").certificate
    with pytest.raises(IdentityUnknown, match="its own domain"):
        identity_of(leaf, TRUST, now=NOW)


def test_a_domain_that_nobody_vouches_for_is_unknown() -> None:
    leaf = SOUTH.issue("spiffe://south.site.intertie/broker").certificate
    with pytest.raises(IdentityUnknown):
        identity_of(leaf, trust_in(NORTH), now=NOW)


@pytest.mark.parametrize("offset", [timedelta(hours=1), timedelta(hours=-1, seconds=-1)])
def test_a_certificate_counts_from_its_first_moment_until_before_its_last(
    offset: timedelta,
) -> None:
    leaf = NORTH.issue("spiffe://north.site.intertie/broker").certificate
    identity_of(leaf, TRUST, now=NOW - timedelta(hours=1))
    with pytest.raises(IdentityUnknown, match="not valid"):
        identity_of(leaf, TRUST, now=NOW + offset)


def test_an_expired_root_vouches_for_nobody() -> None:
    leaf = NORTH.issue(
        "spiffe://north.site.intertie/broker", ends=NOW + timedelta(days=9)
    ).certificate
    with pytest.raises(IdentityUnknown):
        identity_of(leaf, TRUST, now=NOW + timedelta(days=2))


def test_a_certificate_has_exactly_one_name() -> None:
    for uris in ((), ("spiffe://north.site.intertie/broker", "spiffe://north.site.intertie/x")):
        with pytest.raises(IdentityUnknown):
            identity_of(NORTH.issue(*uris).certificate, TRUST, now=NOW)
    with pytest.raises(IdentityUnknown):
        identity_of(b"no certificate", TRUST, now=NOW)


def test_a_leaf_signs_and_others_verify() -> None:
    signer = NORTH.issue("spiffe://north.site.intertie/broker")
    signature = signer.sign(b"body").signature
    assert verify(b"body", signature, signer.certificate, KNOWN, now=NOW).site == "north"
    with pytest.raises(IdentityUnknown, match="signature"):
        verify(b"Body", signature, signer.certificate, KNOWN, now=NOW)
    other = NORTH.issue("spiffe://north.site.intertie/broker")
    with pytest.raises(IdentityUnknown, match="signature"):
        verify(b"body", signature, other.certificate, KNOWN, now=NOW)
    forger = SOUTH.issue("spiffe://north.site.intertie/broker")
    forged = forger.sign(b"body").signature
    with pytest.raises(IdentityUnknown):
        verify(b"body", forged, forger.certificate, KNOWN, now=NOW)


def test_a_servers_name_lies_in_one_domain() -> None:
    assert TRUST.domain_of("broker.north.site.intertie") == "north.site.intertie"
    for name in ("broker.west.site.intertie", "evilnorth.site.intertie", "localhost"):
        with pytest.raises(ValueError, match="trust"):
            TRUST.domain_of(name)
