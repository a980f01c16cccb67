"""Indexing a cpio archive: one pass that notes every entry.

Little is imported: a plain listing of an initramfs needs this alone (browse/names.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import eq
from typing import TYPE_CHECKING, Any, cast

from cosremaster.errors import CorruptError, Place
from cosremaster.io.streams import ByteReader
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.members import DottedNames, Member, Members
from cosremaster.layers.formats import ArchiveIndex, ContainerEntry, EditResources
from cosremaster.tree.paths import has_parent_parts, normal_name, normal_names

if TYPE_CHECKING:
    from cosremaster.io.pieces import PieceTable, Source
    from cosremaster.layers.address import Address
    from cosremaster.layers.blobs import Blobs
    from cosremaster.layers.cpio.tree import CpioTree
    from cosremaster.layers.model import Layer
    from cosremaster.layers.scan import MemberScanner
    from cosremaster.tree.nodes import Edits
    from cosremaster.tree.superseding import SupersedeMode, Superseding

MAX_TARGET = 65536
"""A longer symlink target is taken for damage."""

# File types as in st_mode (POSIX <sys/stat.h>), each as the hexadecimal digit it is; nodes.NodeKind has their names.
_FILE, SYMLINK, _OTHER = b"8", b"aA", b"1246cC"
TYPES = _FILE + SYMLINK + _OTHER

_TYPE_BITS, _FILE_BITS = 0o170000, 0o100000  # S_IFMT and S_IFREG


class CpioIndex(ArchiveIndex):
    """The entries of one archive before its trailer.

    ``has_trailer``: without one ``trailer`` is what an edit puts behind the last entry. ``counted``: how many entries
    there are, where no ``members`` were made of them; ``links``: then the paths of symlinks.
    """

    __slots__ = ("_paths", "counted", "has_trailer", "links", "members", "trailer")

    def __init__(
        self, members: Members, trailer: cpio.NewcEntry, *, counted: int = 0, paths: Sequence[bytes] | None = None,
        links: Sequence[bytes] = (), has_trailer: bool = True,
    ) -> None:  # fmt: skip
        """:param paths: of the entries that were ``counted``, where they were wanted."""
        self.members = members
        self.has_trailer = has_trailer
        self.trailer = trailer
        self.counted, self.links = counted, links
        self._paths = paths

    @property
    def version(self) -> str:
        """The magic: 070701 or 070702."""
        return self.trailer.header.magic.decode()

    @property
    def oddity(self) -> str:
        """That the trailer is missing, if it is."""
        return "" if self.has_trailer else f"has no {cpio.TRAILER.decode()} entry; an edit writes one"

    @property
    def paths(self) -> Sequence[bytes]:
        """The normal path of each entry."""
        if self._paths is None:
            names = self.members.names
            if isinstance(names, DottedNames):
                self._paths = names.paths
                return names.paths
            self._paths = normal_names(names)
            if self._paths is not names:
                dotted = DottedNames(self._paths)
                if all(map(eq, names, dotted)):
                    self.members.names = dotted
        return self._paths

    def unpacked_paths(self, layer: Layer) -> Sequence[bytes]:
        """Return the path that each entry unpacks to: a directory in its name may be a symlink."""
        if self.counted or not (self.members.targets or layer.preceding or has_parent_parts(self.paths)):
            return self.paths
        from cosremaster.layers.cpio.paths import unpacked_paths  # noqa: PLC0415 - imports this module

        return unpacked_paths(layer)

    @property
    def unfollowed_symlinks(self) -> Iterable[bytes]:
        """The paths of symlinks, where names alone were read."""
        return self.links

    @property
    def entry_count(self) -> int:
        """How many entries stand before the trailer."""
        return self.counted or len(self.members)

    def entry_spans(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield path, start and end of each entry."""
        offsets = self.members.offsets
        return zip(self.paths, offsets, chain(islice(offsets, 1, None), (self.trailer.offset,)), strict=True)

    def tree(self, layer: Layer) -> CpioTree:
        """Return the nodes of ``layer`` by path."""
        from cosremaster.layers.cpio.tree import CpioTree  # noqa: PLC0415 - a plain listing needs none of it

        return CpioTree(layer)

    def container_entry(self, number: int) -> ContainerEntry:
        """Return the entry at place ``number``."""
        entry = self.members[number].entry
        return ContainerEntry(number, entry.name, entry.offset, entry.header.size)

    def entry_data(self, number: int, plain: Source) -> PieceTable:
        """Return the data of the entry at place ``number`` as a range of ``plain``."""
        from cosremaster.io.pieces import PieceTable, Range  # noqa: PLC0415 - a plain listing needs none of it

        entry = self.members[number].entry
        return PieceTable([Range(plain, entry.data_offset, entry.header.size)])

    def edit(self, layer: Layer, edits: Edits, resources: EditResources) -> PieceTable:
        """Return the plain bytes of the stream after ``edits``; raises as :meth:`ArchiveIndex.edit`."""
        from cosremaster.layers.cpio.edit import apply_edits  # noqa: PLC0415 - only edits need it

        return apply_edits(layer, edits)

    def check_row(self, layer: Layer, changes: Mapping[Address, Edits]) -> None:
        """Check that the archives up to ``layer`` unpack to what ``changes`` say. :raises OverlayError: they do not."""
        from cosremaster.layers.cpio.check_row import check_row  # noqa: PLC0415 - only edits need it

        check_row(layer, changes)

    def replace(self, layer: Layer, entry: ContainerEntry, data: PieceTable) -> PieceTable:
        """Return the plain bytes of the stream with ``data`` in ``entry``. :raises SizeError: they do not fit."""
        from cosremaster.layers.cpio.edit import replace_entry_data  # noqa: PLC0415 - only edits need it

        return replace_entry_data(layer, self.members[entry.number].entry, data)

    def plan_superseding(
        self, layer: Layer, edits: Edits, mode: SupersedeMode, changes: Mapping[Address, Edits], *, is_booted: bool
    ) -> Superseding:
        """Return which replaced entries stay, so that nothing behind them is encoded again."""
        from cosremaster.layers.cpio.supersede import plan_superseding  # noqa: PLC0415 - only edits need it

        return plan_superseding(layer, edits, mode, changes, is_booted=is_booted)

    def needs_unpacker(self, layer: Layer) -> bool:
        """Return whether another program than the unpacker of ``layer`` takes entries that later ones supersede."""
        if len(set(layer.paths)) == len(layer.paths):
            return False
        from cosremaster.layers.cpio.supersede import needs_unpacker  # noqa: PLC0415 - few archives have such entries

        return needs_unpacker(layer)

    def count_superseded(self, layer: Layer) -> tuple[int, int]:
        """Return how many entries later ones of their name supersede, and the bytes of these entries."""
        if len(set(layer.paths)) == len(layer.paths):
            return 0, 0
        dead = cast("CpioTree", layer.tree()).superseded_numbers
        entries = [self.members[number].entry for number in dead]
        return len(entries), sum(entry.end - entry.offset for entry in entries)

    def dump(self, blobs: Blobs) -> dict[str, Any]:
        """Return the index as JSON values and blobs. :raises ValueError: a NUL is in a string, or no trailer."""
        from cosremaster.layers.cpio.dump import dump_index  # noqa: PLC0415 - only a remembered index needs it

        return dump_index(self, blobs)

    def check_loaded(self, size: int, tail: bytes) -> None:
        """Check entries that were loaded: they follow one another in ``size`` bytes, which end with ``tail``.

        :raises ValueError: they do not, or have impossible headers.
        """
        from cosremaster.layers.cpio.dump import check_entries, check_tail  # noqa: PLC0415 - only a remembered index needs it

        check_entries(self, size)
        check_tail(self, size, tail)

    def inodes(self, layer: Layer, removed: Collection[bytes]) -> Iterator[tuple[int, int]]:
        """Yield type and size of each inode that keeps a path not in ``removed``."""
        linked: dict[object, int] = {}
        remaining = set[object]()
        paths = layer.paths
        dead = cast("CpioTree", layer.tree()).superseded_numbers if len(set(paths)) < len(paths) else frozenset[int]()
        for number, (path, values) in enumerate(zip(paths, self.members.all_fields(), strict=True)):
            if number in dead:
                continue
            _, mode, _, _, nlink, _, size, *_ = values
            if nlink > 1 and (key := link_key_of(values)):
                linked[key] = max(linked.get(key, 0), size)
                if path not in removed:
                    remaining.add(key)
            elif path not in removed:
                yield mode & _TYPE_BITS, size
        yield from ((_FILE_BITS, linked[key]) for key in remaining)

    def removed_inodes(self, layer: Layer, removed: Collection[bytes]) -> Sequence[tuple[int, int]] | None:
        """Return type and size of each inode that goes with the paths ``removed``; None where another path may keep it.

        Of several entries at a path those before the last must be superseded ones, which are no inodes.
        """
        tree = cast("CpioTree", layer.tree())
        found: list[tuple[int, int]] = []
        for path in removed:
            *earlier, last = tree.own_numbers_at(path) or (None,)
            if last is None:
                continue
            header = self.members[last].entry.header
            if link_key_of(header.fields) or not tree.superseded_numbers.issuperset(earlier):
                return None
            found.append((header.mode & _TYPE_BITS, header.size))
        return found

    def split_before(self, end: int) -> tuple[int, CpioIndex]:
        """Return where the entries that end at or before plain byte ``end`` end, and those entries."""
        ends = self.members.offsets[1:]
        ends.append(self.trailer.offset)
        count = bisect_right(ends, end, hi=len(self.members))
        front = CpioIndex(self.members[:count], self.trailer, has_trailer=self.has_trailer)
        return ends[count - 1] if count else 0, front

    def joined(self, rest: ArchiveIndex) -> CpioIndex:
        """Return the entries of both, with the trailer of ``rest``."""
        later = cast("CpioIndex", rest)
        if later.counted:
            count = self.entry_count + later.counted
            return CpioIndex(Members.empty(), later.trailer, counted=count, has_trailer=later.has_trailer)
        if isinstance(self.members.names, DottedNames):
            _ = later.paths  # if these names are such ones, they become so too
        return CpioIndex(self.members + later.members, later.trailer, has_trailer=later.has_trailer)


