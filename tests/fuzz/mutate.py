"""Mutations that formats on disks are likely to mind: numbers in both byte orders, copied blocks, cuts, flips."""

import random

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    16,
    17,
    0x7F,
    0x80,
    0xFF,
    512,
    2048,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**64 - 1,
)
"""Numbers at which sizes and counts go wrong."""
_HEAD = 64 * 2048
"""Bytes of an image in which most of its structures stand."""


def mutate(data: bytes, limit: int, seed: int) -> bytes:
    """Return ``data`` with a few changes, at most ``limit`` bytes; the same seed makes the same changes."""
    chance = random.Random(seed)
    raw = bytearray(data or b"\0")
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = _choose_place(raw, chance)
        chance.choice((_flip, _put_byte, _put_number, _put_both_endian, _shift, _copy, _blank, _put_digits, _resize))(
            raw, at, chance
        )
        if not raw:
            raw = bytearray(b"\0")
    return bytes(raw[:limit])


def _choose_place(raw: bytearray, chance: random.Random) -> int:
    """Return an offset, rather one where something stands, and rather in front."""
    end = min(len(raw), _HEAD) if chance.random() < 0.7 else len(raw)
    return next((at for at in (chance.randrange(end) for _ in range(30)) if raw[at]), chance.randrange(end))


def _flip(raw: bytearray, at: int, chance: random.Random) -> None:
    raw[at] ^= 1 << chance.randrange(8)


def _put_byte(raw: bytearray, at: int, chance: random.Random) -> None:
    raw[at] = chance.randrange(256)


def _put_number(raw: bytearray, at: int, chance: random.Random) -> None:
    size, value = chance.choice((1, 2, 4, 8)), chance.choice(NUMBERS)
    raw[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, chance.choice(("little", "big")))


def _put_both_endian(raw: bytearray, at: int, chance: random.Random) -> None:
    value = chance.choice((*NUMBERS, *(chance.randrange(1 << 12) for _ in range(30)))) & 0xFFFFFFFF
    raw[at : at + 8] = value.to_bytes(4, "little") + value.to_bytes(4, "big")


def _shift(raw: bytearray, at: int, chance: random.Random) -> None:
    raw[at] = (raw[at] + chance.choice((1, -1, 2, -2, 8, -8))) & 0xFF


def _copy(raw: bytearray, at: int, chance: random.Random) -> None:
    size, source = chance.choice((4, 16, 32, 64, 2048)), chance.randrange(len(raw))
    raw[at : at + size] = raw[source : source + size]


def _blank(raw: bytearray, at: int, chance: random.Random) -> None:
    size = min(chance.choice((4, 16, 110, 512, 2048)), len(raw) - at)
    raw[at : at + size] = bytes(size)


def _put_digits(raw: bytearray, at: int, chance: random.Random) -> None:
    size = chance.choice((2, 8))
    raw[at : at + size] = bytes(chance.choice(b"0123456789abcdefABCDEF") for _ in range(size))


def _resize(raw: bytearray, at: int, chance: random.Random) -> None:
    kind = chance.randrange(4 if len(raw) > 1 << 16 else 3)
    if kind == 0:
        raw[at:at] = bytes(chance.randrange(256) for _ in range(chance.choice((1, 2, 4, 20))))
    elif kind == 1:
        del raw[at : at + chance.choice((1, 2, 4, 100, 1000))]
    else:
        del raw[at if chance.random() < 0.3 else len(raw) - chance.randrange(min(len(raw), 4096)) :]
