"""VCDIFF, the generic differencing format (RFC 3284): its numbers, its header and its default code table.

Numbers of sections are those of the RFC.
"""

from __future__ import annotations

from cosremaster.records.tuples import NamedTuple

MAGIC = b"\xd6\xc3\xc4\0"
HEADER = MAGIC + b"\0"  # section 4.1: neither a secondary compressor nor a code table

VCD_DECOMPRESS, VCD_CODETABLE, VCD_APPHEADER = 1, 2, 4  # Hdr_Indicator
VCD_SOURCE, VCD_TARGET, VCD_ADLER32 = 1, 2, 4  # Win_Indicator; the last is xdelta3's extension

NOOP, ADD, RUN, COPY = range(4)
NEAR, SAME = 4, 3
"""The sizes of the address caches of the default code table (section 5.1)."""

MAX_NUMBER = (1 << 63) - 1


class Instruction(NamedTuple):
    """An instruction of the code table; ``size`` is 0 where it follows in the delta."""

    kind: int
    size: int = 0
    mode: int = 0


def encode_number(value: int) -> bytes:
    """Return ``value`` in base 128, the highest digits first (section 2)."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))


def make_code_table() -> tuple[tuple[Instruction, ...], ...]:
    """Return the default code table: the instructions that each byte stands for (section 5.6)."""
    table: list[tuple[Instruction, ...]] = [(Instruction(RUN),), *((Instruction(ADD, size),) for size in range(18))]
    for mode in range(2 + NEAR + SAME):
        table += [(Instruction(COPY, size, mode),) for size in (0, *range(4, 19))]
    for mode in range(2 + NEAR):
        for size in range(1, 5):
            table += [(Instruction(ADD, size), Instruction(COPY, copied, mode)) for copied in range(4, 7)]
    for mode in range(2 + NEAR, 2 + NEAR + SAME):
        table += [(Instruction(ADD, size), Instruction(COPY, 4, mode)) for size in range(1, 5)]
    table += [(Instruction(COPY, 4, mode), Instruction(ADD, 1)) for mode in range(2 + NEAR + SAME)]
    return tuple(table)
