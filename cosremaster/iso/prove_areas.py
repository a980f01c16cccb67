"""Prove what the records of a new image name beside files: continuation areas, and blocks without data (SUSP 5.1)."""

from __future__ import annotations

from bisect import bisect_right

from cosremaster.errors import ProofError
from cosremaster.iso.ecma119.records import NEGATIVE
from cosremaster.iso.model import IsoImage, IsoTree


def prove_areas(old: IsoImage, new: IsoImage) -> None:
    """Check that the blocks that records name are in the volume, and that each root's ``.`` says what it said.

    That is where an ER field says that a tree has Rock Ridge (SUSP 5.5): without it Linux shows no names of Rock Ridge.

    :raises ProofError: when a block that a record names is behind the volume, a continuation area shares blocks with a
        file, or the fields of a root differ; unless it was so in the old image.
    """
    for old_tree, new_tree in zip(old.trees, new.trees, strict=True):
        if _count_outside(new_tree) > _count_outside(old_tree):
            raise ProofError(f"a record of the {new_tree.kind} tree names a block behind the volume", new.place)
        if new_tree.extension_fields != old_tree.extension_fields:
            raise ProofError(f"the root of the {new_tree.kind} tree has other SUSP fields", new.place)
    if _has_shared_area(new) and not _has_shared_area(old):
        raise ProofError("a continuation area shares blocks with a file", new.place)


def count_data_outside(tree: IsoTree) -> int:
    """Return how many spans of data that records of ``tree`` name end behind its volume."""
    end = tree.end
    count = sum([span.end > end for span in tree.other_spans])
    return count + (sum([run_end > end for _, run_end in tree.block_runs]) if tree.data_end > end else 0)


def _count_outside(tree: IsoTree) -> int:
    """Return how often records of ``tree`` name blocks behind its volume, with or without data."""
    least_negative = tree.base + NEGATIVE
    return sum(tree.end < lba < least_negative for lba in tree.empty_blocks) + count_data_outside(tree)


def _has_shared_area(image: IsoImage) -> bool:
    """Return whether a continuation area shares blocks with the data of a file."""
    areas = [span for tree in image.trees for span in tree.other_spans]
    if not areas:
        return False
    first, last = min(area.start for area in areas), max(area.end for area in areas)
    runs = sorted({run for tree in image.trees for run in tree.list_runs_in(first, last)})
    starts = [start for start, _ in runs]
    for area in areas:
        at = bisect_right(starts, area.start)
        if any(area.start < end and start < area.end for start, end in runs[max(0, at - 1) : at + 1]):
            return True
    return False
