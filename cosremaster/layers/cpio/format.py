"""Cpio archives as a layer format: newc and crc, and the older forms odc and binary as its variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosremaster.layers.cpio.newc import MAGICS, MAX_FIELD, NEWC
from cosremaster.layers.cpio.read import read_index
from cosremaster.layers.formats import LayerFormat
from cosremaster.tree.limits import Limits

if TYPE_CHECKING:
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.streams import ByteReader
    from cosremaster.layers.cpio.read import CpioIndex
    from cosremaster.layers.formats import Converter, NewStyle
    from cosremaster.layers.scan import MemberScanner
    from cosremaster.tree.nodes import Node

OLD_MAGICS = (b"070707", b"\xc7\x71", b"\x71\xc7")
"""Of the octal form (odc) and of the binary one in either byte order."""

_OLD_NAMES = {"odc": "odc", "bin": "binary"}


class CpioFormat(LayerFormat):
    """The format that the kernel and busybox unpack an initramfs from."""

    name = "cpio"
    random_access = False
    is_initramfs = True
    magic_end = len(NEWC)
    limits = Limits("a cpio archive", MAX_FIELD)
    refusal = None
    can_repack = False

    def identify(self, head: bytes) -> str | None:
        """Return ``""`` for newc and crc, ``odc`` or ``bin`` for an older form; None for no cpio archive."""
        if head.startswith(MAGICS):
            return ""
        if not head.startswith(OLD_MAGICS):
            return None
        from cosremaster.layers.cpio.old import old_variant  # noqa: PLC0415 - no layer today needs it

        return old_variant(head)

    def converter(self, variant: str) -> Converter | None:
        """Return what turns an older form into newc, None for newc and crc. :raises KeyError: there is no such form."""
        if not variant:
            return None
        if variant not in _OLD_NAMES:
            raise KeyError(variant)
        from cosremaster.layers.cpio.old import convert_to_newc  # noqa: PLC0415 - no layer today needs it

        return convert_to_newc

    def index(
        self, reader: ByteReader, origin: int, members: MemberScanner, table: PieceTable | None = None
    ) -> CpioIndex:
        """Index the archive that begins where ``reader`` stands. :raises CorruptError: damage."""
        return read_index(reader, origin, members)

    def make_empty(self, root: Node, style: NewStyle) -> bytes:
        """Return an archive of newc with the directory ``root`` alone."""
        from cosremaster.layers.cpio.newc import BLOCKING, HeaderFields, encode_head, encode_trailer  # noqa: PLC0415 - few need it

        name = b"."
        header = HeaderFields(
            ino=1, mode=root.kind | root.mode, uid=root.uid, gid=root.gid, nlink=2, mtime=root.mtime,
            name_size=len(name) + 1,
        ).encode()  # fmt: skip
        data = encode_head(header, name) + encode_trailer(NEWC)
        return data + bytes(-len(data) % BLOCKING)

    def load(self, values: dict[str, Any], blobs: memoryview) -> CpioIndex:
        """Return the index that ``dump`` made values of. :raises ValueError, KeyError, TypeError: it did not."""
        from cosremaster.layers.cpio.dump import load_index  # noqa: PLC0415 - only a remembered index needs it

        return load_index(values, blobs)

    def edit_warning(self, variant: str) -> str | None:
        """Return that an older form is written as newc."""
        if not variant:
            return None
        return f"was a cpio archive in the {_OLD_NAMES[variant]} form and is written as newc"
