"""Judge files of Joliet or UDF that the primary tree has not: they were hidden from it, or their records are stale.

Tools hide files from one tree on purpose (mkisofs(8): -hide, -hide-joliet), and Windows' discs have most files in UDF
alone. So a file of another tree alone is no fault, unless its data share blocks with something else, or the primary
tree has a file of that name whose data the other tree does not name.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from itertools import islice

from cosremaster.iso.spans import SYSTEM_AREA, Span
from cosremaster.records import Struct
from cosremaster.units import Lba, blocks_for
from cosremaster.verification.subject import Subject

_SHORT_NAME = 8
"""Letters of the shortest name that stands for a longer one (interchange level 1, 10.1)."""
_PREFIX = 4
"""Letters by which names that may be the same are looked up; no tool that shortens a name takes those."""
_MAX_COMPARED = 50
"""The most names that are compared with one; where more begin alike, one of them is taken for it."""
_RELOCATION_DIRECTORIES = (b"rr_moved", b"RR_MOVED", b".rr_moved")

Name = tuple[str, str]
"""A name in letters that all trees can hold, and its extension."""


class OtherFile(Struct, frozen=True):
    """An extent of a file in a tree beside the primary one. ``path``: as that tree names it; ``length``: bytes."""

    path: bytes
    lba: Lba
    length: int


class PrimaryFiles:
    """What stands on the image by the primary tree, to judge files of another tree by.

    :param named: the first blocks of all data that the other tree names.
    """

    def __init__(self, subject: Subject, named: Collection[Lba], metadata: Iterable[Span] = ()) -> None:
        """Collect spans and names; ``metadata``: more blocks that hold no file."""
        tree = subject.main_tree
        descriptors = [descriptor for _, group in subject.descriptor_sets for descriptor in group]
        spans = [SYSTEM_AREA, *metadata, *(Span(descriptor.lba, 1, "volume descriptor") for descriptor in descriptors)]
        spans += [span for each in subject.trees for span in each.metadata]
        self._unnamed = defaultdict[tuple[str, ...], list[list[Name]]](list)
        for record in tree.files if tree else ():
            if record.length:
                spans.append(Span(record.lba, record.blocks, ""))
            if record.length and record.lba not in named:
                assert tree is not None
                names = _split_path(tree.path_of(record))
                self._unnamed[_make_key(names)].append(names)
                if tree.path_of(record).partition(b"/")[0] in _RELOCATION_DIRECTORIES:
                    self._unnamed[_make_key(names[-1:])].append(names[-1:])
        self._spans = sorted(spans, key=lambda span: (span.start, span.blocks))
        self._starts = [span.start for span in self._spans]
        self._ends = list[Lba]()  # the largest end up to each span
        for span in self._spans:
            self._ends.append(max(span.end, self._ends[-1]) if self._ends else span.end)

    def find_fault(self, file: OtherFile) -> str | None:
        """Return why ``file``, which is none of the primary tree, is no hidden file; None if it may be."""
        end = file.lba + blocks_for(file.length)
        index = bisect_right(self._starts, end - 1) - 1
        if index >= 0 and self._ends[index] > file.lba:
            return "shares blocks with something else"
        names = _split_path(file.path)
        for key in (_make_key(names), _make_key(names[-1:])):
            candidates = self._unnamed.get(key, ())
            same = (
                _is_same_path(candidate, names[-len(candidate) :]) for candidate in islice(candidates, _MAX_COMPARED)
            )
            if len(candidates) > _MAX_COMPARED or any(same):
                return "the ISO 9660 tree has other data under that name"
        return None


def _split_path(path: bytes) -> list[Name]:
    """Return the names of ``path`` in letters and digits, in capitals, each with its extension."""
    names = list[Name]()
    for part in path.decode("utf-8", "replace").upper().split("/"):
        stem, dot, extension = part.rpartition(".")
        clean: Callable[[str], str] = lambda text: re.sub("[^A-Z0-9]", "_", text)  # noqa: E731 - two uses in a line
        names.append((clean(stem), clean(extension)) if dot else (clean(part), ""))
    return names


def _make_key(names: Iterable[Name]) -> tuple[str, ...]:
    """Return what is the same for all forms of ``names``."""
    return tuple(stem[:_PREFIX] for stem, _ in names)


def _is_same_path(names: Collection[Name], others: Collection[Name]) -> bool:
    """Return whether two paths may be those of one file, in trees with other rules for names."""
    return len(names) == len(others) and all(map(_is_same_name, names, others))


def _is_same_name(name: Name, other: Name) -> bool:
    """Return whether one of two names may be the other one, or may have been shortened and numbered from it."""
    short, long = sorted((name, other), key=lambda each: len(each[0]))
    if not (long[1].startswith(short[1]) or short[1].startswith(long[1])):
        return False
    if short[0] == long[0]:
        return True
    return len(short[0]) >= _SHORT_NAME and long[0].startswith(re.sub(r"\d{1,3}$", "", short[0]))
