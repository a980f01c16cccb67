"""Reading an image: names from pycdlib (imported here alone), places from our own walk, boot records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pycdlib
from pycdlib.dr import DirectoryRecord as CdlibRecord

from cosremaster.boot import pointers
from cosremaster.boot.eltorito import BootCatalog, BootEntry, catalog_lba, parse_catalog
from cosremaster.boot.mbr import GPT_PROTECTIVE, Mbr
from cosremaster.errors import CosremasterError, ImageError, show
from cosremaster.files import FileSource
from cosremaster.iso.model import (
    ASSOCIATED,
    DIRECTORY,
    MULTI_EXTENT,
    BootImage,
    DirectoryRecord,
    Image,
    IsoFile,
    Span,
)
from cosremaster.iso.records import (
    FIRST_DESCRIPTOR,
    PRIMARY,
    SUPPLEMENTARY,
    Descriptor,
    has_susp,
    place_of,
    read_descriptors,
    walk,
)
from cosremaster.pieces import Range
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Lba, blocks_for, lba_bytes

SYSTEM_AREA = FIRST_DESCRIPTOR * BLOCK
SECOND_DESCRIPTORS = Lba(32)
MAX_CATALOG = 64 * 1024
_JOLIET = (b"%/@", b"%/C", b"%/E")


def read_image(source: FileSource) -> Image:
    """The image in ``source``. Reads descriptors, directories and boot records, no file's data.

    :raises ImageError: no ISO 9660 image, cut off, or damaged.
    """
    descriptors = read_descriptors(source)
    primary = next((one for one in descriptors if one.type == PRIMARY), None)
    if primary is None:
        raise ImageError("has no primary volume descriptor", source.place)
    if int.from_bytes(primary.raw[128:130], "little") != BLOCK:
        raise ImageError("its logical blocks are not of 2,048 bytes", source.place)
    if primary.blocks * BLOCK > source.size:
        missing = primary.blocks * BLOCK - source.size
        raise ImageError(f"is cut off: {missing:,} bytes of its volume are missing", source.place)
    directories, records = walk(source, primary.root)
    for record in records:
        if record.length and lba_bytes(record.lba) + record.length > source.size:
            raise ImageError("its data lie outside the image", place_of(source.place, record))
    files = tuple(_files(records, _names(source)))
    catalog = _catalog(source, descriptors)
    boot_images = _boot_images(source, catalog, files)
    mbr = Mbr.parse(source.at(0, SECTOR))
    for number, partition in mbr.used if mbr else ():
        if partition.type != GPT_PROTECTIVE and partition.end * SECTOR > source.size:
            raise ImageError(f"is cut off: MBR partition {number} ends behind its end", source.place)
    fixed = [Span(Lba(0), FIRST_DESCRIPTOR, "system area")]
    fixed += [Span(one.lba, 1, "volume descriptor") for one in descriptors]
    fixed += [Span(table.lba, blocks_for(table.length), "path table") for table in primary.path_tables]
    fixed += [Span(one.lba, blocks_for(one.length), "directory") for one in directories]
    fixed += _boot_spans(catalog, boot_images, mbr, primary.blocks)
    return Image(
        place=source.place, source=Range(source, 0, source.size), size=source.size, blocks=primary.blocks,
        volume_id=show(primary.raw[40:72].rstrip(b" \0")), files=files, directories=len(directories),
        fixed=tuple(fixed), catalog=catalog, boot_images=boot_images, mbr=mbr,
        pointer=_mbr_pointer(mbr, boot_images), rock_ridge=has_susp(source, primary.root),
        blockers=tuple(_blockers(source, descriptors, mbr)),
    )  # fmt: skip


@contextmanager
def _cdlib(source: FileSource) -> Iterator[pycdlib.PyCdlib]:
    """The image opened by pycdlib, whose failures of every kind become ours."""
    iso = pycdlib.PyCdlib()
    try:
        with open(source.path, "rb") as file:
            iso.open_fp(file)
            yield iso
            iso.close()
    except CosremasterError:
        raise
    except Exception as error:  # pycdlib leaks struct.error, IndexError and others on damaged images
        raise ImageError(f"its file system cannot be read ({error})", source.place) from error


def _names(source: FileSource) -> dict[tuple[bytes, ...], bytes]:
    """Raw identifier path -> Rock Ridge path, for every file of the tree."""
    names: dict[tuple[bytes, ...], bytes] = {}
    with _cdlib(source) as iso:
        root = iso.get_record(iso_path="/")
        if not isinstance(root, CdlibRecord):
            raise ImageError("its root is no ISO 9660 directory", source.place)
        waiting: list[tuple[CdlibRecord, tuple[bytes, ...], bytes]] = [(root, (), b"")]
        while waiting:
            record, raw_path, path = waiting.pop()
            for child in record.children:
                if child.is_dot() or child.is_dotdot():
                    continue
                identifier = child.file_identifier()
                name = child.rock_ridge.name() if child.rock_ridge is not None else b""
                raw_below = (*raw_path, identifier)
                below = path + b"/" + (name or _plain_name(identifier)) if path else name or _plain_name(identifier)
                names[raw_below] = below
                if child.is_dir():
                    waiting.append((child, raw_below, below))
    return names


def _plain_name(identifier: bytes) -> bytes:
    """An ISO 9660 file identifier (7.5) without version and empty extension."""
    return identifier.partition(b";")[0].rstrip(b".")


def _files(records: Iterable[DirectoryRecord], names: dict[tuple[bytes, ...], bytes]) -> Iterator[IsoFile]:
    """Files from records; those of one file with several extents follow each other (6.5.1)."""
    run: list[DirectoryRecord] = []
    for record in records:
        if record.flags & (DIRECTORY | ASSOCIATED):
            continue
        run.append(record)
        if record.flags & MULTI_EXTENT:
            continue
        raw_path = (*record.parent, record.identifier)
        path = names.get(raw_path) or b"/".join(_plain_name(part) for part in raw_path)
        yield IsoFile(path, tuple(run))
        run = []


def _catalog(source: FileSource, descriptors: Iterable[Descriptor]) -> BootCatalog | None:
    for descriptor in descriptors:
        lba = catalog_lba(descriptor.raw)
        if lba is not None:
            start = lba_bytes(lba)
            return parse_catalog(source.at(start, MAX_CATALOG), lba, start, source.place)
    return None


def _boot_images(source: FileSource, catalog: BootCatalog | None, files: Iterable[IsoFile]) -> tuple[BootImage, ...]:
    """The boot images of all entries. :raises ImageError: one lies outside the image."""
    starts = {file.records[0].lba: file for file in files if file.size}
    return tuple(_boot_image(source, entry, starts.get(entry.lba)) for entry in (catalog.entries if catalog else ()))


def _boot_image(source: FileSource, entry: BootEntry, file: IsoFile | None) -> BootImage:
    start = lba_bytes(entry.lba)
    length = max(entry.least_bytes, file.size) if file else entry.least_bytes
    if start + (file.size if file else 1) > source.size:
        raise ImageError("El Torito entry points outside the image", source.place.at(entry.offset))
    length = min(length, source.size - start)
    head = source.at(start, pointers.GRUB2_IMAGE_OFFSET + 8)
    grub2 = head[pointers.GRUB2_IMAGE_OFFSET :] == pointers.grub2_image_pointer(entry.lba)
    info = pointers.BootInfoTable.parse(head) if len(head) >= pointers.TABLE_END else None
    if info and not (info.image == entry.lba and info.descriptor == FIRST_DESCRIPTOR and info.length):
        info = None
    return BootImage(entry, length, file.path if file else None, info, grub2)


def _boot_spans(
    catalog: BootCatalog | None, images: Iterable[BootImage], mbr: Mbr | None, blocks: int
) -> Iterator[Span]:
    """What boot records point at, inside the volume."""
    if catalog:
        yield Span(catalog.lba, blocks_for(catalog.length), "boot catalog")
    for image in images:
        yield Span(image.entry.lba, blocks_for(image.length), "boot image")
    for number, partition in mbr.used if mbr else ():
        if 0 < partition.start < blocks * SECTORS_PER_BLOCK:
            start = partition.start // SECTORS_PER_BLOCK
            end = -(-partition.end // SECTORS_PER_BLOCK)
            yield Span(Lba(start), end - start, f"MBR partition {number}")


def _mbr_pointer(mbr: Mbr | None, images: Iterable[BootImage]) -> str | None:
    """Which boot image the MBR's code loads, in words."""
    for image in images if mbr else ():
        at, lba = pointers.MBR_POINTER_OFFSET, image.entry.lba
        code = mbr.code if mbr else b""
        if code[at : at + 8] == pointers.grub2_mbr_pointer(lba):
            return f"GRUB2 hybrid MBR -> block {lba}"
        if code[at : at + 4] == pointers.isolinux_mbr_pointer(lba):
            return f"ISOLINUX hybrid MBR -> block {lba}"
    return None


