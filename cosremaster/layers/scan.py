"""Scanning: one pass over a file that finds every archive in it and has its format index it.

This is what all formats have in common: streams, concatenated archives, archives in archives, digests, and the limit
on expansion. All values are tuples, and little is imported: a plain listing of an initramfs needs this alone
(browse/names.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cosremaster.codecs import SNIFF_SIZE
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.streams import ByteReader, LastBytes, hash_chunks, new_sha256, sha256_of
from cosremaster.layers.formats import ArchiveIndex, LayerFormat
from cosremaster.layers.identify import Identification, identify
from cosremaster.records.tuples import NamedTuple
from cosremaster.tree.paths import normal_name

if TYPE_CHECKING:
    from cosremaster.codecs.base import Codec, Decoding, StreamParameters
    from cosremaster.io.pieces import PieceTable
    from cosremaster.layers.decoded import DecodedSource
    from cosremaster.layers.formats import Converter
    from cosremaster.layers.kept_plain import KeptPlain, PlainKeeper
    from cosremaster.layers.member_files import MemberKeeper
    from cosremaster.progress import Progress

TAIL = 4 << 20
"""Plain bytes kept from a layer's end: twice what an LZMA2 chunk holds, so that additions decode nothing again."""

NESTING = 2
"""The image's file is one archive, an archive inside it the second; deeper ones are the system's own."""

MAX_EXPAND = 1000
"""No root filesystem compresses so well as a whole; deflate cannot (1,032), xz and zstd can on zeros alone."""

FREE_EXPANSION = 1 << 30
"""So many plain bytes a stream may have at any ratio: a large file of zeros may stand first."""


class ScanOptions(NamedTuple):
    """How closely archives are read.

    ``digests``: take the SHA-256 of all data. ``nesting``: how deep archives in archives are indexed. ``edits``:
    whether a layer may be packed again; what only that needs is not noted otherwise. ``tail``: plain bytes kept from
    each layer's end. ``names``: only the names of entries, so that no layer can be made; ``counts``: only how many
    entries there are. ``max_expand``: a stream that expands by more, beyond :data:`FREE_EXPANSION`, is taken for a
    bomb. ``keeper``: keeps plain bytes that will be read again and take long to decode. ``inner``: the only files that
    may be archives in archives; None for all.
    ``is_large``: the file is, so that a thread of its own decodes it, though little is done with the plain bytes.
    ``members``: looks at the files of the archives, in place of digests and nesting. ``progress``: is told of the
    packed bytes of files that are read because an address leads into them. ``on_nested``: is told the plain byte where
    an entry of the outermost archive begins that is an archive itself.
    """

    digests: bool = True
    nesting: int = NESTING
    edits: bool = True
    tail: int = TAIL
    max_expand: int = MAX_EXPAND
    names: bool = False
    counts: bool = False
    keeper: PlainKeeper | None = None
    inner: frozenset[bytes] | None = None
    is_large: bool = False
    members: MemberKeeper | None = None
    progress: Progress | None = None
    on_nested: Callable[[int], None] | None = None


ALL_DETAILS = ScanOptions()


class NestedArchive(NamedTuple):
    """An archive that is a file of another one, at place ``number`` of its entries.

    A format with random access can read its archive only when the container's stream is read to its end: until then
    there is only its ``identification``.
    """

    number: int
    archive: ScannedArchive | None
    identification: Identification | None = None


class UnreadableFile(NamedTuple):
    """A file of an archive, at place ``number`` of its entries, that begins like an archive and is damaged.

    ``size``: its bytes; ``error``: what is wrong with it.
    """

    number: int
    size: int
    error: CorruptError


class BombError(CorruptError):
    """Data expand to more than any file system does."""


class ScannedArchive(NamedTuple):
    """An indexed archive, before its place among the others is known.

    ``parameters``: of the stream that it is in, which has ``size`` plain bytes and ends with ``tail``; the archive and
    the zeros behind it take ``span`` of them. ``unreadable``: files that are plain files because of their damage.
    ``kept``: the plain bytes, where they were kept.
    """

    format: LayerFormat
    variant: str
    parameters: StreamParameters
    size: int
    tail: bytes
    span: tuple[int, int]
    contents: ArchiveIndex
    nested: tuple[NestedArchive, ...] = ()
    unreadable: tuple[UnreadableFile, ...] = ()
    kept: KeptPlain | None = None

    def decoded_from(self, packed: PieceTable, place: Place) -> DecodedSource:
        """Return the plain bytes of the stream ``packed`` as a source, in the format's ordinary variant."""
        from cosremaster.layers.decoded import DecodedSource  # noqa: PLC0415 - a plain listing needs none of it

        convert = self.format.converter(self.variant)
        return DecodedSource(packed, self.parameters, place, self.tail, self.size, convert, self.kept)


