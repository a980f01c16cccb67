"""Areas of fixed size that hold kernel arguments, by which coreos-installer changes them (src/live/embed.rs).

An area holds the arguments, an end (a line end as a rule), and padding. In a boot menu the padding is a comment behind
the kernel line. Pure: bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cosremaster.boot_config.menus.model import (
    KernelLine,
    Menu,
    MenuLanguage,
    Splice,
    apply_splices,
    find_insertion_point,
    split_arguments,
)
from cosremaster.errors import SizeError, UnsupportedError
from cosremaster.records import Struct, replace

_BLANKS = b" \t"


class KargArea(Struct, frozen=True, kw_only=True):
    """An area for kernel arguments.

    :param path: the path of its file on the ISO's tree.
    :param offset: its first byte in the file, or in the part of the file that is looked at.
    :param number: its number in the list of coreos/kargs.json, from 0; None where only the header names it.
    :param is_pinned: the header in the system area names it too, which counts from the start of the image.
    """

    path: bytes
    offset: int
    size: int
    pad: bytes = b"#"
    end: bytes = b"\n"
    number: int | None = None
    is_pinned: bool = False

    @property
    def behind(self) -> int:
        """The byte behind the area."""
        return self.offset + self.size

    def text_end(self, data: bytes) -> int:
        """Return the byte behind the arguments in the area of the file ``data``."""
        text = data[self.offset : self.behind].rstrip(self.pad)
        return self.offset + len(text.removesuffix(self.end))

    def fits(self, data: bytes) -> bool:
        """Return True if there is such an area in the file ``data``: one line of arguments, its end, padding."""
        text_end = self.text_end(data)
        text, rest = data[self.offset : text_end], data[text_end : self.behind]
        has_place = 0 < self.size <= len(data) - self.offset and rest.startswith(self.end)
        return has_place and b"\n" not in text and b"\0" not in text


def parse_karg_area(data: bytes, area: KargArea) -> Menu:
    """Parse the bytes ``data`` of an ``area`` that is in no boot menu."""
    text_end = replace(area, offset=0, size=len(data)).text_end(data)
    arguments = split_arguments(data, 0, text_end)
    line = KernelLine(
        number=1, kernel=b"*", arguments=arguments, insert=find_insertion_point(arguments, 0), first_lead=b""
    )  # fmt: skip
    searched = tuple((b"options", word) for word in arguments)
    return Menu(language=MenuLanguage.AREA, data=data, lines=(line,), searched_words=searched)


def splice_areas(
    data: bytes, splices: Iterable[Splice], areas: Sequence[KargArea]
) -> tuple[bytes, tuple[KargArea, ...]]:
    """Return ``data`` with the replacements ``splices`` made, and the ``areas`` at their new places.

    What an area gains is taken from its padding, and what it loses is added there, so that its size stays.

    :raises SizeError: when an area has no room.
    :raises UnsupportedError: when a replacement cuts the border of an area, or moves one that is pinned.
    """
    ordered = sorted(splices, key=lambda splice: splice[:2])
    if not areas:
        return apply_splices(data, ordered), ()
    for area in areas:
        ordered = _move_into_area(data, area, ordered)
    inside = {area.offset: [splice for splice in ordered if _is_inside(data, area, splice)] for area in areas}
    outside = [splice for splice in ordered if not any(splice in own for own in inside.values())]
    paddings = [_pad_area(data, area, sum(map(_growth, inside[area.offset]))) for area in areas]
    moved = [replace(area, offset=area.offset + _shift_before(area, outside)) for area in areas]
    if any(old.is_pinned and old.offset != new.offset for old, new in zip(areas, moved, strict=True)):
        raise UnsupportedError("the area for kernel arguments, which the CoreOS header names, would have to move")
    return apply_splices(data, [*ordered, *paddings]), tuple(moved)


def _growth(splice: Splice) -> int:
    """Return by how many bytes a replacement makes the file longer."""
    start, end, new = splice
    return len(new) - (end - start)


def _is_inside(data: bytes, area: KargArea, splice: Splice) -> bool:
    """Return True if a replacement is made among the arguments of ``area``."""
    return area.offset <= splice[0] and splice[1] <= area.text_end(data)


def _shift_before(area: KargArea, outside: Iterable[Splice]) -> int:
    """Return by how many bytes the replacements ``outside`` of areas move ``area``.

    :raises UnsupportedError: when one of them reaches into the area.
    """
    shift = 0
    for splice in outside:
        if splice[1] <= area.offset:
            shift += _growth(splice)
        elif splice[0] < area.behind:
            raise UnsupportedError("the border of the area for kernel arguments would be cut")
    return shift


def _move_into_area(data: bytes, area: KargArea, splices: Sequence[Splice]) -> list[Splice]:
    """Return ``splices`` with those at the beginning of ``area`` so that its first byte stays where it is.

    A word at its beginning is removed with the blanks behind it, not with those in front. The first argument of an
    empty area is put into it.
    """
    moved, text_end = list[Splice](), area.text_end(data)
    for index, (start, end, new) in enumerate(splices):
        is_at_border = start < area.offset and not data[start : area.offset].strip(_BLANKS)
        if is_at_border and end > area.offset and not new:
            following = splices[index + 1][0] if index + 1 < len(splices) else text_end
            rest = data[end : min(following, text_end)]
            moved.append((area.offset, end + len(rest) - len(rest.lstrip(_BLANKS)), b""))
        elif is_at_border and start == end and text_end == area.offset:
            moved.append((area.offset, area.offset, new.lstrip(_BLANKS)))
        else:
            moved.append((start, end, new))
    return moved


def _pad_area(data: bytes, area: KargArea, growth: int) -> Splice:
    """Return the replacement at the end of ``area`` that makes up for its arguments, which grow by ``growth`` bytes.

    :raises SizeError: when there is not so much padding.
    """
    room = area.behind - area.text_end(data) - len(area.end)
    if growth > room:
        raise SizeError(
            f"the area for kernel arguments has room for {max(room, 0):,} more bytes, and {growth:,} are needed"
        )
    if growth > 0:
        return area.behind - growth, area.behind, b""
    return area.behind, area.behind, area.pad * -growth
