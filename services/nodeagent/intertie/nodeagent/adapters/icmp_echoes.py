"""ICMP echoes to other sites' gateways, by the interface and the address that tunnels go by.

A raw socket an address, connected to it, so that the kernel hands over nothing but what comes from
there; datagram sockets for ICMP would have to be allowed in each network namespace first. The
kernel also says when an answer came, however late this process gets to read it.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Set
from datetime import UTC, datetime, timedelta

import structlog

from intertie.common.clock import Clock
from intertie.nodeagent.domain.ways import Answer

log = structlog.get_logger(__name__)

_NO_WAY = frozenset(
    {
        errno.ENODEV,
        errno.ENXIO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.EADDRNOTAVAIL,
    }
)
"""The device is gone or down, has lost its address, or leads nowhere: tunnels do not get there
either. Anything else is this process's own trouble, and says nothing of the way."""

_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_SOL_RAW, _ICMP_FILTER = 255, 1
_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_ICMP = struct.Struct("!BBHHH")
_COOKIE_BYTES = 8
_AWAITED = 5
"""The newest probes: an answer to an earlier one is none any more."""
_LONGEST = timedelta(seconds=10)
"""A round trip beyond that was not measured: somebody has set the clock."""
_READS = 32
"""At a time and an address, whatever is sent from there; what is left is read the next time."""
_BUFFER_BYTES = 32_768


class IcmpEchoes:
    def __init__(self, interface: str, address: str, clock: Clock) -> None:
        """Both as a gateway's tunnels have them."""
        self._interface = interface
        self._address = address
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._problems: dict[str, str] = {}
        """By address, what was said last of why it cannot be asked."""

    def ask(self, addresses: Set[str]) -> frozenset[str]:
        for each in self._lines.keys() - addresses:
            self._close(each)
        self._problems = {each: why for each, why in self._problems.items() if each in addresses}
        return frozenset(each for each in sorted(addresses) if self._asked(each))

    def answers(self) -> tuple[Answer, ...]:
        return tuple(answer for line in self._lines.values() for answer in line.read())

    def close(self) -> None:
        for each in tuple(self._lines):
            self._close(each)

    def _asked(self, address: str) -> bool:
        try:
            if address not in self._lines:
                self._lines[address] = _Line(self._interface, self._address, address)
            self._lines[address].send(self._clock.now())
        except OSError as error:
            # Another one is made the next time: by then the device may be another one too.
            self._close(address)
            problem = error.strerror or repr(error)
            if self._problems.get(address) != problem:
                self._problems[address] = problem
                log.warning("way.not_asked", address=address, problem=problem)
            return error.errno in _NO_WAY
        self._problems.pop(address, None)
        return True

    def _close(self, address: str) -> None:
        if (line := self._lines.pop(address, None)) is not None:
            line.close()


class _Line:
    """To one address. Making it and all that it does raises OSError."""

    def __init__(self, interface: str, own: str, address: str) -> None:
        self._address = address
        self._cookie = os.urandom(_COOKIE_BYTES)
        self._id = int.from_bytes(self._cookie[:2], "big")
        self._number = 0
        self._sent: dict[int, datetime] = {}
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        try:
            made.setblocking(False)
            but_replies = struct.pack("=I", 0xFFFFFFFF & ~(1 << _ECHO_REPLY))
            made.setsockopt(_SOL_RAW, _ICMP_FILTER, but_replies)
            made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            made.bind((own, 0))
            made.connect((address, 0))
        except BaseException:
            made.close()
            raise
        self._socket = made

    def send(self, now: datetime) -> None:
        self._number = (self._number + 1) & 0xFFFF
        self._socket.send(_request(self._id, self._number, self._cookie))
        self._sent[self._number] = now
        while len(self._sent) > _AWAITED:
            del self._sent[next(iter(self._sent))]

    def read(self) -> Iterator[Answer]:
        for _ in range(_READS):
            try:
                packet, notes, _, _ = self._socket.recvmsg(256, socket.CMSG_SPACE(_TIMESPEC.size))
            except BlockingIOError:
                return
            except OSError:
                continue  # what became of an earlier probe, as some router says it
            number, at = self._number_in(packet), _moment(notes)
            sent = self._sent.pop(number, None) if number is not None else None
            if sent is None or at is None:
                continue
            took = at - sent
            measured = timedelta() <= took <= _LONGEST
            yield Answer(address=self._address, at=at, round_trip=took if measured else None)

    def close(self) -> None:
        self._socket.close()

    def _number_in(self, packet: bytes) -> int | None:
        """Of the probe that it answers; None: it answers none of these."""
        begins = (packet[0] & 0x0F) * 4 if packet else 0
        body = packet[begins:]
        if len(body) != _ICMP.size + _COOKIE_BYTES:
            return None
        kind, _, _, identity, number = _ICMP.unpack_from(body)
        answers = kind == _ECHO_REPLY and identity == self._id
        return int(number) if answers and body[_ICMP.size :] == self._cookie else None


def _request(identity: int, number: int, cookie: bytes) -> bytes:
    unsummed = _ICMP.pack(_ECHO_REQUEST, 0, 0, identity, number) + cookie
    return _ICMP.pack(_ECHO_REQUEST, 0, _checksum(unsummed), identity, number) + cookie


def _checksum(octets: bytes) -> int:
    """RFC 1071, of an even number of octets."""
    total: int = sum(word for (word,) in struct.iter_unpack("!H", octets))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _moment(notes: list[tuple[int, int, bytes]]) -> datetime | None:
    for level, kind, data in notes:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return datetime.fromtimestamp(seconds, UTC) + timedelta(
                microseconds=nanoseconds // 1000
            )
    return None
