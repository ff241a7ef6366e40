"""Guests through libvirt.

libvirt's calls block, and block for ever while libvirtd is stopped: each runs in a thread of its
own that is given up after a while. A connection that failed is opened anew at the next call.
"""

import asyncio
import contextlib
import os
import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import libvirt
import libvirt_qemu
import structlog

from intertie.common.values import replace
from intertie.nodeagent.adapters import libvirt_copies
from intertie.nodeagent.adapters.libvirt_changes import (
    AGENT_TIMEOUT_S,
    limit_memory,
    read,
    take,
    use_vcpus,
)
from intertie.nodeagent.adapters.libvirt_migration import break_off, rooted, send
from intertie.nodeagent.domain.domain_xml import (
    BUILDERS,
    METADATA,
    ROOT_DISK,
    SEED_DISK,
    Machine,
    domain_xml,
    running_in,
)
from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
from intertie.nodeagent.domain.guest_terms import Change, Running
from intertie.nodeagent.domain.measured import DiskCounters
from intertie.nodeagent.domain.migrating import Route
from intertie.nodeagent.domain.ports import CopyJob, DomainCounters, Offered
from intertie.nodeagent.domain.reconcile import DomainState

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TIMEOUT_S = 20.0
_LONG_S = 3600.0
"""Of what goes through all of a guest's memory."""
_MAX_GIVEN_UP = 8
_OWN = re.compile(r"it-[0-9a-f]{12}")
_GONE = (libvirt.VIR_ERR_NO_DOMAIN,)
_BROKEN = frozenset(
    {
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_INTERNAL_ERROR,
    }
)


class LibvirtHypervisor:
    """The domains of one libvirt, which is named by its URI."""

    def __init__(self, uri: str, *, timeout_s: float = _TIMEOUT_S, copy_mib_s: int = 64) -> None:
        """`copy_mib_s`: at most so fast is the disk of a guest that runs copied."""
        self._uri = uri
        self._timeout_s = timeout_s
        self._copy_mib_s = copy_mib_s
        self._connection: libvirt.virConnect | None = None
        self._lock = threading.Lock()
        self._given_up = 0
        # libvirt prints every error to stderr unless told not to.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)

    async def states(self) -> Mapping[str, DomainState]:
        return await self._call(_states)

    async def define(self, machine: Machine, kind: str) -> None:
        if kind not in BUILDERS:
            raise HostFailure(f"no guest can be described to hypervisor {kind}", final=True)
        xml = domain_xml(kind, machine)
        await self._call(lambda connection: connection.defineXML(xml))

    async def start(self, name: str) -> None:
        await self._call(lambda connection: _start(connection.lookupByName(name)))

    async def resume(self, name: str) -> None:
        await self._call(lambda connection: connection.lookupByName(name).resume())

    async def pause(self, name: str) -> None:
        await self._call(lambda connection: connection.lookupByName(name).suspend())

    async def press(self, name: str) -> None:
        await self._call(lambda connection: _press(connection.lookupByName(name)))

    async def save(self, name: str, path: str) -> None:
        await self._call(lambda connection: _save(connection, name, path), long=True)

    async def restore(self, name: str, path: str) -> None:
        await self._call(lambda connection: _restore(connection, name, path), long=True)

    async def memory_mib(self) -> Mapping[str, int]:
        return await self._call(_memory_mib)

    async def saved_mib(self, path: str) -> int:
        return await self._call(lambda connection: _saved_mib(connection, path))

    async def is_whole(self, path: str) -> bool:
        return await self._call(lambda connection: _is_whole(connection, path))

    async def send(self, name: str, route: Route) -> None:
        await self._call(lambda connection: send(connection.lookupByName(name), route), long=True)

    async def break_off(self, name: str) -> None:
        await self._call(lambda connection: break_off(connection.lookupByName(name)))

    async def stop(self, name: str) -> None:
        await self._call(lambda connection: _stop(connection.lookupByName(name)))

    async def remove(self, name: str) -> None:
        await self._call(lambda connection: _remove(connection, name))

    async def running(self, name: str) -> Running:
        return await self._call(lambda connection: read(connection.lookupByName(name)))

    async def change(self, name: str, change: Change) -> None:
        await self._call(lambda connection: take(connection.lookupByName(name), change))

    async def use_vcpus(self, name: str) -> None:
        await self._call(lambda connection: use_vcpus(connection.lookupByName(name)))

    async def begin_copy(self, name: str, target: str, *, quiesce: bool) -> bool:
        return await self._call(
            lambda connection: libvirt_copies.begin(
                connection.lookupByName(name), target, self._copy_mib_s, quiesce=quiesce
            )
        )

    async def thaw(self, name: str) -> bool:
        return await self._call(
            lambda connection: libvirt_copies.thaw(connection.lookupByName(name))
        )

    async def copy_job(self, name: str) -> CopyJob:
        return await self._call(
            lambda connection: libvirt_copies.look(connection.lookupByName(name))
        )

    async def end_copy(self, name: str) -> None:
        await self._call(lambda connection: _end_copy(connection, name))

    async def agent_answers(self, name: str) -> bool:
        return await self._call(lambda connection: _ping(connection, name))

    async def counters(self) -> Mapping[str, DomainCounters]:
        return await self._call(_counters)

    async def offered(self, *, allow_kvm: bool) -> Offered:
        """What this host can run of what an agent can describe.

        KVM only where it is allowed as well: a /dev/kvm may be there and not work.
        """
        found = await self._call(lambda connection: offered(connection.getCapabilities()))
        if allow_kvm and os.access("/dev/kvm", os.R_OK | os.W_OK):
            return found
        return replace(found, kinds=tuple(kind for kind in found.kinds if kind != "kvm"))

    async def _call(self, function: Callable[[Any], T], *, long: bool = False) -> T:
        """`function(connection)` in a thread; a dead or silent libvirtd is HypervisorSilent. One
        that is `long` has a connection of its own: libvirtd answers a few calls of one at a time,
        and the others are not to wait for it."""
        timeout_s = _LONG_S if long else self._timeout_s
        if self._given_up >= _MAX_GIVEN_UP:
            raise HypervisorSilent(f"libvirt has not answered {self._given_up} calls")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        waited = True

        def finish(result: T | None, error: Exception | None) -> None:
            if not waited:
                self._given_up -= 1
            elif future.cancelled():
                return
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result: T | None = None
            failure: Exception | None = None
            connection: libvirt.virConnect | None = None
            try:
                connection = libvirt.open(self._uri) if long else self._connect()
                result = function(connection)
            except libvirt.libvirtError as error:
                failure = self._failure(error, connection)
            except Exception as error:
                failure = error
            if long and connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    connection.close()
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(finish, result, failure)

        threading.Thread(target=work, daemon=True, name="libvirt").start()
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except TimeoutError:
            waited = False
            self._given_up += 1
            if not long:
                self._connection = None
            raise HypervisorSilent(f"libvirt did not answer within {timeout_s} s") from None

    def _connect(self) -> libvirt.virConnect:
        connection = self._connection
        if connection is not None and connection.isAlive():
            return connection
        with self._lock:
            if self._connection is None or not self._connection.isAlive():
                self._connection = libvirt.open(self._uri)
            return self._connection

    def _failure(self, error: libvirt.libvirtError, used: libvirt.virConnect | None) -> HostFailure:
        """`used`: the connection that it came over, whatever there is by now."""
        text = error.get_error_message() or "libvirt failed"
        if error.get_error_code() in _BROKEN and (used is None or not _alive(used)):
            if self._connection is used:
                self._connection = None
            return HypervisorSilent(f"libvirt: {text}")
        return HostFailure(f"libvirt: {text}")


