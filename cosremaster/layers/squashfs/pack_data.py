"""New data blocks: stored where they do not shrink, else packed in parallel as the image's others are."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from cosremaster.codecs.part_memory import PackedPart, PartMemory, pack_part
from cosremaster.errors import ProofError
from cosremaster.io.parallel import StopFlag, ordered_map
from cosremaster.io.pieces import Piece, PieceTable
from cosremaster.layers.formats import EditResources
from cosremaster.layers.squashfs.block_rules import dictionary_limit, find_block_fault
from cosremaster.layers.squashfs.blocks import BlockError
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.inodes import NO_FRAGMENT, STORED_BLOCK
from cosremaster.layers.squashfs.superblock import Flags
from cosremaster.progress import ENCODE, SilentProgress, begin_work, skip_bytes
from cosremaster.records import Struct, field
from cosremaster.records.tuples import NamedTuple
from cosremaster.tree.nodes import Content

_SAMPLE, _SAMPLES = 4096, 4
_WORTH = 0.98
"""Samples that deflate makes no smaller than this are taken for incompressible."""


class PackedData(Struct, frozen=True):
    """Where the data of a new file are: as in an inode, ``start`` counted from the start of all new data."""

    size: int
    start: int = 0
    blocks: tuple[int, ...] = ()
    sparse: int = 0
    fragment: int = NO_FRAGMENT
    offset: int = 0


class _Block(NamedTuple):
    """A block to be packed: of the file at place ``file``, from byte ``start``; ``file`` is -1 for a fragment block."""

    file: int
    start: int
    plain: bytes


class _Tail(NamedTuple):
    """The tail of the file at place ``file``, in fragment block ``fragment``, at ``offset``."""

    file: int
    fragment: int
    offset: int


class NewBlocks(Struct):
    """The data of all new files, packed.

    ``pieces``: the bytes, in order, ``length`` of them; ``files``: by the place in the request; ``fragments``: start
    and size word of each new fragment block, the start counted from the start of all new data.
    """

    pieces: list[Piece] = field(default_factory=list)
    length: int = 0
    files: dict[int, PackedData] = field(default_factory=dict)
    fragments: list[tuple[int, int]] = field(default_factory=list)

    def add(self, pieces: Iterable[Piece]) -> None:
        """Put ``pieces`` behind all others."""
        for piece in pieces:
            self.pieces.append(piece)
            self.length += piece.length


class DataPacker:
    """Packs the data of new files for ``filesystem``."""

    def __init__(self, filesystem: SquashfsFilesystem, resources: EditResources) -> None:
        """Begin without data."""
        self._filesystem, self._resources = filesystem, resources
        self._size = filesystem.superblock.block_size
        self._flags = filesystem.superblock.flags
        self._compression = filesystem.superblock.compression
        self._dictionary = dictionary_limit(self._compression, filesystem.read_options(), self._size)

    def pack(self, contents: Sequence[Content]) -> NewBlocks:
        """Return the packed data of ``contents``; equal ones have theirs in common.

        :raises OutputError: temporary data cannot be written. Raises what reading the contents raises.
        """
        earlier = _find_equal(contents) if self._flags & Flags.DUPLICATES else {}
        distinct = [number for number in range(len(contents)) if number not in earlier]
        new = self._pack_distinct([contents[number] for number in distinct])
        files = {number: new.files[place] for place, number in enumerate(distinct)}
        new.files = {number: files[earlier.get(number, number)] for number in range(len(contents))}
        return new

    def _pack_distinct(self, contents: Sequence[Content]) -> NewBlocks:
        """Return the packed data of ``contents``, one behind the other. Raises as :meth:`pack`."""
        new, first_fragment = NewBlocks(), self._filesystem.superblock.fragments
        tails = self._place_tails(contents)
        words: dict[int, list[int]] = {}
        starts: dict[int, int] = {}
        blocks = self._list_blocks(contents, tails)
        total, resources = sum(content.size for content in contents), self._resources
        method = f"squashfs {self._filesystem.codec.name}, {resources.threads} threads"
        parts = resources.parts
        pack = partial(self._pack_block, None if parts is None else parts.for_work(method, resources.threads))
        progress = resources.progress or SilentProgress()
        with begin_work(progress, "pack new files", total, ENCODE, method) as advance:
            for block, packed, is_taken in ordered_map(pack, blocks, resources.threads):
                is_fragment = block.file < 0
                word, pieces = self._place_block(contents, block, packed)
                if is_fragment:
                    new.fragments.append((new.length, word))
                else:
                    starts.setdefault(block.file, new.length)
                    words.setdefault(block.file, []).append(word)
                new.add(pieces)
                (partial(skip_bytes, advance) if is_taken else advance)(len(block.plain))
        for number, content in enumerate(contents):
            size, in_file = content.size, words.get(number, [])
            lengths = [min(self._size, size - at) for at in range(0, len(in_file) * self._size, self._size)]
            holes = sum(length for length, word in zip(lengths, in_file, strict=True) if not word)
            tail = tails.get(number)
            place = () if tail is None else (first_fragment + tail.fragment, tail.offset)
            sparse = min(holes, max(size - 1, 0))  # as mksquashfs has it: never all of a file
            new.files[number] = PackedData(size, starts.get(number, 0), tuple(in_file), sparse, *place)
        return new

    def _place_block(
        self, contents: Sequence[Content], block: _Block, packed: bytes | None
    ) -> tuple[int, tuple[Piece, ...]]:
        """Return the size word and the bytes of a block; zeros of a file are a hole."""
        if packed is not None:
            return len(packed), (self._resources.spool.append([packed], packed=True),)
        if block.file >= 0 and _is_zero(block.plain):
            return 0, ()
        return len(block.plain) | STORED_BLOCK, self._stored(contents, block)

    def _place_tails(self, contents: Sequence[Content]) -> dict[int, _Tail]:
        """Return which tail goes where in new fragment blocks: those of small files, or of all if the image does so."""
        tails: dict[int, _Tail] = {}
        fragment = offset = 0
        if self._flags & Flags.NO_FRAGMENTS:
            return tails
        for number, content in enumerate(contents):
            length = content.size % self._size
            if not length or (content.size > self._size and not self._flags & Flags.ALWAYS_FRAGMENTS):
                continue
            if offset + length > self._size:
                fragment, offset = fragment + 1, 0
            tails[number] = _Tail(number, fragment, offset)
            offset += length
        return tails

    def _list_blocks(self, contents: Sequence[Content], tails: dict[int, _Tail]) -> Iterator[_Block]:
        """Yield every block to be packed: of each file in order, and a fragment block when the next one begins."""
        open_fragment = bytearray()
        last = 0
        for number, content in enumerate(contents):
            tail = tails.get(number)
            whole = content.size - content.size % self._size if tail is not None else content.size
            table = content.table()
            yield from self._cut_blocks(number, table, whole)
            if tail is not None:
                if tail.fragment != last:
                    yield _Block(-1, 0, bytes(open_fragment))
                    open_fragment.clear()
                    last = tail.fragment
                open_fragment += table.read(whole)
        if open_fragment:
            yield _Block(-1, 0, bytes(open_fragment))

    def _cut_blocks(self, number: int, table: PieceTable, end: int) -> Iterator[_Block]:
        """Yield the first ``end`` bytes of ``table`` in blocks."""
        open_block, start = b"", 0
        for chunk in table.cut(0, end).chunks():
            plain = open_block + chunk if open_block else chunk
            for at in range(0, len(plain) - self._size + 1, self._size):
                yield _Block(number, start, plain[at : at + self._size])
                start += self._size
            open_block = plain[len(plain) - len(plain) % self._size :]
        if open_block:
            yield _Block(number, start, open_block)

    def _pack_block(
        self, memory: PartMemory | None, block: _Block, stop: StopFlag
    ) -> tuple[_Block, bytes | None, bool]:  # fmt: skip
        """Return ``block``, its packed bytes, and whether an earlier plan packed them.

        They are None where it is stored, or nothing but zeros.
        """
        is_stored = self._flags & (Flags.STORED_FRAGMENTS if block.file < 0 else Flags.STORED_DATA)
        if is_stored or (block.file >= 0 and _is_zero(block.plain)) or not _shrinks(block.plain):
            return block, None, False
        packed, is_taken = pack_block(self._filesystem, block.plain, self._dictionary, memory)
        fault = find_block_fault(self._compression, packed, self._dictionary)
        if fault:
            raise ProofError(f"a new squashfs data block {fault}", self._filesystem.place)
        return block, packed if len(packed) < len(block.plain) else None, is_taken

    def _stored(self, contents: Sequence[Content], block: _Block) -> tuple[Piece, ...]:
        """Return the bytes of a block that is not packed: those of the user's file, or of a fragment block."""
        if block.file < 0:
            return (self._resources.spool.append([block.plain], packed=True),)
        return contents[block.file].table().cut(block.start, block.start + len(block.plain)).marked_packed().pieces


