"""A layer between the others of the root that it is a part of (:mod:`cosremaster.layers.root_stacks`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from cosremaster.errors import Place, UnsupportedError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.model import SourceImage
from cosremaster.layers.boot_facts import BootFacts
from cosremaster.layers.find import find_nested_roots
from cosremaster.layers.identify import identify_table
from cosremaster.layers.model import Layer, build_layers, index_file
from cosremaster.layers.root_stacks import RootScheme, RootStack, find_root_stack, list_casper_layers
from cosremaster.layers.scan import ScanOptions
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, replace
from cosremaster.tree.nodes import Node, NodeKind, RootedTree
from cosremaster.tree.paths import parent_of
from cosremaster.tree.xattrs import shared_xattrs

_CALAMARES = b"etc/calamares/modules/unpackfs.conf"
_CALAMARES_SOURCE = lazy_regex(rb"^[ \t-]*source:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
_MAX_CONFIGURATION = 1 << 16
_QUICK = ScanOptions(digests=False, nesting=0, edits=False)


class LayerStack(Struct, frozen=True):
    """The layers under and over one, the lowest first.

    ``scheme``: who mounts them; None for a layer that stands alone.
    """

    lower: tuple[Layer, ...] = ()
    upper: tuple[Layer, ...] = ()
    scheme: RootScheme | None = None


def find_stack(image: SourceImage, layer: Layer, facts: BootFacts) -> LayerStack:
    """Return the file systems of ``image`` between which ``layer`` is mounted; none for what stands alone.

    Raises as indexing does, and :exc:`UnsupportedError` where one below it cannot be read.
    """
    if not _may_be_stacked(image, layer):
        return LayerStack()
    scheme, lower, upper = _split_paths(image, layer.address[0], facts)
    return LayerStack(open_below(image, lower, layer.place), tuple(_open(image, upper)), scheme)


def _split_paths(
    image: SourceImage, path: bytes, facts: BootFacts
) -> tuple[RootScheme | None, Sequence[bytes], Sequence[bytes]]:
    """Return who mounts the file system at ``path``, and the paths under and over it, the lowest first."""
    stack = find_root_stack(image, facts)
    chains = [] if stack is None else [stack.chain, *(chain for _, chain in stack.others)]
    for chain in chains:
        if path in chain.paths:
            at = chain.paths.index(path)
            return chain.scheme, chain.paths[:at], chain.paths[at + 1 :]
    files = {file.path for file in image.files}
    lower = [other for other in list_casper_layers(path)[:-1] if other in files]  # of a language, or of another boot
    return RootScheme.CASPER if lower else None, lower, ()


def choose_in_stack(image: SourceImage, paths: Sequence[bytes], facts: BootFacts) -> bytes | None:
    """Return which of the file systems at ``paths`` is meant where nobody says so; None where that is open."""
    stack = find_root_stack(image, facts)
    default = None if stack is None else settle_default(image, stack).default
    return default if default in paths else None


def settle_default(image: SourceImage, stack: RootStack) -> RootStack:
    """Return ``stack`` with that file system as its default which Calamares copies to the disk, where it copies some.

    What lies over it is in the running system alone.
    """
    chain = stack.chain
    if chain.scheme is not RootScheme.LIVE_BOOT or len(chain.paths) < 2:
        return stack
    copied = find_copied(tuple(_open(image, chain.paths)), chain.paths)
    if not copied:
        return stack
    reason = f"the installer Calamares copies it ({printable(_CALAMARES)})"
    return replace(stack, default=copied[-1], reason=reason)


def find_copied(layers: Sequence[Layer], paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return which of the file systems at ``paths``, the root of ``layers``, Calamares copies to the disk.

    Its module unpackfs has their places in the running system, as in ``/run/live/medium/live/filesystem.squashfs``.
    """
    node = StackedTree([layer.tree() for layer in layers]).get(_CALAMARES)
    text = b"" if node is None or node.content is None else node.content.head(_MAX_CONFIGURATION)
    sources = {match[1].rpartition(b"/")[2] for match in _CALAMARES_SOURCE.finditer(text)}
    return tuple(path for path in paths if path.rpartition(b"/")[2] in sources)


class MountedRoot(Struct, frozen=True):
    """What becomes the root of an image; ``nested``: a file in it that is mounted instead, for people, else empty."""

    stack: RootStack
    nested: str = ""


