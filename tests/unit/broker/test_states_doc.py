"""docs/states.md is drawn from the tables.

To draw it again after a change, run this file with INTERTIE_UPDATE_DOCS=1.
"""

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from intertie.broker.domain import cluster, fleet, lost_hosts, moving, part, terms
from intertie.nodeagent.domain import reconcile

PATH = Path(__file__).parents[3] / "docs" / "states.md"

S = TypeVar("S", bound=Enum)

HEAD = """\
# States

Drawn from the tables in the code by `tests/unit/broker/test_states_doc.py`; do not edit. To draw
it again: `INTERTIE_UPDATE_DOCS=1 pytest tests/unit/broker/test_states_doc.py`.
"""

PARTS = """\
## A part: the piece of a lease at one site

HELD may expire alone; PREPARED may not: only a decision moves it. A part of a cluster that one
site serves alone begins CONFIRMED, in the one transaction that admits it. A part counts against
the site's capacity while it is {counted}, also after its end has been asked for, until every
host says that nothing of it is left. ENDED is the end of a life; RELEASED and EXPIRED mean that it
never began. Table: `intertie.broker.domain.part.NEXT`.
"""

AMENDS = """\
## Other terms for a part that stands

Beside a part that stays CONFIRMED: what they take beyond the terms in force is counted while they
are HELD or PREPARED, as a part is. APPLIED, they are in force; else the part has the terms that it
had. Table: `intertie.broker.domain.terms.AMEND_NEXT`.
"""

MIGRATIONS = """\
## A workspace on its way to another host

It counts at both hosts. What is over is not written down: the part has it at the one or the other,
by the word of the host that it was at. Until that is told to send it, it may be dropped at any
moment. Table: `intertie.broker.domain.moving.MOVING_NEXT`.
"""

CLUSTERS = """\
## A cluster, and the lease on it

A broker writes a cluster down when it is SCHEDULED; the states before that are a meta-scheduler's,
and REJECTED is told as an error. ACTIVE: every workspace was ready at one time. FAILED: a workspace
is lost, and all of the cluster is taken back. Table: `intertie.broker.domain.cluster.NEXT`.
"""

WORKSPACES = """\
## A workspace: one machine

What agents do and brokers are told. `ready` is a condition beside the state, said by the guest.
Every state but ENDED may also become FAILED. Table: `intertie.broker.domain.fleet.WORKSPACE_NEXT`.
"""

PHASES = """\
## A part on its host

What follows from its record and the host's clock, with nobody to ask. KEEP, after a window and
before the next, is only where the record says `keep_until`: guests that run become SUSPENDED, and
nothing is started. Table: `intertie.nodeagent.domain.reconcile.NEXT_PHASE`.
"""

HOSTS = """\
## A host, as its site's broker sees it

SILENT: it has not reported for long; what it runs may go on. FENCING: it is being made certain
that nothing of it runs. FENCED: it is; what was on it is placed elsewhere or ends, and it gets
nothing before it is UP again ([ADR 21](adr/0021-lost-hosts.md)).
Table: `intertie.broker.domain.lost_hosts.NEXT`.
"""


def drawn() -> str:
    counted = ", ".join(each.name for each in part.PartState if each in part.COUNTED)
    sections = (
        PARTS.format(counted=counted),
        diagram(part.NEXT, first=part.FIRST),
        AMENDS,
        diagram(terms.AMEND_NEXT, first={terms.AmendState.HELD, terms.AmendState.PREPARED}),
        MIGRATIONS,
        diagram(moving.MOVING_NEXT, first={moving.MovingState.PREPARING}),
        CLUSTERS,
        diagram(cluster.NEXT, first={cluster.ClusterState.REQUESTED}),
        WORKSPACES,
        diagram(fleet.WORKSPACE_NEXT, first={fleet.WorkspaceState.PLANNED}),
        PHASES,
        diagram(reconcile.NEXT_PHASE, first={reconcile.Phase.WAIT, reconcile.Phase.KEEP}),
        HOSTS,
        diagram(lost_hosts.NEXT, first={lost_hosts.HostState.UP}),
    )
    return "\n".join((HEAD, *sections))


def diagram(table: Mapping[S, frozenset[S]], first: frozenset[S] | set[S]) -> str:
    """In the language of Mermaid, which forges draw."""
    order = list(table)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {each.name}" for each in order if each in first]
    for each in order:
        lines += [f"    {each.name} --> {to.name}" for to in order if to in table[each]]
    lines += [f"    {each.name} --> [*]" for each in order if not table[each]]
    return "\n".join((*lines, "```", ""))


def test_the_document_is_what_the_tables_say() -> None:
    if os.environ.get("INTERTIE_UPDATE_DOCS"):
        PATH.write_text(drawn())
    assert PATH.read_text() == drawn()


def test_every_state_has_its_line_in_the_table() -> None:
    assert set(reconcile.NEXT_PHASE) == set(reconcile.Phase)
    assert set(part.NEXT) == set(part.PartState)
    assert set(cluster.NEXT) == set(cluster.ClusterState)
    unspecified = {fleet.WorkspaceState.STATE_UNSPECIFIED}
    assert set(fleet.WORKSPACE_NEXT) == set(fleet.WorkspaceState) - unspecified
