"""The item :class:`AddPath`: a file, a directory's contents or an archive's contents, read from this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cosremaster.errors import OverlayError, Place, UsageError, printable
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.attributes import XattrChoice, name_some, parse_choice, with_capabilities_of_root
from cosremaster.overlay.items import ReadContext
from cosremaster.overlay.ownership import Owner, OwnershipPolicy, parse_owner
from cosremaster.overlay.request import AddPath, is_archive_name, names_directory, parse_dest
from cosremaster.overlay.scan import SourceScan, is_mtime_held, scan_source, time_warning
from cosremaster.overlay.template import fill_nodes
from cosremaster.overlay.umask import READ_BITS, granted_reads, mode_without_umask
from cosremaster.overlay.whiteouts import WhiteoutSplit, split_whiteouts
from cosremaster.progress import READ, begin_work
from cosremaster.records import replace
from cosremaster.suggestions import suggest_file
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import join


def prepare_path(item: AddPath, context: ReadContext) -> Addition:
    """Read the files of ``item`` and apply its owners, modes, mtree file and whiteouts.

    Raises as :func:`cosremaster.overlay.items.prepare_item`.
    """
    source = os.fsencode(item.source)
    dest_text = os.fsencode(item.dest or "/")
    dest = parse_dest(dest_text, f"{context.option} {printable(source)}:{printable(dest_text)}")
    place = Place().inside(source)
    is_archive = _is_archive(item, source)
    default_owner = "source" if is_archive else "root"
    owner = default_owner if item.owner is None else item.owner
    keeps_special_bits = is_archive and parse_owner(owner) is None if item.setuid is None else item.setuid
    policy = OwnershipPolicy(owner, item.mode, item.rules, setuid=keeps_special_bits)
    choice = parse_choice(item.xattrs)
    scan = _scan_archive(source, context, choice) if is_archive else scan_source(source, context.max_mtime, choice)
    single = scan.is_single_file
    if item.dest is None and single:
        raise UsageError(
            f"{context.option} {os.fsdecode(source)}: say where the file goes, as in {os.fsdecode(source)}:/etc/ (only"
            " a directory or an archive goes without)"
        )
    _check_sizes(scan, place, context)
    into_directory = single and names_directory(os.fsdecode(dest_text))
    source_nodes = scan.nodes if item.keep_modes or is_archive else _undo_umask(scan, place, context)
    if item.template is not None:
        if is_archive:
            raise UsageError(f"{place}: is an archive, and a template is a file or a directory")
        source_nodes = fill_nodes(source_nodes, dict(item.template), place, is_single=single)
    root = policy.apply_defaults(scan.root) if is_archive and dest and scan.root is not None else None
    nodes = [policy.apply_defaults(node) for node in source_nodes]
    if not policy.keeps_owners:
        nodes = [with_capabilities_of_root(node) if node.xattrs else node for node in nodes]
    if item.mtree is not None:
        parent = Node(path=b"", kind=NodeKind.DIRECTORY, mode=0o755, mtime=nodes[0].mtime if nodes else 0)
        described, *nodes = _apply_mtree_file([parent, *nodes], item.source, item.mtree, context)
        root = described if dest and described != parent else None  # else a missing parent like any other
    split = WhiteoutSplit(tuple(nodes), (), ()) if single else split_whiteouts(nodes, place, context.warn)
    laid_nodes: Sequence[Node] = split.nodes
    if item.rules:
        is_name_open = single and not into_directory
        laid_nodes = _apply_rules(laid_nodes, policy, scan.nodes, dest, is_name_open=is_name_open)
        if root is not None:
            (root,) = _apply_rules([root], policy, [scan.root or root], dest, is_name_open=False)
    if not laid_nodes and (split.hidden_paths or split.opaque_directories):  # a folder of whiteouts makes nothing
        root = None
    if not (laid_nodes or root or split.hidden_paths or split.opaque_directories):
        context.warn(f"{place}: holds nothing, so nothing is added (a folder with an empty one in it adds that)")
    _warn_of_losses(scan, laid_nodes, place, context)
    if item.setuid is None and keeps_special_bits:
        _tell_special_bits(laid_nodes, place, context)
    for pattern in policy.unused_patterns():
        context.warn(f"{context.option} {printable(source)}: no path fits the rule {printable(pattern)}")
    return Addition(
        tuple(laid_nodes), dest, single, into_directory, os.fsdecode(source),
        hidden_paths=split.hidden_paths, opaque_directories=split.opaque_directories, is_archive=is_archive,
        skipped_xattrs=scan.skipped_xattrs, root=root,
    )  # fmt: skip


def _warn_of_losses(scan: SourceScan, laid_nodes: Iterable[Node], place: Place, context: ReadContext) -> None:
    """Warn of special bits, unreadable attributes and times of ``scan`` that ``laid_nodes`` have not."""
    for path in _paths_without_special_bits(scan.nodes, laid_nodes):
        origin = place if scan.is_single_file else place.inside(path)
        context.warn(f"{origin}: its set-user-ID or set-group-ID bit is not taken over")
    if scan.unreadable_xattrs:
        unreadable = name_some(scan.unreadable_xattrs)
        context.warn(f"{place}: extended attributes cannot be read, and are not taken over: {unreadable}")
    if scan.out_of_time:
        context.warn(time_warning(scan.out_of_time, place))


def _tell_special_bits(laid_nodes: Iterable[Node], place: Place, context: ReadContext) -> None:
    """Say which files keep set-user-ID or set-group-ID bits, for which nobody has asked."""
    special = [node.path for node in laid_nodes if node.kind is NodeKind.FILE and node.mode & 0o6000]
    if special:
        names = name_some(special)
        context.warn(f"{place}: set-user-ID and set-group-ID bits are kept (--no-setuid drops them): {names}")


def _undo_umask(scan: SourceScan, place: Place, context: ReadContext) -> list[Node]:
    """Return the nodes of ``scan`` with modes that no umask shows in (docs/overlay.md, "Modes").

    A single file is no evidence of a umask: what is closed there stays closed.
    """
    granted = READ_BITS if scan.is_single_file else granted_reads([*filter(None, [scan.root]), *scan.nodes])
    modes = [mode_without_umask(node, granted) for node in scan.nodes]
    if granted != READ_BITS and any(mode & ~node.mode for mode, node in zip(modes, scan.nodes, strict=True)):
        closed, umask = ("others", "027") if granted & 0o040 else ("group and others", "077")
        context.warn(
            f"{place}: nothing in it is open to {closed}, as under umask {umask}; in the image it is"
            " (--keep-modes keeps it closed)"
        )
    return [
        node if node.mode == mode else replace(node, mode=mode) for node, mode in zip(scan.nodes, modes, strict=True)
    ]


def _paths_without_special_bits(source_nodes: Iterable[Node], laid_nodes: Iterable[Node]) -> list[bytes]:
    """Return the paths of ``source_nodes`` whose set-user-ID or set-group-ID bit ``laid_nodes`` lack."""
    special = {node.path: node.mode & 0o6000 for node in source_nodes if node.mode & 0o6000}
    return [node.path for node in laid_nodes if special and special.get(node.path, 0) & ~node.mode]


def _is_archive(item: AddPath, source: bytes) -> bool:
    """Return whether ``source`` is an archive whose contents are added."""
    if item.unpack is not None or os.path.isdir(source):
        return bool(item.unpack) and not os.path.isdir(source)
    return is_archive_name(source)


def _scan_archive(source: bytes, context: ReadContext, choice: XattrChoice) -> SourceScan:
    """Return the nodes in the archive ``source``."""
    from cosremaster.overlay.archive import read_archive  # noqa: PLC0415 - loads libarchive's binding

    with begin_work(context.progress, f"read {printable(source)}", None, READ) as advance:
        return read_archive(source, context, advance, choice)


def _check_sizes(scan: SourceScan, place: Place, context: ReadContext) -> None:
    """Check the size of each file of ``scan``. :raises SizeError: one is too large."""
    for node in scan.nodes:
        if node.content is not None:
            context.check_file_size(node.content.size, place if scan.is_single_file else place.inside(node.path))


def _apply_mtree_file(
    nodes: Iterable[Node], source: str | os.PathLike[str], mtree: str | os.PathLike[str], context: ReadContext
) -> list[Node]:
    """Return the ``nodes`` of the directory ``source`` as its mtree file describes them, without that file itself.

    :raises UsageError: ``source`` is no directory. :raises OverlayError: the file is unreadable or does not agree.
    """
    from cosremaster.overlay.mtree import apply_mtree, parse_mtree  # noqa: PLC0415 - few overlays have one

    source_path, mtree_path = os.path.realpath(os.fsencode(source)), os.path.realpath(os.fsencode(mtree))
    place = Place().inside(os.fsencode(mtree))
    if not os.path.isdir(source_path):
        raise UsageError(f"{place}: an mtree file tells of a directory, and {source} is none")
    try:
        text = Path(os.fsdecode(mtree_path)).read_bytes()
    except OSError as error:
        meant = suggest_file(os.fspath(mtree), error)
        raise OverlayError(f"cannot be read: {error.strerror}{meant}", place) from error
    path_of_itself = os.path.relpath(mtree_path, source_path)
    others = [node for node in nodes if node.path != path_of_itself]
    specs = parse_mtree(text, place)
    times = ((spec.path, spec.mtime) for spec in specs)
    out_of_time = [path for path, mtime in times if mtime is not None and not is_mtime_held(mtime, context.max_mtime)]
    if out_of_time:
        context.warn(time_warning(out_of_time, place))
    return list(apply_mtree(others, specs, context.max_mtime, place))


def _apply_rules(
    nodes: Sequence[Node], policy: OwnershipPolicy, source_nodes: Sequence[Node], dest: bytes, *, is_name_open: bool
) -> list[Node]:
    """Return ``nodes`` after the rules for single paths.

    ``source_nodes`` have the owners of the source. ``is_name_open``: only the file system tells whether ``dest`` is
    the new path of a file or the directory that it goes into, so a rule may match either.
    """
    owners = {node.path: Owner(node.uid, node.gid) for node in source_nodes}
    return [
        policy.apply_rules(
            node,
            [dest, join(dest, node.path)] if is_name_open else [join(dest, node.path)],
            owners.get(node.path, Owner(node.uid, node.gid)),
        )
        for node in nodes
    ]
