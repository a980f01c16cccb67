"""The entries of a tar archive with their data, read once and in order: for overlays."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from functools import partial

from cosremaster.archives.entry import ArchiveEntry, NamedAcl
from cosremaster.io.pieces import Zeros
from cosremaster.io.streams import ByteReader
from cosremaster.layers.formats import StreamedEntry
from cosremaster.layers.tar import blocks
from cosremaster.layers.tar.entries import TarEntry
from cosremaster.layers.tar.read import EntryReader


def stream_entries(reader: ByteReader) -> Generator[StreamedEntry, None, str]:
    """Yield the entries of the archive that begins where ``reader`` stands. Return what is odd about it.

    :raises CorruptError: damage.
    """
    archive = EntryReader(reader, reader.position)
    for entry in archive.iterate():
        yield StreamedEntry(_describe(entry), _read_data(archive, entry))
    return "" if archive.has_end else blocks.NO_END


def _describe(entry: TarEntry) -> ArchiveEntry:
    """Return ``entry`` as overlays have it."""
    xattrs, named_acls = entry.xattrs, list[NamedAcl]()
    if xattrs:
        from cosremaster.layers.tar.acl import KEYWORDS, has_named_acl, parse_acl  # noqa: PLC0415 - few entries have some

        if has_named_acl(xattrs):  # whose users may come later
            for keyword, text in xattrs:
                if keyword in KEYWORDS:
                    named_acls.append(NamedAcl(os.fsdecode(KEYWORDS[keyword]), partial(parse_acl, text)))
            xattrs = tuple(attribute for attribute in xattrs if attribute[0] not in KEYWORDS)
    return ArchiveEntry(
        name=entry.name, mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime=entry.mtime,
        size=entry.stored if entry.sparse is None else entry.sparse.size, symlink=entry.target, hardlink=entry.link,
        device=entry.rdev, xattrs=tuple((os.fsdecode(name), value) for name, value in xattrs),
        named_acls=tuple(named_acls),
    )  # fmt: skip


def _read_data(archive: EntryReader, entry: TarEntry) -> Iterator[bytes]:
    """Yield the data of ``entry``, with zeros for its holes."""
    stored = archive.read_stored(entry)
    if entry.sparse is None:
        yield from stored
        return
    rest, reached = b"", 0
    numbers = iter(entry.sparse.segments)
    for offset, size in zip(numbers, numbers, strict=True):
        yield from Zeros(offset - reached).chunks()
        missing = size
        while missing:
            part = rest or next(stored)
            yield part[:missing]
            rest, missing = part[missing:], missing - len(part[:missing])
        reached = offset + size
    yield from Zeros(entry.sparse.size - reached).chunks()
