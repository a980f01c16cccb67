"""Read the directory trees of an image: each file with its records, and with the name that readers show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.limits import TreeLimits
from cosremaster.iso.ecma119.records import PRIMARY, SUPPLEMENTARY, Extent, VolumeDescriptor
from cosremaster.iso.model import IsoTree
from cosremaster.iso.read_directories import EarlierTree, TreeReader
from cosremaster.iso.rockridge.read import find_susp_skip, read_root_fields
from cosremaster.iso.walk import DirectoryWalker, NamedBlocks
from cosremaster.units import Lba, lba_offset

_JOLIET_ESCAPES = (b"%/@", b"%/C", b"%/E")
_ENHANCED = 2
"""The version of an enhanced volume descriptor (ISO 9660:1999, 8.5)."""
JOLIET = "Joliet"
"""The kind of a Joliet tree."""


def is_joliet(descriptor: VolumeDescriptor) -> bool:
    """Return True for a supplementary descriptor whose escape sequences say UCS-2 (Joliet, "SVD Escape Sequences")."""
    return descriptor.type == SUPPLEMENTARY and descriptor.raw[88:91] in _JOLIET_ESCAPES


def read_trees(
    source: ByteSource, descriptors: Iterable[VolumeDescriptor], base: Lba, read_roots: Iterable[Lba] = (),
    limits: TreeLimits | None = None, earlier: Mapping[Lba, EarlierTree] | None = None,
) -> Iterator[IsoTree]:  # fmt: skip
    """Yield the tree of each primary and supplementary descriptor of one set.

    A descriptor that shares the root of an earlier one, as an enhanced descriptor (ISO 9660:1999) does, has a tree
    without files.

    :param base: the block from which the descriptors count their blocks.
    :param read_roots: the roots of trees that were read already.
    :param limits: of all trees of the image together.
    :param earlier: trees of an image of which this one may have directories, by the block of their descriptor.
    :raises ImageError: when a record is malformed, or a directory or a file lies outside the image.
    """
    roots, limits = set(read_roots), limits or TreeLimits(source)
    for descriptor in descriptors:
        if descriptor.type not in (PRIMARY, SUPPLEMENTARY):
            continue
        reader, skip, others = None, None, NamedBlocks(base)
        if descriptor.root.lba not in roots:
            roots.add(descriptor.root.lba)
            root = Extent(Lba(base + descriptor.root.lba), descriptor.root.length)
            skip = None if is_joliet(descriptor) else find_susp_skip(source.read(lba_offset(root.lba), 255))
            walker = DirectoryWalker(source, base, skip, is_joliet(descriptor), others, limits, {root.lba})
            before = (earlier or {}).get(descriptor.lba)
            is_same_kind = before is not None and (before.tree.kind, before.tree.base, before.tree.skip) == (
                _tree_kind(descriptor), base, skip,
            )  # fmt: skip
            reader = TreeReader(walker, before if is_same_kind else None)
            reader.read(root)
        yield IsoTree(
            kind=_tree_kind(descriptor), descriptor_lba=descriptor.lba, base=base, blocks=descriptor.blocks,
            files=reader.files if reader else (),
            directories=tuple([directory.extent for directory in reader.directories]) if reader else (),
            directory_paths=tuple([directory.path for directory in reader.directories]) if reader else (),
            path_tables=tuple(Extent(Lba(base + table.lba), table.length) for table in descriptor.path_tables),
            has_rock_ridge=skip is not None, other_spans=others.list_spans(source.size),
            empty_blocks=frozenset(others.empty_blocks),
            extension_fields=() if skip is None else tuple(_read_extension_fields(source, root.lba, skip, base)),
            index=tuple(reader.index) if reader else (), skip=skip,
        )  # fmt: skip


def _read_extension_fields(source: ByteSource, root: Lba, skip: int, base: Lba) -> Iterator[bytes]:
    """Yield the fields of a root's ``.`` that say something about the whole tree, not about the root alone."""
    for raw in read_root_fields(source, root, skip, base):
        if raw[:2] not in (b"PX", b"TF", b"RR"):
            yield raw


def _tree_kind(descriptor: VolumeDescriptor) -> str:
    """Return the kind of the descriptor's tree, in words."""
    if descriptor.type == PRIMARY:
        return "ISO 9660"
    if is_joliet(descriptor):
        return JOLIET
    return "ISO 9660:1999" if descriptor.raw[6] == _ENHANCED else "supplementary"
