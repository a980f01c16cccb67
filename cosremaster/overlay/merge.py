"""Lay the nodes of an overlay over a file system.

This module is pure: the tree of an image and prepared items go in, edits come out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

from cosremaster.errors import OverlayError, Place, printable
from cosremaster.overlay.addition import Addition, PreparedItem
from cosremaster.overlay.attributes import SHOWN, name_some
from cosremaster.overlay.exact_nodes import find_relinked, is_same_node, with_private_xattrs
from cosremaster.overlay.patterns import Pattern
from cosremaster.records import Struct, replace
from cosremaster.tree.content import is_same_content
from cosremaster.tree.nodes import Action, ArchiveTree, Edits, Node, NodeKind, RootedTree
from cosremaster.tree.paths import SymlinkLoopError, ancestors, join, parent_of, resolve_in_root
from cosremaster.tree.xattrs import shared_xattrs


class _LaidNode(Struct, frozen=True):
    """A node of the overlay at its new path.

    ``source_path``: its path in ``addition``. ``is_implied``: it is a parent directory that a node below it needed.
    """

    node: Node
    addition: Addition
    source_path: bytes
    is_implied: bool = False

    @property
    def origin(self) -> Place:
        """The place on this machine that the node comes from, for errors."""
        place = Place().inside(self.addition.source)
        return place if self.addition.is_single_file or not self.source_path else place.inside(self.source_path)


class _OverlaidTree(Mapping[bytes, Node]):
    """The file system of an image, called ``place`` in errors, with the changes made so far.

    ``force_type``: nodes of different types may replace each other.
    """

    def __init__(self, image: Mapping[bytes, Node], place: Place, *, force_type: bool) -> None:
        """Begin with no changes."""
        self.image = image
        self.place = place
        self.force_type = force_type
        self.laid: dict[bytes, _LaidNode] = {}
        self.removed: set[bytes] = set()
        self.warnings: list[str] = []
        self.resolved_parents: dict[bytes, bytes] = {}
        """Directory as named -> with its symlinks followed. Cleared when a symlink is laid or anything is removed."""
        self._image_paths: list[bytes] | None = None
        self._laid_children: dict[bytes, set[bytes]] = {}

    def find(self, path: bytes) -> Node | None:
        """Return the node at exactly ``path``, None where there is none. :meth:`get` is slower."""
        if path in self.laid:
            return self.laid[path].node
        return None if path in self.removed else self.image.get(path)

    def is_implied(self, path: bytes) -> bool:
        """Return whether ``path`` is a directory that no entry of the image names, only what is below it."""
        if not isinstance(self.image, ArchiveTree) or self.find(path) is not None:
            return False
        return path in self.image.implied_directories and next(self.below(path), None) is not None

    def has_path(self, path: bytes) -> bool:
        """Return whether something stands at exactly ``path``, be it a directory that no entry names."""
        return self.find(path) is not None or self.is_implied(path)

    def implied_below(self, path: bytes) -> Iterator[bytes]:
        """Yield every directory under ``path`` that no entry of the image names, only what is below it."""
        implied = self.image.implied_directories if isinstance(self.image, ArchiveTree) else ()
        start = path + b"/" if path else b""
        return (name for name in implied if name.startswith(start) and self.is_implied(name))

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at exactly ``path``."""
        node = self.find(path)
        if node is None:
            raise KeyError(path)
        return node

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path, the root's where the image has it."""
        if self.find(b"") is not None:
            yield b""
        yield from self.below(b"")

    def __len__(self) -> int:
        """Count the paths."""
        return sum(1 for _ in self)

    def lay(self, laid: _LaidNode) -> None:
        """Put a node at its path."""
        path, replaced_node = laid.node.path, self.find(laid.node.path)
        if NodeKind.SYMLINK in (laid.node.kind, replaced_node and replaced_node.kind):
            self.resolved_parents.clear()
        self.laid[path] = laid
        if path:
            self._laid_children.setdefault(parent_of(path), set()).add(path)

    def below(self, path: bytes) -> Iterator[bytes]:
        """Yield every path under ``path``. Changes during the iteration may be missed."""
        if self._image_paths is None:
            self._image_paths = sorted(self.image.list_paths() if isinstance(self.image, RootedTree) else self.image)
        # In byte order the paths of a directory are neighbours: from "path/" up to "path0", the next character.
        start = bisect_left(self._image_paths, path + b"/") if path else 0
        end = bisect_left(self._image_paths, path + b"0") if path else len(self._image_paths)
        pending = list(self._laid_children.get(path, ()))
        for index in range(start, end):
            name = self._image_paths[index]
            if name and name not in self.removed and name not in self.laid:
                yield name
                pending += self._laid_children.get(name, ())
        while pending:
            name = pending.pop()
            yield name
            pending += self._laid_children.get(name, ())

    def empty(self, path: bytes) -> None:
        """Remove everything below ``path``."""
        for name in tuple(self.below(path)):
            self._drop(name)

    def remove(self, path: bytes) -> None:
        """Remove ``path`` and everything below it."""
        self.empty(path)
        self._drop(path)

    def _drop(self, path: bytes) -> None:
        """Remove exactly ``path``."""
        self.resolved_parents.clear()
        if self.laid.pop(path, None) and path:
            self._laid_children[parent_of(path)].discard(path)
        if path in self.image:
            self.removed.add(path)


