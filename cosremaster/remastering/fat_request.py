"""The parts of a request that are about FAT file systems on the image, as in ``/EFI/efiboot.img::/EFI/BOOT``."""

from __future__ import annotations

import os
from collections.abc import Iterable

from cosremaster.errors import UsageError
from cosremaster.layers.address import parse_address
from cosremaster.overlay.patterns import Pattern, parse_inner_pattern
from cosremaster.overlay.request import OverlayItem
from cosremaster.records import Struct
from cosremaster.records.lazy_dataclass import replace

SEPARATOR = "::"
"""Stands between the address of a file system and a path in it."""


class FatRequest(Struct, frozen=True, kw_only=True):
    """The requested changes of a FAT file system: first ``removals``, then ``additions``.

    ``address``: the path of the file on the ISO's tree that it is, or the address of an area, as in ``@gpt2``.
    """

    address: bytes
    additions: tuple[OverlayItem, ...] = ()
    removals: tuple[Pattern, ...] = ()


class IsoRequest(Struct, frozen=True):
    """Additions to the ISO's own tree and removals from it, and the changes of FAT file systems among them."""

    additions: tuple[OverlayItem, ...]
    removals: tuple[Pattern, ...]
    fats: tuple[FatRequest, ...]


def split_iso_request(items: Iterable[OverlayItem], removals: Iterable[str | bytes]) -> IsoRequest:
    """Split requested additions and removals into those of the ISO's own tree and those of FAT file systems.

    :raises UsageError: when an address or a pattern is malformed.
    """
    tree_items, tree_removals = list[OverlayItem](), list[Pattern]()
    fat_items: dict[bytes, list[OverlayItem]] = {}
    fat_removals: dict[bytes, list[Pattern]] = {}
    for item in items:
        dest = getattr(item, "dest", None)
        if isinstance(dest, str) and SEPARATOR in dest:
            fat, inner = _split_path(dest, "--add-iso")
            fat_items.setdefault(fat, []).append(replace(item, dest="/" + inner.lstrip("/")))  # type: ignore[type-var]
        else:
            tree_items.append(item)
    for removal in removals:
        text = os.fsdecode(removal)
        if SEPARATOR in text:
            fat, inner = _split_path(text, "--remove-iso")
            fat_removals.setdefault(fat, []).append(parse_inner_pattern(os.fsencode(inner)))
        else:
            tree_removals.append(parse_inner_pattern(os.fsencode(removal)))
    fats = (
        FatRequest(address=fat, additions=tuple(fat_items.get(fat, ())), removals=tuple(fat_removals.get(fat, ())))
        for fat in {**fat_removals, **fat_items}
    )
    return IsoRequest(tuple(tree_items), tuple(tree_removals), tuple(fats))


def _split_path(text: str, option: str) -> tuple[bytes, str]:
    """Return the address of the file system and the path in it.

    :raises UsageError: when the address is malformed, or leads further, into a file of the file system.
    """
    fat, _, inner = text.partition(SEPARATOR)
    if SEPARATOR in inner:
        raise UsageError(f"{option} {text}: leads into a file of a FAT file system, which cannot be changed inside")
    return parse_address(fat)[0], inner
