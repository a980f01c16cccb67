"""The plan of a remaster: everything that is decided before the new image is written.

:func:`plan_remaster` calls one function for each step, in the order of docs/steps.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cosremaster.boot_config.values import BootSettingsPlan
from cosremaster.checksums.names import any_may_hold_checksums
from cosremaster.checksums.values import RenewedLists
from cosremaster.errors import UsageError
from cosremaster.io.descriptors import MIN_HOLE
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.hidden import with_hidden_files
from cosremaster.iso.model import SourceFile, SourceImage
from cosremaster.layers.address import Address
from cosremaster.layers.formats import DeadBytes, PartsUse, Repacking
from cosremaster.progress import ENCODE, PLAN, expect_work
from cosremaster.records import Struct, replace
from cosremaster.remastering.companions import Companions, plan_companions, with_late_companions
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.fat_changes import FatChange, plan_fat_overlays, plan_fats
from cosremaster.remastering.iso_tree import plan_iso_tree
from cosremaster.remastering.layer_index import LayerIndex
from cosremaster.remastering.open import RemasterImage
from cosremaster.remastering.pack import RepackedLayer, with_containers
from cosremaster.remastering.plan_layers import LayerChange, LayerChanges, plan_layers, prepare_overlay
from cosremaster.remastering.request import NormalizedRequest
from cosremaster.remastering.write import plan_result
from cosremaster.tree.superseding import SupersedeMode

if TYPE_CHECKING:
    from cosremaster.boot_memory.live_systems import LiveMemory
    from cosremaster.checksums.renew import ListChange
    from cosremaster.overlay.boot_files import BootFiles
    from cosremaster.overlay.run_outcome import ScriptOutcome
    from cosremaster.remastering.delta import DeltaFacts
    from cosremaster.remastering.prepare import PreparedStream
    from cosremaster.remastering.run_time import RunTime


class RepackSaving(Struct, frozen=True):
    """What a repack of the layer at ``address`` would drop after the changes, and which ``repacking`` is planned.

    ``dead`` is None where it is not counted, in file systems with very many inodes.
    """

    address: Address
    repacking: Repacking
    dead: DeadBytes | None


class RemasterPlan(Struct, frozen=True, kw_only=True):
    """A remaster before it is written: the changed layers, how they were packed, the new image.

    ``iso``: the edits of the ISO's own tree as requested; ``fats``: what changes in FAT file systems on the image, but
    for their boot menus; ``settings``: kernel arguments, volume id and date; ``sums``: the lists of checksums on the
    ISO; ``companions``: other files that follow changed ones; ``live_memory``: what a live
    system takes to boot; ``savings``: what a repack would drop, where :func:`with_savings` counted it; ``runs``: what
    came of scripts. ``origin_size``: bytes of the input, where ``image`` is made from it and not the input itself.
    ``prepared``: of a preparation, what became of each stream. ``delta``: of the delta that was written or planned.
    ``time``: about how long the run will take, where nothing is written. ``sha256``: of the image that was written,
    where that was wanted. ``parts``: what was taken of earlier plans and kept for the run.
    """

    image: RemasterImage
    changes: tuple[LayerChange, ...]
    packed: tuple[RepackedLayer, ...]
    iso: IsoEdits
    fats: tuple[FatChange, ...]
    settings: BootSettingsPlan
    result: ImagePlan
    sums: tuple[ListChange, ...]
    companions: Companions
    live_memory: tuple[LiveMemory, ...]
    warnings: tuple[str, ...]
    savings: tuple[RepackSaving, ...] = ()
    runs: tuple[ScriptOutcome, ...] = ()
    origin_size: int | None = None
    prepared: tuple[PreparedStream, ...] = ()
    delta: DeltaFacts | None = None
    time: RunTime | None = None
    sha256: str = ""
    parts: PartsUse = PartsUse()

    @property
    def input_size(self) -> int:
        """The bytes of the input."""
        return self.image.size if self.origin_size is None else self.origin_size

    @property
    def identical(self) -> bool:
        """The output is the input."""
        if self.origin_size is not None:
            return False
        settings = self.settings
        is_fat_changed = any(change.changes_bytes for change in self.fats)
        is_menu_changed = settings.replaced or settings.areas or settings.overwritten
        return self.iso.is_empty and not (self.packed or is_fat_changed or is_menu_changed)


_NOT_CLEANED = (
    "no layer changes, so the entries that are superseded in one stay, whatever --supersede says (--layer names a layer"
    " whose old entries are to go)"
)


def plan_remaster(
    image: RemasterImage, index: LayerIndex, request: NormalizedRequest, context: RemasterContext
) -> RemasterPlan:
    """Return the plan of the remaster of ``image`` by ``request``; layers are compressed into the context's files.

    ``index``: the layers of ``image``. Raises as the steps do; faults of the user's files come before the long work.
    """
    context.find_boot = partial(_find_boot, image, index)
    context.find_facts = lambda: index.facts
    overlay = prepare_overlay(request, context)
    if index.reads_on_demand:  # most of it stays, and no decoding waits for the disk
        context.start_precopy()  # behind the overlay, which may lie where the output is made
    iso = replace(plan_iso_tree(image, context.source, request.iso_tree(overlay.iso_items)), step=request.step)
    context.warnings.extend(iso.warnings)
    fat_overlays = plan_fat_overlays(image, overlay, iso, request)
    if not request.is_for_layer:
        context.start_precopy(_find_front(image, context.source, iso))
        if request.supersede is SupersedeMode.NEVER and request.as_layer is None:
            context.warnings.add(_NOT_CLEANED)
    change = LayerChanges(iso)
    prepared: tuple[PreparedStream, ...] = ()
    if request.part_size is not None:
        from cosremaster.remastering.prepare import plan_preparation  # noqa: PLC0415 - a base is prepared once

        change, prepared = plan_preparation(image, index, request, iso, context)
    elif request.as_layer is not None:
        from cosremaster.remastering.new_layer import plan_new_layer  # noqa: PLC0415 - few ask for a new layer

        change = plan_new_layer(image, index, request, overlay, iso, context)
        request = request.with_replaced_arguments(change.replaced_arguments)
    elif request.is_for_layer:
        change = plan_layers(image, index, request, overlay, iso, context)
    fats = plan_fats(image, change.iso, fat_overlays, request, context)
    companions = plan_companions(image, fats.edits, change.changes, drop_signatures=request.drop_signatures)
    waiving = replace(request, boot_settings=companions.waived(request.boot_settings))
    settings = plan_settings(image, companions.edits, waiving, context)
    edits = companions.edits.with_contents(settings.replaced).with_areas(settings.areas)
    companions = plan_late_companions(image, companions, edits, request)
    check_boots(image, index, companions.edits, change.changes)
    context.warnings.extend(companions.warnings)
    edits = companions.edits
    checksums = plan_checksums(image, edits, request, context)
    edits = with_checksum_lists(image, edits, checksums.lists)
    result = plan_new_image(image, edits, settings, request, context)
    live_memory = _plan_live_memory(image, index, edits, change.changes, settings)
    expect_work(context.progress, ENCODE, 0)
    expect_work(context.progress, PLAN, 0)
    for warning in context.warnings.messages:
        context.progress.warn(warning)
    return RemasterPlan(
        image=image, changes=change.changes, packed=change.packed, iso=iso, fats=fats.changes, settings=settings,
        result=result, sums=checksums.changes, companions=companions, live_memory=live_memory,
        warnings=context.warnings.messages, runs=tuple(context.outcomes), prepared=prepared,
    )  # fmt: skip


def _find_front(image: RemasterImage, source: ByteSource, edits: IsoEdits) -> int | None:
    """Return how many bytes at the front of ``source`` stay, up to the first file that ``edits`` replace; None: all."""
    if not edits.replaced:
        return None
    replaced = edits.replaced
    own: Iterable[SourceFile] = (file for file in image.files if file.path in replaced)
    files = own if image.volume is None else image.volume.trees[0].find_files(replaced)
    tables = [image.bytes_of(file) for file in files]
    first = [table.pieces[0] for table in tables if table.length >= MIN_HOLE]  # a small one is written over
    starts = [piece.offset for piece in first if isinstance(piece, Range) and piece.source is source]
    return min(starts, default=None)


def _find_boot(image: RemasterImage, index: LayerIndex) -> BootFiles:
    """Return the kernel and the initramfs of the boot entry of ``image`` that starts by itself."""
    from cosremaster.overlay.boot_files import BootFiles  # noqa: PLC0415 - few scripts run in a machine

    line = index.facts.lines[0]
    kernel = next((file for file in image.files if line.kernel and file.path == line.kernel), None)
    trees = tuple(index.facts.tree(initrd) for initrd in reversed(line.initrds))
    return BootFiles(None if kernel is None else image.bytes_of(kernel), trees)


def with_savings(plan: RemasterPlan) -> RemasterPlan:
    """Return ``plan`` with what a repack would drop of each changed layer; the context's files must still be open."""
    packed = {layer.address: layer.packed.table for layer in plan.packed}
    changed = {layer.address: (layer, change) for change in plan.changes for layer in with_containers(change.layer)}
    savings = [
        RepackSaving(layer.address, change.repacking, layer.count_dead_bytes(packed.get(layer.address)))
        for layer, change in changed.values()
        if layer.format.can_repack and layer.parameters.is_identity
    ]
    return replace(plan, savings=tuple(savings))


