"""Compare two images, layers or files by meaning: boot records, files, and the contents of archives."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, repeat
from operator import itemgetter

from cosremaster.browse.container import Container, NodeRef, enter, is_container, list_fat_areas
from cosremaster.browse.report import format_time
from cosremaster.errors import ImageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import sha256_of
from cosremaster.iso.model import IsoImage
from cosremaster.layers.address import format_address
from cosremaster.records import replace
from cosremaster.tree.content import has_large_holes, is_same_content
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import join
from cosremaster.tree.xattrs import format_value
from cosremaster.units import lba_offset

MAX_TEXT = 1 << 20
SYSTEM_AREA = 32768


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference at the address ``where`` (without the image).

    ``what`` is its kind: added, removed, type, metadata, content, packing or boot. ``details`` has a line for each
    property that differs, ``text`` a unified diff where one was requested.
    """

    what: str
    where: str
    details: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


class TextDiffs:
    """The unified diffs of a comparison, of the first ``most`` files that differ; of all where None."""

    def __init__(self, most: int | None = None) -> None:
        """Begin without a diff."""
        self._most = most

    def lines(self, before: Node, after: Node, where: str) -> tuple[str, ...]:
        """Return how two files at ``where`` differ, where both are text and it is their turn."""
        if self._most is not None:
            if self._most <= 0:
                return ()
            self._most -= 1
        return tuple(_diff_text(before, after, where))


def compare_nodes(
    old: NodeRef, new: NodeRef, *, text: bool = False, most_texts: int | None = None
) -> Iterator[Difference]:
    """Yield the differences of ``new`` from ``old``. Both are directories, roots of containers, or files.

    ``text``: with unified diffs of text files, of the first ``most_texts`` files that differ. Archives whose packed
    bytes are equal are not opened. Open both containers with options that take digests; otherwise data are read again
    to compare them. Raises as reading a layer does.
    """
    texts = TextDiffs(most_texts if text else 0)
    if old.container.image is not None and new.container.image is not None and not old.node.path:
        yield from _compare_boot(old.container.image, new.container.image)
        yield from _compare_areas(old.container, new.container, texts)
    if old.node.kind is NodeKind.DIRECTORY and new.node.kind is NodeKind.DIRECTORY:
        yield from _compare_trees(old, new, texts)
        return
    yield from _compare_pair(old, replace(old.node, path=b""), new, replace(new.node, path=b""), "", texts)


def _compare_trees(old: NodeRef, new: NodeRef, texts: TextDiffs, above: str = "") -> Iterator[Difference]:
    """Yield the differences of two directories, but for their times, and of what is below them."""
    if all(reference.container.own_node(reference.node.path) is not None for reference in (old, new)):
        changed = tuple(_compare_metadata(replace(old.node, mtime=new.node.mtime), new.node))
        if changed:
            yield Difference("metadata", f"{above}.", changed)
    for path, before, after in _pair_nodes(old, new):
        where = above + format_address([path])
        if before is not None and after is not None:
            yield from _compare_pair(old, before, new, after, where, texts)
        elif (node := before or after) is not None:
            yield Difference("removed" if after is None else "added", where, (_describe(node),))


def _compare_areas(old: Container, new: Container, texts: TextDiffs) -> Iterator[Difference]:
    """Yield the differences inside FAT file systems that are no files of the trees and have the same address."""
    before, after = list_fat_areas(old), list_fat_areas(new)
    for alias in sorted(before.keys() & after.keys()):
        yield from _compare_trees(before[alias].root, after[alias].root, texts, f"{format_address([alias])}::")


def _pair_nodes(*tops: NodeRef) -> Iterator[tuple[bytes, Node | None, Node | None]]:
    """Yield each path below two directories, sorted, relative to these, and what each has there.

    Nodes are made when it is their turn, as there may be a million.
    """
    sides = (zip(_paths_below(top), repeat(number)) for number, top in enumerate(tops))
    for path, group in groupby(merge(*sides), itemgetter(0)):
        nodes: list[Node | None] = [None, None]
        for _, number in group:
            container, above = tops[number].container, tops[number].node.path
            nodes[number] = container.node(join(above, path))
        before, after = nodes
        yield path, before, after


def _paths_below(top: NodeRef) -> list[bytes]:
    """Return the paths below a directory, relative to it, sorted."""
    cut = len(top.node.path) + bool(top.node.path)
    return sorted(filter(None, (path[cut:] for path in top.container.walk_below(top.node.path))))


def _describe(node: Node) -> str:
    """Describe a node that stands on one side alone."""
    size = f", {node.content.size:,} bytes" if node.kind is NodeKind.FILE and node.content is not None else ""
    return node.kind.noun + size


