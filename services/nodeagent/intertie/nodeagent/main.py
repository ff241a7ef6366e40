"""`intertie-nodeagent --config FILE`: makes everything, and runs it."""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta

import structlog
import uvloop

from intertie.api.nodeagent.v1 import nodeagent_pb2, nodeagent_pb2_grpc
from intertie.common import logs, points
from intertie.common.clock import SystemClock
from intertie.common.etcd.client import Etcd
from intertie.common.process import run_until_signalled
from intertie.common.rpc.client import following_channel
from intertie.common.rpc.credentials import Credentials
from intertie.common.rpc.identity import agent_server_name
from intertie.common.rpc.server import ListenFailed, Server
from intertie.common.settings import SettingsInvalid, load
from intertie.common.values import replace
from intertie.nodeagent.adapters import capabilities
from intertie.nodeagent.adapters.attachments import Attachments
from intertie.nodeagent.adapters.disk_copies import PoolCopies
from intertie.nodeagent.adapters.etcd_records import EtcdRecords
from intertie.nodeagent.adapters.host_facts import FactsReader
from intertie.nodeagent.adapters.icmp_echoes import IcmpEchoes
from intertie.nodeagent.adapters.image_cache import ImageCache
from intertie.nodeagent.adapters.imagestore_client import ImagestoreClient, to_imagestore
from intertie.nodeagent.adapters.iproute_network import IprouteNetwork
from intertie.nodeagent.adapters.libvirt_hypervisor import LibvirtHypervisor
from intertie.nodeagent.adapters.migration_peers import GrpcPeers, MigrationSockets
from intertie.nodeagent.adapters.ready_channels import ReadyChannels
from intertie.nodeagent.adapters.snapshot_uploads import SnapshotUploads
from intertie.nodeagent.adapters.state_file import StateFile
from intertie.nodeagent.adapters.tap_counters import read_tap
from intertie.nodeagent.adapters.traffic import TcTraffic
from intertie.nodeagent.adapters.uplink import SysfsUplink
from intertie.nodeagent.adapters.workspace_storage import WorkspaceStorage
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.machine import MachineFacts, growth_of
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.ports import Offered
from intertie.nodeagent.domain.report import HostFacts
from intertie.nodeagent.domain.snapshot_ports import Snapshotting
from intertie.nodeagent.loops.incast import Receiver, Sender
from intertie.nodeagent.loops.measure import Measurer
from intertie.nodeagent.loops.reconcile import Reconciler
from intertie.nodeagent.loops.report import Reporter
from intertie.nodeagent.loops.self_fence import SelfFence
from intertie.nodeagent.loops.usage import UsageMeter
from intertie.nodeagent.loops.ways import WayWatcher
from intertie.nodeagent.measurements import Measurements
from intertie.nodeagent.servicer import NodeAgentServicer
from intertie.nodeagent.settings import Settings

log = structlog.get_logger(__name__)

_LIBVIRT_RETRY_S = 2.0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="intertie-nodeagent", description=__doc__)
    parser.add_argument("--config", required=True, help="settings, a TOML file")
    arguments = parser.parse_args(argv)
    try:
        settings = load(Settings, arguments.config)
        logs.configure("nodeagent", settings.log.level)
        points.stop_in(settings.fault_points)
        uvloop.run(serve(settings))
    except (SettingsInvalid, HostFailure, ListenFailed) as error:
        sys.exit(f"intertie-nodeagent: {error}")


