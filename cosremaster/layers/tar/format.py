"""Tar archives as a layer format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosremaster.layers.formats import LayerFormat
from cosremaster.tree.limits import Limits

if TYPE_CHECKING:
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.streams import ByteReader
    from cosremaster.layers.formats import EntryStream, NewStyle
    from cosremaster.layers.scan import MemberScanner
    from cosremaster.layers.tar.index import TarIndex
    from cosremaster.tree.nodes import Node

_BLOCK = 512
_RECORD = 20 * _BLOCK
_NUMBERS = ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148), (148, 156))
_DIGITS = frozenset(b"01234567 \0")


class TarFormat(LayerFormat):
    """The format of root file systems as containers, clouds and MAAS have them, and of most archives.

    Files inside it that are archives are no layers: an address enters them all the same.
    """

    name = "tar"
    random_access = False
    is_initramfs = False
    magic_end = _BLOCK
    limits = Limits("a tar archive", (1 << 63) - 1, (b"",))

    def identify(self, head: bytes) -> str | None:
        """Return ``""`` for a tar archive: its first block is a header by its checksum."""
        if len(head) < _BLOCK or not _may_be_header(head):
            return None
        from cosremaster.layers.tar.blocks import looks_like_header  # noqa: PLC0415 - few files get so far

        return "" if looks_like_header(head[:_BLOCK]) else None

    def index(self, reader: ByteReader, origin: int, members: MemberScanner, table: PieceTable | None) -> TarIndex:
        """Index the archive that begins where ``reader`` stands. :raises CorruptError: damage, with its place."""
        from cosremaster.layers.tar.read import read_index  # noqa: PLC0415 - only tar needs it

        return read_index(reader, origin, members)

    def make_empty(self, root: Node, style: NewStyle) -> bytes:
        """Return an archive with the directory ``root`` alone, in the form of pax where ustar does not hold a value."""
        from cosremaster.layers.tar.encode import EntryFields, HeaderWriter, OwnerNames  # noqa: PLC0415 - few need it

        writer = HeaderWriter(is_gnu=False, writes_pax=False, global_records={}, owners=OwnerNames())
        head = writer.encode(EntryFields(b"./", root, 0))
        return head + bytes(_RECORD - len(head) % _RECORD)

    def stream_entries(self, reader: ByteReader) -> EntryStream:
        """Return the entries of the archive that begins where ``reader`` stands; it raises CorruptError for damage."""
        from cosremaster.layers.tar.stream import stream_entries  # noqa: PLC0415 - only overlays need it

        return stream_entries(reader)

    def load(self, values: dict[str, Any], blobs: memoryview) -> TarIndex:
        """Return the index that ``dump`` made values of. :raises ValueError, MismatchError: it did not."""
        from cosremaster.layers.tar.dump import load_index  # noqa: PLC0415 - only a remembered index needs it

        return load_index(values, blobs)


def _may_be_header(head: bytes) -> bool:
    """Return whether the numbers of a header are numbers: octal, or base 256."""
    return all(head[start] >= 0x80 or _DIGITS.issuperset(head[start:end]) for start, end in _NUMBERS)
