"""The seam for root file systems: what a layer format has to offer, and the registry of formats.

A format's module is loaded when the first bytes of a file are compared with it, so it imports little at its top:
a plain listing of an initramfs needs no nodes and no edits (browse/names.py). docs/formats.md tells how to add one.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from cosremaster.records.tuples import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping

    from cosremaster.archives.entry import ArchiveEntry
    from cosremaster.errors import Place
    from cosremaster.io.pieces import PieceTable, Source
    from cosremaster.io.spool import Spool
    from cosremaster.io.streams import ByteReader
    from cosremaster.layers.address import Address
    from cosremaster.layers.blobs import Blobs
    from cosremaster.layers.model import Layer
    from cosremaster.layers.remembered_parts import RememberedParts
    from cosremaster.layers.scan import MemberScanner
    from cosremaster.progress import Progress
    from cosremaster.tree.limits import Limits
    from cosremaster.tree.nodes import Edits, Node
    from cosremaster.tree.superseding import SupersedeMode, Superseding

    EntryStream = Generator["StreamedEntry", None, str]
    Converter = Callable[[Iterator[bytes], Place], Iterator[bytes]]

FORMATS: dict[str, str] = {
    "cpio": "cosremaster.layers.cpio.format:CpioFormat",
    "squashfs": "cosremaster.layers.squashfs.format:SquashfsFormat",
    "tar": "cosremaster.layers.tar.format:TarFormat",
    "ext4": "cosremaster.layers.ext4.format:Ext4Format",
    "erofs": "cosremaster.layers.erofs.format:ErofsFormat",
}
"""By the format's name: ``module:class``. The module may stand outside the package."""

MAGICS: dict[str, tuple[tuple[int, bytes], ...]] = {
    "cpio": ((0, b"0707"), (0, b"\xc7\x71"), (0, b"\x71\xc7")),
    "squashfs": ((0, b"hsqs"),),
    "ext4": ((1080, b"\x53\xef"),),
    "erofs": ((1024, b"\xe2\xe1\xf5\xe0"),),
}
"""By the format's name: bytes and their places, of which every archive has some. Formats that are not here are loaded
for each file."""

_ANY = ((0, b""),)
"""What every file begins with."""

PLAIN_HEAD_SIZE = 4096
"""Plain bytes that a format sees of a file: tar's magic stands at 257, EROFS' at 1,024, ext4's at 1,080."""


class Repacking(enum.IntEnum):
    """What is written anew of a file system beside what changes, so that nothing of removed files stays in it."""

    NOTHING = 0
    METADATA = 1
    """All metadata: names and attributes of removed files go."""
    DATA = 2
    """Metadata, and data move together, so that those of removed files go too."""

    @property
    def noun(self) -> str:
        """What is repacked, for people and JSON; empty for nothing."""
        return ("", "metadata", "data")[self]


class EditResources(NamedTuple):
    """What an edit may use: a spool for bytes that are packed anew, and a number of threads; and what it repacks.

    ``progress``: gets a step for what the edit packs; None for silence. ``parts``: what earlier plans packed, or None.
    """

    spool: Spool
    threads: int
    repacking: Repacking = Repacking.NOTHING
    progress: Progress | None = None
    parts: RememberedParts | None = None


class PartsUse(NamedTuple):
    """What came of remembered parts: plain bytes of parts that were ``taken``; of those that were stored the ``plain``
    and the ``packed`` bytes.
    """

    taken: int = 0
    plain: int = 0
    packed: int = 0

    def plus(self, other: PartsUse) -> PartsUse:
        """Return the sums."""
        return PartsUse(*(mine + its for mine, its in zip(self, other, strict=True)))

    @property
    def is_empty(self) -> bool:
        """Whether nothing came of them."""
        return not any(self)


class NewStyle(NamedTuple):
    """How a new archive or file system is written.

    ``compression``: of the blocks of a file system, and ``block_size`` in bytes; None for the format's defaults.
    ``made_at``: seconds since 1970, where it tells when it was made.
    """

    made_at: int
    compression: str | None = None
    block_size: int | None = None


class DeadBytes(NamedTuple):
    """Bytes of a file system that nothing leads to: of ``data``, and about how many of ``metadata``.

    Tails of removed files that share a block with others are not among them.
    """

    data: int
    metadata: int


