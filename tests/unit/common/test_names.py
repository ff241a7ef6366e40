import re

import pytest

from intertie.common import names
from intertie.common.errors import FieldInvalid
from intertie.common.names import (
    ClusterName,
    DeviceNames,
    HostName,
    ImageName,
    Parent,
    PartName,
    check_label,
    mac_of,
    uid_of,
)

DIGEST = "b3:" + "0a" * 32


@pytest.mark.parametrize("text", ["a", "0", "worker", "a-b", "1a", "x" * 63])
def test_labels(text: str) -> None:
    assert check_label(text, "f") == text


@pytest.mark.parametrize(
    "text", ["", "A", "a_b", "-a", "a-", "a.b", "x" * 64, "wörker", "a b", "a\n", "²", "a/b", ".."]
)
def test_what_is_no_label_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        check_label(text, "spec.groups[0].name")
    assert caught.value.field == "spec.groups[0].name"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Parent, "sites/north/tenants/demo"),
        (Parent, "metascheds/meta/tenants/demo"),
        (Parent, "-/tenants/demo"),
        (Parent, "sites/north/tenants/-"),
        (ClusterName, "sites/north/tenants/demo/clusters/c1"),
        (ClusterName, "metascheds/meta/tenants/demo/clusters/c1"),
        (ClusterName, "-/tenants/demo/clusters/c1"),
        (PartName, "sites/north/tenants/demo/parts/t0123"),
        (HostName, "sites/north/hosts/n1"),
        (HostName, "sites/-/hosts/n1"),
        (ImageName, "sites/north/tenants/demo/images/guest"),
        (ImageName, f"sites/-/tenants/demo/images/{DIGEST}"),
    ],
)
def test_names_read_as_they_are_written(
    kind: type[Parent | ClusterName | PartName | HostName | ImageName], text: str
) -> None:
    assert str(kind.parse(text, "name")) == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Parent, "north/tenants/demo"),
        (Parent, "sites/north"),
        (Parent, "sites/north/tenants/Demo"),
        (Parent, "sites//tenants/demo"),
        (ClusterName, "sites/north/tenants/demo"),
        (ClusterName, "sites/north/tenants/demo/clusters/"),
        (ClusterName, "sites/north/tenants/-/clusters/c1"),
        (ClusterName, "sites/north/tenants/demo/clusters/c1/extra"),
        (ClusterName, "sites/north/tenants/demo/parts/c1"),
        (PartName, "metascheds/meta/tenants/demo/parts/p"),
        (HostName, "sites/north/hosts/-"),
        (ImageName, "sites/north/tenants/demo/images/b3:12"),
    ],
)
def test_other_names_are_refused(
    kind: type[Parent | ClusterName | PartName | HostName | ImageName], text: str
) -> None:
    with pytest.raises(FieldInvalid) as caught:
        kind.parse(text, "parent")
    assert caught.value.field == "parent"


def test_the_authority_that_is_asked_takes_the_place_of_a_dash() -> None:
    name = ClusterName.parse("-/tenants/demo/clusters/c1")
    assert str(name.at("sites/north")) == "sites/north/tenants/demo/clusters/c1"
    elsewhere = ClusterName.parse("sites/south/tenants/demo/clusters/c1")
    assert elsewhere.at("sites/north") == elsewhere


def test_a_workspace_is_below_its_owner() -> None:
    owner = "sites/north/tenants/demo/clusters/c1"
    assert names.split_workspace(f"{owner}/workspaces/worker-0") == (owner, "worker-0")
    with pytest.raises(FieldInvalid):
        names.split_workspace(owner)


def test_uids_are_stable_and_parts_of_them_do_not_run_together() -> None:
    assert uid_of("sites/north/tenants/demo/parts/p1") == "8e4ae2665a8f"
    assert uid_of("a", "bc") != uid_of("ab", "c")
    assert re.fullmatch("[0-9a-f]{12}", uid_of(""))


def test_macs_are_stable_locally_administered_and_of_one_station() -> None:
    assert mac_of("0123456789ab", "net", "worker", 0) == "ae:5f:89:33:d4:ed"
    macs = {mac_of("0123456789ab", "net", "worker", index) for index in range(1000)}
    assert len(macs) == 1000
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in macs)


def test_names_of_kernel_devices_fit() -> None:
    uid = uid_of("x")
    devices = [
        DeviceNames.tap(uid, 15),
        DeviceNames.ifb(uid, 15),
        DeviceNames.bridge(uid),
        DeviceNames.vxlan(uid),
        DeviceNames.wide_vxlan(uid),
    ]
    assert len(set(devices)) == len(devices)
    assert all(len(device) <= 15 for device in devices)
    assert DeviceNames.tap(uid, 15).endswith("f")