def find_mounted_root(image: SourceImage, facts: BootFacts, roots: Collection[bytes]) -> MountedRoot | None:
    """Return what becomes the root of ``image``; None where nothing says so, or none of ``roots`` is a part of it."""
    stack = find_root_stack(image, facts)
    if stack is None or not set(stack.chain.paths) & set(roots):
        return None
    nested = ""
    if stack.chain.scheme is RootScheme.DRACUT:
        nested = next((str(root) for layer in _open(image, stack.chain.paths) for root in find_nested_roots(layer)), "")
    return MountedRoot(settle_default(image, stack), nested)


def list_paths_below(image: SourceImage, layer: Layer, facts: BootFacts) -> Sequence[bytes]:
    """Return the paths of the file systems over which ``layer`` is mounted, the lowest first; none of them is read."""
    return _split_paths(image, layer.address[0], facts)[1] if _may_be_stacked(image, layer) else ()


def _may_be_stacked(image: SourceImage, layer: Layer) -> bool:
    """Return whether ``layer`` is a file system of its own on the medium ``image``."""
    return image.volume is not None and layer.parent is None and layer.format.random_access


def open_below(image: SourceImage, paths: Sequence[bytes], place: Place) -> tuple[Layer, ...]:
    """Return the layers at ``paths``, over which the one at ``place`` lies.

    :raises UnsupportedError: one of them cannot be read.
    """
    layers = tuple(_open(image, paths))
    if len(layers) < len(paths):
        readable = {layer.address[0] for layer in layers}
        listed = ", ".join(printable(path) for path in paths if path not in readable)
        raise UnsupportedError(f"lies over {listed}, which cannot be read", place)
    return layers


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
        self._merged: dict[bytes, tuple[Mapping[bytes, Node], ...]] = {b"": self._trees}
        """By the path of a directory, the trees that it is shown from, the uppermost first."""

    def _find(self, path: bytes) -> Node | None:
        """Return the node at ``path``, None where there is none."""
        unread = [path] if path not in self._known else []
        while unread and (parent := parent_of(unread[-1])) and parent not in self._known:
            unread.append(parent)
        for below in reversed(unread):  # there may be more levels than Python can call
            self._known[below] = self._look_up(below)
        return self._known[path]

    def _look_up(self, path: bytes) -> Node | None:
        """Return the node of the uppermost layer that has ``path``; None where that hides it, or a directory above.

        What is at its parent is known. A directory is shown from the layers that its parent is shown from, down to the
        first that hides those below it: in a directory of it that has no mark they stay hidden.
        """
        above = self._merged.get(parent_of(path), ())
        shown: Node | None = None
        merged = list[Mapping[bytes, Node]]()
        for tree in above:
            node = tree.get(path)
            if node is None:
                continue
            if is_whiteout(node) or (shown is not None and node.kind is not NodeKind.DIRECTORY):
                break
            shown = node if shown is None else shown
            merged.append(tree)
            if node.kind is not NodeKind.DIRECTORY or node.is_opaque:
                break
        if shown is not None and shown.kind is NodeKind.DIRECTORY:
            self._merged[path] = above if len(merged) == len(above) else tuple(merged)
        return shown

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


class _LinksOfOwn(Mapping[bytes, Node]):
    """The nodes of ``tree``, whose files share names with none of another ``number``."""

    def __init__(self, number: int, tree: Mapping[bytes, Node]) -> None:
        """Wrap ``tree``."""
        self._number, self._tree = number, tree

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: there is none."""
        node = self._tree[path]
        return node if node.link is None else replace(node, link=(self._number, node.link))

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path."""
        return iter(self._tree)

    def __len__(self) -> int:
        """Return how many paths there are."""
        return len(self._tree)


class MergedTree(StackedTree, RootedTree):
    """The nodes of several layers as a file system of its own has them, without what overlayfs keeps for itself."""

    def __init__(self, trees: Sequence[Mapping[bytes, Node]]) -> None:
        """Merge ``trees``, the lowest first."""
        super().__init__([_LinksOfOwn(number, tree) for number, tree in enumerate(trees)])
        self._uppermost = trees[-1]

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: there is none."""
        return _without_private_xattrs(super().__getitem__(path))

    def read_root(self) -> Node:
        """Return the node of the root, which is that of the uppermost layer."""
        if isinstance(self._uppermost, RootedTree):
            return _without_private_xattrs(self._uppermost.read_root())
        return Node(path=b"", kind=NodeKind.DIRECTORY, mode=0o755)


def _without_private_xattrs(node: Node) -> Node:
    """Return ``node`` without the attributes that overlayfs gives for its own use."""
    kept = shared_xattrs(node.xattrs)
    return node if kept == node.xattrs else replace(node, xattrs=kept)