def index_of(layer: Layer) -> CpioIndex:
    """Return the index of ``layer``, a cpio archive."""
    return cast("CpioIndex", layer.index)


def link_key(member: Member) -> tuple[int, tuple[int, int]] | None:
    """Return inode number and device, which names of one hard-linked file have in common; None for no hard link."""
    return link_key_of(member.entry.header.fields)


def link_key_of(fields: tuple[int, ...]) -> tuple[int, tuple[int, int]] | None:
    """Return :func:`link_key` of the entry whose header has the 13 ``fields``."""
    ino, mode, _, _, nlink, _, _, major, minor, *_ = fields
    return (ino, (major, minor)) if nlink > 1 and mode & _TYPE_BITS == _FILE_BITS else None


def read_index(reader: ByteReader, origin: int, scanner: MemberScanner) -> CpioIndex:
    """Index the archive that begins where ``reader`` stands; offsets count from position ``origin``.

    ``scanner`` gets the data of regular files, if it wants them. :raises CorruptError: damage, with its place.
    """
    if scanner.options.names or scanner.options.counts:
        return _read_names(reader, origin, counts=scanner.options.counts)
    members = Members.empty()
    try:
        trailer = _read_members(reader, origin, scanner, members)
    except cpio.MissingTrailerError:
        if not members:
            raise
        last = members[-1].entry
        trailer = cpio.missing_trailer(last.header.magic, last.end)
        return CpioIndex(members, trailer, has_trailer=False)
    cpio.skip_data(reader, origin + trailer.end, cpio.TRAILER)
    return CpioIndex(members, trailer)