def _compare_pair(
    old: NodeRef, before: Node, new: NodeRef, after: Node, where: str, texts: TextDiffs
) -> Iterator[Difference]:
    """Yield the differences of two nodes of one name."""
    if before.kind is not after.kind:
        yield Difference("type", where, (f"{before.kind.noun} -> {after.kind.noun}",))
        return
    changed = tuple(_compare_metadata(before, after))
    if changed:
        yield Difference("metadata", where, changed)
    if before.content is None or after.content is None or _have_same_bytes(before, after):
        return
    inner = _enter_both(old.container, before, new.container, after)
    if inner is not None:
        differs = False
        for difference in _compare_trees(inner[0].root, inner[1].root, texts, f"{where}::" if where else ""):
            differs = True
            yield difference
        if not differs:
            kinds = f"{inner[0].kind} -> {inner[1].kind}"
            yield Difference("packing", where, (f"{kinds}, {before.content.size:,} -> {after.content.size:,} bytes",))
        return
    sizes = f"{before.content.size:,} -> {after.content.size:,} bytes"
    yield Difference("content", where, (sizes,), texts.lines(before, after, where))


def _enter_both(
    old: Container, before: Node, new: Container, after: Node
) -> tuple[Container, Container] | None:  # fmt: skip
    """Return the containers that two files are; None if one is none, or is a damaged FAT file system."""
    if not (is_container(before) and is_container(after)):
        return None
    try:
        old_inside = enter(old, before)
        return old_inside, enter(new, after, beside=old_inside)
    except ImageError:
        return None


def _have_same_bytes(before: Node, after: Node) -> bool:
    """Tell whether two files have equal data, by size and digest; those with large holes by what is between these."""
    assert before.content is not None
    assert after.content is not None
    if has_large_holes(before.content) and has_large_holes(after.content):
        return is_same_content(before.content, after.content)
    return before.content.size == after.content.size and before.content.digest() == after.content.digest()


def _compare_metadata(before: Node, after: Node) -> Iterator[str]:
    """Yield a line for each attribute that differs."""
    if before.mode != after.mode:
        yield f"mode {before.mode:04o} -> {after.mode:04o}"
    if (before.uid, before.gid) != (after.uid, after.gid):
        yield f"owner {before.uid}:{before.gid} -> {after.uid}:{after.gid}"
    if before.mtime != after.mtime:
        yield f"mtime {format_time(before.mtime)} -> {format_time(after.mtime)} UTC"
    if before.target != after.target:
        yield f"target {printable(before.target)} -> {printable(after.target)}"
    if before.rdev != after.rdev:
        yield f"device {before.rdev[0]}:{before.rdev[1]} -> {after.rdev[0]}:{after.rdev[1]}"
    if before.xattrs != after.xattrs:
        old, new = dict(before.xattrs), dict(after.xattrs)
        for name in sorted({**old, **new}):
            if old.get(name) != new.get(name):
                values = (format_value(name, values[name]) if name in values else "none" for values in (old, new))
                yield f"attribute {printable(name)} {' -> '.join(values)}"


def _diff_text(before: Node, after: Node, where: str) -> Iterator[str]:
    """Yield a unified diff if both files hold text of at most :data:`MAX_TEXT` bytes."""
    texts = []
    for node in (before, after):
        if node.content is None or node.content.size > MAX_TEXT:
            return
        raw = node.content.table().read()
        try:
            texts.append(raw.decode().splitlines())
        except UnicodeDecodeError:
            return
        if "\0" in raw.decode():
            return
    lines = difflib.unified_diff(texts[0], texts[1], f"a/{where}", f"b/{where}", lineterm="")
    yield from (printable(line) for line in lines)


def _compare_boot(old: IsoImage, new: IsoImage) -> Iterator[Difference]:
    """Yield the differences of volume and boot records.

    A record that merely moved, with the same bytes, is no difference.
    """
    before_facts, after_facts = _boot_facts(old), _boot_facts(new)
    for name in sorted({**before_facts, **after_facts}):
        before, after = before_facts.get(name, "none"), after_facts.get(name, "none")
        if before != after:
            yield Difference("boot", name, (f"{before} -> {after}",))


def _boot_facts(image: IsoImage) -> dict[str, str]:
    """Return a line about each volume and boot record, by its name."""
    facts = {
        "volume id": image.volume_id,
        "rock ridge": str(image.has_rock_ridge),
        "MBR pointer": image.mbr_pointer or "none",
    }
    for number, boot in enumerate(image.boot_images, 1):
        start = lba_offset(boot.entry.lba)
        name = printable(boot.path) if boot.path is not None else "no file"
        facts[f"El Torito entry {number}"] = (
            f"{boot.entry.describe()}, {name}, {boot.length:,} bytes {_digest(image, start, start + boot.length)}"
        )
    if image.mbr is not None:
        facts["MBR code"] = _digest(image, 0, 440)
        for number, partition in image.mbr.used_partitions:
            active = ", active" if partition.status == 0x80 else ""
            facts[f"MBR partition {number}"] = f"type 0x{partition.type:02X}{active}"
            if partition.start * 512 >= lba_offset(image.tail):
                digest = _digest(image, partition.start * 512, min(partition.end * 512, image.size))
                facts[f"MBR partition {number}"] += f", {partition.count:,} sectors {digest}"
    facts["system area behind the MBR"] = _digest(image, 512, SYSTEM_AREA)
    return facts


def _digest(image: IsoImage, start: int, end: int) -> str:
    """Return the first 16 digits of the SHA-256 of a byte range of the image."""
    return sha256_of(PieceTable([image.source.cut(start, end)]).chunks()).hex()[:16]
