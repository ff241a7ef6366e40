"""Commands with a client in memory: what goes where, exit codes, and errors of this side."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner, Result

from intertie.api.cluster.v1.cluster_pb2 import Cluster, ClusterSpec
from intertie.cli.command import Run, Wiring
from intertie.cli.main import app
from intertie.cli.remedies import REMEDIES
from intertie.cli.streams import ssh_arguments
from intertie.client.config import Config, parse
from intertie.client.errors import HandshakeFailed, Unreachable
from intertie.common import errors

NAME = "metascheds/meta/tenants/demo/clusters/demo"
SPEC = "name: demo\ngroups:\n  - name: a\n    count: 1\n"
ENDPOINT = {
    "kind": "metasched",
    "address": "unix:/nowhere",
    "server_name": "m",
    "certificate": "c",
    "key": "k",
    "roots": "r",
    "tenant": "demo",
}


@dataclass
class FakeClusters:
    states: list[int] = field(default_factory=lambda: [Cluster.ACTIVE])
    refusal: Exception | None = None
    created: list[dict[str, Any]] = field(default_factory=list)

    async def create(self, cluster_id: str, spec: ClusterSpec, **options: Any) -> Cluster:
        self.created.append({"id": cluster_id, "spec": spec, **options})
        if self.refusal:
            raise self.refusal
        return Cluster(name=NAME, state=Cluster.SCHEDULED)

    async def watch(self, name: str) -> AsyncGenerator[Cluster]:
        for state in self.states:
            cluster = Cluster(name=name, state=state)  # type: ignore[arg-type]
            if state == Cluster.FAILED:
                cluster.failure.reason = "WORKSPACE_FAILED"
                cluster.failure.message = "a-0 does not start"
            yield cluster

    async def list(self) -> list[Cluster]:
        return [Cluster(name=NAME, state=Cluster.ACTIVE)]


@dataclass
class FakeClient:
    clusters: FakeClusters
    asked: list[tuple[str, str | None]]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Place:
    def __init__(self, folder: Path) -> None:
        self.clusters = FakeClusters()
        self.asked: list[tuple[str, str | None]] = []
        self.spec = folder / "demo.yaml"
        self.spec.write_text(SPEC)

    def load(self, path: Path | None) -> Config:
        return parse({"endpoints": {"meta": ENDPOINT}}, path or Path("default.toml"))

    async def connect(self, config: Config, endpoint: str | None) -> Any:
        self.asked.append((str(config.path), endpoint))
        return FakeClient(self.clusters, self.asked)

    def say(self, *words: str) -> Result:
        wiring = Wiring(load=self.load, connect=self.connect)
        result = CliRunner().invoke(app, list(words), obj=wiring)
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_name_goes_to_stdout_and_all_else_to_stderr(place: Place) -> None:
    result = place.say("cluster", "create", "-f", str(place.spec))
    assert (result.exit_code, result.stdout) == (0, NAME + "\n")
    assert "demo: 0 workspaces ready" in result.stderr
    [created] = place.clusters.created
    assert created["request_id"]


def test_a_cluster_that_fails_while_it_is_waited_for_is_a_failure(place: Place) -> None:
    place.clusters.states = [Cluster.SCHEDULED, Cluster.FAILED]
    result = place.say("cluster", "create", "-f", str(place.spec))
    assert result.exit_code == 1
    assert "error: demo is FAILED: a-0 does not start" in result.stderr


def test_options_are_taken_before_and_after_the_command_and_the_later_win(place: Place) -> None:
    place.say("--endpoint", "x", "--config", "a.toml", "cluster", "list")
    place.say("--endpoint", "x", "cluster", "list", "--endpoint", "y", "--config", "b.toml")
    assert place.asked == [("a.toml", "x"), ("b.toml", "y")]
    for words in (("-o", "json", "cluster", "list"), ("cluster", "list", "-o", "json")):
        assert json.loads(place.say(*words).stdout)[0]["state"] == "ACTIVE"
    assert "state: ACTIVE" in place.say("cluster", "list", "-o", "yaml").stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["cluster", "create"], 2, "--file"),
        (["cluster", "create", "-f", "{dir}/none.yaml"], 1, "none.yaml: no such file"),
        (["cluster", "create", "-f", "{dir}"], 1, "is a directory"),
        (["cluster", "create", "-f", "{spec}", "--ssh-key", "{spec}"], 2, "no OpenSSH public key"),
        (["cluster", "create", "-f", "{spec}", "--ssh-key", "{key}"], 2, "is a private key"),
        (["cluster", "create", "-f", "{bad}"], 1, "error: groups[0].cuont (line 3): no such field"),
        (["cluster", "create", "-f", "{bad}"], 1, "Try: Did you mean count?"),
        (["cluster", "create", "-f", "{nameless}"], 2, "Try: Give --name NAME"),
        (["cluster", "create", "-f", "{large}"], 1, "document: has more than 1048576 bytes"),
        (["cluster", "create", "-f", "{large}"], 1, "Try: Join groups"),
        (["cluster", "create", "-f", "{broken}"], 1, "document (line 2): not YAML: "),
        (["cluster", "create", "-f", "{broken}"], 1, "Try: Check indentation"),
        (["cluster", "list", "-o", "xml"], 2, "xml"),
        (["cluster", "nosuch"], 2, "nosuch"),
        (["image", "put", "guest", "{dir}/none"], 2, "is not a file"),
    ],
)
def test_what_a_user_may_get_wrong(
    place: Place, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    texts = {
        "bad": "name: b\ngroups:\n  - cuont: 1\n",
        "nameless": "groups: []\n",
        "large": "#" * (5 * 2**20),
        "broken": "groups: [\n",
        "key": "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n",
    }
    paths = {"dir": str(tmp_path), "spec": str(place.spec)}
    for name, text in texts.items():
        paths[name] = str(tmp_path / name)
        Path(paths[name]).write_text(text)
    result = place.say(*(word.format(**paths) for word in words))
    assert result.exit_code == code, result.output
    assert says in result.output
    assert place.clusters.created == []


def test_every_reason_has_a_remedy() -> None:
    reasons = {kind.reason for kind in errors.DomainError.__subclasses__()}
    assert reasons == set(REMEDIES)


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (Unreachable("meta", "unix:/x", "nobody"), "meta does not answer at unix:/x: nobody"),
        (HandshakeFailed("meta", "h:1", "bad"), "no trusted connection to meta at h:1: bad"),
        (errors.NameTaken(NAME), f"{NAME} exists already [NAME_TAKEN]"),
        (errors.ImageNotReady("x", ""), "image x is not at any site [IMAGE_NOT_READY]"),
        (
            errors.ImageNotReady("x", "north", "spec.groups[0].environment.image"),
            "groups[0].environment.image (line 3): image x is not at site north [IMAGE_NOT_READY]",
        ),
        (TimeoutError(), "no answer in time"),
        (RuntimeError("oops"), "RuntimeError: oops"),
    ],
)
def test_whatever_goes_wrong_is_a_sentence_and_something_to_try(
    place: Place, refusal: Exception, says: str
) -> None:
    place.clusters.refusal = refusal
    result = place.say("cluster", "create", "-f", str(place.spec))
    assert result.exit_code == 1
    assert f"error: {says}" in result.stderr
    assert result.stdout == ""
    if not isinstance(refusal, RuntimeError):
        assert "\nTry: " in result.stderr


def test_ssh_goes_through_the_service_and_keeps_no_host_keys() -> None:
    run = Run(
        wiring=Wiring(),
        config_path=Path("/a dir/client.toml"),
        endpoint="north",
        output=None,  # type: ignore[arg-type]
        results=None,  # type: ignore[arg-type]
        notes=None,  # type: ignore[arg-type]
    )
    words = ssh_arguments(
        run, "demo", "head-0", ["uname", "-a"],
        identity=Path("key"), user="root", program=["python", "-m", "intertie.cli"],
    )  # fmt: skip
    proxy = "python -m intertie.cli --config '/a dir/client.toml' --endpoint north"
    assert words[:3] == ["ssh", "-o", f"ProxyCommand={proxy} cluster forward demo head-0 22"]
    assert "UserKnownHostsFile=/dev/null" in words
    login = ["-i", "key", "-o", "IdentitiesOnly=yes", "-l", "root", "head-0"]
    assert words[-10:] == [*login, "--", "uname", "-a"]
