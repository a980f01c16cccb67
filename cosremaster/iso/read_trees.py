"""The directory trees of an image, each file with the name people know it by and where its records stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from cosremaster.errors import ImageError
from cosremaster.io.files import FileSource
from cosremaster.iso.ecma119.records import PRIMARY, SUPPLEMENTARY, Descriptor, place_of, read_directory
from cosremaster.iso.model import ASSOCIATED, DIRECTORY, MULTI_EXTENT, DirectoryRecord, IsoDirectory, IsoFile, IsoTree
from cosremaster.iso.rockridge.read import PLAIN, RockRidge, read_fields, skip_of
from cosremaster.units import Lba, lba_offset

_JOLIET = (b"%/@", b"%/C", b"%/E")
_ENHANCED = 2
"""The version of a supplementary descriptor that is ISO 9660:1999's enhanced one (8.5)."""
JOLIET = "Joliet"
"""What a tree of that kind is called."""


def is_joliet(descriptor: Descriptor) -> bool:
    """A supplementary descriptor whose escape sequences say UCS-2 (Joliet specification, "SVD Escape Sequences")."""
    return descriptor.type == SUPPLEMENTARY and descriptor.raw[88:91] in _JOLIET


def read_trees(
    source: FileSource, descriptors: Iterable[Descriptor], base: Lba, known: Iterable[Lba] = ()
) -> Iterator[IsoTree]:
    """The trees of the descriptors of one set, whose blocks count from ``base``.

    A descriptor that shares another's root (as ISO 9660:1999's does), or one of ``known``, has a tree without files.
    :raises ImageError: a record is malformed, a directory or file lies outside the image.
    """
    roots = set(known)
    for descriptor in descriptors:
        if descriptor.type not in (PRIMARY, SUPPLEMENTARY):
            continue
        files, directories, rock_ridge = list[IsoFile](), list[IsoDirectory](), False
        if descriptor.root.lba not in roots:
            roots.add(descriptor.root.lba)
            root = IsoDirectory(Lba(base + descriptor.root.lba), descriptor.root.length)
            skip = None if is_joliet(descriptor) else skip_of(source.read_at(lba_offset(root.lba), 255))
            rock_ridge = skip is not None
            directories.append(root)
            files = list(_files(walk_names(source, root, base, skip, is_joliet(descriptor)), directories))
        yield IsoTree(
            kind=_kind(descriptor), descriptor=descriptor.lba, base=base, blocks=descriptor.blocks,
            files=tuple(files), directories=tuple(directories), path_tables=tuple(
                IsoDirectory(Lba(base + one.lba), one.length) for one in descriptor.path_tables
            ), rock_ridge=rock_ridge,
        )  # fmt: skip


def _kind(descriptor: Descriptor) -> str:
    if descriptor.type == PRIMARY:
        return "ISO 9660"
    if is_joliet(descriptor):
        return JOLIET
    return "ISO 9660:1999" if descriptor.raw[6] == _ENHANCED else "supplementary"


class Named(Struct, frozen=True):
    """A record, its bytes, its Rock Ridge, and the path people know it by. ``below``: the directory that it is."""

    path: bytes
    record: DirectoryRecord
    raw: bytes
    ridge: RockRidge
    below: IsoDirectory | None


def walk_names(source: FileSource, root: IsoDirectory, base: Lba, skip: int | None, joliet: bool) -> Iterator[Named]:
    """Every record below ``root``, a directory's own before those in it. Relocated ones count where CL stands.

    :raises ImageError: a record is malformed, a directory or file lies outside the image.
    """
    waiting: list[tuple[IsoDirectory, tuple[bytes, ...], bytes]] = [(root, (), b"")]
    seen = {root.lba}
    while waiting:
        directory, raw_path, path = waiting.pop()
        for record, raw in read_directory(source, directory, raw_path, base):
            ridge = PLAIN if skip is None else read_fields(source, raw, record.offset, skip, base)
            if ridge.relocated or record.flags & ASSOCIATED:
                continue  # a relocated directory is met where its CL stands
            name = entry_name(record, ridge, joliet=joliet)
            name = path + b"/" + name if path else name
            below: IsoDirectory | None = None
            if record.flags & DIRECTORY or ridge.child is not None:
                below = _directory(source, record, ridge, base)
                if below.lba in seen:
                    raise ImageError("directory tree leads into itself", source.place.at(record.offset))
                seen.add(below.lba)
                waiting.append((below, (*raw_path, record.identifier), name))
            elif record.length and lba_offset(record.lba) + record.length > source.size:
                raise ImageError("its data lie outside the image", place_of(source.place, record))
            yield Named(name, record, raw, ridge, below)


def _files(named: Iterable[Named], directories: list[IsoDirectory]) -> Iterator[IsoFile]:
    """The files among ``named``; ``directories`` gets the others."""
    run: list[DirectoryRecord] = []
    for one in named:
        if one.below is not None:
            directories.append(one.below)
            continue
        if run and run[0].parent != one.record.parent:
            run = []  # a file whose last extent is missing
        run.append(one.record)
        if not one.record.flags & MULTI_EXTENT:
            yield IsoFile(one.path, tuple(run), one.ridge.regular, one.ridge.zisofs)
            run = []


def _directory(source: FileSource, record: DirectoryRecord, extra: RockRidge, base: Lba) -> IsoDirectory:
    """The extent of the directory that ``record`` names; a relocated one tells its length itself, in its ``.``."""
    if extra.child is None:
        return extent_of(record)
    head = source.read_at(lba_offset(extra.child), 34)
    if len(head) < 34 or head[33:34] != b"\0":
        raise ImageError("relocated directory is not where it should be", source.place.at(record.offset))
    return IsoDirectory(extra.child, int.from_bytes(head[10:14], "little"))


def entry_name(record: DirectoryRecord, extra: RockRidge | None, *, joliet: bool) -> bytes:
    """The name people know a record by: Rock Ridge's, Joliet's, or the identifier's."""
    return (extra.name if extra else b"") or shown_name(record.identifier, joliet=joliet)


def shown_name(identifier: bytes, *, joliet: bool) -> bytes:
    """The name that an identifier alone tells."""
    return joliet_name(identifier) if joliet else plain_name(identifier)


def extent_of(record: DirectoryRecord) -> IsoDirectory:
    """Where the directory that ``record`` names stands."""
    return IsoDirectory(record.lba, record.length)


def plain_name(identifier: bytes) -> bytes:
    """An ISO 9660 file identifier (7.5) without version and empty extension."""
    return identifier.partition(b";")[0].rstrip(b".")


def joliet_name(identifier: bytes) -> bytes:
    """A Joliet identifier, big-endian UCS-2, as UTF-8 without its version."""
    return identifier.decode("utf-16-be", "replace").partition(";")[0].encode("utf-8", "surrogatepass")
