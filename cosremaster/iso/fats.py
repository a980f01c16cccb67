"""Find the FAT file systems on an image, such as EFI system partitions, in its state after edits.

They are files of the tree, partitions, or boot images without a name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from cosremaster.boot.fat import Fat, FatFile, parse_bpb
from cosremaster.errors import CosremasterError, ImageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import same_bytes
from cosremaster.iso.edited_files import EditedFiles
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.far_images import Candidate, choose_candidates, is_far, warn_of_unread
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.records import Struct
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import BLOCK, SECTOR, Lba, lba_offset

_FAT_NAMES = (b".img", b".efi", b".fat", b".vfat", b".esp", b".bin", b".ima")
_FAT_IMAGE_NAMES = tuple(ending for ending in _FAT_NAMES if ending not in (b".efi", b".bin"))
"""Those that say nothing but an image of a file system."""
_MOST_FAR = 8
"""Files of an image on another machine that are looked at for their names."""
EFI_PROGRAM = b".efi"
"""The end of the name of a program for EFI, in small letters; such may be a unified kernel image."""
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

    def holds(self, file: FatFile, table: PieceTable) -> bool:
        """Return whether ``file`` has the bytes ``table``; a damaged file has not."""
        try:
            return same_bytes(self.table_of(file).chunks(), table.chunks())
        except ImageError:
            return False

    def table_of(self, file: FatFile) -> PieceTable:
        """Return the bytes of ``file``. Raises as :meth:`Fat.locate_file`."""
        return _cut_file(self.fat, self.table, file)


class FoundFats(Struct, frozen=True):
    """The FAT file systems of an image, and name and error of those whose files cannot be listed."""

    fats: tuple[LocatedFat, ...]
    unreadable: tuple[tuple[str, CosremasterError], ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not (self.fats or self.unreadable)


def find_fats(image: IsoImage, edits: IsoEdits | None = None) -> FoundFats:
    """Find the FAT file systems of ``image`` after ``edits``, see :func:`find_fats_among`."""
    edits = edits or IsoEdits()
    return find_fats_among(EditedFiles(image, edits), edits)


def find_fats_among(tree_files: EditedFiles, edits: IsoEdits, *, quick: bool = False) -> FoundFats:
    """Find the FAT file systems of an image, on which are ``tree_files`` after ``edits``; not those in added files.

    Files of the old tree are given by their old paths; each block of the image is looked at once. ``quick``: of an
    image on another machine only the likely files.
    """
    image = tree_files.image
    fats, unreadable = list[LocatedFat](), list[tuple[str, CosremasterError]]()
    for name, paths, aliases, offset, table in _list_candidates(tree_files, edits, quick=quick and is_far(image)):
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
    for area in list_areas(image):
        if area.alias == alias.lower():
            return area.name, area.cut_from(image)
    return None


def find_tree_copies(image: IsoImage, fat: LocatedFat) -> dict[bytes, bytes]:
    """Return the files in ``fat`` with the bytes of a file on the tree, by path, each with the path of that file.

    Of several such files on the tree that of the same path is taken, else the first.
    """
    from cosremaster.boot.fat_names import fold_path  # noqa: PLC0415 - an image without FAT needs none of it

    by_size = defaultdict[int, list[IsoFile]](list)
    for file in image.files:
        if file.size and not file.zisofs_offset:
            by_size[file.size].append(file)
    copies = dict[bytes, bytes]()
    for path, fat_file in sorted(fat.files.items()):
        name = fold_path(path)
        for file in sorted(by_size.get(fat_file.size, ()), key=lambda file: (fold_path(file.path) != name, file.path)):
            if fat.holds(fat_file, image.bytes_of(file)):
                copies[path] = file.path
                break
    return copies


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
    tree_files: EditedFiles, edits: IsoEdits, *, quick: bool = False
) -> Iterator[tuple[str, tuple[bytes, ...], tuple[bytes, ...], int, PieceTable]]:
    """Yield name, paths, aliases, offset and bytes of what may be a FAT file system; ``quick``: only likely files."""
    image, seen = tree_files.image, set[int]()
    boot_paths = {boot.path for boot in image.boot_images}
    aliases: dict[int, list[bytes]] = defaultdict(list)
    for area in list_areas(image):
        aliases[area.start].append(area.alias)
    files, area_blocks = tree_files.files, {Lba(start // BLOCK) for start in aliases if start % BLOCK == 0}
    certain = {path for path in boot_paths if path is not None and path in files}
    for file in image.trees[0].find_files_at(area_blocks):
        if files.get(file.path) == file:
            certain.add(file.path)
    candidates = sorted(certain.union([path for path in tree_files.text.find_ending(*_FAT_NAMES) if path in files]))
    if quick:
        candidates = _choose_likely(image, tree_files, candidates, certain)
    for path in candidates:
        if tree_files.size_of(path) < _MIN_FAT or not tree_files.is_plain(path):
            continue
        names, start = tree_files.names_of(path), lba_offset(files[path].start)
        if path != names[0]:
            continue
        seen.add(start)
        yield printable(path), names, tuple(aliases[start]), 0, tree_files.bytes_of(path)
    for area in list_areas(image):
        if area.start not in seen:
            seen.add(area.start)
            table = edits.areas.get(area.start) or area.cut_from(image)
            yield area.name, (), tuple(aliases[area.start]), area.start, table


def _choose_likely(
    image: IsoImage, tree_files: EditedFiles, paths: list[bytes], certain: set[bytes]
) -> list[bytes]:  # fmt: skip
    """Return those of ``paths`` that are likely FAT file systems; the others are warned of."""
    candidates = []
    for path in paths:
        size = tree_files.size_of(path)
        is_likely = path.lower().endswith(_FAT_IMAGE_NAMES) and not size % SECTOR
        if size >= _MIN_FAT and (path == tree_files.names_of(path)[0] or path in certain):
            candidates.append(Candidate(path, size, is_likely))
    chosen = choose_candidates(candidates, certain, _MOST_FAR)
    if len(chosen) < len(candidates):
        warn_of_unread(image, len(candidates) - len(chosen), "FAT file systems")
    return sorted(chosen)


class FatArea(Struct, frozen=True):
    """An area of the image that may hold a FAT file system and need not be a file.

    ``name``: its name for people; ``alias``: its address, as in ``@gpt2``; ``start`` and ``size``: bytes, the size 0
    where only the file system itself says it.
    """

    name: str
    alias: bytes
    start: int
    size: int

    def cut_from(self, image: IsoImage) -> PieceTable:
        """Return its bytes in ``image``."""
        end = min(self.start + self.size, image.size) if self.size else image.size
        return PieceTable([image.source.cut(min(self.start, end), end)])


def list_areas(image: IsoImage) -> Iterator[FatArea]:
    """Yield the partitions that do not cover the volume, and the boot images without a name."""
    for partition in image.partitions:
        if not (partition.is_filler or partition.covers_volume(image.trees)):
            alias = f"@{partition.table.lower()}{partition.number}".encode()
            size = (partition.end - partition.start) * SECTOR
            yield FatArea(partition.name, alias, partition.start * SECTOR, size)
    for number, boot in enumerate(image.boot_images, 1):
        if boot.path is None:
            yield FatArea(f"El Torito entry {number}", b"@eltorito%d" % number, lba_offset(boot.entry.lba), 0)