class ScannedStream(NamedTuple):
    """A stream of a file: where it stands in the file, in bytes, and its archives."""

    start: int
    end: int
    archives: tuple[ScannedArchive, ...]


class MemberScanner:
    """Takes the digests of an archive's regular files, and indexes those that are archives themselves."""

    def __init__(self, options: ScanOptions, depth: int) -> None:
        """:param depth: 1 for an archive that is a file of the image, 2 for one inside it."""
        self.options = options
        self.nested: list[NestedArchive] = []
        self.unreadable: list[UnreadableFile] = []
        self._depth = depth
        self._enters = depth < options.nesting
        self.watch = options.members
        self.wants_data = options.digests or self._enters or self.watch is not None
        """Whether :meth:`scan` has anything to do."""

    def scan(self, reader: ByteReader, size: int, name: bytes, number: int, start: int | None = None) -> bytes:
        """Read the data of the regular file ``name``, and return their SHA-256; empty where none is taken.

        :param reader: stands before the data, and may stand anywhere in them afterwards.
        :param size: bytes of data.
        :param number: the file's place among the entries.
        :param start: the byte of the archive's stream where its entry begins, if that is known.
        :raises CorruptError: the data end too early, or the file is a bomb.
        """
        if self.watch is not None:
            self.watch.watch(reader, size)
            return b""
        inner = self.options.inner
        if self._enters and (inner is None or normal_name(name) in inner):
            identification = identify(lambda count: reader.peek(min(size, count)))
            layer_format = None if identification.prefix else identification.format
            if layer_format is not None and layer_format.refusal is not None:
                layer_format = None  # an address enters it all the same
            if layer_format is not None and not layer_format.random_access:
                if self._depth == 1 and self.options.on_nested is not None and start is not None:
                    self.options.on_nested(start)
                return self._index(reader, size, name, number, identification)
            if layer_format is not None:
                self.nested.append(NestedArchive(number, None, identification))
        return sha256_of(reader.read_parts(size)) if self.options.digests else b""

    def _index(self, reader: ByteReader, size: int, name: bytes, number: int, identification: Identification) -> bytes:
        """Index the archive in the next ``size`` bytes and return their digest.

        Several concatenated ones are the system's own (``boot/initrd.img``), no layer to edit; so is one with something
        behind it, and a damaged one, which is noted. :raises CorruptError: the data end too early, or it is a bomb.
        """
        digest = new_sha256() if self.options.digests else None
        outer = _FailureNote()
        chunks = outer.watch(reader.read_parts(size))
        inside = reader.place.inside(name)
        packed = ByteReader(chunks if digest is None else hash_chunks(chunks, digest), inside)
        try:
            streams = tuple(scan_streams(packed, identification, self.options, self._depth + 1))
            archives = [archive for stream in streams for archive in stream.archives]
            if len(archives) == 1 and archives[0].span[1] == archives[0].size and not packed.peek(1):
                self.nested.append(NestedArchive(number, archives[0]))
        except UnsupportedError:
            pass
        except CorruptError as error:
            if outer.has_failed or isinstance(error, BombError):
                raise
            # Without its traceback, which would keep the decoder and its thread alive.
            self.unreadable.append(UnreadableFile(number, size, CorruptError(error.message, error.place)))
        for _ in packed.read_rest():
            pass
        return b"" if digest is None else digest.digest()


