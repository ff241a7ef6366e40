"""Logs: one JSON object a line on stderr, an event each, with what is bound in its task."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

get_logger = structlog.get_logger

_SECRET = frozenset(
    {"key", "private_key", "signature", "ssh_authorized_keys", "token", "user_data"}
)
"""Fields whose values are never written, whoever passes them."""


def configure(service: str, level: str = "info") -> None:
    """Sets up logging of the process, that of libraries included. Once, in `main`."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _naming(service),
        _hide_secrets,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))


_ANYTHING = structlog.processors.JSONRenderer()


def _render(logger: Any, name: str, event: MutableMapping[str, Any]) -> str | bytes:
    """In a thirtieth of the time that Python's own encoder takes, which is left for what is no
    text that can be sent, or a number that is too large: a line is never lost for what is in it."""
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _ANYTHING(logger, name, event)


def _naming(service: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def _hide_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field in _SECRET.intersection(event):
        event[field] = "(hidden)"
    return event