class ContainerEntry(NamedTuple):
    """An entry of an archive whose data are an archive too.

    ``number``: its place among the entries, from 0; ``name``: as the archive has it; ``offset``: the plain byte of the
    archive's stream where the entry begins; ``size``: bytes of its data.
    """

    number: int
    name: bytes
    offset: int
    size: int


class ArchiveIndex(Protocol):
    """The entries of one archive or file system, as its format found them. A format derives its own class."""

    @property
    def version(self) -> str:
        """The version of the format for people, as in ``070701``; may be empty."""
        return ""

    @property
    def oddity(self) -> str:
        """What is odd about the archive, for people, as the end of a sentence about it; empty for nothing."""
        return ""

    @property
    def paths(self) -> Sequence[bytes]:
        """The normal path of each entry, in the archive's order; of a format that is read front to back."""
        raise LookupError("paths are those of the tree")

    def unpacked_paths(self, layer: Layer) -> Sequence[bytes]:
        """Return the path that each entry of ``layer``, the archive of the index, unpacks to."""
        return self.paths

    @property
    def unfollowed_symlinks(self) -> Iterable[bytes]:
        """The paths of symlinks that :attr:`paths` does not follow, where names alone were read."""
        return ()

    @property
    def entry_count(self) -> int:
        """How many entries the archive has."""
        return len(self.paths)

    def entry_spans(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield normal path, start and end of each entry, in plain bytes of its stream; of an archive alone."""
        return iter(())

    def tree(self, layer: Layer) -> Mapping[bytes, Node]:
        """Return the nodes of ``layer``, whose index this is, by path.

        Of several archives in a file the nodes of those that are unpacked before it (``layer.preceding``) too.
        """
        ...

    def list_lost_acls(self, layer: Layer) -> Sequence[bytes]:
        """Return the paths of ``layer`` whose nodes are without an access control list that the archive has.

        It names users or groups that are not known there.
        """
        return ()

    def container_entry(self, number: int) -> ContainerEntry:
        """Return the entry at place ``number``, a regular file; for a format that hands files to a scanner."""
        raise LookupError(number)

    def entry_data(self, number: int, plain: Source) -> PieceTable:
        """Return the data of the regular file at place ``number``; ``plain``: the stream that holds the archive."""
        raise LookupError(number)

    def find_landmarks(self, layer: Layer, paths: Sequence[bytes]) -> Sequence[bytes]:
        """Return paths by which ``layer`` is known as a root file system: the top ones, and those of ``paths`` it has.

        More may be among them.
        """
        return self.paths

    def check_data(self, layer: Layer, visit: Callable[[Node], None] = lambda node: None) -> None:
        """Read all of ``layer`` that indexing did not. :raises CorruptError: damage, with its place.

        :param visit: called with each regular file of a file system, before its data are read.
        """
        return

    def check_kept(self, layer: Layer) -> None:
        """Check what of ``layer`` an edit keeps without having read it; a plan alone goes without.

        :raises CorruptError: the edit would change it, or it is damaged.
        """
        return

    def find_breaches(self, layer: Layer, *, with_data: bool) -> Iterator[tuple[str, Place]]:
        """Yield a sentence about each rule of the format's readers that ``layer`` breaks, with its place.

        :param with_data: look at the data of files too. :raises CorruptError: damage, with its place.
        """
        return iter(())

    def plan_superseding(
        self, layer: Layer, edits: Edits, mode: SupersedeMode, changes: Mapping[Address, Edits], *, is_booted: bool
    ) -> Superseding:
        """Return which entries of ``layer`` stay though ``edits`` replace them, where the format can do so.

        ``changes``: edits of layers by address, those around it among them. ``is_booted``: a kernel is known to unpack
        the layer, or what holds it and to start its ``/init``.
        :raises UnsupportedError: a superseded entry would count again after ``changes``, and cannot go.
        """
        from cosremaster.tree.superseding import NO_SUPERSEDING  # noqa: PLC0415 - a plain listing needs none of it

        return NO_SUPERSEDING

    def needs_unpacker(self, layer: Layer) -> bool:
        """Return whether another program than the unpacker of ``layer`` takes entries that later ones supersede."""
        return False

    def count_superseded(self, layer: Layer) -> tuple[int, int]:
        """Return how many entries of ``layer`` later ones of their name supersede, and the bytes of these entries."""
        return 0, 0

    def edit_warnings(self, layer: Layer, edits: Edits, repacking: Repacking) -> Iterator[str]:
        """Yield sentences about what ``edits`` of ``layer``, and ``repacking`` beside them, leave behind or lose."""
        return iter(())

    def count_dead_bytes(self, layer: Layer, table: PieceTable) -> DeadBytes | None:
        """Return what :class:`Repacking` would drop of ``table``, the plain bytes of ``layer`` after edits.

        None where that is not counted, because it would take too long. :raises CorruptError: damage, with its place.
        """
        return DeadBytes(0, 0)

    def check_row(self, layer: Layer, changes: Mapping[Address, Edits]) -> None:
        """Check that after ``changes``, by address, the archives up to ``layer`` unpack to what these say.

        Of several archives in a file, ``layer`` is the last. :raises OverlayError: they do not, as entries of one
        depend on those of another.
        """
        return

    def edit(self, layer: Layer, edits: Edits, resources: EditResources) -> PieceTable:
        """Return the plain bytes of the stream of ``layer`` after ``edits``.

        :param resources: for a format that compresses its files one by one, or repacks itself: that does so without
            ``edits`` too.
        :raises SizeError: a file is too large for the format. :raises OverlayError: a new entry breaks a rule of the
            programs that read the format. :raises ProofError: an entry that stays would.
        """
        ...

    def replace(self, layer: Layer, entry: ContainerEntry, data: PieceTable) -> PieceTable:
        """Return the plain bytes of the stream of ``layer`` with ``data`` in place of those of ``entry``.

        It is for archives; a file system gets new bytes of a file by :meth:`edit`.

        :raises SizeError: ``data`` are too large for the format.
        """
        raise LookupError(entry.number)

    def make_blank(self, layer: Layer) -> bytes:
        """Return a layer without files, written as ``layer`` is, with the attributes of its root directory.

        Edits of it make a new layer. For a format that can lie over another layer of its kind.
        """
        raise LookupError(f"{type(self).__name__} lies over no other layer")

    def dump(self, blobs: Blobs) -> dict[str, Any]:
        """Return the index as JSON values, with its bytes in ``blobs``, for :meth:`LayerFormat.load`.

        :raises ValueError: something in it cannot be written so.
        """
        ...

    def check_loaded(self, size: int, tail: bytes) -> None:
        """Check that an index that was loaded can be that of ``size`` plain bytes, of which ``tail`` are the last.

        :raises ValueError: it cannot.
        """
        return

    def inodes(self, layer: Layer, removed: Collection[bytes]) -> Iterator[tuple[int, int]]:
        """Yield the type (as in ``st_mode``) and size in bytes of each inode that keeps a path not in ``removed``.

        The size of a symlink is that of its text. Data of hard links stay as long as one name does.
        """
        seen = set[object]()
        for path, node in self.tree(layer).items():
            if path in removed or node.link in seen:
                continue
            if node.link is not None:
                seen.add(node.link)
            yield node.kind, node.content.size if node.content is not None else len(node.target)

    def removed_inodes(self, layer: Layer, removed: Collection[bytes]) -> Sequence[tuple[int, int]] | None:
        """Return what :meth:`inodes` yields no more without the paths ``removed``; None where only that tells it."""
        return None

    def split_before(self, end: int) -> tuple[int, ArchiveIndex] | None:
        """Return where the first entry begins that does not end before plain byte ``end``, and the entries before it.

        None where the format cannot begin to read in the middle of an archive.
        """
        return None

    def joined(self, rest: ArchiveIndex) -> ArchiveIndex:
        """Return the entries of this index, which :meth:`split_before` made, and those of ``rest`` behind them."""
        raise TypeError(f"{type(self).__name__} was not split")


class StreamedEntry(NamedTuple):
    """An entry of an archive, and its bytes with zeros for holes, which are to be read before the next entry."""

    entry: ArchiveEntry
    data: Iterator[bytes]


class LayerFormat(Protocol):
    """A kind of archive or file system that can be a layer."""

    name: str
    """As in ``cpio``."""

    magic_end: int
    """Plain bytes from the beginning up to the end of the magic of the ordinary variant: 6 of newc, 263 of tar."""

    random_access: bool
    """False for an archive, which is read front to back; True for a file system, which is read at any place."""

    is_initramfs: bool = True
    """Whether a kernel unpacks such archives at boot, several in a file over each other.

    False: what is behind the end of the first is no part of it, no boot loader loads it, and on an image of other
    files it is a layer only where an address names it. A file system (``random_access``) has rules of its own.
    """

    limits: Limits
    """What it can hold."""

    refusal: str | None = None
    """Why a layer of the format cannot be changed, as the end of a sentence about it; None where it can."""

    reads_on_demand: bool = False
    """Whether an index holds nothing of a file but counts, as all else is read from the image when it is needed."""

    can_repack: bool = False
    """Whether edits leave old bytes behind, which :class:`Repacking` drops."""

    def identify(self, head: bytes) -> str | None:
        """Return the variant of the archive that begins with ``head``, None if it is of another format.

        ``head``: up to :data:`PLAIN_HEAD_SIZE` plain bytes. The ordinary variant is the empty string; the name of
        another one is shown behind the codec's, as in ``gzip+odc``.
        """
        ...

    def converter(self, variant: str) -> Converter | None:
        """Return what turns plain bytes of ``variant`` into those of the ordinary one; None where nothing has to.

        A converted layer is indexed and edited in the ordinary variant. The converter gets all that is left of a
        stream and its place.
        """
        return None

    def index(self, reader: ByteReader, origin: int, members: MemberScanner, table: PieceTable | None) -> ArchiveIndex:
        """Index the archive that begins where ``reader`` stands; the reader stands behind it then.

        :param origin: the position of ``reader`` from which offsets in the index count.
        :param members: takes the data of each regular file, if it wants them.
        :param table: all plain bytes of a format with random access, which needs no ``reader``; otherwise None.
        :raises CorruptError: damage, with its place.
        """
        ...

    def make_empty(self, root: Node, style: NewStyle) -> bytes:
        """Return the plain bytes of a new archive or file system that holds the directory ``root`` alone, as its root.

        :raises UsageError: there is no such compression or block size.
        :raises UnsupportedError: a library that it needs is not installed.
        """
        raise LookupError(f"{self.name} is only read")

    def stream_entries(self, reader: ByteReader) -> EntryStream | None:
        """Return the entries of the archive that begins where ``reader`` stands, to be read once and in order.

        It is for overlays, which copy what they need; None where the format leaves that to libarchive.
        The iterator raises CorruptError for damage, with its place. In the end it returns what is odd about the
        archive, as the end of a sentence about it; empty for nothing.
        """
        return None

    def load(self, values: dict[str, Any], blobs: memoryview) -> ArchiveIndex:
        """Return the index that :meth:`ArchiveIndex.dump` made values of.

        :raises ValueError, KeyError, TypeError, MismatchError: these are not such values.
        """
        ...

    def edit_warning(self, variant: str) -> str | None:
        """Return what an edit changes in an archive of ``variant`` beside its entries, None for nothing."""
        return None


@cache
def _load(target: str) -> LayerFormat:
    """Return the format whose class is ``module:class``."""
    module, _, name = target.partition(":")
    layer_format: LayerFormat = getattr(importlib.import_module(module), name)()
    return layer_format


def load_format(name: str) -> LayerFormat:
    """Return the format called ``name``. :raises KeyError: there is none."""
    return _load(FORMATS[name])


def identify_format(head: bytes) -> tuple[LayerFormat, str] | None:
    """Return the format, and its variant, of the archive whose plain bytes begin with ``head``; None for no archive."""
    for name, target in FORMATS.items():
        for place, magic in MAGICS.get(name, _ANY):
            if head.startswith(magic, place):
                layer_format = _load(target)
                variant = layer_format.identify(head)
                if variant is not None:
                    return layer_format, variant
                break
    return None


def format_names() -> str:
    """Return the names of all formats for people, as in ``cpio, squashfs or tar``."""
    *names, last = FORMATS
    return f"{', '.join(names)} or {last}" if names else last


def holds_format(noun: str) -> bool:
    """Return whether ``noun``, as in ``a cpio archive``, is a container of one of the formats."""
    return any(_load(target).limits.container == noun for target in FORMATS.values())
