"""The files that an image with edited trees is to hold, for the proof of the written image."""

from __future__ import annotations

from collections.abc import Sequence

from cosremaster.iso.model import IsoDirectory, IsoFile
from cosremaster.records import Struct
from cosremaster.units import Lba

IN_UDF = Lba(-1)
"""Stands for the UDF file system where trees are named by the block of their volume descriptor."""


class StayingDirectory(Struct, frozen=True):
    """A directory whose entries are those of ``directory`` on the old image, where they are ``files`` beside others."""

    directory: IsoDirectory
    files: Sequence[IsoFile]


class ExpectedTree(Struct, frozen=True):
    """The files of a tree on the new image.

    ``staying``: the directories whose entries stay, by their path on the new image. ``files``: the files of all others,
    by path.
    """

    files: dict[bytes, ExpectedFile]
    staying: dict[bytes, StayingDirectory]


class ExpectedFile(Struct, frozen=True, checked=False):
    """A file of the new image: its bytes, and the first block of its data (of each section of a file that stays)."""

    size: int
    starts: tuple[Lba, ...]


def is_removed(file: IsoFile, removed_data: frozenset[Lba]) -> bool:
    """Return whether the data of ``file`` are among ``removed_data``, first blocks of data that leave the image."""
    return bool(removed_data) and bool(file.size) and file.records[0].lba in removed_data
