"""The numbers of users and groups by their names, as a system has them in passwd(5) and group(5)."""

from __future__ import annotations

from collections.abc import Mapping

OwnerNumbers = Mapping[bytes, Mapping[bytes, int]]
"""Under ``user`` and ``group`` the numbers by names, as a system's ``/etc/passwd`` and ``/etc/group`` have them."""

MAX_DATABASE = 1 << 20
"""Bytes of such a file that are read."""

_MAX_DIGITS = 10


def parse_database(text: bytes) -> dict[bytes, int]:
    """Return the numbers by the names in a file like ``/etc/passwd`` with the content ``text``; the first counts."""
    numbers: dict[bytes, int] = {}
    for line in text.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) <= _MAX_DIGITS:
            numbers.setdefault(fields[0], int(fields[2]))
    return numbers
