"""A broker hands on a user's request: the token with which it vouches for that user.

The token is bound to the request, to the meta-scheduler it is for and to a short time, so that it
is of no use for anything else. A broker vouches for users of its own trust domain only, and for
requests that came to it first hand. What is vouched for is bound to that user's tenant: a site's
operator, who is of none, is nobody beyond the site.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from intertie.common.errors import IdentityUnknown, RoleDenied
from intertie.common.rpc.identity import Identities, Identity, OnBehalfOf, Role, Trust, parse_spiffe
from intertie.common.rpc.signing import Signer, verify

METADATA_KEY = "intertie-on-behalf-of"
LIFETIME = timedelta(minutes=2)
MAX_HOPS = 1
_PURPOSE = b"intertie on-behalf-of\0"


def vouch(
    signer: Signer, caller: Identity, request: Message, *, audience: str, now: datetime
) -> tuple[tuple[str, str], ...]:
    """Metadata for handing `request` on to the trust domain `audience`.

    Of a stream, `request` is its first message. A request that was handed on already goes no
    further: IdentityUnknown.
    """
    if caller.on_behalf_of is not None or caller.role not in (Role.USER, Role.OPERATOR):
        raise IdentityUnknown(f"{caller}: its request was handed on already")
    body = json.dumps(
        {
            "caller": caller.spiffe,
            "tenant": caller.tenant or "",
            "request": _digest(request),
            "audience": audience,
            "hop": MAX_HOPS,
            "expires": (now + LIFETIME).timestamp(),
        }
    ).encode()
    signed = signer.sign(_PURPOSE + body)
    parts = (body, signed.signature, signed.certificate)
    return ((METADATA_KEY, ".".join(base64.urlsafe_b64encode(part).decode() for part in parts)),)


def vouched_for(
    token: str, request: Message, *, broker: Identity, audience: str, trust: Trust, now: datetime
) -> OnBehalfOf:
    """Whose request it is that `broker`, the caller of this very call, hands on."""
    try:
        body, signature, certificate = (
            base64.b64decode(part, altchars=b"-_", validate=True) for part in token.split(".")
        )
        claims: dict[str, Any] = json.loads(body)
        user = parse_spiffe(str(claims["caller"]))
        expires = float(claims["expires"])
        hop, tenant = int(claims["hop"]), str(claims["tenant"])
        digest, meant_for = claims["request"], claims["audience"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise IdentityUnknown("its on-behalf-of token cannot be read") from None
    signed_by = verify(_PURPOSE + body, signature, certificate, Identities(trust), now=now)
    if signed_by.spiffe != broker.spiffe or broker.role is not Role.BROKER:
        raise _refused("was not signed by the broker that sent it")
    if user.trust_domain != broker.trust_domain or user.role not in (Role.USER, Role.OPERATOR):
        raise _refused(f"speaks for {user}, whom {broker} may not speak for")
    if tenant != (user.tenant or ""):
        raise _refused("names a tenant that is not the user's")
    if hop < 1 or hop > MAX_HOPS:
        raise _refused("has come too far")
    if meant_for != audience:
        raise _refused("is meant for another service")
    if not now.timestamp() < expires <= (now + 2 * LIFETIME).timestamp():
        raise _refused("is not valid now")
    if digest != _digest(request):
        raise _refused("belongs to another request")
    return OnBehalfOf(spiffe=user.spiffe, tenant=tenant)


def check_bound(behalf: OnBehalfOf, method: str) -> None:
    """A request that is handed on touches one tenant: RoleDenied for a site's operator, who is
    bound to none, and would else read and end the clusters of every site's tenants."""
    if not behalf.tenant:
        raise RoleDenied(
            behalf.spiffe,
            method,
            "a site's operator has no rights beyond the site; ask the meta-scheduler itself, with"
            " a certificate of its own operator",
        )


def _refused(problem: str) -> IdentityUnknown:
    return IdentityUnknown(f"its on-behalf-of token {problem}")


def _digest(request: Message) -> str:
    octets = request.SerializeToString(deterministic=True)
    kind = request.DESCRIPTOR.full_name.encode()
    return hashlib.blake2b(kind + b"\0" + octets, digest_size=32).hexdigest()
