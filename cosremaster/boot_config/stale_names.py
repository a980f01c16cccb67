"""Find boot menus that name files which an edit removes or renames."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot_config.boot_menus import LocatedMenu, find_boot_menus
from cosremaster.errors import printable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.lazy_regex import lazy_regex
from cosremaster.tree.paths import join, parent_of

_WORD = lazy_regex(rb"[^\s\"'=,;]+")
_DEVICE = lazy_regex(rb"\([^)]*\)")
"""GRUB's name of a device, in front of a path."""


def find_stale_names(image: IsoImage, edits: IsoEdits) -> Iterator[str]:
    """Yield a warning for each file that ``edits`` remove or rename, and that a menu names; only the first place."""
    fold = (lambda path: path) if image.has_rock_ridge else bytes.lower
    tree = image.trees[0]
    new_paths = {file.path: edits.new_path(file.path) for file in tree.find_files_in(edits.may_change_in)}
    present = {
        fold(path) for path in (*edits.added_by_path, *(path for path in new_paths.values() if path is not None))
    }
    if not image.has_rock_ridge:  # others may have the same letters
        present.update(fold(path) for path in tree.file_paths if path not in new_paths)
    moved = {fold(old): new for old, new in new_paths.items() if new != old and fold(old) not in present}
    for located in find_boot_menus(image, edits).menus if moved else ():
        for number, name in _possible_paths(located):
            for path in (fold(name), fold(join(parent_of(located.path), name))):
                if path in moved:
                    new = moved.pop(path)
                    fate = "is no longer there" if new is None else f"is {printable(new)} now"
                    yield f"the boot menu {located.label} names {printable(path)} in line {number}, which {fate}"


def _possible_paths(located: LocatedMenu) -> Iterator[tuple[int, bytes]]:
    """Yield the line number and text, without leading slashes, of each word in a menu that could be a path."""
    for number, line in enumerate(located.menu.data.splitlines(), 1):
        if not line.lstrip().startswith(b"#"):
            for word in _WORD.findall(line):
                yield number, _DEVICE.sub(b"", word).lstrip(b"/")