def pack_block(filesystem: SquashfsFilesystem, plain: bytes, dictionary: int, memory: PartMemory | None) -> PackedPart:
    """Return ``plain`` packed as the other blocks of ``filesystem`` are, by an earlier plan where ``memory`` has that.

    ``dictionary``: bytes of the largest that a kernel takes.
    """
    codec = filesystem.codec

    def unpack(packed: bytes) -> Iterator[bytes]:
        """Yield the plain bytes. :raises BlockError: ``packed`` is damaged, or a kernel refuses it."""
        fault = find_block_fault(filesystem.superblock.compression, packed, dictionary)
        if fault:
            raise BlockError(fault)
        yield codec.unpack(packed, len(plain))

    return pack_part(memory, codec.method, plain, lambda: codec.pack(plain), unpack)


def _is_zero(plain: bytes) -> bool:
    """Return whether ``plain`` is nothing but zeros."""
    return plain == bytes(len(plain))


def _find_equal(contents: Sequence[Content]) -> dict[int, int]:
    """Return the place of each of ``contents`` that an earlier one is equal to, and the place of that.

    Only those of one size are read for it. What the image has already is not compared: its data would have to be
    unpacked.
    """
    sizes = Counter(content.size for content in contents)
    first: dict[tuple[int, bytes], int] = {}
    equal: dict[int, int] = {}
    for number, content in enumerate(contents):
        if content.size and sizes[content.size] > 1:
            earlier = first.setdefault((content.size, content.digest()), number)
            if earlier != number:
                equal[number] = earlier
    return equal


def _shrinks(plain: bytes) -> bool:
    """Return whether samples of ``plain`` get smaller under deflate; a small block always counts as if they did."""
    if len(plain) <= _SAMPLE * _SAMPLES:
        return True
    step = (len(plain) - _SAMPLE) // (_SAMPLES - 1)
    sample = b"".join(plain[at : at + _SAMPLE] for at in range(0, len(plain) - _SAMPLE + 1, step))
    return len(zlib.compress(sample, 1)) < _WORTH * len(sample)
