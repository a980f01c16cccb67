"""The entries of boot menus, as far as they say what becomes the root file system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cosremaster.boot_config.boot_menus import LocatedMenu, find_boot_menus
from cosremaster.boot_config.menus.entries import MenuEntry, read_default_names, read_entries
from cosremaster.boot_config.menus.find import resolve_path
from cosremaster.boot_config.menus.model import MenuLanguage
from cosremaster.errors import printable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import SourceImage
from cosremaster.layers.boot_facts import BootLine
from cosremaster.records.tuples import NamedTuple

SYSLINUX_HOMES = (b"isolinux", b"boot/isolinux", b"syslinux", b"boot/syslinux", b"")
"""Where SYSLINUX may have been started: names in files that it includes count from there."""
ENTRY_LANGUAGES = (MenuLanguage.GRUB, MenuLanguage.SYSLINUX, MenuLanguage.LOADER_ENTRY)
"""The languages whose entries can be read."""


class LocatedEntry(NamedTuple):
    """An entry of a boot menu. ``is_named``: a menu that may include its menu starts its label by itself."""

    located: LocatedMenu
    entry: MenuEntry
    is_named: bool

    @property
    def title(self) -> str:
        """The entry in words."""
        names = ", ".join(map(printable, dict.fromkeys(self.entry.names))) or "without a name"
        return f"{names} ({self.located.label})"


def list_entries(menus: Iterable[LocatedMenu]) -> Iterator[LocatedEntry]:
    """Yield the entries of ``menus``, those of GRUB's menu first, then SYSLINUX's."""
    readable = [located for located in menus if located.part is None and located.menu.language in ENTRY_LANGUAGES]
    defaults = frozenset(name for located in readable for name in read_default_names(located.menu))
    for located in sorted(readable, key=_rank):
        for entry in read_entries(located.menu):
            yield LocatedEntry(located, entry, bool(defaults & {*entry.names}))


def _rank(located: LocatedMenu) -> tuple[object, ...]:
    """Return a key that sorts menus: those of the tree first, GRUB's, SYSLINUX's, loader entries."""
    is_main = located.path.lower().endswith((b"boot/grub/grub.cfg", b"isolinux.cfg", b"syslinux.cfg"))
    return located.fat is not None, ENTRY_LANGUAGES.index(located.menu.language), not is_main, located.path


def choose_default(entries: Sequence[LocatedEntry]) -> LocatedEntry:
    """Return the entry of the first menu that starts by itself, else its first."""
    language = entries[0].located.menu.language
    first = [entry for entry in entries if entry.located.menu.language is language]
    return next(
        (entry for entry in first if entry.entry.is_default),
        next((entry for entry in first if entry.is_named), first[0]),
    )


def list_paths(located: LocatedMenu, path: bytes) -> Iterator[bytes]:
    """Yield the paths on the image that ``path`` in the menu ``located`` may mean."""
    homes = dict.fromkeys((located.path.rpartition(b"/")[0], *SYSLINUX_HOMES))
    return filter(None, (resolve_path(path, home) for home in homes))


def list_loaded_files(menus: Iterable[LocatedMenu], image: SourceImage) -> set[bytes]:
    """Return the paths of the files of ``image`` that entries of ``menus`` load."""
    folded = _fold_paths(image, IsoEdits())
    meant = (
        folded.get(path.lower())
        for entry in list_entries(menus)
        for file in entry.entry.files
        for path in list_paths(entry.located, file.path)
    )
    return {path for path in meant if path is not None}


def read_boot_lines(image: SourceImage, edits: IsoEdits | None = None) -> tuple[BootLine, ...]:
    """Return what the entries of boot menus say of the root, the one that starts by itself first.

    ``edits``: of the tree of ``image``, after which they are read.
    """
    if image.volume is None:
        return ()
    entries = list(list_entries(find_boot_menus(image.volume, edits, quick=True).menus))
    if not entries:
        return ()
    default = choose_default(entries)
    folded = _fold_paths(image, edits or IsoEdits())
    others = (entry for entry in entries if entry is not default)
    return tuple(_boot_line(entry, folded) for entry in (default, *others))


def _fold_paths(image: SourceImage, edits: IsoEdits) -> dict[bytes, bytes]:
    """Return the paths of files by the lower case of those after ``edits``: the old ones, and those of added files."""
    paths = image.volume.trees[0].file_paths if image.volume else [file.path for file in image.files]
    if not edits.changes_names:
        return {path.lower(): path for path in paths}
    folded = {new.lower(): path for path in paths if (new := edits.new_path(path)) is not None}
    return folded | {node.path.lower(): node.path for node in edits.added if node.content is not None}


def _boot_line(entry: LocatedEntry, folded: dict[bytes, bytes]) -> BootLine:
    """Return what ``entry`` says of the root; ``folded``: the image's paths by their lower case."""
    kernel = entry.entry.files[min(1, len(entry.entry.files) - 1) if entry.entry.is_multiboot else 0]
    paths = []
    for file in entry.entry.files:
        spelled = (folded.get(path.lower()) for path in list_paths(entry.located, file.path))
        paths.append(next((path for path in spelled if path is not None), b""))
    places = list(zip(entry.entry.files, paths, strict=True))
    initrds = [path for file, path in places if file is not kernel]
    return BootLine(
        title=entry.title, kernel=next(path for file, path in places if file is kernel), arguments=kernel.arguments,
        initrds=tuple(filter(None, initrds)), lacks_initrd=not all(initrds),
    )  # fmt: skip