def _read_members(reader: ByteReader, origin: int, scanner: MemberScanner, members: Members) -> cpio.NewcEntry:
    """Add every entry of the archive to ``members`` and return the trailer; raises as :func:`read_index`.

    :raises MissingTrailerError: there is no trailer.
    """
    wants_data = scanner.wants_data
    for entry in cpio.read_entries(reader, origin):
        header, name, _ = entry
        if name == cpio.TRAILER:
            return entry
        target = digest = b""
        kind = _checked_type(reader, entry)
        if kind in SYMLINK:
            target = reader.read_upto(header.size)
            if len(target) < header.size:
                cpio.skip_data(reader, origin + entry.end, name)  # which says how much of the entry is missing
            target = target.partition(b"\0")[0]  # the kernel's own gen_init_cpio writes a NUL behind it
        elif wants_data and kind in _FILE and (size := header.size):
            digest = scanner.scan(reader, size, name, len(members), entry.offset)
        members.add(entry, target, digest)
    raise AssertionError("an archive ends with its trailer, or an error")


def _read_names(reader: ByteReader, origin: int, *, counts: bool) -> CpioIndex:
    """Index the paths of the entries alone, and which are symlinks; where ``counts``, only how many there are."""
    count, paths, links = 0, list[bytes](), list[bytes]()
    while True:
        names = cpio.skip_entries(reader, _FILE + _OTHER)
        has_trailer = True
        try:
            entry, end = cpio.read_entry(reader, origin)
        except cpio.MissingTrailerError:
            if not (count or names):
                raise
            entry, end = cpio.missing_trailer(cpio.NEWC, 0), reader.position
            has_trailer = False
        is_last = entry.name == cpio.TRAILER
        if not is_last:
            names.append(entry.name)
            if _checked_type(reader, entry) in SYMLINK and not counts:
                links.append(normal_name(entry.name))
        count += len(names)
        if not counts:
            paths += normal_names(names)
        cpio.skip_data(reader, end, entry.name)
        if is_last:
            return CpioIndex(
                Members.empty(), entry, counted=count, paths=None if counts else paths, links=links,
                has_trailer=has_trailer,
            )  # fmt: skip


def _checked_type(reader: ByteReader, entry: cpio.NewcEntry) -> int:
    """Return the digit of the file type of ``entry``.

    :raises CorruptError: there is no such type, or the entry is a symlink with a text of too many bytes.
    """
    header = entry.header
    kind = header.type_digit
    if kind not in TYPES:
        raise CorruptError(f"no file type has mode {header.mode:o}", _place_of(reader, entry))
    if kind in SYMLINK and header.size > MAX_TARGET:
        raise CorruptError(f"symlink target of {header.size:,} bytes", _place_of(reader, entry))
    return kind


def _place_of(reader: ByteReader, entry: cpio.NewcEntry) -> Place:
    """Return the place of the header of ``entry``."""
    return reader.place.inside(entry.name).at(entry.offset)
