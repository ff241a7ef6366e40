"""What a fake and the real thing both pass runs on the same real etcd as integration tests."""

from tests.integration.conftest import etcd, etcd_prefix, etcd_server

__all__ = ["etcd", "etcd_prefix", "etcd_server"]
