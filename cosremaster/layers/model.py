"""Layers: the archives and file systems in a file of the image, each as a value that its format stands behind."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cosremaster.codecs.base import StreamParameters
from cosremaster.errors import CorruptError, Place, printable
from cosremaster.io.parallel import cpu_count, prefetch_batches
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.streams import ByteReader, count_chunks, hash_chunks, new_sha256
from cosremaster.layers.address import Address, archive_number, format_address, number_part
from cosremaster.layers.decoded import DecodedSource
from cosremaster.layers.formats import ArchiveIndex, ContainerEntry, DeadBytes, EditResources, LayerFormat, Repacking
from cosremaster.layers.identify import Identification, codec_label, identify_table
from cosremaster.layers.packed_sums import PackedSums
from cosremaster.layers.scan import ALL_DETAILS, ScannedArchive, ScannedStream, ScanOptions, scan_file
from cosremaster.records import Struct, replace
from cosremaster.tree.limits import Limits
from cosremaster.tree.nodes import Edits, Node, resolve_links
from cosremaster.tree.paths import join, normal_name, parent_of

if TYPE_CHECKING:
    from cosremaster.boot.uimage import UImageHeader
    from cosremaster.tree.superseding import SupersedeMode, Superseding

_INITS = (b"sbin/init", b"usr/sbin/init", b"bin/init", b"usr/lib/systemd/systemd", b"lib/systemd/systemd")
_TOPS = frozenset((b"bin", b"dev", b"etc", b"lib", b"root", b"sbin", b"usr", b"var", b"init", b"linuxrc"))

_LZ4_FRAMES = "lz4"
"""The codec of lz4's frames; lib/decompress_unlz4.c of the kernel reads the legacy format."""

_STREAM_ALIGNMENT = 4
"""Each stream of several begins at a multiple of so many bytes, as the kernel demands
(Documentation/driver-api/early-userspace/buffer-format.rst)."""

_LARGE = 16 << 20
"""Packed bytes from which on a thread of its own reads and sums them."""

_TREE_LOCK = threading.RLock()


class RootfsLikelihood(enum.IntEnum):
    """How much an archive looks like a root filesystem."""

    NOT = 0
    SOME = 1
    """Its top level has two of the usual names: an initramfs, or a small system."""
    SYSTEM = 2
    """It has /etc and an init program of an installed system."""


class ConcatenatedFile(Struct, frozen=True):
    """A file of more than one archive alone: its bytes, and start and end of each of its streams in it.

    A stream is an archive as it is, or compressed data that hold one or more. ``has_rest``: something that is no
    archive stands behind the last. ``header``: that of U-Boot, before the first.
    """

    file: PieceTable
    streams: tuple[tuple[int, int], ...]
    has_rest: bool = False
    header: UImageHeader | None = None

    @property
    def rest_size(self) -> int:
        """How many bytes stand behind the last stream, zeros before them included, where these are no mere zeros."""
        return self.file.length - self.streams[-1][1] if self.has_rest else 0


class DamagedFile(Struct, frozen=True):
    """The file ``path`` of an archive, of ``size`` bytes, which begins like an archive; ``error``: what is wrong."""

    path: bytes
    size: int
    error: CorruptError