def merge(
    image: Mapping[bytes, Node], items: Sequence[PreparedItem], remove: Sequence[Pattern], place: Place, *,
    allow_missing: bool = False, force_type: bool = False,
) -> Edits:  # fmt: skip
    """Return the edits that remove the paths matching ``remove`` from ``image`` and then lay ``items`` over it.

    Items are laid in order. Each sees the image as the removals and the items before it leave it. ``place`` names the
    image in errors.

    :raises OverlayError: nothing matches a pattern to remove (unless ``allow_missing``); a parent is no directory,
        dangles or loops; or two nodes at one path have different types (unless ``force_type``).
    """
    tree = _OverlaidTree(image, place, force_type=force_type)
    for pattern in remove:
        if not _remove(tree, pattern) and not allow_missing:
            raise OverlayError(_describe_miss(tree, pattern), place.inside(pattern.text))
    requested: set[bytes] = set()
    for addition in (addition for item in items for addition in item.additions(tree)):
        if addition.is_exact:
            _lay_exactly(tree, addition)
            continue
        _apply_whiteouts(tree, addition)
        if addition.root is not None:
            _lay_destination(tree, addition, addition.root)
        for node in addition.nodes:
            laid = _LaidNode(_with_path(node, _target_path(tree, addition, node)), addition, node.path)
            path = _lay_directory(tree, laid) if node.kind is NodeKind.DIRECTORY else _lay_other(tree, laid)
            if node.kind is not NodeKind.DIRECTORY:
                requested.add(path)
    return _make_edits(tree, requested)


def resolve_location(
    image: Mapping[bytes, Node], path: bytes, place: Place, needs: Node | None, *, force_type: bool = False
) -> tuple[bytes, dict[bytes, Node]]:
    """Return ``path`` with the symlinks in its parents followed, and the missing parents that ``needs`` needs.

    ``needs``: the node that moves to ``path``; None: nothing does, so no parent is made.

    :raises OverlayError: as for an addition that goes there.
    """
    tree = _OverlaidTree(image, place, force_type=force_type)
    laid = None
    if needs is not None:
        addition = Addition((needs,), b"", True, True, printable(needs.path))
        laid = _LaidNode(_with_path(needs, path), addition, needs.path)
    resolved = _resolve_parents(tree, path, laid)
    return resolved, {name: parent.node for name, parent in tree.laid.items()}


def _remove(tree: _OverlaidTree, pattern: Pattern) -> bool:
    """Remove all paths that match ``pattern``. Return whether there were any."""
    if pattern.is_literal:
        matches = [_resolve_parents(tree, pattern.literal_prefix, None)]
    else:
        directory = _resolve(tree, pattern.literal_prefix, None)
        skip = len(directory) + 1 if directory else 0
        names = chain(tree.below(directory), tree.implied_below(directory))
        matches = sorted(name for name in names if pattern.wildcard_regex.fullmatch(name, skip))
    matches = [path for path in matches if path and tree.has_path(path)]
    for path in matches:
        tree.remove(path)
    return bool(matches)


def _describe_miss(tree: _OverlaidTree, pattern: Pattern) -> str:
    """Return why nothing was removed for ``pattern``, and what may be meant by it."""
    if not pattern.is_literal:
        return "cannot be removed: nothing fits this pattern (--allow-missing goes on)"
    from cosremaster.tree.similar import suggest_path  # noqa: PLC0415 - only where a path is not there

    meant = suggest_path(_resolve_parents(tree, pattern.literal_prefix, None), tree.below(b""))
    return f"cannot be removed: it is not there (--allow-missing goes on){meant}"


