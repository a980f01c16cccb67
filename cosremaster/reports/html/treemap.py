"""A tree of sizes as rectangles whose areas are those sizes. Pure: files in, boxes out.

The layout is the squarified treemap (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from cosremaster.records import Struct, field
from cosremaster.records.tuples import NamedTuple
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


class SizedFolder(Struct):
    """Bytes and files below a directory. A hard-linked file counts where it is met first.

    ``files`` holds size and whether it changed, by name. ``changed`` is the number of changed paths below.
    """

    size: int = 0
    count: int = 0
    changed: int = 0
    folders: dict[bytes, SizedFolder] = field(default_factory=dict)
    files: dict[bytes, tuple[int, bool]] = field(default_factory=dict)


def grow(files: Iterable[Weight], changed: Collection[bytes] = ()) -> SizedFolder:
    """Return the tree of sizes of ``files``. ``changed`` are paths that are outlined."""
    top, linked = SizedFolder(), set[object]()
    for path, size, link in files:
        if link is not None and link in linked:
            continue
        linked.add(link)
        *parents, name = path.split(b"/")
        new = path in changed
        folder = top
        for part in (None, *parents):
            folder = folder if part is None else folder.folders.setdefault(part, SizedFolder())
            folder.size += size
            folder.count += 1
            folder.changed += new
        folder.files[name] = (size, new)
    return top


class Box(Struct, frozen=True):
    """A rectangle in a plane of :data:`WIDTH` by :data:`HEIGHT`.

    ``opened`` marks a folder whose parts are boxes over it. ``count`` is its number of files. ``others`` marks a box
    for all parts of the folder ``path`` that are too small. ``hue`` is a number that the parts of one folder share.
    """

    x: float
    y: float
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
    """A file or folder to be placed, or all small ones of a folder (``others``)."""

    path: bytes
    size: int
    count: int
    changed: bool
    folder: SizedFolder | None = None
    others: bool = False


Rectangle = tuple[float, float, float, float]


def boxes(top: SizedFolder) -> Iterator[Box]:
    """Yield the map of ``top``: folders before their parts, large parts before small ones."""
    yield from _inside(b"", top, (0.0, 0.0, WIDTH, HEIGHT), None)


def _inside(path: bytes, folder: SizedFolder, place: Rectangle, hue: int | None) -> Iterator[Box]:
    """Yield the boxes of the parts of ``folder``. Each part gets a hue of its own where ``hue`` is None."""
    for number, (part, spot) in enumerate(_placed(path, folder, place)):
        dominant = hue is None and part.size > _DOMINANT * folder.size
        yield from _boxes(part, spot, number if hue is None else hue, dominant)


def _boxes(part: _Part, place: Rectangle, hue: int, dominant: bool) -> Iterator[Box]:
    """Yield the box of ``part`` and, where it is large enough, those of its own parts."""
    x, y, width, height = place
    folder = part.folder
    opened = folder is not None and width >= _OPENED[0] and height >= _OPENED[1]
    yield Box(
        x, y, width, height, part.path, part.size, part.count, hue, opened=opened,
        folder=folder is not None, others=part.others, changed=part.changed and not opened,
    )  # fmt: skip
    if folder is not None and opened:
        inner = (x + 2, y + _HEAD, width - 4, height - _HEAD - 2)
        yield from _inside(part.path, folder, inner, None if dominant else hue)


def _placed(path: bytes, folder: SizedFolder, place: Rectangle) -> list[tuple[_Part, Rectangle]]:
    """Return the parts of ``folder``, each with its rectangle in ``place``."""
    parts = _parts(path, folder, place[2] * place[3])
    return list(zip(parts, squarified([part.size for part in parts], place), strict=True))


def _parts(path: bytes, folder: SizedFolder, area: float) -> list[_Part]:
    """Return the parts of ``folder``, largest first; parts too small for ``area`` are joined in one."""
    least = folder.size * _SMALLEST / area if area > 0 else folder.size
    parts = [
        _Part(join(path, name), entry.size, entry.count, entry.changed > 0, entry)
        for name, entry in folder.folders.items()
    ]
    parts += [_Part(join(path, name), size, 1, new) for name, (size, new) in folder.files.items()]
    small = [part for part in parts if part.size < least]
    if len(small) > 1:
        rest = _Part(
            path, sum(part.size for part in small), sum(part.count for part in small),
            any(part.changed for part in small), others=True,
        )  # fmt: skip
        parts = [part for part in parts if part.size >= least] + [rest]
    return sorted((part for part in parts if part.size), key=lambda part: (-part.size, part.path))


def squarified(sizes: Sequence[float], place: Rectangle) -> list[Rectangle]:
    """Return a rectangle in ``place`` for each of ``sizes``, with areas in proportion.

    Sizes are positive and descending.

    ``place`` and the rectangles are tuples of x, y, width and height.
    """
    x, y, width, height = place
    rectangles: list[Rectangle] = []
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
            thick, at = width * share, y
            for size in sizes[start:end]:
                rectangles.append((x, at, thick, height * size / row))
                at += height * size / row
            x, width = x + thick, max(0.0, width - thick)
        else:
            thick, at = height * share, x
            for size in sizes[start:end]:
                rectangles.append((at, y, width * size / row, thick))
                at += width * size / row
            y, height = y + thick, max(0.0, height - thick)
        start, rest = end, rest - row
    return rectangles


def _worst(largest: float, smallest: float, row: float, side: float) -> float:
    """Return the worst aspect ratio in a row of area ``row`` along ``side``, from its largest and smallest area."""
    if side <= 0 or smallest <= 0:
        return float("inf")
    return max(side * side * largest / (row * row), row * row / (side * side * smallest))
