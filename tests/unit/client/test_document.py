"""Reading a cluster's YAML: what is refused, where, and with which remedy."""

from __future__ import annotations

import pytest

from intertie.client.document import MAX_BYTES, Document, read_document
from intertie.client.problems import DocumentInvalid, Problem

GROUP = "groups:\n  - name: worker\n"
EXAMPLE = "Begin from examples/two-sites.yaml."
CHECK = "Check indentation, quotes and brackets, in this line and before it."
UNFOLD = "Write out what they stand for, or join groups that are alike (count)."


def problems(text: bytes | str) -> tuple[Problem, ...]:
    with pytest.raises(DocumentInvalid) as refused:
        read_document(text)
    return refused.value.problems


@pytest.mark.parametrize(
    ("text", "path", "line", "says", "remedy"),
    [
        ("grups: []", "grups", 1, "no such field", "Did you mean groups?"),
        ("nmae: x", "nmae", 1, "no such field", "Did you mean name?"),
        (
            GROUP + "    allocation: {memory: 1}",
            "groups[0].allocation.memory",
            3,
            "no such field",
            "Did you mean memory_mib?",
        ),
        (
            GROUP + "    vcpus: 1",
            "groups[0].vcpus",
            3,
            "no such field",
            "Did you mean allocation.vcpus?",
        ),
        (
            GROUP + "    allocation: {guarantee_iops: 1}",
            "groups[0].allocation.guarantee_iops",
            3,
            "no such field",
            "Did you mean disk.guarantee_iops?",
        ),
        (
            "lease: {zzz: 1}",
            "lease.zzz",
            1,
            "no such field",
            "The fields here are start_time, duration, end_time, max_delay, kind, deadline, "
            "max_wait, cancellable.",
        ),
        ("<<: {}", "<<", 1, "merge keys are not read", "Use an alias as a field's value."),
        (
            GROUP + "    name: again",
            "groups[0].name",
            3,
            "is there twice, first in line 2",
            "Leave one of the two out.",
        ),
        (
            "name: a\nname: b",
            "name",
            2,
            "is there twice, first in line 1",
            "Leave one of the two out.",
        ),
        (
            "name: 7",
            "name",
            1,
            "expected text, found a whole number ('7')",
            'Put it in quotes: "7".',
        ),
        (
            "groups:\n  - name: no",
            "groups[0].name",
            2,
            "expected text, found a truth value ('no')",
            'Put it in quotes: "no".',
        ),
        (
            GROUP + "    allocation: {memory_mib: 128M}",
            "groups[0].allocation.memory_mib",
            3,
            "expected a whole number, found text ('128M')",
            "The unit is in the field's name, not in the value.",
        ),
        (
            GROUP + "    count: 1.5",
            "groups[0].count",
            3,
            "expected a whole number, found a fraction ('1.5')",
            "Write digits only, without a zero before them.",
        ),
        (
            GROUP + "    count: 010",
            "groups[0].count",
            3,
            "expected a whole number, found a whole number ('010')",
            "Write digits only, without a zero before them.",
        ),
        (
            GROUP + "    count: 2147483648",
            "groups[0].count",
            3,
            "2147483648 is out of range",
            "From -2147483648 to 2147483647.",
        ),
        (
            GROUP + "    count: " + "9" * 5000,
            "groups[0].count",
            3,
            f"{'9' * 40} is out of range",
            "From -2147483648 to 2147483647.",
        ),
        (
            GROUP + "    count:",
            "groups[0].count",
            3,
            "expected a whole number, found nothing",
            "Give it a value or leave the field out.",
        ),
        (
            "groups: {name: a}",
            "groups",
            1,
            "expected a list, found fields",
            "Begin each of its items with `- `.",
        ),
        (
            "lease: [1]",
            "lease",
            1,
            "expected fields (start_time, duration, end_time, max_delay, kind, deadline, "
            "max_wait, cancellable), found a list",
            "Write fields (start_time, duration, end_time, max_delay, kind, deadline, "
            "max_wait, cancellable).",
        ),
        (
            "lease: {duration: 60}",
            "lease.duration",
            1,
            "expected a span of time such as 1h, 30m, 90s or 250ms, found a whole number ('60')",
            "60 of what? Write 60s or 60m.",
        ),
        (
            "lease: {duration: -1h}",
            "lease.duration",
            1,
            "expected a span of time such as 1h, 30m, 90s or 250ms, found text ('-1h')",
            "Write a span of time such as 1h, 30m, 90s or 250ms.",
        ),
        (
            "lease: {end_time: 2026-11-30T12:00:00}",
            "lease.end_time",
            1,
            "expected a moment with its time zone, such as 2026-11-30T12:00:00Z,"
            " found '2026-11-30T12:00:00'",
            "Write a moment with its time zone, such as 2026-11-30T12:00:00Z.",
        ),
        (
            GROUP + "    environment: {readiness: chanel}",
            "groups[0].environment.readiness",
            3,
            "expected one of CHANNEL, GUEST_AGENT, RUNNING, found text ('chanel')",
            "Did you mean CHANNEL?",
        ),
        (
            GROUP + "    environment: {contextualization: {user_data: {base64: '?'}}}",
            "groups[0].environment.contextualization.user_data",
            3,
            "is not base64",
            "Encode it with `base64 FILE`.",
        ),
        ("? [a]\n: b", "", 1, "expected a field's name, found a list", EXAMPLE),
        ("[1]", "", 1, "expected fields, as in `groups: [...]`, found a list", EXAMPLE),
        ("", "", 0, "is empty", EXAMPLE),
        ("groups: [\n", "", 2, "not YAML: did not find expected node content", CHECK),
        ("name: a\n---\nname: b", "", 2, "not YAML: but found another document", CHECK),
        ("a:\n\t- b", "", 2, "not YAML: found character that cannot start any token", CHECK),
        ("name: 'a", "", 1, "not YAML: found unexpected end of stream", CHECK),
        ("name: *nowhere", "", 1, "not YAML: found undefined alias", CHECK),
        ("[" * 40, "", 1, "nested more than 32 deep", EXAMPLE),
        ("a: &a 1\nb: [" + "*a," * 101 + "]", "", 2, "more than 100 aliases", UNFOLD),
    ],
)
def test_one_thing_wrong_is_said_with_path_line_and_remedy(
    text: str, path: str, line: int, says: str, remedy: str
) -> None:
    assert problems(text) == (Problem(path=path, line=line, text=says, remedy=remedy),)
    assert remedy


