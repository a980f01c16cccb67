"""Boot menus that name files which are no longer there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosremaster.boot_config.places import LocatedMenu, find_boot_menus
from cosremaster.errors import printable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.tree.paths import join, parent_of

_WORD = re.compile(rb"[^\s\"'=,;]+")
_DEVICE = re.compile(rb"\([^)]*\)")
"""GRUB's name of a device, before a path."""


def find_stale_names(image: IsoImage, edits: IsoEdits) -> Iterator[str]:
    """A sentence for each file that ``edits`` remove or rename and a menu names, at the first place where it does."""
    fold = (lambda path: path) if image.has_rock_ridge else bytes.lower
    now = {file.path: edits.new_path(file.path) for file in image.files}
    there = {fold(path) for path in (*edits.added_by_path, *(path for path in now.values() if path is not None))}
    left = {fold(old): new for old, new in now.items() if new != old and fold(old) not in there}
    for place in find_boot_menus(image, edits).menus if left else ():
        for number, name in _named(place):
            for path in (fold(name), fold(join(parent_of(place.path), name))):
                if path in left:
                    new = left.pop(path)
                    told = "is no longer there" if new is None else f"is {printable(new)} now"
                    yield f"the boot menu {place.label} names {printable(path)} in line {number}, which {told}"


def _named(place: LocatedMenu) -> Iterator[tuple[int, bytes]]:
    """What could be paths in a menu, without their leading slash, each with its line's number."""
    for number, line in enumerate(place.menu.data.splitlines(), 1):
        if not line.lstrip().startswith(b"#"):
            for word in _WORD.findall(line):
                yield number, _DEVICE.sub(b"", word).lstrip(b"/")
