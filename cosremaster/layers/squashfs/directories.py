"""Directory listings: runs of entries whose inodes stand in one metadata block, sorted by name as bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import partial

from cosremaster.layers.squashfs.inodes import DIRECTORY, Inode
from cosremaster.layers.squashfs.metadata import METADATA_SIZE, MetadataWriter, make_reference, split_reference
from cosremaster.records import replace
from cosremaster.records.tuples import NamedTuple

_HEADER = struct.Struct("<III")
_ENTRY = struct.Struct("<HhHH")
_MAX_RUN = 256
MAX_NAME = 256
"""Bytes of a name that the format can hold; Linux takes no more than 255."""

_NO_NAMES = frozenset((b".", b".."))
EMPTY_SIZE = 3
"""What a directory's inode tells more than its listing has bytes: ``.`` and ``..`` count so in Linux."""


class SquashfsEntry(NamedTuple):
    """An entry: the ``reference`` and ``number`` of its inode, whose basic ``type`` it repeats."""

    name: bytes
    reference: int
    number: int
    type: int


class Run(NamedTuple):
    """Entries under one header, which begins at byte ``start`` of the listing."""

    start: int
    entries: tuple[SquashfsEntry, ...]


def parse_runs(data: bytes) -> Iterator[list[SquashfsEntry]]:
    """Yield the entries of each run of the listing ``data``.

    :raises ValueError: it is cut off, or a name cannot be.
    """
    at = 0
    unpack_entry, size_of_entry = _ENTRY.unpack_from, _ENTRY.size
    make_entry = partial(tuple.__new__, SquashfsEntry)  # which takes a third of the time of the class itself
    try:
        while at < len(data):
            count, block, base = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            if count >= _MAX_RUN:
                raise ValueError(f"a directory header claims {count + 1:,} entries")
            entries, names = [], []
            start = make_reference(block, 0)
            for _ in range(count + 1):
                offset, delta, kind, size = unpack_entry(data, at)
                at += size_of_entry
                end = at + size + 1
                name = data[at:end]
                names.append(name)
                entries.append(make_entry((name, start | offset, base + delta, kind)))
                at = end
            if at > len(data):
                raise ValueError("a directory listing is cut off")
            _check_names(names)
            yield entries
    except struct.error as error:
        raise ValueError("a directory listing is cut off") from error


def _check_names(names: Sequence[bytes]) -> None:
    """Check that ``names`` can be those of files. :raises ValueError: they cannot."""
    joined = b"".join(names)
    if b"/" in joined or b"\0" in joined or not _NO_NAMES.isdisjoint(names) or max(map(len, names)) > MAX_NAME:
        raise ValueError("a directory has a name that no file can have")


def split_into_runs(entries: Sequence[SquashfsEntry], offset: int) -> list[Run]:
    """Return ``entries``, sorted by name, as runs.

    A run ends after 256 entries, where the inodes' metadata block changes, where a number is too far from the first
    one's, and where a metadata block of the listing is full, so that an index can lead there.

    :param offset: where the listing begins in its metadata block.
    """
    runs: list[Run] = []
    entries_of_run: list[SquashfsEntry] = []
    start = at = 0
    for entry in entries:
        is_new = not entries_of_run
        if not is_new:
            first = entries_of_run[0]
            is_new = (
                len(entries_of_run) == _MAX_RUN
                or split_reference(first.reference)[0] != split_reference(entry.reference)[0]
                or not -0x8000 <= entry.number - first.number <= 0x7FFF
                or (offset + at) // METADATA_SIZE != (offset + start) // METADATA_SIZE
            )
            if is_new:
                runs.append(Run(start, tuple(entries_of_run)))
                entries_of_run = []
        if is_new:
            start = at
            at += _HEADER.size
        entries_of_run.append(entry)
        at += _ENTRY.size + len(entry.name)
    if entries_of_run:
        runs.append(Run(start, tuple(entries_of_run)))
    return runs


def pack_listing(runs: Sequence[Run]) -> bytes:
    """Return the bytes of a listing."""
    parts: list[bytes] = []
    for _, entries in runs:
        block, base = split_reference(entries[0].reference)[0], entries[0].number
        parts.append(_HEADER.pack(len(entries) - 1, block, base))
        for entry in entries:
            offset = split_reference(entry.reference)[1]
            parts.append(_ENTRY.pack(offset, entry.number - base, entry.type, len(entry.name) - 1) + entry.name)
    return b"".join(parts)


def add_listing(writer: MetadataWriter, entries: Sequence[SquashfsEntry], inode: Inode) -> Inode:
    """Write the listing of ``entries``, sorted by name, and return ``inode``, their directory's, with its place."""
    offset = writer.open_size
    runs = split_into_runs(entries, offset)
    listing = pack_listing(runs)
    first_block = len(writer.block_starts) - 1
    reference = writer.add(listing)
    index = tuple(
        (at, writer.block_starts[first_block + block], name) for block, at, name in find_index_points(runs, offset)
    )
    start, byte = split_reference(reference)
    return replace(
        inode, size=len(listing) + EMPTY_SIZE, start=start, offset=byte, index=index,
        nlink=2 + sum(1 for entry in entries if entry.type == DIRECTORY),
    )  # fmt: skip


def find_index_points(runs: Sequence[Run], offset: int) -> list[tuple[int, int, bytes]]:
    """Return the points of a listing's index: number of the metadata block in the listing, byte, first name.

    :param offset: where the listing begins in its metadata block.
    """
    points: list[tuple[int, int, bytes]] = []
    block = 0
    for start, entries in runs:
        if (offset + start) // METADATA_SIZE != block:
            block = (offset + start) // METADATA_SIZE
            points.append((block, start, entries[0].name))
    return points
