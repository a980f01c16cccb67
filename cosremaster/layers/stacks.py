"""Squashfs files that a live system stacks with overlayfs: which lie below one of them, and which above.

casper (casper(7), ``LAYERFS_PATH``) finds the layers of ``minimal.standard.live.squashfs`` by taking parts off its
name: ``minimal.standard.squashfs`` and ``minimal.squashfs`` lie below. live-boot stacks all ``live/*.squashfs`` in the
order of their names, the last on top; a ``filesystem.module`` beside them has an order of its own (live-boot(7)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.model import SourceImage
from cosremaster.layers.identify import identify_table
from cosremaster.layers.model import Layer, build_layers, index_file
from cosremaster.layers.scan import ScanOptions
from cosremaster.tree.nodes import Node, NodeKind

_END = b".squashfs"
_LIVE_BOOT = (b"live",)
_MODULES = b"filesystem.module"
_SOURCES = b"install-sources.yaml"
"""Of subiquity, the installer on casper's images: what it may copy, with its size and which is the default."""
_MAX_SOURCES = 1 << 20
_LIVE_PART = b".live"
_QUICK = ScanOptions(digests=False, nesting=0, edits=False)


class LayerStack(Struct, frozen=True):
    """The layers under and over one, the lowest first."""

    lower: tuple[Layer, ...] = ()
    upper: tuple[Layer, ...] = ()


def find_stack(image: SourceImage, layer: Layer) -> LayerStack:
    """Return the file systems of ``image`` between which ``layer`` is mounted; none for what stands alone.

    Raises as indexing does.
    """
    path = layer.address[0]
    if image.volume is None or layer.parent is not None or not layer.format.random_access or not path.endswith(_END):
        return LayerStack()
    lower, upper = _split_names(image, path)
    return LayerStack(tuple(_open(image, lower)), tuple(_open(image, upper)))


def _split_names(image: SourceImage, path: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the paths of the layers under and over the one at ``path``, the lowest first."""
    folder, _, name = path.rpartition(b"/")
    files = {file.path: file for file in image.files if file.path.rpartition(b"/")[0] == folder}
    others = sorted(other for other in files if other.endswith(_END) and other != path)
    stem = path.removesuffix(_END)
    lower = [other for other in others if stem.startswith(other.removesuffix(_END) + b".")]
    upper = [other for other in others if other.startswith(stem + b".")]
    if lower or upper or folder not in _LIVE_BOOT:
        return lower, upper
    names = [other.rpartition(b"/")[2] for other in [*others, path]]
    modules = files.get(folder + b"/" + _MODULES)
    listed = sorted(names) if modules is None else image.bytes_of(modules).read().split()
    if name not in listed:
        return [], []
    at = listed.index(name)
    paths = [folder + b"/" + other for other in listed]
    return [p for p in paths[:at] if p in files], [p for p in paths[at + 1 :] if p in files]


def choose_in_stack(image: SourceImage, paths: Sequence[bytes]) -> bytes | None:
    """Return which of the stacked file systems at ``paths`` is meant where nobody says so; None where that is open.

    It is the one that casper's installer copies (``install-sources.yaml``), so that the installed system has the
    change; else the uppermost, whose files win in the running system.
    """
    folders = {path.rpartition(b"/")[0] for path in paths}
    if len(folders) != 1 or not all(path.endswith(_END) for path in paths):
        return None
    (folder,) = folders
    sources = next((file for file in image.files if file.path == folder + b"/" + _SOURCES), None)
    installed = None if sources is None else _find_installed(image.bytes_of(sources).read(0, _MAX_SOURCES))
    if installed is not None and folder + b"/" + installed in paths:
        return folder + b"/" + installed
    tops = [path for path in paths if not _split_names(image, path)[1]]
    running = [path for path in tops if path.removesuffix(_END).endswith(_LIVE_PART)] or tops
    return running[0] if len(running) == 1 else None


def _find_installed(text: bytes) -> bytes | None:
    """Return the ``path`` of the source in ``install-sources.yaml`` that is the default; None where none is."""
    for source in re.split(rb"^- ", text, flags=re.MULTILINE):
        path = re.search(rb"^ *path: *[\"']?([^\s\"']+)", source, re.MULTILINE)
        if path is not None and re.search(rb"^ *default: *true\b", source, re.MULTILINE):
            return path[1]
    return None


def _open(image: SourceImage, paths: Sequence[bytes]) -> Iterator[Layer]:
    """Yield the layers at ``paths``; their data are not read."""
    files = {file.path: file for file in image.files}
    layers = (open_filesystem(path, image.bytes_of(files[path]), image.place.inside(path)) for path in paths)
    yield from (layer for layer in layers if layer is not None)


def open_filesystem(path: bytes, table: PieceTable, place: Place) -> Layer | None:
    """Return the file system whose bytes are ``table`` as a layer, its data unread; None where it is no layer."""
    identification = identify_table(table)
    if identification.format is None or not identification.format.random_access:
        return None
    return build_layers(index_file(path, table, place, _QUICK, identification), table, place)[-1]


def is_whiteout(node: Node) -> bool:
    """Return whether ``node`` hides what lies below it: device 0:0 (Documentation/filesystems/overlayfs.rst)."""
    return node.kind is NodeKind.CHAR and node.rdev == (0, 0)


class StackedTree(Mapping[bytes, Node]):
    """The nodes of several layers as overlayfs shows them together; with whiteouts and opaque directories.

    ``trees``: the lowest first.
    """

    def __init__(self, trees: Sequence[Mapping[bytes, Node]]) -> None:
        """Stack ``trees``."""
        self._trees = tuple(reversed(trees))
        self._known: dict[bytes, Node | None] = {}

    def _find(self, path: bytes) -> Node | None:
        """Return the node at ``path``, None where there is none."""
        if path not in self._known:
            self._known[path] = self._look_up(path)
        return self._known[path]

    def _look_up(self, path: bytes) -> Node | None:
        """Return the node of the uppermost layer that has ``path``; None where that hides it, or a directory above."""
        parent = path.rpartition(b"/")[0]
        if parent:
            above = self._find(parent)
            if above is None or above.kind is not NodeKind.DIRECTORY:
                return None
        for tree in self._trees:
            node = tree.get(path)
            if node is not None:
                return None if is_whiteout(node) else node
            owner = tree.get(parent) if parent else None
            if owner is not None and (owner.kind is not NodeKind.DIRECTORY or owner.is_opaque):
                return None
        return None

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: there is none."""
        node = self._find(path) if path else None
        if node is None:
            raise KeyError(path)
        return node

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path."""
        paths = dict.fromkeys(path for tree in reversed(self._trees) for path in tree)
        return (path for path in paths if self._find(path) is not None)

    def __len__(self) -> int:
        """Return how many paths there are."""
        return sum(1 for _ in self)
