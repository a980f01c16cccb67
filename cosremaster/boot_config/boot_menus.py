"""Find every boot menu of an image: on the ISO's tree, and in the FAT file systems on the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from cosremaster.boot.fat import Fat, FatFile, parse_bpb
from cosremaster.boot_config.menus.find import MAX_MENU, find_menus
from cosremaster.boot_config.menus.model import Menu
from cosremaster.errors import CosremasterError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.units import SECTOR, lba_offset

_FAT_NAMES = (b".img", b".efi", b".fat", b".bin", b".ima")
_MIN_FAT = 1 << 14
"""Bytes; a smaller file on the tree is not taken for a FAT file system."""


class LocatedFat(Struct, frozen=True, kw_only=True):
    """A FAT file system on the image.

    :param name: its name for people.
    :param paths: all paths of the file on the ISO's tree that it is; empty where it is no file.
    :param offset: its first byte in the image, where it is no file.
    :param table: its bytes.
    :param files: path in the file system -> file.
    """

    name: str
    paths: tuple[bytes, ...]
    offset: int
    table: PieceTable
    fat: Fat
    files: Mapping[bytes, FatFile]


class LocatedMenu(Struct, frozen=True, kw_only=True):
    """A boot menu and its place.

    :param path: its path in its file system.
    :param fat: the FAT file system that it is in; None for the ISO's tree.
    :param names: all paths of its file on the ISO's tree; empty for a menu in a FAT.
    """

    path: bytes
    fat: LocatedFat | None
    names: tuple[bytes, ...]
    menu: Menu

    @property
    def label(self) -> str:
        """The path for people, with the FAT image in front of it."""
        return printable(self.path) if self.fat is None else f"{self.fat.name} » {printable(self.path)}"


class BootMenus(Struct, frozen=True):
    """The boot menus of an image (those of its tree first), its FAT file systems, and warnings of unreadable ones."""

    menus: tuple[LocatedMenu, ...]
    fats: tuple[LocatedFat, ...]
    warnings: tuple[str, ...]


def find_boot_menus(image: IsoImage, edits: IsoEdits | None = None) -> BootMenus:
    """Find the boot menus of ``image`` after ``edits`` of its tree.

    Files of the old tree are given by their old paths. FAT file systems in added files are not searched.
    """
    tree_files = _TreeFiles(image, edits or IsoEdits())
    menus, warnings = list(_menus_on_tree(tree_files)), list[str]()
    fats = tuple(_find_fats(tree_files, warnings))
    for fat in fats:
        small = [path for path, file in fat.files.items() if 0 < file.size <= MAX_MENU]
        try:
            fat_menus = find_menus(small, lambda path, fat=fat: fat.fat.read_file(fat.files[path]))  # type: ignore[misc]
        except CosremasterError as error:
            warnings.append(_unread_warning(fat.name, error))
            continue
        menus += [LocatedMenu(path=path, fat=fat, names=(), menu=menu) for path, menu in fat_menus.items()]
    return BootMenus(tuple(menus), fats, tuple(warnings))


def _unread_warning(name: str, error: CosremasterError) -> str:
    """Return the warning for a FAT file system that cannot be read."""
    return f"{name}: boot menus in it, if there are any, stay as they are: {error}"


class _TreeFiles:
    """The files on the edited tree: their bytes, and which paths share them."""

    def __init__(self, image: IsoImage, edits: IsoEdits) -> None:
        """Index the files of ``image`` that ``edits`` keep, and those that they add."""
        self.image, self._replaced = image, edits.replaced
        self.files: dict[bytes, IsoFile] = {
            file.path: file for file in image.files if file.is_regular and edits.new_path(file.path) is not None
        }
        self.added = {node.path: node.content.table() for node in edits.added if node.content is not None}
        self._sharing: dict[object, list[bytes]] = {}
        for path in self.files:
            self._sharing.setdefault(self._content_key(path), []).append(path)

    def _content_key(self, path: bytes) -> object:
        """Return a key that paths with the same bytes share."""
        file = self.files[path]
        if path in self._replaced:
            return id(self._replaced[path])
        return (file.records[0].lba, file.size) if file.size else path

    def _new_bytes(self, path: bytes) -> PieceTable | None:
        """Return the bytes of an added or replaced file; None for a file that is unchanged."""
        return self.added.get(path) or self._replaced.get(path)

    def size_of(self, path: bytes) -> int:
        """Return the bytes of the file."""
        table = self._new_bytes(path)
        return self.files[path].size if table is None else table.length

    def names_of(self, path: bytes) -> tuple[bytes, ...]:
        """Return all paths that share the bytes of ``path``."""
        return (path,) if path in self.added else tuple(self._sharing[self._content_key(path)])

    def bytes_of(self, path: bytes) -> PieceTable:
        """Return the contents of the file."""
        table = self._new_bytes(path)
        return self.image.bytes_of(self.files[path]) if table is None else table

    def is_plain(self, path: bytes) -> bool:
        """Return True if zisofs does not compress the file."""
        return self._new_bytes(path) is not None or not self.files[path].zisofs_offset


def _menus_on_tree(tree_files: _TreeFiles) -> Iterator[LocatedMenu]:
    """Yield the menus on the ISO's tree."""
    paths = dict.fromkeys((*tree_files.files, *tree_files.added))
    small = [path for path in paths if 0 < tree_files.size_of(path) <= MAX_MENU and tree_files.is_plain(path)]
    menus = find_menus(small, lambda path: tree_files.bytes_of(path).read(0, MAX_MENU))
    for path, menu in menus.items():
        yield LocatedMenu(path=path, fat=None, names=tree_files.names_of(path), menu=menu)


