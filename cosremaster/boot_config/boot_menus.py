"""Find every boot menu of an image: on the ISO's tree, and in the FAT file systems on the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.boot_config.embed_areas import DESCRIPTIONS, find_header_areas, join_areas, parse_description
from cosremaster.boot_config.menus.find import MAX_MENU, find_menus
from cosremaster.boot_config.menus.karg_areas import KargArea, parse_karg_area
from cosremaster.boot_config.menus.model import Menu
from cosremaster.errors import CosremasterError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.edited_files import EditedFiles
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.fats import LocatedFat, find_fats_among
from cosremaster.iso.model import IsoImage
from cosremaster.iso.path_text import PathText
from cosremaster.records import Struct, replace


class LocatedMenu(Struct, frozen=True, kw_only=True):
    """A boot menu and its place.

    :param path: its path in its file system.
    :param fat: the FAT file system that it is in; None for the ISO's tree.
    :param names: all paths of its file on the ISO's tree; empty for a menu in a FAT.
    :param areas: areas of fixed size in it, which coreos-installer writes kernel arguments to.
    :param part: the menu is this area of the file ``table`` alone; None for a whole file.
    """

    path: bytes
    fat: LocatedFat | None
    names: tuple[bytes, ...]
    menu: Menu
    areas: tuple[KargArea, ...] = ()
    part: KargArea | None = None
    table: PieceTable | None = None

    @property
    def label(self) -> str:
        """The path for people, with the FAT image in front of it."""
        return printable(self.path) if self.fat is None else f"{self.fat.name} » {printable(self.path)}"


class AreaDescription(Struct, frozen=True):
    """A coreos/kargs.json: all its paths on the ISO's tree, and its bytes."""

    names: tuple[bytes, ...]
    data: bytes


class BootMenus(Struct, frozen=True):
    """The boot menus of an image (those of its tree first), its FAT file systems, and warnings of unreadable ones.

    ``description``: the file that describes areas for kernel arguments; None where there is none.
    """

    menus: tuple[LocatedMenu, ...]
    fats: tuple[LocatedFat, ...]
    warnings: tuple[str, ...]
    description: AreaDescription | None = None


def find_boot_menus(image: IsoImage, edits: IsoEdits | None = None, *, quick: bool = False) -> BootMenus:
    """Find the boot menus of ``image`` after ``edits`` of its tree.

    Files of the old tree are given by their old paths. FAT file systems in added files are not searched. ``quick``: of
    an image on another machine only what is likely such a file system.
    """
    edits = edits or IsoEdits()
    tree_files = EditedFiles(image, edits)
    menus, search = list(_menus_on_tree(tree_files)), find_fats_among(tree_files, edits, quick=quick)
    warnings = [_unread_warning(name, error) for name, error in search.unreadable]
    description, areas = _find_areas(tree_files, warnings)
    menus = list(_with_areas(tree_files, menus, areas, warnings)) if areas else menus
    for fat in search.fats:
        small = [path for path, file in fat.files.items() if 0 < file.size <= MAX_MENU]
        try:
            fat_menus = find_menus(PathText(small), lambda path, fat=fat: fat.fat.read_file(fat.files[path]))  # type: ignore[misc]
        except CosremasterError as error:
            warnings.append(_unread_warning(fat.name, error))
            continue
        menus += [LocatedMenu(path=path, fat=fat, names=(), menu=menu) for path, menu in fat_menus.items()]
    return BootMenus(tuple(menus), search.fats, tuple(warnings), description)


def _unread_warning(name: str, error: CosremasterError) -> str:
    """Return the warning for a FAT file system that cannot be read."""
    return f"{name}: boot menus in it, if there are any, stay as they are: {error}"


def _menus_on_tree(tree_files: EditedFiles) -> Iterator[LocatedMenu]:
    """Yield the menus on the ISO's tree."""

    def is_small(path: bytes) -> bool:
        """Return whether the file at ``path`` may be a menu by its size, and is not compressed."""
        return 0 < tree_files.size_of(path) <= MAX_MENU and tree_files.is_plain(path)

    menus = find_menus(tree_files.text, lambda path: tree_files.bytes_of(path).read(0, MAX_MENU), is_small)
    for path, menu in menus.items():
        yield LocatedMenu(path=path, fat=None, names=tree_files.names_of(path), menu=menu)


def _find_areas(tree_files: EditedFiles, warnings: list[str]) -> tuple[AreaDescription | None, tuple[KargArea, ...]]:
    """Return the file that describes areas for kernel arguments, and the areas, with paths as the tree spells them."""
    pinned = tuple(find_header_areas(tree_files.image.embed_areas, tree_files.files))
    spelled = (tree_files.text.find_last(name) for name in DESCRIPTIONS)
    path = next((path for path in spelled if path is not None), None)
    if path is None or tree_files.size_of(path) > MAX_MENU:
        return None, pinned
    data = tree_files.bytes_of(path).read(0, MAX_MENU)
    described = parse_description(data)
    if described is None:
        warnings.append(f"{printable(path)}: cannot be read, so the areas that it describes are not kept true")
        return None, pinned
    paths = [(area, tree_files.text.find_last(area.path)) for area in described]
    known = tuple(replace(area, path=path) for area, path in paths if path is not None)
    return AreaDescription(tree_files.names_of(path), data), join_areas(known, pinned)


def _with_areas(
    tree_files: EditedFiles, menus: Iterable[LocatedMenu], areas: Iterable[KargArea], warnings: list[str]
) -> Iterator[LocatedMenu]:
    """Yield ``menus`` with the ``areas`` in them, and a menu for each area that is in none."""
    waiting = [area for area in areas if _is_there(tree_files, area, warnings)]
    for located in menus:
        own = tuple(area for area in waiting if area.path in located.names)
        waiting = [area for area in waiting if area not in own]
        yield replace(located, areas=own)
    for area in waiting:
        table, names = tree_files.bytes_of(area.path), tree_files.names_of(area.path)
        menu = parse_karg_area(table.read(area.offset, area.size), area)
        part = replace(area, offset=0)
        yield LocatedMenu(
            path=area.path, fat=None, names=names, menu=menu, areas=(part,), part=area, table=table
        )  # fmt: skip


def _is_there(tree_files: EditedFiles, area: KargArea, warnings: list[str]) -> bool:
    """Return True if the file of ``area`` has such an area; append a warning if it has none."""
    table = tree_files.bytes_of(area.path)
    if area.behind <= table.length and replace(area, offset=0).fits(table.read(area.offset, area.size)):
        return True
    warnings.append(
        f"{printable(area.path)}: has no area for {area.size:,} bytes of kernel arguments at byte {area.offset:,},"
        " though the image says so"
    )
    return False
