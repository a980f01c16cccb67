"""Which servers a script may reach through the proxy: none of this machine, unless the user names it.

A name is resolved here and the connection goes to the very addresses that were checked, so that a name whose address
changes between two look-ups gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import urllib.request
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from itertools import starmap
from urllib.parse import unquote, urlsplit

from cosremaster.errors import UnsupportedError, UsageError
from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.http_messages import HttpError, Target

CONNECT_PORTS = (80, 443)
_MIN_USER_PORT = 1024
_CONNECT_TIME = 20.0
"""Seconds for each address of a server."""

_REFUSED_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/128", "::1/128", "fe80::/10", "ff00::/8"),
        # Where clouds tell a machine its secrets, beside the link-local 169.254.169.254: AWS, Alibaba, Azure, Oracle.
        *("fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAME = re.compile(r"(?:.*\.)?localhost\.?")
_ALLOWED = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+):([0-9]{1,5})")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_allowed(text: str) -> Target:
    """Return the server that ``text``, as in ``localhost:3142``, names. :raises UsageError: it names none."""
    match = _ALLOWED.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise UsageError(f"{text} names no server: write HOST:PORT, as in localhost:3142 or [::1]:80")
    return Target(match[1].strip("[]").lower(), int(match[2]))


class UpstreamProxy(NamedTuple):
    """The proxy that this machine itself must use, out of ``http_proxy`` or ``https_proxy``.

    ``authorization``: the value of the field Proxy-Authorization; empty for none.
    """

    target: Target
    authorization: bytes


class Reach:
    """The servers that may be reached, and the way to them."""

    def __init__(self, allowed: Sequence[tuple[str, int]] = ()) -> None:
        """Resolve the hosts in ``allowed``, which may be on this machine, and read the proxies of this machine.

        :raises UsageError: one of ``allowed`` has no address.
        :raises UnsupportedError: a proxy of this machine is no HTTP proxy.
        """
        self._allowed = {
            (address, target.port) for target in starmap(Target, allowed) for address in _resolve_allowed(target)
        }
        self._upstream = {scheme: _read_upstream(scheme) for scheme in ("http", "https")}

    @property
    def includes_loopback(self) -> bool:
        """Whether a server on the loopback interface of this machine may be reached."""
        return any(ipaddress.ip_address(address).is_loopback for address, _ in self._allowed)

    def _permits(self, address: str, port: int) -> bool:
        """Return whether a connection may go to ``port`` of ``address``."""
        return (address, port) in self._allowed or not is_of_this_machine(address)

    def find_upstream(self, target: Target, scheme: str) -> UpstreamProxy | None:
        """Return the proxy that this machine must use for ``target``; None: it connects by itself.

        Servers that the user named are never behind it.
        """
        upstream = self._upstream[scheme]
        if upstream is None or urllib.request.proxy_bypass_environment(target.host):  # type: ignore[attr-defined]
            return None
        return None if self._is_allowed(target) else upstream

    def _is_allowed(self, target: Target) -> bool:
        """Return whether the user named ``target``."""
        if not any(port == target.port for _, port in self._allowed):
            return False
        with suppress(HttpError):
            return any((address, target.port) in self._allowed for address in resolve(target))
        return False

    def check_port(self, target: Target, *, is_tunnel: bool) -> None:
        """Check that ``target`` has a port of web servers: the kind of server is all that a port tells.

        :raises HttpError: it has another, which the user did not name.
        """
        usual = target.port in CONNECT_PORTS or (not is_tunnel and target.port >= _MIN_USER_PORT)
        if not usual and not self._is_allowed(target):
            what = "a tunnel may lead to port 80 or 443" if is_tunnel else "port 80 or one above 1023 may be asked"
            raise HttpError(403, f"{target} is not reached: {what} (--network-allow {target} permits it)")

    def check_name(self, target: Target) -> None:
        """Check ``target``, which the proxy of this machine will resolve, as far as this machine knows its name.

        :raises HttpError: it is this machine.
        """
        if _LOCAL_NAME.fullmatch(target.host):
            raise _refusal(target)
        try:
            addresses = resolve(target)
        except HttpError:  # behind a proxy, machines often cannot resolve names of the Internet
            return
        if any(not self._permits(address, target.port) for address in addresses):
            raise _refusal(target)

    def connect(self, target: Target) -> socket.socket:
        """Return a connection to ``target``.

        :raises HttpError: it is this machine, has no address, or cannot be reached.
        """
        addresses = [address for address in resolve(target) if self._permits(address, target.port)]
        if not addresses:
            raise _refusal(target)
        return _connect_first(addresses, target)

    def connect_upstream(self, upstream: UpstreamProxy) -> socket.socket:
        """Return a connection to the proxy of this machine, wherever that is.

        :raises HttpError: it cannot be reached.
        """
        return _connect_first(resolve(upstream.target), upstream.target)


def _refusal(target: Target) -> HttpError:
    """Return the answer to a request for a server of this machine."""
    sentence = f"{target} is not reached: it belongs to the machine outside (--network-allow {target} permits it)"
    return HttpError(403, sentence)


def _connect_first(addresses: Sequence[str], target: Target) -> socket.socket:
    """Return a connection to the first of ``addresses`` that accepts it. :raises HttpError: none does."""
    reason: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, target.port), _CONNECT_TIME)
        except OSError as error:
            reason = error
    text = "no answer in time" if isinstance(reason, TimeoutError) else getattr(reason, "strerror", None) or reason
    raise HttpError(504 if isinstance(reason, TimeoutError) else 502, f"{target} cannot be reached: {text}")


def resolve(target: Target) -> list[str]:
    """Return the addresses of ``target``, the preferred first. :raises HttpError: it has none."""
    try:
        answers = socket.getaddrinfo(target.host.encode("ascii"), target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or "it is no name"
        raise HttpError(502, f"{target.host} cannot be resolved: {text}") from error
    return list(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers))


def _resolve_allowed(target: Target) -> list[str]:
    """Return the addresses of a server that the user named. :raises UsageError: it has none."""
    try:
        return resolve(target)
    except HttpError as error:
        raise UsageError(f"--network-allow {target}: {error.sentence}") from error


def is_of_this_machine(address: str) -> bool:
    """Return whether ``address`` is this machine, its link, or no single machine at all.

    Addresses that hold an IPv4 address (RFC 4291, 2.5.5; RFC 6052) count as that.
    """
    parsed = _embedded_address(ipaddress.ip_address(address))
    if any(parsed in network for network in _REFUSED_NETWORKS):
        return True
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(parsed), 9))  # sends nothing; the kernel only looks for the route
            return str(probe.getsockname()[0]) == str(parsed)  # packets to oneself leave from where they arrive
    except OSError:
        return False  # no route: the connection will fail as well


def _embedded_address(address: _Address) -> _Address:
    """Return the IPv4 address inside ``address``, or itself where it holds none."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64 or 0xFFFF < int(address) < 1 << 32:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _read_upstream(scheme: str) -> UpstreamProxy | None:
    """Return the proxy that the environment of this process names for ``scheme``.

    :raises UnsupportedError: it is no HTTP proxy.
    """
    proxies = urllib.request.getproxies_environment()
    value = proxies.get(scheme) or proxies.get("all")
    if not value:
        return None
    parts = urlsplit(value if "://" in value else f"http://{value}")
    try:
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        host, port = "", 0
    if parts.scheme != "http" or not host or not port:
        raise UnsupportedError(
            f"the proxy that {scheme}_proxy names is no http:// proxy, so that --network cannot go through it"
        )
    if parts.username is None:
        return UpstreamProxy(Target(host, port), b"")
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return UpstreamProxy(Target(host, port), b"Basic " + b64encode(secret))
