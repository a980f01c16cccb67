"""Where the server listens: its address and its socket, and how many may use it for how long."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import resource
import socket

from cosremaster.errors import OutputError, UsageError, printable
from cosremaster.records.tuples import NamedTuple

HEAD_TIMEOUT = 15
"""Seconds within which a client sends the head of a request."""
STALL_TIMEOUT = 60
"""Seconds within which a client takes what waits for it (256 KiB at most: some 4 kB a second)."""
BACKLOG = 512
SPARE_DESCRIPTORS = 64
"""Descriptors that connections leave, of the server's own: for sources, plans and threads that look at files."""


class Address(NamedTuple):
    """Where the server listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"


class ServerLimits(NamedTuple):
    """Limits. ``connections``: all; ``per_client``: those of one address; ``grace``: seconds for the answers in
    progress when the server ends.
    """

    connections: int = 1024
    per_client: int = 256
    grace: int = 30
    head_timeout: float = HEAD_TIMEOUT
    stall_timeout: float = STALL_TIMEOUT


def fit_connections(connections: int) -> int:
    """Return how many of so many ``connections`` have room among the files that this process may open.

    It may open more from now on, if need be and as far as it is allowed to. Were all taken by clients, no site could be
    planned, and those that are would be lost with the next look at their files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # a system may allow less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    return max(1, min(connections, soft - min(SPARE_DESCRIPTORS, soft // 2)))


def parse_address(text: str) -> Address:
    """Return the address that ``text``, as in ``127.0.0.1:8080`` or ``[::1]:8080``, means. :raises UsageError: none."""
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    is_port = port.isdecimal() and len(port) <= 5 and int(port) <= 65535
    if not colon or not host or not is_port or (":" in host and not is_bracketed):
        raise UsageError(f"--listen {text}: HOST:PORT is wanted, as in 127.0.0.1:8080 or [::1]:8080")
    return Address(host[1:-1] if is_bracketed else host, int(port))


def open_socket(address: Address) -> socket.socket:
    """Return a socket that listens at ``address``; port 0 is any free one.

    :raises OutputError: it cannot be had: it is in use, for instance.
    """
    try:
        addresses = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = addresses[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OutputError(f"cannot listen at {format_address(address)}: {error.strerror}") from error
    except UnicodeError as error:
        raise UsageError(f"--listen {printable(format_address(address))}: is no name of a host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # for what waits in the kernel; connections take it from here
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_TIMEOUT * 1000)
        listener.bind(place)
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise OutputError(f"cannot listen at {format_address(address)}: {reason}") from error


def format_address(address: Address) -> str:
    """Return ``address`` as in a URL."""
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def find_client(address: str) -> str:
    """Return what counts as one client for who connects from ``address``: of IPv6 the 64 bits that a network gets."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