def _apply_whiteouts(tree: _OverlaidTree, addition: Addition) -> None:
    """Remove what the whiteouts of ``addition`` hide; a path that is missing is hidden already.

    Every whiteout refers to the tree before the addition.
    """
    opaque = [_resolve(tree, join(addition.dest, path), None) for path in addition.opaque_directories]
    hidden = [_resolve_parents(tree, join(addition.dest, path), None) for path in addition.hidden_paths]
    for path in opaque:
        tree.empty(path)
    for path in hidden:
        if tree.has_path(path):
            tree.remove(path)


def _lay_destination(tree: _OverlaidTree, addition: Addition, root: Node) -> None:
    """Make sure that the directory that ``addition`` goes into is there; where it is not, it becomes ``root``.

    :raises OverlayError: there is something else; the message names what was to go there first.
    """
    laid = _LaidNode(_with_path(root, addition.dest), addition, b"", is_implied=True)
    needs = laid
    if addition.nodes:
        first = addition.nodes[0]
        needs = _LaidNode(_with_path(first, join(addition.dest, first.path)), addition, first.path)
    path = _resolve_parents(tree, addition.dest, needs)
    existing = tree.find(path)
    if existing is not None:
        _resolve(tree, addition.dest, needs)
    if existing is None or existing.kind not in (NodeKind.DIRECTORY, NodeKind.SYMLINK):
        tree.lay(replace(laid, node=_with_path(root, path)))


def _target_path(tree: _OverlaidTree, addition: Addition, node: Node) -> bytes:
    """Return the path that ``node`` goes to, before symlinks in its parents are followed."""
    dest = addition.dest
    if addition.is_single_file and not addition.into_directory and dest and not _is_directory(tree, dest):
        return dest
    return join(dest, node.path)


def _is_directory(tree: _OverlaidTree, path: bytes) -> bool:
    """Return whether ``path``, with its symlinks followed, is a directory."""
    resolved = _resolve(tree, path, None)
    node = tree.find(resolved)
    return not resolved or tree.is_implied(resolved) or (node is not None and node.kind is NodeKind.DIRECTORY)


def _with_path(node: Node, path: bytes) -> Node:
    """Return ``node`` under the name ``path``."""
    return node if node.path == path else replace(node, path=path)


def _at_resolved_path(tree: _OverlaidTree, laid: _LaidNode) -> _LaidNode:
    """Return ``laid`` with the symlinks in its parents followed, and lay the parents that are missing."""
    node = _with_path(laid.node, _resolve_parents(tree, laid.node.path, laid))
    return laid if node is laid.node else replace(laid, node=node)


def _lay_directory(tree: _OverlaidTree, requested: _LaidNode) -> bytes:
    """Lay a directory and its missing parents over the tree. Return its resolved path.

    A directory or a symlink to one that exists stays as it is.
    """
    laid = _at_resolved_path(tree, requested)
    path = laid.node.path
    existing = tree.find(path)
    if existing is not None and existing.kind is NodeKind.SYMLINK:
        _resolve(tree, path, laid)
        return path
    if existing is None or (path in tree.laid and tree.laid[path].is_implied):
        tree.lay(laid)
    elif existing.kind is not NodeKind.DIRECTORY:
        _refuse_type_change(tree, laid, f"this {existing.kind.noun}")
        tree.remove(path)
        tree.lay(laid)
    elif laid.addition.has_explicit_ownership and not _is_unchanged(existing, laid.node):
        tree.warnings.append(
            f"{printable(path)} is there already: it keeps its mode {existing.mode:04o}"
            f" and owner {existing.uid}:{existing.gid}"
        )
    tree.resolved_parents[requested.node.path] = path
    return path


def _lay_other(tree: _OverlaidTree, requested: _LaidNode) -> bytes:
    """Lay a node that is no directory, and its missing parents, over the tree. Return its resolved path."""
    laid = _at_resolved_path(tree, requested)
    path = laid.node.path
    existing = tree.find(path)
    if tree.is_implied(path) or (existing is not None and existing.kind is NodeKind.DIRECTORY):
        if next(tree.below(path), None) is not None:
            _refuse_type_change(tree, laid, "this directory, which is not empty")
        tree.remove(path)
    tree.lay(laid)
    return path


