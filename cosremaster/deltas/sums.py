"""The sums that a delta tells of what it makes: SHA-256 of all, Adler-32 of each window. Of the base what is known."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING

from cosremaster.io.descriptors import STEP, aligned_buffer
from cosremaster.io.frozen import BaseRange, FrozenTable
from cosremaster.io.parallel import StopFlag
from cosremaster.io.shared_sums import MIN_SHARED, SharedSums, views_of

if TYPE_CHECKING:
    from hashlib import _Hash

_PRIME = 65521
_MOST_ADLERS = 4096


class TableSums:
    """Sums a new image ``table`` window by window, by what ``shared`` knows of its base, and adds to that."""

    def __init__(self, table: FrozenTable, shared: SharedSums) -> None:
        """Begin in front of the first byte."""
        self._table, self._shared = table, shared
        self._digest = hashlib.sha256()
        self._buffer = aligned_buffer(STEP)

    def hexdigest(self) -> str:
        """Return the SHA-256 of all that was summed, in hexadecimal digits."""
        return self._digest.hexdigest()

    def sum_window(self, start: int, length: int) -> int:
        """Sum ``length`` bytes from ``start`` on, the next ones. Return their Adler-32 (RFC 1950, section 8).

        Raises what reading them raises.
        """
        adler = 1
        for part in self._table.segments(start, length):
            if isinstance(part, BaseRange):
                adler = join_adlers(adler, self._sum_range(part), part.length)
            else:
                self._digest.update(part)
                adler = zlib.adler32(part, adler)
        return adler

    def _sum_range(self, part: BaseRange) -> int:
        """Sum the range ``part`` of the base; return its Adler-32."""
        if part.length < MIN_SHARED:
            return self._read_range(part, None, None)
        place = (part.offset, part.length)
        key = (self._digest.digest(), *place)
        state, adler = self._shared.find_state(key), self._shared.adlers.get(place)
        if state is None or adler is None:
            adler = self._read_range(part, state, adler)
            self._keep_adler(place, adler)
        if state is None:
            self._shared.keep_state(key, self._digest)
        else:
            self._digest = state
        return adler

    def _read_range(self, part: BaseRange, state: _Hash | None, adler: int | None) -> int:
        """Read the range ``part`` of the base; return its Adler-32. The digest goes on without a ``state``."""
        running = 1
        for view in views_of(self._table.base, part.offset, part.length, StopFlag(), self._buffer):
            if state is None:
                self._digest.update(view)
            if adler is None:
                running = zlib.adler32(view, running)
        return running if adler is None else adler

    def _keep_adler(self, place: tuple[int, int], adler: int) -> None:
        """Keep the Adler-32 of a range of the base for other images."""
        if len(self._shared.adlers) >= _MOST_ADLERS:
            self._shared.adlers.clear()
        self._shared.adlers[place] = adler


def join_adlers(first: int, second: int, length: int) -> int:
    """Return the Adler-32 of bytes with ``first``, and behind them ``length`` others with ``second``."""
    low, high = first & 0xFFFF, first >> 16
    joined = (low + (second & 0xFFFF) - 1) % _PRIME
    return (high + (second >> 16) + (low - 1) * length) % _PRIME << 16 | joined