def _plan_live_memory(
    image: RemasterImage, index: LayerIndex, edits: IsoEdits, changes: Sequence[LayerChange],
    settings: BootSettingsPlan,
) -> tuple[LiveMemory, ...]:  # fmt: skip
    """Return what the boot entries take of a live system in which file systems change; nothing for other images."""
    if not any(change.layer.format.random_access for change in changes):
        return ()
    from cosremaster.remastering.live_memory import plan_live_memory  # noqa: PLC0415 - live images alone

    return plan_live_memory(image, index, edits, changes, menus_change=bool(settings.menus))


def check_boots(image: RemasterImage, index: LayerIndex, edits: IsoEdits, changes: Sequence[LayerChange]) -> None:
    """Check that after ``edits``, which hold ``changes``, no boot brings superseded entries of an initramfs back.

    Menus are not read where nothing but file systems, and layers in archives, changes.
    :raises UnsupportedError: a boot does.
    """
    files = {path for change in changes for path in change.paths}
    for change in changes:
        if change.layer.parent is None and change.layer.format.is_initramfs:
            files.difference_update(change.paths)
    is_inside = edits.replaced.keys() <= files and not (edits.changes_names or edits.areas)
    if image.volume is None or is_inside:
        return
    from cosremaster.remastering import supersede_entries  # noqa: PLC0415 - menus load every language

    changed = {*edits.replaced, *edits.added_by_path}
    supersede_entries.check_boots(image, index.facts, index.facts_after(edits), changed)


