"""What settings do to an image, as values: a remaster that asks for none loads nothing else of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from cosremaster.io.pieces import PieceTable

if TYPE_CHECKING:
    from cosremaster.boot_config.menus.arguments import LineChange
    from cosremaster.boot_config.menus.retarget import VolumeRename


class MenuChange(Struct, frozen=True):
    """What became of a menu. ``where``: its path, a FAT image's before it; ``lines``: of its kernel lines, in order;
    ``retargeted``: line and old text of each place that looks for the volume by its new name now."""

    label: str
    language: str
    lines: tuple[LineChange, ...]
    retargeted: tuple[tuple[int, str], ...] = ()

    @property
    def changed_count(self) -> int:
        """Kernel lines whose arguments changed."""
        return sum(line.has_changed for line in self.lines)


class BootSettingsPlan(Struct, frozen=True, kw_only=True):
    """What settings do to an image. ``exchanged``: paths on the ISO's tree -> new bytes; ``overwritten``: byte offset
    in the old image -> as many new bytes; ``menus``: all that were found; ``renamed``: what the volume was and is now
    found by."""

    replaced: Mapping[bytes, PieceTable] = field(default_factory=dict)
    overwritten: Mapping[int, bytes] = field(default_factory=dict)
    menus: tuple[MenuChange, ...] = ()
    volume_renames: tuple[VolumeRename, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changed_menus(self) -> tuple[MenuChange, ...]:
        """The menus whose bytes change."""
        return tuple(one for one in self.menus if one.changed_count or one.retargeted)
