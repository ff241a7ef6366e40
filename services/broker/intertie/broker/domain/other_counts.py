"""The part of a cluster that stands, with other counts of its groups: who stays has the address
that it had, and the image."""

from collections.abc import Mapping
from datetime import datetime

from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.difference import Difference, Found
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.planning import part_spec_of
from intertie.broker.domain.site_caps import with_site_caps
from intertie.common.intervals import Window
from intertie.common.layout import Numbers, number_in
from intertie.common.names import ClusterName
from intertie.common.part_spec import with_further_disks
from intertie.common.spec import ClusterSpec, Group
from intertie.common.values import replace


class OtherCounts:
    """What the part would be with so many workspaces of each group."""

    def __init__(
        self,
        record: ClusterRecord,
        part: Part,
        spec: ClusterSpec,
        window: Window,
        view: LedgerView,
        policy: Policy,
        now: datetime,
    ) -> None:
        """`spec`: the one in force, or another one that is normalised."""
        self._name = ClusterName.parse(record.name)
        self._part = part
        self._spec = _as_placed(part, record.spec, spec, policy)
        self._window = window
        self._numbers = _numbers(part)
        self._site = policy.site
        self._difference = Difference(part, view, policy, now)

    def __call__(self, counts: Mapping[str, int]) -> Found:
        return self._difference(
            part_spec_of(
                self._name,
                self._part.spec.cluster_uid,
                self._spec,
                counts,
                self._window,
                self._site,
                self._numbers,
            )
        )


def _as_placed(part: Part, standing: ClusterSpec, spec: ClusterSpec, policy: Policy) -> ClusterSpec:
    """With images, further disks and caps as the part has them: neither an image that has got
    another digest nor a default that the operator has changed is any of an amend's business."""
    there = {each.group: each for each in part.spec.workspaces}

    def group(old: Group, new: Group) -> Group:
        known = there[new.name]
        same = old.allocation == new.allocation
        allocation = known.allocation if same else with_site_caps(new.allocation, policy)
        return replace(new, environment=known.environment, allocation=allocation)

    groups = zip(standing.groups, spec.groups, strict=True)
    spec = replace(spec, groups=tuple(group(old, new) for old, new in groups))
    return with_further_disks(spec, {name: each.disks for name, each in there.items()})


def _numbers(part: Part) -> Numbers:
    """Who has which address, those included that hosts have not taken away yet."""
    found: dict[str, dict[str, int]] = {}
    for spec in (*(each.spec for each in part.shed), part.spec):
        for network in spec.networks:
            known = found.setdefault(network.name, {})
            for member in network.members:
                known[member.workspace] = number_in(network.subnet, member.address)
    return found
