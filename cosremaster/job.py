"""The whole remaster: a request, an opened image that serves any number of them, and what came of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from cosremaster import cpio
from cosremaster.bare import is_bare
from cosremaster.codecs.base import Memo
from cosremaster.errors import ImageError, UsageError, show
from cosremaster.files import FileSource, Spool
from cosremaster.grafts import Grafts, Rename, plan_grafts
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.sections import MAX_EXTENT
from cosremaster.layers.address import Address, format_address, parse_address
from cosremaster.layers.edit import apply_edits
from cosremaster.layers.index import Layer
from cosremaster.layers.scan import MAX_EXPAND, Effort
from cosremaster.layers.tree import LayerTree
from cosremaster.memory.estimate import Estimate
from cosremaster.memory.layers import Edited
from cosremaster.memory.needs import memory_need, memory_needs
from cosremaster.nodes import Action, Edits
from cosremaster.output import Output, check_digest_name
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.read import Reading, read_additions
from cosremaster.overlay.request import Add, Item
from cosremaster.parallel import cores
from cosremaster.pipeline import (
    Found,
    PackedLayer,
    Packing,
    Plan,
    check_writable,
    choose_layer,
    find_layers,
    form_warnings,
    found_again,
    open_image,
    pack_holders,
    pack_layer,
    plan_overlay,
    plan_result,
    plan_sums,
    row_warnings,
    sharing,
    size_warnings,
    whole_file,
    with_lists,
    write_image,
)
from cosremaster.progress import Progress, Silent
from cosremaster.remembered import index_path, recall, remember
from cosremaster.reports.changes import report_chunks
from cosremaster.settings.request import Settings, read_settings
from cosremaster.settings.values import MenuChange, SettingsPlan
from cosremaster.streams import counted, digest_of
from cosremaster.sums.renew import ListChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be done to an image.

    ``add``: what comes, in order: :class:`Add`, a path, text like ``"site/:/opt"``, or things made from nothing:
    :class:`Inline`, :class:`Link`, :class:`Directory`. ``remove``: patterns of paths in the layer that leave before
    anything comes (``*`` and ``?`` do not cross ``/``, ``**`` does, a backslash takes what follows as it is); one
    that fits nothing is an error unless ``allow_missing``. ``force_type``: what comes may replace a thing of another
    type, a directory with what is in it. ``add_iso``: :class:`Add`, paths or text for files of the ISO's own tree,
    which are exchanged; ``drop_hfsplus`` allows to give up an HFS+ file system over that tree. ``keep_sums``: leave the
    lists of sums on it, such as md5sum.txt, as they are, though their lines of changed files become wrong. ``layer``:
    an address as in ``"live.cgz::rootfs.cxz"``, found by content when None.
    ``source_date_epoch`` (seconds; the environment's SOURCE_DATE_EPOCH when None) bounds new mtimes.
    ``threads``: as many as there are processors when None. ``xz_preset``: 0 to 9 for what xz has to encode, 6
    when None; ``always_compress``: also what does not shrink.
    ``kernel_args``, ``remove_kernel_args`` and ``replace_kernel_args`` (``"KEY=OLD=NEW"``) change kernel arguments in
    every boot menu (docs/kernel-args.md); ``allow_missing`` goes for those to remove or replace too. ``volume_id``
    and ``volume_date`` (ISO 8601 with time zone, or ``"@seconds"``); ``retarget``: menus that look for the volume by
    what changes follow.
    """

    add: Iterable[str | Path | Item] = ()
    remove: Iterable[str | bytes] = ()
    add_iso: Iterable[str | Path | Item] = ()
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
class _Settled:
    """A request with its defaults filled in and its texts read."""

    adds: tuple[Item, ...]
    removes: tuple[Pattern, ...]
    iso_adds: tuple[Item, ...]
    iso_removes: tuple[Pattern, ...]
    iso_renames: tuple[Rename, ...]
    wanted: Address | None
    threads: int
    newest: int | None
    settings: Settings

    @property
    def layered(self) -> bool:
        """Something is asked of a layer."""
        return bool(self.adds or self.removes or self.wanted is not None)


