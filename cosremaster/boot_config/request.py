"""What was asked for, read and checked: kernel arguments, volume id, volume date."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from cosremaster.errors import UsageError
from cosremaster.iso.ecma119.volume_id import encode_volume_id, parse_volume_date

if TYPE_CHECKING:
    from cosremaster.boot_config.menus.arguments import ArgumentReplacement, KernelArgument


class BootSettings(Struct, frozen=True, kw_only=True):
    """``volume_date``: the 17 bytes of a descriptor's date; ``retarget``: menus that look for the volume by what
    changes follow; ``allow_missing``: an argument to remove or replace need not be there."""

    add: tuple[KernelArgument, ...] = ()
    remove: tuple[KernelArgument, ...] = ()
    replace: tuple[ArgumentReplacement, ...] = ()
    volume_id: bytes | None = None
    volume_date: bytes | None = None
    retarget: bool = False
    allow_missing: bool = False

    @property
    def is_empty(self) -> bool:
        """Nothing is asked for."""
        return not (self.changes_arguments or self.changes_identity)

    @property
    def changes_arguments(self) -> bool:
        """Kernel arguments change."""
        return bool(self.add or self.remove or self.replace)

    @property
    def changes_identity(self) -> bool:
        """The volume gets another id or date."""
        return self.volume_id is not None or self.volume_date is not None


def read_boot_settings(
    *, add: Iterable[str] = (), remove: Iterable[str] = (), replace: Iterable[str] = (), volume_id: str | None = None,
    volume_date: str | None = None, retarget: bool = False, allow_missing: bool = False,
) -> BootSettings:  # fmt: skip
    """:raises UsageError: a text is not what it should be, or there is nothing to retarget for."""
    if retarget and volume_id is None and volume_date is None:
        raise UsageError("--retarget follows --volume-id or --volume-date, which are missing")
    return BootSettings(
        add=tuple(map(_argument, add)), remove=tuple(map(_argument, remove)), replace=tuple(map(_replacement, replace)),
        volume_id=None if volume_id is None else encode_volume_id(volume_id),
        volume_date=None if volume_date is None else parse_volume_date(volume_date),
        retarget=retarget, allow_missing=allow_missing,
    )  # fmt: skip


def _argument(text: str) -> KernelArgument:
    from cosremaster.boot_config.menus.arguments import KernelArgument  # noqa: PLC0415 - most remasters change none

    return KernelArgument.parse(text)


def _replacement(text: str) -> ArgumentReplacement:
    from cosremaster.boot_config.menus.arguments import ArgumentReplacement  # noqa: PLC0415 - the same

    return ArgumentReplacement.parse(text)