async def serve(settings: Settings) -> None:
    if programs := capabilities.missing_programs():
        wanted = "iproute2, nftables, QEMU and util-linux"
        raise HostFailure(f"{', '.join(programs)}: not found; install {wanted}")
    clock = SystemClock()
    files = WorkspaceFiles(settings.data)
    storage = WorkspaceStorage(files)
    state = StateFile(settings.data)
    hypervisor = LibvirtHypervisor(settings.libvirt_uri, copy_mib_s=settings.snapshots.copy_mib_s)
    traffic = TcTraffic(state.load_classes, state.save_classes)
    credentials = Credentials(settings.tls, settings.trust, clock)
    store = to_imagestore(settings.imagestore, credentials)
    source = ImagestoreClient(store)
    uploads = SnapshotUploads(store, clock, mbit_s=settings.snapshots.upload_mbit_s)
    copies = PoolCopies(files, storage, clock, mib_s=settings.snapshots.copy_mib_s)
    images = ImageCache(files.cache, source, keep_mib=settings.image_cache_mib)
    etcd = await Etcd.connect(settings.etcd)
    records = EtcdRecords(etcd, settings.host)
    fence_after = timedelta(seconds=settings.fence_after_s)
    self_fence = SelfFence(clock, state, boot=capabilities.boot_id(), fence_after=fence_after)
    channels = ReadyChannels(files, clock)
    place = _place(settings)
    missing = list(await capabilities.missing_features())
    cgroups = capabilities.cpu_cgroups()
    if not cgroups:
        missing.append("cgroups cannot be made: CPU shares and memory limits are not enforced")
    offered = await _offered(hypervisor, settings, clock)
    machine = MachineFacts(
        hypervisors=offered.kinds,
        architecture=offered.architecture,
        disk_cache=storage.disk_cache(),
        cgroups=cgroups,
        memory_growth=settings.memory_growth,
        vcpu_growth=settings.vcpu_growth,
        host_vcpus=settings.offer.vcpus,
    )
    facts = FactsReader(
        settings, storage, offered=offered, missing=tuple(missing), growth=growth_of(machine)
    )
    for sentence in missing:
        log.warning("host.missing", what=sentence)
    sockets = MigrationSockets(settings.libvirt_socket, settings.migration_sockets)
    peers = GrpcPeers(
        lambda address, host: following_channel(
            address, credentials, agent_server_name(host, settings.site)
        ),
        files,
        sockets,
        clock,
        mib_s=max(facts.uplink_mbit_s() // 16, 1),
    )
    reconciler = Reconciler(
        clock=clock,
        records=records,
        state=state,
        hypervisor=hypervisor,
        network=IprouteNetwork(),
        traffic=traffic,
        storage=storage,
        images=images,
        snapshotting=Snapshotting(copies=copies, store=uploads),
        channels=channels,
        peers=peers,
        files=files,
        place=place,
        machine=machine,
        memory_mib=facts.memory_mib,
        self_fence=self_fence,
        uplink_mbit_s=facts.uplink_mbit_s(),
        wide_mbit_s=settings.gateway.capacity_mbit_s if settings.gateway else 0,
        period_s=settings.period_s,
    )
    usage = UsageMeter(
        lambda: reconciler.known, lambda: reconciler.report, hypervisor, read_tap, state, clock
    )
    echoes = IcmpEchoes(place.wide_interface, place.wide_address, clock)
    ways = WayWatcher(reconciler.wanted, echoes, clock)

    async def found() -> HostFacts:
        return replace(await facts.read(), ways=ways.told())

    reporter = Reporter(reconciler, records, clock, found, usage.of, ways.changed)
    measurer = Measurer(reconciler.wanted, hypervisor, traffic, records, clock, place)
    receiver = Receiver(
        reconciler.wanted,
        SysfsUplink(settings.underlay.interface, clock),
        records,
        clock,
        capacity_mbit_s=facts.uplink_mbit_s(),
    )
    sender = Sender(reconciler.yield_to, records, clock, settings.host)
    servicer = NodeAgentServicer(
        site=settings.site,
        reconciler=reconciler,
        streams=Attachments(files),
        measurements=Measurements(hypervisor, traffic, place),
        clock=clock,
        facts=found,
        arrivals=reconciler.arrivals(sockets),
        files=files,
    )
    descriptor = nodeagent_pb2.DESCRIPTOR.services_by_name["NodeAgent"]
    add = nodeagent_pb2_grpc.add_NodeAgentServicer_to_server
    server = Server(settings, clock, [(add, servicer, descriptor)], credentials)
    try:
        host = [reconciler.run(), reporter.run(), measurer.run(), usage.run()]
        if settings.gateway is not None:
            host.append(ways.run())
        await run_until_signalled(server, [*host, receiver.run(), sender.run()])
    finally:
        echoes.close()
        await images.close()
        await store.close()
        await etcd.close()


async def _offered(
    hypervisor: LibvirtHypervisor, settings: Settings, clock: SystemClock
) -> Offered:
    """Waits for libvirt: an agent that cannot see its guests must not say anything of them."""
    while True:
        try:
            found = await hypervisor.offered(allow_kvm=settings.allow_kvm)
        except HostFailure as error:
            log.warning("libvirt.waiting", problem=str(error))
            await clock.sleep(_LIBVIRT_RETRY_S)
            continue
        chosen = tuple(kind for kind in found.kinds if settings.hypervisor in ("auto", kind))
        if not chosen:
            raise HostFailure(
                f"hypervisor {settings.hypervisor} does not work here: {found.kinds} do"
            )
        return replace(found, kinds=chosen)


def _place(settings: Settings) -> Place:
    underlay, gateway = settings.underlay, settings.gateway
    if gateway is None:
        return Place(host=settings.host, interface=underlay.interface, address=underlay.address)
    return Place(
        host=settings.host,
        interface=underlay.interface,
        address=underlay.address,
        wide_interface=gateway.interface,
        wide_address=gateway.address,
        wide_port=gateway.port,
    )


if __name__ == "__main__":
    main()