class _FailureNote:
    """Notes whether reading failed: the bytes of a file inside an archive could not be had from the archive."""

    def __init__(self) -> None:
        """Begin without a failure."""
        self.has_failed = False

    def watch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield ``chunks``."""
        try:
            yield from chunks
        except CorruptError:
            self.has_failed = True
            raise


def scan_file(
    packed: PieceTable, reader: ByteReader, identification: Identification, options: ScanOptions
) -> tuple[ScannedStream, ...]:
    """Index all archives in the file ``packed``, whose bytes ``reader`` yields once, to their end.

    What is no archive behind them is read and belongs to none.

    :raises CorruptError: damage, with its place. :raises UnsupportedError: an archive of another kind follows.
    """
    assert identification.format is not None
    if identification.format.random_access:
        archive = _scan_table(packed, reader, identification, options, 1)
        for _ in reader.read_rest() if options.digests and not identification.reads_on_demand else ():
            pass
        return (ScannedStream(0, packed.length, (archive,)),)
    streams = tuple(scan_streams(reader, identification, options, 1))
    for _ in reader.read_rest() if options.digests else ():
        pass
    return tuple(
        stream._replace(
            archives=tuple(
                _complete(archive, packed.cut(stream.start, stream.end), reader.place, options, 1)
                for archive in stream.archives
            )
        )
        for stream in streams
    )


def scan_streams(
    reader: ByteReader, identification: Identification, options: ScanOptions, depth: int
) -> Iterator[ScannedStream]:
    """Index the archives of each stream of a file; the first stream is identified.

    Zeros between streams belong to none, but to an archive before them that is not compressed. The reader stands then
    at the first byte behind the last archive that is no zero and begins none: a signature, or junk.
    :raises UnsupportedError: an archive follows that cannot be read, or of another format.
    """
    first = identification.format
    assert first is not None
    while True:
        reader.restart_position()
        archives = tuple(_scan_stream(reader, identification, options, depth))
        end = reader.position
        reader.skip_zeros()
        start = reader.origin
        yield ScannedStream(start, start + (reader.position if identification.codec.is_identity else end), archives)
        if not first.is_initramfs or not reader.peek(1):
            return
        identification = identify(reader.peek)
        if identification.foreign is not None or identification.format not in (first, None) or identification.prefix:
            other = identification.format
            noun = identification.foreign or ("an archive" if other is None else other.limits.container)
            if other is not None and not other.random_access:
                noun = "an archive of another kind"
            raise UnsupportedError(f"{noun} follows the end of the {first.name} archive", reader.next_place)
        if identification.format is None:
            return


def _scan_stream(
    packed: ByteReader, identification: Identification, options: ScanOptions, depth: int
) -> Iterator[ScannedArchive]:
    """Index the archives of the stream that begins where ``packed`` stands; reads to its end."""
    codec, layer_format, variant, *_ = identification
    assert layer_format is not None
    if not options.edits:
        codec = codec.for_reading()
    elif options.keeper is not None and not options.keeper.is_whole:
        codec = codec.for_packing()
    decoding = codec.decode(packed)
    convert = layer_format.converter(variant)
    if options.members is not None:
        options.members.begin_stream(is_packed=not codec.is_identity or convert is not None)
    if codec.is_identity and convert is None:
        start = packed.position
        members = MemberScanner(options, depth)
        index = layer_format.index(packed, start, members, None)
        packed.skip_zeros()
        size = packed.position - start
        yield ScannedArchive(
            layer_format, variant, decoding.parameters, size, b"", (0, size), index, tuple(members.nested),
            tuple(members.unreadable),
        )  # fmt: skip
        return
    stream = PlainStream(codec, packed, decoding, options, convert)
    tail = LastBytes(options.tail)
    chunks = tail.watch(stream.chunks()) if options.tail else stream.chunks()
    kept = None if options.keeper is None else options.keeper.keep(codec.name)
    reader = ByteReader(chunks if kept is None else kept.watch(chunks), packed.place)
    parts: list[tuple[ArchiveIndex, MemberScanner, tuple[int, int]]] = []
    while not parts or (layer_format.is_initramfs and layer_format.identify(reader.peek(layer_format.magic_end)) == ""):
        start = reader.position
        members = MemberScanner(options, depth)
        stream.is_complete = False
        index = layer_format.index(reader, 0, members, None)
        stream.is_complete = layer_format.is_initramfs
        reader.skip_zeros()
        parts.append((index, members, (start, reader.position)))
    for _ in reader.read_rest():  # what is no archive stays in the stream, behind the last
        pass
    size, last_bytes = reader.position, tail.bytes()
    for index, members, span in parts:
        yield ScannedArchive(
            layer_format, variant, decoding.parameters, size, last_bytes, span, index, tuple(members.nested),
            tuple(members.unreadable), kept,
        )  # fmt: skip


class PlainStream:
    """The plain bytes of a compressed stream, in the format's ordinary variant.

    ``is_complete``: an archive has ended, so another compressed stream behind this one is none of its parts. Of a
    format that has one archive in a file all streams are parts, as for ``zcat``.
    """

    def __init__(
        self, codec: Codec, packed: ByteReader, decoding: Decoding, options: ScanOptions,
        convert: Converter | None,
    ) -> None:  # fmt: skip
        """:param packed: stands before the stream, which ``decoding`` decodes.
        :param convert: turns an archive of another variant into the ordinary one.
        """
        self.is_complete = False
        self._codec = codec
        self._packed = packed
        self._decoding = decoding
        self._options = options
        self._convert = convert

    def chunks(self) -> Iterator[bytes]:
        """Yield the plain bytes of this stream, and of those behind it until an archive is complete."""
        while True:
            yield from bounded(self._decoded(), self._packed, self._decoding, self._options.max_expand)
            if self.is_complete:
                return
            self._packed.skip_zeros()
            if not self._codec.sniff(self._packed.peek(SNIFF_SIZE)):
                return

    def _decoded(self) -> Iterator[bytes]:
        """Yield the plain bytes of the next stream; of an archive that has to be converted those of all streams.

        They are decoded on a thread of their own where there is more to do with them than to step over entries:
        handing them over would take longer than that.
        """
        if self._convert is None:
            chunks = self._decoding.next_stream()
        else:
            chunks = self._convert(self._decoding.chunks(), self._packed.place)
        if not (self._options.digests or self._options.nesting or self._options.is_large):
            return chunks
        from cosremaster.io.parallel import prefetch_batches  # noqa: PLC0415 - a plain listing needs none of it

        return prefetch_batches(chunks)


def bounded(chunks: Iterator[bytes], packed: ByteReader, decoding: Decoding, ratio: int) -> Iterator[bytes]:
    """Yield ``chunks``, which ``decoding`` makes of ``packed``.

    :raises CorruptError: they are more than :data:`FREE_EXPANSION` and ``ratio`` times what was read.
    """
    start, plain = decoding.position, 0
    for chunk in chunks:
        plain += len(chunk)
        if plain > FREE_EXPANSION + ratio * (decoding.position - start):
            raise BombError(
                f"expands to more than {ratio:,} times its size, as a bomb does (--max-expand)",
                packed.place_at(decoding.position),
            )
        yield chunk


def _scan_table(
    packed: PieceTable, reader: ByteReader, identification: Identification, options: ScanOptions, depth: int
) -> ScannedArchive:
    """Index the file system that the file ``packed`` is, whose bytes ``reader`` yields.

    A compressed one is decoded once to its end, as its codec has to know its parameters for reading at any place.
    """
    from cosremaster.io.pieces import PieceTable, Range  # noqa: PLC0415 - a plain listing needs none of it
    from cosremaster.layers.decoded import DecodedSource  # noqa: PLC0415 - the same

    codec, layer_format, variant, *_ = identification
    assert layer_format is not None
    decoding = (codec if options.edits else codec.for_reading()).decode(reader)
    tail, size = LastBytes(options.tail), packed.length
    if not codec.is_identity:
        size = sum(map(len, tail.watch(bounded(decoding.chunks(), reader, decoding, options.max_expand))))
    decoded = DecodedSource(packed, decoding.parameters, reader.place, tail.bytes(), size)
    table = PieceTable([Range(decoded, 0, size)])
    members = MemberScanner(options, depth)
    index = layer_format.index(ByteReader(table.chunks(), reader.place), 0, members, table)
    archive = ScannedArchive(
        layer_format, variant, decoding.parameters, size, tail.bytes(), (0, size), index, tuple(members.nested)
    )
    return _complete(archive, packed, reader.place, options, depth)


def _complete(
    archive: ScannedArchive, packed: PieceTable, place: Place, options: ScanOptions, depth: int
) -> ScannedArchive:
    """Return ``archive`` with its nested file systems indexed, which its own pass could not read at any place.

    ``packed``: the stream that holds the archive.
    """
    if not _is_incomplete(archive):
        return archive
    decoded = archive.decoded_from(packed, place)
    nested: list[NestedArchive] = []
    for number, inner, identification in archive.nested:
        data = archive.contents.entry_data(number, decoded)
        below = place.inside(archive.contents.container_entry(number).name)
        with contextlib.suppress(UnsupportedError):
            if inner is not None:
                complete = _complete(inner, data, below, options, depth + 1)
            else:
                assert identification is not None
                complete = _scan_table(data, ByteReader(data.chunks(), below), identification, options, depth + 1)
            nested.append(NestedArchive(number, complete))
    return archive._replace(nested=tuple(nested))


def _is_incomplete(archive: ScannedArchive) -> bool:
    """Return whether a file system in ``archive``, at any depth, is not indexed yet."""
    return any(nested.archive is None or _is_incomplete(nested.archive) for nested in archive.nested)