class Layer(Struct, frozen=True, kw_only=True, dict=True):  # no slots: cached properties need a dictionary
    """An archive or file system somewhere in the image, indexed.

    ``packed``: the compressed bytes of its stream; ``decoded``: the plain ones, ``size`` of them, of which ``span`` are
    this archive and the zeros behind it. ``index``: what its format knows of it, for the format alone. ``parent``: the
    archive that this one is a file of, and ``container_entry`` its entry there. Of several archives in one file
    (``concatenation``) this one is in stream ``stream``, and ``preceding`` are unpacked before it. ``rest``: plain
    bytes behind it in its stream that are no archive. ``unreadable``: files in it that begin like archives and are
    damaged.
    """

    address: Address
    place: Place
    format: LayerFormat
    variant: str
    packed: PieceTable
    parameters: StreamParameters
    decoded: DecodedSource
    size: int
    span: tuple[int, int]
    index: ArchiveIndex
    parent: Layer | None = None
    container_entry: ContainerEntry | None = None
    concatenation: ConcatenatedFile | None = None
    stream: int = 0
    preceding: tuple[Layer, ...] = ()
    rest: int = 0
    unreadable: tuple[DamagedFile, ...] = ()

    @property
    def file_address(self) -> Address:
        """The address of the file that it is in, which may hold several archives."""
        return self.address if archive_number(self.address[-1]) is None else self.address[:-1]

    @property
    def is_in_archive(self) -> bool:
        """Whether it is a file of an archive, and not one of the image or of a file system."""
        return self.parent is not None and not self.parent.format.random_access

    @property
    def is_in_filesystem(self) -> bool:
        """Whether one of those around it is a file system."""
        return self.parent is not None and (self.parent.format.random_access or self.parent.is_in_filesystem)

    @property
    def packs_itself(self) -> bool:
        """Whether it is a file system without a codec around it, which compresses its own blocks if any."""
        return self.format.random_access and self.parameters.is_identity

    @property
    def codec_label(self) -> str:
        """The codec and the format's variant for people, as in ``gzip`` or ``gzip+odc``."""
        is_wrapped = self.concatenation is not None and self.concatenation.header is not None
        return codec_label(self.parameters.name, self.variant, is_wrapped=is_wrapped)

    @property
    def version(self) -> str:
        """The version of the format for people, as in ``070701``; may be empty."""
        return self.index.version

    @property
    def format_label(self) -> str:
        """The format and its version for people, as in ``cpio 070701``."""
        return f"{self.format.name} {self.version}".rstrip()

    @property
    def entry_count(self) -> int:
        """How many entries it has."""
        return self.index.entry_count

    @property
    def limits(self) -> Limits:
        """What it can hold."""
        return self.format.limits

    @cached_property
    def likelihood(self) -> RootfsLikelihood:
        """How much it looks like a root filesystem."""
        return judge_rootfs(self.index.find_landmarks(self, _INITS))

    @cached_property
    def derived(self) -> dict[str, Any]:
        """What others derived from it alone, by a name, so that further remasters of an opened image need not."""
        return {}

    @cached_property
    def paths(self) -> Sequence[bytes]:
        """The normal path that each of its entries unpacks to, in its order."""
        return self.index.unpacked_paths(self)

    def path_of(self, entry: ContainerEntry) -> bytes:
        """Return the path that ``entry`` unpacks to."""
        path, tree = normal_name(entry.name), self.tree()
        return path if path in tree else join(resolve_links(parent_of(path), tree.get), path.rpartition(b"/")[2])

    def tree(self) -> Mapping[bytes, Node]:
        """Return its nodes by path, made once; of several archives in a file also those of ``preceding``.

        A directory that no entry names is none of them.
        """
        with _TREE_LOCK:
            return self._tree

    @cached_property
    def _tree(self) -> Mapping[bytes, Node]:
        """The nodes, as the format makes them."""
        return self.index.tree(self)

    def check_row(self, changes: Mapping[Address, Edits]) -> None:
        """Check what its file, whose last archive it is, unpacks to then (:meth:`ArchiveIndex.check_row`)."""
        self.index.check_row(self, changes)

    def edit(self, edits: Edits, resources: EditResources) -> PieceTable:
        """Return the plain bytes of its stream after ``edits``; ``resources``: for what the format packs by itself.

        :raises SizeError: a file is too large for the format. :raises OverlayError: a new entry breaks a rule of the
            programs that unpack the layer. :raises ProofError: an entry that stays would, and did not before.
        """
        return self.index.edit(self, edits, resources)

    def check_kept(self) -> None:
        """Check, once, what edits keep without having read it. Raises as :meth:`ArchiveIndex.check_kept`."""
        _ = self._kept

    @cached_property
    def _kept(self) -> None:
        """The answer of :meth:`check_kept`, which many plans of one image ask for."""
        self.index.check_kept(self)

    def count_dead_bytes(self, table: PieceTable | None = None) -> DeadBytes | None:
        """Return what a repack would drop of ``table``, its plain bytes after edits, or as they are where None.

        None where that is not counted. :raises CorruptError: damage, with its place.
        """
        return self.index.count_dead_bytes(self, table or PieceTable([Range(self.decoded, 0, self.size)]))

    @property
    def dead_bytes(self) -> int | None:
        """How many of its bytes a repack would drop; None where that is not counted, or damage prevents it."""
        try:
            dead = self.count_dead_bytes()
        except CorruptError:
            return None
        return None if dead is None else sum(dead)

    def plan_superseding(
        self, edits: Edits, mode: SupersedeMode, changes: Mapping[Address, Edits], *, is_booted: bool
    ) -> Superseding:
        """Return which of its entries stay though ``edits`` replace them (:meth:`ArchiveIndex.plan_superseding`)."""
        return self.index.plan_superseding(self, edits, mode, changes, is_booted=is_booted)

    def make_blank(self) -> bytes:
        """Return a layer without files, written as this one, with the attributes of its root directory."""
        return self.index.make_blank(self)

    def replace(self, entry: ContainerEntry, data: PieceTable) -> PieceTable:
        """Return the plain bytes of its stream with ``data`` in place of the data of ``entry``.

        :raises SizeError: ``data`` are too large for the format.
        """
        return self.index.replace(self, entry, data)

    def inodes(self, removed: Collection[bytes] = frozenset()) -> Iterator[tuple[int, int]]:
        """Yield the type (as in ``st_mode``) and size in bytes of each inode that keeps a path not in ``removed``.

        The size of a symlink is that of its text. Data of hard links stay as long as one name does.
        """
        return self.index.inodes(self, removed)

    def removed_inodes(self, removed: Collection[bytes]) -> Sequence[tuple[int, int]] | None:
        """Return what :meth:`inodes` yields no more without the paths ``removed``; None where only that tells it."""
        return self.index.removed_inodes(self, removed)

    def oddities(self) -> Iterator[str]:
        """Yield what is odd about it, each as the end of a sentence about it."""
        count, size = self.index.count_superseded(self)
        if count:
            what = "entry that a later one supersedes" if count == 1 else "entries that later ones supersede"
            yield (
                f"holds {count:,} {what}, {size:,} bytes, which are not unpacked and can still be read; an edit with"
                " --supersede never drops them"
            )
        yield from self._edit_oddities()

    def _edit_oddities(self) -> Iterator[str]:
        """Yield those of :meth:`oddities` that are worth a warning where it is edited."""
        if self.index.oddity:
            yield self.index.oddity
        concatenation = self.concatenation
        if concatenation is not None and concatenation.has_rest and self.stream == len(concatenation.streams) - 1:
            yield f"is followed by {concatenation.rest_size:,} bytes that {self._rest_noun}; they stay"
        if self.rest:
            yield f"is followed by {self.rest:,} plain bytes that {self._rest_noun}; they stay"
        if self.parameters.name == _LZ4_FRAMES and not self.is_in_archive and self.format.is_initramfs:
            yield "is in lz4's frame format, which no kernel unpacks: they read the legacy format alone (lz4 -l)"
        for damaged in self.unreadable:
            yield f"holds {printable(damaged.path)}, which begins like an archive and is damaged: {damaged.error}"

    @property
    def _rest_noun(self) -> str:
        """What the bytes behind its end are, behind ``bytes that``."""
        return "are no archive" if self.format.is_initramfs else "programs that unpack it do not read"

    def check_data(self, visit: Callable[[Node], None] = lambda node: None) -> None:
        """Read all that indexing did not. :raises CorruptError: damage, with its place.

        :param visit: called with each regular file of a file system, before its data are read.
        """
        self.index.check_data(self, visit)

    def find_breaches(self, *, with_data: bool = True) -> Iterator[tuple[str, Place]]:
        """Yield a sentence about each rule of its readers that it breaks, with its place; ``with_data``: data too.

        :raises CorruptError: damage, with its place.
        """
        return self.index.find_breaches(self, with_data=with_data)

    def edit_warnings(
        self, edits: Edits | None = None, repacking: Repacking = Repacking.NOTHING
    ) -> Iterator[str]:  # fmt: skip
        """Yield what ``edits`` change beside entries, and what is odd, in the layer and in what holds it.

        ``repacking``: what of it is repacked beside them.
        """
        if edits is not None:
            yield from self.index.edit_warnings(self, edits, repacking)
        warning = self.format.edit_warning(self.variant)
        for text in (*([] if warning is None else [warning]), *self._edit_oddities()):
            yield f"{format_address(self.address)} {text}"
        if self.parent is not None:
            yield from self.parent.edit_warnings(None if edits is None else self._edits_around(), repacking)

    def _edits_around(self) -> Edits | None:
        """Return the edits of the file system that it is in, by which its new bytes get there; None in an archive."""
        if self.parent is None or self.container_entry is None or not self.parent.format.random_access:
            return None
        from cosremaster.tree.replacements import with_new_contents  # noqa: PLC0415 - few layers are inside others

        path = normal_name(self.container_entry.name)
        return with_new_contents(self.parent.tree(), None, [(path, self.packed)])

    @property
    def is_converted(self) -> bool:
        """Whether ``decoded`` are not the bytes that the codec gives: nothing of its stream can be kept by an edit."""
        return self.format.converter(self.variant) is not None

    @property
    def stream_source(self) -> DecodedSource:
        """The plain bytes of its stream as the codec gives them, for packing it again."""
        if not self.is_converted:
            return self.decoded
        return DecodedSource(self.packed, self.parameters, Place(), b"", 0)

    def replace_stream(self, packed: PieceTable) -> PieceTable:
        """Return the whole file that the layer is in, with ``packed`` in place of its stream."""
        return self.replace_streams({self.stream: packed})

    def replace_streams(self, packed: Mapping[int, PieceTable]) -> PieceTable:
        """Return the whole file that the layer is in, with ``packed`` in place of its streams of these numbers.

        The other streams of several stay byte for byte; each begins at a multiple of 4.
        """
        concatenation = self.concatenation
        if concatenation is None:
            return packed[self.stream]
        pieces: list[Piece] = []
        length, reached = 0, 0 if concatenation.header is None else len(concatenation.header.raw)
        for number, (start, end) in enumerate(concatenation.streams):
            gap = start - reached if start - reached >= _STREAM_ALIGNMENT else 0
            gap += -(length + gap) % _STREAM_ALIGNMENT
            table = packed[number] if number in packed else concatenation.file.cut(start, end)
            pieces += [Zeros(gap), *table.pieces]
            length, reached = length + gap + table.length, end
        size = concatenation.file.length
        if concatenation.has_rest:  # the kernel's boot config is at the end and wants multiples of 4 (init/main.c)
            padding = -reached % _STREAM_ALIGNMENT
            start = reached if any(concatenation.file.read(reached, padding)) else reached + padding
            pieces += [Zeros((start - length) % _STREAM_ALIGNMENT), *concatenation.file.cut(start, size).pieces]
        else:
            pieces.append(Zeros(size - reached))
        new = PieceTable(pieces)
        if concatenation.header is None:
            return new
        return PieceTable([Literal(concatenation.header.with_data(new.length, new.chunks()).raw), *new.pieces])


