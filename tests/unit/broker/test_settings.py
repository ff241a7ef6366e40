"""What an operator may write wrong about tenants."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from intertie.broker.domain.admission_policy import ACCEPT_ALL
from intertie.broker.settings import BrokerSettings, PolicySettings, QuotaSettings


def test_a_quota_is_of_a_tenant_s_name_or_of_each_other() -> None:
    assert QuotaSettings(tenant="*", vcpus=3, iops=0).most() == {"vcpus": 3, "iops": 0}
    with pytest.raises(ValidationError, match="is no DNS label; use a-z"):
        QuotaSettings(tenant="My Tenant")
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        QuotaSettings(tenant="demo", vcpus=-1)


def test_a_tenant_has_one_quota() -> None:
    twice = [{"tenant": "demo", "vcpus": 1}, {"tenant": "demo", "memory_mib": 1}]
    with pytest.raises(ValidationError, match="quotas: demo has two; write one"):
        BrokerSettings.model_validate(
            {
                "site": "north",
                "listen": {"addresses": ["unix:/x"]},
                "tls": {"certificate": "c", "key": "k"},
                "etcd": {"endpoints": ["127.0.0.1:1"], "prefix": "/north"},
                "imagestore": {"address": "unix:/y", "server_name": "imagestore"},
                "quotas": twice,
            }
        )


def test_where_nothing_is_said_all_is_accepted() -> None:
    assert PolicySettings().admission(()) is ACCEPT_ALL
