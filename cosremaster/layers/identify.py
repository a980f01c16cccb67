"""What a file is, by its first bytes: the codec to read it with, and the format of the archive in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cosremaster.codecs import PLAIN, SNIFF_SIZE, find_codec, unsupported_compression
from cosremaster.layers.formats import PLAIN_HEAD_SIZE, LayerFormat, identify_format
from cosremaster.records.tuples import NamedTuple
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR

if TYPE_CHECKING:
    from cosremaster.codecs.base import Codec
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.source import ByteSource

HEAD_SIZE = PLAIN_HEAD_SIZE
"""Bytes of a file that are looked at; of a compressed one twice as many, or what its codec needs."""

SQUASHFS = "a squashfs file system"
STREAMED_SQUASHFS = "a streamed squashfs file system"
"""Its superblock stands at the end (squashfs-tools 4.7); no kernel reads it."""
EROFS = "an EROFS file system"
EXT = "an ext4 file system"

_FOREIGN = (
    (0, b"sqsh", SQUASHFS),
    (0, b"HSQS", STREAMED_SQUASHFS),
    (1024, b"\xe2\xe1\xf5\xe0", EROFS),
    (0, b"\x45\x3d\xcd\x28", "a cramfs file system"),
    (0, b"-rom1fs-", "a romfs file system"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"conectix", "a VHD disk image"),
    (64, b"\x7f\x10\xda\xbe", "a VDI disk image"),
    (0, b"XFSB", "an XFS file system"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
)
"""Offset of a magic, the magic, and what it says (the kernel's include/uapi/linux/magic.h)."""

_UIMAGE = b"\x27\x05\x19\x56"
"""The magic of boot/uimage.py, which is loaded only for such a file."""


class Identification(NamedTuple):
    """What the first bytes of a file say.

    ``codec``: to read it with; ``format``: of the archive that begins in it, None for no archive; ``variant``: of that
    format; ``foreign``: for people, something recognized that this version cannot open. ``prefix``: bytes of U-Boot's
    header before the archive.
    """

    codec: Codec
    format: LayerFormat | None
    variant: str
    foreign: str | None
    prefix: int = 0

    @property
    def reads_on_demand(self) -> bool:
        """Whether an index of the file stands for none of its bytes: all are read when they are needed."""
        return self.codec.is_identity and not self.prefix and self.format is not None and self.format.reads_on_demand

    @property
    def codec_label(self) -> str:
        """The codec and the variant, as in ``gzip`` or ``gzip+odc``, and ``uimage`` behind U-Boot's header."""
        return codec_label(self.codec.name, self.variant, is_wrapped=bool(self.prefix))


def codec_label(codec: str, variant: str, *, is_wrapped: bool = False) -> str:
    """Return the name of ``codec`` with that of a format's ``variant``, if it is not the ordinary one.

    ``is_wrapped``: the file has U-Boot's header.
    """
    names = [*([] if codec == PLAIN.name else [codec]), *filter(None, [variant]), *(["uimage"] if is_wrapped else [])]
    return "+".join(names) or codec


def identify(peek: Callable[[int], bytes]) -> Identification:
    """Identify a file, of which ``peek(count)`` returns the first bytes (fewer where it is shorter).

    ``ByteReader.peek`` and ``Content.head`` are such functions; :func:`identify_table` makes one.
    """
    head = plain = peek(HEAD_SIZE)
    if head.startswith(_UIMAGE):
        return _identify_uimage(head, peek)
    codec = find_codec(head)
    if codec is not None:
        head = peek(max(2 * HEAD_SIZE, codec.peek_size))
        # Decoding stops at damage without a byte: then fewer bytes, before it, may still show the format.
        plain = next((plain for size in (PLAIN_HEAD_SIZE, 512, SNIFF_SIZE) if (plain := codec.peek(head, size))), b"")
    identified = identify_format(plain)
    if identified is not None:
        return Identification(codec or PLAIN, *identified, None)
    compression = unsupported_compression(head) if codec is None else None
    if compression is not None:
        return Identification(PLAIN, None, "", f"{compression} compressed data")
    return Identification(codec or PLAIN, None, "", _foreign_noun(plain))


def is_archive_file(source: ByteSource) -> bool:
    """Return True if ``source`` is an archive, by its first bytes, and no ISO 9660 volume."""
    if source.read(FIRST_DESCRIPTOR * BLOCK + 1, 5) == b"CD001":
        return False
    return identify(partial(source.read, 0)).format is not None


def _identify_uimage(head: bytes, peek: Callable[[int], bytes]) -> Identification:
    """Identify the file behind the U-Boot header that ``head`` begins with; ``peek`` as in :func:`identify`."""
    from cosremaster.boot.uimage import HEADER_SIZE, parse_uimage  # noqa: PLC0415 - rare

    if parse_uimage(head) is not None:
        inside = identify(lambda count: peek(HEADER_SIZE + count)[HEADER_SIZE:])
        if inside.format is not None and not inside.format.random_access and not inside.prefix:
            return inside._replace(prefix=HEADER_SIZE)
    return Identification(PLAIN, None, "", "a U-Boot image (uImage) without an initramfs that can be opened")


def _foreign_noun(plain: bytes) -> str | None:
    """Return what begins with ``plain``, for people, if it is a file system that is no layer; else None."""
    for offset, magic, noun in _FOREIGN:
        if plain.startswith(magic, offset):
            return noun
    return None


_PARTITION_MAGICS = (
    (65_600, b"_BHRfS_M", "a btrfs file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (512, b"LABELONE", "a physical volume of LVM"),
    (4086, b"SWAPSPACE2", "swap space"),
)
"""As ``_FOREIGN``, of what only partitions hold; a file of an image is not read so far."""


def identify_partition(table: PieceTable) -> Identification:
    """Identify the partition whose bytes are ``table``."""
    identification = identify_table(table)
    if identification.format is None and identification.foreign is None:
        nouns = (noun for at, magic, noun in _PARTITION_MAGICS if table.read(at, len(magic)) == magic)
        return identification._replace(foreign=next(nouns, None))
    return identification


def identify_table(table: PieceTable, most: int | None = None) -> Identification:
    """Identify the file whose bytes are ``table``, by its first ``most`` bytes, or as many as its codec needs."""
    end = table.length if most is None else min(table.length, most)
    return identify(lambda count: table.read(0, min(count, end)))
