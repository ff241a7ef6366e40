"""Whatever is asked for: defaults settle, nothing is lost on the wire, addresses are unique."""

from datetime import timedelta
from ipaddress import IPv4Interface, IPv4Network

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2
from intertie.common.intervals import Window
from intertie.common.layout import Layout
from intertie.common.names import uid_of
from intertie.common.part_rules import validate_part
from intertie.common.part_spec import (
    LinkReservation,
    PartNetwork,
    PartSpec,
    PartWorkspace,
    Transfer,
    further_disks,
)
from intertie.common.rpc import spec_proto
from intertie.common.spec import ClusterSpec, Environment, layout, normalise, validate
from intertie.common.values import field_names, replace
from tests.property.specs import NOW, cluster_specs, environments

SITES = ("north", "south", "west")
UID = uid_of("a cluster")


def laid_out(spec: ClusterSpec, data: st.DataObject) -> tuple[Layout, dict[str, str]]:
    counts = {group.name: data.draw(st.integers(group.fewest, group.most)) for group in spec.groups}
    site_of = {
        f"{group}-{index}": data.draw(st.sampled_from(SITES))
        for group, count in counts.items()
        for index in range(count)
    }
    return layout(UID, spec, counts, site_of, "c1"), site_of


def part_of(spec: ClusterSpec, all_of: Layout, site: str) -> PartSpec:
    """The piece of one site, with nothing left out."""
    digest = "b3:" + "5c" * 32
    return PartSpec(
        cluster="metascheds/meta/tenants/demo/clusters/c1",
        cluster_uid=UID,
        window=Window(NOW, NOW + timedelta(hours=1)),
        workspaces=tuple(
            PartWorkspace(
                group=label.rpartition("-")[0],
                index=int(label.rpartition("-")[2]),
                environment=replace(spec.group(label.rpartition("-")[0]).environment, image=digest),
                allocation=spec.group(label.rpartition("-")[0]).allocation,
                nics=nics,
                disks=tuple(
                    replace(each, image=digest) if each.image else each
                    for each in further_disks(spec, label.rpartition("-")[0])
                ),
            )
            for label, nics in all_of.nics.items()
        ),
        networks=tuple(
            PartNetwork(
                name=network.name,
                subnet=network.subnet,
                members=all_of.members[network.name],
                pairs=all_of.pairs[network.name],
            )
            for network in spec.networks
        ),
        links=tuple(
            LinkReservation(peer=site, network=network.name, egress_mbit_s=3, ingress_mbit_s=4)
            for network in spec.networks
        ),
        host_entries=all_of.host_entries,
        transfers=(
            Transfer(
                digest=digest,
                size_bytes=1000,
                from_site=site,
                to_site=f"{site}2",
                mbit_s=8,
                window=Window(NOW - timedelta(hours=1), NOW),
            ),
        ),
    )


@pytest.mark.parametrize("field", field_names(Environment))
def test_the_specifications_that_are_tried_use_every_field_of_an_environment(field: str) -> None:
    unsaid = getattr(Environment(image=""), field)
    find(environments, lambda each: bool(getattr(each, field) != unsaid))


@given(cluster_specs())
def test_normalising_is_done_once_and_keeps_the_rules(spec: ClusterSpec) -> None:
    validate(spec, now=NOW)
    normal = normalise(spec, now=NOW)
    validate(normal, now=NOW)
    assert normalise(normal, now=NOW) == normal
    for group in normal.groups:
        assert group.environment.architecture
        assert group.environment.hypervisor
        assert group.networks or not normal.networks
        for pair in group.allocation.pairs:
            assert pair.network
            assert pair.bandwidth.cap_mbit_s >= pair.bandwidth.guarantee_mbit_s
    assert normal.lease.window(now=NOW) == spec.lease.window(now=NOW)


@given(cluster_specs())
def test_a_specification_survives_the_wire(spec: ClusterSpec) -> None:
    wire = spec_proto.cluster_spec_to_proto(spec).SerializeToString()
    again = cluster_pb2.ClusterSpec.FromString(wire)
    assert spec_proto.cluster_spec_from_proto(again) == spec


@given(cluster_specs(), st.data())
def test_a_part_survives_the_wire_and_keeps_the_rules(
    spec: ClusterSpec, data: st.DataObject
) -> None:
    spec = normalise(spec, now=NOW)
    all_of, _ = laid_out(spec, data)
    part = part_of(spec, all_of, "south")
    validate_part(part)
    wire = spec_proto.part_spec_to_proto(part).SerializeToString()
    assert spec_proto.part_spec_from_proto(part_pb2.PartSpec.FromString(wire)) == part


@given(cluster_specs(), st.data())
def test_addresses_are_unique_usable_and_in_their_subnet(
    spec: ClusterSpec, data: st.DataObject
) -> None:
    spec = normalise(spec, now=NOW)
    all_of, site_of = laid_out(spec, data)
    macs = [member.mac for members in all_of.members.values() for member in members]
    assert len(macs) == len(set(macs))
    for network in spec.networks:
        subnet, members = IPv4Network(network.subnet), all_of.members[network.name]
        addresses = [IPv4Interface(member.address) for member in members]
        assert len(set(addresses)) == len(addresses)
        for address in addresses:
            assert address.network == subnet
            assert address.ip != subnet.broadcast_address
            assert int(address.ip) - int(subnet.network_address) >= 10
        assert {member.workspace for member in members} == {
            label
            for label in site_of
            if network.name in spec.group(label.rpartition("-")[0]).networks
        }
        assert all(site_of[member.workspace] == member.site for member in members)
    names = [name for entry in all_of.host_entries for name in entry.names]
    assert len(names) == len(set(names))


@given(cluster_specs(), st.data())
def test_each_pair_of_workspaces_is_promised_once(spec: ClusterSpec, data: st.DataObject) -> None:
    spec = normalise(spec, now=NOW)
    all_of, site_of = laid_out(spec, data)
    for network in spec.networks:
        promised = [frozenset({pair.a, pair.b}) for pair in all_of.pairs[network.name]]
        assert len(promised) == len(set(promised))
        wanted = {
            frozenset({a, b})
            for a in site_of
            for b in site_of
            for pair in spec.group(a.rpartition("-")[0]).allocation.pairs
            if a != b and b.rpartition("-")[0] == pair.group and pair.network == network.name
        }
        assert set(promised) == wanted
