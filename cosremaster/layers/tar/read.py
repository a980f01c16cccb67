"""Indexing a tar archive: one pass that notes every entry, up to the zeros at its end.

Little is imported: a plain listing of an archive needs this alone (browse/names.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cosremaster.errors import CorruptError, Place
from cosremaster.io.streams import ByteReader, sha256_of
from cosremaster.layers.tar import blocks, pax
from cosremaster.layers.tar.blocks import BLOCK, HeaderError, TarHeader
from cosremaster.layers.tar.entries import SparseMap, TarEntries, TarEntry
from cosremaster.layers.tar.index import TarIndex, TarStyle
from cosremaster.layers.tar.usual import parse_usual

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosremaster.layers.member_files import MemberKeeper
    from cosremaster.layers.scan import MemberScanner

MAX_ENTRIES = 2_000_000
"""More entries are taken for a bomb: each takes memory."""

MAX_RECORDS = 16 << 20
"""Bytes of extended headers before one entry."""

MAX_NAME = 1 << 20
"""Bytes of a long name of GNU form."""

MAX_SEGMENTS = 1 << 22
"""Parts of all sparse files of an archive together."""

MAX_KEPT = 256 << 20
"""Bytes of extended attributes that an archive may have."""

MAX_OWNER = _MAX_DEVICE = 0xFFFFFFFF
_MAX_MAP_DIGITS = 20

_FILE, _DIRECTORY, _SYMLINK = 0o100000, 0o040000, 0o120000
_KINDS = {
    blocks.SYMLINK: _SYMLINK, blocks.CHAR: 0o020000, blocks.BLOCK_DEVICE: 0o060000, blocks.DIRECTORY: _DIRECTORY,
    blocks.FIFO: 0o010000, blocks.GNU_DUMPDIR: _DIRECTORY,
}  # fmt: skip
"""By the type letter; any other is a regular file, as POSIX demands."""

_WITHOUT_DATA = frozenset(
    (blocks.HARD_LINK, blocks.SYMLINK, blocks.CHAR, blocks.BLOCK_DEVICE, blocks.DIRECTORY, blocks.FIFO)
)
_PAX_TYPES = (blocks.PAX, blocks.SUN_PAX)
_BEFORE_ENTRY = frozenset((*_PAX_TYPES, blocks.GNU_NAME, blocks.GNU_LINK, blocks.SUN_ACL, blocks.SUN_ATTRIBUTES))
"""Types of headers that belong to the next entry."""

_NO_ENTRY = frozenset((blocks.GNU_VOLUME, blocks.GNU_CONTINUATION, blocks.GNU_OLD_NAMES))


class _Before:
    """What stands before an entry and belongs to it: extended headers, and long names of GNU form.

    ``start``: where the first begins; None without any. ``records``: of pax headers, in order. ``is_pending``: the
    entry has not come yet.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.start: int | None = None
        self.records: pax.Records = []
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.size = 0
        self.is_pending = True


