"""An interpreter of classic BPF, written from bpf(4) alone: what a program does, whoever assembled it."""

from __future__ import annotations

import struct


def run_program(program: bytes, data: bytes) -> int:
    """Returns what ``program`` returns for ``data``; fails where the kernel would refuse the program."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = 0
    position = 0
    while True:
        code, then, otherwise, operand = instructions[position]
        position += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            assert operand % 4 == 0 and operand + 4 <= len(data)
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x05:
            position += operand
        else:
            holds = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[code]
            position += then if holds else otherwise


def pack_call(number: int, audit: int, *arguments: int) -> bytes:
    """Returns ``struct seccomp_data`` of a call."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    return struct.pack("=iIQ6Q", number, audit, 0, *words)
