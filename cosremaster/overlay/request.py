"""What the user asks to add, as values and as text."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cosremaster.errors import UsageError

STANDARD_INPUT = b"-"
_ENDING = re.compile(rb"\.((tar|cpio)(\.(gz|bz2|xz|zst|lz4|lzma|lz|Z))?|tgz|tbz2?|txz|tlz|tzst|zip|7z|deb)$", re.I)


def is_archive_name(source: bytes) -> bool:
    """True when the name ends as those of archives do, or stands for standard input."""
    return source == STANDARD_INPUT or _ENDING.search(source) is not None


class OverlayItem:
    """Something that can be added to a file system: the base of all kinds of items."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OwnershipRule:
    """Owner and mode for the paths that ``pattern`` matches, among those that one :class:`AddPath` brings.

    ``pattern``: absolute in the layer, DEST included, as written (no symlink followed); ``*`` and ``?`` do not
    cross ``/``, ``**`` does. ``owner`` and modes as in :class:`AddPath`; ``mode`` is for everything but directories
    and symlinks, ``directory_mode`` for directories. None leaves it to the rules before and the addition.
    """

    pattern: str
    owner: str | None = None
    mode: str | int | None = None
    directory_mode: str | int | None = None


@dataclass(frozen=True, slots=True)
class AddPath(OverlayItem):
    """A file, a directory's contents or an archive's contents to be added.

    ``source``: where it lies on this machine; ``-`` is a tar on standard input. ``dest``: absolute in the
    layer; None: contents at ``/``. ``owner``: ``"root"``, ``"source"`` (the numbers found there) or ``"UID:GID"``;
    None: root's, but what an archive says. ``mode`` (0o644, ``"0644"`` or ``"u+x,go-w"`` as for chmod) is for regular
    files; of ``rules`` the last that matches wins, for owner and mode by themselves. ``mtree``: an mtree(5) file
    that tells owners, modes and nodes of a directory. ``setuid``: keep set-user-ID, set-group-ID and sticky bits.
    ``unpack``: take ``source`` for an archive, or for a mere file; None: by its name's ending.
    """

    source: str | Path
    dest: str | None = None
    owner: str | None = None
    mode: str | int | None = None
    rules: tuple[OwnershipRule, ...] = ()
    mtree: str | Path | None = None
    setuid: bool = False
    unpack: bool | None = None

    @classmethod
    def parse(cls, text: str, option: str = "--add") -> AddPath:
        """``SRC[:DEST]``, split at the last ``:/``. :raises UsageError: nothing before it."""
        source, colon, dest = text.rpartition(":/")
        if not colon:
            source, dest = text, ""
        if not source:
            raise UsageError(f"{option} {text!r}: what should be added?")
        return cls(source, "/" + dest if colon else None)


@dataclass(frozen=True, slots=True)
class InlineFile(OverlayItem):
    """A file called ``dest`` that holds ``content``. ``mtime``: seconds; None: :data:`DEFAULT_MTIME`, or
    SOURCE_DATE_EPOCH where that is set."""

    dest: str
    content: bytes
    mode: str | int = 0o644
    owner: str = "root"
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class Symlink(OverlayItem):
    """A symlink called ``dest`` with the text ``target``."""

    dest: str
    target: str
    owner: str = "root"
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class Directory(OverlayItem):
    """A directory ``dest``; one that is there already keeps its mode and owner."""

    dest: str
    mode: str | int = 0o755
    owner: str = "root"
    mtime: int | None = None


DEFAULT_MTIME = 315_532_800
"""1980-01-01, the time of things that come from no file: never the clock, and no format's time begins later."""


def default_mtime(newest: int | None) -> int:
    """The time of things that come from no file. ``newest``: SOURCE_DATE_EPOCH where that is set."""
    return DEFAULT_MTIME if newest is None else newest


def parse_dest(dest: str | bytes, what: str) -> bytes:
    """Return the normal path of the absolute path ``dest``.

    :raises UsageError: it is not absolute, or holds ``..`` or a zero byte; the message begins with ``what``.
    """
    raw = os.fsencode(dest)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if not raw.startswith(b"/") or b".." in parts or b"\0" in raw:
        raise UsageError(f"{what}: DEST must be an absolute path without ..")
    return b"/".join(parts)
