"""The memory a boot needs, from sizes alone. Pure; docs/memory.md has the rule and what it was measured with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from cosremaster.units import format_size

PAGE = 4096
INODE = 1536
"""Bytes of the kernel's memory that a file takes beside its pages, rounded up: inode, directory entry, page tree."""

DEFAULT_TMPFS_SHARE = 0.5
"""Of the machine's memory a tmpfs takes at most that has no size= (tmpfs(5)). That into which the kernel unpacks an
initramfs has none."""

MIB, GIB = 1 << 20, 1 << 30
KERNEL_MEMORY = 72 * MIB
"""What a kernel of Debian and its first processes take beside what is unpacked; 62 MiB were measured."""
RESERVED_MEMORY = 48 * MIB
"""What the kernel takes away before it counts what it has half of; 45 MiB were measured."""
FIRMWARE_MEMORY = 44 * MIB
"""What UEFI firmware holds when the kernel counts first, and gives back soon after; 41 MiB were measured."""
UNPACKER_MEMORY = 1 * MIB
"""What busybox takes to unpack, beside the dictionary."""
PAGE_LIST_DIVISOR = 60
"""One byte of so many keeps the kernel for its list of pages: 64 bytes for each of 4 KiB, and some more."""

LARGEST_LOADED = int(1.3 * GIB)
LARGEST_LOADED_BY_BIOS = int(1.7 * GIB)
SMALLEST_REFUSED = int(2.05 * GIB)
"""Sizes of an initramfs that GRUB 2.06 has loaded and not loaded: the first on BIOS and UEFI, the second on BIOS only,
the third on neither."""


class Footprint(Struct, frozen=True):
    """What files take in a tmpfs: ``data``, bytes in whole pages, and how many there are."""

    data: int
    inodes: int

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self.data + self.inodes * INODE

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.data + other.data, self.inodes + other.inodes)


def measure_footprint(sizes: Iterable[int]) -> Footprint:
    """The footprint of things that hold so many bytes each; 0 for directories, devices and short symlinks."""
    data = inodes = 0
    for size in sizes:
        data += -(-size // PAGE) * PAGE
        inodes += 1
    return Footprint(data, inodes)


class NestedRootfs(Struct, frozen=True):
    """A root filesystem inside an initramfs, unpacked into a tmpfs of its own. ``share``: how much of the machine's
    memory that may take, between 0 and 1; ``dictionary``: bytes that its unpacker remembers."""

    files: Footprint
    tmpfs_share: float
    dictionary_size: int = 0


class InitramfsSizes(Struct, frozen=True, kw_only=True):
    """What is loaded: the file's bytes, and what the kernel unpacks from it, where that is known (the packed
    ``nested`` among it)."""

    packed: int
    files: Footprint | None = None
    nested: NestedRootfs | None = None


class MemoryEstimate(Struct, frozen=True, kw_only=True):
    """``need``: bytes of memory that suffice to boot, None where the archives were not read; ``why``: the moment that
    takes most. The others are bytes of its parts."""

    packed: int
    unpacked: int | None
    nested: int | None
    need: int | None
    why: str
    warnings: tuple[str, ...]


def estimate_memory(one: InitramfsSizes) -> MemoryEstimate:
    """What ``one`` needs."""
    need, why = None, ""
    if one.files is not None:
        taken, why = max(_moments(one, one.files))
        need = -(-taken * PAGE_LIST_DIVISOR // ((PAGE_LIST_DIVISOR - 1) * MIB)) * MIB
    return MemoryEstimate(
        packed=one.packed,
        unpacked=None if one.files is None else one.files.size,
        nested=None if one.nested is None else one.nested.files.size,
        need=need,
        why=why,
        warnings=tuple(_warnings(one.packed)),
    )


def _moments(one: InitramfsSizes, files: Footprint) -> Iterator[tuple[int, str]]:
    """Bytes of memory that each moment of a boot asks for, and when that is."""
    yield one.packed + files.size + KERNEL_MEMORY, "for the initramfs and what it unpacks to"
    # The loaded file does not count as the kernel's memory until it is unpacked and given back.
    room = one.packed + int(files.data / DEFAULT_TMPFS_SHARE) + RESERVED_MEMORY + FIRMWARE_MEMORY
    yield room, "of which half, the loaded file apart, has to hold the unpacked initramfs"
    if one.nested is not None:
        tree = one.nested.files
        both = files.size + tree.size + one.nested.dictionary_size + UNPACKER_MEMORY + KERNEL_MEMORY
        yield both, "for the root filesystem beside its packed form"
        share = one.nested.tmpfs_share
        yield (
            int(tree.data / share) + RESERVED_MEMORY,
            f"of which {share:.0%}, its tmpfs, has to hold the root filesystem",
        )


def _warnings(packed: int) -> Iterator[str]:
    """What GRUB has not been seen to load."""
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