def test_everything_wrong_is_said_at_once() -> None:
    found = problems("name: 1\ngrups: []\nlease: {duration: long}\n")
    assert [each.path for each in found] == ["name", "grups", "lease.duration"]


def test_a_document_of_more_than_a_mebibyte_is_refused_unread() -> None:
    for size in (MAX_BYTES + 1, 5 * MAX_BYTES):
        [problem] = problems(b"#" * size)
        assert problem.text == "has more than 1048576 bytes, which is the most that is read"
        assert "Join groups" in problem.remedy


@pytest.mark.parametrize("text", [b"\xff\xfe\xfd", b"\x00", "name: \x07"])
def test_what_is_no_text_is_refused(text: bytes | str) -> None:
    [problem] = problems(text)
    assert problem.text.startswith("not YAML: ")
    assert problem.remedy


def test_aliases_that_unfold_to_too_much_are_refused() -> None:
    pairs = ", ".join(["{group: b}"] * 50)
    groups = ", ".join(["{allocation: *a}"] * 99)
    text = f"groups: [{{allocation: &a {{pairs: [{pairs}]}}}}, {groups}]"
    assert len(read_document(text).spec.groups) == 100
    networks = ", ".join(["*n"] * 2000)
    bomb = f"groups: [{{networks: &n [{', '.join(['a'] * 2000)}]}}, "
    bomb += ", ".join(["{networks: *n}"] * 99) + "]"
    assert networks
    assert problems(bomb)[-1].text == "aliases unfold to too much"
    assert problems(bomb)[-1].remedy == UNFOLD


def test_an_alias_that_holds_itself_is_refused() -> None:
    assert problems("groups: [&g {name: a, placement: *g}]")


def test_what_is_written_is_what_is_read() -> None:
    document = read_document(
        """
        name: demo
        groups:
          - name: head
            count: 1
            environment:
              image: guest
              readiness: GUEST_AGENT
              contextualization:
                ssh_authorized_keys: [ssh-ed25519 AAAA me]
                user_data: |
                  #cloud-config
                  {}
            allocation:
              vcpus: 2
              memory_mib: 1_024
              availability: {on_isolation: STOP, stop_after: 1m30s}
          - name: worker
            environment: {contextualization: {user_data: {base64: "/wA="}}}
        networks:
          - name: lan
            subnet: 10.1.0.0/24
            latency: [{groups: [head, worker], max_latency: 1500us}]
        lease: {start_time: 2026-11-30T12:00:00.25Z, duration: 1d2h, max_delay: 250ms}
        placement:
          affinities: [{groups: [head, worker], kind: APART}]
          max_cost: 12.50
        """
    )
    assert document.name == "demo"
    head, worker = document.spec.groups
    assert head.environment.readiness == 2
    context = head.environment.contextualization
    assert list(context.ssh_authorized_keys) == ["ssh-ed25519 AAAA me"]
    assert context.user_data == b"#cloud-config\n{}\n"
    assert head.allocation.memory_mib == 1024
    assert head.allocation.availability.stop_after.seconds == 90
    assert worker.environment.contextualization.user_data == b"\xff\x00"
    assert document.spec.networks[0].latency[0].max_latency.nanos == 1_500_000
    assert document.spec.lease.start_time.ToJsonString() == "2026-11-30T12:00:00.250Z"
    assert document.spec.lease.duration.seconds == 26 * 3600
    assert document.spec.lease.max_delay.nanos == 250_000_000
    [affinity] = document.spec.placement.affinities
    assert (list(affinity.groups), affinity.kind) == (["head", "worker"], affinity.APART)
    assert document.spec.placement.max_cost == 12.5


@pytest.mark.parametrize(("text", "cost"), [("12", 12.0), ("0.5", 0.5), ("1e3", 1000.0)])
def test_a_number_may_have_a_fraction(text: str, cost: float) -> None:
    spec = read_document(f"placement: {{max_cost: {text}}}").spec
    assert spec.placement.max_cost == cost


@pytest.mark.parametrize("text", ["much", "'12'", "12 EUR", ".inf", "nan", "0x10", "[1]"])
def test_what_is_no_number_is_refused(text: str) -> None:
    [problem] = problems(f"placement: {{max_cost: {text}}}")
    assert problem.path == "placement.max_cost"
    assert "a number such as 12" in problem.text


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("spec.groups[0].allocation.vcpus", 5),
        ("spec.groups[0].allocation.memory_mib", 4),
        ("spec.groups[0].networks[3]", 3),
        ("spec.groups[7]", 2),
        ("name", 1),
        ("spec.lease.duration", 0),
        ("parent", 0),
    ],
)
def test_a_path_that_a_service_names_has_a_line_or_that_of_what_holds_it(
    path: str, line: int
) -> None:
    text = "name: a\ngroups:\n  - name: b\n    allocation:\n      vcpus: 0\n"
    document: Document = read_document(text)
    assert document.line_of(path) == line
