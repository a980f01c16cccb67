"""Estimate the memory that a boot needs from sizes alone. Pure; docs/memory.md has the rule and its measurements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.records import Struct
from cosremaster.records.lazy_dataclass import dataclass
from cosremaster.units import format_size

PAGE = 4096
INODE = 1536
"""Bytes of kernel memory that a file takes besides its pages, rounded up: inode, directory entry, page tree."""

DEFAULT_TMPFS_SHARE = 0.5
"""Largest share of the machine's memory that a tmpfs without size= takes (tmpfs(5)). The tmpfs that the kernel unpacks
an initramfs into has no size=."""

MIB, GIB = 1 << 20, 1 << 30
KERNEL_MEMORY = 72 * MIB
"""Memory of a Debian kernel and its first processes besides the unpacked files; 62 MiB were measured."""
RESERVED_MEMORY = 48 * MIB
"""Memory that the kernel reserves before it counts the memory that a tmpfs gets half of; 45 MiB were measured."""
FIRMWARE_MEMORY = 44 * MIB
"""Memory that UEFI firmware holds while the kernel counts, and frees soon after; 41 MiB were measured."""
UNPACKER_MEMORY = 1 * MIB
"""Memory that busybox takes to unpack, besides the dictionary."""
PAGE_LIST_DIVISOR = 60
"""The kernel keeps one byte in 60 for its list of pages: 64 bytes for each 4 KiB, and some more."""

LARGEST_LOADED = int(1.3 * GIB)
"""Bytes of the largest initramfs that GRUB 2.06 was seen to load on both BIOS and UEFI."""
LARGEST_LOADED_BY_BIOS = int(1.7 * GIB)
"""Bytes of the largest initramfs that GRUB 2.06 was seen to load on BIOS; on UEFI it failed."""
SMALLEST_REFUSED = int(2.05 * GIB)
"""Bytes of the smallest initramfs that GRUB 2.06 was seen to load on neither."""


class Footprint(Struct, frozen=True):
    """Memory of files in a tmpfs: ``data``, bytes in whole pages, and the number of ``inodes``."""

    data: int
    inodes: int

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self.data + self.inodes * INODE

    def __add__(self, other: Footprint) -> Footprint:
        """Return the footprint of both together."""
        return Footprint(self.data + other.data, self.inodes + other.inodes)

    def __sub__(self, other: Footprint) -> Footprint:
        """Return the footprint without ``other``, which is a part of it."""
        return Footprint(self.data - other.data, self.inodes - other.inodes)


def measure_footprint(sizes: Iterable[int]) -> Footprint:
    """Return the footprint of inodes with ``sizes`` in bytes; the size of a directory, device or short symlink is 0."""
    data = inodes = 0
    for size in sizes:
        data += -(-size // PAGE) * PAGE
        inodes += 1
    return Footprint(data, inodes)


class NestedRootfs(Struct, frozen=True):
    """A root filesystem inside an initramfs, unpacked into a tmpfs of its own.

    :param tmpfs_share: largest share of the machine's memory that the tmpfs may take, between 0 and 1.
    :param dictionary_size: bytes of the decoder's dictionary.
    """

    files: Footprint
    tmpfs_share: float
    dictionary_size: int = 0


class InitramfsSizes(Struct, frozen=True, kw_only=True):
    """Sizes of an initramfs.

    :param packed: bytes of the file that the boot loader loads.
    :param files: what the kernel unpacks from it (the packed ``nested`` included); None where that is unknown.
    """

    packed: int
    files: Footprint | None = None
    nested: NestedRootfs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """An estimate of the memory that a boot needs; all sizes are in bytes.

    :param need: memory that suffices to boot; None where the archives were not read.
    :param why: the moment of the boot that takes most.
    """

    packed: int
    unpacked: int | None
    nested: int | None
    need: int | None
    why: str
    warnings: tuple[str, ...]


def estimate_memory(initramfs: InitramfsSizes) -> MemoryEstimate:
    """Return the memory that a machine needs to boot ``initramfs``.

    >>> estimate_memory(InitramfsSizes(packed=4 << 20, files=Footprint(8 << 20, 100))).need >> 20
    114
    """
    need, why = None, ""
    if initramfs.files is not None:
        taken, why = max(_boot_moments(initramfs, initramfs.files))
        need = round_need(taken)
    return MemoryEstimate(
        packed=initramfs.packed,
        unpacked=None if initramfs.files is None else initramfs.files.size,
        nested=None if initramfs.nested is None else initramfs.nested.files.size,
        need=need,
        why=why,
        warnings=tuple(_loader_warnings(initramfs.packed)),
    )


def round_need(taken: int) -> int:
    """Return the memory of a machine, in whole MiB, of which ``taken`` bytes are left beside the list of pages."""
    return -(-taken * PAGE_LIST_DIVISOR // ((PAGE_LIST_DIVISOR - 1) * MIB)) * MIB


def _boot_moments(initramfs: InitramfsSizes, files: Footprint) -> Iterator[tuple[int, str]]:
    """Yield the bytes of memory that each moment of a boot needs, and a description of the moment."""
    yield initramfs.packed + files.size + KERNEL_MEMORY, "for the initramfs and what it unpacks to"
    # The loaded file does not count as the kernel's memory until it is unpacked and freed.
    room = initramfs.packed + int(files.data / DEFAULT_TMPFS_SHARE) + RESERVED_MEMORY + FIRMWARE_MEMORY
    yield room, "of which half, the loaded file apart, has to hold the unpacked initramfs"
    if initramfs.nested is not None:
        rootfs, share = initramfs.nested.files, initramfs.nested.tmpfs_share
        both = files.size + rootfs.size + initramfs.nested.dictionary_size + UNPACKER_MEMORY + KERNEL_MEMORY
        yield both, "for the root filesystem beside its packed form"
        room = int(rootfs.data / share) + RESERVED_MEMORY
        yield room, f"of which {share:.0%}, its tmpfs, has to hold the root filesystem"


def _loader_warnings(packed: int) -> Iterator[str]:
    """Yield a warning if GRUB was not seen to load a file of ``packed`` bytes everywhere."""
    if packed <= LARGEST_LOADED:
        return
    fate = (
        "no such file booted" if packed >= SMALLEST_REFUSED
        else "on UEFI no such file booted" if packed >= LARGEST_LOADED_BY_BIOS
        else "on UEFI that may fail"
    )  # fmt: skip
    yield (
        f"is {format_size(packed)}: GRUB loads it whole below 2 GiB of memory;"
        f" up to {format_size(LARGEST_LOADED)} booted, and {fate};"
        " put large files on the ISO's own file tree (--add-iso)"
    )
