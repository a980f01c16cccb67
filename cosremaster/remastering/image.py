"""The whole remaster: an opened image that serves any number of requests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

from msgspec.structs import replace

from cosremaster.boot_config.request import BootSettings
from cosremaster.boot_config.values import BootSettingsPlan
from cosremaster.boot_memory.estimate import MemoryEstimate
from cosremaster.boot_memory.layers import EditedLayer
from cosremaster.boot_memory.needs import estimate_edited_memory, estimate_image_memory
from cosremaster.codecs.base import BlockCache
from cosremaster.errors import ImageError, UsageError, printable
from cosremaster.io.output import Output, check_digest_name
from cosremaster.io.parallel import Worker
from cosremaster.io.source import open_source
from cosremaster.io.spool import Spool
from cosremaster.io.streams import count_chunks, digest_of
from cosremaster.iso.ecma119.sections import MAX_EXTENT
from cosremaster.iso.edits import IsoEdits
from cosremaster.layers.address import Address, parse_address
from cosremaster.layers.cache import index_path, load_index, store_index
from cosremaster.layers.cpio.edit import LIMITS, apply_edits
from cosremaster.layers.cpio.scan import MAX_EXPAND, ScanOptions
from cosremaster.layers.cpio.tree import LayerTree
from cosremaster.layers.find import ImageLayers, choose_layer, find_layers, layers_from_index
from cosremaster.layers.model import Layer
from cosremaster.overlay.items import ReadContext, prepare_items
from cosremaster.overlay.request import OverlayItem
from cosremaster.progress import Progress, SilentProgress
from cosremaster.remastering.iso_tree import IsoTreeRequest, plan_iso_tree
from cosremaster.remastering.pipeline import (
    PackedLayer,
    Packing,
    Plan,
    check_writable,
    format_warnings,
    open_image,
    pack_layer,
    paths_sharing_data,
    plan_checksums,
    plan_overlay,
    plan_result,
    prepack_container_front,
    rebuilt_file,
    repack_containers,
    shadowing_warnings,
    size_warnings,
    with_checksum_lists,
    write_image,
)
from cosremaster.remastering.request import Request, Settled, settle
from cosremaster.remastering.result import Result, result_of
from cosremaster.tree.nodes import Edits


class _Spools(ExitStack):
    """The temporary files of a remaster, in ``folder``: what is packed anew, and the contents of archives."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.packed = self.enter_context(Spool(folder, MAX_EXTENT))
        self.contents = self.enter_context(Spool(folder))


