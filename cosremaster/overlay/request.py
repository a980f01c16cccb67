"""What the user asked to add, as text, and as additions once it was looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosremaster.errors import Place, SizeError, UsageError, show
from cosremaster.overlay.merge import Addition
from cosremaster.overlay.scan import scan


@dataclass(frozen=True, slots=True)
class Add:
    """A file or directory to be added. ``dest``: absolute in the layer; None: a directory's contents at ``/``."""

    source: str | Path
    dest: str | None = None

    @classmethod
    def parse(cls, text: str, option: str = "--add") -> Add:
        """``SRC[:DEST]``, split at the last ``:/``. :raises UsageError: nothing before it."""
        source, colon, dest = text.rpartition(":/")
        if not colon:
            source, dest = text, ""
        if not source:
            raise UsageError(f"{option} {text!r}: what should be added?")
        return cls(source, "/" + dest if colon else None)


def read_addition(
    add: Add, newest: int | None, largest: int | None, option: str = "--add"
) -> tuple[Addition, tuple[str, ...]]:
    """``add`` scanned on this machine, and warnings. ``newest``: as for :func:`scan`; ``largest``: None for no limit.

    :raises UsageError: a file without a destination, or one that is not absolute or holds ``..``.
    :raises OverlayError: missing, unreadable, or of a kind that cannot be added.
    :raises SizeError: a file of more than ``largest`` bytes.
    """
    source = os.fsencode(add.source)
    found = scan(source, newest)
    if add.dest is None and found.single:
        raise UsageError(
            f"{option} {os.fsdecode(source)}: say where the file goes, as in {os.fsdecode(source)}:/etc/ (only a"
            " directory goes without)"
        )
    dest = os.fsencode(add.dest or "/")
    parts = [part for part in dest.split(b"/") if part not in (b"", b".")]
    if not dest.startswith(b"/") or b".." in parts or b"\0" in dest:
        raise UsageError(f"{option} {show(source)}:{show(dest)}: DEST must be an absolute path without ..")
    for node in found.nodes:
        place = Place().inside(source) if found.single else Place().inside(source).inside(node.path)
        if node.content is not None and largest is not None and node.content.size > largest:
            raise SizeError(
                f"{node.content.size:,} bytes do not fit a cpio archive (4 GiB - 1 at most); put the file on the"
                " ISO's own file tree instead",
                place,
            )
    into = found.single and dest.endswith(b"/")
    addition = Addition(found.nodes, b"/".join(parts), found.single, into, os.fsdecode(source))
    return addition, found.warnings


def read_additions(
    adds: Sequence[Add], newest: int | None, largest: int | None, option: str = "--add"
) -> tuple[tuple[Addition, ...], tuple[str, ...]]:
    """All of ``adds`` in order, and all warnings. Raises as :func:`read_addition`."""
    found = [read_addition(add, newest, largest, option) for add in adds]
    return tuple(addition for addition, _ in found), tuple(line for _, lines in found for line in lines)
