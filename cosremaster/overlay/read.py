"""What the user asked to add, looked at: additions that can be laid over an image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cosremaster.errors import Place, SizeError, UnsupportedError, UsageError, show
from cosremaster.nodes import Kind, Node, join
from cosremaster.overlay.merge import Addition
from cosremaster.overlay.request import MADE_TIME, Add, Directory, Inline, Item, Link
from cosremaster.overlay.scan import bounded, scan
from cosremaster.overlay.style import Mode, Owner, Style, parse_owner
from cosremaster.pieces import Literal, PieceTable


@dataclass(frozen=True, slots=True)
class Bytes:
    """A file's content kept in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def digest(self) -> bytes:
        """SHA-256."""
        return hashlib.sha256(self.data).digest()

    def table(self) -> PieceTable:
        """The bytes."""
        return PieceTable([Literal(self.data)])

    def head(self, count: int) -> bytes:
        """The first ``count`` bytes."""
        return self.data[:count]


def read_additions(
    items: Sequence[Item], newest: int | None, largest: int
) -> tuple[tuple[Addition, ...], tuple[str, ...]]:
    """All of ``items`` in order, and all warnings. Raises as :func:`read_addition`."""
    found = [read_addition(item, newest, largest) for item in items]
    return tuple(addition for addition, _ in found), tuple(line for _, lines in found for line in lines)


def read_addition(item: Item, newest: int | None, largest: int) -> tuple[Addition, tuple[str, ...]]:
    """``item`` as nodes, and warnings. ``newest``: as for :func:`scan`.

    :raises UsageError: a file without a destination, a destination that is not absolute or holds ``..``, an owner
        or mode that makes no sense.
    :raises OverlayError: missing, unreadable, or of a kind that cannot be added.
    :raises SizeError: a file of more than ``largest`` bytes.
    """
    if isinstance(item, Add):
        return _read_add(item, newest, largest)
    return _made(item, newest, largest), ()


def _made(item: Inline | Link | Directory, newest: int | None, largest: int) -> Addition:
    """Something that comes from no file."""
    dest = parse_dest(item.dest, f"the {type(item).__name__.lower()} {show(item.dest)}")
    if not dest:
        raise UsageError(f"{show(item.dest)}: the root directory cannot be made")
    owner = parse_owner(item.owner)
    if owner is None:
        raise UsageError(f"{show(item.dest)}: it has no source that could tell its owner")
    mtime = item.mtime if item.mtime is not None else MADE_TIME if newest is None else newest
    node = Node(path=dest, kind=Kind.SYMLINK, mode=0o777, uid=owner.uid, gid=owner.gid, mtime=bounded(mtime, None))
    if isinstance(item, Link):
        node = replace(node, target=os.fsencode(item.target))
    elif isinstance(item, Directory):
        node = replace(node, kind=Kind.DIRECTORY, mode=Mode(item.mode).applied(0o755, directory=True))
    else:
        mode = Mode(item.mode).applied(0o644, directory=False)
        node = replace(node, kind=Kind.FILE, mode=mode, content=Bytes(item.content))
    _check_sizes([node], Place().inside(item.dest), True, largest)
    return Addition((node,), b"", False, False, item.dest)


def _read_add(add: Add, newest: int | None, largest: int) -> tuple[Addition, tuple[str, ...]]:
    source = os.fsencode(add.source)
    if add.mtree is not None or add.unpack:
        raise UnsupportedError("mtree files and archives are not read yet", Place().inside(source))
    found = scan(source, newest)
    if add.dest is None and found.single:
        raise UsageError(
            f"--add {os.fsdecode(source)}: say where the file goes, as in {os.fsdecode(source)}:/etc/ (only a"
            " directory goes without)"
        )
    text = os.fsencode(add.dest or "/")
    dest = parse_dest(text, f"--add {show(source)}:{show(text)}")
    place = Place().inside(source)
    _check_sizes(found.nodes, place, found.single, largest)
    style = Style("root" if add.owner is None else add.owner, add.mode, add.rules, setuid=add.setuid)
    into = found.single and text.endswith(b"/")
    nodes, warnings = [], []
    for node in found.nodes:
        if style.drops(node):
            told = place if found.single else place.inside(node.path)
            warnings.append(f"{told}: its set-user-ID or set-group-ID bit is not taken over")
        paths = [join(dest, node.path)] if into or not found.single else [dest, join(dest, node.path)]
        nodes.append(style.ruled(style.applied(node), paths, Owner(node.uid, node.gid)))
    warnings += [f"--add {show(source)}: no path fits the rule {show(pattern)}" for pattern in style.idle()]
    return Addition(tuple(nodes), dest, found.single, into, os.fsdecode(source)), tuple(warnings)


def parse_dest(dest: str | bytes, what: str) -> bytes:
    """The normal path of the absolute path ``dest``. :raises UsageError: it is none, or holds ``..``."""
    raw = os.fsencode(dest)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if not raw.startswith(b"/") or b".." in parts or b"\0" in raw:
        raise UsageError(f"{what}: DEST must be an absolute path without ..")
    return b"/".join(parts)


def _check_sizes(nodes: Iterable[Node], place: Place, single: bool, largest: int) -> None:
    """:raises SizeError: a file of more than ``largest`` bytes."""
    for node in nodes:
        if node.content is not None and node.content.size > largest:
            raise SizeError(
                f"{node.content.size:,} bytes do not fit a cpio archive (4 GiB - 1 at most); put the file on the"
                " ISO's own file tree instead",
                place if single else place.inside(node.path),
            )
