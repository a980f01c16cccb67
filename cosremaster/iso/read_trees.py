"""The directory trees of an image, each file with the name people know it by and where its records stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import PRIMARY, SUPPLEMENTARY, VolumeDescriptor, locate_record, read_directory
from cosremaster.iso.model import ASSOCIATED, DIRECTORY, MULTI_EXTENT, DirectoryRecord, Extent, IsoFile, IsoTree
from cosremaster.iso.rockridge.read import NO_ROCK_RIDGE, RockRidge, find_susp_skip, read_rock_ridge
from cosremaster.units import Lba, lba_offset

_JOLIET = (b"%/@", b"%/C", b"%/E")
_ENHANCED = 2
"""The version of a supplementary descriptor that is ISO 9660:1999's enhanced one (8.5)."""
JOLIET = "Joliet"
"""What a tree of that kind is called."""


def is_joliet(descriptor: VolumeDescriptor) -> bool:
    """A supplementary descriptor whose escape sequences say UCS-2 (Joliet specification, "SVD Escape Sequences")."""
    return descriptor.type == SUPPLEMENTARY and descriptor.raw[88:91] in _JOLIET


def read_trees(
    source: ByteSource, descriptors: Iterable[VolumeDescriptor], base: Lba, known: Iterable[Lba] = ()
) -> Iterator[IsoTree]:
    """The trees of the descriptors of one set, whose blocks count from ``base``.

    A descriptor that shares another's root (as ISO 9660:1999's does), or one of ``known``, has a tree without files.
    :raises ImageError: a record is malformed, a directory or file lies outside the image.
    """
    roots = set(known)
    for descriptor in descriptors:
        if descriptor.type not in (PRIMARY, SUPPLEMENTARY):
            continue
        files, directories, rock_ridge = list[IsoFile](), list[Extent](), False
        if descriptor.root.lba not in roots:
            roots.add(descriptor.root.lba)
            root = Extent(Lba(base + descriptor.root.lba), descriptor.root.length)
            skip = None if is_joliet(descriptor) else find_susp_skip(source.read(lba_offset(root.lba), 255))
            rock_ridge = skip is not None
            directories.append(root)
            files = list(_files(walk_records(source, root, base, skip, is_joliet(descriptor)), directories))
        yield IsoTree(
            kind=_kind(descriptor), descriptor_lba=descriptor.lba, base=base, blocks=descriptor.blocks,
            files=tuple(files), directories=tuple(directories), path_tables=tuple(
                Extent(Lba(base + one.lba), one.length) for one in descriptor.path_tables
            ), has_rock_ridge=rock_ridge,
        )  # fmt: skip


def _kind(descriptor: VolumeDescriptor) -> str:
    if descriptor.type == PRIMARY:
        return "ISO 9660"
    if is_joliet(descriptor):
        return JOLIET
    return "ISO 9660:1999" if descriptor.raw[6] == _ENHANCED else "supplementary"


class NamedRecord(Struct, frozen=True):
    """A record, its bytes, its Rock Ridge, and the path people know it by. ``below``: the directory that it is."""

    path: bytes
    record: DirectoryRecord
    raw: bytes
    rock_ridge: RockRidge
    directory: Extent | None


def walk_records(source: ByteSource, root: Extent, base: Lba, skip: int | None, joliet: bool) -> Iterator[NamedRecord]:
    """Every record below ``root``, a directory's own before those in it. Relocated ones count where CL stands.

    :raises ImageError: a record is malformed, a directory or file lies outside the image.
    """
    waiting: list[tuple[Extent, tuple[bytes, ...], bytes]] = [(root, (), b"")]
    seen = {root.lba}
    while waiting:
        directory, raw_path, path = waiting.pop()
        for record, raw in read_directory(source, directory, raw_path, base):
            ridge = NO_ROCK_RIDGE if skip is None else read_rock_ridge(source, raw, record.offset, skip, base)
            if ridge.is_relocated or record.flags & ASSOCIATED:
                continue  # a relocated directory is met where its CL stands
            name = choose_name(record, ridge, joliet=joliet)
            name = path + b"/" + name if path else name
            below: Extent | None = None
            if record.flags & DIRECTORY or ridge.child_lba is not None:
                below = _directory(source, record, ridge, base)
                if below.lba in seen:
                    raise ImageError("directory tree leads into itself", source.place.at(record.offset))
                seen.add(below.lba)
                waiting.append((below, (*raw_path, record.identifier), name))
            elif record.length and lba_offset(record.lba) + record.length > source.size:
                raise ImageError("its data lie outside the image", locate_record(source.place, record))
            yield NamedRecord(name, record, raw, ridge, below)


def _files(named: Iterable[NamedRecord], directories: list[Extent]) -> Iterator[IsoFile]:
    """The files among ``named``; ``directories`` gets the others."""
    run: list[DirectoryRecord] = []
    for one in named:
        if one.directory is not None:
            directories.append(one.directory)
            continue
        if run and run[0].parent != one.record.parent:
            run = []  # a file whose last extent is missing
        run.append(one.record)
        if not one.record.flags & MULTI_EXTENT:
            yield IsoFile(one.path, tuple(run), one.rock_ridge.is_regular, one.rock_ridge.zisofs_offset)
            run = []


def _directory(source: ByteSource, record: DirectoryRecord, extra: RockRidge, base: Lba) -> Extent:
    """The extent of the directory that ``record`` names; a relocated one tells its length itself, in its ``.``."""
    if extra.child_lba is None:
        return get_extent(record)
    head = source.read(lba_offset(extra.child_lba), 34)
    if len(head) < 34 or head[33:34] != b"\0":
        raise ImageError("relocated directory is not where it should be", source.place.at(record.offset))
    return Extent(extra.child_lba, int.from_bytes(head[10:14], "little"))


def choose_name(record: DirectoryRecord, extra: RockRidge | None, *, joliet: bool) -> bytes:
    """The name people know a record by: Rock Ridge's, Joliet's, or the identifier's."""
    return (extra.name if extra else b"") or decode_identifier(record.identifier, joliet=joliet)


def decode_identifier(identifier: bytes, *, joliet: bool) -> bytes:
    """The name that an identifier alone tells."""
    return decode_joliet(identifier) if joliet else decode_plain(identifier)


def get_extent(record: DirectoryRecord) -> Extent:
    """Where the directory that ``record`` names stands."""
    return Extent(record.lba, record.length)


def decode_plain(identifier: bytes) -> bytes:
    """An ISO 9660 file identifier (7.5) without version and empty extension."""
    return identifier.partition(b";")[0].rstrip(b".")


def decode_joliet(identifier: bytes) -> bytes:
    """A Joliet identifier, big-endian UCS-2, as UTF-8 without its version."""
    return identifier.decode("utf-16-be", "replace").partition(";")[0].encode("utf-8", "surrogatepass")
