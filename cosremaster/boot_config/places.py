"""Every boot menu of an image: on its own tree, and in the FAT file systems on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from cosremaster.boot.fat import Fat, FatFile, parse_bpb
from cosremaster.boot_config.menus.find import MAX_MENU, find_menus
from cosremaster.boot_config.menus.model import Menu
from cosremaster.errors import CosremasterError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.layout.extents import covers_volume
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.units import SECTOR, lba_offset

_FAT_NAMES = (b".img", b".efi", b".fat", b".bin", b".ima")
_LEAST = 1 << 14


class LocatedFat(Struct, frozen=True, kw_only=True):
    """A FAT file system. ``name``: for people; ``paths``: the file it is on the ISO's tree, by all its names, empty
    where it is none; ``offset``: the byte at which it then begins; ``table``: its bytes."""

    name: str
    paths: tuple[bytes, ...]
    offset: int
    table: PieceTable
    fat: Fat
    files: Mapping[bytes, FatFile]


class LocatedMenu(Struct, frozen=True, kw_only=True):
    """A menu. ``path``: in its file system; ``fat``: that, None for the ISO's tree; ``names``: all names of its file on
    the ISO's tree, where it is one."""

    path: bytes
    fat: LocatedFat | None
    names: tuple[bytes, ...]
    menu: Menu

    @property
    def label(self) -> str:
        """For people: the path, with the FAT image before it."""
        return printable(self.path) if self.fat is None else f"{self.fat.name} » {printable(self.path)}"


class BootMenus(Struct, frozen=True):
    """The menus of an image, those of its tree first; the FAT file systems on it; and what could not be looked into."""

    menus: tuple[LocatedMenu, ...]
    fats: tuple[LocatedFat, ...]
    warnings: tuple[str, ...]


def bytes_at(table: PieceTable, offset: int, length: int) -> bytes:
    """``length`` bytes of ``table`` from ``offset``, fewer where it ends."""
    start = min(offset, table.length)
    return b"".join(table.cut(start, min(start + length, table.length)).chunks())


def find_boot_menus(image: IsoImage, edits: IsoEdits | None = None) -> BootMenus:
    """The menus of ``image`` after ``edits`` of its tree; old files by their old paths. A FAT file system that comes is
    not looked into."""
    tables = _Tables(image, edits or IsoEdits())
    menus, warnings = list(_on_tree(tables)), list[str]()
    fats = tuple(_fats(tables, warnings))
    for fat in fats:
        small = [path for path, file in fat.files.items() if 0 < file.size <= MAX_MENU]
        try:
            found = find_menus(small, lambda path, fat=fat: fat.fat.read_file(fat.files[path]))  # type: ignore[misc]
        except CosremasterError as error:
            warnings.append(_not_looked_into(fat.name, error))
            continue
        menus += [LocatedMenu(path=path, fat=fat, names=(), menu=menu) for path, menu in found.items()]
    return BootMenus(tuple(menus), fats, tuple(warnings))


def _not_looked_into(name: str, error: CosremasterError) -> str:
    return f"{name}: boot menus in it, if there are any, stay as they are: {error}"


class _Tables:
    """The bytes of the files on the tree, and which names share them."""

    def __init__(self, image: IsoImage, edits: IsoEdits) -> None:
        self.image, self._exchanged = image, edits.replaced
        self.files: dict[bytes, IsoFile] = {
            file.path: file for file in image.files if file.is_regular and edits.new_path(file.path) is not None
        }
        self.new = {node.path: node.content.table() for node in edits.added if node.content is not None}
        self._sharing: dict[object, list[bytes]] = {}
        for path in self.files:
            self._sharing.setdefault(self._key(path), []).append(path)

    def _key(self, path: bytes) -> object:
        file = self.files[path]
        if path in self._exchanged:
            return id(self._exchanged[path])
        return (file.records[0].lba, file.size) if file.size else path

    def size(self, path: bytes) -> int:
        """Bytes."""
        found = self._other(path)
        return self.files[path].size if found is None else found.length

    def names(self, path: bytes) -> tuple[bytes, ...]:
        """All paths that share the bytes of ``path``."""
        return (path,) if path in self.new else tuple(self._sharing[self._key(path)])

    def table(self, path: bytes) -> PieceTable:
        """The bytes of the file."""
        found = self._other(path)
        return self.image.bytes_of(self.files[path]) if found is None else found

    def plain(self, path: bytes) -> bool:
        """The file holds what it seems to: zisofs does not pack it."""
        return self._other(path) is not None or not self.files[path].zisofs_offset

    def _other(self, path: bytes) -> PieceTable | None:
        """The bytes of a file that comes, or that is exchanged."""
        return self.new.get(path) or self._exchanged.get(path)


def _on_tree(tables: _Tables) -> Iterator[LocatedMenu]:
    paths = dict.fromkeys((*tables.files, *tables.new))
    small = [path for path in paths if 0 < tables.size(path) <= MAX_MENU and tables.plain(path)]
    found = find_menus(small, lambda path: bytes_at(tables.table(path), 0, MAX_MENU))
    for path, menu in found.items():
        yield LocatedMenu(path=path, fat=None, names=tables.names(path), menu=menu)


def _fats(tables: _Tables, warnings: list[str]) -> Iterator[LocatedFat]:
    """FAT file systems: files of the tree, partitions, boot images without a name; each place once."""
    image, seen = tables.image, set[int]()
    booted = {boot.path for boot in image.boot_images}
    starts = {start for _, start, _ in _nameless(image)}
    for path in sorted(tables.files):
        names = tables.names(path)
        start = lba_offset(tables.files[path].records[0].lba)
        wanted = path.lower().endswith(_FAT_NAMES) or path in booted or start in starts
        if not wanted or path != names[0] or tables.size(path) < _LEAST or not tables.plain(path):
            continue
        seen.add(start)
        yield from _fat(printable(path), names, 0, tables.table(path), image, warnings)
    for name, start, size in _nameless(image):
        if start not in seen:
            seen.add(start)
            end = min(start + size, image.size) if size else image.size
            yield from _fat(name, (), start, PieceTable([image.source.cut(min(start, end), end)]), image, warnings)


def _nameless(image: IsoImage) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and bytes of what may hold a FAT; 0 bytes where only the FAT itself can tell."""
    for one in image.partitions:
        if not (one.is_filler or covers_volume(one, image.trees)):
            yield one.name, one.start * SECTOR, (one.end - one.start) * SECTOR
    for number, boot in enumerate(image.boot_images, 1):
        if boot.path is None:
            yield f"El Torito entry {number}", lba_offset(boot.entry.lba), 0


def _fat(
    name: str, paths: tuple[bytes, ...], offset: int, table: PieceTable, image: IsoImage, warnings: list[str]
) -> Iterator[LocatedFat]:
    geometry = parse_bpb(bytes_at(table, 0, SECTOR))
    if geometry is None:
        return
    place = image.place.inside(name)
    fat = Fat(geometry, lambda at, length: bytes_at(table, at, length), table.length, place)
    try:
        files = {file.path: file for file in fat.walk() if not file.is_directory}
    except CosremasterError as error:
        warnings.append(_not_looked_into(name, error))
        return
    yield LocatedFat(name=name, paths=paths, offset=offset, table=table, fat=fat, files=files)
