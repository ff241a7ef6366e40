"""What a guest is told at its first boot."""

from __future__ import annotations

import json
import shlex
from base64 import b64decode
from typing import Any

import pytest
import yaml

from intertie.common.terms import Contextualization, Environment, Readiness
from intertie.common.values import replace
from intertie.nodeagent.domain.guest import READY_PORT, is_ready
from intertie.nodeagent.domain.seed import seed_files
from intertie.nodeagent.domain.wanted import WantedWorkspace
from tests.unit.nodeagent.parts import A_MAC, A_UID, DIGEST, PART, WORKSPACE

KEY = "ssh-ed25519 AAAA alice"
REPORT = "/var/lib/cloud/scripts/per-boot/intertie-ready"


def with_context(**context: Any) -> WantedWorkspace:
    environment = Environment(image=DIGEST, contextualization=Contextualization(**context))
    return replace(WORKSPACE, environment=environment)


def test_a_guest_is_told_its_name_its_nonce_and_its_keys() -> None:
    meta = json.loads(seed_files(PART, with_context(ssh_authorized_keys=(KEY,)))["meta-data"])
    assert meta["instance-id"] == A_UID
    assert meta["local-hostname"] == "a-0"
    assert meta["intertie_nonce"] == "secret"
    assert meta["public-keys"] == [KEY]


def test_its_network_is_matched_by_mac() -> None:
    config = json.loads(seed_files(PART, WORKSPACE)["network-config"])
    nic = config["ethernets"]["nic0"]
    assert nic["match"]["macaddress"] == A_MAC
    assert nic["addresses"] == ["10.1.0.10/24"]
    assert nic["mtu"] == 1450


def test_intertie_s_part_is_yaml_with_the_hosts_of_the_whole_cluster() -> None:
    text = seed_files(PART, with_context(ssh_authorized_keys=(KEY,)))["vendor-data"]
    assert text.startswith(b"#cloud-config\n")
    config = yaml.safe_load(text)
    assert config["ssh_authorized_keys"] == [KEY]
    file = config["write_files"][0]
    hosts = b64decode(file["content"]).decode().splitlines()
    assert file["path"] == "/etc/hosts"
    assert "10.1.0.10 a-0.c a-0" in hosts
    assert "10.1.0.11 b-0.c b-0" in hosts


def test_a_time_zone_is_told_only_where_one_is_asked_for() -> None:
    vienna = replace(WORKSPACE, environment=Environment(image=DIGEST, timezone="Europe/Vienna"))
    assert yaml.safe_load(seed_files(PART, vienna)["vendor-data"])["timezone"] == "Europe/Vienna"
    assert "timezone" not in yaml.safe_load(seed_files(PART, WORKSPACE)["vendor-data"])


def test_a_user_s_own_bytes_are_not_touched() -> None:
    own = b"#!/bin/sh\necho \xff\r\n"
    files = seed_files(PART, with_context(user_data=own, ssh_authorized_keys=(KEY,)))
    assert files["user-data"] == own
    assert KEY.encode() in files["vendor-data"]


def test_without_any_user_data_is_an_empty_config() -> None:
    files = seed_files(PART, with_context(ssh_authorized_keys=(KEY,)))
    assert files["user-data"] == b"#cloud-config\n{}\n"
    assert KEY.encode() in files["vendor-data"]


def test_a_user_s_own_lists_do_not_push_out_intertie_s() -> None:
    """cloud-init takes off the first of the two and reads the second when it merges."""
    config = yaml.safe_load(seed_files(PART, WORKSPACE)["vendor-data"])
    assert "list(prepend)" in config["merge_how"]
    assert "recurse_list" in config["merge_how"]
    assert config["merge_type"] == config["merge_how"]


def files_of(workspace: WantedWorkspace) -> dict[str, Any]:
    config = yaml.safe_load(seed_files(PART, workspace)["vendor-data"])
    return {file["path"]: file for file in config["write_files"]}


def test_any_image_with_cloud_init_is_told_how_to_say_that_it_is_ready() -> None:
    """A bug: by default only an image that knew of Intertie ever became ready."""
    file = files_of(WORKSPACE)[REPORT]
    assert file["permissions"] == "0700"
    words = shlex.split(b64decode(file["content"]).decode(), comments=True)
    waits, says = words.index("--wait"), words.index("echo") + 1
    assert waits < says
    assert is_ready(words[says].encode(), WORKSPACE.nonce)
    assert f"port=/dev/virtio-ports/{READY_PORT}" in words


@pytest.mark.parametrize("readiness", [Readiness.GUEST_AGENT, Readiness.RUNNING])
def test_where_nobody_listens_for_it_a_guest_says_nothing(readiness: Readiness) -> None:
    environment = Environment(image=DIGEST, readiness=readiness)
    assert set(files_of(replace(WORKSPACE, environment=environment))) == {"/etc/hosts"}
