"""Entries that stay in an archive though edits replace them: a later entry of the same path counts instead."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from cosremaster.records import Struct


class SupersedeMode(enum.Enum):
    """When replaced entries of a cpio archive stay, so that what stands behind them needs no encoding again."""

    AUTO = "auto"
    """Where the program that unpacks the archive is known to let the later entry win, and where that saves work."""
    NEVER = "never"
    """Never; and superseded entries that the archive has already are dropped."""
    ALWAYS = "always"
    """Wherever it can be done, whoever unpacks the archive."""


class Superseding(Struct, frozen=True, kw_only=True):
    """How an edit of an archive supersedes.

    ``paths``: replaced ones whose old entries stay; ``postdated``: those of them whose new entries carry the last
    second that a file can have. ``dead``: bytes of the old entries; ``unpacker``: the program that lets the later entry
    win, for people, empty where it is not known. ``private``: those of ``paths`` whose old bytes not everybody might
    read in the running system. ``drops_dead``: superseded entries of earlier edits are dropped.
    """

    paths: frozenset[bytes] = frozenset()
    postdated: frozenset[bytes] = frozenset()
    dead: int = 0
    unpacker: str = ""
    private: frozenset[bytes] = frozenset()
    drops_dead: bool = False


NO_SUPERSEDING = Superseding()


def join_superseding(parts: Iterable[Superseding]) -> Superseding:
    """Return what ``parts``, those of the archives of one file, do together."""
    listed = tuple(parts)
    return Superseding(
        paths=frozenset[bytes]().union(*(part.paths for part in listed)),
        postdated=frozenset[bytes]().union(*(part.postdated for part in listed)),
        dead=sum(part.dead for part in listed),
        private=frozenset[bytes]().union(*(part.private for part in listed)),
        unpacker=next((part.unpacker for part in listed if part.unpacker), ""),
        drops_dead=any(part.drops_dead for part in listed),
    )