def _lay_exactly(tree: _OverlaidTree, addition: Addition) -> None:
    """Make ``tree`` what it is after a change of its own: paths lead through no symlink, and types may change."""
    for path in addition.hidden_paths:
        if tree.has_path(path):
            tree.remove(path)
    for node in addition.nodes:
        existing = tree.find(node.path)
        kind = NodeKind.DIRECTORY if tree.is_implied(node.path) else existing and existing.kind
        if kind not in (None, node.kind):
            tree.remove(node.path)
        for parent in ancestors(node.path):
            if tree.find(parent) is None:  # an archive need not name its directories
                implied = Node(path=parent, kind=NodeKind.DIRECTORY, mode=0o755, mtime=node.mtime)
                tree.lay(_LaidNode(implied, addition, node.path, is_implied=True))
        tree.lay(_LaidNode(node, addition, node.path))


def _refuse_type_change(tree: _OverlaidTree, laid: _LaidNode, existing: str) -> None:
    """Check that ``laid`` may replace the ``existing`` node of another type.

    :raises OverlayError: it may not, as ``force_type`` is not set.
    """
    if not tree.force_type:
        raise OverlayError(
            f"the {laid.node.kind.noun} {laid.origin} cannot go over {existing} (--force-type replaces it)",
            tree.place.inside(laid.node.path),
        )


def _resolve_parents(tree: _OverlaidTree, path: bytes, needs: _LaidNode | None) -> bytes:
    """Return ``path`` with the symlinks in its parents followed.

    With ``needs`` missing parents are made, with the mtime of that node.
    """
    parent, _, name = path.rpartition(b"/")
    if not parent or needs is None:
        return join(_resolve(tree, parent, None), name)
    if parent not in tree.resolved_parents:
        resolved = _resolve(tree, parent, needs)
        tree.resolved_parents[parent] = resolved
    return join(tree.resolved_parents[parent], name)


def _resolve(tree: _OverlaidTree, path: bytes, needs: _LaidNode | None) -> bytes:
    """Return ``path`` with every symlink followed as in a chroot.

    With ``needs`` (the node that goes into the directory ``path``) each missing part becomes a directory, unless a
    symlink leads there, and a part of another type is an error. Without, missing parts pass unchanged.
    """

    def link_target(path: bytes) -> bytes | None:
        """Return the text of the symlink at ``path``."""
        node = tree.find(path)
        return node.target if node is not None and node.kind is NodeKind.SYMLINK else None

    def enter(path: bytes, link: bytes) -> None:
        """Make sure that the way leads through a directory."""
        assert needs is not None
        _require_directory(tree, path, link, needs)

    try:
        return resolve_in_root(path, link_target, enter=None if needs is None else enter)
    except SymlinkLoopError as error:
        raise OverlayError("symlinks lead in a loop", tree.place.inside(path)) from error


def _require_directory(tree: _OverlaidTree, path: bytes, link: bytes, needs: _LaidNode) -> None:
    """Make sure that ``path`` is a directory that ``needs`` can lie under.

    ``link``: the path of the symlink that led here, empty for none.
    """
    node = tree.find(path)
    if node is not None and node.kind is NodeKind.DIRECTORY:
        return
    refusal = f"{needs.origin} cannot be added as {printable(needs.node.path)}"
    if node is not None and not tree.force_type:
        raise OverlayError(
            f"{refusal}: this is a {node.kind.noun}, no directory (--force-type replaces it)", tree.place.inside(path)
        )
    if node is None and link and not tree.is_implied(path):
        raise OverlayError(
            f"{refusal}: the symlink leads to {printable(path)}, which is not there", tree.place.inside(link)
        )
    if node is not None:
        tree.remove(path)
    parent = Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755, mtime=needs.node.mtime)
    tree.lay(_LaidNode(parent, needs.addition, needs.source_path, is_implied=True))


