"""An image's own file tree as nodes: Rock Ridge's modes, owners, times, devices and symlinks (IEEE P1282)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec.structs import replace

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.dates import parse_short_date
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.iso.read_trees import NamedRecord, walk_records
from cosremaster.iso.rockridge.read import PosixAttributes, find_susp_skip, read_attributes
from cosremaster.iso.rockridge.zisofs import parse_zisofs
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Content, Node, NodeKind
from cosremaster.units import Lba, lba_offset

_KINDS = frozenset(NodeKind)
_DATE = slice(18, 25)
"""Where a directory record has its date (ECMA-119, 9.1.5)."""


def read_nodes(image: IsoImage, source: ByteSource) -> dict[bytes, Node]:
    """Every node of ``image``'s primary tree but its root, which ``source`` holds, by path; parents come first.

    Without Rock Ridge, directories have mode 0755, files 0644, and all belong to root. Names are linked where they
    share a serial number (RRIP 1.12, 4.1.1). Files under zisofs have their plain bytes.
    :raises ImageError: the tree cannot be read.
    """
    files = {file.path: file for file in image.files}
    nodes = {node.path: node for node in _nodes(image, source, files)}
    names = Counter(node.link for node in nodes.values() if node.link is not None)
    return {
        path: replace(node, link=None) if node.link is not None and names[node.link] == 1 else node
        for path, node in nodes.items()
    }


def _nodes(image: IsoImage, source: ByteSource, files: dict[bytes, IsoFile]) -> Iterator[Node]:
    tree = image.trees[0]
    root = tree.directories[0]
    skip = find_susp_skip(source.read(lba_offset(root.lba), 255)) if tree.has_rock_ridge else None
    for one in walk_records(source, root, tree.base, skip, joliet=False):
        said = PosixAttributes() if skip is None else _attributes(source, one, skip, tree.base)
        yield _node(one, said, image, files.get(one.path))


def _attributes(source: ByteSource, one: NamedRecord, skip: int, base: Lba) -> PosixAttributes:
    """A relocated directory tells its own in its ``.``, as the kernel reads it; the record with CL is a file's."""
    raw, offset = one.raw, one.record.offset
    if one.directory is not None and one.rock_ridge.child_lba is not None:
        offset = lba_offset(one.directory.lba)
        raw = source.read(offset, source.read(offset, 1)[0])
    return read_attributes(source, raw, offset, skip, base)


def _node(one: NamedRecord, said: PosixAttributes, image: IsoImage, file: IsoFile | None) -> Node:
    kind = NodeKind.DIRECTORY if one.directory is not None else _kind(said)
    default = 0o755 if kind is NodeKind.DIRECTORY else 0o644
    linked = kind is not NodeKind.DIRECTORY and said.links > 1 and said.serial
    return Node(
        path=one.path, kind=kind, mode=default if said.mode is None else said.mode & 0o7777, uid=said.uid, gid=said.gid,
        mtime=parse_short_date(one.raw[_DATE]) if said.mtime is None else said.mtime,
        target=said.target or b"" if kind is NodeKind.SYMLINK else b"",
        rdev=said.rdev if kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0),
        content=_content(said, image, file) if kind is NodeKind.FILE and file is not None else None,
        link=(said.serial, kind, one.record.lba) if linked else None,
    )  # fmt: skip


def _content(said: PosixAttributes, image: IsoImage, file: IsoFile) -> Content:
    """The file's bytes, as Linux gives them where they are compressed."""
    if said.zisofs_field:
        zisofs = parse_zisofs(said.zisofs_field, image.bytes_of(file), image.place.inside(file.path))
        if zisofs is not None:
            return zisofs
    return PieceContent(tuple(image.source.cut(start, start + length) for start, length in file.extents))


def _kind(said: PosixAttributes) -> NodeKind:
    """What is no directory: as PX tells it, else by whether there is a symlink's text."""
    told = (said.mode or 0) & 0o170000
    if told in _KINDS and told != NodeKind.DIRECTORY:
        return NodeKind(told)
    return NodeKind.FILE if said.target is None else NodeKind.SYMLINK
