"""What a change does to the checksum lists of an image, as values; an image without lists needs only this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cosremaster.io.pieces import PieceTable
from cosremaster.records import Struct, field

if TYPE_CHECKING:
    from cosremaster.checksums.renew import ListChange


class RenewedLists(Struct, frozen=True):
    """The checksum lists that change.

    :param lists: path in the changed tree -> new bytes of the list.
    :param changes: what changed in each list, sorted by path.
    """

    lists: Mapping[bytes, PieceTable] = field(default_factory=dict)
    changes: tuple[ListChange, ...] = ()
    warnings: tuple[str, ...] = ()
