"""Send a file system over a wire: nodes with their contents, each source read once from front to back."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from cosremaster.errors import OverlayError, Place
from cosremaster.io.pieces import PieceTable, Range, Zeros
from cosremaster.progress import Advance
from cosremaster.sandbox.wire import CHUNK, INLINE, FrameKind, FrameWire, Record, RecordBatch
from cosremaster.tree.nodes import ListedTree, Node, NodeKind


def send_tree(tree: Mapping[bytes, Node], wire: FrameWire, advance: Advance) -> None:
    """Send all nodes of ``tree``, directories first; ``advance`` is called with counts of contents' bytes."""
    batch = RecordBatch(wire)
    numbers: dict[object, int] = {}
    files: list[tuple[str, int, bytes, Node, PieceTable]] = []
    others: list[Node] = []
    for node in _walk(tree):
        if node.kind is NodeKind.DIRECTORY:
            batch.add(_make_record(node, b"", 0))
        elif node.kind is NodeKind.FILE:
            table = node.content.table() if node.content is not None else PieceTable(())
            first = table.pieces[0] if table.pieces else None
            place = (first.source.name, first.offset) if isinstance(first, Range) else ("", 0)
            files.append((*place, node.path, node, table))
        else:
            others.append(node)
    files.sort(key=lambda file: file[:3])
    sent: set[int] = set()
    for _, _, _, node, table in files:
        link = _link_number(node, numbers)
        if link in sent:
            batch.add(_make_record(node, None, link))
            continue
        sent.add(link or -1)
        _send_file(node, table, link, batch, wire)
        advance(table.length)
    for node in others:
        details = node.target if node.kind is NodeKind.SYMLINK else node.rdev
        batch.add(_make_record(node, details, _link_number(node, numbers)))
    batch.flush()
    wire.send(FrameKind.END)


def _walk(tree: Mapping[bytes, Node]) -> Iterator[Node]:
    """Yield the nodes of ``tree``, sorted by path; the root's own where it has one."""
    if isinstance(tree, ListedTree):
        root = tree.get(b"")
        if root is not None:
            yield root
        yield from tree.walk_nodes()
        return
    for path in sorted(tree):
        yield tree[path]


def _link_number(node: Node, numbers: dict[object, int]) -> int:
    """Return the number of the hard link that ``node`` is a name of, 0 for none."""
    return 0 if node.link is None else numbers.setdefault(node.link, len(numbers) + 1)


def _make_record(node: Node, details: object, link: int) -> Record:
    """Return ``node`` as a record."""
    return (node.path, node.kind | node.mode, node.uid, node.gid, node.mtime, details, node.xattrs, link)


def _send_file(node: Node, table: PieceTable, link: int, batch: RecordBatch, wire: FrameWire) -> None:
    """Send a regular file with its content."""
    if table.length <= INLINE:
        batch.add(_make_record(node, table.read(), link))
        return
    batch.add(_make_record(node, table.length, link))
    batch.flush()
    for piece in table.pieces:
        if isinstance(piece, Zeros):
            wire.send(FrameKind.HOLE, piece.length)
            continue
        for chunk in piece.chunks():
            for start in range(0, len(chunk), CHUNK):
                wire.send_data(memoryview(chunk)[start : start + CHUNK])


def send_files(source: Path | None, wire: FrameWire) -> None:
    """Send the user's directory (or file) ``source``, owned by root and readable by all, and the end of it.

    :raises OverlayError: it is not there, unreadable, or changes meanwhile.
    """
    if source is not None:
        batch = RecordBatch(wire)
        root = os.fsencode(source)
        if not os.path.isdir(root):
            _send_host_path(os.path.realpath(root), os.path.basename(root), batch, wire)
        else:
            for path, name in walk_files(root):
                _send_host_path(path, name, batch, wire)
        batch.flush()
    wire.send(FrameKind.END)


def walk_files(root: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each path below the directory ``root`` with its name from there on; sorted, directories first."""
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in sorted(_list_host_directory(os.path.join(root, directory))):
            path = os.path.join(directory, name)
            yield os.path.join(root, path), path
            if os.path.isdir(os.path.join(root, path)) and not os.path.islink(os.path.join(root, path)):
                pending.append(path)


def _list_host_directory(path: bytes) -> list[bytes]:
    """Return the names in the directory ``path``. :raises OverlayError: it cannot be read."""
    try:
        return os.listdir(path)
    except OSError as error:
        raise OverlayError(f"cannot be read: {error.strerror}", Place().inside(path)) from error


def _send_host_path(path: bytes, name: bytes, batch: RecordBatch, wire: FrameWire) -> None:
    """Send the file, directory or symlink ``path`` of this machine as ``name``; others are left out."""
    place = Place().inside(path)
    try:
        status = os.lstat(path)
        mode = 0o755 if status.st_mode & 0o100 or stat.S_ISDIR(status.st_mode) else 0o644
        bits, mtime = stat.S_IFMT(status.st_mode), status.st_mtime_ns // 1_000_000_000
        if stat.S_ISLNK(status.st_mode):
            batch.add((name, bits | 0o777, 0, 0, mtime, os.readlink(path), (), 0))
        elif stat.S_ISDIR(status.st_mode):
            batch.add((name, bits | mode, 0, 0, mtime, b"", (), 0))
        elif stat.S_ISREG(status.st_mode):
            batch.add((name, bits | mode, 0, 0, mtime, status.st_size if status.st_size else b"", (), 0))
            batch.flush()
            _send_host_file(path, status.st_size, place, wire)
    except OSError as error:
        raise OverlayError(f"cannot be read: {error.strerror}", place) from error


def _send_host_file(path: bytes, size: int, place: Place, wire: FrameWire) -> None:
    """Send the ``size`` bytes of the file ``path``. :raises OverlayError: it became shorter."""
    with open(path, "rb", buffering=0) as file:
        while size:
            data = file.read(min(CHUNK, size))
            if not data:
                raise OverlayError("changed while it was being read", place)
            wire.send_data(data)
            size -= len(data)
