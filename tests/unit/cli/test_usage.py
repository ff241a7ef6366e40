"""`intertie usage`: tables and APEL's records as text (golden files in tests/golden/cli), and what
a user may get wrong."""

from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from google.protobuf import text_format
from rich.console import Console
from typer.testing import CliRunner, Result

from intertie.api.broker.v1.usage_pb2 import ListUsageEntriesResponse, UsageRecord
from intertie.cli import apel, usage
from intertie.cli.command import Wiring
from intertie.cli.main import app
from intertie.client.config import Config, parse
from intertie.client.usage import Usage
from intertie.client.usage_chain import Signed, Verdict
from tests.unit.client.test_usage_chain import TRUST, chain

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"
ENDPOINT = {
    "address": "unix:/nowhere",
    "server_name": "b",
    "certificate": "c",
    "key": "k",
    "roots": "roots.pem",
    "tenant": "demo",
}


def record(number: int, start: str, end: str, *, final: bool, part: str = "t1") -> UsageRecord:
    return text_format.Parse(
        f"""
        number: {number} site: "north" tenant: "demo" part_uid: "u" final: {str(final).lower()}
        part: "sites/north/tenants/demo/parts/{part}" cluster_uid: "c-{part}"
        owner: "spiffe://north.site.intertie/tenant/demo/user/alice"
        cluster: "sites/north/tenants/demo/clusters/{part}"
        period {{ start_time {{ {_seconds(start)} }} end_time {{ {_seconds(end)} }} }}
        reserved {{
          hosts {{ vcpus: 5 memory_mib: 640 disk_mib: 3500 iops: 800 uplink_mbit_s: 40 }}
        }}
        workspaces {{
          group: "head" indices: 0 image: "b3:aa" each {{ vcpus: 1 memory_mib: 128 disk_mib: 500 }}
        }}
        workspaces {{
          group: "worker" indices: [0, 1] image: "b3:bb"
          each {{ vcpus: 2 memory_mib: 256 disk_mib: 1500 }}
        }}
        """,
        UsageRecord(),
    )


def _seconds(moment: str) -> str:
    return f"seconds: {int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())}"


def with_used(record: UsageRecord, *, cpu_s: int, unknown: bool = False) -> UsageRecord:
    """Of its head alone: nothing is known of the others."""
    return text_format.Merge(
        f"""
        used {{
          workspace: "head-0" unknown: {str(unknown).lower()}
          used {{
            read_time {{ seconds: {record.period.end_time.seconds} }}
            cpu_time {{ seconds: {cpu_s} }} suspended_time {{ seconds: 60 }}
            sent_bytes: 1400000 received_bytes: 2600000 disk_operations: 7 disk_bytes: 4096
          }}
        }}
        used {{ workspace: "worker-0" unknown: true }}
        """,
        record,
    )


RECORDS = [
    with_used(record(1, "2026-11-25T18:30", "2026-11-26T00:00", final=False), cpu_s=1800),
    record(2, "2026-11-25T22:00", "2026-11-25T23:00", final=True, part="t2"),
    with_used(record(5, "2026-11-26T00:00", "2026-11-26T06:30", final=True), cpu_s=900),
    record(6, "2026-11-26T00:00", "2026-11-27T00:00", final=False, part="t3"),
]
LAST = Signed(
    site="north",
    number=6,
    hash=b"\1" * 32,
    sign_time=datetime(2026, 11, 27, 0, 0, 2, tzinfo=UTC),
    signer="spiffe://north.site.intertie/broker",
    checkpoint=chain().checkpoints[1],
    certificate=b"",
)


