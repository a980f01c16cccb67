"""Addresses of files inside nested containers, as in ``debirf-live.cgz::rootfs.cxz::etc/hostname``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

from cosremaster.errors import UsageError, printable
from cosremaster.io.urls import is_url
from cosremaster.lazy_regex import lazy_regex
from cosremaster.tree.paths import normal_name

Address: TypeAlias = tuple[bytes, ...]
"""One normal path for each container, from the outside in; the image itself is not part of it.

Behind the path of a file of several archives a part by :func:`number_part` may stand: it means one of them.
"""

ROOT_NAME = "@root"
"""The first part of an address that means the root file system of an image; a file of that name is ``%40root``."""

_NUMBER_PREFIX = b"/#"  # no normal path begins so

_ESCAPE = lazy_regex(rb"%([0-9A-Fa-f]{2})")
_NUMBER = lazy_regex(rb"#[1-9][0-9]{0,5}")
_STRAY = lazy_regex(rb"%(?![0-9A-Fa-f]{2})")


def number_part(number: int) -> bytes:
    """Return the part that means one of several archives in a file; ``number`` counts from 1, and is written ``#1``."""
    return _NUMBER_PREFIX + b"%d" % number


def archive_number(part: bytes) -> int | None:
    """Return the number that :func:`number_part` made ``part`` of, None for another part."""
    return int(part[len(_NUMBER_PREFIX) :]) if part.startswith(_NUMBER_PREFIX) else None


def without_numbers(address: Address) -> Address:
    """Return ``address`` without the parts that :func:`number_part` made."""
    return tuple(part for part in address if archive_number(part) is None)


def parse_address(text: str | bytes) -> Address:
    """Return the address written as ``text``: parts between ``::``, ``%XX`` for a byte, ``#2`` for the second archive.

    >>> parse_address("live.cgz::rootfs.cxz::/etc/hostname")
    (b'live.cgz', b'rootfs.cxz', b'etc/hostname')

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
    """Return ``part`` with a byte for each ``%XX``."""
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), part)


def format_address(address: Sequence[bytes]) -> str:
    """Return ``address`` as text that :func:`parse_address` reads."""
    first = os.fsdecode(address[0]) if address else ""
    if is_url(first):  # of the image itself; a path in one has no //
        return "::".join((first, *map(_escape, address[1:])))
    return "::".join(map(_escape, address))


def format_last_part(address: Sequence[bytes]) -> str:
    """Return the last part of ``address`` for people; an archive's number has the name of its file before it.

    >>> format_last_part((b"boot/initrd.img", number_part(2)))
    'boot/initrd.img::#2'
    """
    number = archive_number(address[-1])
    return printable(address[-1]) if number is None else f"{printable(address[-2])}::#{number}"


def _escape(part: bytes) -> str:
    """Return ``part`` as text, with ``%XX`` for what would mean something else or cannot be printed."""
    number = archive_number(part)
    if number is not None:
        return f"#{number}"
    if part.startswith(b"#"):
        return "%23" + _escape(part[1:])
    text = part.replace(b"%", b"%25").replace(b":", b"%3A").decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else "".join(f"%{byte:02X}" for byte in os.fsencode(char)) for char in text
    )
