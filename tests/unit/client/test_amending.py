"""A document against the cluster that stands: what is asked for, and what cannot be."""

import pytest

from intertie.api.cluster.v1.cluster_pb2 import Cluster
from intertie.client import DURATION, END_TIME, GROUPS, DocumentInvalid, changes_of, read_document

DOCUMENT = """
name: demo
groups:
  - name: a
    count: 2
    environment: {image: guest}
    allocation: {vcpus: 1, memory_mib: 128, disk_mib: 128}
networks:
  - name: lan
    subnet: 10.1.0.0/24
    latency: [{groups: [a, a], max_latency: 50ms}]
volumes: [{name: scratch, group: a, size_mib: 64, disk: {guarantee_iops: 9}}]
lease: {duration: 1h, start_time: "2026-03-01T12:00:00Z"}
"""


def standing() -> Cluster:
    cluster = Cluster(spec=read_document(DOCUMENT).spec)
    cluster.spec.groups[0].environment.contextualization.ssh_authorized_keys.append("key")
    cluster.spec.volumes[0].disk.cap_iops = 9  # as services fill it in
    cluster.spec.placement.max_sites = 0  # as services say it where nothing was
    cluster.window.start_time.FromJsonString("2026-03-01T12:30:00Z")
    return cluster


def asked(text: str) -> list[str]:
    return changes_of(read_document(text), standing())[1]


def test_an_end_is_named_where_it_differs_and_groups_are_the_services_to_judge() -> None:
    assert asked(DOCUMENT) == [GROUPS]
    assert asked(DOCUMENT.replace("duration: 1h", "duration: 2h")) == [GROUPS, DURATION]
    until = DOCUMENT.replace("duration: 1h", 'end_time: "2026-03-01T15:00:00Z"')
    assert asked(until) == [GROUPS, END_TIME]
    assert asked(DOCUMENT.partition("lease")[0]) == [GROUPS], "who says no end leaves it"
    admitted = DOCUMENT.replace("12:00:00Z", "12:30:00Z")
    assert asked(admitted) == [GROUPS], "the start that was admitted is the same start"


def test_keys_that_were_given_beside_the_file_stay() -> None:
    spec, _ = changes_of(read_document(DOCUMENT), standing())
    assert list(spec.groups[0].environment.contextualization.ssh_authorized_keys) == ["key"]


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("10.1.0.0/24", "10.2.0.0/24", "networks"),
        ("50ms", "40ms", "networks"),
        ("duration: 1h", "duration: 1h, max_delay: 5m", "lease.max_delay"),
        ("12:00:00Z", "12:10:00Z", "lease.start_time"),
        ("size_mib: 64", "size_mib: 65", "volumes"),
        ("lease:", "datasets: [{name: d, source: d}]\nlease:", "datasets"),
        ("lease:", "placement: {max_sites: 1}\nlease:", "placement"),
    ],
)
def test_what_no_mask_can_name_is_refused_and_not_passed_over(
    old: str, new: str, path: str
) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        asked(DOCUMENT.replace(old, new))
    [problem] = caught.value.problems
    assert problem.path == path
    assert problem.line
    assert problem.remedy
