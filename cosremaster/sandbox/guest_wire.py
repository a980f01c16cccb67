"""Frames to and from a virtual machine.

What goes in stands in files of the initramfs, which the guest removes as it reads: virtio-serial is slow in this
direction (a page for each interrupt). What comes out comes over a virtio-serial port. In there a script is real root
and could write to that port itself, so these values go as typed JSON, and every node is checked.
"""

from __future__ import annotations

import binascii  # noqa: F401 - what JSON loads when it is written: the guest has only what is loaded with its modules
import io
import json  # noqa: F401 - as above
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from cosremaster.errors import printable
from cosremaster.records.json import MismatchError, decode_json, encode_json
from cosremaster.sandbox.wire import CHUNK, FrameKind, FrameWire, WireError

STREAM = b"stream"
"""The directory of the files that the guest reads one after another."""

_PART = 8 << 20
_MAX_PAYLOAD = 64 << 20
_MAX_NUMBER = 0xFFFFFFFF
_MAX_FILE = 1 << 50

SentDetails: TypeAlias = bytes | int | tuple[int, int] | None
SentRecord: TypeAlias = tuple[bytes, int, int, int, int, SentDetails, tuple[tuple[bytes, bytes], ...], int]
"""A record as a guest sends it."""

_DETAILS: dict[int, tuple[type, ...]] = {
    stat.S_IFREG: (bytes, int, type(None)), stat.S_IFLNK: (bytes,), stat.S_IFCHR: (tuple,), stat.S_IFBLK: (tuple,),
    stat.S_IFDIR: (bytes,), stat.S_IFIFO: (bytes,),
}  # fmt: skip
_TYPES: dict[FrameKind, Any] = {
    FrameKind.NODES: list[
        tuple[bytes, int, int, int, int, bytes | int | tuple[int, int] | None, tuple[tuple[bytes, bytes], ...], int]
    ],
    FrameKind.HOLE: int,
    FrameKind.REMOVED: list[bytes],
    FrameKind.END: list[tuple[str, bytes]] | None,
    FrameKind.ENDED: tuple[int, str, list[bytes]],
    FrameKind.FAILURE: tuple[str, int, str],
    FrameKind.READY: None,
    FrameKind.STARTED: None,
}
"""What the frames of a guest hold."""


class StreamWriter(FrameWire):
    """The caller's way into a guest: frames become files, which ``add_part`` takes."""

    def __init__(self, add_part: Callable[[int, bytes], None]) -> None:
        """Begin without frames; ``add_part`` is called with the number and the bytes of each file."""
        self._add_part, self._waiting, self._count = add_part, bytearray(), 0
        self.size = 0

    def _write(self, kind: FrameKind, payload: bytes | memoryview) -> None:
        """Add a frame."""
        self._waiting += bytes((kind,)) + len(payload).to_bytes(4, "little")
        self._waiting += payload
        self.size += 5 + len(payload)
        while len(self._waiting) >= _PART:
            self._send_part()

    def finish(self) -> None:
        """Send what has filled no file yet."""
        if self._waiting:
            self._send_part()

    def _send_part(self) -> None:
        """Send the next file."""
        self._add_part(self._count, bytes(self._waiting[:_PART]))
        del self._waiting[:_PART]
        self._count += 1


class _PartReader(io.RawIOBase):
    """The files in ``directory`` as a stream; each is removed when it is opened, so that its memory gets free."""

    def __init__(self, directory: bytes) -> None:
        """Begin with the first file."""
        self._paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory), reverse=True)]
        self._fd = -1

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into ``buffer``; return the number of bytes, 0 at the end."""
        while True:
            if self._fd >= 0:
                count = os.readv(self._fd, [buffer])
                if count:
                    return count
                os.close(self._fd)
                self._fd = -1
            if not self._paths:
                return 0
            path = self._paths.pop()
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.unlink(path)


class InnerWire(FrameWire):
    """The guest's end: it reads the files in ``directory`` and writes to ``port_fd``."""

    def __init__(self, directory: bytes, port_fd: int) -> None:
        """Begin with the first frame."""
        self._reader = io.BufferedReader(_PartReader(directory), CHUNK)  # type: ignore[arg-type]  # it is a raw stream, too
        self._write_fd = port_fd

    def send(self, kind: FrameKind, value: object = None) -> None:
        """Send ``value`` in a form that is safe to read."""
        self._write(kind, encode_json(value))


class OuterWire(FrameWire):
    """The caller's end of the port ``read_fd``, whose other end nobody should trust."""

    def __init__(self, read_fd: int) -> None:
        """Begin without frames."""
        super().__init__(read_fd, -1)
        self.fault = ""
        """What was wrong with the last frame; empty where nothing was."""

        self._last_path: bytes | None = None
        self._links: set[int] = set()

    def receive(self, *kinds: FrameKind) -> tuple[FrameKind, Any]:
        """Return the next frame. :raises WireError: it is none of ``kinds``, or no frame of a guest."""
        head = self._read(5)
        length = int.from_bytes(head[1:], "little")
        if length > _MAX_PAYLOAD or head[0] not in kinds:
            raise self._fail(f"frame {head[0]} was not due")
        kind, payload = FrameKind(head[0]), self._read(length)
        if kind is FrameKind.DATA:
            return kind, payload
        try:
            value = decode_json(payload, _TYPES[kind])
        except (MismatchError, KeyError, RecursionError):
            raise self._fail(f"frame {kind} holds something else") from None
        if kind is FrameKind.NODES:
            self._check_nodes(value)
        if kind is FrameKind.REMOVED and not all(map(_is_path, value)):
            raise self._fail("a removed path is none")
        return kind, value

    def _read(self, length: int) -> bytes:
        """Return the next ``length`` bytes. :raises WireError: there are fewer, or they do not come."""
        data = bytearray()
        while len(data) < length:
            part = self._reader.read1(length - len(data))
            if not part:  # the end, or None after a time-out of the socket
                raise WireError("the connection ended")
            data += part
        return bytes(data)

    def _fail(self, fault: str) -> WireError:
        """Return the error for ``fault``, which is kept."""
        self.fault = fault
        return WireError(fault)

    def _check_nodes(self, records: Iterable[SentRecord]) -> None:
        """Check that nodes are possible ones, in the order of their paths. :raises WireError: they are not."""
        for path, bits, uid, gid, _, details, xattrs, link in records:
            kind = stat.S_IFMT(bits) if 0 <= bits < 1 << 16 else 0
            numbers = (uid, gid, *(details if type(details) is tuple else ()))
            is_possible = (
                (_is_path(path) or (not path and kind == stat.S_IFDIR))
                and (self._last_path is None or path > self._last_path)
                and isinstance(details, _DETAILS.get(kind, ()))
                and all(0 <= number <= _MAX_NUMBER for number in numbers)
                and not (type(details) is int and not 0 < details < _MAX_FILE)
                and not (details is None and link not in self._links)
                and all(name and b"\0" not in name for name, _ in xattrs)
            )
            if not is_possible:
                raise self._fail(f"no file system holds such a node: {printable(path)}")
            self._last_path = path
            if kind == stat.S_IFREG and link:
                self._links.add(link)


def _is_path(path: bytes) -> bool:
    """Return whether ``path`` is one below a root, in normal form."""
    return b"\0" not in path and all(part not in (b"", b".", b"..") for part in path.split(b"/"))
