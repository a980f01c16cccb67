"""Laying nodes over a file system. Pure: an image tree and additions in, edits out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cosremaster.errors import OverlayError, Place, show
from cosremaster.nodes import Action, Edits, Kind, Node, parent_of

MAX_LINKS = 40
"""Symlinks followed in one path before it is called a loop; the kernel's own limit."""


@dataclass(frozen=True, slots=True)
class Addition:
    """Nodes to be laid over the image.

    ``nodes`` have paths below ``dest``, sorted. ``single``: one file, which goes into ``dest`` if that is a
    directory in the image or ``into`` is set, and is called ``dest`` otherwise.
    """

    nodes: tuple[Node, ...]
    dest: bytes
    single: bool
    into: bool
    source: str


class _Overlaid:
    """The image with changes laid over it so far."""

    def __init__(self, image: Mapping[bytes, Node], place: Place) -> None:
        self.image = image
        self.place = place
        self.put: dict[bytes, tuple[Node, bool]] = {}  # path -> node, made as a parent
        self.gone: set[bytes] = set()

    def get(self, path: bytes) -> Node | None:
        """The node at exactly ``path`` now."""
        if path in self.put:
            return self.put[path][0]
        return None if path in self.gone else self.image.get(path)

    def below(self, path: bytes) -> Iterator[bytes]:
        """Every path under ``path`` now."""
        prefix = path + b"/"
        yield from (name for name in self.image if name.startswith(prefix) and name not in self.gone)
        yield from (name for name in self.put if name.startswith(prefix))

    def remove(self, path: bytes) -> None:
        """Takes ``path`` and what is below it away."""
        for name in (path, *tuple(self.below(path))):
            self.put.pop(name, None)
            if name in self.image:
                self.gone.add(name)


def merge(image: Mapping[bytes, Node], additions: Sequence[Addition], remove: Sequence[bytes], place: Place) -> Edits:
    """The edits that take ``remove`` out of ``image`` and then lay ``additions`` over it, in order.

    ``place`` names the image in errors. :raises OverlayError: a path to remove is not there, a parent
    is no directory, dangles or loops, or the types of two things at one path do not agree.
    """
    tree = _Overlaid(image, place)
    removed: list[bytes] = []
    for path in remove:
        found = _locate(tree, path, None)
        if not found or tree.get(found) is None:
            raise OverlayError("cannot be removed: it is not there", place.inside(path))
        tree.remove(found)
        removed.append(found)
    touched: set[bytes] = set()
    for addition in additions:
        for node in addition.nodes:
            path = _put(tree, replace(node, path=_target(tree, addition, node)))
            if node.kind is not Kind.DIRECTORY:
                touched.add(path)
    return _edits(tree, touched, removed)


def _target(tree: _Overlaid, addition: Addition, node: Node) -> bytes:
    """Where ``node`` goes, before symlinks on the way are followed."""
    dest = addition.dest
    if not addition.single:
        return b"/".join(part for part in (dest, node.path) if part)
    if not addition.into and not (not dest or _is_directory(tree, dest)):
        return dest
    return b"/".join(part for part in (dest, node.path) if part)


def _is_directory(tree: _Overlaid, path: bytes) -> bool:
    """True when ``path``, symlinks followed, is a directory in the image now."""
    resolved = _resolve(tree, path.split(b"/"), None)
    node = tree.get(resolved)
    return not resolved or (node is not None and node.kind is Kind.DIRECTORY)


def _put(tree: _Overlaid, node: Node) -> bytes:
    """Lays one node over the tree, its parents made where they are missing; returns its resolved path."""
    path = _locate(tree, node.path, node)
    node = replace(node, path=path)
    there = tree.get(path)
    if node.kind is Kind.DIRECTORY:
        if there is None:
            tree.put[path] = (node, False)
        elif there.kind is Kind.SYMLINK:
            _resolve(tree, path.split(b"/"), node)
        elif there.kind is not Kind.DIRECTORY:
            raise OverlayError(f"a directory cannot go over this {there.kind.noun}", tree.place.inside(path))
        return path
    if there is not None and there.kind is Kind.DIRECTORY:
        if next(tree.below(path), None) is not None:
            raise OverlayError(
                f"a {node.kind.noun} cannot go over this directory, which is not empty", tree.place.inside(path)
            )
        tree.remove(path)
    tree.put[path] = (node, False)
    return path