class IndexedFile(Struct, frozen=True, kw_only=True):
    """A file of the image that is an archive, indexed: its path and the SHA-256 of its bytes.

    ``digest``: empty where none was wanted, or where the index stands for none of the bytes. ``sums``: checksums of its
    bytes (:mod:`cosremaster.layers.packed_sums`); empty without a digest. ``archive``: its first archive; ``streams``:
    all its streams where it holds more than one archive.
    """

    path: bytes
    digest: bytes
    sums: bytes
    archive: ScannedArchive
    streams: tuple[ScannedStream, ...] = ()
    has_rest: bool = False
    header: UImageHeader | None = None


def index_file(
    path: bytes, packed: PieceTable, place: Place, options: ScanOptions = ALL_DETAILS,
    identification: Identification | None = None, advance: Callable[[int], None] = lambda count: None,
) -> IndexedFile:  # fmt: skip
    """Index all archives in the file ``packed``: a single one, or several as the kernel reads them.

    :param identification: of the file; made here when None.
    :param advance: called with the count of each of the bytes, which are read once, front to back.
    :raises CorruptError: damage, with its place. :raises UnsupportedError: another kind of archive follows.
    """
    identification = identification or identify_table(packed)
    header = _read_header(packed, place) if identification.prefix else None
    digest, sums = None, PackedSums()
    chunks = count_chunks(packed.chunks(), advance)
    if options.digests and not identification.reads_on_demand:
        digest = new_sha256()
        chunks = sums.watch(hash_chunks(chunks, digest))
        if packed.length >= _LARGE and cpu_count() > 1:  # beside decoding
            chunks = prefetch_batches(chunks)
    reader = ByteReader(chunks, place)
    reader.skip(identification.prefix)
    streams = scan_file(packed, reader, identification, options)
    end = streams[-1].end
    has_rest = any(chunk.strip(b"\0") for chunk in packed.cut(end, packed.length).chunks())
    is_single = len(streams) == 1 and len(streams[0].archives) == 1 and not has_rest and header is None
    return IndexedFile(
        path=path, digest=b"" if digest is None else digest.digest(), sums=sums.packed(),
        archive=streams[0].archives[0], streams=() if is_single else streams, has_rest=has_rest, header=header,
    )  # fmt: skip


