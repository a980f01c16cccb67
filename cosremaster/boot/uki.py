"""Unified kernel images: kernel, initramfs and kernel arguments as sections of one EFI program (UAPI.5).

The program is a PE file; offsets are those of "PE Format" (Microsoft).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from cosremaster.records import Struct

Read = Callable[[int, int], bytes]
"""Returns bytes of the file, by offset and length; fewer at its end."""

_PE_OFFSET = 0x3C
_SECTION = struct.Struct("<8sIIII16x")  # name, virtual size, virtual address, size of raw data, pointer to raw data
_MAX_SECTIONS = 96
"""Sections of a PE file that Windows loads ("COFF File Header")."""
_MAX_TEXT = 1 << 16
KERNEL, INITRAMFS, ARGUMENTS, SYSTEM = ".linux", ".initrd", ".cmdline", ".osrel"


class UnifiedKernel(Struct, frozen=True):
    """A unified kernel image.

    ``sections``: byte offset and bytes of each section by its name; of several with one name the first. ``arguments``:
    its kernel arguments; ``system``: the name of the system that it boots. Both are empty where it does not say them.
    """

    sections: Mapping[str, tuple[int, int]]
    arguments: str
    system: str


def read_unified_kernel(read: Read) -> UnifiedKernel | None:
    """Read a unified kernel image; return None where the file is none: no PE file, or without a kernel inside."""
    head = read(0, 4096)
    if head[:2] != b"MZ" or len(head) < _PE_OFFSET + 4:
        return None
    start = int.from_bytes(head[_PE_OFFSET : _PE_OFFSET + 4], "little")
    header = read(start, 24)
    if header[:4] != b"PE\0\0" or len(header) < 24:
        return None
    count, optional = int.from_bytes(header[6:8], "little"), int.from_bytes(header[20:22], "little")
    table = read(start + 24 + optional, min(count, _MAX_SECTIONS) * _SECTION.size)
    sections: dict[str, tuple[int, int]] = {}
    for at in range(0, len(table) - _SECTION.size + 1, _SECTION.size):
        name, virtual_size, _, raw_size, offset = _SECTION.unpack_from(table, at)
        size = min(virtual_size, raw_size) if virtual_size else raw_size  # the raw size is rounded up
        sections.setdefault(name.rstrip(b"\0").decode("ascii", "replace"), (offset, size))
    if KERNEL not in sections or sections.keys().isdisjoint((INITRAMFS, ARGUMENTS, SYSTEM)):
        return None
    arguments = " ".join(_read_text(read, sections.get(ARGUMENTS, (0, 0))).split())
    return UnifiedKernel(sections, arguments, _find_system(_read_text(read, sections.get(SYSTEM, (0, 0)))))


def _read_text(read: Read, section: tuple[int, int]) -> str:
    """Return the text in a section, up to a NUL."""
    return read(section[0], min(section[1], _MAX_TEXT)).partition(b"\0")[0].decode("utf-8", "replace")


def _find_system(release: str) -> str:
    """Return the system's name from the text of an os-release file (os-release(5))."""
    values = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    return (values.get("PRETTY_NAME") or values.get("NAME") or "").strip("\"'")
