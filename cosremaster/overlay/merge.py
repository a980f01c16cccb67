"""Laying nodes over a file system. Pure: an image tree and additions in, edits out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.errors import OverlayError, Place, printable
from cosremaster.overlay.addition import Addition, PreparedItem
from cosremaster.overlay.patterns import Pattern
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind
from cosremaster.tree.paths import SymlinkLoopError, join, parent_of, resolve_in_root


class _Laid(Struct, frozen=True):
    """A node that came; the addition it came with and its name there; whether only what is below it asked for it."""

    node: Node
    addition: Addition
    name: bytes
    parent: bool = False

    @property
    def origin(self) -> Place:
        """Where it comes from."""
        place = Place().inside(self.addition.source)
        return place if self.addition.is_single_file else place.inside(self.name)


class _Overlaid:
    """The image with changes laid over it so far."""

    def __init__(self, image: Mapping[bytes, Node], place: Place, *, force_type: bool) -> None:
        self.image = image
        self.place = place
        self.force_type = force_type
        self.put: dict[bytes, _Laid] = {}
        self.gone: set[bytes] = set()
        self.warnings: list[str] = []
        self.folders: dict[bytes, bytes] = {}
        """Directories as they were asked for, and as they are called; only while no symlink comes or goes."""
        self._names: list[bytes] | None = None
        self._held: dict[bytes, set[bytes]] = {}  # directory -> paths put in it

    def get(self, path: bytes) -> Node | None:
        """The node at exactly ``path`` now."""
        if path in self.put:
            return self.put[path].node
        return None if path in self.gone else self.image.get(path)

    def lay(self, laid: _Laid) -> None:
        """Puts a node at its path."""
        path, before = laid.node.path, self.get(laid.node.path)
        if NodeKind.SYMLINK in (laid.node.kind, before and before.kind):
            self.folders.clear()
        self.put[path] = laid
        self._held.setdefault(parent_of(path), set()).add(path)

    def below(self, path: bytes) -> Iterator[bytes]:
        """Every path under ``path`` now, but for changes made meanwhile."""
        if self._names is None:
            self._names = sorted(self.image)
        # Those of a directory stand together in byte order: from "path/" to before "path0", the next character.
        start = bisect_left(self._names, path + b"/") if path else 0
        end = bisect_left(self._names, path + b"0") if path else len(self._names)
        waiting = list(self._held.get(path, ()))
        for index in range(start, end):
            name = self._names[index]
            if name and name not in self.gone and name not in self.put:
                yield name
                waiting += self._held.get(name, ())
        while waiting:
            name = waiting.pop()
            yield name
            waiting += self._held.get(name, ())

    def empty(self, path: bytes) -> None:
        """Takes what is below ``path`` away."""
        for name in tuple(self.below(path)):
            self._drop(name)

    def remove(self, path: bytes) -> None:
        """Takes ``path`` and what is below it away."""
        self.empty(path)
        self._drop(path)

    def _drop(self, path: bytes) -> None:
        self.folders.clear()
        if self.put.pop(path, None):
            self._held[parent_of(path)].discard(path)
        if path in self.image:
            self.gone.add(path)


class _CurrentTree(Mapping[bytes, Node]):
    """The image with the changes so far, as an item sees it."""

    def __init__(self, tree: _Overlaid) -> None:
        self._tree = tree

    def __getitem__(self, path: bytes) -> Node:
        node = self._tree.get(path)
        if node is None:
            raise KeyError(path)
        return node

    def __iter__(self) -> Iterator[bytes]:
        if self._tree.get(b"") is not None:
            yield b""
        yield from self._tree.below(b"")

    def __len__(self) -> int:
        return sum(1 for _ in self)


def merge(
    image: Mapping[bytes, Node], items: Sequence[PreparedItem], remove: Sequence[Pattern], place: Place, *,
    allow_missing: bool = False, force_type: bool = False,
) -> Edits:  # fmt: skip
    """Return the edits that take ``remove`` out of ``image`` and then lay ``items`` over it, in order.

    Each item sees the image as the removals and the items before it leave it.
    ``place`` names the image in errors. :raises OverlayError: there is nothing to remove (unless ``allow_missing``),
    a parent is no directory, dangles or loops, or the types of two things at one path do not agree (unless
    ``force_type``).
    """
    tree = _Overlaid(image, place, force_type=force_type)
    for pattern in remove:
        if not _remove(tree, pattern) and not allow_missing:
            what = "it is not there" if pattern.is_literal else "nothing fits this pattern"
            raise OverlayError(f"cannot be removed: {what} (--allow-missing goes on)", place.inside(pattern.text))
    touched: set[bytes] = set()
    for addition in (addition for item in items for addition in item.additions(_CurrentTree(tree))):
        _hide(tree, addition)
        for node in addition.nodes:
            path = _put(tree, _Laid(_at(node, _target(tree, addition, node)), addition, node.path))
            if node.kind is not NodeKind.DIRECTORY:
                touched.add(path)
    return _edits(tree, touched)


def resolve_location(
    image: Mapping[bytes, Node], path: bytes, place: Place, needs: Node | None, *, force_type: bool = False
) -> tuple[bytes, dict[bytes, Node]]:
    """``path`` with the symlinks in its parents followed, and the parents that it lacks there for ``needs``.

    :raises OverlayError: as for an addition that goes there.
    """
    tree = _Overlaid(image, place, force_type=force_type)
    asked = None
    if needs is not None:
        asked = _Laid(_at(needs, path), Addition((needs,), b"", True, True, printable(needs.path)), needs.path)
    found = _locate(tree, path, asked)
    return found, {name: laid.node for name, laid in tree.put.items()}


def _remove(tree: _Overlaid, pattern: Pattern) -> bool:
    """Takes away what fits ``pattern``; False if nothing does."""
    if pattern.is_literal:
        found = [_locate(tree, pattern.literal_prefix, None)]
    else:
        folder = _resolve(tree, pattern.literal_prefix.split(b"/"), None)
        skip = len(folder) + 1 if folder else 0
        found = sorted(name for name in tree.below(folder) if pattern.wildcard_regex.fullmatch(name, skip))
    found = [path for path in found if path and tree.get(path) is not None]
    for path in found:
        tree.remove(path)
    return bool(found)


def _hide(tree: _Overlaid, addition: Addition) -> None:
    """What the whiteouts of ``addition`` take from what lies below it; what is not there is hidden already.

    All of them speak of the tree as it was before the addition.
    """
    emptied = [_resolve(tree, join(addition.dest, path).split(b"/"), None) for path in addition.opaque_directories]
    hidden = [_locate(tree, join(addition.dest, path), None) for path in addition.hidden_paths]
    for path in emptied:
        tree.empty(path)
    for path in hidden:
        if tree.get(path) is not None:
            tree.remove(path)


def _target(tree: _Overlaid, addition: Addition, node: Node) -> bytes:
    """Where ``node`` goes, before symlinks on the way are followed."""
    dest = addition.dest
    if addition.is_single_file and not addition.into_directory and dest and not _is_directory(tree, dest):
        return dest
    return join(dest, node.path)


def _is_directory(tree: _Overlaid, path: bytes) -> bool:
    """True when ``path``, symlinks followed, is a directory in the image now."""
    resolved = _resolve(tree, path.split(b"/"), None)
    node = tree.get(resolved)
    return not resolved or (node is not None and node.kind is NodeKind.DIRECTORY)


def _at(node: Node, path: bytes) -> Node:
    return node if node.path == path else replace(node, path=path)


def _put(tree: _Overlaid, asked: _Laid) -> bytes:
    """Lays one node over the tree, its parents made where they are missing; returns its resolved path."""
    path = _locate(tree, asked.node.path, asked)
    node = _at(asked.node, path)
    laid = asked if node is asked.node else replace(asked, node=node)
    there = tree.get(path)
    if node.kind is NodeKind.DIRECTORY:
        if there is not None and there.kind is NodeKind.SYMLINK:
            _resolve(tree, path.split(b"/"), laid)
            return path
        if there is None or (path in tree.put and tree.put[path].parent):
            tree.lay(laid)
        elif there.kind is not NodeKind.DIRECTORY:
            _clash(tree, laid, f"this {there.kind.noun}")
            tree.remove(path)
            tree.lay(laid)
        elif asked.addition.has_explicit_ownership and not identical(there, node):
            tree.warnings.append(
                f"{printable(path)} is there already: it keeps its mode {there.mode:04o}"
                f" and owner {there.uid}:{there.gid}"
            )
        tree.folders[asked.node.path] = path
        return path
    if there is not None and there.kind is NodeKind.DIRECTORY:
        if next(tree.below(path), None) is not None:
            _clash(tree, laid, "this directory, which is not empty")
        tree.remove(path)
    tree.lay(laid)
    return path


def _clash(tree: _Overlaid, laid: _Laid, there: str) -> None:
    """:raises OverlayError: things of different types must not replace each other."""
    if not tree.force_type:
        raise OverlayError(
            f"the {laid.node.kind.noun} {laid.origin} cannot go over {there} (--force-type replaces it)",
            tree.place.inside(laid.node.path),
        )


def _locate(tree: _Overlaid, path: bytes, needs: _Laid | None) -> bytes:
    """``path`` with the symlinks in its parents followed.

    With ``needs`` missing parents are made, with that node's mtime.
    """
    parent, _, name = path.rpartition(b"/")
    if not parent or needs is None:
        return join(_resolve(tree, parent.split(b"/"), None), name)
    if parent not in tree.folders:
        resolved = _resolve(tree, parent.split(b"/"), needs)
        tree.folders[parent] = resolved
    return join(tree.folders[parent], name)


def _resolve(tree: _Overlaid, parts: Sequence[bytes], needs: _Laid | None) -> bytes:
    """Return the path that ``parts`` lead to with every symlink followed as in a chroot.

    With ``needs`` (the node that wants the path as its directory) a missing part is made a directory, unless
    a symlink leads there, and anything but a directory is an error. Without, missing parts pass unchanged.
    """

    def link_target(path: bytes) -> bytes | None:
        node = tree.get(path)
        return node.target if node is not None and node.kind is NodeKind.SYMLINK else None

    def enter(path: bytes, link: bytes) -> None:
        assert needs is not None
        _enter(tree, path, tree.get(path), link, needs)

    path = b"/".join(parts)
    try:
        return resolve_in_root(path, link_target, enter=None if needs is None else enter)
    except SymlinkLoopError as error:
        raise OverlayError("symlinks lead in a loop", tree.place.inside(path)) from error


def _enter(tree: _Overlaid, path: bytes, node: Node | None, link: bytes, needs: _Laid) -> None:
    """Makes sure that ``path`` is a directory that ``needs`` can lie under."""
    if node is not None and node.kind is NodeKind.DIRECTORY:
        return
    told = f"{needs.origin} cannot be added as {printable(needs.node.path)}"
    if node is not None and not tree.force_type:
        raise OverlayError(
            f"{told}: this is a {node.kind.noun}, no directory (--force-type replaces it)",
            tree.place.inside(path),
        )
    if node is None and link:
        raise OverlayError(
            f"{told}: the symlink leads to {printable(path)}, which is not there",
            tree.place.inside(link),
        )
    if node is not None:
        tree.remove(path)
    made = Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755, mtime=needs.node.mtime)
    tree.lay(_Laid(made, needs.addition, needs.name, parent=True))


def _edits(tree: _Overlaid, touched: set[bytes]) -> Edits:
    """What the changes come to, compared with the image as it was."""
    new: list[tuple[Node, Action]] = []
    unchanged: list[bytes] = []
    gone = set(tree.gone)
    come: set[bytes] = set()
    for path in sorted(tree.put):
        laid, before = tree.put[path], tree.image.get(path)
        # What stays keeps its place in the archive, which must not be before that of a directory that comes anew.
        if before is not None and parent_of(path) not in come and identical(before, laid.node):
            gone.discard(path)
            if path in touched:
                unchanged.append(path)
            continue
        come.add(path)
        if before is None:
            new.append((laid.node, Action.PARENT if laid.parent else Action.ADDED))
        else:
            gone.add(path)
            new.append((laid.node, Action.REPLACED))
    idle = [f"{printable(node.path)} begins with #! but is not executable" for node, _ in new if _idle_script(node)]
    left = gone - come
    return Edits(
        removed_paths=frozenset(gone), additions=tuple(new), warnings=(*tree.warnings, *idle),
        unchanged=tuple(unchanged), removed=tuple(sorted(path for path in left if parent_of(path) not in left)),
    )  # fmt: skip


def identical(before: Node, node: Node) -> bool:
    """Same type, owner, mode, and bytes, link target or device number.

    Set-user-ID, set-group-ID and sticky bits that only ``before`` has make no difference: they stay.
    """
    if (before.kind, before.uid, before.gid) != (node.kind, node.uid, node.gid):
        return False
    if before.kind is NodeKind.SYMLINK:
        return before.target == node.target
    if before.mode & (0o777 | node.mode) != node.mode or before.rdev != node.rdev:
        return False
    if before.content is None or node.content is None:
        return before.content is node.content
    return before.content.size == node.content.size and (
        not before.content.size or before.content.digest() == node.content.digest()
    )


def _idle_script(node: Node) -> bool:
    return node.content is not None and not node.mode & 0o111 and node.content.head(2) == b"#!"
