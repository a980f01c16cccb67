"""Effects of boot settings on an image, as values; a remaster without boot settings imports only this module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cosremaster.io.pieces import PieceTable
from cosremaster.records import Struct, field

if TYPE_CHECKING:
    from cosremaster.boot_config.menu_change import MenuChange
    from cosremaster.boot_config.menus.retarget import VolumeRename


class BootSettingsPlan(Struct, frozen=True, kw_only=True):
    """What boot settings do to an image.

    :param replaced: path on the ISO's tree -> new bytes of the file.
    :param areas: byte offset in the old image of a FAT file system that is no file -> all of its new bytes.
    :param overwritten: byte offset in the old image -> as many new bytes of a volume descriptor.
    :param menus: all boot menus of the image, changed or not.
    :param volume_renames: old and new names that the volume can be found by.
    """

    replaced: Mapping[bytes, PieceTable] = field(default_factory=dict)
    areas: Mapping[int, PieceTable] = field(default_factory=dict)
    overwritten: Mapping[int, bytes] = field(default_factory=dict)
    menus: tuple[MenuChange, ...] = ()
    volume_renames: tuple[VolumeRename, ...] = ()
    warnings: tuple[str, ...] = ()
