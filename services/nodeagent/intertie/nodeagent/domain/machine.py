"""From what is wanted of a workspace to the machine that libvirt is told to make."""

from dataclasses import dataclass

from intertie.common.names import DeviceNames
from intertie.common.spec import ANY_HYPERVISOR
from intertie.common.terms import Readiness
from intertie.nodeagent.domain.domain_xml import Machine, MachineDisk, Nic
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.guest_terms import most_memory_mib, most_vcpus, terms_of
from intertie.nodeagent.domain.report import Growth
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What the host offers to every guest."""

    hypervisors: tuple[str, ...]
    """Domain types, the preferred one first."""
    architecture: str
    disk_cache: str
    cgroups: bool
    memory_growth: int = 1
    """How many times its memory a guest may have while it runs; 1: it may not grow."""
    vcpu_growth: int | None = None
    """How many times its vCPUs; None: what goes with its hypervisor."""
    host_vcpus: int = 1
    """No guest grows to more."""


_VCPU_GROWTH = {"kvm": 4, "qemu": 2}
"""Where nobody said otherwise."""


def hypervisor_for(workspace: WantedWorkspace, offered: tuple[str, ...]) -> str:
    """The one that is asked for, or the host's preferred one."""
    asked = workspace.environment.hypervisor
    if asked and asked != ANY_HYPERVISOR:
        if asked not in offered:
            raise HostFailure(f"this host has no hypervisor {asked}", final=True)
        return asked
    if not offered:
        raise HostFailure("this host has no hypervisor that works")
    return offered[0]


def growth_of(facts: MachineFacts) -> Growth:
    """Of guests of the preferred hypervisor."""
    kind = next(iter(facts.hypervisors), "")
    return Growth(memory=facts.memory_growth, vcpus=vcpu_growth(facts, kind))


def vcpu_growth(facts: MachineFacts, kind: str) -> int:
    """How many times its vCPUs a guest of this hypervisor may have while it runs. Only x86's
    machines can be given more."""
    if facts.architecture != "x86_64":
        return 1
    return _VCPU_GROWTH.get(kind, 1) if facts.vcpu_growth is None else facts.vcpu_growth


def machine_of(
    part: WantedPart, workspace: WantedWorkspace, files: WorkspaceFiles, facts: MachineFacts
) -> Machine:
    """HostFailure where this host has no hypervisor for it."""
    uid, terms = workspace.uid, terms_of(workspace.allocation, cgroups=facts.cgroups)
    growth = vcpu_growth(facts, hypervisor_for(workspace, facts.hypervisors))
    return Machine(
        name=DeviceNames.domain(uid),
        workspace_uid=uid,
        part_uid=part.uid,
        title=f"{part.cluster}/workspaces/{workspace.name}",
        vcpus=terms.vcpus,
        memory_mib=terms.memory_mib,
        disk=str(files.disk(uid)),
        disk_cache=facts.disk_cache,
        cap_iops=terms.cap_iops,
        cap_mib_s=terms.cap_mib_s,
        seed=str(files.seed(uid)),
        ready_socket=str(files.ready_socket(uid)),
        console_socket=str(files.console_socket(uid)),
        console_log=str(files.console_log(uid)),
        nics=tuple(
            Nic(
                tap=DeviceNames.tap(uid, number),
                mac=nic.mac,
                mtu=part.network(nic.network_uid).mtu,
            )
            for number, nic in enumerate(workspace.nics)
        ),
        disks=tuple(
            MachineDisk(
                file=str(files.image(each.image) if each.image else files.volume(uid, number)),
                serial=each.name,
                data=bool(each.image),
                cap_iops=each.disk.cap_iops or each.disk.guarantee_iops,
                cap_mib_s=each.disk.cap_mib_s or each.disk.guarantee_mib_s,
            )
            for number, each in enumerate(workspace.disks)
        ),
        agent_channel=workspace.environment.readiness is Readiness.GUEST_AGENT,
        architecture=workspace.environment.architecture or facts.architecture,
        most_memory_mib=most_memory_mib(terms.memory_mib, facts.memory_growth),
        most_vcpus=most_vcpus(terms.vcpus, growth, host_vcpus=facts.host_vcpus),
        cpu_shares=terms.cpu_shares,
        cpu_quota_us=terms.cpu_quota_us,
    )
