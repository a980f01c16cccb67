"""Write nodes as a tar archive (POSIX.1-2001 pax, by the standard library), streamed, with every attribute."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from functools import cached_property

from cosremaster.browse.order import nodes_in_order
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.overlay.attributes import name_some
from cosremaster.records import Struct
from cosremaster.tree.content import MIN_HOLE, has_large_holes
from cosremaster.tree.nodes import Content, Node, NodeKind, Xattrs

BLOCKING = 10240
_TYPES = {
    NodeKind.FIFO: tarfile.FIFOTYPE, NodeKind.CHAR: tarfile.CHRTYPE, NodeKind.BLOCK: tarfile.BLKTYPE,
    NodeKind.DIRECTORY: tarfile.DIRTYPE, NodeKind.SYMLINK: tarfile.SYMTYPE, NodeKind.FILE: tarfile.REGTYPE,
}  # fmt: skip
_ENCODING = ("utf-8", "surrogateescape")
"""Of text that stands for the bytes of names here, whatever locale os.fsdecode uses."""


class TarStream(Struct, frozen=True, dict=True):  # no slots, so that a cached property has where to be kept
    """A tar archive of ``nodes``, which are in the right order, as a source of pieces.

    A tar archive cannot hold sockets; they are left out. Equal nodes make equal bytes. Headers stay in memory, 512
    bytes or more for each node; data are read when they are needed. ``sparse``: holes of 4 KiB and more are left out,
    in the form 1.0 of GNU tar ("Storing Sparse Files" in its manual); without, those of files with large holes.
    """

    nodes: tuple[Node, ...]
    name: str = "tar"
    sparse: bool = False

    def table(self) -> PieceTable:
        """Return the whole archive as pieces; its length is exact without reading data."""
        return PieceTable([Range(self, 0, self._whole.length)])

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes of the archive from ``offset``. Data are decoded once if offsets only grow."""
        return self._whole.cut(offset, offset + length).chunks()

    @cached_property
    def _whole(self) -> PieceTable:
        """The pieces of the archive."""
        pieces: list[Piece] = []
        length = 0
        for node, head in self._heads():
            pieces.append(Literal(head))
            length += len(head)
            if node.content is not None and node.content.size:
                data = self._dense_data(node.content)
                data = data or node.content.table()
                padding = -data.length % tarfile.BLOCKSIZE
                pieces += [*data.pieces, Zeros(padding)]
                length += data.length + padding
        return PieceTable([*pieces, Zeros(_end_length(length))])

    def _heads(self) -> Iterator[tuple[Node, bytes]]:
        """Yield each node with its header blocks. A further name of a linked file becomes a link without content."""
        linked: dict[object, str] = {}
        for node in self.nodes:
            info = tarfile.TarInfo(_to_text(node.path or b"."))
            info.type, info.mode, info.mtime = _TYPES[node.kind], node.mode, node.mtime
            info.uid, info.gid, (info.devmajor, info.devminor) = node.uid, node.gid, node.rdev
            info.linkname = _to_text(node.target)
            if node.content is not None:
                info.size = node.content.size
            if node.link is not None and node.link in linked:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, linked[node.link], 0
                node = _without_content(node)  # noqa: PLW2901
            elif node.link is not None:
                linked[node.link] = info.name
            records: list[tuple[bytes, bytes]] = []
            dense = None if node.content is None else self._dense_data(node.content)
            if dense is not None:
                records += _sparse_records(info)
                folder, _, name = info.name.rpartition("/")
                info.name, info.size = f"{folder or '.'}/GNUSparseFile.0/{name}", dense.length
            head = info.tobuf(tarfile.PAX_FORMAT, *_ENCODING)
            yield node, _with_records(head, records, node.xattrs) if records or node.xattrs else head

    def _dense_data(self, content: Content) -> PieceTable | None:
        """Return the data of ``content`` as a sparse file has them; None where its holes are written."""
        return _take_holes_out(content) if self.sparse or has_large_holes(content) else None


