"""The address of a thing inside nested containers, as in ``debirf-live.cgz::rootfs.cxz::etc/hostname``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TypeAlias

from cosremaster.errors import UsageError
from cosremaster.tree.paths import normal_name

Address: TypeAlias = tuple[bytes, ...]
"""One normal path for each container, from the outside in; the image itself is not part of it.

Behind the path of a file of several archives :func:`nth` may stand, and means one of them.
"""

_NTH = b"/#"  # no normal path begins so

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_NUMBER = re.compile(rb"#[1-9][0-9]{0,5}")
_STRAY = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def number_part(number: int) -> bytes:
    """The part that means the ``number``-th archive of a row, from 1; it is written ``#1``."""
    return _NTH + b"%d" % number


def archive_number(part: bytes) -> int | None:
    """What :func:`nth` made ``part`` from, None if it did not."""
    return int(part[len(_NTH) :]) if part.startswith(_NTH) else None


def without_numbers(address: Address) -> Address:
    """``address`` without the parts that :func:`nth` made."""
    return tuple(part for part in address if archive_number(part) is None)


def parse_address(text: str | bytes) -> Address:
    """The address written as ``text``: parts split at every ``::``, ``%XX`` for any byte, ``#2`` the second archive.

    :raises UsageError: an empty part, or a ``%`` without two hexadecimal digits.
    """
    raw = os.fsencode(text)
    if _STRAY.search(raw):
        raise UsageError(f"address {os.fsdecode(raw)!r}: a % must be followed by two hexadecimal digits")
    parts = [normal_name(part) for part in raw.split(b"::")]
    if not all(parts):
        raise UsageError(f"address {os.fsdecode(raw)!r} has an empty part")
    return tuple(number_part(int(part[1:])) if _NUMBER.fullmatch(part) else _unescaped(part) for part in parts)


def _unescaped(part: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), part)


def format_address(address: Sequence[bytes]) -> str:
    """``address`` as :func:`parse_address` reads it."""
    return "::".join(_escape(part) for part in address)


def _escape(part: bytes) -> str:
    number = archive_number(part)
    if number is not None:
        return f"#{number}"
    if part.startswith(b"#"):
        return "%23" + _escape(part[1:])
    text = part.replace(b"%", b"%25").replace(b":", b"%3A").decode("utf-8", "surrogateescape")
    return "".join(
        char if char.isprintable() else "".join(f"%{byte:02X}" for byte in os.fsencode(char)) for char in text
    )
