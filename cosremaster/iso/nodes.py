"""Read an image's own tree as nodes, with modes, owners, times, devices and symlinks from Rock Ridge (IEEE P1282).

What only another tree shows, as Windows discs have it in UDF, is part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.io.pieces import Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.dates import parse_short_date
from cosremaster.iso.ecma119.limits import TreeLimits
from cosremaster.iso.ecma119.records import DIRECTORY, DirectoryRecord
from cosremaster.iso.hidden import may_hide_names
from cosremaster.iso.model import IsoDirectory, IsoFile, IsoImage
from cosremaster.iso.rockridge.read import NO_ROCK_RIDGE, PosixAttributes, find_susp_skip, read_attributes
from cosremaster.iso.rockridge.zisofs import parse_zisofs
from cosremaster.iso.udf.read import has_udf
from cosremaster.iso.walk import DirectoryWalker, NamedBlocks, NamedRecord, walk_records
from cosremaster.records import replace
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Content, Node, NodeKind
from cosremaster.tree.paths import join, parent_of
from cosremaster.units import Lba, lba_offset

if TYPE_CHECKING:
    from cosremaster.iso.tree_edit.directories import DirectoryEntry, EditableTree
    from cosremaster.iso.udf.read import UdfFile

_KINDS = {int(kind): kind for kind in NodeKind if kind is not NodeKind.DIRECTORY}
"""The kinds of nodes by their file type, as in st_mode, except directories."""
_DATE = slice(18, 25)
"""The bytes of a directory record that hold its date (ECMA-119, 9.1.5)."""


def read_nodes(image: IsoImage, source: ByteSource) -> dict[bytes, Node]:
    """Read the nodes of ``image``'s own tree except its root, by path, parents before children.

    These are the nodes of the primary tree, and those that only other trees show.

    Without Rock Ridge, directories have mode 0755, files 0644, and all belong to root. Names are hard links where they
    share a file serial number (RRIP 1.12, 4.1.1). Files under zisofs have their uncompressed bytes.

    :param source: the file that holds the image.
    :raises ImageError: when the tree cannot be read.
    """
    files = {file.path: file for file in image.files}
    nodes = {node.path: node for node in _walk_nodes(image, source, files)}
    if may_hide_names(image):
        _add_hidden_nodes(nodes, image, source, files)
    if image.udf is None and image.blockers and has_udf(source):
        _add_unfollowed_udf(nodes, image, source)
    names = Counter(node.link for node in nodes.values() if node.link is not None)
    return {
        path: replace(node, link=None) if node.link is not None and names[node.link] == 1 else node
        for path, node in nodes.items()
    }


def _add_hidden_nodes(
    nodes: dict[bytes, Node], image: IsoImage, source: ByteSource, files: dict[bytes, IsoFile]
) -> None:
    """Add to ``nodes`` what only trees other than the primary one show, also where its ``files`` are cut off."""
    from cosremaster.iso.merged import read_merged_trees  # noqa: PLC0415 - only images with hidden names need it
    from cosremaster.iso.udf.nodes import find_data, read_udf_node  # noqa: PLC0415 - the same

    try:
        merged = read_merged_trees(image, source)
    except (ImageError, UnsupportedError):
        return  # such a tree is read for nothing else
    for tree, path, entry in merged.named_entries():
        shown, parent = nodes.get(path), nodes.get(parent_of(path))
        udf_file = merged.udf.find_file(entry) if merged.udf is not None and tree is merged.udf.tree else None
        if shown is not None:
            if udf_file is not None and shown.content is not None and _is_cut_off(files.get(path), udf_file):
                nodes[path] = replace(shown, content=PieceContent(find_data(source, udf_file).pieces))
        elif b"/" not in path or (parent is not None and parent.kind is NodeKind.DIRECTORY):
            nodes[path] = (
                _make_hidden_node(image, source, tree, path, entry)
                if udf_file is None
                else read_udf_node(source, udf_file, path)
            )


def _add_unfollowed_udf(nodes: dict[bytes, Node], image: IsoImage, source: ByteSource) -> None:
    """Add to ``nodes`` what only a UDF file system shows that can be read, but not changed (as UDF 2.50).

    :raises ImageError: when it cannot be read, and ISO 9660 shows one file at most, as on Windows discs.
    :raises UnsupportedError: the same.
    """
    from cosremaster.iso.udf_alone import read_udf_nodes  # noqa: PLC0415 - only such images need it

    try:
        others = read_udf_nodes(source)
    except (ImageError, UnsupportedError):
        if len(nodes) > 1:
            return
        raise
    folded = {} if image.has_rock_ridge else {path.lower(): path for path in nodes}
    spelled = {b"": b""}
    for path, node in others.items():
        parent = spelled.get(parent_of(path))
        if parent is None:
            continue
        own_path = join(parent, path.rpartition(b"/")[2])
        shown_path = own_path if own_path in nodes else folded.get(own_path.lower(), own_path)
        shown = nodes.setdefault(shown_path, replace(node, path=shown_path))
        if shown.kind is NodeKind.DIRECTORY:
            spelled[path] = shown_path


def _is_cut_off(file: IsoFile | None, udf_file: UdfFile) -> bool:
    """Return whether ``file`` has the first bytes of ``udf_file`` alone.

    genisoimage -allow-limited-size records the lower 32 bits of a file's size in ISO 9660.
    """
    if file is None or not udf_file.extents or udf_file.size <= file.size:
        return False
    return not file.size or file.start == udf_file.extents[0][0]


def _make_hidden_node(
    image: IsoImage, source: ByteSource, tree: EditableTree, path: bytes, entry: DirectoryEntry
) -> Node:
    """Return the node at ``path`` of an entry of a tree of directory records."""
    record = entry.records[-1]
    raw = source.read(record.offset, source.read(record.offset, 1)[0])
    named = NamedRecord(path, record, raw, NO_ROCK_RIDGE, entry.directory.extent if entry.directory else None)
    attributes = PosixAttributes()
    if tree.rock_ridge is not None:
        attributes = _read_attributes(source, named, tree.rock_ridge.skip, tree.base)
    return _make_node(named, attributes, image, IsoFile(path, entry.records))


def _walk_nodes(image: IsoImage, source: ByteSource, files: dict[bytes, IsoFile]) -> Iterator[Node]:
    """Yield a node for each record of the primary tree; hard links may have one name."""
    tree = image.trees[0]
    root = tree.directories[0]
    skip = find_susp_skip(source.read(lba_offset(root.lba), 255)) if tree.has_rock_ridge else None
    for named in walk_records(source, root, tree.base, skip, joliet=False):
        attributes = PosixAttributes() if skip is None else _read_attributes(source, named, skip, tree.base)
        yield _make_node(named, attributes, image, files.get(named.path))


def read_nodes_in(image: IsoImage, source: ByteSource, directory: IsoDirectory) -> Iterator[Node]:
    """Yield a node for each record of one directory of the primary tree; hard links may have one name.

    :raises ImageError: when a record cannot be read.
    """
    tree = image.trees[0]
    files = {file.path: file for file in tree.files[directory.files]}
    skip, others, limits = tree.skip, NamedBlocks(tree.base), TreeLimits(source)
    walker = DirectoryWalker(source, tree.base, skip, joliet=False, others=others, limits=limits, seen=set())
    for named in walker.walk(directory.extent, directory.identifiers, directory.path):
        attributes = PosixAttributes() if skip is None else _read_attributes(source, named, skip, tree.base)
        yield _make_node(named, attributes, image, files.get(named.path))


def read_root_node(image: IsoImage, source: ByteSource) -> Node:
    """Return the node of the root of the primary tree, from its ``.``, with zeros for all where it has none.

    :raises ImageError: its fields cannot be read.
    """
    tree = image.trees[0]
    root = tree.directories[0]
    offset = lba_offset(root.lba)
    raw = source.read(offset, source.read(offset, 1)[0])
    record = DirectoryRecord(offset, root.lba, root.length, DIRECTORY, (), b"\0")
    named = NamedRecord(b"", record, raw, NO_ROCK_RIDGE, root)
    if raw[32:34] != b"\1\0":
        return _make_node(replace(named, raw=bytes(34)), PosixAttributes(), image, None)
    attributes = PosixAttributes() if tree.skip is None else _read_attributes(source, named, tree.skip, tree.base)
    return _make_node(named, attributes, image, None)


def _read_attributes(source: ByteSource, named: NamedRecord, skip: int, base: Lba) -> PosixAttributes:
    """Read the attributes of a record's file.

    Those of a relocated directory are in its own ``.`` record, where the kernel reads them: the record with the CL
    field describes a file.
    """
    raw, offset = named.raw, named.record.offset
    if named.directory is not None and named.rock_ridge.child_lba is not None:
        offset = lba_offset(named.directory.lba)
        raw = source.read(offset, source.read(offset, 1)[0])
    return read_attributes(source, raw, offset, skip, base)


def _make_node(named: NamedRecord, attributes: PosixAttributes, image: IsoImage, file: IsoFile | None) -> Node:
    """Return the node of a record."""
    kind = NodeKind.DIRECTORY if named.directory is not None else _find_kind(attributes)
    default = 0o755 if kind is NodeKind.DIRECTORY else 0o644
    is_linked = kind is not NodeKind.DIRECTORY and attributes.links > 1 and attributes.serial
    return Node(
        path=named.path, kind=kind, mode=default if attributes.mode is None else attributes.mode & 0o7777,
        uid=attributes.uid, gid=attributes.gid,
        mtime=parse_short_date(named.raw[_DATE]) if attributes.mtime is None else attributes.mtime,
        target=attributes.target or b"" if kind is NodeKind.SYMLINK else b"",
        rdev=attributes.rdev if kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0),
        content=_find_content(attributes, image, file) if kind is NodeKind.FILE and file is not None else None,
        link=(attributes.serial, kind, named.record.lba) if is_linked else None,
    )  # fmt: skip


def _find_content(attributes: PosixAttributes, image: IsoImage, file: IsoFile) -> Content:
    """Return the content of ``file``, uncompressed where Linux uncompresses it."""
    if attributes.zisofs_field:
        zisofs = parse_zisofs(attributes.zisofs_field, image.bytes_of(file), image.place.inside(file.path))
        if zisofs is not None:
            return PieceContent((Range(zisofs, 0, zisofs.size),))
    return PieceContent(tuple([image.source.cut(start, start + length) for start, length in file.extents]))


def _find_kind(attributes: PosixAttributes) -> NodeKind:
    """Return the kind of a node that is not a directory: that of its PX field, else a symlink if it has a target."""
    kind = _KINDS.get((attributes.mode or 0) & 0o170000)
    if kind is not None:
        return kind
    return NodeKind.FILE if attributes.target is None else NodeKind.SYMLINK
