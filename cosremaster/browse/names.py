"""The names in a container, in order; of an archive in a file of its own without any nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TypeAlias

from cosremaster.io.source import ByteSource
from cosremaster.io.streams import ByteReader, count_chunks
from cosremaster.layers.identify import identify
from cosremaster.layers.scan import ScannedStream, ScanOptions, scan_streams
from cosremaster.progress import DECODE, Progress, begin_work
from cosremaster.tree.paths import has_parent_parts
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR

Names: TypeAlias = Mapping[bytes, list[bytes]]
"""By a directory's path: the paths of what stands in it, sorted; the root is always there."""

UNREAD = ScanOptions(digests=False, nesting=0, edits=False, tail=0, names=True)
"""Names alone: nothing is read again."""


def group_names(paths: Iterable[bytes]) -> Names:
    """Group ``paths`` and the directories that they imply by their parent."""
    below: dict[bytes, set[bytes]] = {b"": set()}
    for path in paths:
        while path:
            parent = path.rpartition(b"/")[0]
            if parent in below:
                below[parent].add(path)
                break
            below[parent] = {path}
            path = parent  # noqa: PLW2901 - whose own parent has to know of it
    return {parent: sorted(names) for parent, names in below.items()}


def walk_names(names: Names, path: bytes) -> Iterator[bytes]:
    """Yield every path below the directory ``path``, each directory before its content."""
    queue = deque(names.get(path, ()))
    while queue:
        name = queue.popleft()
        yield name
        if name in names:
            queue.extendleft(reversed(names[name]))


def list_names(source: ByteSource, max_expand: int, progress: Progress) -> Names | None:
    """Return the names in the archives of ``source``, or None where these alone do not tell what is unpacked.

    That is so of what is no archive that is read front to back, and where names lead through symlinks. ``max_expand``
    is the ratio above which a stream is refused, ``progress`` is told of the packed bytes. Raises as indexing does.
    """
    if source.read(FIRST_DESCRIPTOR * BLOCK + 1, 5) in (b"CD001", b"BEA01"):
        return None  # an ISO, or UDF alone, whatever it begins with
    identification = identify(partial(source.read, 0))
    if identification.format is None or identification.format.random_access:
        return None
    size, links = source.size - identification.prefix, list[bytes]()
    with begin_work(progress, f"read {source.place}", size, DECODE, identification.codec.name) as advance:
        reader = ByteReader(count_chunks(source.chunks(identification.prefix, size), advance), source.place)
        streams = scan_streams(reader, identification, UNREAD._replace(max_expand=max_expand), 1)
        names = group_names(_list_paths(streams, links))
    # A directory whose name has ".." in it is another one.
    return None if any(link in names for link in links) or has_parent_parts(names) else names


def _list_paths(streams: Iterable[ScannedStream], links: list[bytes]) -> Iterator[bytes]:
    """Yield the paths in ``streams`` as names say them, and add those of symlinks to ``links``."""
    for stream in streams:
        for archive in stream.archives:
            links += archive.contents.unfollowed_symlinks
            yield from archive.contents.paths
