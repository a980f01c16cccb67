"""How fast this machine did each kind of work, remembered from one run to the next beside the indexes.

A line of the file is a rate in bytes a second, the kind of work, and its method. A file that holds anything else counts
for nothing: the numbers are for people, and no output depends on them.
"""

from __future__ import annotations

from contextlib import suppress

from cosremaster.layers.cache_folder import RATES_SUFFIX, open_remembered, write_index

NAME = f"work{RATES_SUFFIX}"
_MOST = 1 << 16
"""Bytes that the file may have."""

_MOST_RATES = 64


class WorkRates:
    """The rates of this machine; implements :class:`cosremaster.progress.measured.Rates`."""

    def load(self) -> dict[tuple[str, str], float]:
        """Return the rates that are remembered; none where the file holds anything else."""
        file = open_remembered(NAME, _MOST)
        if file is None:
            return {}
        with suppress(OSError, ValueError), file:
            return dict(map(_parse_line, file.readall().decode().splitlines()))
        return {}

    def store(self, rates: dict[tuple[str, str], float]) -> None:
        """Remember ``rates``, the newest last; where that cannot be done it harms nothing."""
        kept = {key: rate for key, rate in self.load().items() if key not in rates} | rates
        lines = [f"{rate:.0f}\t{kind}\t{method}\n" for (kind, method), rate in kept.items()]
        with suppress(OSError):
            write_index(NAME, ["".join(lines[-_MOST_RATES:]).encode()])


def _parse_line(line: str) -> tuple[tuple[str, str], float]:
    """Return kind and method of work, and its rate. :raises ValueError: ``line`` is no such line."""
    rate, kind, method = line.split("\t")
    if not 1 <= int(rate) < 1 << 50:
        raise ValueError("no rate")
    return (kind, method), float(rate)
