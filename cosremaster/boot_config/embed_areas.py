"""Find the areas for kernel arguments on a CoreOS image, by coreos/kargs.json and by the header in the system area."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cosremaster.boot.coreos import EmbedArea
from cosremaster.boot_config.menus.karg_areas import KargArea
from cosremaster.iso.model import IsoFile
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, replace
from cosremaster.records.json import MismatchError, decode_json
from cosremaster.units import lba_offset

DESCRIPTIONS = (b"coreos/kargs.json", b"coreos/kargs.jso", b"coreos/kargs.jso;1")
"""Paths, in small letters, of the file that describes the areas; without Rock Ridge its name is shorter."""
MAX_AREA = 2048
"""Bytes of the largest area that coreos-installer accepts."""
_OFFSET = lazy_regex(rb'"offset"\s*:\s*(\d+)')


class _Location(Struct, frozen=True):
    """An area as coreos/kargs.json describes it."""

    path: str
    offset: int
    pad: str = "#"
    end: str = "\n"


class _Description(Struct, frozen=True):
    """The contents of coreos/kargs.json."""

    size: int
    files: tuple[_Location, ...]


def parse_description(data: bytes) -> tuple[KargArea, ...] | None:
    """Return the areas that a coreos/kargs.json describes; None if it is none."""
    try:
        description = decode_json(data, _Description)
    except MismatchError:
        return None
    areas = tuple(
        KargArea(
            path=location.path.lstrip("/").encode(), offset=location.offset, size=description.size,
            pad=location.pad.encode(), end=location.end.encode(), number=number,
        )
        for number, location in enumerate(description.files)
    )  # fmt: skip
    return areas if all(area.offset >= 0 and 0 < area.size <= MAX_AREA for area in areas) else None


def update_description(data: bytes, areas: Iterable[KargArea]) -> bytes:
    """Return the coreos/kargs.json ``data`` with the offsets of ``areas``; nothing else in it changes."""
    offsets = {area.number: b"%d" % area.offset for area in areas if area.number is not None}
    parts, reached = list[bytes](), 0
    for number, match in enumerate(_OFFSET.finditer(data)):
        parts += (data[reached : match.start(1)], offsets.get(number, match[1]))
        reached = match.end(1)
    return b"".join((*parts, data[reached:]))


def find_header_areas(areas: Iterable[EmbedArea], files: Mapping[bytes, IsoFile]) -> Iterator[KargArea]:
    """Yield the areas for kernel arguments that the header in the system area names, by their files."""
    for area in areas:
        for path, file in files.items():
            place = area.start - lba_offset(file.start)
            if area.has_arguments and file.size and 0 <= place < file.size and 0 < area.length <= MAX_AREA:
                yield KargArea(path=path, offset=place, size=area.length, is_pinned=True)
                break


def join_areas(described: Sequence[KargArea], pinned: Sequence[KargArea]) -> tuple[KargArea, ...]:
    """Return all areas, those that are in both lists once."""
    places = {(area.path, area.offset): area for area in pinned}
    joined = [
        replace(area, is_pinned=places.pop((area.path, area.offset), None) is not None) for area in described
    ]  # fmt: skip
    return (*joined, *places.values())
