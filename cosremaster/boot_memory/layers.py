"""Measure the memory that the layers of an image take when they are unpacked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from cosremaster.boot_memory.estimate import (
    DEFAULT_TMPFS_SHARE,
    Footprint,
    InitramfsSizes,
    NestedRootfs,
    measure_footprint,
)
from cosremaster.io.pieces import Range
from cosremaster.layers.model import Layer, RootfsLikelihood
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct
from cosremaster.tree.nodes import Edits, Node, NodeKind

MAX_INIT_OFFSET = 32 << 20
"""Bytes of an initramfs that are decoded at most to reach its /init."""

MAX_SCRIPT = 1 << 20
"""Bytes; a longer /init is no script."""

SHORT_LINK = 128
"""Bytes of a symlink's text, with its NUL, from which on it takes a page (mm/shmem.c)."""

_FILE, _SYMLINK = int(NodeKind.FILE), int(NodeKind.SYMLINK)

_MOUNT = lazy_regex(rb"^[^#\n]*\bmount\b[^\n]*\btmpfs\b[^\n]*", re.MULTILINE)
_SIZE = lazy_regex(rb"\bsize=(?:(\d{1,3})%)?")


def measure_layer(layer: Layer, edits: Edits | None = None) -> Footprint:
    """Return the footprint of the unpacked entries of ``layer``, after ``edits``."""
    if edits is None:
        return _measure_entries(layer, frozenset())
    return _measure_entries(layer, edits.removed_paths) + measure_footprint(_added_sizes(edits))


def _measure_entries(layer: Layer, removed_paths: frozenset[bytes]) -> Footprint:
    """Return the footprint of the remaining entries of ``layer``."""
    going = layer.removed_inodes(removed_paths) if removed_paths else ()
    if going is None:
        return measure_footprint(_entry_sizes(layer.inodes(removed_paths)))
    whole: Footprint | None = layer.derived.get("footprint")
    if whole is None:
        whole = layer.derived["footprint"] = measure_footprint(_entry_sizes(layer.inodes()))
    return whole - measure_footprint(_entry_sizes(going)) if going else whole


def _entry_sizes(inodes: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Yield the bytes of each of ``inodes``, type and size."""
    for kind, size in inodes:
        yield size if kind == _FILE else _symlink_size(size) if kind == _SYMLINK else 0


def _added_sizes(edits: Edits) -> Iterator[int]:
    """Yield the bytes of each inode that ``edits`` add."""
    seen = set[object]()
    for node, _ in edits.additions:
        if node.link is not None:
            if node.link in seen:
                continue
            seen.add(node.link)
        yield node.content.size if node.content is not None else _symlink_size(len(node.target))


def _symlink_size(length: int) -> int:
    """Return the bytes in pages of a symlink whose text has ``length`` bytes."""
    return length if length >= SHORT_LINK else 0


def find_tmpfs_share(archives: Iterable[Layer]) -> float:
    """Return the largest share of the machine's memory for the tmpfs that /init of an initramfs mounts.

    This is the percentage of its size=, or 1 where size= is no percentage. It is :data:`DEFAULT_TMPFS_SHARE` where
    there is no size=, or no such script in the first :data:`MAX_INIT_OFFSET` bytes.

    :param archives: the archives that the initramfs consists of.
    """
    for layer in archives:
        node = layer.tree().get(b"init")
        if node is not None:
            share: float | None = layer.derived.get("tmpfs share")
            if share is None:
                share = layer.derived["tmpfs share"] = _tmpfs_share_of(node)
            return share
    return DEFAULT_TMPFS_SHARE


def _tmpfs_share_of(init: Node) -> float:
    """Return the share that the script ``init`` sets, if it is one near the front of its archive."""
    if init.content is None or not 0 < init.content.size <= MAX_SCRIPT:
        return DEFAULT_TMPFS_SHARE
    table = init.content.table()
    if any(isinstance(piece, Range) and piece.offset > MAX_INIT_OFFSET for piece in table.pieces):
        return DEFAULT_TMPFS_SHARE
    return _parse_tmpfs_share(table.read())


def _parse_tmpfs_share(script: bytes) -> float:
    """Return the smallest share that a ``mount`` of a tmpfs in ``script`` sets."""
    sizes = [_SIZE.search(line[0]) for line in _MOUNT.finditer(script)]
    if not sizes or not all(sizes):
        return DEFAULT_TMPFS_SHARE
    percents = [int(size[1]) for size in sizes if size is not None and size[1] is not None]
    return min([1.0, *(percent / 100 for percent in percents if percent)])


class EditedLayer(Struct, frozen=True):
    """``layer`` after ``edits``; ``packed``: its bytes in the entry that contains it."""

    layer: Layer
    edits: Edits
    packed: int


def measure_initramfs(
    layers: Sequence[Layer], path: bytes, size: int, edited: Sequence[EditedLayer] = ()
) -> InitramfsSizes | None:
    """Return the sizes of the initramfs in the ISO's file ``path``; None if none of its archives looks like a system.

    :param layers: all layers of the image.
    :param size: bytes of the file.
    :param edited: the layers of the file that are changed.
    """
    in_file = [layer for layer in layers if layer.address[0] == path and layer.format.is_initramfs]
    in_file = [layer for layer in in_file if not layer.is_in_filesystem]
    if all(layer.likelihood is RootfsLikelihood.NOT or layer.format.random_access for layer in in_file):
        return None
    edits = {change.layer.address: change.edits for change in edited}
    archives = [layer for layer in in_file if layer.parent is None]
    files = Footprint(0, 0)
    for layer in archives:
        files += measure_layer(layer, edits.get(layer.address))
    for change in edited:
        if change.layer.container_entry is not None and change.layer.parent in archives:
            old, new = measure_footprint([change.layer.container_entry.size]), measure_footprint([change.packed])
            files = Footprint(files.data - old.data + new.data, files.inodes)
    nested_layers = [
        layer for layer in in_file if layer.parent in archives and layer.likelihood is not RootfsLikelihood.NOT
    ]
    nested = None
    if nested_layers:
        rootfs = max(nested_layers, key=lambda layer: (layer.address in edits, layer.likelihood, layer.size))
        footprint = measure_layer(rootfs, edits.get(rootfs.address))
        nested = NestedRootfs(footprint, find_tmpfs_share(archives), rootfs.parameters.dictionary_size)
    return InitramfsSizes(packed=size, files=files, nested=nested)
