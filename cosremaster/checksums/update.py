"""Lists of sums and the plan of the image they stand on, brought to agree before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cosremaster.checksums.lists import Digests, read_lists
from cosremaster.checksums.renew import Renewed, Written, renewed_sums, stale_lists
from cosremaster.checksums.rows import Changes
from cosremaster.errors import SizeError, UnsupportedError, show
from cosremaster.io.pieces import Piece, PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import IsoImage
from cosremaster.progress import Progress
from cosremaster.units import lba_bytes

ROUNDS = 4
"""Of planning. The first knows no lengths of lists, the second does; a third has something to do only where a list
moves a boot image or an appended partition, whose addresses stand in files that are summed."""

MakePlan = Callable[[Mapping[bytes, PieceTable]], ImagePlan]
"""The plan of the changed image in which the lists at these paths hold these bytes."""


def settle_sums(
    image: IsoImage, edits: IsoEdits, make_plan: MakePlan, progress: Progress, *, keep: bool = False
) -> Renewed:
    """The lists of ``image`` as ``edits`` make them, true for the bytes that ``make_plan`` puts on the new image.

    Each changed file that a list names is read once, and so is its old self. ``keep``: leave the lists, and warn of
    those that become wrong. So it is with lists that the image has no way to take.
    :raises CosremasterError: as ``make_plan`` without lists and reading the files do.
    """
    changes = changes_of(image, edits)
    lists = read_lists(image, changes.added)
    if not lists:
        return Renewed()
    stale = ", ".join(show(path) for path in stale_lists(image, lists, changes))
    if keep:
        return Renewed(warnings=(f"{stale}: sums of changed files are stale now",) if stale else ())
    digests = Digests(progress)
    renewed = renewed_sums(image, lists, changes, written(image, edits, make_plan({})), digests)
    reason = "their sums do not settle"
    try:
        for _ in range(ROUNDS):
            again = renewed_sums(image, lists, changes, written(image, edits, make_plan(renewed.lists)), digests)
            if _pieces(again) == _pieces(renewed):
                return again
            renewed = again
    except (UnsupportedError, SizeError) as error:
        reason = str(error)
    return Renewed(warnings=(f"{stale}: cannot be rewritten ({reason}), so sums of changed files are stale now",))


def _pieces(renewed: Renewed) -> dict[bytes, object]:
    return {path: table.pieces for path, table in renewed.lists.items()}


def changes_of(image: IsoImage, edits: IsoEdits) -> Changes:
    """What ``edits`` do to the files of the primary tree of ``image``."""
    now = {file.path: edits.new_path(file.path) for file in image.files} if edits.restructures else {}
    return Changes(
        exchanged=edits.exchanged,
        added={node.path: node.content.table() for node in edits.added if node.content is not None},
        removed=frozenset(path for path, new in now.items() if new is None),
        renamed={path: new for path, new in now.items() if new not in (None, path)},
    )


def written(image: IsoImage, edits: IsoEdits, plan: ImagePlan) -> Written:
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
                start = lba_bytes(plan.layout.block(record.lba))
                pieces += plan.table.cut(start, start + record.length).pieces
        return PieceTable(pieces)

    return bytes_of
