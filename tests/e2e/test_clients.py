"""Programs in other languages against a site with real guests."""

from __future__ import annotations

import re
import subprocess

import pytest

from intertie.client import load
from tests.clients.programs import LANGUAGES, Credential, arguments, build
from tests.e2e.driver import User

pytestmark = [pytest.mark.root, pytest.mark.e2e]


@pytest.mark.parametrize(
    "language",
    [
        pytest.param(each, marks=pytest.mark.more_guests) if each == "cpp" else each
        for each in LANGUAGES
    ],
)
def test_a_cluster_becomes_ready_and_is_deleted_by_a_program_in_another_language(
    user: User, language: str
) -> None:
    program = build(language)
    north = load(user.config).endpoint("north")
    credential = Credential(
        certificate=north.certificate,
        key=north.key,
        roots=north.roots,
        server_name=north.server_name,
    )
    name = f"tour-{language}"
    user.at("north").created.append(name)
    given = arguments(north.addresses[0], credential, name=name, image="intertie-guest")
    ran = subprocess.run(
        [str(program), *given],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    full_name = f"sites/north/tenants/demo/clusters/{name}"
    field, *more, deleted = ran.stdout.splitlines()
    assert field.startswith("refused FIELD_INVALID field=spec.groups[0].allocation.vcpus: ")
    # North alone cannot, and the meta-scheduler that it asks then says so of every site.
    refused = re.compile(r"refused NO_CAPACITY site=(north|south) resource=vcpus ")
    assert {match[1] for each in more if (match := refused.match(each))} == {"north", "south"}
    # What a guest needs to be ready takes a while, and is followed step by step.
    _, ready, *listed = more[more.index(f"created {full_name}") :]
    assert re.fullmatch(r"ready after ([2-9]|[1-9][0-9]+) updates", ready)
    assert f"listed {full_name}" in listed
    assert deleted == f"deleted {full_name} CANCELLED"
    assert user.at("north").show(name)["state"] == "CANCELLED"