def text_of(renderable: Any) -> str:
    if isinstance(renderable, str):
        return renderable
    out = io.StringIO()
    Console(file=out, width=160, highlight=False, markup=False).print(renderable)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("name", "renderable"),
    [
        ("usage", usage.records(RECORDS)),
        (
            "usage-verify",
            usage.verdict(Verdict(site="north", records=6, shown=4, checkpoints=3, last=LAST)),
        ),
        ("usage-apel", apel.message(RECORDS)),
    ],
)
def test_it_reads_as_its_golden_file(name: str, renderable: Any) -> None:
    path = GOLDEN / f"{name}.txt"
    text = text_of(renderable)
    if os.environ.get("INTERTIE_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_an_apel_record_adds_up_all_that_a_machine_had_until_now() -> None:
    """And one whose lease had nothing since is left out."""
    whole = apel.message(RECORDS).split("%%\n")
    head = dict(line.split(": ", 1) for line in whole[0].splitlines())
    assert head["APEL-cloud-message"] == "v0.4"
    assert head["WallDuration"] == str(12 * 3600)
    assert (head["CpuDuration"], head["SuspendDuration"]) == ("2700", "120")
    assert (head["NetworkOutbound"], head["NetworkInbound"]) == ("3", "5"), "megabytes"
    worker = dict(line.split(": ", 1) for line in whole[1].splitlines())
    assert worker["CpuDuration"] == str(2 * 12 * 3600), "not counted: what was reserved"
    assert "NetworkInbound" not in worker
    assert (head["Status"], int(head["EndTime"]) - int(head["StartTime"])) == (
        "completed",
        12 * 3600,
    )
    since = datetime(2026, 11, 26, 12, tzinfo=UTC)
    running = apel.message(RECORDS, since=since).split("%%\n")
    assert len(running) == 4, "three machines, and what follows the last mark"
    assert all("clusters/t3" in each for each in running[:3])
    assert "EndTime: 0\n" in running[0]
    assert len({line for line in "".join(whole).splitlines() if line.startswith("VMUUID")}) == 9


@dataclass
class FakeUsage:
    asked: list[tuple[str, Any, Any]] = field(default_factory=list)

    async def list(self, tenant: str = "", *, start: Any = None, end: Any = None) -> Any:
        self.asked.append((tenant, start, end))
        return RECORDS

    async def chain(self, tenant: str = "") -> AsyncGenerator[ListUsageEntriesResponse]:
        self.asked.append((tenant, None, None))
        yield chain()


@dataclass
class FakeClient:
    usage: Any

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.usage: Any = FakeUsage()
        (folder / "roots.pem").write_bytes(TRUST.pem())

    def load(self, path: Path | None) -> Config:
        tables = {"north": {**ENDPOINT, "kind": "site"}, "meta": {**ENDPOINT, "kind": "metasched"}}
        return parse({"endpoints": tables}, self.folder / "client.toml")

    async def connect(self, config: Config, endpoint: str | None) -> Any:
        if endpoint == "meta":

            class Line:
                def __init__(self) -> None:
                    self.endpoint = config.endpoint("meta")

                def stub(self, _: object) -> None:
                    return None

            return FakeClient(Usage(Line()))  # type: ignore[arg-type]
        return FakeClient(self.usage)

    def say(self, *words: str) -> Result:
        wiring = Wiring(load=self.load, connect=self.connect)
        result = CliRunner().invoke(app, ["usage", *words], obj=wiring)
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_options_say_whose_and_from_when_to_when(place: Place) -> None:
    assert place.say("list").exit_code == 0
    place.say("list", "--all-tenants", "--since", "2026-11-01", "--until", "2026-12-01T06:00:00Z")
    place.say("list", "--tenant", "other")
    assert place.usage.asked == [
        ("", None, None),
        ("-", datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, 6, tzinfo=UTC)),
        ("other", None, None),
    ]


def test_a_program_gets_plain_values(place: Place) -> None:
    plain = json.loads(place.say("list", "-o", "json").stdout)
    assert plain[0]["reserved"]["hosts"]["vcpus"] == 5
    assert plain[0]["period"]["start_time"] == "2026-11-25T18:30:00Z"
    assert json.loads(place.say("verify", "-o", "json").stdout)["records"] == 6
    assert "records: 6" in place.say("verify", "-o", "yaml").stdout


def test_a_chain_that_is_broken_is_a_failure_that_names_the_record(
    place: Place, tmp_path: Path
) -> None:
    file, kept = tmp_path / "chain", tmp_path / "kept"
    file.write_text(place.say("export", "--form", "chain").stdout)
    good = place.say("verify", "--file", str(file), "--keep-checkpoint", str(kept))
    assert good.exit_code == 0, good.output
    assert place.say("verify", "--since-checkpoint", str(kept)).exit_code == 0
    page = json.loads(file.read_text())
    signed = page["checkpoints"].pop()
    file.write_text(json.dumps(page) + "\n")
    kept.write_text("as before")
    unsigned = place.say("verify", "--file", str(file), "--keep-checkpoint", str(kept))
    assert "error: record 4 is not signed" in unsigned.stderr
    assert kept.read_text() == "as before"
    page["checkpoints"].append(signed)
    del page["entries"][3]
    file.write_text(json.dumps(page) + "\n")
    wrong = place.say("verify", "--file", str(file), "--keep-checkpoint", str(kept))
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "error: record 4 is missing" in wrong.stderr
    assert "Try: Tell the site's operator" in wrong.stderr
    assert kept.read_text() == "as before", "only what was verified is kept"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["list", "--endpoint", "meta"], 1, "endpoint meta is no site"),
        (["verify", "--endpoint", "meta"], 1, "Try: Choose a site: --endpoint NAME"),
        (["list", "--since", "yesterday"], 2, "--since"),
        (["list", "--since", "2026-12-01", "--until", "2026-11-01"], 2, "later than --since"),
        (["list", "--tenant", "a", "--all-tenants"], 2, "do not go together"),
        (["export", "--form", "chain", "--since", "2026-12-01"], 2, "exported whole"),
        (["export", "--form", "csv"], 2, "csv"),
        (["verify", "--file", "{dir}/none"], 1, "none: no such file"),
        (["verify", "--file", "{dir}/roots.pem"], 1, "roots.pem: line 1 is no page of a chain"),
        (["verify", "--file", "{dir}/empty"], 2, "holds no chain"),
        (["verify", "--roots", "{dir}/empty"], 1, "it holds no PEM certificates"),
        (["verify", "--since-checkpoint", "{dir}/none"], 1, "none: no such file"),
        (["verify", "--since-checkpoint", "{dir}/empty"], 1, "is no checkpoint"),
    ],
)
def test_what_a_user_may_get_wrong(place: Place, words: list[str], code: int, says: str) -> None:
    (place.folder / "empty").write_text("")
    result = place.say(*(word.format(dir=place.folder) for word in words))
    assert result.exit_code == code, result.output
    assert says in result.output
