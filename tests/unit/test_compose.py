"""compose.yaml against the project: it is never run here, but what it names must be there."""

import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SITES = ("north", "south")
FOREIGN = {"etcd"}
"""Commands of images that are not ours."""


def _read() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def _services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = _read()["services"]
    return found


def test_every_command_is_a_script_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commands = {each["command"][0] for each in _services().values()}
    assert commands - FOREIGN <= set(project["scripts"])
    assert len(commands - FOREIGN) == 4


def test_every_site_has_all_of_its_services() -> None:
    wanted = {
        f"{site}-{each}" for site in SITES for each in ("broker", "etcd", "imagestore", "agent")
    }
    assert set(_services()) == wanted | {"meta-etcd", "metasched"}


def test_the_image_is_of_the_project_s_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = {each["image"] for each in _services().values() if "build" in each}
    assert ours == {f"intertie:{version}"}


def test_volumes_are_declared_and_folders_are_their_component_s() -> None:
    declared = set(_read()["volumes"])
    used = set()
    for name, service in _services().items():
        site, _, component = name.partition("-")
        own = f"./deploy/{site}/{component}" if component else f"./deploy/meta/{name}"
        sources = {each.partition(":")[0] for each in service["volumes"]}
        assert own in sources, name
        assert {each for each in sources if each.startswith("./")} <= {own, "./deploy/trust"}, name
        used |= {each for each in sources if not each.startswith((".", "/"))}
    assert used == declared


def test_a_service_waits_for_an_etcd_of_its_own_profile() -> None:
    services = _services()
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            assert services[other]["profiles"] == service["profiles"], name
            assert "healthcheck" in services[other]


def test_an_etcd_is_asked_for_its_health_with_a_certificate() -> None:
    for name, service in _services().items():
        if name.endswith("-etcd"):
            options = {each.partition("=")[0] for each in service["healthcheck"]["test"]}
            assert {"--endpoints", "--cacert", "--cert", "--key"} <= options


def test_no_two_services_of_a_profile_take_one_port() -> None:
    taken = [
        (service["profiles"][0], port)
        for service in _services().values()
        for port in service.get("ports", ())
    ]
    assert len(set(taken)) == len(taken)
