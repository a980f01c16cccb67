"""Items that come from no file of this machine: a file with given content, a symlink, a directory."""

from __future__ import annotations

import os

from cosremaster.errors import Place, UsageError, printable
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.items import ReadContext
from cosremaster.overlay.ownership import Mode, parse_owner
from cosremaster.overlay.request import Directory, InlineFile, Symlink, default_mtime, names_directory, parse_dest
from cosremaster.overlay.scan import clamp_mtime, is_mtime_held, time_warning
from cosremaster.records import replace
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind


def prepare_file(item: InlineFile, context: ReadContext) -> Addition:
    """Return the file ``item`` as an addition. Raises as :func:`prepare_item`."""
    node = _make_node(item, NodeKind.FILE, context)
    context.check_file_size(len(item.content), Place().inside(item.dest))
    mode = Mode(item.mode).apply(0o644, directory=False)
    return _as_addition(item, replace(node, mode=mode, content=BytesContent(item.content)))


def prepare_symlink(item: Symlink, context: ReadContext) -> Addition:
    """Return the symlink ``item`` as an addition. Raises as :func:`prepare_item`."""
    node = _make_node(item, NodeKind.SYMLINK, context)
    target = os.fsencode(item.target)
    if b"\0" in target:
        raise UsageError(f"{printable(item.dest)}: no symlink can lead to {printable(item.target)}")
    return _as_addition(item, replace(node, target=target))


def prepare_directory(item: Directory, context: ReadContext) -> Addition:
    """Return the directory ``item`` as an addition. Raises as :func:`prepare_item`."""
    node = _make_node(item, NodeKind.DIRECTORY, context)
    return _as_addition(item, replace(node, mode=Mode(item.mode).apply(0o755, directory=True)))


def _make_node(item: InlineFile | Symlink | Directory, kind: NodeKind, context: ReadContext) -> Node:
    """Return a node of ``kind`` with the path, owner and time of ``item``, and mode 0777.

    :raises UsageError: the path or the owner makes no sense.
    """
    dest = parse_dest(item.dest, f"the {kind.noun} {printable(item.dest)}")
    if not dest:
        raise UsageError(f"{printable(item.dest)}: the root directory cannot be made")
    if kind is not NodeKind.DIRECTORY and names_directory(item.dest):
        raise UsageError(f"the {kind.noun} {printable(item.dest)}: only the path of a directory ends in a slash")
    owner = parse_owner(item.owner)
    if owner is None:
        raise UsageError(f"{printable(item.dest)}: it has no source that could tell its owner")
    mtime = default_mtime(context.max_mtime) if item.mtime is None else item.mtime
    if not is_mtime_held(mtime, None):
        context.warn(time_warning([dest], Place().inside(item.dest)))
    return Node(path=dest, kind=kind, mode=0o777, uid=owner.uid, gid=owner.gid, mtime=clamp_mtime(mtime, None))


def _as_addition(item: InlineFile | Symlink | Directory, node: Node) -> Addition:
    """Return ``node`` alone as an addition that errors name by the path of ``item``."""
    return Addition((node,), b"", True, True, item.dest, has_explicit_ownership=True)
