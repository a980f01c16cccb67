"""Two images, layers or files compared by meaning: boot records, files, and what stands inside archives."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.browse.container import Container, NodeRef, enter, is_container
from cosremaster.browse.report import size_of
from cosremaster.errors import printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import sha256_of
from cosremaster.iso.model import IsoImage
from cosremaster.layers.address import format_address
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import lba_offset

MAX_TEXT = 1 << 20
SYSTEM_AREA = 32768


class Difference(Struct, frozen=True):
    """``what`` (added, removed, type, metadata, content, packing, boot) differs at ``where``, an address without the
    image; ``details``: a line for each thing that differs, ``text``: a unified diff, where one was asked for.
    """

    what: str
    where: str
    details: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


def compare_nodes(one: NodeRef, other: NodeRef, *, text: bool = False) -> Iterator[Difference]:
    """How ``other`` differs from ``one``; both are directories, containers' roots, or files.

    Archives whose packed bytes are equal are not opened. Their containers should be opened with an effort that takes
    digests, or data are read again to compare them. Raises as reading a layer does.
    """
    if one.container.image is not None and other.container.image is not None and not one.node.path:
        yield from _boot(one.container.image, other.container.image)
    if one.node.kind is NodeKind.DIRECTORY and other.node.kind is NodeKind.DIRECTORY:
        yield from _trees(one, other, text)
        return
    yield from _nodes(one, replace(one.node, path=b""), other, replace(other.node, path=b""), "", text)


def _trees(one: NodeRef, other: NodeRef, text: bool, above: str = "") -> Iterator[Difference]:
    """What stands below two directories."""
    left, right = _below(one), _below(other)
    for path in sorted({**left, **right}):
        where = above + format_address([path])
        before, after = left.get(path), right.get(path)
        if before is None or after is None:
            there = before or after
            assert there is not None
            yield Difference("removed" if after is None else "added", where, (_told(there),))
            continue
        yield from _nodes(one, before, other, after, where, text)


def _below(looked: NodeRef) -> dict[bytes, Node]:
    cut = len(looked.node.path) + bool(looked.node.path)
    container = looked.container
    found = ((path[cut:], container.node(path)) for path in container.below(looked.node.path))
    return {path: node for path, node in found if node is not None and path}


def _told(node: Node) -> str:
    return f"{node.kind.noun}, {size_of(node):,} bytes" if node.kind is NodeKind.FILE else node.kind.noun


def _nodes(one: NodeRef, before: Node, other: NodeRef, after: Node, where: str, text: bool) -> Iterator[Difference]:
    """Two nodes of one name."""
    if before.kind is not after.kind:
        yield Difference("type", where, (f"{before.kind.noun} -> {after.kind.noun}",))
        return
    changed = tuple(_metadata(before, after))
    if changed:
        yield Difference("metadata", where, changed)
    if before.content is None or after.content is None or _same_bytes(before, after):
        return
    if is_container(before) and is_container(after):
        first = enter(one.container, before)
        inner = first, enter(other.container, after, beside=first)
        left, right = (NodeRef(container, _root(container)) for container in inner)
        found = False
        for difference in _trees(left, right, text, f"{where}::" if where else ""):
            found = True
            yield difference
        if not found:
            kinds = f"{inner[0].kind} -> {inner[1].kind}"
            yield Difference("packing", where, (f"{kinds}, {before.content.size:,} -> {after.content.size:,} bytes",))
        return
    sizes = f"{before.content.size:,} -> {after.content.size:,} bytes"
    yield Difference("content", where, (sizes,), tuple(_text(before, after, where)) if text else ())


def _root(container: Container) -> Node:
    root = container.node(b"")
    assert root is not None
    return root


def _same_bytes(before: Node, after: Node) -> bool:
    assert before.content is not None
    assert after.content is not None
    return before.content.size == after.content.size and before.content.digest() == after.content.digest()


def _metadata(before: Node, after: Node) -> Iterator[str]:
    if before.mode != after.mode:
        yield f"mode {before.mode:04o} -> {after.mode:04o}"
    if (before.uid, before.gid) != (after.uid, after.gid):
        yield f"owner {before.uid}:{before.gid} -> {after.uid}:{after.gid}"
    if before.mtime != after.mtime:
        yield f"mtime {before.mtime} -> {after.mtime}"
    if before.target != after.target:
        yield f"target {printable(before.target)} -> {printable(after.target)}"
    if before.rdev != after.rdev:
        yield f"device {before.rdev[0]}:{before.rdev[1]} -> {after.rdev[0]}:{after.rdev[1]}"


def _text(before: Node, after: Node, where: str) -> Iterator[str]:
    """A unified diff, if both hold text of at most :data:`MAX_TEXT` bytes."""
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


def _boot(one: IsoImage, other: IsoImage) -> Iterator[Difference]:
    """Volume and boot records, each as a line; what merely moved with its bytes intact is no difference."""
    left, right = _boot_facts(one), _boot_facts(other)
    for name in sorted({**left, **right}):
        before, after = left.get(name, "none"), right.get(name, "none")
        if before != after:
            yield Difference("boot", name, (f"{before} -> {after}",))


def _boot_facts(image: IsoImage) -> dict[str, str]:
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
    return sha256_of(PieceTable([image.source.cut(start, end)]).chunks()).hex()[:16]
