"""The kinds of overlay items, and the first of their two phases.

An item is a value that the user makes (:mod:`cosremaster.overlay.request`). It becomes nodes in two phases:

1. :func:`prepare_items` reads and checks the user's files, before any long work on the image begins.
2. :meth:`PreparedItem.additions` makes the nodes when the file system that they go to is known.

A new kind of item is a subclass of :class:`OverlayItem`, a function that prepares it, and a line in :data:`PREPARERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cosremaster.errors import Place, UsageError
from cosremaster.io.spool import Spool
from cosremaster.overlay.addition import PreparedItem
from cosremaster.overlay.request import AddPath, Directory, InlineFile, OverlayItem, RunScript, Symlink
from cosremaster.progress import Progress
from cosremaster.records import Struct
from cosremaster.tree.limits import Limits

if TYPE_CHECKING:
    from cosremaster.overlay.boot_files import BootFiles
    from cosremaster.overlay.run_outcome import ScriptOutcome


class ReadContext(Struct, frozen=True, kw_only=True):
    """Limits and helpers for reading the user's files.

    ``max_mtime``: seconds since 1970; files get no later modification time (SOURCE_DATE_EPOCH); None for no limit.
    ``limits``: of the layer that the files go into; None for the ISO's own tree. ``spool`` takes the contents of
    archives. ``warn`` is called with each warning. ``option``: the command line option that errors name. ``oversized``:
    where the layer is not known yet, takes size and place of each file that does not keep ``limits``, the strictest.
    ``outcomes`` takes what came of each script that ran. ``find_boot`` returns what the image boots, for scripts in a
    machine.
    """

    max_mtime: int | None
    limits: Limits | None
    spool: Spool
    progress: Progress
    warn: Callable[[str], None]
    option: str = "--add"
    oversized: list[tuple[int, Place]] | None = None
    outcomes: list[ScriptOutcome] | None = None
    find_boot: Callable[[], BootFiles] | None = None

    def check_file_size(self, size: int, place: Place) -> None:
        """Check that a file of ``size`` bytes fits. :raises SizeError: it does not."""
        if self.limits is None:
            return
        if self.oversized is not None and size > self.limits.max_file_size:
            self.oversized.append((size, place))
            return
        self.limits.check_file_size(size, place)


PREPARERS: dict[type[OverlayItem], str] = {
    AddPath: "cosremaster.overlay.add_path:prepare_path",
    InlineFile: "cosremaster.overlay.inline:prepare_file",
    Symlink: "cosremaster.overlay.inline:prepare_symlink",
    Directory: "cosremaster.overlay.inline:prepare_directory",
    RunScript: "cosremaster.overlay.run_script:prepare_script",
}
"""For each kind of item the function ``(item, context) -> PreparedItem``, as ``module:name``; loaded on first use."""


def prepare_items(items: Iterable[OverlayItem], context: ReadContext) -> tuple[PreparedItem, ...]:
    """Return all ``items`` prepared, in order. Raises as :func:`prepare_item`."""
    return tuple(prepare_item(item, context) for item in items)


def prepare_item(item: OverlayItem, context: ReadContext) -> PreparedItem:
    """Read and check the files of ``item``.

    :raises UsageError: the item contradicts itself: a file without a destination, a destination that is not absolute
        or holds ``..``, an unknown owner or mode, or a value of a type that :data:`PREPARERS` does not list.
    :raises OverlayError: a file is missing, unreadable, damaged, or of a type that cannot be added.
    :raises SizeError: a file or an archive is too large.
    """
    if type(item) not in PREPARERS:
        raise UsageError(f"{item!r} cannot be added: it is no kind of item that is known")
    module, _, name = PREPARERS[type(item)].partition(":")
    prepare: Callable[[OverlayItem, ReadContext], PreparedItem] = getattr(importlib.import_module(module), name)
    return prepare(item, context)
