"""The nodes of an image's own tree, read a directory at a time: a change of few files asks for few of them."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.io.source import ByteSource
from cosremaster.iso.hidden import may_hide_names
from cosremaster.iso.model import IsoImage
from cosremaster.iso.nodes import read_nodes, read_nodes_in, read_root_node
from cosremaster.tree.nodes import Node, RootedTree

_FEW = 32
"""So many paths are looked for one by one, before a set of all is made."""
_KEPT_NODES = 20_000
"""So many nodes are kept for who asks for others of their directories: a walk through an image of a million files needs
no memory for all. Each takes about a kilobyte.
"""


class LazyNodes(RootedTree):
    """What :func:`~cosremaster.iso.nodes.read_nodes` returns for an image, all of it only when it has to be.

    That is when more than single paths are asked for, where trees show different things, and where there are hard
    links: all names of a file have to be known to tell that one of several links is alone.
    """

    def __init__(self, image: IsoImage, source: ByteSource) -> None:
        """Begin without having read anything of ``image``, which is in ``source``."""
        self._image, self._source = image, source
        tree = image.trees[0]
        self._directories = {directory.path: directory for directory in tree.index}
        self._read: dict[bytes, dict[bytes, Node]] = {}
        self._paths: frozenset[bytes] | None = None
        self._kept_count = self._asked = 0
        self._all: dict[bytes, Node] | None = None
        is_plain = image.udf is None and not image.blockers and len(self._directories) == len(tree.index)
        if not is_plain or may_hide_names(image):
            self._read_all()
        for directory in tree.index if self._all is None else ():
            if not directory.is_ordinary:  # a field of it may be damaged
                self._read_directory(directory.path)

    def _read_all(self) -> dict[bytes, Node]:
        """Return all nodes."""
        if self._all is None:
            self._all = {path: node for path, node in read_nodes(self._image, self._source).items() if path}
        return self._all

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. Raises as ``read_nodes``."""
        if self._all is None:
            if not path:
                raise KeyError(path)
            parent = path.rpartition(b"/")[0]
            if parent not in self._read and parent in self._directories:
                self._read_directory(parent)
            node = self._read[parent].get(path) if parent in self._read else None
            if node is not None and self._all is None:
                return node
            if self._all is None and not self._has_path(path):  # a name may hold a slash
                raise KeyError(path)
        return self._read_all()[path]

    def _has_path(self, path: bytes) -> bool:
        """Return whether there is a node at ``path``; a set of all paths is made when many are asked for."""
        self._asked += 1
        if self._asked > _FEW:
            return path in self.list_paths()
        return path in self._directories or self._image.trees[0].has_path(path)

    def _read_directory(self, path: bytes) -> None:
        """Read the nodes in the directory at ``path``; all where one of them has other names."""
        nodes = {node.path: node for node in read_nodes_in(self._image, self._source, self._directories[path])}
        while self._read and self._kept_count + len(nodes) > _KEPT_NODES:
            oldest = next(iter(self._read))
            self._kept_count -= len(self._read.pop(oldest))
        self._read[path] = nodes
        self._kept_count += len(nodes)
        if any(node.link is not None for node in nodes.values()):
            self._read_all()

    def read_root(self) -> Node:
        """Return the node of the root, of its ``.``."""
        return read_root_node(self._image, self._source)

    def list_paths(self) -> frozenset[bytes]:
        """Return all paths; no nodes are read for that."""
        if self._paths is None:
            paths = (*self._directories, *self._image.trees[0].file_paths) if self._all is None else self._all
            self._paths = frozenset(paths) - {b""}
        return self._paths

    def __contains__(self, path: object) -> bool:
        """Return whether there is a node at ``path``."""
        return isinstance(path, bytes) and self.get(path) is not None

    def __iter__(self) -> Iterator[bytes]:
        """Yield all paths, parents before children."""
        return iter(self._read_all())

    def __len__(self) -> int:
        """Count the nodes."""
        return len(self._read_all())
