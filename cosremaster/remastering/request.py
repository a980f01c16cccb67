"""What is asked of an image, as it is said, and settled: defaults filled in, texts read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cosremaster.boot_config.request import BootSettings, read_boot_settings
from cosremaster.errors import UsageError
from cosremaster.io.parallel import cpu_count
from cosremaster.layers.address import Address, parse_address
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import AddPath, OverlayItem
from cosremaster.remastering.iso_tree import Rename
from cosremaster.tree.limits import MAX_NUMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be done to an image.

    ``add``: what comes, in order: :class:`AddPath`, a path, text like ``"site/:/opt"``, or things made from
    nothing: :class:`InlineFile`, :class:`Symlink`, :class:`Directory`. ``remove``: patterns of paths in the layer
    that leave before anything comes (``*`` and ``?`` do not cross ``/``, ``**`` does, a backslash takes what
    follows as it is); one that fits nothing is an error unless ``allow_missing``. ``force_type``: what comes may
    replace a thing of another type, a directory with what is in it. ``add_iso``: what comes to the ISO's own tree,
    as ``add``; a file that is there is exchanged. ``remove_iso``: patterns of paths that leave that tree first;
    ``rename_iso``: then other names, ``"/old:/new"`` or a pair (docs/iso-tree.md). ``drop_hfsplus`` allows to give
    up an HFS+ file system over it. ``keep_sums``: leave the lists of sums on it, such as md5sum.txt, as they are,
    though their lines of changed files become wrong. ``layer``: an address as in ``"live.cgz::rootfs.cxz"``, found
    by content when None.
    ``source_date_epoch`` (seconds; the environment's SOURCE_DATE_EPOCH when None) bounds new mtimes.
    ``threads``: as many as there are processors when None. ``xz_preset``: 0 to 9 for what xz has to encode, 6
    when None; ``always_compress``: also what does not shrink.
    ``kernel_args``, ``remove_kernel_args`` and ``replace_kernel_args`` (``"KEY=OLD=NEW"``) change kernel arguments in
    every boot menu (docs/kernel-args.md); ``allow_missing`` goes for those to remove or replace too. ``volume_id``
    and ``volume_date`` (ISO 8601 with time zone, or ``"@seconds"``); ``retarget``: menus that look for the volume by
    what changes follow.
    """

    add: Iterable[str | Path | OverlayItem] = ()
    remove: Iterable[str | bytes] = ()
    add_iso: Iterable[str | Path | OverlayItem] = ()
    remove_iso: Iterable[str | bytes] = ()
    rename_iso: Iterable[str | tuple[str, str]] = ()
    drop_hfsplus: bool = False
    keep_sums: bool = False
    allow_missing: bool = False
    force_type: bool = False
    layer: str | None = None
    threads: int | None = None
    xz_preset: int | None = None
    always_compress: bool = False
    source_date_epoch: int | None = None
    kernel_args: Iterable[str] = ()
    remove_kernel_args: Iterable[str] = ()
    replace_kernel_args: Iterable[str] = ()
    volume_id: str | None = None
    volume_date: str | None = None
    retarget: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """A request with its defaults filled in and its texts read."""

    adds: tuple[OverlayItem, ...]
    removes: tuple[Pattern, ...]
    iso_adds: tuple[OverlayItem, ...]
    iso_removes: tuple[Pattern, ...]
    iso_renames: tuple[Rename, ...]
    wanted: Address | None
    threads: int
    newest: int | None
    settings: BootSettings

    @property
    def layered(self) -> bool:
        """Something is asked of a layer."""
        return bool(self.adds or self.removes or self.wanted is not None)


def settle(request: Request) -> Settled:
    """``request`` with everything said. :raises UsageError: it makes no sense."""
    threads = cpu_count() if request.threads is None else request.threads
    if threads < 1:
        raise UsageError(f"{threads} threads cannot do anything")
    if request.xz_preset is not None and request.xz_preset not in range(10):
        raise UsageError(f"xz has presets 0 to 9, not {request.xz_preset}")
    return Settled(
        adds=tuple(_as_item(item) for item in request.add),
        removes=tuple(Pattern(os.fsencode(path)) for path in request.remove),
        iso_adds=tuple(_as_item(item, "--add-iso") for item in request.add_iso),
        iso_removes=tuple(Pattern(os.fsencode(path)) for path in request.remove_iso),
        iso_renames=tuple(Rename.parse(item) for item in request.rename_iso),
        wanted=None if request.layer is None else parse_address(request.layer),
        threads=threads,
        newest=_newest() if request.source_date_epoch is None else request.source_date_epoch,
        settings=read_boot_settings(
            add=request.kernel_args, remove=request.remove_kernel_args, replace=request.replace_kernel_args,
            volume_id=request.volume_id, volume_date=request.volume_date, retarget=request.retarget,
            allow_missing=request.allow_missing,
        ),
    )  # fmt: skip


def _as_item(item: str | Path | OverlayItem, option: str = "--add") -> OverlayItem:
    if isinstance(item, str):
        return AddPath.parse(item, option)
    return AddPath(item) if isinstance(item, Path) else item


def _newest() -> int | None:
    """SOURCE_DATE_EPOCH (reproducible-builds.org). :raises UsageError: it is set and no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return min(int(text), MAX_NUMBER)
