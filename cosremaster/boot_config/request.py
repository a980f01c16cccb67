"""Parse and check the requested boot settings: kernel arguments, volume id, volume date."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cosremaster.errors import UsageError
from cosremaster.records import Struct

if TYPE_CHECKING:
    from cosremaster.boot_config.menus.arguments import ArgumentReplacement, KernelArgument


class BootSettings(Struct, frozen=True, kw_only=True):
    """The requested boot settings.

    :param add: kernel arguments to add; likewise ``remove`` and ``replace``.
    :param volume_id: the new volume id as it is stored.
    :param volume_date: the 17 bytes of the new modification date (ECMA-119, 8.4.26.1).
    :param retarget: change menus that look for the volume by its old id or date.
    :param allow_missing: no error if an argument to remove or replace is in no menu.
    """

    add: tuple[KernelArgument, ...] = ()
    remove: tuple[KernelArgument, ...] = ()
    replace: tuple[ArgumentReplacement, ...] = ()
    volume_id: bytes | None = None
    volume_date: bytes | None = None
    retarget: bool = False
    allow_missing: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to change."""
        return not (self.changes_arguments or self.changes_identity)

    @property
    def changes_arguments(self) -> bool:
        """Whether kernel arguments are to change."""
        return bool(self.add or self.remove or self.replace)

    @property
    def changes_identity(self) -> bool:
        """Whether the volume gets another id or date."""
        return self.volume_id is not None or self.volume_date is not None


def read_boot_settings(
    *, add: Iterable[str] = (), remove: Iterable[str] = (), replace: Iterable[str] = (), volume_id: str | None = None,
    volume_date: str | None = None, retarget: bool = False, allow_missing: bool = False,
) -> BootSettings:  # fmt: skip
    """Parse boot settings as they are given on the command line.

    >>> read_boot_settings(add=["console=ttyS0"], volume_id="SITE").changes_arguments
    True

    :raises UsageError: when a text is malformed, or ``retarget`` is set and neither volume id nor date changes.
    """
    if retarget and volume_id is None and volume_date is None:
        raise UsageError("--retarget follows --volume-id or --volume-date, which are missing")
    return BootSettings(
        add=tuple(map(_parse_argument, add)), remove=tuple(map(_parse_argument, remove)),
        replace=tuple(map(_parse_replacement, replace)),
        volume_id=None if volume_id is None else _parse_volume_id(volume_id),
        volume_date=None if volume_date is None else _parse_volume_date(volume_date),
        retarget=retarget, allow_missing=allow_missing,
    )  # fmt: skip


def _parse_volume_id(text: str) -> bytes:
    """Return the bytes of a volume id."""
    from cosremaster.iso.volume_id import encode_volume_id  # noqa: PLC0415 - most remasters keep it

    return encode_volume_id(text)


def _parse_volume_date(text: str) -> bytes:
    """Return the bytes of a date in a volume descriptor."""
    from cosremaster.iso.volume_id import parse_volume_date  # noqa: PLC0415 - most remasters keep it

    return parse_volume_date(text)


def _parse_argument(text: str) -> KernelArgument:
    """Parse a kernel argument."""
    from cosremaster.boot_config.menus.arguments import KernelArgument  # noqa: PLC0415 - most remasters change none

    return KernelArgument.parse(text)


def _parse_replacement(text: str) -> ArgumentReplacement:
    """Parse ``KEY=OLD=NEW``."""
    from cosremaster.boot_config.menus.arguments import ArgumentReplacement  # noqa: PLC0415 - the same

    return ArgumentReplacement.parse(text)
