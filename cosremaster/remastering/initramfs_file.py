"""An initramfs, a root file system or another layer in a file of its own, without an ISO around it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cosremaster.errors import ImageError, Place, ProofError, UnsupportedError
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import SourceFile
from cosremaster.layers.identify import identify, identify_partition, identify_table
from cosremaster.layers.model import IndexedFile, Layer, index_file
from cosremaster.layers.scan import ScanOptions
from cosremaster.progress import Advance
from cosremaster.records import Struct
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, Lba

if TYPE_CHECKING:
    from cosremaster.codecs.base import Seam
    from cosremaster.io.output import Written
    from cosremaster.iso.encode import ImagePlan
    from cosremaster.layers.scan import ScannedArchive


_LARGE = 16 << 20
"""Packed bytes from which on a thread of its own decodes what is proved; for fewer, handing over takes longer."""


class WholeFile(Struct, frozen=True):
    """The one file of an image that is no volume. ``path``: the file's own name; ``size``: bytes."""

    path: bytes
    size: int

    @property
    def start(self) -> Lba:
        """The block at which the data begin."""
        return Lba(0)

    @property
    def extents(self) -> tuple[tuple[int, int], ...]:
        """The byte offset and the length of the data."""
        return ((0, self.size),)


class InitramfsFile(Struct, frozen=True):
    """An image that is one archive file; implements ``SourceImage``.

    ``source``: all of its bytes; ``kind``: the name of this kind of image; ``layers``: those in it, as far as they are
    indexed: a result need not be decoded again where it has their packed bytes. ``seams``: of the stream that the
    result will be, between which it is decoded on several threads.
    """

    place: Place
    source: Range
    files: tuple[WholeFile]
    kind: str = "initramfs"
    layers: tuple[Layer, ...] = ()
    seams: tuple[Seam, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.source.length

    @property
    def volume(self) -> None:
        """There is no ISO 9660 volume around the file."""
        return

    @property
    def is_single_file(self) -> bool:
        """There is nothing around the file."""
        return True

    def bytes_of(self, file: SourceFile) -> PieceTable:
        """Return the bytes of ``file``, which is the image itself."""
        return PieceTable(self.source.cut(start, start + length) for start, length in file.extents)

    def plan(self, replaced: Mapping[bytes, PieceTable]) -> ImagePlan:
        """Return the plan whose image is the only file of ``replaced``; without one, the file as it is.

        :raises CorruptError: the file as it is cannot be read to its end. :raises UnsupportedError: likewise.
        """
        from cosremaster.iso.encode import ImagePlan  # noqa: PLC0415 - who looks at an image plans none
        from cosremaster.iso.layout.place import Layout  # noqa: PLC0415 - the same

        table, changed = PieceTable([self.source]), {}
        for path, new in replaced.items():
            table, changed = new, {path: new.length}
        if not changed:
            self._index(table, self.place)
        return ImagePlan(table, Layout((), 0, 0, (0, 0)), changed)

    def _index(self, table: PieceTable, place: Place, seams: Sequence[Seam] = ()) -> IndexedFile:
        """Return the archives in ``table``, which are read to their ends. Raises as ``index_file``."""
        identification = identify_table(table)
        codec = identification.codec.with_seams(seams) if seams else identification.codec
        is_large = table.length >= _LARGE
        options = ScanOptions(digests=False, nesting=0, edits=False, tail=0, counts=True, is_large=is_large)
        return index_file(self.files[0].path, table, place, options, identification._replace(codec=codec))

    def _index_result(self, table: PieceTable, place: Place) -> tuple[IndexedFile, int]:
        """Return the archives in the result, whose bytes are ``table``, and how many entries the input has too.

        The entries in front of the first byte that differs from the input were decoded when the layers of the
        input were indexed: their packed bytes are compared, and decoding begins behind them. Raises as ``index_file``.
        """
        alone = [layer for layer in self.layers if len(layer.address) == 1]
        if len(alone) != 1:
            return self._index(table, place, self.seams), 0
        from cosremaster.layers.shared import index_beside  # noqa: PLC0415 - who looks at an image proves none

        options = ScanOptions(digests=False, nesting=0, edits=False, tail=0, counts=True)
        beside = index_beside(self.files[0].path, table, identify(partial(table.read, 0)), place, options, alone[0])
        return (self._index(table, place, self.seams), 0) if beside is None else (beside.file, beside.entries)

    def prove(
        self, plan: ImagePlan, written: Written, result: ByteSource, advance: Advance = lambda count: None
    ) -> tuple[str, ...]:
        """Read ``result`` again and return what was found true of it: each archive to its end, and every new byte.

        :param advance: called with the numbers of new bytes that were read.
        :raises ProofError: it is not as planned. Raises as ``index_file`` when it cannot be read.
        """
        return tuple(self._proof(plan, written, result, advance))

    def _proof(self, plan: ImagePlan, written: Written, result: ByteSource, advance: Advance) -> Iterator[str]:
        """Yield the lines of the proof."""
        from cosremaster.iso.prove import prove_new_bytes  # noqa: PLC0415 - who looks at an image proves none

        if result.size != plan.table.length:
            raise ProofError(f"the file's length is {result.size} in the result, not {plan.table.length}", self.place)
        table = PieceTable([Range(result, 0, result.size)])
        indexed, equal = self._index_result(table, result.place)
        archives = [archive for stream in indexed.streams for archive in stream.archives] or [indexed.archive]
        # Files that others joined may have archives at any byte, as long as they are compressed.
        if plan.replaced_sizes and any(stream.start % 4 for stream in indexed.streams):
            raise ProofError("an archive in the result begins at no multiple of 4", self.place)
        yield _describe_archives(archives, equal)
        yield prove_new_bytes(written, result, advance)


def _describe_archives(archives: Sequence[ScannedArchive], equal: int) -> str:
    """Return what was read of ``archives``; ``equal``: how many of their entries are the input's.

    Of a file system that is read on demand only what the edit changed was looked up, and none of its files was counted.
    """
    if all(archive.format.reads_on_demand for archive in archives):
        return f"the superblock and the root directory of the new {archives[0].format.name} file system read"
    entries = sum(archive.contents.entry_count for archive in archives)
    text = f"{len(archives)} archive{'s' if len(archives) > 1 else ''} with {entries:,} entries read to the end"
    return f"{text}; {equal:,} of them are the input's, with its packed bytes" if equal else text


def check_openable(source: ByteSource) -> None:
    """Check that ``source`` is not something that is recognized, and neither an ISO 9660 volume nor an archive.

    :raises UnsupportedError: it is; the message is that of :func:`cosremaster.browse.container.open_container`.
    :raises ImageError: it is compressed, and nothing that is known begins in it.
    """
    if source.read(FIRST_DESCRIPTOR * BLOCK + 1, 5) == b"CD001":
        return
    identified = identify_partition(PieceTable([Range(source, 0, source.size)]))
    if identified.foreign is not None:
        raise UnsupportedError(f"is {identified.foreign}, which cannot be looked into", source.place)
    if not identified.codec.is_identity:
        name = identified.codec.name
        raise ImageError(
            f"is {name} data in which no archive and no file system begins, or cut off early", source.place
        )


def read_initramfs_file(source: ByteSource) -> InitramfsFile:
    """Return the image that is nothing but the file ``source``, an archive."""
    layer_format = identify(partial(source.read, 0)).format
    kind = "initramfs" if layer_format is None or layer_format.is_initramfs else layer_format.name
    name = os.fsencode(os.path.basename(source.name))
    return InitramfsFile(source.place, Range(source, 0, source.size), (WholeFile(name, source.size),), kind)
