"""Intertie from Python.

async with await connect(load()) as client:
    document = read_document(Path("cluster.yaml").read_bytes())
    cluster = await client.clusters.create(document.name, document.spec)
    async for cluster in client.clusters.watch(cluster.name):
        ...

A refusal is raised as the type of `intertie.common.errors` that the service raised, what failed
on this side or on the way as a `ClientError`.
"""

from intertie.client.amending import DURATION, END_TIME, GROUPS, changes_of
from intertie.client.attachment import Attachment
from intertie.client.changes import Alive, Changed, ClusterEvent, Gone, Snapshot, SnapshotReason
from intertie.client.clusters import OVER, Clusters, draw_request_id
from intertie.client.config import Config, Endpoint, load
from intertie.client.counter_offers import with_changes
from intertie.client.document import Document, read_document
from intertie.client.errors import ClientError
from intertie.client.images import Images
from intertie.client.plain import to_plain, to_yaml, write_document
from intertie.client.problems import DocumentInvalid, Problem
from intertie.client.session import Client, connect
from intertie.client.sites import Hosts, Sites
from intertie.client.usage import Usage

__all__ = [
    "DURATION",
    "END_TIME",
    "GROUPS",
    "OVER",
    "Alive",
    "Attachment",
    "Changed",
    "Client",
    "ClientError",
    "ClusterEvent",
    "Clusters",
    "Config",
    "Document",
    "DocumentInvalid",
    "Endpoint",
    "Gone",
    "Hosts",
    "Images",
    "Problem",
    "Sites",
    "Snapshot",
    "SnapshotReason",
    "Usage",
    "changes_of",
    "connect",
    "draw_request_id",
    "load",
    "read_document",
    "to_plain",
    "to_yaml",
    "with_changes",
    "write_document",
]
