"""The files of an archive that are containers themselves, kept while the archive is read, so that it is read once.

They save time and nothing else: what cannot be kept is read from the archive a second time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

from cosremaster.errors import OutputError
from cosremaster.io.pieces import Range
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.layers.container_heads import identify_container
from cosremaster.layers.identify import Identification
from cosremaster.layers.kept_plain import PlainKeeper
from cosremaster.records import Struct

if TYPE_CHECKING:
    from cosremaster.layers.model import Layer
    from cosremaster.tree.nodes import Node


class Keepers(TypedDict, total=False):
    """What keeps bytes while archives are read: plain ones of slow streams, and the containers in archives."""

    keeper: PlainKeeper | None
    members: MemberKeeper | None


class WatchedFile(Struct, frozen=True):
    """A file of an archive, of ``size`` bytes: whether it is a container, and its bytes where they were kept."""

    size: int
    is_container: bool
    kept: Range | None = None


class MemberKeeper:
    """Looks at all files of archives that are scanned, and keeps the containers in a nameless temporary file.

    Each file that is read has one of its own (:meth:`begin_file`), which keeps where the first does.
    """

    def __init__(self, first: MemberKeeper | None = None) -> None:
        """Begin without files; ``first``: whose room is shared."""
        if first is None:
            try:
                folder = Path(tempfile.gettempdir())
            except OSError:  # no folder can be written, this one included
                folder = Path()
            self._spool, self._room = Spool(folder), PlainKeeper(folder)
        else:
            self._spool, self._room = first._spool, first._room
        self.streams: list[dict[int, WatchedFile]] = []
        self._is_packed = False

    def __enter__(self) -> MemberKeeper:
        """Return the keeper itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove what was kept."""
        self._spool.__exit__(kind, error, traceback)

    def begin_file(self) -> MemberKeeper:
        """Return the keeper for the archives of another file."""
        return MemberKeeper(self)

    def list_files(self, layers: Iterable[Layer]) -> MemberFiles:
        """Return what was seen of the files in ``layers``, the archives of the file."""
        return MemberFiles(self.streams, layers)

    def begin_stream(self, *, is_packed: bool) -> None:
        """Begin with the next stream of the file; ``is_packed``: going back in it decodes from the beginning."""
        self.streams.append({})
        self._is_packed = is_packed

    def watch(self, reader: ByteReader, size: int) -> None:
        """Look at the file of ``size`` bytes before which ``reader`` stands, and keep it if it is a container.

        :raises CorruptError: its bytes cannot be had.
        """

        def peek(count: int) -> bytes:
            """Return the first ``count`` bytes of the file."""
            return reader.peek(min(size, count))

        position, identification, kept = reader.position, identify_container(peek, size), None
        if identification is not None and (self._is_packed or not _is_read_at_places(identification)):
            with suppress(OSError, OutputError):  # the disk is full
                kept = self._spool.append(reader.read_parts(size), packed=True) if self._room.take(size) else None
        self.streams[-1][position] = WatchedFile(size, identification is not None, kept)


class MemberFiles:
    """What reading the archives of a file showed of the files in them."""

    def __init__(self, streams: Sequence[Mapping[int, WatchedFile]], layers: Iterable[Layer]) -> None:
        """Keep what was seen of the streams of ``layers``, by the place of a file in its stream."""
        self._streams = {id(layer.decoded): streams[layer.stream] for layer in layers if layer.stream < len(streams)}

    def find(self, node: Node) -> WatchedFile | None:
        """Return what is known of the file ``node``; None for nothing."""
        pieces = () if node.content is None else node.content.table().pieces
        piece = pieces[0] if len(pieces) == 1 else None
        if not isinstance(piece, Range):
            return None
        member = self._streams.get(id(piece.source), {}).get(piece.offset)
        return member if member is not None and member.size == piece.length else None


def _is_read_at_places(identification: Identification) -> bool:
    """Return whether little is read of a file system of this kind, wherever it stands."""
    return identification.format is None or (identification.format.random_access and identification.codec.is_identity)