def _read_header(packed: PieceTable, place: Place) -> UImageHeader:
    """Return U-Boot's header of the file ``packed``. :raises CorruptError: the data behind it are not its."""
    from cosremaster.boot.uimage import HEADER_SIZE, parse_uimage, sum_data  # noqa: PLC0415 - rare

    header = parse_uimage(packed.read(0, HEADER_SIZE))
    assert header is not None
    size = packed.length - HEADER_SIZE
    if header.size > size:
        raise CorruptError(f"is cut off: U-Boot's header says {header.size:,} bytes, and {size:,} follow it", place)
    if sum_data(packed.cut(HEADER_SIZE, HEADER_SIZE + header.size).chunks()) != header.check:
        raise CorruptError("its data have another CRC than U-Boot's header says", place)
    return header


def build_layers(
    indexed: IndexedFile, packed: PieceTable, place: Place, parent: Layer | None = None,
    entry: ContainerEntry | None = None,
) -> tuple[Layer, ...]:  # fmt: skip
    """Return the archives of an indexed file whose bytes are ``packed``, outer before inner, in the file's order.

    ``parent``: the file system that the file is in, as its ``entry``; None for a file of the image.
    """
    spans = tuple((stream.start, stream.end) for stream in indexed.streams)
    file = ConcatenatedFile(packed, spans, indexed.has_rest, indexed.header) if spans else None
    streams = indexed.streams or (ScannedStream(0, packed.length, (indexed.archive,)),)
    has_numbers = sum(len(stream.archives) for stream in streams) > 1
    address = (indexed.path,) if parent is None else (*parent.address, indexed.path)
    layers: list[Layer] = []
    preceding: list[Layer] = []
    for number, stream in enumerate(streams):
        inside = packed if file is None else packed.cut(stream.start, stream.end)
        for layer in _stream_layers(address, inside, place, stream.archives, len(preceding) if has_numbers else None):
            if layer.parent is None:
                outer = replace(
                    layer, concatenation=file, stream=number, preceding=tuple(preceding), parent=parent,
                    container_entry=entry,
                )  # fmt: skip
                preceding.append(outer)
                layers.append(outer)
            else:
                layers.append(replace(layer, parent=outer))
    return tuple(layers)


