"""Bring the checksum lists and the plan of the image into agreement, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cosremaster.checksums.draft import FileChanges
from cosremaster.checksums.lists import DigestCache, read_checksum_lists
from cosremaster.checksums.renew import ReadNewFile, find_stale_lists, renew_lists
from cosremaster.checksums.repositories import find_stale_indexes
from cosremaster.checksums.values import RenewedLists
from cosremaster.errors import SizeError, UnsupportedError, printable
from cosremaster.io.pieces import Piece, PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import IsoImage
from cosremaster.progress import Progress
from cosremaster.records import replace
from cosremaster.units import lba_offset

MAX_ROUNDS = 4
"""Rounds of planning. In the first the lengths of the new lists are unknown, in the second they are known. A third
changes anything only where a list moves a boot image or an appended partition, whose address is inside a file that is
listed itself."""

MakePlan = Callable[[Mapping[bytes, PieceTable]], ImagePlan]
"""Returns the plan of the changed image in which the lists at these paths hold these bytes."""


def update_checksums(
    image: IsoImage, edits: IsoEdits, make_plan: MakePlan, progress: Progress, *, keep: bool = False
) -> RenewedLists:
    """Return the checksum lists of ``image`` after ``edits``, correct for the bytes that ``make_plan`` plans.

    Each changed file that a list names is hashed once before and once after the change. Lists that cannot be rewritten
    on this image are kept, with a warning.

    :param keep: keep all lists, and warn of those that become wrong.
    :raises CosremasterError: as ``make_plan`` without lists does, or when a file cannot be read.
    """
    changes = collect_file_changes(image, edits)
    renewed = _update_lists(image, edits, changes, make_plan, DigestCache(progress), keep)
    return replace(renewed, warnings=(*renewed.warnings, *find_stale_indexes(image, changes)))


def _update_lists(
    image: IsoImage, edits: IsoEdits, changes: FileChanges, make_plan: MakePlan, digests: DigestCache, keep: bool
) -> RenewedLists:
    """Return the checksum lists after ``changes``; the other arguments are those of :func:`update_checksums`."""
    lists = read_checksum_lists(image, changes.added)
    if not lists:
        return RenewedLists()
    stale = ", ".join(printable(path) for path in find_stale_lists(image, lists, changes))
    if keep:
        return RenewedLists(warnings=(f"{stale}: sums of changed files are stale now",) if stale else ())
    renewed = renew_lists(image, lists, changes, open_new_files(image, edits, make_plan({})), digests)
    reason = "their sums do not settle"
    try:
        for _ in range(MAX_ROUNDS):
            again = renew_lists(image, lists, changes, open_new_files(image, edits, make_plan(renewed.lists)), digests)
            if _pieces_by_path(again) == _pieces_by_path(renewed):
                return again
            renewed = again
    except (UnsupportedError, SizeError) as error:
        reason = str(error)
    return RenewedLists(warnings=(f"{stale}: cannot be rewritten ({reason}), so sums of changed files are stale now",))


def find_changing_lists(image: IsoImage, edits: IsoEdits) -> tuple[bytes, ...]:
    """Return the paths on ``image`` of the checksum lists that change with ``edits``; reads the lists alone."""
    changes = collect_file_changes(image, edits)
    lists = read_checksum_lists(image, changes.added)
    paths: dict[bytes, PieceTable] = {}
    while True:
        stale = find_stale_lists(image, lists, replace(changes, replaced={**changes.replaced, **paths}))
        if not stale:
            return tuple(paths)
        paths |= dict.fromkeys(stale, PieceTable([]))


def _pieces_by_path(renewed: RenewedLists) -> dict[bytes, object]:
    """Return the pieces of each list, which two rounds are compared by."""
    return {path: table.pieces for path, table in renewed.lists.items()}


def collect_file_changes(image: IsoImage, edits: IsoEdits) -> FileChanges:
    """Return what ``edits`` do to the files of ``image``."""
    new_paths = {file.path: edits.new_path(file.path) for file in image.files} if edits.changes_names else {}
    return FileChanges(
        replaced=edits.replaced,
        added={node.path: node.content.table() for node in edits.added if node.content is not None},
        removed=frozenset(path for path, new in new_paths.items() if new is None),
        renamed={path: new for path, new in new_paths.items() if new not in (None, path)},
    )


def open_new_files(image: IsoImage, edits: IsoEdits, plan: ImagePlan) -> ReadNewFile:
    """Return a function that gives the bytes of a file, by its new path on the primary tree, in the image that ``plan``
    makes; boot information tables and the boot catalog are in their new state."""
    primary = image.trees[0].descriptor_lba
    replaced = dict(edits.replaced) | {change.path: change.table for change in plan.replacements if change.is_hidden}
    for change in plan.replacements:
        replaced |= {file.path: change.table for tree, file in change.files if tree.descriptor_lba == primary}
    files = {edits.new_path(file.path): file for file in image.files}

    def bytes_of(path: bytes) -> PieceTable:
        """Return the new bytes of the file ``path``."""
        node = edits.added_by_path.get(path)
        if node is not None and node.content is not None:
            return node.content.table()
        file = files[path]
        if file.path in replaced:
            return replaced[file.path]
        pieces = list[Piece]()
        for record in file.records:
            if record.length:
                start = lba_offset(plan.layout.map_block(record.lba))
                pieces += plan.table.cut(start, start + record.length).pieces
        return PieceTable(pieces)

    return bytes_of