class EntryReader:
    """Reads the entries of one archive in order."""

    def __init__(self, reader: ByteReader, origin: int) -> None:
        """Begin where ``reader`` stands; offsets count from position ``origin``."""
        self.reader, self.origin = reader, origin
        self.entries = TarEntries()
        self.style = TarStyle()
        self.globals: dict[bytes, bytes] = {}
        self.inner_globals: list[tuple[int, int]] = []
        self.globals_end = 0
        self.has_end = True
        self.end = 0
        self._segments = self._attribute_bytes = 0
        self._sha256: Callable[..., Any] | None = None
        self._shared: dict[tuple[tuple[bytes, bytes], ...], tuple[tuple[bytes, bytes], ...]] = {}

    @property
    def _position(self) -> int:
        """The offset of the next byte."""
        return self.reader.position - self.origin

    def read(self, *, digests: bool, watch: MemberKeeper | None = None, counts: bool = False) -> TarIndex:
        """Read to the end of the archive; ``digests``: take those of regular files, or ``watch`` looks at these.

        ``counts``: only count the entries. :raises CorruptError: damage, with its place.
        """
        count = 0
        for number, entry in enumerate(self.iterate()):
            if number >= MAX_ENTRIES:
                raise CorruptError(f"more than {MAX_ENTRIES:,} entries are taken for a bomb", self._place(entry.start))
            if entry.uid > MAX_OWNER or entry.gid > MAX_OWNER:
                raise CorruptError(f"no system has an owner {max(entry.uid, entry.gid)}", self._place(entry.start))
            if watch is not None and entry.is_regular and entry.sparse is None and entry.stored:
                watch.watch(self.reader, entry.stored)
            count += counts
            if not counts:
                self.entries.add(entry, self._read_digest(entry) if digests else b"")
        return TarIndex(
            self.entries, self.style, self.end, self.globals, self.inner_globals, globals_end=self.globals_end,
            has_end=self.has_end, counted=count,
        )  # fmt: skip

    def iterate(self) -> Iterator[TarEntry]:
        """Yield each entry when the reader stands before its data, which may be read then.

        :raises CorruptError: damage, with its place.
        """
        before, reader = _Before(), self.reader
        while True:
            at = reader.position - self.origin
            if before.start is None and not self.globals:
                entry = parse_usual(*reader.buffered(), at, self.style)
                if entry is not None:
                    reader.skip(entry.data - at)
                    yield entry
                    self._skip_to(entry.end, entry.name)
                    continue
            try:
                block = self._next_block(at)
                if block is None:
                    break
                header = blocks.parse_header(block)
                entry = self._take_header(header, block, at, before)
            except HeaderError as error:
                raise CorruptError(str(error), self._place(at)) from None
            if entry is not None:
                yield entry
                self._skip_to(entry.end, entry.name)
            if not before.is_pending:
                before = _Before()
        if before.start is not None:
            raise CorruptError("no entry follows this extended header", self._place(before.start))

    def _next_block(self, at: int) -> bytes | None:
        """Return the next header block; None at the end, of which a block of zeros is read.

        :raises CorruptError: the archive ends within a block.
        """
        block = self.reader.read_upto(BLOCK)
        if len(block) == BLOCK and (block[0] or not blocks.is_zero(block)):
            return block
        if not blocks.is_zero(block):
            raise CorruptError("the archive is cut off within this header", self._place(at))
        self.end, self.has_end = at, bool(block)
        return None

    def _take_header(self, header: TarHeader, block: bytes, at: int, before: _Before) -> TarEntry | None:
        """Take in ``header``, whose ``block`` stands at ``at``; return its entry, None if it begins none."""
        self.style.note(header)
        kind = header.type
        if kind == blocks.PAX_GLOBAL:
            records = self._read_records(header, blocks.parse_number(header.size, "the size"))
            self.globals.update(pax.parse_records(records))
            self.globals = {keyword: value for keyword, value in self.globals.items() if value}
            self.globals_end = self._position
            if before.start is not None:
                self.inner_globals.append((at, self._position))
            return None
        if kind in _NO_ENTRY:
            self.style.note_part(kind)
            self._skip_data(blocks.parse_number(header.size, "the size"), header.full_name)
            before.is_pending = False
            return None
        if kind in _BEFORE_ENTRY:
            before.start = at if before.start is None else before.start
            self._take_before(header, before)
            return None
        before.is_pending = False
        return self._make_entry(header, block, at, before)

    def _take_before(self, header: TarHeader, before: _Before) -> None:
        """Take in a ``header`` that belongs to the next entry, and its data."""
        size = blocks.parse_number(header.size, "the size")
        before.size += size
        if before.size > MAX_RECORDS:
            raise HeaderError(f"the headers before an entry have more than {MAX_RECORDS >> 20} MiB")
        if header.type in _PAX_TYPES:
            before.records += pax.parse_records(self._read_records(header, size))
        elif header.type in (blocks.GNU_NAME, blocks.GNU_LINK):
            if size > MAX_NAME:
                raise HeaderError(f"a name of {size:,} bytes")
            name = self._read_records(header, size).partition(b"\0")[0]
            if header.type == blocks.GNU_NAME:
                before.name = name
            else:
                before.link = name
        else:
            self._skip_data(size, header.full_name)

    def _read_records(self, header: TarHeader, size: int) -> bytes:
        """Return the ``size`` bytes of data behind ``header``, and skip what fills their last block.

        :raises CorruptError: the archive ends before.
        """
        if not 0 <= size <= MAX_RECORDS:
            raise HeaderError(f"an extended header of {size:,} bytes")
        data = self.reader.read_exactly(size)
        self.reader.skip(blocks.padding_size(size))
        return data

    def _skip_data(self, size: int, name: bytes) -> None:
        """Skip ``size`` bytes of the entry ``name`` and what fills their last block.

        :raises CorruptError: the archive ends before.
        """
        if size < 0:
            raise HeaderError(f"a size of {size:,} bytes")
        try:
            self.reader.skip(size + blocks.padding_size(size))
        except CorruptError as error:
            raise self._locate(error, name) from error

    def _locate(self, error: CorruptError, name: bytes) -> CorruptError:
        """Return ``error``, which came while the data of the entry ``name`` were read, with its place."""
        return CorruptError(error.message, self.reader.place.inside(name).at(self.reader.origin + self.reader.position))

    def _place(self, at: int) -> Place:
        """Return the place of the byte at offset ``at``."""
        return self.reader.place_at(self.origin + at)

    def _make_entry(self, header: TarHeader, block: bytes, at: int, before: _Before) -> TarEntry:
        """Return the entry of ``header``; the reader stands before its data then."""
        records = self._effective_records(before)
        name = records.get(pax.SPARSE_NAME) or records.get(pax.PATH) or before.name or header.full_name
        link_name = records.get(pax.LINK_PATH) or before.link or header.link_name.partition(b"\0")[0]
        if b"\0" in name or b"\0" in link_name:
            raise HeaderError("a name in its pax header holds a NUL")
        mode = self._mode(header, name)
        size = self._size(header, records)
        may_lie = header.type in _WITHOUT_DATA or (mode & 0o170000 == _DIRECTORY and header.type != blocks.GNU_DUMPDIR)
        if size and may_lie and self._has_no_data():
            size = 0
        stated = records.get
        uid = self._owner(stated(pax.UID), header.uid)
        gid = self._owner(stated(pax.GID), header.gid)
        mtime = stated(pax.MTIME)
        start = at if before.start is None else before.start
        sparse, map_size = None, 0
        if mode & 0o170000 == _FILE and header.type != blocks.HARD_LINK:
            sparse, map_size = self._sparse(header, block, records, before, size)
        data = self._position
        entry = TarEntry(
            name, mode, uid, gid,
            blocks.parse_number(header.mtime, "the time") if mtime is None else pax.parse_time(mtime),
            start, at, data, size - map_size, data + size - map_size + blocks.padding_size(size),
            target=link_name if mode & 0o170000 == _SYMLINK else b"",
            link=link_name if header.type == blocks.HARD_LINK else None,
            rdev=self._device(header, records), xattrs=self._xattrs(records), sparse=sparse,
        )  # fmt: skip
        self.style.note_entry(header, records, name, is_directory=mode & 0o170000 == _DIRECTORY)
        return entry

    def _effective_records(self, before: _Before) -> Mapping[bytes, bytes]:
        """Return the pax records that count for an entry: its own, and global ones that it does not replace."""
        if not before.records:
            return self.globals
        self.style.has_pax = True
        own = dict(before.records)
        return {
            keyword: value
            for keyword, value in {**self.globals, **own}.items()
            if value or (keyword.startswith((pax.SCHILY_XATTR, pax.LIBARCHIVE_XATTR)) and keyword not in self.globals)
        }

    def _mode(self, header: TarHeader, name: bytes) -> int:
        """Return the type and the permissions as in st_mode; a file whose name ends in a slash is a directory."""
        permissions = blocks.parse_number(header.mode, "the mode") & 0o7777
        kind = _KINDS.get(header.type, _FILE)
        if kind == _FILE and name.endswith(b"/") and header.type != blocks.HARD_LINK:
            kind = _DIRECTORY
        return kind | permissions

    def _size(self, header: TarHeader, records: Mapping[bytes, bytes]) -> int:
        """Return the bytes of data in the archive. :raises HeaderError: no file has so many."""
        stated = records.get(pax.SIZE)
        if stated is not None:
            return pax.parse_decimal(stated, "the size")
        size = blocks.parse_number(header.size, "the size")
        if size < 0:
            raise HeaderError(f"a size of {size:,} bytes")
        return size

    def _has_no_data(self) -> bool:
        """Return whether no data follow a header of a type without any, although it has a size.

        Many writers put a file's size there; others (pax -o linkdata) mean it. What follows decides.
        """
        block = self.reader.peek(BLOCK)
        return len(block) < BLOCK or blocks.is_zero(block) or blocks.looks_like_header(block)

    def _owner(self, stated: bytes | None, field: bytes) -> int:
        """Return an owner's number. :raises HeaderError: no system has it."""
        number = blocks.parse_number(field, "an owner") if stated is None else pax.parse_decimal(stated, "an owner")
        if number < 0:
            raise HeaderError(f"no system has an owner {number}")
        return number

    def _device(self, header: TarHeader, records: Mapping[bytes, bytes]) -> tuple[int, int]:
        """Return the device number of a device; zeros for anything else. :raises HeaderError: it is none."""
        if header.type not in (blocks.CHAR, blocks.BLOCK_DEVICE):
            return 0, 0
        numbers = []
        for keyword, field in ((pax.DEVICE_MAJOR, header.major), (pax.DEVICE_MINOR, header.minor)):
            stated = records.get(keyword)
            number = blocks.parse_number(field, "a device") if stated is None else pax.parse_decimal(stated, "a device")
            if not 0 <= number <= _MAX_DEVICE:
                raise HeaderError(f"no system has a device number {number}")
            numbers.append(number)
        return numbers[0], numbers[1]

    def _xattrs(self, records: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes; equal ones of many entries are one object."""
        xattrs = pax.collect_xattrs(records) if records else ()
        if not xattrs or xattrs in self._shared:
            return self._shared.get(xattrs, ())
        self._attribute_bytes += sum(len(name) + len(value) for name, value in xattrs)
        if self._attribute_bytes > MAX_KEPT:
            raise HeaderError(f"the archive's extended attributes have more than {MAX_KEPT >> 20} MiB")
        return self._shared.setdefault(xattrs, xattrs)

    def _sparse(
        self, header: TarHeader, block: bytes, records: Mapping[bytes, bytes], before: _Before, size: int
    ) -> tuple[SparseMap | None, int]:
        """Return the map of a sparse file, None for another, and how many bytes of its data it takes.

        The reader stands behind these then. :raises HeaderError: the map is no map of ``size`` bytes.
        """
        numbers: list[int] | array[int]
        if header.type == blocks.GNU_SPARSE:
            if not header.is_gnu:
                raise HeaderError("a sparse file of another form than GNU's")
            real_size, numbers = blocks.parse_real_size(block), self._old_segments(block)
            return self._checked_map(real_size, numbers, size), 0
        if pax.SPARSE_MAJOR in records or pax.SPARSE_MINOR in records:
            version = records.get(pax.SPARSE_MAJOR, b"0"), records.get(pax.SPARSE_MINOR, b"0")
            if version == (b"1", b"0"):
                real_size = pax.parse_decimal(records.get(pax.SPARSE_REAL_SIZE, b""), "the size with holes")
                start = self._position
                numbers = self._leading_segments(size)
                map_size = self._position - start
                return self._checked_map(real_size, numbers, size - map_size), map_size
            if version not in ((b"0", b"0"), (b"0", b"1")):
                raise HeaderError("a sparse file of an unknown form")
        if pax.SPARSE_MAP in records:
            numbers = pax.parse_map(records[pax.SPARSE_MAP])
        elif pax.SPARSE_COUNT in records or pax.SPARSE_SIZE in records:
            numbers = list(_paired_segments(before.records))
        else:
            return None, 0
        stated = records.get(pax.SPARSE_SIZE) or records.get(pax.SPARSE_REAL_SIZE, b"")
        return self._checked_map(pax.parse_decimal(stated, "the size with holes"), numbers, size), 0

    def _old_segments(self, block: bytes) -> array[int]:
        """Return the map of a sparse file of old GNU form, in its header and in blocks behind it."""
        numbers = array("Q")
        slots = blocks.parse_sparse_slots(block, is_extension=False)
        while True:
            try:
                numbers.extend(number for segment in slots.segments for number in segment)
            except OverflowError:
                raise HeaderError("a negative number in its sparse map") from None
            self._count_segments(len(numbers) // 2)
            if not slots.is_extended:
                return numbers
            slots = blocks.parse_sparse_slots(self.reader.read_exactly(BLOCK), is_extension=True)

    def _leading_segments(self, size: int) -> array[int]:
        """Return the map that the data of a file of form 1.0 begin with: decimal numbers, each on a line.

        The map fills whole blocks. ``size``: of the data. :raises HeaderError: it is no map.
        """
        numbers, rest, count, taken = array("Q"), b"", None, 0
        while count is None or len(numbers) < 2 * count:
            if taken + BLOCK > size:
                raise HeaderError("its sparse map is longer than its data")
            *lines, rest = (rest + self.reader.read_exactly(BLOCK)).split(b"\n")
            taken += BLOCK
            values = [pax.parse_decimal(line, "a number of the sparse map") for line in lines if line.strip(b"\0")]
            if len(rest := rest.rstrip(b"\0")) > _MAX_MAP_DIGITS:
                raise HeaderError("a number of its sparse map is too long")
            if count is None:
                if not values:
                    raise HeaderError("its sparse map has no length")
                count, *values = values
                self._count_segments(count)
            numbers.extend(values[: 2 * count - len(numbers)])
        return numbers

    def _count_segments(self, count: int) -> None:
        """Check that a map of ``count`` segments is no bomb."""
        if self._segments + count > MAX_SEGMENTS:
            raise HeaderError(f"sparse files of more than {MAX_SEGMENTS:,} parts")

    def _checked_map(self, real_size: int, numbers: list[int] | array[int], stored: int) -> SparseMap:
        """Return the map of a file of ``real_size`` bytes, of which ``stored`` are in the archive.

        :raises HeaderError: its parts overlap, leave the file, or are not all that is stored.
        """
        reached = total = 0
        if len(numbers) % 2:
            raise HeaderError("its sparse map has an offset without a size")
        self._count_segments(len(numbers) // 2)
        self._segments += len(numbers) // 2
        for offset, size in zip(numbers[::2], numbers[1::2], strict=True):
            if offset < reached or offset + size > real_size:
                raise HeaderError("the parts of its sparse map overlap, or leave the file")
            reached, total = offset + size, total + size
        if total != stored:
            raise HeaderError(f"its sparse map tells of {total:,} bytes, and {stored:,} are stored")
        return SparseMap(real_size, array("Q", numbers))

    def _read_digest(self, entry: TarEntry) -> bytes:
        """Read the data of ``entry`` and return their SHA-256; empty if it is not to be taken.

        That of a sparse file is not taken, for its holes may be larger than any disk.
        """
        if not entry.is_regular or entry.sparse is not None:
            return b""
        data = self.reader.read_view(entry.stored)
        if data is None:
            return sha256_of(self.read_stored(entry))
        if self._sha256 is None:
            from hashlib import sha256  # noqa: PLC0415 - a plain listing needs none of it

            self._sha256 = sha256
        return self._sha256(data, usedforsecurity=False).digest()

    def read_stored(self, entry: TarEntry) -> Iterator[bytes]:
        """Yield the stored data of ``entry``, before which the reader stands.

        :raises CorruptError: the archive ends before.
        """
        try:
            yield from self.reader.read_parts(entry.stored)
        except CorruptError as error:
            raise self._locate(error, entry.name) from error

    def _skip_to(self, end: int, name: bytes) -> None:
        """Skip the rest of the entry ``name``, which ends at ``end``. :raises CorruptError: the archive ends before."""
        try:
            self.reader.skip(end + self.origin - self.reader.position)
        except CorruptError as error:
            raise self._locate(error, name) from error


def _paired_segments(records: pax.Records) -> Iterator[int]:
    """Yield the numbers of a sparse map of form 0.0, whose keywords come again for each part.

    :raises HeaderError: an offset has no size, or a size no offset.
    """
    expected = pax.SPARSE_OFFSET
    for keyword, value in records:
        if keyword not in (pax.SPARSE_OFFSET, pax.SPARSE_BYTES):
            continue
        if keyword != expected:
            raise HeaderError("its sparse map has an offset without a size")
        yield pax.parse_decimal(value, "a number of the sparse map")
        expected = pax.SPARSE_BYTES if expected == pax.SPARSE_OFFSET else pax.SPARSE_OFFSET


def read_index(reader: ByteReader, origin: int, scanner: MemberScanner) -> TarIndex:
    """Index the archive that begins where ``reader`` stands; offsets count from position ``origin``.

    ``scanner`` says whether the digests of regular files are taken, and what looks at these.

    :raises CorruptError: damage, with its place.
    """
    digests = scanner.options.digests and scanner.watch is None
    counts = scanner.options.counts
    return EntryReader(reader, origin).read(digests=digests, watch=scanner.watch, counts=counts)
