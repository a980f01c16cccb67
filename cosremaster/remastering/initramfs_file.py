"""An initramfs or a layer in a file of its own, without an ISO around it: netboot users have none.

It is an image of one file, under the file's own name, and no volume.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from cosremaster.errors import CosremasterError, Place, ProofError
from cosremaster.io.files import FileSource
from cosremaster.io.output import Written
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.model import DirectoryRecord, IsoFile, IsoImage, IsoTree
from cosremaster.iso.prove import read_back
from cosremaster.layers.cpio.scan import ScanOptions
from cosremaster.layers.identify import look
from cosremaster.layers.model import index_file
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, Lba


def is_archive_file(source: FileSource) -> bool:
    """True when ``source`` is no ISO 9660 image, but an archive, by its first bytes."""
    if source.at(FIRST_DESCRIPTOR * BLOCK + 1, 5) == b"CD001":
        return False
    return look(lambda count: source.at(0, count)).is_archive


def bare_image(source: FileSource) -> IsoImage:
    """The image that is nothing but the file ``source``."""
    name = os.fsencode(PurePath(source.path).name)
    record = DirectoryRecord(offset=0, lba=Lba(0), length=source.size, flags=0, parent=(), identifier=name)
    tree = IsoTree(
        kind="no", descriptor=Lba(0), base=Lba(0), blocks=0, files=(IsoFile(name, (record,)),), directories=(),
        path_tables=(), rock_ridge=False,
    )  # fmt: skip
    return IsoImage(
        place=source.place, source=Range(source, 0, source.size), size=source.size, volume_id="", trees=(tree,),
        fixed=(), tail=Lba(0), catalog=None, boot_images=(), mbr=None, gpt=(), apm=None, partitions=(), hfs=(),
        firmware=(), implanted=None, udf=None, session=Lba(0), blockers=(),
    )  # fmt: skip


def is_bare(image: IsoImage) -> bool:
    """True for what :func:`bare_image` made: no ISO 9660 volume is without blocks."""
    return not image.blocks


def bare_plan(exchanged: Mapping[bytes, PieceTable]) -> ImagePlan:
    """The plan whose image is the one file of ``exchanged``."""
    ((path, table),) = exchanged.items()
    return ImagePlan(table, Layout((), 0, 0, (0, 0)), {path: table.length})


def prove_bare(old: IsoImage, plan: ImagePlan, written: Written, result: FileSource) -> Iterator[str]:
    """What was found true of ``result``: each archive was read to its end, every new byte again.

    :raises ProofError: it cannot be read, or is not as planned.
    """
    if result.size != plan.table.length:
        raise ProofError(f"the file's length is {result.size} in the result, not {plan.table.length}", old.place)
    table = PieceTable([Range(result, 0, result.size)])
    looked = look(lambda count: result.at(0, count))
    try:
        effort = ScanOptions(digests=False, nesting=0, edits=False)
        indexed = index_file(old.files[0].path, table, looked.codec, Place(), lambda count: None, effort)
    except CosremasterError as error:
        raise ProofError(f"the result cannot be read: {error}", old.place) from error
    archives = [archive for stream in indexed.streams for archive in stream.archives] or [indexed.archive]
    if any(stream.start % 4 for stream in indexed.streams):
        raise ProofError("an archive in the result begins at no multiple of 4", old.place)
    entries = sum(len(archive.members) for archive in archives)
    yield f"{len(archives)} archive{'s' if len(archives) > 1 else ''} with {entries:,} entries read to the end"
    yield read_back(written, result)
