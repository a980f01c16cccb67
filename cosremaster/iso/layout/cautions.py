"""Keep what unknown structures may name: where an image has such a structure, nothing that is there moves or leaves.

An HFS file system over the whole image (genisoimage -hfs) names blocks and sizes of the files, and boot code in the
system area may do so. Additions behind the data do not touch what they name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cosremaster.errors import Place, UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.model import IsoImage
from cosremaster.units import Lba, lba_offset


def check_cautions(
    image: IsoImage,
    source: ByteSource,
    layout: Layout,
    replacements: Sequence[FileReplacement],
    removed: Collection[Lba],
) -> None:
    """Check that all data of ``image`` stay as they are, if it has a structure that may name them.

    A file may get other bytes of the same length in its place.

    :param source: the file that holds the image.
    :param removed: the first blocks of data that leave the image.
    :raises UnsupportedError: when data would move, leave or change their length.
    """
    if not image.cautions:
        return
    for replacement in replacements:
        if replacement.old_span is None or not replacement.keeps_size:
            _refuse(image, "be exchanged for one of another size", image.place.inside(replacement.path))
    for file in image.files if removed else ():
        if file.size and file.start in removed:
            _refuse(image, "be removed", image.place.inside(file.path))
    if layout.moved_starts or removed or (layout.tail != layout.old_tail and _has_tail_data(source, layout.old_tail)):
        _refuse(image, "be changed in such a way that others move", image.place)


def _refuse(image: IsoImage, verb: str, place: Place) -> None:
    """Raise the error that no file can be changed so. :raises UnsupportedError: always."""
    what = " and ".join(image.cautions)
    raise UnsupportedError(f"has {what}, which may name any block; files can be added, and none can {verb}", place)


def _has_tail_data(source: ByteSource, tail: int) -> bool:
    """Return whether something other than padding lies from block ``tail`` on."""
    start = lba_offset(Lba(tail))
    return any(chunk.strip(b"\0") for chunk in source.chunks(start, max(0, source.size - start)))
