"""Bytes through a virtio-serial port, which has no end of its own: runs behind their length, an empty one for the end.

Both sides use it: the guest and the process that runs the machine.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

BLOCK = 1 << 16
_HEAD = 4


class PortClosedError(Exception):
    """The machine is gone."""


def write_run(port: int, data: bytes) -> None:
    """Write ``data`` to ``port`` as a run; empty: as the end."""
    view = memoryview(len(data).to_bytes(_HEAD, "little") + data)
    while view:
        view = view[os.write(port, view) :]


def read_run(port: int) -> bytes:
    """Return the next run of ``port``. :raises PortClosedError: none comes any more, or it is too long."""
    length = int.from_bytes(_read_exactly(port, _HEAD), "little")
    if length > BLOCK:
        raise PortClosedError
    return _read_exactly(port, length)


def _read_exactly(port: int, length: int) -> bytes:
    """Return the next ``length`` bytes of ``port``. :raises PortClosedError: there are fewer."""
    data = b""
    while len(data) < length:
        try:
            part = os.read(port, length - len(data))
        except OSError:
            part = b""
        if not part:
            raise PortClosedError
        data += part
    return data


def carry_connection(sock: socket.socket, port: int, first: bytes | None = None) -> None:
    """Carry the connection ``sock`` over ``port`` until both directions have ended.

    ``first``: a run that was read from the port already.
    """
    outward = threading.Thread(target=_send_runs, args=(sock, port), daemon=True)
    outward.start()
    data = read_run(port) if first is None else first
    while data:
        with suppress(OSError):  # the receiver is gone: what is on its way to it is dropped
            sock.sendall(data)
        data = read_run(port)
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    outward.join()


def _send_runs(sock: socket.socket, port: int) -> None:
    """Send what comes from ``sock`` over ``port``, and its end."""
    with suppress(OSError):
        data = b"-"
        while data:
            try:
                data = sock.recv(BLOCK)
            except OSError:
                data = b""
            write_run(port, data)
