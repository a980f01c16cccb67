"""System use fields (SUSP, IEEE P1281) and directory records as bytes."""

from __future__ import annotations

from cosremaster.units import Lba

BASE = Lba(16)


AREA = 3000
"""Where the continuation area of these tests stands, in bytes."""


def field(signature: bytes, data: bytes) -> bytes:
    return signature + bytes((4 + len(data), 1)) + data


def name(text: bytes, flags: int = 0) -> bytes:
    return field(b"NM", bytes((flags,)) + text)


def both(value: int) -> bytes:
    return value.to_bytes(4, "little") + value.to_bytes(4, "big")


def more(start: int, length: int) -> bytes:
    """A CE field that leads to byte ``start``; its block counts from ``BASE``."""
    return field(b"CE", both(start // 2048 - BASE) + both(start % 2048) + both(length))


def record(fields: bytes, identifier: bytes = b"A;1") -> bytes:
    head = bytes(32) + bytes((len(identifier),)) + identifier + bytes(1 - len(identifier) % 2)
    return head + fields