class _Spools(ExitStack):
    """The temporary files of a remaster, in ``folder``: what is packed anew, and the contents of archives."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.packed = self.enter_context(Spool(folder, MAX_EXTENT))
        self.contents = self.enter_context(Spool(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a remaster did. Paths are bytes, relative to the layer's root; sizes are bytes.

    Those that begin with ``iso_`` are of the ISO's own tree; ``iso_renamed`` are pairs of the old and the new path.
    ``menus``: the boot menus whose kernel arguments were asked to change, or that look for the volume by another name
    now; ``sums``: what changed in lists of sums on the ISO. ``memory``: what it takes to boot the file that holds the
    layer (docs/memory.md), where that is an initramfs.
    ``packed``: the layers packed again, the inner first, with how many of their compressed bytes were kept.
    ``proof``: what was found true of the finished image, a line each. ``identical``: nothing had to change,
    the output is the input byte for byte.
    """

    layer: str | None
    added: tuple[bytes, ...] = ()
    replaced: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    unchanged: tuple[bytes, ...] = ()
    parents: tuple[bytes, ...] = ()
    iso_added: tuple[bytes, ...] = ()
    iso_removed: tuple[bytes, ...] = ()
    iso_renamed: tuple[tuple[bytes, bytes], ...] = ()
    iso_exchanged: tuple[bytes, ...] = ()
    iso_unchanged: tuple[bytes, ...] = ()
    menus: tuple[MenuChange, ...] = ()
    sums: tuple[ListChange, ...] = ()
    input_size: int
    output_size: int
    layer_file: str | None = None
    layer_file_size: int = 0
    packed: tuple[PackedLayer, ...] = ()
    memory: Estimate | None = None
    warnings: tuple[str, ...] = ()
    proof: tuple[str, ...]
    identical: bool