def _alive(connection: libvirt.virConnect) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _states(connection: libvirt.virConnect) -> dict[str, DomainState]:
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    rows = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, flags)
    found = {}
    for domain, stats in rows:
        if _OWN.fullmatch(domain.name()):
            state, reason = stats.get("state.state"), stats.get("state.reason")
            found[domain.name()] = state_of(state, reason)
    return found


def state_of(state: int, reason: int) -> DomainState:
    """What libvirt's numbers say."""
    if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
        return DomainState.STALLED
    if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
        return DomainState.STARTING
    if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_MIGRATION:
        return DomainState.IN_TRANSIT
    if state in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED):
        return DomainState.PAUSED
    if state == libvirt.VIR_DOMAIN_SHUTOFF and reason == libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED:
        return DomainState.SENT
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        switched_off = reason == libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN
        return DomainState.POWERED_OFF if switched_off else DomainState.OFF
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return DomainState.OFF
    if state == libvirt.VIR_DOMAIN_SHUTDOWN:
        return DomainState.ENDING
    return DomainState.RUNNING


def _start(domain: libvirt.virDomain) -> None:
    domain.create()
    limit_memory(domain)


def _stop(domain: libvirt.virDomain) -> None:
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


def _press(domain: libvirt.virDomain) -> None:
    """Not by the guest's agent, which libvirt would wait for."""
    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def _save(connection: libvirt.virConnect, name: str, path: str) -> None:
    connection.lookupByName(name).saveFlags(path, None, 0)


