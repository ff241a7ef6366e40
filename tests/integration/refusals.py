"""How a call was refused, by a real service over a real wire."""

from collections.abc import Awaitable

import grpc
import pytest

from intertie.common.errors import DomainError
from intertie.common.rpc.client import to_domain_error


async def refusal(call: Awaitable[object]) -> DomainError:
    """What the service meant. Fails where the call does not, or in a way that no service means."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    meant = to_domain_error(caught.value)
    assert meant is not None, caught.value
    return meant
