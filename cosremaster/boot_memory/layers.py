"""What the layers of an image take in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from cosremaster.boot_memory.estimate import (
    DEFAULT_TMPFS_SHARE,
    Footprint,
    InitramfsSizes,
    NestedRootfs,
    measure_footprint,
)
from cosremaster.codecs.base import StreamParameters
from cosremaster.layers.cpio.old import OldForm
from cosremaster.layers.cpio.tree import link_key, with_values
from cosremaster.layers.model import Layer, RootfsLikelihood
from cosremaster.tree.nodes import Edits, NodeKind

MAX_INIT_OFFSET = 32 << 20
"""Plain bytes of an initramfs to be decoded for its /init at most."""

MAX_SCRIPT = 1 << 20
"""Bytes; a longer /init is no script."""

SHORT_LINK = 128
"""Bytes of a symlink's text, its NUL among them, that take no page (mm/shmem.c)."""

_FILE, _SYMLINK = int(NodeKind.FILE), int(NodeKind.SYMLINK)

_MOUNT = re.compile(rb"^[^#\n]*\bmount\b[^\n]*\btmpfs\b[^\n]*", re.MULTILINE)
_SIZE = re.compile(rb"\bsize=(?:(\d{1,3})%)?")


def measure_layer(layer: Layer, edits: Edits | None = None) -> Footprint:
    """What the entries of ``layer`` take when unpacked, after ``edits``."""
    gone = frozenset[bytes]() if edits is None else edits.removed_paths
    sizes = _sizes(layer, gone)
    if edits is None:
        return measure_footprint(sizes)
    return measure_footprint(sizes) + measure_footprint(_new(edits))


def _sizes(layer: Layer, gone: frozenset[bytes]) -> Iterator[int]:
    """Bytes of each inode that is left; data of hard links stay as long as a name does."""
    linked: dict[object, int] = {}
    left = set[object]()
    for path, (member, values) in zip(layer.paths, with_values(layer.members), strict=True):
        _, mode, _, _, nlink, _, size, *_ = values
        key = link_key(member) if nlink > 1 else None
        stays = path not in gone
        if key is not None:
            linked[key] = max(linked.get(key, 0), size)
            if stays:
                left.add(key)
        elif stays:
            kind = mode & 0o170000
            yield size if kind == _FILE else _link_size(size) if kind == _SYMLINK else 0
    yield from (linked[key] for key in left)


def _new(edits: Edits) -> Iterator[int]:
    seen = set[object]()
    for node, _ in edits.additions:
        if node.link is not None:
            if node.link in seen:
                continue
            seen.add(node.link)
        yield node.content.size if node.content is not None else _link_size(len(node.target))


def _link_size(length: int) -> int:
    return length if length >= SHORT_LINK else 0


def find_tmpfs_share(outer: Iterable[Layer]) -> float:
    """How much of a machine's memory the tmpfs may take that the /init of an initramfs of these archives mounts: what
    its size= says, all of it where that is no percentage, and half of it without, or where there is no such script near
    the front."""
    for layer in outer:
        for path, (entry, _, _) in zip(layer.paths, layer.members, strict=True):
            if path == b"init" and 0 < entry.header.size <= MAX_SCRIPT:
                if entry.data_offset > MAX_INIT_OFFSET or entry.header.mode & 0o170000 != NodeKind.FILE:
                    return DEFAULT_TMPFS_SHARE
                script = b"".join(layer.decoded.chunks(entry.data_offset, entry.header.size))
                return _share_in(script)
    return DEFAULT_TMPFS_SHARE


def _share_in(script: bytes) -> float:
    mounts = [line[0] for line in _MOUNT.finditer(script)]
    shares = [_SIZE.search(line) for line in mounts]
    if not mounts or not all(shares):
        return DEFAULT_TMPFS_SHARE
    percents = [int(found[1]) for found in shares if found is not None and found[1] is not None]
    return min([1.0, *(percent / 100 for percent in percents if percent)])


@runtime_checkable
class HasDictionary(Protocol):
    """A form of xz or lzma, whichever of their modules is loaded."""

    @property
    def dict_size(self) -> int:
        """Bytes."""
        ...


def _dictionary(form: StreamParameters) -> int:
    """Bytes that the unpacker remembers; little beside that needs any."""
    inner = form.inner if isinstance(form, OldForm) else form
    return inner.dict_size if isinstance(inner, HasDictionary) else 0


class EditedLayer(Struct, frozen=True):
    """``layer`` after ``edits``, in ``packed`` bytes where it stands."""

    layer: Layer
    edits: Edits
    packed: int


def measure_initramfs(
    layers: Sequence[Layer], path: bytes, size: int, edited: EditedLayer | None = None
) -> InitramfsSizes | None:
    """The initramfs that the ISO's file ``path`` of ``size`` bytes is, of ``layers``, all that were found.

    None: none of its archives looks like a system.
    """
    mine = [layer for layer in layers if layer.address[0] == path]
    if all(layer.likelihood is RootfsLikelihood.NOT for layer in mine):
        return None
    chosen, edits = (None, None) if edited is None else (edited.layer, edited.edits)
    outer = [layer for layer in mine if layer.parent is None]
    files = Footprint(0, 0)
    for layer in outer:
        files += measure_layer(layer, edits if layer is chosen else None)
    if edited is not None and edited.layer.holder is not None and edited.layer.parent in outer:
        old, new = measure_footprint([edited.layer.holder.header.size]), measure_footprint([edited.packed])
        files = Footprint(files.data - old.data + new.data, files.inodes)
    inner = [layer for layer in mine if layer.parent in outer and layer.likelihood is not RootfsLikelihood.NOT]
    nested = None
    if inner:
        best = max(inner, key=lambda layer: (layer is chosen, layer.likelihood, layer.size))
        tree = measure_layer(best, edits if best is chosen else None)
        nested = NestedRootfs(tree, find_tmpfs_share(outer), _dictionary(best.parameters))
    return InitramfsSizes(packed=size, files=files, nested=nested)
