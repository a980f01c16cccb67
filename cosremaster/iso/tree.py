"""An image's own file tree as nodes: Rock Ridge's modes, owners, times and symlinks (IEEE P1282), through pycdlib."""

from __future__ import annotations

import calendar
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pycdlib
from pycdlib.dr import DirectoryRecord as CdlibRecord

from cosremaster.errors import CosremasterError, ImageError
from cosremaster.files import FileSource
from cosremaster.iso.model import Image, IsoFile
from cosremaster.nodes import Kind, Node
from cosremaster.pieces import PieceTable
from cosremaster.streams import sha256_of


@dataclass(frozen=True, slots=True)
class _Extents:
    """A file's data on the image."""

    image: Image
    file: IsoFile

    @property
    def size(self) -> int:
        return self.file.size

    def digest(self) -> bytes:
        return sha256_of(self.table().chunks())

    def table(self) -> PieceTable:
        return self.image.bytes_of(self.file)

    def head(self, count: int) -> bytes:
        return b"".join(self.table().cut(0, min(count, self.size)).chunks())


def image_nodes(image: Image, source: FileSource) -> dict[bytes, Node]:
    """Every directory, file and symlink of ``image``, which ``source`` holds, by path in the tree's order.

    Without Rock Ridge, directories have mode 0755, files 0644, and all belong to root.
    :raises ImageError: the tree cannot be read.
    """
    files = {file.path: file for file in image.files}
    iso = pycdlib.PyCdlib()
    try:
        with open(source.path, "rb") as file:
            iso.open_fp(file)
            root = iso.get_record(iso_path="/")
            assert isinstance(root, CdlibRecord)
            nodes = {node.path: node for node in _below(root, image, files)}
            iso.close()
    except CosremasterError:
        raise
    except Exception as error:  # pycdlib leaks struct.error, IndexError and others on damaged images
        raise ImageError(f"its file system cannot be read ({error})", source.place) from error
    return nodes


def _below(root: CdlibRecord, image: Image, files: dict[bytes, IsoFile]) -> Iterator[Node]:
    waiting: list[tuple[CdlibRecord, bytes]] = [(root, b"")]
    while waiting:
        record, path = waiting.pop()
        if path:
            yield _node(record, path, image, files.get(path))
        if not record.is_dir():
            continue
        for child in reversed(record.children):
            if child.is_dot() or child.is_dotdot():
                continue
            name = child.rock_ridge.name() if child.rock_ridge is not None else b""
            name = name or child.file_identifier().partition(b";")[0].rstrip(b".")
            waiting.append((child, path + b"/" + name if path else name))


def _node(record: CdlibRecord, path: bytes, image: Image, file: IsoFile | None) -> Node:
    kind = Kind.DIRECTORY if record.is_dir() else Kind.FILE
    mode, uid, gid, target, when = 0o755 if record.is_dir() else 0o644, 0, 0, b"", record.date
    ridge = record.rock_ridge
    if ridge is not None:
        for entries in (ridge.ce_entries, ridge.dr_entries):
            px = getattr(entries, "px_record", None)
            if px is not None:
                mode, uid, gid = px.posix_file_mode & 0o7777, px.posix_user_id, px.posix_group_id
            when = getattr(getattr(entries, "tf_record", None), "modification_time", None) or when
        if ridge.is_symlink():
            kind, target = Kind.SYMLINK, ridge.symlink_path()
    content = _Extents(image, file) if kind is Kind.FILE and file is not None else None
    return Node(
        path=path, kind=kind, mode=mode, uid=uid, gid=gid, mtime=_seconds(when), target=target, content=content,
    )  # fmt: skip


def _seconds(date: Any) -> int:
    """Seconds since 1970 of a directory record's date (ECMA-119, 9.1.5); 0 where it is none."""
    with contextlib.suppress(AttributeError, ValueError, OverflowError):
        fields = (date.years_since_1900 + 1900, date.month, date.day_of_month, date.hour, date.minute, date.second)
        return max(0, calendar.timegm((*fields, 0, 0, 0)) - int(date.gmtoffset) * 15 * 60)
    return 0
