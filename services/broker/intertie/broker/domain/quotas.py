"""What tenants have of their quotas: resources of the ledger like hosts and links.

- `tenant/{tenant}/{vcpus,memory_mib,disk_mib,iops,throughput_mib_s,uplink_mbit_s}`

Of all hosts together, gateways included. What is not limited is not counted.
"""

from collections.abc import Mapping

from intertie.broker.domain.admission_policy import AdmissionPolicy
from intertie.common.errors import Shortfall
from intertie.common.quantities import RESOURCE_OF, UNIT_OF


def tenant_key(tenant: str, dimension: str) -> str:
    return f"tenant/{tenant}/{dimension}"


def counted_for(
    tenant: str, admission: AdmissionPolicy, amounts: Mapping[str, int]
) -> dict[str, int]:
    """What of `amounts`, by resource of hosts, goes off the tenant's quotas."""
    most = admission.most(tenant)
    if not most:
        return {}
    sums: dict[str, int] = {}
    for key, amount in amounts.items():
        kind, _, dimension = key.split("/")
        if kind == "host" and dimension in most:
            sums[dimension] = sums.get(dimension, 0) + amount
    return {tenant_key(tenant, dimension): amount for dimension, amount in sums.items()}


def quota_shortfall(site: str, tenant: str, dimension: str, wanted: int, left: int) -> Shortfall:
    what, unit = RESOURCE_OF[dimension], UNIT_OF[dimension]
    return Shortfall(
        site=site,
        resource=f"quota_{what}",
        wanted=wanted,
        available=left,
        unit=unit,
        message=(
            f"{site}: {wanted} {unit} of {what} are wanted, and of what tenant {tenant} may have "
            f"at one time {left} are left over that time"
        ),
    )
