"""Classic BPF programs: instructions with labels, and the jumps between them (bpf(4), linux/filter.h).

A seccomp filter is such a program: it loads a word of the call's data, compares it, and returns a verdict. Jumps go
forward only. A conditional jump holds its two distances in a byte each, so one that goes farther leads over an
unconditional jump, whose distance has 32 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from cosremaster.records.tuples import NamedTuple

LOAD_WORD = 0x20
"""BPF_LD | BPF_W | BPF_ABS: the accumulator becomes the word at an offset of the data."""
AND = 0x54
"""BPF_ALU | BPF_AND | BPF_K"""
JUMP = 0x05
"""BPF_JMP | BPF_JA"""
JUMP_IF_EQUAL = 0x15
"""BPF_JMP | BPF_JEQ | BPF_K"""
JUMP_IF_GREATER_OR_EQUAL = 0x35
"""BPF_JMP | BPF_JGE | BPF_K"""
JUMP_IF_ANY_BIT = 0x45
"""BPF_JMP | BPF_JSET | BPF_K"""
RETURN = 0x06
"""BPF_RET | BPF_K"""

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS of linux/bpf_common.h"""

_INSTRUCTION = struct.Struct("=HBBI")
_MAX_SHORT = 0xFF


class Jump(NamedTuple):
    """An instruction: its code and operand, and for jumps the labels where they lead; None is the next instruction."""

    code: int
    operand: int
    then: str | None = None
    otherwise: str | None = None


class BpfProgram:
    """A program that is written instruction by instruction and then assembled."""

    def __init__(self) -> None:
        """Make an empty program."""
        self._instructions: list[Jump] = []
        self._labels: dict[str, int] = {}
        self._label_count = 0

    def make_label(self) -> str:
        """Return a label that stands for nothing yet."""
        self._label_count += 1
        return f"label {self._label_count}"

    def place_label(self, name: str) -> None:
        """Let ``name`` stand for the next instruction.

        :raises ValueError: the name stands for another already.
        """
        if name in self._labels:
            raise ValueError(f"the label {name} is placed twice")
        self._labels[name] = len(self._instructions)

    def load_word(self, offset: int) -> None:
        """Load the word at ``offset`` of the data."""
        self._instructions.append(Jump(LOAD_WORD, offset))

    def mask(self, bits: int) -> None:
        """Keep only ``bits`` of the accumulator."""
        self._instructions.append(Jump(AND, bits))

    def jump(self, label: str) -> None:
        """Go to ``label``."""
        self._instructions.append(Jump(JUMP, 0, label))

    def jump_if(self, code: int, operand: int, then: str | None, otherwise: str | None = None) -> None:
        """Compare the accumulator with ``operand`` by ``code`` and go to either label; None is the next instruction."""
        self._instructions.append(Jump(code, operand, then, otherwise))

    def return_value(self, value: int) -> None:
        """End with ``value``."""
        self._instructions.append(Jump(RETURN, value))

    def assemble(self) -> bytes:
        """Return the program as an array of ``struct sock_filter``.

        :raises ValueError: a label is missing, a jump goes back, nothing stands at the program's end, or the program is
            longer than the kernel takes.
        """
        self._check_labels()
        long_sides: set[tuple[int, bool]] = set()
        starts = _place(self._instructions, long_sides)
        while farther := self._find_long_sides(starts) - long_sides:
            long_sides |= farther
            starts = _place(self._instructions, long_sides)
        words: list[bytes] = []
        for index, instruction in enumerate(self._instructions):
            words += self._encode(index, instruction, starts, long_sides)
        if len(words) > MAX_INSTRUCTIONS:
            raise ValueError(f"{len(words)} instructions are more than {MAX_INSTRUCTIONS}")
        return b"".join(words)

    def _check_labels(self) -> None:
        """Raise ValueError unless every jump leads forward to an instruction."""
        for index, instruction in enumerate(self._instructions):
            for label in filter(None, (instruction.then, instruction.otherwise)):
                target = self._labels.get(label)
                if target is None:
                    raise ValueError(f"the label {label} is not placed")
                if not index < target < len(self._instructions):
                    raise ValueError(f"the jump to {label} goes back or behind the end")
        if not self._instructions or self._instructions[-1].code != RETURN:
            raise ValueError("a program ends with a return")

    def _find_long_sides(self, starts: Sequence[int]) -> set[tuple[int, bool]]:
        """Return the sides of conditional jumps that do not fit into a byte, as (instruction, side)."""
        return {
            (index, side)
            for index, instruction in enumerate(self._instructions)
            for side, label in ((True, instruction.then), (False, instruction.otherwise))
            if label and instruction.code != JUMP and starts[self._labels[label]] - starts[index] - 1 > _MAX_SHORT
        }

    def _encode(
        self, index: int, instruction: Jump, starts: Sequence[int], long_sides: set[tuple[int, bool]]
    ) -> list[bytes]:
        """Return the words of instruction ``index``: itself, and behind it the long jumps that it leads over."""
        code, operand, then, otherwise = instruction
        start = starts[index]
        if code == JUMP:
            assert then
            return [_INSTRUCTION.pack(JUMP, 0, 0, starts[self._labels[then]] - start - 1)]
        distances = []
        bridges: list[bytes] = []
        bridge_count = ((index, True) in long_sides) + ((index, False) in long_sides)
        for side, label in ((True, then), (False, otherwise)):
            if label is None:
                distances.append(bridge_count)
            elif (index, side) in long_sides:
                distances.append(len(bridges))
                distance = starts[self._labels[label]] - (start + 1 + len(bridges)) - 1
                bridges.append(_INSTRUCTION.pack(JUMP, 0, 0, distance))
            else:
                distances.append(starts[self._labels[label]] - start - 1)
        if code in (LOAD_WORD, AND, RETURN):
            distances = [0, 0]
        return [_INSTRUCTION.pack(code, *distances, operand), *bridges]


def _place(instructions: Sequence[Jump], long_sides: set[tuple[int, bool]]) -> list[int]:
    """Return where each instruction begins when those of ``long_sides`` have a long jump behind them."""
    starts = []
    position = 0
    for index in range(len(instructions)):
        starts.append(position)
        position += 1 + ((index, True) in long_sides) + ((index, False) in long_sides)
    return starts


def split_instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    """Return the instructions of an assembled ``program``: code, the two distances, operand."""
    return list(_INSTRUCTION.iter_unpack(program))


def write_switch(program: BpfProgram, cases: Mapping[int, str], otherwise: str) -> None:
    """Write jumps by the accumulator: to the label of its value in ``cases``, else to ``otherwise``.

    Neighbouring values with one label are compared as a range, and the ranges are searched by halves, so that a call
    costs a few instructions however many cases there are.
    """
    ranges: list[tuple[int, str]] = [(0, otherwise)]
    for value in sorted(cases):
        if ranges[-1] == (value, otherwise):
            ranges.pop()
        if not ranges or ranges[-1][1] != cases[value]:
            ranges.append((value, cases[value]))
        ranges.append((value + 1, otherwise))
    _write_ranges(program, ranges)


def _write_ranges(program: BpfProgram, ranges: Sequence[tuple[int, str]]) -> None:
    """Write the search of the accumulator in ``ranges``: the first value of each, and its label."""
    if len(ranges) == 1:
        program.jump(ranges[0][1])
        return
    middle = len(ranges) // 2
    upper = program.make_label()
    program.jump_if(JUMP_IF_GREATER_OR_EQUAL, ranges[middle][0], upper)
    _write_ranges(program, ranges[:middle])
    program.place_label(upper)
    _write_ranges(program, ranges[middle:])