def _to_text(name: bytes) -> str:
    """Return ``name`` as text from which :mod:`tarfile` makes the same bytes."""
    return name.decode(*_ENCODING)


def _take_holes_out(content: Content) -> PieceTable | None:
    """Return the data of ``content`` as a sparse file of GNU tar has them, behind a map; None without holes.

    The map has a line for the number of runs, and two for each: where it begins, and its length.
    """
    pieces, runs, at = list[Piece](), list[tuple[int, int]](), 0
    for piece in content.table().pieces:
        if not isinstance(piece, Zeros) or piece.length < MIN_HOLE:
            pieces.append(piece)
            is_next = bool(runs) and sum(runs[-1]) == at
            runs[-1:] = [(runs[-1][0], runs[-1][1] + piece.length)] if is_next else [*runs[-1:], (at, piece.length)]
        at += piece.length
    if sum(length for _, length in runs) == at:
        return None
    if not runs or sum(runs[-1]) < at:
        runs.append((at, 0))  # so that a reader makes the file as long as it was
    text = b"".join(b"%d\n" % number for number in (len(runs), *(number for run in runs for number in run)))
    return PieceTable([Literal(text), Zeros(-len(text) % tarfile.BLOCKSIZE), *pieces])


def _sparse_records(info: tarfile.TarInfo) -> list[tuple[bytes, bytes]]:
    """Return the pax records of the sparse file that ``info`` describes."""
    return [
        (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", info.name.encode(*_ENCODING)),
        (b"GNU.sparse.realsize", b"%d" % info.size),
    ]  # fmt: skip


def _with_records(head: bytes, more: Iterable[tuple[bytes, bytes]], xattrs: Xattrs) -> bytes:
    """Return the header blocks ``head`` with the records ``more``, and those of ``xattrs``, in a pax header before the
    last.

    That is the one of ``head`` where it has one: most readers look at one alone.
    """
    from cosremaster.layers.tar.acl import encode_attribute  # noqa: PLC0415 - few nodes have some
    from cosremaster.layers.tar.pax import encode_records  # noqa: PLC0415 - the same

    own, first = head[-tarfile.BLOCKSIZE :], head[: tarfile.BLOCKSIZE]
    records = b""
    if len(head) > tarfile.BLOCKSIZE:
        size = tarfile.TarInfo.frombuf(first, *_ENCODING).size
        records = head[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + size]
    records += encode_records([*more, *(record for xattr in xattrs for record in encode_attribute(*xattr))])
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    padding = bytes(-len(records) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.USTAR_FORMAT, *_ENCODING) + records + padding + own


def build_tar(nodes: Iterable[Node], *, sparse: bool = False) -> TarStream:
    """Return the tar archive of ``nodes``, whose paths are relative to its root; ``sparse``: as in the stream.

    Their order is that of :func:`~cosremaster.browse.order.nodes_in_order`. The root comes last: a reader may give it
    its mode at once, and a user who unpacks could not write into one that is read-only.
    """
    held = [node for node in nodes if node.kind is not NodeKind.SOCKET]
    below, roots = [node for node in held if node.path], [node for node in held if not node.path]
    return TarStream((*nodes_in_order(below), *roots), sparse=sparse)


def sockets_warnings(nodes: Iterable[Node]) -> list[str]:
    """Return the warning that a tar archive of ``nodes`` lacks the sockets among them; none without such."""
    sockets = [node.path for node in nodes if node.kind is NodeKind.SOCKET]
    return [f"sockets are left out, as a tar archive holds none: {name_some(sockets)}"] if sockets else []


def _without_content(node: Node) -> Node:
    """Return ``node`` without its content."""
    return Node(path=node.path, kind=node.kind, mode=node.mode, link=node.link)


def _end_length(length: int) -> int:
    """Return the length of the end of archive: two blocks of zeros, and zeros to the end of the last record."""
    end = 2 * tarfile.BLOCKSIZE
    return end + -(length + end) % BLOCKING