def _find_fats(tree_files: _TreeFiles, warnings: list[str]) -> Iterator[LocatedFat]:
    """Yield the FAT file systems in files of the tree, partitions and boot images without a path; each block once."""
    image, seen = tree_files.image, set[int]()
    boot_paths = {boot.path for boot in image.boot_images}
    starts = {start for _, start, _ in _unnamed_areas(image)}
    for path in sorted(tree_files.files):
        names = tree_files.names_of(path)
        start = lba_offset(tree_files.files[path].records[0].lba)
        may_be_fat = path.lower().endswith(_FAT_NAMES) or path in boot_paths or start in starts
        if not may_be_fat or path != names[0] or tree_files.size_of(path) < _MIN_FAT or not tree_files.is_plain(path):
            continue
        seen.add(start)
        yield from _read_fat(printable(path), names, 0, tree_files.bytes_of(path), image, warnings)
    for name, start, size in _unnamed_areas(image):
        if start not in seen:
            seen.add(start)
            end = min(start + size, image.size) if size else image.size
            table = PieceTable([image.source.cut(min(start, end), end)])
            yield from _read_fat(name, (), start, table, image, warnings)


def _unnamed_areas(image: IsoImage) -> Iterator[tuple[str, int, int]]:
    """Yield label, first byte and bytes of areas that may hold a FAT; 0 bytes where only the FAT tells its size."""
    for partition in image.partitions:
        if not (partition.is_filler or partition.covers_volume(image.trees)):
            yield partition.name, partition.start * SECTOR, (partition.end - partition.start) * SECTOR
    for number, boot in enumerate(image.boot_images, 1):
        if boot.path is None:
            yield f"El Torito entry {number}", lba_offset(boot.entry.lba), 0


def _read_fat(
    name: str, paths: tuple[bytes, ...], offset: int, table: PieceTable, image: IsoImage, warnings: list[str]
) -> Iterator[LocatedFat]:
    """Yield the FAT file system in ``table`` if there is one; append a warning if its files cannot be listed."""
    geometry = parse_bpb(table.read(0, SECTOR))
    if geometry is None:
        return
    place = image.place.inside(name)
    fat = Fat(geometry, table.read, table.length, place)
    try:
        files = {file.path: file for file in fat.walk() if not file.is_directory}
    except CosremasterError as error:
        warnings.append(_unread_warning(name, error))
        return
    yield LocatedFat(name=name, paths=paths, offset=offset, table=table, fat=fat, files=files)
