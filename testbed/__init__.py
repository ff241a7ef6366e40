"""Sites of hosts on one Linux machine, made of namespaces, for the demo, tests and benches."""

from testbed.bed import (
    InstanceAbsent,
    InstanceBusy,
    InstanceExists,
    Progress,
    Testbed,
)
from testbed.component import Component, ComponentFailed
from testbed.interrupts import interrupt_once
from testbed.preflight import MachineUnfit
from testbed.topology import (
    HostSpec,
    InvalidTopology,
    SiteSpec,
    Topology,
    WanLink,
    default_topology,
)

__all__ = [
    "Component",
    "ComponentFailed",
    "HostSpec",
    "InstanceAbsent",
    "InstanceBusy",
    "InstanceExists",
    "InvalidTopology",
    "MachineUnfit",
    "Progress",
    "SiteSpec",
    "Testbed",
    "Topology",
    "WanLink",
    "default_topology",
    "interrupt_once",
]
