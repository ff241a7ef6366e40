"""A broker's word for a user: bound to request, receiver, broker and time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.api.cluster.v1 import clusters_pb2
from intertie.common.errors import IdentityUnknown
from intertie.common.rpc.delegation import LIFETIME, METADATA_KEY, vouch, vouched_for
from intertie.common.rpc.identity import OnBehalfOf, parse_spiffe
from intertie.common.values import replace
from tests.unit.common_rpc.authority import NOW, MemoryAuthority, trust_in

NORTH = MemoryAuthority("north.site.intertie")
SOUTH = MemoryAuthority("south.site.intertie")
BROKER = "spiffe://north.site.intertie/broker"
ALICE = parse_spiffe("spiffe://north.site.intertie/tenant/demo/user/alice")
META = "meta.meta.intertie"
REQUEST = clusters_pb2.GetClusterRequest(name="-/tenants/demo/clusters/a")
SIGNER = NORTH.issue(BROKER)


def token_of(signer: Any = SIGNER, caller: Any = ALICE, audience: str = META) -> str:
    [(key, token)] = vouch(signer, caller, REQUEST, audience=audience, now=NOW)
    assert key == METADATA_KEY
    return token


def accept(token: str, **changed: Any) -> OnBehalfOf:
    arguments: dict[str, Any] = {
        "broker": parse_spiffe(BROKER),
        "audience": META,
        "trust": trust_in(NORTH, SOUTH),
        "now": NOW,
    }
    request = changed.pop("request", REQUEST)
    return vouched_for(token, request, **(arguments | changed))


def test_the_user_is_known_at_the_other_end() -> None:
    assert accept(token_of()) == OnBehalfOf(spiffe=ALICE.spiffe, tenant="demo")
    operator = parse_spiffe("spiffe://north.site.intertie/operator/root")
    assert accept(token_of(caller=operator)).tenant == ""


def test_another_request_receiver_broker_or_time_is_refused() -> None:
    other = clusters_pb2.GetClusterRequest(name="-/tenants/demo/clusters/b")
    same_fields = clusters_pb2.WatchClusterRequest(name=REQUEST.name)
    south = parse_spiffe("spiffe://south.site.intertie/broker")
    for changed in (
        {"request": other},
        {"request": same_fields},
        {"audience": "other.meta.intertie"},
        {"broker": south},
        {"now": NOW + LIFETIME},
        {"now": NOW - timedelta(minutes=5)},
        {"trust": trust_in(SOUTH)},
    ):
        with pytest.raises(IdentityUnknown):
            accept(token_of(), **changed)


def test_a_broker_speaks_for_its_own_users_only() -> None:
    south = SOUTH.issue("spiffe://south.site.intertie/broker")
    with pytest.raises(IdentityUnknown, match="may not speak for"):
        accept(token_of(south), broker=parse_spiffe("spiffe://south.site.intertie/broker"))
    agent = NORTH.issue("spiffe://north.site.intertie/agent/n1")
    with pytest.raises(IdentityUnknown, match="broker that sent it"):
        accept(token_of(agent), broker=parse_spiffe("spiffe://north.site.intertie/agent/n1"))
    with pytest.raises(IdentityUnknown, match="broker that sent it"):
        accept(token_of(agent))


def test_what_was_handed_on_goes_no_further() -> None:
    handed_on = replace(
        parse_spiffe(BROKER), on_behalf_of=OnBehalfOf(spiffe=ALICE.spiffe, tenant="demo")
    )
    for caller in (handed_on, parse_spiffe(BROKER)):
        with pytest.raises(IdentityUnknown, match="already"):
            token_of(caller=caller)


def test_garbage_is_refused() -> None:
    good = token_of()
    body, signature, certificate = good.split(".")
    for token in (
        "",
        "a.b",
        "a.b.c",
        f"{body}.{signature}",
        f"{body}.{signature}.{body}",
        f"{body}.{body}.{certificate}",
        f"{certificate}.{signature}.{certificate}",
        good + ".x",
        "é.é.é",
    ):
        with pytest.raises(IdentityUnknown):
            accept(token)