def plan_settings(
    image: RemasterImage, edits: IsoEdits, request: NormalizedRequest, context: RemasterContext
) -> BootSettingsPlan:
    """Return what the request's boot settings change, and warn of boot menus that name files which ``edits`` remove.

    :raises UsageError: there are boot settings, but ``image`` has no volume.
    """
    if image.volume is not None and (edits.removed or edits.renamed):
        from cosremaster.boot_config.stale_names import find_stale_names  # noqa: PLC0415 - loads every menu's language

        context.warnings.extend(find_stale_names(image.volume, edits))
    if request.boot_settings.is_empty:
        return BootSettingsPlan()
    if image.volume is None:
        raise UsageError(f"{image.place} is no ISO: it has no boot menus, no volume id and no date")
    from cosremaster.boot_config.change import plan_boot_settings  # noqa: PLC0415 - loads every menu's language

    settings = plan_boot_settings(image.volume, context.source, request.boot_settings, edits)
    context.warnings.extend(settings.warnings)
    return settings


def plan_late_companions(
    image: RemasterImage, companions: Companions, edits: IsoEdits, request: NormalizedRequest
) -> Companions:
    """Return ``companions`` after ``edits``, in which boot menus changed too. Raises as ``with_late_companions``."""
    if image.volume is None or edits.is_empty:
        return replace(companions, edits=edits)
    return with_late_companions(
        companions, image.volume, edits, drop=request.drop_signatures, keep_checksums=request.keep_checksums
    )


def plan_checksums(
    image: RemasterImage, edits: IsoEdits, request: NormalizedRequest, context: RemasterContext
) -> RenewedLists:
    """Return the new lists of checksums on the ISO after ``edits`` of its tree.

    Raises as ``plan_result``, and what reading the files raises.
    """
    if edits.is_empty or image.volume is None:
        return RenewedLists()
    # The implanted MD5 and tagmedia's digests are in no file, and making them reads the whole image.
    plain = replace(image.volume, implanted=None, media_tags=None)
    whole = with_hidden_files(plain, context.source)
    if not any_may_hold_checksums(whole.trees[0]):
        return RenewedLists()
    from cosremaster.checksums.update import update_checksums  # noqa: PLC0415 - only an image with lists needs it

    def make_plan(lists: Mapping[bytes, PieceTable]) -> ImagePlan:
        """Return the plan of the image with these lists."""
        changed = with_checksum_lists(plain, edits, lists)
        return plan_result(plain, context.source, changed, drop_hfsplus=request.drop_hfsplus)

    checksums = update_checksums(whole, edits, make_plan, context.progress, keep=request.keep_checksums)
    context.warnings.extend(checksums.warnings)
    return checksums


def with_checksum_lists(image: SourceImage, edits: IsoEdits, lists: Mapping[bytes, PieceTable]) -> IsoEdits:
    """Return ``edits`` with new bytes for the files at the paths of ``lists``, which are the paths after the edits."""
    old = {edits.new_path(file.path): file.path for file in image.files} if lists else {}
    return edits.with_contents({old.get(path) or path: table for path, table in lists.items()})


def plan_new_image(
    image: RemasterImage, edits: IsoEdits, settings: BootSettingsPlan, request: NormalizedRequest,
    context: RemasterContext,
) -> ImagePlan:  # fmt: skip
    """Return the plan of the new image after ``edits`` of its tree and ``settings``. Raises as ``plan_image``."""
    result = plan_result(
        image, context.source, edits, drop_hfsplus=request.drop_hfsplus, overwritten=settings.overwritten
    )
    context.warnings.extend(result.warnings)
    return result
