"""Find the FAT file systems on an image, such as EFI system partitions, in its state after edits.

They are files of the tree, partitions, or boot images without a name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from msgspec import Struct

from cosremaster.boot.fat import Fat, FatFile, parse_bpb
from cosremaster.errors import CosremasterError, ImageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.edited_files import EditedFiles
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import SECTOR, lba_offset

AREA_MARK = b"@"
"""The first character of the address of an area that is no file of the tree, as in ``@gpt2``."""
_FAT_NAMES = (b".img", b".efi", b".fat", b".bin", b".ima")
_MIN_FAT = 1 << 14
"""Bytes; a smaller file on the tree is not taken for a FAT file system."""


class LocatedFat(Struct, frozen=True, kw_only=True):
    """A FAT file system on the image.

    :param name: its name for people.
    :param paths: all paths on the image of the file that it is; empty where it is no file of the tree.
    :param aliases: its addresses as a partition or a boot image, as in ``@gpt2``; the one that is shown comes first.
    :param offset: its first byte in the image, where it is no file.
    :param table: its bytes.
    :param files: path in the file system -> file.
    """

    name: str
    paths: tuple[bytes, ...]
    aliases: tuple[bytes, ...]
    offset: int
    table: PieceTable
    fat: Fat
    files: Mapping[bytes, FatFile]

    @property
    def address(self) -> bytes:
        """The first part of addresses that lead into it."""
        return self.paths[0] if self.paths else self.aliases[0]

    def table_of(self, file: FatFile) -> PieceTable:
        """Return the bytes of ``file``. Raises as :meth:`Fat.locate_file`."""
        return _cut_file(self.fat, self.table, file)


class FoundFats(Struct, frozen=True):
    """The FAT file systems of an image, and name and error of those whose files cannot be listed."""

    fats: tuple[LocatedFat, ...]
    unreadable: tuple[tuple[str, CosremasterError], ...]


def find_fats(image: IsoImage, edits: IsoEdits | None = None) -> FoundFats:
    """Find the FAT file systems of ``image`` after ``edits``; those in added files are not searched.

    Files of the old tree are given by their old paths; each block of the image is looked at once.
    """
    edits = edits or IsoEdits()
    fats, unreadable = list[LocatedFat](), list[tuple[str, CosremasterError]]()
    for name, paths, aliases, offset, table in _list_candidates(image, edits):
        geometry = parse_bpb(table.read(0, SECTOR))
        if geometry is None:
            continue
        fat = Fat(geometry, table.read, table.length, image.place.inside(name))
        try:
            files = {file.path: file for file in fat.walk() if not file.is_directory}
        except CosremasterError as error:
            unreadable.append((name, error))
            continue
        fats.append(
            LocatedFat(name=name, paths=paths, aliases=aliases, offset=offset, table=table, fat=fat, files=files)
        )
    return FoundFats(tuple(fats), tuple(unreadable))


def find_area(image: IsoImage, alias: bytes) -> tuple[str, PieceTable] | None:
    """Return name and bytes of the partition or boot image that the address ``alias`` means; None if there is none.

    >>> from cosremaster.io.source import open_source
    >>> from cosremaster.iso.read import read_image
    >>> with open_source("vendor.iso") as source:
    ...     print(find_area(read_image(source), b"@gpt9"))
    None
    """
    for name, start, size, area_alias in _list_areas(image):
        if area_alias == alias.lower():
            return name, _cut_area(image, start, size)
    return None


def read_fat_nodes(fat: Fat, table: PieceTable) -> dict[bytes, Node]:
    """Return the files and directories of a file system with the bytes ``table`` as nodes, by path, sorted.

    They belong to root and have mode 0644 or 0755, as FAT keeps neither; their times are taken for UTC.

    :raises ImageError: when the file system is damaged.
    """
    nodes = dict[bytes, Node]()
    for file in sorted(fat.walk(), key=lambda file: file.path):
        if not _is_sound_path(file.path):
            raise ImageError("has a name that is none", fat.place.inside(file.path))
        if file.is_directory:
            nodes[file.path] = Node(path=file.path, kind=NodeKind.DIRECTORY, mode=0o755, mtime=file.mtime)
        else:
            content = PieceContent(_cut_file(fat, table, file).pieces)
            nodes[file.path] = Node(path=file.path, kind=NodeKind.FILE, mode=0o644, mtime=file.mtime, content=content)
    return nodes


def _is_sound_path(path: bytes) -> bool:
    """Return whether no part of a path is empty, ``.`` or ``..``, or holds a NUL."""
    return b"\0" not in path and not {b"", b".", b".."}.intersection(path.split(b"/"))


def _cut_file(fat: Fat, table: PieceTable, file: FatFile) -> PieceTable:
    """Return the bytes of ``file`` in a file system with the bytes ``table``."""
    runs = fat.locate_file(file)
    return PieceTable([piece for start, length in runs for piece in table.cut(start, start + length).pieces])


def _list_candidates(
    image: IsoImage, edits: IsoEdits
) -> Iterator[tuple[str, tuple[bytes, ...], tuple[bytes, ...], int, PieceTable]]:
    """Yield name, paths, aliases, offset and bytes of what may be a FAT file system."""
    tree_files, seen = EditedFiles(image, edits), set[int]()
    boot_paths = {boot.path for boot in image.boot_images}
    aliases: dict[int, list[bytes]] = defaultdict(list)
    for _, start, _, alias in _list_areas(image):
        aliases[start].append(alias)
    for path in sorted(tree_files.files):
        names = tree_files.names_of(path)
        start = lba_offset(tree_files.files[path].records[0].lba)
        may_be_fat = path.lower().endswith(_FAT_NAMES) or path in boot_paths or start in aliases
        if not may_be_fat or path != names[0] or tree_files.size_of(path) < _MIN_FAT or not tree_files.is_plain(path):
            continue
        seen.add(start)
        yield printable(path), names, tuple(aliases[start]), 0, tree_files.bytes_of(path)
    for name, start, size, _ in _list_areas(image):
        if start not in seen:
            seen.add(start)
            table = edits.areas.get(start) or _cut_area(image, start, size)
            yield name, (), tuple(aliases[start]), start, table


def _cut_area(image: IsoImage, start: int, size: int) -> PieceTable:
    """Return the bytes of an area; ``size`` 0: to the end of the image."""
    end = min(start + size, image.size) if size else image.size
    return PieceTable([image.source.cut(min(start, end), end)])


def _list_areas(image: IsoImage) -> Iterator[tuple[str, int, int, bytes]]:
    """Yield label, first byte, bytes and address of areas that may hold a FAT.

    0 bytes where only the FAT itself says its size.
    """
    for partition in image.partitions:
        if not (partition.is_filler or partition.covers_volume(image.trees)):
            alias = f"@{partition.table.lower()}{partition.number}".encode()
            size = (partition.end - partition.start) * SECTOR
            yield partition.name, partition.start * SECTOR, size, alias
    for number, boot in enumerate(image.boot_images, 1):
        if boot.path is None:
            yield f"El Torito entry {number}", lba_offset(boot.entry.lba), 0, b"@eltorito%d" % number
