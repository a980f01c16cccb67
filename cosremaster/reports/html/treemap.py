"""A tree of sizes as rectangles whose areas are those sizes. Pure: files in, boxes out.

The layout is the squarified treemap (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct, field

from cosremaster.tree.paths import join

WIDTH, HEIGHT = 1000.0, 640.0
_SMALLEST = 320.0
"""The area of a box that can still be read; what is smaller stands together as one."""
_HEAD = 17.0
_DOMINANT = 0.6
"""A folder that takes more of its surroundings gives no hue to what is in it: its parts have their own."""
_OPENED = (70.0, 58.0)
"""A folder of less width or height is one box."""


class Weight(NamedTuple):
    """A file's path and bytes; ``link`` is equal for names of one file, None for a file with one name."""

    path: bytes
    size: int
    link: object = None


class Folder(Struct):
    """Bytes and files below a directory; a hard-linked file counts where it is met first.

    ``files``: size and whether it changed, by name. ``changed``: how many changed paths are below.
    """

    size: int = 0
    count: int = 0
    changed: int = 0
    folders: dict[bytes, Folder] = field(default_factory=dict)
    files: dict[bytes, tuple[int, bool]] = field(default_factory=dict)


def grow(files: Iterable[Weight], changed: Collection[bytes] = ()) -> Folder:
    """The tree of sizes of ``files``; ``changed``: paths that are to stand out."""
    top, linked = Folder(), set[object]()
    for path, size, link in files:
        if link is not None and link in linked:
            continue
        linked.add(link)
        *parents, name = path.split(b"/")
        new = path in changed
        folder = top
        for part in (None, *parents):
            folder = folder if part is None else folder.folders.setdefault(part, Folder())
            folder.size += size
            folder.count += 1
            folder.changed += new
        folder.files[name] = (size, new)
    return top


class Box(Struct, frozen=True):
    """A rectangle in a plane of :data:`WIDTH` by :data:`HEIGHT`.

    ``opened``: a folder whose parts are boxes of their own over it. ``count``: files in it; ``others``: it stands for
    what is too small in the folder ``path``. ``hue``: a number that what is in
    one folder shares.
    """

    left: float
    top: float
    width: float
    height: float
    path: bytes
    size: int
    count: int
    hue: int
    opened: bool = False
    folder: bool = False
    others: bool = False
    changed: bool = False


class _Part(Struct, frozen=True):
    path: bytes
    size: int
    count: int
    changed: bool
    folder: Folder | None = None
    others: bool = False


Rectangle = tuple[float, float, float, float]


def boxes(top: Folder) -> Iterator[Box]:
    """The map of ``top``: folders before what is in them, the large before the small."""
    yield from _inside(b"", top, (0.0, 0.0, WIDTH, HEIGHT), None)


def _inside(path: bytes, folder: Folder, place: Rectangle, hue: int | None) -> Iterator[Box]:
    """The boxes of what is in ``folder``; each part gets a hue of its own where ``hue`` is None."""
    for number, (part, spot) in enumerate(_placed(path, folder, place)):
        dominant = hue is None and part.size > _DOMINANT * folder.size
        yield from _boxes(part, spot, number if hue is None else hue, dominant)


def _boxes(part: _Part, place: Rectangle, hue: int, dominant: bool) -> Iterator[Box]:
    left, top, width, height = place
    folder = part.folder
    opened = folder is not None and width >= _OPENED[0] and height >= _OPENED[1]
    yield Box(
        left, top, width, height, part.path, part.size, part.count, hue, opened=opened,
        folder=folder is not None, others=part.others, changed=part.changed and not opened,
    )  # fmt: skip
    if folder is not None and opened:
        inner = (left + 2, top + _HEAD, width - 4, height - _HEAD - 2)
        yield from _inside(part.path, folder, inner, None if dominant else hue)


def _placed(path: bytes, folder: Folder, place: Rectangle) -> list[tuple[_Part, Rectangle]]:
    """The parts of ``folder`` with the place of each in ``place``."""
    parts = _parts(path, folder, place[2] * place[3])
    return list(zip(parts, squarified([part.size for part in parts], place), strict=True))


def _parts(path: bytes, folder: Folder, area: float) -> list[_Part]:
    """What is in ``folder``, the largest first, what would be too small in ``area`` as one part."""
    least = folder.size * _SMALLEST / area if area > 0 else folder.size
    found = [_Part(join(path, name), one.size, one.count, one.changed > 0, one) for name, one in folder.folders.items()]
    found += [_Part(join(path, name), size, 1, new) for name, (size, new) in folder.files.items()]
    small = [part for part in found if part.size < least]
    if len(small) > 1:
        rest = _Part(
            path, sum(one.size for one in small), sum(one.count for one in small), any(one.changed for one in small),
            others=True,
        )  # fmt: skip
        found = [part for part in found if part.size >= least] + [rest]
    return sorted((part for part in found if part.size), key=lambda part: (-part.size, part.path))


def squarified(sizes: Sequence[float], place: Rectangle) -> list[Rectangle]:
    """A rectangle in ``place`` for each of ``sizes``, which fall and are positive; areas are as the sizes.

    ``place`` and the rectangles: left, top, width, height.
    """
    left, top, width, height = place
    found: list[Rectangle] = []
    start, rest = 0, float(sum(sizes))
    while start < len(sizes):
        side = min(width, height)
        scale = width * height / rest if rest > 0 else 0.0
        end, row = start + 1, float(sizes[start])
        worst = _worst(sizes[start] * scale, sizes[start] * scale, row * scale, side)
        while end < len(sizes):
            longer = row + sizes[end]
            ratio = _worst(sizes[start] * scale, sizes[end] * scale, longer * scale, side)
            if ratio > worst:
                break
            end, row, worst = end + 1, longer, ratio
        share = row / rest if rest > 0 else 0.0
        if width >= height:
            thick, at = width * share, top
            for size in sizes[start:end]:
                found.append((left, at, thick, height * size / row))
                at += height * size / row
            left, width = left + thick, max(0.0, width - thick)
        else:
            thick, at = height * share, left
            for size in sizes[start:end]:
                found.append((at, top, width * size / row, thick))
                at += width * size / row
            top, height = top + thick, max(0.0, height - thick)
        start, rest = end, rest - row
    return found


def _worst(largest: float, smallest: float, row: float, side: float) -> float:
    """The worst ratio of sides in a row of area ``row`` along ``side``, by its largest and smallest area."""
    if side <= 0 or smallest <= 0:
        return float("inf")
    return max(side * side * largest / (row * row), row * row / (side * side * smallest))