def _stream_layers(
    address: Address, packed: PieceTable, place: Place, archives: Sequence[ScannedArchive],
    preceding: int | None = None,
) -> Iterator[Layer]:  # fmt: skip
    """Yield the archives of one stream; ``preceding``: how many of several in the file stand before it."""
    decoded = archives[-1].decoded_from(packed, place)
    for number, archive in enumerate(archives):
        outer_address = address if preceding is None else (*address, number_part(preceding + number + 1))
        rest = archive.size - archive.span[1] if archive is archives[-1] else 0
        outer = replace(_layer(outer_address, place, packed, decoded, archive), rest=rest)
        yield outer
        for nested in archive.nested:
            if nested.archive is None:
                continue
            entry = archive.contents.container_entry(nested.number)
            inside = archive.contents.entry_data(nested.number, decoded)
            below = place.inside(entry.name)
            source = nested.archive.decoded_from(inside, below)
            inner = _layer((*outer_address, normal_name(entry.name)), below, inside, source, nested.archive)
            yield replace(inner, parent=outer, container_entry=entry)


def _layer(
    address: Address, place: Place, packed: PieceTable, decoded: DecodedSource, archive: ScannedArchive
) -> Layer:
    """Return the layer of ``archive``, without what is around it."""
    return Layer(
        address=address, place=place, format=archive.format, variant=archive.variant, packed=packed,
        parameters=archive.parameters, decoded=decoded, size=archive.size, span=archive.span, index=archive.contents,
        unreadable=tuple(
            DamagedFile(normal_name(archive.contents.container_entry(damaged.number).name), damaged.size, damaged.error)
            for damaged in archive.unreadable
        ),
    )  # fmt: skip


def judge_rootfs(paths: Sequence[bytes]) -> RootfsLikelihood:
    """Return how much an archive with ``paths``, as normal names, looks like a root filesystem."""
    tops = {name.partition(b"/")[0] for name in paths}
    if b"etc" in tops and any(name in _INITS for name in paths):
        return RootfsLikelihood.SYSTEM
    return RootfsLikelihood.SOME if len(tops & _TOPS) >= 2 else RootfsLikelihood.NOT