def _packed(tree: LayerTree, edits: Edits, packing: Packing, folder: Path) -> tuple[PackedLayer, ...]:
    """The layer of ``tree`` after ``edits``, packed, and what holds it. Temporary data go to ``folder``."""
    foreseen = prepack_container_front(tree.layer, packing, folder)
    try:
        inner = pack_layer(tree.layer, apply_edits(tree, edits), packing)
    finally:
        foreseen.join()
    return repack_containers(tree.layer, inner, packing)


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
        self._effort = ScanOptions(max_expand=max_expand)
        self._file = open_source(self.path)
        try:
            self.image = open_image(self._file)
        except BaseException:
            self._file.close()
            raise
        self._found: dict[bytes | None, ImageLayers] = {}
        self._trees: dict[Address, LayerTree] = {}
        self._memos: dict[Address, BlockCache] = {}
        self._remembering: Worker[bool] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> OpenedImage:
        return self

    def __exit__(self, *_: object) -> None:
        self._await()
        self._file.close()

    def _await(self) -> None:
        """Waits until what indexing learned is kept."""
        if self._remembering is not None:
            self._remembering.join()

    @property
    def remembered_at(self) -> Path | None:
        """The file that remembers this image's index; None where there is none."""
        self._await()
        path = index_path(self._file)
        return path if os.path.exists(path) else None  # of what cannot be looked at too

    @property
    def _is_known(self) -> bool:
        """True when it will take no time to know the layers, most likely."""
        return bool(self._found) or (self._remember and self.remembered_at is not None)

    def address_in(self, layer: str) -> Address:
        """The layer that ``layer`` means in this image. A bare initramfs is the first container itself.

        :raises UsageError: it is no address.
        """
        address = parse_address(layer)
        name = self.image.files[0].path if self.image.volume is None else None
        return address if name is None or address[0] == name else (name, *address)

    def expect(self, name: str, digits: str, *, progress: Progress | None = None) -> None:
        """Reads the whole image and compares its digest ``name`` with the hexadecimal ``digits``.

        :raises ImageError: it has another. :raises UsageError: there is no such digest.
        """
        check_digest_name(name)
        with (progress or SilentProgress()).step(f"check {name}", self._file.size) as advance:
            found = digest_of(name, count_chunks(self._file.chunks(0, self._file.size), advance)).hex()
        if found != digits.lower():
            raise ImageError(f"its {name} is {found}, and {digits.lower()} was expected", self._file.place)

    def layers(self, layer: str | None = None, progress: Progress | None = None) -> ImageLayers:
        """The layers of the image, or of the file that ``layer`` names. Raises as ``find_layers``."""
        wanted = None if layer is None else self.address_in(layer)
        key = None if wanted is None else wanted[0]
        with self._lock:
            if key not in self._found:
                self._found[key] = self._find(wanted, progress or SilentProgress())
            return self._found[key]

    def _tree(self, layer: Layer) -> LayerTree:
        """The file system in ``layer``, one for all remasters."""
        with self._lock:
            if layer.address not in self._trees:
                self._trees[layer.address] = LayerTree(layer)
            return self._trees[layer.address]

    def _find(self, wanted: Address | None, progress: Progress) -> ImageLayers:
        """The layers, from a remembered index where one fits."""
        known = load_index(self._file, self.image, check=self._check_index) if self._remember else None
        if known is not None:
            files = [one for one in known.files if wanted is None or one.path == wanted[0]]
            if files or wanted is None:
                return layers_from_index(self.image, files, known.others)
        found = find_layers(self.image, wanted, progress, self._effort)
        if self._remember and wanted is None and not found.refusals:
            self._remembering = Worker(lambda: store_index(self._file, found.indexed_files, found.foreign_files))
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
        progress = progress or SilentProgress()
        settled = settle(request)
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
            plan = self._plan(request, settled, spools, progress, lambda: output.start_precopy(self._file))
            if report_output is not None:
                from cosremaster.remastering.change_report import report_chunks  # noqa: PLC0415 - few ask for one

                report_output.write_chunks(report_chunks(plan, self._file))
            proof = write_image(self.image, plan.result, output, self._file, progress)
            if report_output is not None:
                report_output.publish()
        return result_of(plan, proof)

    def plan(self, request: Request, *, progress: Progress | None = None) -> Plan:
        """What :meth:`remaster` would write. Packs what has to be packed, into a temporary file that goes away."""
        import tempfile  # noqa: PLC0415 - a remaster goes without

        with _Spools(Path(tempfile.gettempdir())) as spools:
            return self._plan(request, settle(request), spools, progress or SilentProgress(), lambda: None)

    def _plan(
        self, request: Request, settled: Settled, spools: _Spools, progress: Progress, begin: Callable[[], None]
    ) -> Plan:
        """``begin`` is called when nothing takes long any more but what has to be packed anew."""
        # What is wrong with the additions is told before the long work.
        notes, iso_notes = list[str](), list[str]()
        context = ReadContext(
            max_mtime=settled.newest, limits=LIMITS, spool=spools.contents, progress=progress,
            warn=notes.append,
        )  # fmt: skip
        items = prepare_items(settled.adds, context)
        iso_context = replace(context, limits=None, option="--add-iso", warn=iso_notes.append)
        iso_items = prepare_items(settled.iso_adds, iso_context)
        grafts = IsoTreeRequest(
            add=iso_items, remove=settled.iso_removes, rename=settled.iso_renames,
            allow_missing=request.allow_missing, force_type=request.force_type,
        )  # fmt: skip
        iso = plan_iso_tree(self.image, self._file, grafts)
        soon = not settled.layered or self._is_known
        if soon:
            begin()
        chosen: Layer | None = None
        edits = Edits(frozenset(), (), (), (), ())
        packed: tuple[PackedLayer, ...] = ()
        exchanged = dict(iso.replaced)
        memory: MemoryEstimate | None = None
        if settled.layered:
            found = self.layers(request.layer, progress)
            if not soon:
                begin()
            wanted = None if request.layer is None else self.address_in(request.layer)
            chosen = choose_layer(self.image, found, wanted)
            tree = self._tree(chosen)
            edits = plan_overlay(
                tree, items, settled.removes, allow_missing=request.allow_missing, force_type=request.force_type
            )
            if not edits.is_empty:
                check_writable(chosen)
                packing = Packing(
                    spool=spools.packed, threads=settled.threads, progress=progress, preset=request.xz_preset,
                    always_compress=request.always_compress, memos=self._memos,
                )  # fmt: skip
                packed = _packed(tree, edits, packing, spools.folder)
                names = paths_sharing_data(self.image, chosen.address[0])
                if exchanged.keys() & set(names):
                    raise UsageError(
                        f"{printable(chosen.address[0])} cannot be changed inside and be exchanged as a whole"
                    )
                if iso.new_path(chosen.address[0]) is None:
                    raise UsageError(f"{printable(chosen.address[0])} cannot be changed inside and be removed")
                exchanged |= dict.fromkeys(names, rebuilt_file(chosen, packed[-1]))
                notes.extend(format_warnings(chosen))
                edited = EditedLayer(chosen, edits, packed[0].packed.table.length)
                memory = estimate_edited_memory(found.layers, edited, exchanged[chosen.address[0]].length)
            else:
                memory = estimate_image_memory(self.image, found.layers).get(chosen.address[0])
            notes.extend(shadowing_warnings(chosen, found, edits))
        settings = self._settings(settled.settings, replace(iso, replaced=exchanged))
        whole = replace(iso, replaced=exchanged).with_contents(settings.replaced)
        sums = plan_checksums(
            self.image, self._file, whole, progress, drop_hfsplus=request.drop_hfsplus, keep=request.keep_sums
        )
        result = plan_result(
            self.image, self._file, with_checksum_lists(self.image, whole, sums.lists),
            drop_hfsplus=request.drop_hfsplus, overwritten=settings.overwritten,
        )  # fmt: skip
        warnings = (
            *notes, *iso_notes, *iso.warnings, *self._stale_names(whole), *edits.warnings, *settings.warnings,
            *result.warnings, *size_warnings(packed), *sums.warnings,
        )  # fmt: skip
        for warning in warnings:
            progress.warn(warning)
        return Plan(
            image=self.image, layer=chosen, edits=edits, packed=packed, iso=iso, settings=settings, result=result,
            sums=sums.changes, memory=memory, warnings=warnings,
        )  # fmt: skip

    def _stale_names(self, edits: IsoEdits) -> Iterator[str]:
        """Boot menus that name what leaves the ISO's tree."""
        if self.image.volume is not None and (edits.removed or edits.renamed):
            from cosremaster.boot_config.stale_names import find_stale_names  # noqa: PLC0415 - loads every menu's language

            yield from find_stale_names(self.image.volume, edits)

    def _settings(self, settings: BootSettings, edits: IsoEdits) -> BootSettingsPlan:
        """:raises UsageError: a bare initramfs has no boot menus and no volume."""
        if settings.is_empty:
            return BootSettingsPlan()
        volume = self.image.volume
        if volume is None:
            raise UsageError(f"{self.path} is no ISO: it has no boot menus, no volume id and no date")
        from cosremaster.boot_config.change import plan_boot_settings  # noqa: PLC0415 - loads every menu's language

        return plan_boot_settings(volume, self._file, settings, edits)


def open(source: str | Path, *, remember: bool = True, check_index: bool = False) -> OpenedImage:  # noqa: A001
    """The image ``source``, opened, as :class:`OpenedImage` tells.

    :raises ImageError: it cannot be read, or is no ISO 9660 image.
    """
    return OpenedImage(source, remember=remember, check_index=check_index)


def remaster(
    source: str | Path,
    target: str | Path,
    *,
    add: Iterable[str | Path | OverlayItem] = (),
    remove: Iterable[str | bytes] = (),
    add_iso: Iterable[str | Path | OverlayItem] = (),
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
