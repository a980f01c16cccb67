"""The network as a script sees it: nothing but a proxy on its own loopback.

These functions run inside the network namespace of the script, or say what is true in there.
"""

from __future__ import annotations

import fcntl
import socket
import struct

PROXY_PORT = 3128
PROXY_URL = f"http://127.0.0.1:{PROXY_PORT}"

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914  # netdevice(7)
_IFF_UP = 1
_IFREQ = struct.Struct("16sh22x")


def start_loopback() -> None:
    """Set the loopback interface of this network namespace up. :raises OSError: that is not allowed here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        _, flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def open_listener() -> socket.socket:
    """Return a socket that listens where :data:`PROXY_URL` says, in the network namespace of the caller.

    Sent to a process outside, it stays in this namespace: who accepts connections there accepts those of the script.
    The loopback interface must be up.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", PROXY_PORT))
        listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    return listener


def proxy_environment(*, loopback_allowed: bool) -> tuple[tuple[str, str], ...]:
    """Return the variables that lead curl, wget, apt, dnf, pip, git and others to the proxy.

    ``loopback_allowed``: servers on the loopback interface outside may be reached, so that the proxy is asked for
    ``localhost`` too; else that means what the script itself has started. curl reads HTTP_PROXY in lower case alone.
    """
    proxies = tuple((name, PROXY_URL) for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"))
    return proxies if loopback_allowed else (*proxies, ("no_proxy", "localhost,127.0.0.1,::1"))


def apt_proxy_settings() -> str:
    """Return lines for the file that APT_CONFIG names (apt.conf(5)): apt's downloads go through the proxy."""
    return "".join(f'Acquire::{scheme}::Proxy "{PROXY_URL}/";\n' for scheme in ("http", "https"))
