"""Lists of sums and the plan of the image they stand on, brought to agree before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cosremaster.checksums.lists import DigestCache, read_checksum_lists
from cosremaster.checksums.renew import ReadNewFile, RenewedLists, find_stale_lists, renew_lists
from cosremaster.checksums.rows import FileChanges
from cosremaster.errors import SizeError, UnsupportedError, printable
from cosremaster.io.pieces import Piece, PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import IsoImage
from cosremaster.progress import Progress
from cosremaster.units import lba_offset

MAX_ROUNDS = 4
"""Of planning. The first knows no lengths of lists, the second does; a third has something to do only where a list
moves a boot image or an appended partition, whose addresses stand in files that are summed."""

MakePlan = Callable[[Mapping[bytes, PieceTable]], ImagePlan]
"""The plan of the changed image in which the lists at these paths hold these bytes."""


def update_checksums(
    image: IsoImage, edits: IsoEdits, make_plan: MakePlan, progress: Progress, *, keep: bool = False
) -> RenewedLists:
    """The lists of ``image`` as ``edits`` make them, true for the bytes that ``make_plan`` puts on the new image.

    Each changed file that a list names is read once, and so is its old self. ``keep``: leave the lists, and warn of
    those that become wrong. So it is with lists that the image has no way to take.
    :raises CosremasterError: as ``make_plan`` without lists and reading the files do.
    """
    changes = collect_file_changes(image, edits)
    lists = read_checksum_lists(image, changes.added)
    if not lists:
        return RenewedLists()
    stale = ", ".join(printable(path) for path in find_stale_lists(image, lists, changes))
    if keep:
        return RenewedLists(warnings=(f"{stale}: sums of changed files are stale now",) if stale else ())
    digests = DigestCache(progress)
    renewed = renew_lists(image, lists, changes, open_new_files(image, edits, make_plan({})), digests)
    reason = "their sums do not settle"
    try:
        for _ in range(MAX_ROUNDS):
            again = renew_lists(image, lists, changes, open_new_files(image, edits, make_plan(renewed.lists)), digests)
            if _pieces(again) == _pieces(renewed):
                return again
            renewed = again
    except (UnsupportedError, SizeError) as error:
        reason = str(error)
    return RenewedLists(warnings=(f"{stale}: cannot be rewritten ({reason}), so sums of changed files are stale now",))


def _pieces(renewed: RenewedLists) -> dict[bytes, object]:
    return {path: table.pieces for path, table in renewed.lists.items()}


def collect_file_changes(image: IsoImage, edits: IsoEdits) -> FileChanges:
    """What ``edits`` do to the files of the primary tree of ``image``."""
    now = {file.path: edits.new_path(file.path) for file in image.files} if edits.restructures else {}
    return FileChanges(
        replaced=edits.exchanged,
        added={node.path: node.content.table() for node in edits.added if node.content is not None},
        removed=frozenset(path for path, new in now.items() if new is None),
        renamed={path: new for path, new in now.items() if new not in (None, path)},
    )


def open_new_files(image: IsoImage, edits: IsoEdits, plan: ImagePlan) -> ReadNewFile:
    """What the files of the primary tree, by the paths they have in the end, hold in the image that ``plan`` makes:
    boot tables and catalog included."""
    new = {
        file.path: one.table for one in plan.exchanged for tree, file in one.files if tree is image.trees[0]
    }  # fmt: skip
    files = {edits.new_path(file.path): file for file in image.files}

    def bytes_of(path: bytes) -> PieceTable:
        node = edits.by_path.get(path)
        if node is not None and node.content is not None:
            return node.content.table()
        file = files[path]
        if file.path in new:
            return new[file.path]
        pieces = list[Piece]()
        for record in file.records:
            if record.length:
                start = lba_offset(plan.layout.block(record.lba))
                pieces += plan.table.cut(start, start + record.length).pieces
        return PieceTable(pieces)

    return bytes_of