def _make_edits(tree: _OverlaidTree, requested: set[bytes]) -> Edits:
    """Return the difference between ``tree`` and its image. ``requested``: the paths of items, without directories."""
    additions: list[tuple[Node, Action]] = []
    unchanged: list[bytes] = []
    removed = set(tree.removed)
    added: set[bytes] = set()
    moved: set[bytes] = set()
    relinked = _find_relinked(tree)
    for path in sorted(tree.laid):
        laid, image_node = tree.laid[path], tree.image.get(path)
        # An unchanged node keeps its position in the archive, so its directory must not be a new entry after it.
        if image_node is not None and parent_of(path) not in moved and _is_kept(image_node, laid, relinked):
            removed.discard(path)
            if path in requested:
                unchanged.append(path)
            continue
        added.add(path)
        if image_node is None or not (laid.addition.is_exact and image_node.kind is NodeKind.DIRECTORY):
            moved.add(path)
        if image_node is None:
            additions.append((laid.node, Action.PARENT if laid.is_implied else Action.ADDED))
        else:
            removed.add(path)
            keep = with_private_xattrs if laid.addition.is_exact else _with_kept_xattrs
            additions.append((keep(image_node, laid.node), Action.REPLACED))
    additions = _part_links(tree, additions)
    local = (node for node, _ in additions if not tree.laid[node.path].addition.is_archive)
    scripts = [node.path for node in local if _is_script_without_x(node)]
    script_warnings = [f"{printable(path)} begins with #! but is not executable" for path in scripts]
    if len(scripts) > SHOWN:
        script_warnings = [f"{len(scripts):,} files begin with #! but are not executable: {name_some(scripts)}"]
    not_replaced = removed - added
    return Edits(
        removed_paths=frozenset(removed), additions=tuple(additions), warnings=(*tree.warnings, *script_warnings),
        unchanged=tuple(unchanged),
        removed=tuple(sorted(path for path in not_replaced if parent_of(path) not in not_replaced)),
    )  # fmt: skip


def _part_links(tree: _OverlaidTree, additions: list[tuple[Node, Action]]) -> list[tuple[Node, Action]]:
    """Return ``additions``, with those names of a hard-linked file as files of their own that get other attributes.

    A file has one owner and mode under all its names, but rules may give them different ones, and so may two items
    that add it.
    """
    attributes_of_links: dict[object, object] = {}
    parted: list[tuple[Node, Action]] = []
    for node, action in additions:
        if node.link is not None and not tree.laid[node.path].addition.is_exact:
            attributes = (node.mode, node.uid, node.gid, node.mtime, node.xattrs)
            if attributes_of_links.setdefault(node.link, attributes) != attributes:
                node = replace(node, link=(node.link, attributes))  # noqa: PLW2901
        parted.append((node, action))
    return parted


def _find_relinked(tree: _OverlaidTree) -> set[bytes]:
    """Return the paths of files of ``tree`` that have other names in common than before, as exact additions say."""
    exact = [laid.node for laid in tree.laid.values() if laid.addition.is_exact]
    if not exact:
        return set()
    others = {path for path, laid in tree.laid.items() if not laid.addition.is_exact}
    return find_relinked(tree.image, exact, tree.removed | others)


def _is_kept(old: Node, laid: _LaidNode, relinked: Collection[bytes]) -> bool:
    """Return whether the node ``old`` of the image stays; ``relinked``: paths that share a file with other ones now."""
    if not laid.addition.is_exact or laid.is_implied:
        return _is_unchanged(old, laid.node)
    return old.path not in relinked and is_same_node(old, laid.node)


def _is_unchanged(old: Node, new: Node) -> bool:
    """Return whether type, owner, mode and content, link target or device number of two nodes are the same.

    Set-user-ID, set-group-ID and sticky bits that only ``old`` has make no difference: they stay. So do extended
    attributes.
    """
    if (old.kind, old.uid, old.gid) != (new.kind, new.uid, new.gid):
        return False
    if new.xattrs and not set(new.xattrs) <= set(old.xattrs):
        return False
    if old.kind is NodeKind.SYMLINK:
        return old.target == new.target
    if old.mode & (0o777 | new.mode) != new.mode or old.rdev != new.rdev:
        return False
    if old.content is None or new.content is None:
        return old.content is new.content
    return is_same_content(old.content, new.content)


def _with_kept_xattrs(old: Node, new: Node) -> Node:
    """Return ``new``, with the extended attributes that only ``old`` has where both files have the same bytes.

    Then the owner, the mode or other attributes are what changes.
    """
    if not old.xattrs or old.content is None or new.content is None or not is_same_content(old.content, new.content):
        return new
    return replace(new, xattrs=tuple(sorted({**dict(shared_xattrs(old.xattrs)), **dict(new.xattrs)}.items())))


def _is_script_without_x(node: Node) -> bool:
    """Return whether ``node`` begins as a script does but nobody may execute it."""
    return node.content is not None and not node.mode & 0o111 and node.content.head(2) == b"#!"
