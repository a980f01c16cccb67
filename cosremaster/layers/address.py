"""The address of a thing inside nested containers, as in ``debirf-live.cgz::rootfs.cxz::etc/hostname``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TypeAlias

from cosremaster.cpio import normal_name
from cosremaster.errors import UsageError

Address: TypeAlias = tuple[bytes, ...]
"""One normal path for each container, from the outside in; the image itself is not part of it."""

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_STRAY = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def parse_address(text: str | bytes) -> Address:
    """The address written as ``text``: parts split at every ``::``, ``%XX`` for any byte.

    :raises UsageError: an empty part, or a ``%`` without two hexadecimal digits.
    """
    raw = os.fsencode(text)
    if _STRAY.search(raw):
        raise UsageError(f"address {os.fsdecode(raw)!r}: a % must be followed by two hexadecimal digits")
    parts = [normal_name(part) for part in raw.split(b"::")]
    if not all(parts):
        raise UsageError(f"address {os.fsdecode(raw)!r} has an empty part")
    return tuple(_ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), part) for part in parts)


def format_address(address: Sequence[bytes]) -> str:
    """``address`` as :func:`parse_address` reads it."""
    return "::".join(_escape(part) for part in address)


def _escape(part: bytes) -> str:
    text = part.replace(b"%", b"%25").replace(b":", b"%3A").decode("utf-8", "surrogateescape")
    return "".join(
        char if char.isprintable() else "".join(f"%{byte:02X}" for byte in os.fsencode(char)) for char in text
    )
