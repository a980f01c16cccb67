"""Parts that codecs pack by themselves, taken from what an earlier plan packed in place of being packed again.

A part is a block of an .xz stream, a frame, a deflate block behind its window, a block of a squashfs, or a stream that
cannot be cut. It is looked for by what packs it, and by size and CRC32 of its plain bytes. What comes is not believed:
it is unpacked, and counts only if that gives exactly the plain bytes that are to be packed. So a foreign or damaged
part can cost time, and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Protocol

from cosremaster.crc import crc32
from cosremaster.errors import CosremasterError
from cosremaster.records.tuples import NamedTuple

LEAST = 1 << 14
"""The least plain bytes of a part that is worth remembering."""


class PartKey(NamedTuple):
    """What a part is found by: ``method``, all that decides its bytes beside the plain ones, whose ``size`` it is.

    ``crc``: the CRC32 of the plain bytes, and ``before`` that of the bytes before them to which the part may refer.
    """

    method: str
    size: int
    crc: int
    before: int = 0


class StoredPart(Protocol):
    """A part that an earlier plan packed."""

    @property
    def length(self) -> int:
        """Its bytes."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes. :raises CorruptError: they are damaged, or cannot be read; known at the end."""
        ...


class PartMemory(Protocol):
    """Parts that earlier plans packed, for one kind of work; any thread may use it."""

    def find(self, method: str, size: int, crc: int | None = None, before: int = 0) -> Iterator[StoredPart]:
        """Yield the parts with these values, as in :class:`PartKey`; without ``crc`` those with any."""
        ...

    def store(self, key: PartKey, chunks: Iterable[bytes]) -> None:
        """Keep a part for the run that follows; what cannot be done harms nothing."""
        ...

    @property
    def stores(self) -> bool:
        """Whether :meth:`store` keeps anything."""
        ...

    def count_taken(self, size: int) -> None:
        """Count ``size`` plain bytes that were not packed again."""
        ...

    def measure(self, chunks: Iterable[bytes], *, is_alone: bool = False) -> None:
        """Measure how quickly the plain ``chunks`` of a part that was stored come, unless that is known.

        ``is_alone``: no other part is unpacked beside it.
        """
        ...


class PackedPart(NamedTuple):
    """A part's packed bytes, and whether they were taken from what an earlier plan packed."""

    data: bytes
    is_taken: bool


def pack_part(
    memory: PartMemory | None, method: str, plain: bytes | memoryview, pack: Callable[[], bytes],
    unpack: Callable[[bytes], Iterable[bytes]], before: bytes = b"",
) -> PackedPart:  # fmt: skip
    """Return what ``pack`` makes of ``plain`` by the ``method``; from ``memory`` where that has it.

    ``unpack`` yields the plain bytes of a part. ``before``: what the part may refer to. ``method``: empty where packing
    is so quick that this is not worth the while. Raises what ``pack`` raises.
    """
    size = len(plain)
    if memory is None or not method or size < LEAST:
        return PackedPart(pack(), False)
    key = PartKey(method, size, crc32(plain), crc32(before))
    for stored in memory.find(*key):
        if stored.length > 2 * size:
            continue
        with suppress(CosremasterError, ValueError, MemoryError):
            data = b"".join(stored.chunks())
            if _is_unpacked(unpack(data), plain):
                memory.count_taken(size)
                return PackedPart(data, True)
    packed = pack()
    if memory.stores:
        memory.store(key, [packed])
        memory.measure(unpack(packed))
    return PackedPart(packed, False)


def _is_unpacked(chunks: Iterable[bytes], plain: bytes | memoryview) -> bool:
    """Return whether ``chunks`` are together ``plain``. Raises what they raise."""
    view, at = memoryview(plain), 0
    for chunk in chunks:
        if view[at : at + len(chunk)] != chunk:
            return False
        at += len(chunk)
    return at == len(view)


_MODULES = {
    "lzma": ("_lzma", "backports.lzma._lzma"), "z": ("zlib",),
    "zstd": ("_zstd", "backports.zstd._zstd"),
}  # fmt: skip
"""The modules that bind each library."""


@cache
def describe_library(name: str) -> str:
    """Return what tells this machine's build of the library ``name`` from others, which may pack other bytes.

    Few libraries tell Python their version, and none of what they were built; so their files stand for it, and those of
    the modules that bind them. Call it when the module is loaded.
    """
    modules = [module for module in map(sys.modules.get, _MODULES[name]) if module is not None]
    bindings = {getattr(module, "__file__", None) for module in modules}
    paths = {binding or sys.executable for binding in bindings}
    paths.update(path for path in _find_mapped(f"/lib{name}".encode()) if _is_bound(path, bindings))
    states = []
    for path in sorted(paths):
        with suppress(OSError):
            status = os.stat(path)
            states.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return "; ".join((sys.version, sys.platform, os.uname().machine, *states))


def _is_bound(path: str, bindings: Iterable[str | None]) -> bool:
    """Return whether the shared library at ``path`` may be that of one of ``bindings``, None for a built-in module.

    OpenSSL may bring a libzstd into the process that a module does not use which brought its own. Whether it is loaded
    already depends on what else the process does.
    """
    name = os.fsencode(os.path.basename(path).partition(".so")[0]) + b".so"
    for binding in bindings:
        if binding is None:
            return True
        with suppress(OSError), open(binding, "rb") as file:
            if name in file.read():
                return True
    return False


def _find_mapped(prefix: bytes) -> Iterator[str]:
    """Yield the paths of shared libraries in this process whose name begins with ``prefix``, as far as Linux tells."""
    with suppress(OSError), open("/proc/self/maps", "rb") as maps:
        for line in maps:
            _, _, path = line.rstrip(b"\n").partition(b"/")
            name = path[path.rfind(b"/") :]
            if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in (b".", b"-"):
                yield os.fsdecode(b"/" + path)
