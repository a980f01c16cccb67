"""Find every boot menu of an image: on the ISO's tree, and in the FAT file systems on the image."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from cosremaster.boot_config.menus.find import MAX_MENU, find_menus
from cosremaster.boot_config.menus.model import Menu
from cosremaster.errors import CosremasterError, printable
from cosremaster.iso.edited_files import EditedFiles
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.fats import LocatedFat, find_fats
from cosremaster.iso.model import IsoImage


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
    edits = edits or IsoEdits()
    menus = list(_menus_on_tree(EditedFiles(image, edits)))
    found = find_fats(image, edits)
    warnings = [_unread_warning(name, error) for name, error in found.unreadable]
    for fat in found.fats:
        small = [path for path, file in fat.files.items() if 0 < file.size <= MAX_MENU]
        try:
            fat_menus = find_menus(small, lambda path, fat=fat: fat.fat.read_file(fat.files[path]))  # type: ignore[misc]
        except CosremasterError as error:
            warnings.append(_unread_warning(fat.name, error))
            continue
        menus += [LocatedMenu(path=path, fat=fat, names=(), menu=menu) for path, menu in fat_menus.items()]
    return BootMenus(tuple(menus), found.fats, tuple(warnings))


def _unread_warning(name: str, error: CosremasterError) -> str:
    """Return the warning for a FAT file system that cannot be read."""
    return f"{name}: boot menus in it, if there are any, stay as they are: {error}"


def _menus_on_tree(tree_files: EditedFiles) -> Iterator[LocatedMenu]:
    """Yield the menus on the ISO's tree."""
    paths = dict.fromkeys((*tree_files.files, *tree_files.added))
    small = [path for path in paths if 0 < tree_files.size_of(path) <= MAX_MENU and tree_files.is_plain(path)]
    menus = find_menus(small, lambda path: tree_files.bytes_of(path).read(0, MAX_MENU))
    for path, menu in menus.items():
        yield LocatedMenu(path=path, fat=None, names=tree_files.names_of(path), menu=menu)