def _locate(tree: _Overlaid, path: bytes, needs: Node | None) -> bytes:
    """``path`` with the symlinks in its parents followed.

    With ``needs`` missing parents are made, with that node's mtime.
    """
    parent, _, name = path.rpartition(b"/")
    resolved = _resolve(tree, parent.split(b"/"), needs) if parent else b""
    return resolved + b"/" + name if resolved else name


def _resolve(tree: _Overlaid, parts: Sequence[bytes], needs: Node | None) -> bytes:
    """The path that ``parts`` lead to with every symlink followed as in a chroot.

    With ``needs`` (the node that wants the path as its directory) a missing part is made a directory, unless
    a symlink leads there, and anything but a directory is an error. Without, missing parts pass unchanged.
    """
    waiting = deque((part, b"") for part in parts)
    path, links = b"", 0
    while waiting:
        part, link = waiting.popleft()
        if part in (b"", b"."):
            continue
        if part == b"..":
            path = parent_of(path)
            continue
        below = path + b"/" + part if path else part
        node = tree.get(below)
        if node is not None and node.kind is Kind.SYMLINK:
            links += 1
            if links > MAX_LINKS:
                raise OverlayError("symlinks lead in a loop", tree.place.inside(b"/".join(parts)))
            if node.target.startswith(b"/"):
                path = b""
            waiting.extendleft((step, below) for step in reversed(node.target.split(b"/")))
            continue
        if needs is not None:
            _enter(tree, below, node, link, needs)
        path = below
    return path


def _enter(tree: _Overlaid, path: bytes, node: Node | None, link: bytes, needs: Node) -> None:
    """Makes sure that ``path`` is a directory that ``needs`` can lie under."""
    if node is None:
        if link:
            raise OverlayError(
                f"{show(needs.path)} cannot be added: the symlink leads to {show(path)}, which is not there",
                tree.place.inside(link),
            )
        made = Node(path=path, kind=Kind.DIRECTORY, mode=0o755, mtime=needs.mtime)
        tree.put[path] = (made, True)
    elif node.kind is not Kind.DIRECTORY:
        raise OverlayError(f"{show(needs.path)} cannot be added below this {node.kind.noun}", tree.place.inside(path))


def _edits(tree: _Overlaid, touched: set[bytes], removed: Sequence[bytes]) -> Edits:
    """What the changes come to, compared with the image as it was."""
    new: list[tuple[Node, Action]] = []
    unchanged: list[bytes] = []
    gone = set(tree.gone)
    for path in sorted(tree.put):
        node, parent = tree.put[path]
        before = tree.image.get(path)
        if before is None:
            new.append((node, Action.PARENT if parent else Action.ADDED))
        elif path in touched and path not in tree.gone and identical(before, node):
            unchanged.append(path)
        else:
            gone.add(path)
            new.append((node, Action.REPLACED))
    warnings = tuple(f"{show(node.path)} begins with #! but is not executable" for node, _ in new if _idle_script(node))
    return Edits(
        gone=frozenset(gone), new=tuple(new), removed=tuple(path for path in removed if path not in tree.put),
        unchanged=tuple(unchanged), warnings=warnings,
    )  # fmt: skip


def identical(one: Node, other: Node) -> bool:
    """Same type, permission bits, and bytes, link target or device number."""
    if one.kind is not other.kind:
        return False
    if one.kind is Kind.SYMLINK:
        return one.target == other.target
    if one.mode & 0o777 != other.mode & 0o777 or one.rdev != other.rdev:
        return False
    if one.content is None or other.content is None:
        return one.content is other.content
    return one.content.size == other.content.size and (
        not one.content.size or one.content.digest() == other.content.digest()
    )


def _idle_script(node: Node) -> bool:
    return node.content is not None and not node.mode & 0o111 and node.content.head(2) == b"#!"
