"""A site, its hosts and what it offers, from the domain to the wire."""

from intertie.api.broker.v1 import part_pb2, site_pb2
from intertie.broker.capacity_proto import capacity_to_proto
from intertie.broker.domain.fleet import Growth
from intertie.broker.domain.offers import HostView, LinkFree, Offer, SiteView
from intertie.common.rpc.spec_proto import (
    duration_to_proto,
    timestamp_to_proto,
    window_to_proto,
)
from intertie.common.tariff import RATES, Rates


def offer_to_proto(offer: Offer) -> part_pb2.Offer:
    return part_pb2.Offer(
        site=offer.site,
        window=window_to_proto(offer.window),
        hosts=[
            part_pb2.HostOffer(
                **dict(each.free.items()),
                hypervisors=each.hypervisors,
                architecture=each.architecture,
            )
            for each in offer.hosts
        ],
        links=[
            part_pb2.LinkOffer(
                peer=each.link.peer,
                egress_mbit_s=each.egress_mbit_s,
                ingress_mbit_s=each.ingress_mbit_s,
                latency=duration_to_proto(each.link.latency),
            )
            for each in offer.links
        ],
        images=[
            part_pb2.ImageOffer(
                image=each.asked,
                digest=each.image.digest if each.image else "",
                size_bytes=each.image.size_bytes if each.image else 0,
                virtual_size_bytes=each.image.virtual_size_bytes if each.image else 0,
            )
            for each in offer.images
        ],
        tariff=rates_to_proto(offer.rates),
        kind_tariffs={kind: rates_to_proto(rates) for kind, rates in offer.kinds.items()},
        pricing=offer.pricing,
        site_time=timestamp_to_proto(offer.site_time),
        default_disk_cap_iops=offer.default_disk_cap_iops,
        default_disk_cap_mib_s=offer.default_disk_cap_mib_s,
        room_from=map(timestamp_to_proto, offer.room_from),
        free_together=(
            part_pb2.FreeTogether(
                vcpus=offer.free_together.vcpus, memory_mib=offer.free_together.memory_mib
            )
            if offer.free_together is not None
            else None
        ),
    )


def rates_to_proto(rates: Rates) -> part_pb2.Tariff:
    return part_pb2.Tariff(**{name: getattr(rates, name) for name in RATES})


def host_to_proto(view: HostView) -> site_pb2.Host:
    facts, record = view.facts, view.record
    return site_pb2.Host(
        name=f"sites/{view.site}/hosts/{facts.host}",
        capacity=capacity_to_proto(view.capacity),
        free=capacity_to_proto(view.free),
        gateway=facts.gateway,
        address=facts.address,
        hypervisors=facts.hypervisors,
        architecture=facts.architecture,
        missing=facts.missing,
        growth=growth_to_proto(facts.growth) if facts.growth else None,
        report_time=timestamp_to_proto(facts.report_time),
        alive=view.alive,
        workspaces=view.workspaces,
        state=site_pb2.Host.State.Value(record.state.name if record else "UP"),
        state_time=timestamp_to_proto(record.since) if record else None,
        state_message=record.why if record else "",
        epoch=record.epoch if record else 0,
    )


def growth_to_proto(growth: Growth) -> site_pb2.Growth:
    return site_pb2.Growth(memory=growth.memory, vcpus=growth.vcpus)


def site_to_proto(view: SiteView) -> site_pb2.Site:
    return site_pb2.Site(
        name=f"sites/{view.site}",
        capacity=capacity_to_proto(view.capacity),
        free=capacity_to_proto(view.free),
        hosts=view.hosts,
        hosts_alive=view.hosts_alive,
        links=[_site_link(each) for each in view.links],
        ledger_generation=view.ledger_generation,
        site_time=timestamp_to_proto(view.site_time),
        leader=view.leader,
    )


def _site_link(free: LinkFree) -> site_pb2.SiteLink:
    return site_pb2.SiteLink(
        peer=free.link.peer,
        egress_mbit_s=free.link.egress_mbit_s,
        ingress_mbit_s=free.link.ingress_mbit_s,
        free_egress_mbit_s=free.egress_mbit_s,
        free_ingress_mbit_s=free.ingress_mbit_s,
        latency=duration_to_proto(free.link.latency),
    )
