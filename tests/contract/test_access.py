"""The access table against the descriptors: nothing is missing, nothing is stale."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import intertie.api
from intertie.common.rpc.access import ACCESS, FROM_OTHER_DOMAINS, TENANT_BOUND
from intertie.common.rpc.identity import Role


def _modules() -> list[ModuleType]:
    """Found as files: a namespace package has no list of its modules."""
    [root] = {Path(folder) for folder in intertie.api.__path__}
    found = sorted(path.relative_to(root) for path in root.rglob("*_pb2.py"))
    return [
        importlib.import_module(f"intertie.api.{'.'.join(path.with_suffix('').parts)}")
        for path in found
    ]


def _services() -> list[ServiceDescriptor]:
    files = [module.DESCRIPTOR for module in _modules()]
    files += [health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
    return [service for file in files for service in file.services_by_name.values()]


def _methods() -> dict[str, MethodDescriptor]:
    return {
        f"/{service.full_name}/{method.name}": method
        for service in _services()
        for method in service.methods
    }


def test_the_descriptors_are_found() -> None:
    assert len(_methods()) > 30


def test_every_method_has_an_entry_and_every_entry_a_method() -> None:
    assert set(ACCESS) == set(_methods())


def test_no_entry_is_empty() -> None:
    assert all(ACCESS.values())


def test_tables_by_service_name_services() -> None:
    names = {f"/{service.full_name}" for service in _services()}
    assert set(FROM_OTHER_DOMAINS) <= names
    assert names >= TENANT_BOUND


def test_a_role_from_elsewhere_is_one_that_the_service_knows() -> None:
    for service, role in FROM_OTHER_DOMAINS.items():
        assert any(role in ACCESS[m] for m in ACCESS if m.startswith(service + "/")), service


@pytest.mark.parametrize("method", sorted(ACCESS))
def test_users_reach_only_what_is_bound_to_their_tenant_or_tells_nothing_of_tenants(
    method: str,
) -> None:
    service = method.rpartition("/")[0]
    open_to_users = {
        "/intertie.api.broker.v1.Hosts",
        "/intertie.api.broker.v1.Sites",
        "/intertie.api.metasched.v1.KnownSites",
        "/grpc.health.v1.Health",
        "/grpc.reflection.v1alpha.ServerReflection",
    }
    if Role.USER in ACCESS[method]:
        assert service in TENANT_BOUND | open_to_users


@pytest.mark.parametrize("service", sorted(TENANT_BOUND))
def test_every_request_of_a_tenant_bound_service_names_its_tenant(service: str) -> None:
    """By a field that the tenant check knows; a new request without one fails here."""
    for name, method in _methods().items():
        if name.startswith(service + "/"):
            message = method.input_type
            inner = [
                field.message_type
                for field in message.fields
                if field.name in ("open", "header", "cluster") and field.message_type
            ]
            fields = {field.name for each in inner or [message] for field in each.fields}
            assert len(fields & {"name", "parent", "workspace"}) == 1, name
