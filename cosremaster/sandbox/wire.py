"""Frames between the caller and the process that owns the file system: plain values, and runs of bytes.

Both ends are the same program, so values go as ``marshal`` writes them; no end reads a frame that a script wrote.
Nothing here but the standard library's quick modules: the process at the other end starts for each script.
"""

from __future__ import annotations

import enum
import io
import marshal
import os
import struct
from typing import Any, TypeAlias

Record: TypeAlias = tuple[bytes, int, int, int, int, Any, tuple[tuple[bytes, bytes], ...], int]
"""A node: path, file type with permission bits, user, group, mtime in seconds, details, extended attributes, number
of its hard link (0: none). The details are a symlink's text, a device's two numbers, and of a file its bytes, or
their count when :attr:`FrameKind.DATA` and :attr:`FrameKind.HOLE` follow, or None for a further name of a hard link."""

INLINE = 1 << 16
"""Bytes of the largest file that goes inside its record."""

BATCH = 1 << 18
"""Bytes of contents, or so, that records of one frame have together."""

MAX_BATCH = 512
"""Records of one frame."""

CHUNK = 1 << 20
_HEADER = struct.Struct("<BI")


class FrameKind(enum.IntEnum):
    """What a frame holds."""

    SETUP = 1
    UNSHARED = 2
    MAPPED = 3
    NODES = 4
    DATA = 5
    HOLE = 6
    END = 7
    STARTED = 8
    ENDED = 9
    REMOVED = 10
    FAILURE = 11
    READY = 12
    FILES = 13


class WireError(Exception):
    """The other end is gone, or sent something else than was due."""


class FailureError(WireError):
    """The other end could not go on: the step that failed, the errno, and what it was about."""


class FrameWire:
    """Frames over descriptors: ``read_fd`` to read from, ``write_fd`` to write to."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        """Begin without frames; the descriptors stay the caller's."""
        self._reader = io.BufferedReader(io.FileIO(read_fd, "rb", closefd=False), CHUNK)
        self._write_fd = write_fd

    def send(self, kind: FrameKind, value: Any = None) -> None:
        """Send ``value``, of the types that ``marshal`` takes."""
        self._write(kind, marshal.dumps(value))

    def send_data(self, data: bytes | memoryview) -> None:
        """Send a run of bytes."""
        self._write(FrameKind.DATA, data)

    def _write(self, kind: FrameKind, payload: bytes | memoryview) -> None:
        """Write a frame. :raises WireError: nobody reads any more."""
        views = [memoryview(_HEADER.pack(kind, len(payload))), memoryview(payload)]
        try:
            while views:
                count = os.writev(self._write_fd, views)
                while views and count >= len(views[0]):
                    count -= len(views.pop(0))
                if views:
                    views[0] = views[0][count:]
        except OSError as error:
            raise WireError(error.strerror) from error

    def receive(self, *kinds: FrameKind) -> tuple[FrameKind, Any]:
        """Return the next frame. :raises WireError: it is of none of ``kinds``, or the other end is gone."""
        kind, length = _HEADER.unpack(self._read(_HEADER.size))
        payload = self._read(length)
        if kinds and kind not in kinds:
            raise WireError(f"frame {kind} was not due")
        return FrameKind(kind), payload if kind == FrameKind.DATA else marshal.loads(payload)  # noqa: S302 - see above

    def _read(self, length: int) -> bytes:
        """Return the next ``length`` bytes. :raises WireError: there are fewer."""
        try:
            data = self._reader.read(length)
        except OSError as error:
            raise WireError(error.strerror) from error
        if len(data) < length:
            raise WireError("the connection ended")
        return data


def receive_work(wire: FrameWire, *kinds: FrameKind) -> tuple[FrameKind, Any]:
    """Return the next frame of ``wire``. :raises FailureError: it is a failure. Raises as :meth:`FrameWire.receive`."""
    kind, value = wire.receive(*kinds, FrameKind.FAILURE)
    if kind is FrameKind.FAILURE:
        raise FailureError(*value)
    return kind, value


class RecordBatch:
    """Records that wait to be sent together over ``wire``."""

    def __init__(self, wire: FrameWire, kind: FrameKind = FrameKind.NODES) -> None:
        """Begin without records; they go as frames of ``kind``."""
        self._wire, self._kind = wire, kind
        self._records: list[Record] = []
        self._bytes = 0

    def add(self, record: Record) -> None:
        """Add ``record``, and send all that wait when there are enough."""
        self._records.append(record)
        details = record[5]
        self._bytes += len(details) if isinstance(details, bytes) else 0
        if self._bytes >= BATCH or len(self._records) >= MAX_BATCH:
            self.flush()

    def flush(self) -> None:
        """Send the records that wait."""
        if self._records:
            self._wire.send(self._kind, self._records)
            self._records, self._bytes = [], 0
