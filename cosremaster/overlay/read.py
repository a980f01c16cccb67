"""What the user asked to add, looked at: additions that can be laid over an image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.errors import OverlayError, Place, UsageError, printable
from cosremaster.io.files import Spool
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.overlay.merge import Addition
from cosremaster.overlay.ownership import Mode, Owner, OwnershipPolicy, parse_owner
from cosremaster.overlay.request import (
    AddPath,
    Directory,
    InlineFile,
    OverlayItem,
    Symlink,
    default_mtime,
    is_archive_name,
)
from cosremaster.overlay.scan import clamp_mtime, scan_source
from cosremaster.overlay.whiteouts import WhiteoutSplit, split_whiteouts
from cosremaster.progress import Progress
from cosremaster.tree.limits import Limits
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import join


class ReadContext(Struct, frozen=True, kw_only=True):
    """How additions are read.

    ``max_mtime``: seconds since 1970; no file's time is later (SOURCE_DATE_EPOCH). ``limits``: of the layer that the
    files go into, None for the ISO's own tree. ``spool``: where the contents of archives go. ``option``: the command
    line's, for messages.
    """

    max_mtime: int | None
    limits: Limits | None
    spool: Spool
    progress: Progress
    option: str = "--add"


_NOUNS = {InlineFile: "inline", Symlink: "link", Directory: "directory"}


class Bytes(Struct, frozen=True):
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


def read_additions(items: Sequence[OverlayItem], reading: ReadContext) -> tuple[tuple[Addition, ...], tuple[str, ...]]:
    """All of ``items`` in order, and all warnings. Raises as :func:`read_addition`."""
    found = [read_addition(item, reading) for item in items]
    return tuple(addition for addition, _ in found), tuple(line for _, lines in found for line in lines)


def read_addition(item: OverlayItem, reading: ReadContext) -> tuple[Addition, tuple[str, ...]]:
    """``item`` as nodes, and warnings.

    :raises UsageError: a file without a destination, a destination that is not absolute or holds ``..``, an owner
        or mode that makes no sense.
    :raises OverlayError: missing, unreadable, damaged, or of a kind that cannot be added.
    :raises SizeError: a file or an archive that is too large.
    """
    if isinstance(item, AddPath):
        return _read_add(item, reading)
    return _made(item, reading), ()


def _made(item: InlineFile | Symlink | Directory, reading: ReadContext) -> Addition:
    """Something that comes from no file."""
    dest = parse_dest(item.dest, f"the {_NOUNS[type(item)]} {printable(item.dest)}")
    if not dest:
        raise UsageError(f"{printable(item.dest)}: the root directory cannot be made")
    owner = parse_owner(item.owner)
    if owner is None:
        raise UsageError(f"{printable(item.dest)}: it has no source that could tell its owner")
    mtime = default_mtime(reading.max_mtime) if item.mtime is None else item.mtime
    node = Node(
        path=dest, kind=NodeKind.SYMLINK, mode=0o777, uid=owner.uid, gid=owner.gid, mtime=clamp_mtime(mtime, None)
    )
    if isinstance(item, Symlink):
        node = replace(node, target=os.fsencode(item.target))
        if b"\0" in node.target:
            raise UsageError(f"{printable(item.dest)}: no symlink can lead to {printable(item.target)}")
    elif isinstance(item, Directory):
        node = replace(node, kind=NodeKind.DIRECTORY, mode=Mode(item.mode).apply(0o755, directory=True))
    else:
        mode = Mode(item.mode).apply(0o644, directory=False)
        node = replace(node, kind=NodeKind.FILE, mode=mode, content=Bytes(item.content))
    _check_sizes([node], Place().inside(item.dest), True, reading.limits)
    return Addition((node,), b"", True, True, item.dest, has_explicit_ownership=True)


def _read_add(add: AddPath, reading: ReadContext) -> tuple[Addition, tuple[str, ...]]:
    source = os.fsencode(add.source)
    text = os.fsencode(add.dest or "/")
    dest = parse_dest(text, f"{reading.option} {printable(source)}:{printable(text)}")
    place = Place().inside(source)
    archive = _is_archive(add, source)
    owner = ("source" if archive else "root") if add.owner is None else add.owner
    style = OwnershipPolicy(owner, add.mode, add.rules, setuid=add.setuid)
    if archive:
        from cosremaster.overlay.archive import read_archive  # noqa: PLC0415 - loads libarchive's binding

        with reading.progress.step(f"read {printable(source)}", None) as advance:
            found, told = read_archive(source, reading.max_mtime, reading.limits, reading.spool, advance)
        single = False
    else:
        scanned = scan_source(source, reading.max_mtime)
        found, single, told = scanned.nodes, scanned.single, ()
    if add.dest is None and single:
        raise UsageError(
            f"{reading.option} {os.fsdecode(source)}: say where the file goes, as in {os.fsdecode(source)}:/etc/ (only"
            " a directory or an archive goes without)"
        )
    _check_sizes(found, place, single, reading.limits)
    into = single and text.endswith(b"/")
    nodes = [style.apply_defaults(node) for node in found]
    if add.mtree is not None:
        nodes = _with_mtree(nodes, add, reading)
    split = WhiteoutSplit(tuple(nodes), (), (), ()) if single else split_whiteouts(nodes, place)
    kept = _ruled(split.nodes, style, found, dest, unsure=single and not into) if add.rules else split.nodes
    dropped = (node for node in found if style.drops_special_bits(node))
    warnings = (
        *told,
        *split.warnings,
        *(
            f"{place if single else place.inside(node.path)}: its set-user-ID or set-group-ID bit is not taken over"
            for node in dropped
        ),
        *(
            f"{reading.option} {printable(source)}: no path fits the rule {printable(pattern)}"
            for pattern in style.unused_patterns()
        ),
    )
    return Addition(
        tuple(kept), dest, single, into, os.fsdecode(source), split.hidden_paths, split.opaque_directories
    ), warnings


def _ruled(
    nodes: Sequence[Node], style: OwnershipPolicy, found: Sequence[Node], dest: bytes, *, unsure: bool
) -> list[Node]:
    """``nodes`` under the rules for single paths. ``unsure``: only the image tells whether ``dest`` is the name."""
    owners = {node.path: Owner(node.uid, node.gid) for node in found}
    return [
        style.apply_rules(
            node,
            [dest, join(dest, node.path)] if unsure else [join(dest, node.path)],
            owners.get(node.path, Owner(node.uid, node.gid)),
        )
        for node in nodes
    ]


def _with_mtree(nodes: Sequence[Node], add: AddPath, reading: ReadContext) -> list[Node]:
    """The nodes of a directory as its mtree file says they are; that file itself is none of them.

    :raises UsageError: ``add`` is no directory.
    """
    from cosremaster.overlay.mtree import apply_mtree, parse_mtree  # noqa: PLC0415 - few overlays have one

    assert add.mtree is not None
    source, mtree = os.path.realpath(os.fsencode(add.source)), os.path.realpath(os.fsencode(add.mtree))
    place = Place().inside(os.fsencode(add.mtree))
    if not os.path.isdir(source):
        raise UsageError(f"{place}: an mtree file tells of a directory, and {add.source} is none")
    try:
        text = Path(os.fsdecode(mtree)).read_bytes()
    except OSError as error:
        raise OverlayError(f"cannot be read: {error.strerror}", place) from error
    itself = os.path.relpath(mtree, source)
    others = [node for node in nodes if node.path != itself]
    return list(apply_mtree(others, parse_mtree(text, place), reading.max_mtime, place))


def _is_archive(add: AddPath, source: bytes) -> bool:
    """True when the contents of ``source`` are to be added as those of an archive."""
    if add.unpack is not None or os.path.isdir(source):
        return bool(add.unpack) and not os.path.isdir(source)
    return is_archive_name(source)


def parse_dest(dest: str | bytes, what: str) -> bytes:
    """The normal path of the absolute path ``dest``. :raises UsageError: it is none, or holds ``..``."""
    raw = os.fsencode(dest)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if not raw.startswith(b"/") or b".." in parts or b"\0" in raw:
        raise UsageError(f"{what}: DEST must be an absolute path without ..")
    return b"/".join(parts)


def _check_sizes(nodes: Iterable[Node], place: Place, single: bool, limits: Limits | None) -> None:
    """:raises SizeError: a file is larger than ``limits`` allow."""
    for node in nodes:
        if node.content is not None and limits is not None:
            limits.check_file_size(node.content.size, place if single else place.inside(node.path))
