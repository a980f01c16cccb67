"""What an edit of an initramfs does to what the kernel unpacks before it or behind it, as it unpacks into one tree.

Those are other archives of the same file, and other files that a boot entry loads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from cosremaster.errors import CosremasterError, printable
from cosremaster.layers.address import format_address
from cosremaster.layers.model import Layer
from cosremaster.layers.segments import ACPI_TABLES, EARLY
from cosremaster.tree.nodes import Edits, Node, NodeKind
from cosremaster.tree.paths import ancestors, parent_of

if TYPE_CHECKING:
    from cosremaster.layers.boot_facts import BootFacts


def list_shared_files(earlier: Mapping[bytes, Node], edits: Edits) -> Iterator[tuple[bytes, bytes]]:
    """Yield each path at which ``edits`` add a file and ``earlier`` has one of several names, and another of these.

    The kernel writes into the file that stands there, so that it changes under its other names too.
    """
    paths = [node.path for node, _ in edits.additions if node.kind is NodeKind.FILE]
    files = [node for path in paths if (node := earlier.get(path)) is not None and node.kind is NodeKind.FILE]
    links = {node.link: node.path for node in files if node.link is not None}
    for node in earlier.values() if links else ():
        path = links.get(node.link)
        if path is not None and path != node.path:
            del links[node.link]
            yield path, node.path


def load_order_warnings(
    layer: Layer, paths: Collection[bytes], edits: Edits, find_facts: Callable[[], BootFacts]
) -> Iterator[str]:
    """Yield what ``edits`` of ``layer``, an archive of the file at ``paths``, do not do alone, by the boot menus.

    ``find_facts``: returns what the image boots.
    """
    if layer.parent is not None or layer.format.random_access or edits.is_empty:
        return
    name = format_address(layer.file_address)
    for path, tree, is_later in _list_neighbours(paths, find_facts):
        file = printable(path)
        if is_later:
            yield from _shadowing_warnings(tree, edits, file)
            yield from _obstructing_warnings(tree, edits, file, name)
        else:
            yield from _overwriting_warnings(tree, edits, file, name)
        yield from _staying_warnings(tree, edits, file, is_later=is_later)


def _shadowing_warnings(later: Mapping[bytes, Node], edits: Edits, file: str) -> Iterator[str]:
    """Yield a warning for each addition of ``edits`` that ``later``, the tree of ``file``, has too.

    Of microcode the first counts, which the kernel takes before it unpacks anything.
    """
    for node, _ in edits.additions:
        if node.kind is NodeKind.DIRECTORY or node.path not in later:
            continue
        if not node.path.startswith(EARLY):
            yield f"{printable(node.path)} stands in {file} too, which boot entries load later, and which counts"
        elif node.path.startswith(ACPI_TABLES):
            yield f"{printable(node.path)} stands in {file} too, which boot entries load later: the kernel takes both"


def _obstructing_warnings(later: Mapping[bytes, Node], edits: Edits, file: str, name: str) -> Iterator[str]:
    """Yield a warning for each path of ``later``, the tree of ``file``, that is not unpacked any more after ``edits``.

    ``name``: of the file that they change.
    """
    for node, _ in edits.additions:
        old = later.get(node.path)
        if node.kind is NodeKind.DIRECTORY and old is not None and old.kind is not NodeKind.DIRECTORY:
            yield (
                f"{printable(node.path)} is a {old.kind.noun} in {file}, which boot entries load later: the kernel"
                f" leaves the directory of {name} in its place"
            )
    folders = {node.path for node, _ in edits.additions if node.kind is NodeKind.DIRECTORY}
    gone = {path for path in edits.removed_paths - folders if path not in later}
    for path in sorted(gone.intersection(map(parent_of, later))) if gone else ():
        yield (
            f"{printable(path)} is removed or replaced in {name}, and {file}, which boot entries load later, has files"
            " in it without an entry for it: the kernel leaves them out, or puts them elsewhere"
        )


def _overwriting_warnings(earlier: Mapping[bytes, Node], edits: Edits, file: str, name: str) -> Iterator[str]:
    """Yield a warning for each addition of ``edits`` that changes more of ``earlier``, the tree of ``file``, or none.

    ``name``: of the file with the additions.
    """
    folders = _list_folders(earlier) if edits.additions else frozenset[bytes]()
    order = f"which boot entries load before {name}: the kernel"
    for node, _ in edits.additions:
        old, path = earlier.get(node.path), printable(node.path)
        if old is None:
            continue
        if node.kind is NodeKind.DIRECTORY and old.kind is NodeKind.SYMLINK:
            yield (
                f"{path} is a symlink in {file}, {order} puts an empty directory in its place, and what it led to is no"
                f" longer found there (--layer {file} follows it)"
            )
        elif node.kind is NodeKind.DIRECTORY and old.kind is not NodeKind.DIRECTORY:
            yield f"{path} is a {old.kind.noun} in {file}, {order} puts a directory in its place"
        elif node.kind is NodeKind.DIRECTORY and _attributes(node) != _attributes(old):
            yield (
                f"{path} has {_attributes(old)} in {file}, {order} gives it {_attributes(node)}"
                f" (--layer {file} leaves it as it is)"
            )
        elif old.kind is NodeKind.DIRECTORY and node.kind is not NodeKind.DIRECTORY and node.path in folders:
            yield f"{path} is a directory in {file}, {order} leaves that, and the {node.kind.noun} is not unpacked"
        elif node.path.startswith(EARLY):
            yield f"{path} stands in {file} too, {order} takes {describe_taken(node.path)}"
    for other_path, other in list_shared_files(earlier, edits):
        yield (
            f"{printable(other_path)} is one file with {printable(other)} in {file}, {order} changes it under all its"
            f" names (--layer {file} changes one)"
        )


def _staying_warnings(tree: Mapping[bytes, Node], edits: Edits, file: str, *, is_later: bool) -> Iterator[str]:
    """Yield a warning where ``tree``, that of ``file``, still has what ``edits`` remove.

    What a later file has in a directory without an entry for that is not unpacked (:func:`_obstructing_warnings`).
    """
    if not edits.removed:
        return
    folders = frozenset[bytes]() if is_later else _list_folders(tree)
    staying = [path for path in edits.removed if path in tree or path in folders]
    if staying:
        more = f" and {len(staying) - 1:,} more" if len(staying) > 1 else ""
        yield (
            f"{printable(staying[0])}{more}: as far as {file} has it, which boot entries load too, it stays in the"
            f" running system (--layer {file} removes it there)"
        )


def describe_taken(path: bytes) -> str:
    """Return for people which of two files called ``path`` the kernel takes before it unpacks anything."""
    return "both" if path.startswith(ACPI_TABLES) else "that, the first"


def _list_folders(tree: Mapping[bytes, Node]) -> frozenset[bytes]:
    """Return the paths of the directories of ``tree`` that have something in them."""
    return frozenset(folder for path in tree for folder in ancestors(path))


def _attributes(node: Node) -> str:
    """Return the mode and the owner of ``node`` for people."""
    return f"the mode {node.mode:04o} and the owner {node.uid}:{node.gid}"


def _list_neighbours(
    paths: Collection[bytes], find_facts: Callable[[], BootFacts]
) -> Iterator[tuple[bytes, Mapping[bytes, Node], bool]]:
    """Yield each other file that boot entries load with that at ``paths``, its tree, and whether it comes later."""
    seen, wanted = set[tuple[bytes, bool]](), frozenset(paths)
    try:
        facts = find_facts()
        lines = [line for line in facts.lines if len(line.initrds) > 1 and not wanted.isdisjoint(line.initrds)]
    except CosremasterError:  # menus that cannot be read tell nothing
        return
    for line in lines:
        at = next(number for number, path in enumerate(line.initrds) if path in paths)
        for number, path in enumerate(line.initrds):
            key = path, number > at
            if path not in paths and key not in seen:
                seen.add(key)
                yield path, facts.tree(path), number > at
