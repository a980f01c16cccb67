"""States of the inflater along a stream, from which a later pass goes on: what lies between is not inflated again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from cosremaster.codecs.gzip.inflate import ZlibInflater
from cosremaster.records import Struct

STEP = 1 << 15
"""Packed bytes that are inflated at once; a block of gzip(1) takes some 25,000."""

SEARCHED = 4
"""Steps that are searched for the last border in a run."""

STRIDE = SEARCHED * STEP
"""Packed bytes that are inflated at once where states are recorded, which begin a step each."""

MOST = 256
"""Checkpoints of a stream, which take 40 KiB each."""

_FIRST_SPACING = 8  # strides


class Checkpoint(Struct, frozen=True):
    """The ``inflater`` before packed byte ``byte``, where a step begins.

    ``plain``: plain bytes of all before, whose CRC32 is ``crc``; ``searched``: as many behind the next
    :data:`SEARCHED` steps.
    """

    inflater: zlib._Decompress
    byte: int
    plain: int
    crc: int
    searched: int


class SteppedInflater(ZlibInflater):
    """Inflates by the standard library, whose states can be copied; each stride comes out whole before the next.

    ``checkpoints``: in order, spread over all that was inflated.
    """

    def __init__(self) -> None:
        """Begin a stream."""
        super().__init__()
        self.checkpoints: list[Checkpoint] = []
        self._is_full = False
        self._strides, self._spacing = 0, _FIRST_SPACING
        self._pending: Checkpoint | None = None  # that of the last stride, which is complete behind it

    def feed(self, data: bytes, limit: int) -> bytes:
        """Return at most ``limit`` plain bytes; see :class:`~cosremaster.codecs.gzip.inflate.Inflater`."""
        plain = super().feed(data, limit)
        self._is_full = len(plain) == limit
        return plain

    @property
    def needs_input(self) -> bool:
        """Whether all plain bytes of the stride have come."""
        return not self._is_full and super().needs_input

    def begin_stride(self, byte: int, plain: int, crc: int) -> None:
        """Note a stride that begins at packed byte ``byte``, behind ``plain`` bytes, whose CRC32 is ``crc``."""
        known, self._pending = self._pending, None
        if known is not None:
            self.checkpoints.append(Checkpoint(known.inflater, known.byte, known.plain, known.crc, plain))
        if self._strides % self._spacing == 0:
            self._pending = Checkpoint(self._inflate.copy(), byte, plain, crc, 0)
            if len(self.checkpoints) >= MOST:
                self._spacing *= 2
                del self.checkpoints[1::2]
        self._strides += 1


def find_checkpoint(checkpoints: Sequence[Checkpoint], plain: int, *, searched: bool) -> Checkpoint | None:
    """Return the last of ``checkpoints`` at or before plain byte ``plain``; None if there is none.

    ``searched``: as many steps as are searched for a border lie between too.
    """
    low, high = 0, len(checkpoints)
    while low < high:
        middle = (low + high) // 2
        point = checkpoints[middle]
        if (point.searched if searched else point.plain) <= plain:
            low = middle + 1
        else:
            high = middle
    return checkpoints[low - 1] if low else None
