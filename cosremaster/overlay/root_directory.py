"""The root directory of a new file system, which no item adds: it is there before them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from cosremaster.errors import OverlayError, Place
from cosremaster.overlay.ownership import parse_owner
from cosremaster.overlay.request import AddPath, OverlayItem, default_mtime
from cosremaster.overlay.scan import clamp_mtime
from cosremaster.records import replace
from cosremaster.tree.nodes import Node, NodeKind

_MODE = 0o755


def make_root(items: Iterable[OverlayItem], max_mtime: int | None) -> Node:
    """Return the root directory for ``items``: that of the first folder whose contents go to ``/``, by its rules.

    Its mode is 0755, for a root that is closed, as mktemp(1) makes folders, locks out everyone but root; with
    ``keep_modes`` it is the folder's. A line for ``.`` in its mtree file counts.
    ``max_mtime``: it has no later time, in seconds since 1970.

    :raises UsageError: its owner makes no sense. :raises OverlayError: it, or its mtree file, cannot be read.
    """
    root = Node(path=b"", kind=NodeKind.DIRECTORY, mode=_MODE, mtime=default_mtime(max_mtime))
    for item in items:
        if not isinstance(item, AddPath) or not _is_whole_root(item):
            continue
        try:
            status = os.stat(item.source)
        except OSError as error:
            place = Place().inside(os.fsencode(item.source))
            raise OverlayError(f"cannot be added: {error.strerror}", place) from error
        owner = parse_owner(item.owner or "root")
        mode = stat.S_IMODE(status.st_mode) & (0o7777 if item.setuid else 0o1777) if item.keep_modes else _MODE
        root = replace(
            root, mode=mode, uid=status.st_uid if owner is None else owner.uid,
            gid=status.st_gid if owner is None else owner.gid, mtime=clamp_mtime(int(status.st_mtime), max_mtime),
        )  # fmt: skip
        return root if item.mtree is None else _apply_mtree(root, os.fsencode(item.mtree), max_mtime)
    return root


def _is_whole_root(item: AddPath) -> bool:
    """Return whether ``item`` is a folder whose contents go to ``/``."""
    return not (item.dest or "/").strip("/.") and os.path.isdir(item.source)


def _apply_mtree(root: Node, mtree: bytes, max_mtime: int | None) -> Node:
    """Return ``root`` with the values of the line for ``.`` in the file ``mtree``."""
    from cosremaster.overlay.mtree import parse_mtree  # noqa: PLC0415 - few overlays have one

    place = Place().inside(mtree)
    try:
        text = Path(os.fsdecode(mtree)).read_bytes()
    except OSError as error:
        raise OverlayError(f"cannot be read: {error.strerror}", place) from error
    for spec in parse_mtree(text, place):
        if not spec.path:
            root = replace(
                root, mode=root.mode if spec.mode is None else spec.mode.apply(root.mode, directory=True),
                uid=root.uid if spec.uid is None else spec.uid, gid=root.gid if spec.gid is None else spec.gid,
                mtime=root.mtime if spec.mtime is None else clamp_mtime(spec.mtime, max_mtime),
            )  # fmt: skip
    return root
