"""The files on an image's own tree after edits of it: their bytes, and which of them share their bytes."""

from __future__ import annotations

from functools import cached_property

from cosremaster.io.pieces import PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.iso.path_text import PathText
from cosremaster.units import Lba

_FEW = 16
"""Places that are looked for one by one among all files, before these are indexed."""


class EditedFiles:
    """The files on the edited tree: their bytes, and which paths share them."""

    def __init__(self, image: IsoImage, edits: IsoEdits) -> None:
        """Index the files of ``image`` that ``edits`` keep, and those that they add."""
        self.image, self._replaced = image, edits.replaced
        files = image.trees[0].regular_files
        self.files = files.select(self._stays) if edits.removed else files
        self._edits = edits
        self._paths_by_start: dict[Lba, list[bytes]] = {}
        self.added = {node.path: node.content.table() for node in edits.added if node.content is not None}

    @cached_property
    def text(self) -> PathText:
        """The paths of all files, the added ones behind the others, to look for names in."""
        old = self.image.trees[0].regular_text
        return (old.select(self._stays) if self._edits.removed else old).extend(self.added)

    def _stays(self, path: bytes) -> bool:
        """Return whether the file at ``path`` on the image is not removed."""
        return self._edits.new_path(path) is not None

    @cached_property
    def _sharing(self) -> dict[object, list[bytes]]:
        """The paths of the files on the image, by the keys of their bytes."""
        sharing: dict[object, list[bytes]] = {}
        for path in self.files:
            sharing.setdefault(self._content_key(path), []).append(path)
        return sharing

    @cached_property
    def _by_start(self) -> dict[int, list[bytes]]:
        """The paths of the files on the image, by the first block of their data."""
        by_start: dict[int, list[bytes]] = {}
        for path, file in self.files.items():
            by_start.setdefault(file.records[0].lba, []).append(path)
        return by_start

    def _paths_at(self, lba: Lba) -> list[bytes]:
        """Return the paths of the files on the image whose data begin at block ``lba``; few are asked for mostly."""
        if lba not in self._paths_by_start and len(self._paths_by_start) < _FEW:
            files = self.image.trees[0].find_files_at({lba})
            self._paths_by_start[lba] = [file.path for file in files if self.files.get(file.path) == file]
        return self._paths_by_start.get(lba) or self._by_start[lba]

    def _content_key(self, path: bytes) -> object:
        """Return a key that paths with the same bytes share."""
        file = self.files[path]
        if path in self._replaced:
            return id(self._replaced[path])
        return (file.records[0].lba, file.size) if file.size else path

    def _new_bytes(self, path: bytes) -> PieceTable | None:
        """Return the bytes of an added or replaced file; None for a file that is unchanged."""
        return self.added.get(path) or self._replaced.get(path)

    def size_of(self, path: bytes) -> int:
        """Return the bytes of the file."""
        table = self._new_bytes(path)
        return self.files[path].size if table is None else table.length

    def names_of(self, path: bytes) -> tuple[bytes, ...]:
        """Return all paths that share the bytes of ``path``."""
        if path in self.added:
            return (path,)
        key = self._content_key(path)
        if path in self._replaced:
            table = self._replaced[path]
            same = [other for other, new in self._replaced.items() if new is table and other in self.files]
            return (path,) if len(same) == 1 else tuple(self._sharing[key])
        same_start = self._paths_at(self.files[path].records[0].lba)
        return tuple([other for other in same_start if self._content_key(other) == key])

    def bytes_of(self, path: bytes) -> PieceTable:
        """Return the contents of the file."""
        table = self._new_bytes(path)
        return self.image.bytes_of(self.files[path]) if table is None else table

    def is_plain(self, path: bytes) -> bool:
        """Return True if zisofs does not compress the file."""
        return self._new_bytes(path) is not None or not self.files[path].zisofs_offset