def _restore(connection: libvirt.virConnect, name: str, path: str) -> None:
    """Without the limit that it had: a guest that begins with one may lock so much memory, which
    takes a capability that libvirtd may not have. It gets one once it runs, as at a start. Its
    files are this host's, wherever it was saved."""
    flags = libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    document = rooted(connection.saveImageGetXMLDesc(path, flags), Path(path).parent.parent)
    paused = libvirt.VIR_DOMAIN_SAVE_PAUSED
    connection.restoreFlags(path, document, paused)
    try:
        limit_memory(connection.lookupByName(name))
    except libvirt.libvirtError as error:
        log.warning("guest.no_memory_limit", domain=name, problem=str(error))


def _memory_mib(connection: libvirt.virConnect) -> dict[str, int]:
    flags = (
        libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    )
    rows = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BALLOON, flags)
    return {
        domain.name(): stats["balloon.maximum"] // 1024
        for domain, stats in rows
        if _OWN.fullmatch(domain.name())
    }


def _saved_mib(connection: libvirt.virConnect, path: str) -> int:
    return running_in(connection.saveImageGetXMLDesc(path, 0), disk_mib=0).terms.memory_mib


def _is_whole(connection: libvirt.virConnect, path: str) -> bool:
    """libvirt marks a file as one of its own once it is written to its end."""
    try:
        connection.saveImageGetXMLDesc(path, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _BROKEN and not _alive(connection):
            raise
        return False
    return True


def _remove(connection: libvirt.virConnect, name: str) -> None:
    """Only a domain that carries this project's mark."""
    try:
        domain = connection.lookupByName(name)
        if METADATA not in domain.XMLDesc():
            raise HostFailure(f"domain {name} was not made by an agent", final=True)
        _stop(domain)
        domain.undefine()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _GONE:
            raise


def _end_copy(connection: libvirt.virConnect, name: str) -> None:
    try:
        libvirt_copies.end(connection.lookupByName(name))
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _GONE:
            raise


def _ping(connection: libvirt.virConnect, name: str) -> bool:
    domain = connection.lookupByName(name)
    command = '{"execute": "guest-ping"}'
    try:
        libvirt_qemu.qemuAgentCommand(domain, command, AGENT_TIMEOUT_S, 0)
    except libvirt.libvirtError:
        return False
    return True


_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""libvirt begins anew with its ids when the host does."""


def _counters(connection: libvirt.virConnect) -> dict[str, DomainCounters]:
    wanted = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BLOCK
    flags = (
        libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    )
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    return {
        domain.name(): DomainCounters(
            made=f"{boot}/{domain.ID()}",
            cpu_time_ns=stats.get("cpu.time", 0),
            read_bytes=stats.get("block.0.rd.bytes", 0),
            read_operations=stats.get("block.0.rd.reqs", 0),
            write_bytes=stats.get("block.0.wr.bytes", 0),
            write_operations=stats.get("block.0.wr.reqs", 0),
            read_time_ns=stats.get("block.0.rd.times", 0),
            write_time_ns=stats.get("block.0.wr.times", 0),
            others=_others(stats),
        )
        for domain, stats in connection.getAllDomainStats(wanted, flags)
        if _OWN.fullmatch(domain.name())
    }


def _others(stats: Mapping[str, Any]) -> dict[str, DiskCounters]:
    """Of the disks that are neither the root disk nor the seed."""
    found = {}
    for number in range(stats.get("block.count", 0)):
        at = f"block.{number}"
        device = stats.get(f"{at}.name", "")
        if device in ("", ROOT_DISK, SEED_DISK):
            continue
        reads, writes, octets = (
            stats.get(f"{at}.rd.reqs", 0),
            stats.get(f"{at}.wr.reqs", 0),
            stats.get(f"{at}.rd.bytes", 0) + stats.get(f"{at}.wr.bytes", 0),
        )
        busy_ns = stats.get(f"{at}.rd.times", 0) + stats.get(f"{at}.wr.times", 0)
        found[device] = DiskCounters(operations=reads + writes, bytes=octets, busy_ns=busy_ns)
    return found


def offered(capabilities: str) -> Offered:
    """Domain types for machines of the host's own architecture that somebody wrote a builder for.

    HostFailure when libvirt does not name the architecture.
    """
    root = ET.fromstring(capabilities)
    architecture = root.findtext("host/cpu/arch")
    if not architecture:
        raise HostFailure("libvirt does not say what architecture this host has")
    there = {
        domain.get("type")
        for guest in root.iter("guest")
        if guest.findtext("os_type") == "hvm"
        for arch in guest.findall("arch")
        if arch.get("name") == architecture
        for domain in arch.findall("domain")
    }
    return Offered(
        kinds=tuple(kind for kind in BUILDERS if kind in there), architecture=architecture
    )