def _blockers(source: FileSource, descriptors: Iterable[Descriptor], mbr: Mbr | None) -> Iterator[str]:
    """What this version would damage if it moved anything."""
    for descriptor in descriptors:
        if descriptor.type == SUPPLEMENTARY:
            joliet = descriptor.raw[88:120].startswith(_JOLIET)
            yield "a Joliet tree" if joliet else "an ISO 9660:1999 tree"
        if descriptor.type == PRIMARY and descriptor.raw[883:1395].startswith(b"ISO MD5SUM"):
            yield "an implanted MD5 (isomd5sum)"
    last = max(descriptor.lba for descriptor in descriptors)
    for lba in range(last + 1, last + 17):
        if source.at(lba * BLOCK + 1, 5) in (b"NSR02", b"NSR03"):
            yield "a UDF file system"
    if last < SECOND_DESCRIPTORS and source.at(SECOND_DESCRIPTORS * BLOCK + 1, 5) == b"CD001":
        yield "a second directory tree (partition offset 16)"
    yield from _system_area_blockers(source.at(0, SYSTEM_AREA), mbr)


def _system_area_blockers(area: bytes, mbr: Mbr | None) -> Iterator[str]:
    found = []
    if b"EFI PART" in (area[SECTOR : SECTOR + 8], area[BLOCK : BLOCK + 8]):
        found.append("a GPT")
    if area[:2] == b"ER" or b"PM\0\0" in (area[SECTOR : SECTOR + 4], area[BLOCK : BLOCK + 4]):
        found.append("an Apple partition map")
    if area[1024:1026] in (b"H+", b"HX", b"BD"):
        found.append("an HFS file system")
    yield from found
    rest = area if mbr is None else area[SECTOR:]
    if not found and rest.strip(b"\0"):
        at = len(area) - len(rest.lstrip(b"\0"))
        yield f"unknown boot data in the system area at byte 0x{at:X}"
    elif mbr and any(partition.type == GPT_PROTECTIVE for _, partition in mbr.used) and not found:
        yield "an MBR that announces a GPT"
