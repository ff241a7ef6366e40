"""A pass over many clusters, in which what is wrong with one keeps no other from its turn."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from intertie.common.errors import DomainError, EtcdUnavailable, NotLeading

log = structlog.get_logger(__name__)


@contextmanager
def apart(cluster: str) -> Iterator[None]:
    """For what is done for one cluster. What is wrong with store or lead ends the pass."""
    try:
        yield
    except (EtcdUnavailable, NotLeading):
        raise
    except DomainError as error:
        log.warning("pass.trouble", cluster=cluster, reason=error.reason, problem=str(error))
