"""A ledger's history as etcd has it, and a checker of it that shares no code with what it checks.

The history is every revision under the prefix, as `etcdctl watch` tells it, and the records are
read as plain JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from intertie.common.etcd.client import Etcd, Put
from tests.integration.etcd_server import EtcdServer

History = list[tuple[int, str, Any]]
Hosts = Mapping[str, Mapping[str, int]]
"""What each has of every resource."""


async def history(etcd: Etcd, server: EtcdServer) -> History:
    """(revision, key, record) of every write in order; an empty record for a deletion."""
    await etcd.txn([], [Put("zzz/the-end", b"-")])
    watch = await asyncio.create_subprocess_exec(
        "etcdctl", f"--endpoints={server.endpoint}", "watch", "--prefix", etcd.prefix,
        "--rev=1", "-w", "json", "--dial-timeout=60s",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 26,
    )  # fmt: skip
    assert watch.stdout is not None
    assert watch.stderr is not None
    found: History = []
    try:
        async with asyncio.timeout(60):
            async for line in watch.stdout:
                for event in json.loads(line).get("Events", ()):
                    pair = event["kv"]
                    key = base64.b64decode(pair["key"]).decode().removeprefix(etcd.prefix)
                    if key == "zzz/the-end":
                        return found
                    gone = event.get("type") == 1
                    value = b"" if gone else base64.b64decode(pair.get("value", ""))
                    keep = key.startswith(("parts/", "requests/", "ledger/"))
                    body = json.loads(value) if keep and value else ""
                    found.append((pair["mod_revision"], key, body))
            said = (await watch.stderr.read()).decode()
            raise AssertionError(f"the history has no end: {said}")
    finally:
        if watch.returncode is None:
            watch.kill()
        await watch.wait()


EDGES = {
    ("", "HELD"), ("", "CONFIRMED"),
    ("HELD", "PREPARED"), ("HELD", "RELEASED"), ("HELD", "EXPIRED"),
    ("PREPARED", "CONFIRMED"), ("PREPARED", "RELEASED"), ("CONFIRMED", "ENDED"),
}  # fmt: skip


def replay(writes: History, hosts: Hosts, link: int) -> list[str]:
    """What is wrong with a history; nothing, one hopes."""
    wrong: list[str] = []
    parts: dict[str, dict[str, Any]] = {}
    answers: Counter[str] = Counter()
    asked: dict[str, str] = {}
    for revision, group in groupby(writes, key=lambda each: each[0]):
        made, answered = [], []
        for _, key, body in group:
            if key.startswith("parts/") and isinstance(body, dict):
                before = parts.get(key, {"state": ""})["state"]
                if before != body["state"] and (before, body["state"]) not in EDGES:
                    wrong.append(f"{revision}: {key} went from {before} to {body['state']}")
                if not before:
                    made.append(body["name"])
                parts[key] = body
            if key.startswith("requests/") and isinstance(body, dict):
                if asked.setdefault(key, body["answer"]) != body["answer"]:
                    wrong.append(f"{revision}: {key} was answered twice")
                answers[key] += 1
                answered.append(body["answer"])
        if len(made) != len(answered):
            wrong.append(f"{revision}: {made} for the requests {answered}")
        wrong += [f"{revision}: {each}" for each in overfull(parts.values(), hosts, link)]
    wrong += [f"{key} was written {times} times" for key, times in answers.items() if times > 1]
    return wrong


def overfull(parts: Any, hosts: Hosts, link: int) -> Iterator[str]:
    """Counts every resource again at every moment at which a part begins."""
    counted = [each for each in parts if each["state"] in ("HELD", "PREPARED", "CONFIRMED")]
    for moment in {at(each)[0] for each in counted}:
        use: Counter[str] = Counter()
        for each in counted:
            start, end = at(each)
            if start <= moment < end:
                use.update(dict(takes(each)))
        for resource, amount in use.items():
            host, _, what = resource.partition(" ")
            most = link if host == "link" else hosts[host][what]
            if amount > most:
                yield f"{resource} is promised {amount} of {most} at {moment}"


def at(part: dict[str, Any]) -> tuple[datetime, datetime]:
    window = part["spec"]["window"]
    return datetime.fromisoformat(window["start"]), datetime.fromisoformat(window["end"])


def takes(part: dict[str, Any]) -> Iterator[tuple[str, int]]:
    use: Counter[str] = Counter()
    where = {each["workspace"]: each["host"] for each in part["placed"]}
    for each in part["spec"]["workspaces"]:
        label, has = f"{each['group']}-{each['index']}", each["allocation"]
        host = where[label]
        use[f"{host} vcpus"] += has["vcpus"]
        use[f"{host} memory_mib"] += has["memory_mib"]
        use[f"{host} disk_mib"] += has["disk_mib"]
        use[f"{host} iops"] += has["disk"]["cap_iops"]
        use[f"{host} throughput_mib_s"] += has["disk"]["cap_mib_s"]
        use[f"{host} uplink_mbit_s"] += has["nic"]["guarantee_mbit_s"] * len(each["nics"])
        for network in part["spec"]["networks"]:
            for pair in network["pairs"]:
                ends = {pair["a"], pair["b"]}
                if label in ends and len({where.get(end) for end in ends}) > 1:
                    use[f"{host} uplink_mbit_s"] += pair["bandwidth"]["guarantee_mbit_s"]
    for link in part["spec"]["links"]:
        use["link egress"] += link["egress_mbit_s"]
        use["link ingress"] += link["ingress_mbit_s"]
        use[f"{part['gateway']} uplink_mbit_s"] += link["egress_mbit_s"]
    yield from use.items()
