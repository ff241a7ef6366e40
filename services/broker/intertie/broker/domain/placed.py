"""Where workspaces of a part are."""

from collections.abc import Iterable

from intertie.common.values import Struct


class Placed(Struct, frozen=True, kw_only=True):
    """Where one workspace is."""

    workspace: str
    host: str


def hosts_of(placed: Iterable[Placed]) -> dict[str, str]:
    """By workspace."""
    return {each.workspace: each.host for each in placed}


def all_hosts(placed: Iterable[Placed], gateway: str) -> tuple[str, ...]:
    found = {each.host for each in placed}
    if gateway:
        found.add(gateway)
    return tuple(sorted(found))
