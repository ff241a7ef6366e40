"""The NoCloud seed: what a guest is told about itself at its first boot.

Intertie's own part (host names, keys, time zone) is vendor-data; user-data is the user's own bytes,
unchanged. The keys are in meta-data too, for a guest whose user-data turns vendor-data off.
"""

import json
import re
import shlex
from base64 import b64encode
from collections.abc import Iterable, Mapping

from intertie.common.part_spec import HostEntry
from intertie.common.terms import Readiness
from intertie.nodeagent.domain.guest import READY_PORT, ready_line
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace

LABEL = "cidata"
_NO_USER_DATA = b"#cloud-config\n{}\n"
_FIRST_PLANE = re.compile("[\x7f-\uffff]")
_BESIDE_THE_USERS = "dict(no_replace,recurse_list)+list(prepend)+str()"
"""Where both give a list (files, keys), the user's follows ours; else the user's value holds.
By itself cloud-init drops our list, and with the files the names of the cluster's machines."""
_AT_EVERY_BOOT = "/var/lib/cloud/scripts/per-boot"
"""cloud-init runs what lies there in its last stage."""


def seed_files(part: WantedPart, workspace: WantedWorkspace) -> Mapping[str, bytes]:
    """File name to content. All but the user's own is JSON, which is YAML too."""
    keys = workspace.environment.contextualization.ssh_authorized_keys
    hosts = hosts_file(workspace.name, part.host_entries)
    vendor_data = b"#cloud-config\n" + _json(
        {
            # cloud-init takes one of the two off when it reads vendor-data by itself, so that the
            # other is left when it puts that under user-data.
            "merge_how": _BESIDE_THE_USERS,
            "merge_type": _BESIDE_THE_USERS,
            "ssh_authorized_keys": list(keys),
            "disable_root": False,
            "manage_etc_hosts": False,
            **_timezone(workspace),
            "write_files": [
                _file("/etc/hosts", hosts, "0644"),
                *_ready_report(workspace),
            ],
        }
    )
    return {
        "meta-data": _json(
            {
                "instance-id": workspace.uid,
                "local-hostname": workspace.name,
                "public-keys": list(keys),
                "intertie_nonce": workspace.nonce,
            }
        ),
        "network-config": _json(_network_config(part, workspace)),
        "vendor-data": vendor_data,
        "user-data": workspace.environment.contextualization.user_data or _NO_USER_DATA,
    }


def _timezone(workspace: WantedWorkspace) -> Mapping[str, str]:
    """Nothing where none is asked for: an image without a tz database fails at any name."""
    name = workspace.environment.timezone
    return {"timezone": name} if name else {}


def _ready_report(workspace: WantedWorkspace) -> Iterable[Mapping[str, str]]:
    """What makes any image with cloud-init say that it is ready, once all that its seed asks for is
    done, the user's own commands too; again and again, for an agent that was away. An image that
    says so by itself, without cloud-init, never runs it."""
    if workspace.environment.readiness is not Readiness.CHANNEL:
        return
    script = f"""#!/bin/sh
port=/dev/virtio-ports/{READY_PORT}
[ -e $port ] || exit 0
{{
  cloud-init status --wait
  while echo {shlex.quote(ready_line(workspace.nonce))} >$port; do sleep 10; done
}} >/dev/null 2>&1 </dev/null &
"""
    yield _file(f"{_AT_EVERY_BOOT}/intertie-ready", script, "0700")


def _file(path: str, text: str, permissions: str) -> Mapping[str, str]:
    """One of cloud-init's `write_files`."""
    content = b64encode(text.encode()).decode()
    return {"path": path, "encoding": "b64", "permissions": permissions, "content": content}


def hosts_file(workspace: str, entries: Iterable[HostEntry]) -> str:
    """The /etc/hosts of every workspace: the whole cluster, whichever site a machine is at."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    known = False
    for entry in entries:
        known = known or workspace in entry.names
        lines.append(f"{entry.address} {' '.join(entry.names)}")
    if not known:
        lines.insert(1, f"127.0.1.1 {workspace}")
    return "\n".join(lines) + "\n"


def _network_config(part: WantedPart, workspace: WantedWorkspace) -> Mapping[str, object]:
    return {
        "version": 2,
        "ethernets": {
            f"nic{number}": {
                "match": {"macaddress": nic.mac},
                "addresses": [nic.address],
                "mtu": part.network(nic.network_uid).mtu,
                "dhcp4": False,
                "dhcp6": False,
                "accept-ra": False,
            }
            for number, nic in enumerate(workspace.nics)
        },
    }


def _json(value: object) -> bytes:
    """JSON that any YAML reader takes for the same.

    What is neither ASCII nor beyond the first plane is escaped, because YAML refuses some of it and
    takes some for the end of a line. What is beyond stands as it is: JSON would write it as two
    escapes, which are two halves of nothing to YAML.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return _FIRST_PLANE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"