class OpenedImage:
    """An image that was opened once and serves any number of remasters, from several threads.

    Its layers are indexed when first needed, once. Closes with its context. ``remember``: use and keep what
    indexing learned in the user's cache directory; ``check_index``: before using it, compare the SHA-256 of the
    files of the image that it describes. ``max_expand``: a layer that expands by more is taken for a bomb.
    """

    def __init__(
        self, source: str | Path, *, remember: bool = True, check_index: bool = False, max_expand: int = MAX_EXPAND
    ) -> None:
        self.path = Path(source)
        self._remember = remember
        self._check_index = check_index
        self._effort = Effort(max_expand=max_expand)
        self._file = FileSource(self.path)
        try:
            self.image = open_image(self._file)
        except BaseException:
            self._file.close()
            raise
        self._found: dict[bytes | None, Found] = {}
        self._trees: dict[Address, LayerTree] = {}
        self._memos: dict[Address, Memo] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> OpenedImage:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def remembered_at(self) -> Path | None:
        """The file that remembers this image's index; None where there is none."""
        path = index_path(self._file)
        return path if path.exists() else None

    def address_in(self, layer: str) -> Address:
        """The layer that ``layer`` means in this image. A bare initramfs is the first container itself.

        :raises UsageError: it is no address.
        """
        address = parse_address(layer)
        name = self.image.files[0].path if is_bare(self.image) else None
        return address if name is None or address[0] == name else (name, *address)

    def expect(self, name: str, digits: str, *, progress: Progress | None = None) -> None:
        """Reads the whole image and compares its digest ``name`` with the hexadecimal ``digits``.

        :raises ImageError: it has another. :raises UsageError: there is no such digest.
        """
        check_digest_name(name)
        with (progress or Silent()).step(f"check {name}", self._file.size) as advance:
            found = digest_of(name, counted(self._file.chunks(0, self._file.size), advance)).hex()
        if found != digits.lower():
            raise ImageError(f"its {name} is {found}, and {digits.lower()} was expected", self._file.place)

    def layers(self, layer: str | None = None, progress: Progress | None = None) -> Found:
        """The layers of the image, or of the file that ``layer`` names. Raises as ``find_layers``."""
        wanted = None if layer is None else self.address_in(layer)
        key = None if wanted is None else wanted[0]
        with self._lock:
            if key not in self._found:
                self._found[key] = self._find(wanted, progress or Silent())
            return self._found[key]

    def _tree(self, layer: Layer) -> LayerTree:
        """The file system in ``layer``, one for all remasters."""
        with self._lock:
            if layer.address not in self._trees:
                self._trees[layer.address] = LayerTree(layer)
            return self._trees[layer.address]

    def _find(self, wanted: Address | None, progress: Progress) -> Found:
        """The layers, from a remembered index where one fits."""
        known = recall(self._file, self.image, check=self._check_index) if self._remember else None
        if known is not None:
            files = [one for one in known.files if wanted is None or one.path == wanted[0]]
            if files or wanted is None:
                return found_again(self.image, files, known.others)
        found = find_layers(self.image, wanted, progress, self._effort)
        if self._remember and wanted is None and not found.refused:
            remember(self._file, found.files, found.others)
        return found

    def remaster(
        self,
        target: str | Path,
        request: Request,
        *,
        force: bool = False,
        digest: str | None = None,
        report: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """Writes the image to ``target`` as ``request`` wants it.

        ``force`` replaces an existing target. ``digest`` (``sha256`` or ``md5``) writes ``TARGET.sha256`` beside
        it, as sha256sum does. ``report``: a file for what happened to each path, as JSON (docs/report.md).

        :raises CosremasterError: one of its kinds; the target is then not there.
        """
        progress = progress or Silent()
        settled = _settle(request)
        if digest is not None:
            check_digest_name(digest)
        told = None if report is None else Path(report)
        for other in (target, f"{target}.{digest}"):
            if told is not None and os.path.realpath(told) == os.path.realpath(other):
                raise UsageError(f"{other} cannot be the report too")
        with (
            Output(Path(target), (self.path,), force=force, digest=digest) as output,
            nullcontext() if told is None else Output(told, (self.path,), force=force) as report_output,
            _Spools(output.folder) as spools,
        ):
            plan = self._plan(request, settled, spools, progress)
            if report_output is not None:
                report_output.write_chunks(report_chunks(plan))
            proof = write_image(self.image, plan.result, output, self._file, progress)
            if report_output is not None:
                report_output.publish()
        return _result(plan, proof)

    def plan(self, request: Request, *, progress: Progress | None = None) -> Plan:
        """What :meth:`remaster` would write. Packs what has to be packed, into a temporary file that goes away."""
        import tempfile  # noqa: PLC0415 - a remaster goes without

        with _Spools(Path(tempfile.gettempdir())) as spools:
            return self._plan(request, _settle(request), spools, progress or Silent())

    def _plan(self, request: Request, settled: _Settled, spools: _Spools, progress: Progress) -> Plan:
        # What is wrong with the additions is told before the long work.
        reading = Reading(newest=settled.newest, largest=cpio.MAX_FIELD, spool=spools.contents, progress=progress)
        additions, notes = read_additions(settled.adds, reading)
        iso_reading = replace(reading, largest=None, option="--add-iso")
        iso_additions, iso_notes = read_additions(settled.iso_adds, iso_reading)
        grafts = Grafts(
            add=iso_additions, remove=settled.iso_removes, rename=settled.iso_renames,
            allow_missing=request.allow_missing, force_type=request.force_type,
        )  # fmt: skip
        iso = plan_grafts(self.image, self._file, grafts)
        chosen: Layer | None = None
        edits = Edits(frozenset(), (), (), (), ())
        packed: tuple[PackedLayer, ...] = ()
        exchanged = dict(iso.exchanged)
        memory: Estimate | None = None
        if settled.layered:
            found = self.layers(request.layer, progress)
            wanted = None if request.layer is None else self.address_in(request.layer)
            chosen = choose_layer(self.image, found, wanted)
            tree = self._tree(chosen)
            edits = plan_overlay(
                tree, additions, settled.removes, allow_missing=request.allow_missing, force_type=request.force_type
            )
            if not edits.empty:
                check_writable(chosen)
                packing = Packing(
                    spool=spools.packed, threads=settled.threads, progress=progress, preset=request.xz_preset,
                    always_compress=request.always_compress, memos=self._memos,
                )  # fmt: skip
                packed = pack_holders(chosen, pack_layer(chosen, apply_edits(tree, edits), packing), packing)
                names = sharing(self.image, chosen.address[0])
                if exchanged.keys() & set(names):
                    raise UsageError(f"{show(chosen.address[0])} cannot be changed inside and be exchanged as a whole")
                if iso.new_path(chosen.address[0]) is None:
                    raise UsageError(f"{show(chosen.address[0])} cannot be changed inside and be removed")
                exchanged |= dict.fromkeys(names, whole_file(chosen, packed[-1]))
                notes = (*notes, *form_warnings(chosen))
                edited = Edited(chosen, edits, packed[0].packed.table.length)
                memory = memory_need(found.layers, edited, exchanged[chosen.address[0]].length)
            else:
                memory = memory_needs(self.image, found.layers).get(chosen.address[0])
            notes = (*notes, *row_warnings(chosen, found, edits))
        settings = self._settings(settled.settings, replace(iso, exchanged=exchanged))
        whole = replace(iso, exchanged=exchanged).with_bytes(settings.exchanged)
        sums = plan_sums(
            self.image, self._file, whole, progress, drop_hfsplus=request.drop_hfsplus, keep=request.keep_sums
        )
        result = plan_result(
            self.image, self._file, with_lists(self.image, whole, sums.lists), drop_hfsplus=request.drop_hfsplus,
            overwritten=settings.overwritten,
        )  # fmt: skip
        warnings = (
            *notes, *iso_notes, *iso.warnings, *edits.warnings, *settings.warnings, *result.warnings,
            *size_warnings(packed), *sums.warnings,
        )  # fmt: skip
        for warning in warnings:
            progress.warn(warning)
        return Plan(
            image=self.image, layer=chosen, edits=edits, packed=packed, iso=iso, settings=settings, result=result,
            sums=sums.told, memory=memory, warnings=warnings,
        )  # fmt: skip

    def _settings(self, settings: Settings, edits: IsoEdits) -> SettingsPlan:
        """:raises UsageError: a bare initramfs has no boot menus and no volume."""
        if is_bare(self.image) and not settings.empty:
            raise UsageError(f"{self.path} is no ISO: it has no boot menus, no volume id and no date")
        if settings.empty:
            return SettingsPlan()
        from cosremaster.settings.change import plan_settings  # noqa: PLC0415 - loads every menu's language

        return plan_settings(self.image, self._file, settings, edits)


def open(source: str | Path, *, remember: bool = True, check_index: bool = False) -> OpenedImage:  # noqa: A001
    """The image ``source``, opened, as :class:`OpenedImage` tells.

    :raises ImageError: it cannot be read, or is no ISO 9660 image.
    """
    return OpenedImage(source, remember=remember, check_index=check_index)


def remaster(
    source: str | Path,
    target: str | Path,
    *,
    add: Iterable[str | Path | Item] = (),
    remove: Iterable[str | bytes] = (),
    add_iso: Iterable[str | Path | Item] = (),
    remove_iso: Iterable[str | bytes] = (),
    rename_iso: Iterable[str | tuple[str, str]] = (),
    drop_hfsplus: bool = False,
    keep_sums: bool = False,
    allow_missing: bool = False,
    force_type: bool = False,
    layer: str | None = None,
    force: bool = False,
    threads: int | None = None,
    xz_preset: int | None = None,
    always_compress: bool = False,
    source_date_epoch: int | None = None,
    kernel_args: Iterable[str] = (),
    remove_kernel_args: Iterable[str] = (),
    replace_kernel_args: Iterable[str] = (),
    volume_id: str | None = None,
    volume_date: str | None = None,
    retarget: bool = False,
    digest: str | None = None,
    report: str | Path | None = None,
    remember: bool = True,
    check_index: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Writes the image ``source`` to ``target`` with files added to its root filesystem.

    The arguments are those of :class:`Request`, :class:`OpenedImage` and :meth:`OpenedImage.remaster`.

    :raises CosremasterError: one of its kinds (docs/exit-codes.md); the target is then not there.
    """
    request = Request(
        add=add, remove=remove, allow_missing=allow_missing, force_type=force_type, add_iso=add_iso,
        remove_iso=remove_iso, rename_iso=rename_iso, drop_hfsplus=drop_hfsplus, keep_sums=keep_sums, layer=layer,
        threads=threads, xz_preset=xz_preset, always_compress=always_compress, source_date_epoch=source_date_epoch,
        kernel_args=kernel_args, remove_kernel_args=remove_kernel_args, replace_kernel_args=replace_kernel_args,
        volume_id=volume_id, volume_date=volume_date, retarget=retarget,
    )  # fmt: skip
    with open(source, remember=remember, check_index=check_index) as image:
        return image.remaster(target, request, force=force, digest=digest, report=report, progress=progress)


def _settle(request: Request) -> _Settled:
    """:raises UsageError: the request makes no sense."""
    threads = cores() if request.threads is None else request.threads
    if threads < 1:
        raise UsageError(f"{threads} threads cannot do anything")
    if request.xz_preset is not None and request.xz_preset not in range(10):
        raise UsageError(f"xz has presets 0 to 9, not {request.xz_preset}")
    return _Settled(
        adds=tuple(_as_item(item) for item in request.add),
        removes=tuple(Pattern(os.fsencode(path)) for path in request.remove),
        iso_adds=tuple(_as_item(item, "--add-iso") for item in request.add_iso),
        iso_removes=tuple(Pattern(os.fsencode(path)) for path in request.remove_iso),
        iso_renames=tuple(Rename.parse(item) for item in request.rename_iso),
        wanted=None if request.layer is None else parse_address(request.layer),
        threads=threads,
        newest=_newest() if request.source_date_epoch is None else request.source_date_epoch,
        settings=read_settings(
            add=request.kernel_args, remove=request.remove_kernel_args, replace=request.replace_kernel_args,
            volume_id=request.volume_id, volume_date=request.volume_date, retarget=request.retarget,
            allow_missing=request.allow_missing,
        ),
    )  # fmt: skip


def _result(plan: Plan, proof: tuple[str, ...]) -> Result:
    image, layer, edits = plan.image, plan.layer, plan.edits
    outer = None if layer is None else layer.address[0]
    sizes = {file.path: file.size for file in image.files} | dict(plan.result.changed)
    return Result(
        layer=None if layer is None else format_address(layer.address),
        added=edits.paths(Action.ADDED), replaced=edits.paths(Action.REPLACED), removed=edits.removed,
        unchanged=edits.unchanged, parents=edits.paths(Action.PARENT),
        iso_added=tuple(node.path for node in plan.iso.added), iso_removed=plan.iso.removed,
        iso_renamed=tuple(plan.iso.renamed.items()), iso_exchanged=tuple(sorted(plan.iso.exchanged)),
        iso_unchanged=plan.iso.unchanged, menus=plan.settings.menus, sums=plan.sums,
        input_size=image.size, output_size=plan.result.table.length,
        layer_file=None if outer is None else show(outer), layer_file_size=0 if outer is None else sizes[outer],
        packed=plan.packed, memory=plan.memory, warnings=plan.warnings, proof=proof, identical=plan.identical,
    )  # fmt: skip


def _as_item(item: str | Path | Item, option: str = "--add") -> Item:
    if isinstance(item, str):
        return Add.parse(item, option)
    return Add(item) if isinstance(item, Path) else item


def _newest() -> int | None:
    """SOURCE_DATE_EPOCH (reproducible-builds.org). :raises UsageError: it is set and no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return min(int(text), cpio.MAX_FIELD)
