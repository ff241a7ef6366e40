"""compose.yaml against the Compose Specification's schema, and against the project: it is never run
here, but it must be valid, and what it names must be there."""

import copy
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).parent / "compose" / "compose-spec.json"
SITES = ("north", "south")
FOREIGN = {"etcd"}
"""Commands of images that are not ours."""


def _read() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def _problems(document: dict[str, Any]) -> list[str]:
    """Where and how a document, its anchors resolved, is not what the schema says."""
    schema = json.loads(SCHEMA.read_text())
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    found = Draft202012Validator(schema).iter_errors(document)
    return [f"{each.json_path}: {each.message}" for each in found]


def _services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = _read()["services"]
    return found


def test_it_is_valid_by_the_schema() -> None:
    assert _problems(_read()) == []


def _of_broker(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda document: change(document["services"]["north-broker"])


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (_of_broker(lambda broker: broker.update(comand=[])), "comand"),
        (_of_broker(lambda broker: broker.update(ports="7400:7400")), "ports"),
        (_of_broker(lambda broker: broker["healthcheck"].update(test=7)), "healthcheck"),
        (_of_broker(lambda broker: broker.update(restart=True)), "restart"),
        (lambda document: document.update(service={}), "service"),
    ],
)
def test_the_schema_finds_what_is_wrong(
    broken: Callable[[dict[str, Any]], Any], named: str
) -> None:
    document = copy.deepcopy(_read())
    broken(document)
    # Anchors make it wrong in two places.
    problems = _problems(document)
    assert problems
    assert all(named in each for each in problems)


def test_every_service_has_a_health_check_and_a_pinned_image() -> None:
    for name, service in _services().items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", service["image"]), name
    [base] = re.findall(r"^FROM (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert re.fullmatch(r"debian:\d+\.\d+-slim", base)


def test_a_service_is_asked_for_its_health_by_the_file_that_it_runs_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, service in _services().items():
        if service["command"][0] not in FOREIGN:
            _, program, *options = service["healthcheck"]["test"]
            assert program == "intertie-health" in project["scripts"], name
            assert options == service["command"][1:], name


def test_every_command_is_a_script_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commands = {each["command"][0] for each in _services().values()}
    assert commands - FOREIGN <= set(project["scripts"])
    assert len(commands - FOREIGN) == 4


def test_every_site_has_all_of_its_services() -> None:
    wanted = {f"{site}-{each}" for site in SITES for each in ("broker", "imagestore", "agent")}
    members = {f"{site}-etcd-{k}" for site in (*SITES, "meta") for k in (1, 2, 3)}
    assert set(_services()) == wanted | members | {"metasched"}


def test_an_agent_drives_the_host_s_libvirt() -> None:
    for site in SITES:
        agent = _services()[f"{site}-agent"]
        assert agent["privileged"] is True
        assert agent["network_mode"] == "host"
        assert "/var/run/libvirt:/var/run/libvirt" in agent["volumes"]


def test_the_members_of_an_etcd_know_each_other_and_nobody_else() -> None:
    services = _services()
    for site in (*SITES, "meta"):
        members = {f"{site}-etcd-{k}" for k in (1, 2, 3)}
        everyone = {f"{name}=https://{name}:2380" for name in members}
        for name in members:
            settings = services[name]["environment"]
            assert settings["ETCD_NAME"] == name
            assert set(settings["ETCD_INITIAL_CLUSTER"].split(",")) == everyone
            assert settings["ETCD_INITIAL_ADVERTISE_PEER_URLS"] == f"https://{name}:2380"
            assert settings["ETCD_ADVERTISE_CLIENT_URLS"] == f"https://{name}:2379"
            assert settings["ETCD_INITIAL_CLUSTER_TOKEN"] == f"intertie-{site}"
            assert f"{name}:{settings['ETCD_DATA_DIR']}" in services[name]["volumes"]


def test_the_image_is_of_the_project_s_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = {each["image"] for each in _services().values() if "build" in each}
    assert ours == {f"intertie:{version}"}


def test_volumes_are_declared_and_folders_are_their_component_s() -> None:
    declared = set(_read()["volumes"])
    used = set()
    for name, service in _services().items():
        site, _, component = re.sub(r"-\d$", "", name).partition("-")
        own = f"./deploy/{site}/{component}" if component else f"./deploy/meta/{name}"
        sources = {each.partition(":")[0] for each in service["volumes"]}
        assert own in sources, name
        assert {each for each in sources if each.startswith("./")} <= {own, "./deploy/trust"}, name
        used |= {each for each in sources if not each.startswith((".", "/"))}
    assert used == declared


def test_a_service_waits_for_an_etcd_of_its_own_profile() -> None:
    services = _services()
    for name, service in services.items():
        waits = service.get("depends_on", {})
        for other in waits:
            assert services[other]["profiles"] == service["profiles"], name
        assert len(waits) in (0, 3)
        # A member is healthy only where most are.
        assert not waits or "service_healthy" in {each["condition"] for each in waits.values()}


def test_an_etcd_is_asked_for_its_health_with_a_certificate() -> None:
    for name, service in _services().items():
        if "-etcd-" in name:
            options = {each.partition("=")[0] for each in service["healthcheck"]["test"]}
            assert {"--endpoints", "--cacert", "--cert", "--key"} <= options


def test_no_two_services_of_a_profile_take_one_port() -> None:
    taken = [
        (service["profiles"][0], port)
        for service in _services().values()
        for port in service.get("ports", ())
    ]
    assert len(set(taken)) == len(taken)
