"""The plan of a remaster: everything that is decided before the new image is written.

:func:`plan_remaster` calls one function for each step, in the order of docs/steps.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.boot_config.values import BootSettingsPlan
from cosremaster.boot_memory.estimate import InitramfsSizes, MemoryEstimate, estimate_memory
from cosremaster.boot_memory.layers import EditedLayer
from cosremaster.boot_memory.needs import estimate_edited_memory, estimate_image_memory
from cosremaster.checksums.renew import ListChange, RenewedLists
from cosremaster.checksums.update import update_checksums
from cosremaster.errors import OverlayError, UsageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import format_address
from cosremaster.layers.find import ImageLayers, choose_layer
from cosremaster.layers.formats import strictest_limits
from cosremaster.layers.model import Layer
from cosremaster.overlay.addition import PreparedItem
from cosremaster.overlay.items import ReadContext, prepare_items
from cosremaster.overlay.merge import merge
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.iso_tree import plan_iso_tree
from cosremaster.remastering.layer_index import LayerIndex
from cosremaster.remastering.open import RemasterImage
from cosremaster.remastering.pack import (
    Packing,
    RepackedLayer,
    check_writable,
    pack_layer,
    prepacking_container,
    rebuilt_file,
    repack_containers,
)
from cosremaster.remastering.request import NormalizedRequest
from cosremaster.remastering.write import plan_result
from cosremaster.tree.nodes import Edits, NodeKind

EARLY = (b"kernel/x86/microcode/", b"kernel/firmware/acpi/")
"""What the kernel takes from the front of an initramfs before it unpacks it (Documentation/arch/x86/microcode.rst)."""


class Overlay(Struct, frozen=True):
    """The additions of a request, read from this machine: those to the layer, and those to the ISO's own tree."""

    items: tuple[PreparedItem, ...]
    iso_items: tuple[PreparedItem, ...]


class LayerChange(Struct, frozen=True):
    """What happens to the chosen layer. ``packed``: the layer and its containers, compressed again, the inner first;
    ``iso``: the edits of the ISO's tree with the new file that holds the layer; ``memory``: what that file needs."""

    iso: IsoEdits
    layer: Layer | None = None
    edits: Edits = Edits(frozenset(), (), (), (), ())
    packed: tuple[RepackedLayer, ...] = ()
    memory: MemoryEstimate | None = None


class RemasterPlan(Struct, frozen=True, kw_only=True):
    """A remaster before it is written: the chosen layer, its edits, how layers were packed, the new image.

    ``iso``: the edits of the ISO's own tree as requested; ``settings``: kernel arguments, volume id and date; ``sums``:
    the lists of checksums on the ISO. ``memory``: what it takes to boot the file that holds the chosen layer.
    """

    image: RemasterImage
    layer: Layer | None
    edits: Edits
    packed: tuple[RepackedLayer, ...]
    iso: IsoEdits
    settings: BootSettingsPlan
    result: ImagePlan
    sums: tuple[ListChange, ...]
    memory: MemoryEstimate | None
    warnings: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """The new image is the old one."""
        settings = self.settings
        return self.iso.is_empty and not (self.packed or settings.replaced or settings.overwritten)


def plan_remaster(
    image: RemasterImage, index: LayerIndex, request: NormalizedRequest, context: RemasterContext
) -> RemasterPlan:
    """Return the plan of the remaster of ``image`` by ``request``; layers are compressed into the context's files.

    ``index``: the layers of ``image``. Raises as the steps do; faults of the user's files come before the long work.
    """
    overlay = prepare_overlay(request, context)
    iso = plan_iso_tree(image, context.source, request.iso_tree(overlay.iso_items))
    context.warnings.extend(iso.warnings)
    if not request.is_for_layer or index.is_ready:  # whether it is ready costs an import and a look at the cache
        context.start_precopy()
    change = plan_layer(image, index, request, overlay, iso, context) if request.is_for_layer else LayerChange(iso)
    settings = plan_settings(image, change.iso, request, context)
    edits = change.iso.with_contents(settings.replaced)
    checksums = plan_checksums(image, edits, request, context)
    edits = with_checksum_lists(image, edits, checksums.lists)
    result = plan_new_image(image, edits, settings, request, context)
    for warning in context.warnings.messages:
        context.progress.warn(warning)
    return RemasterPlan(
        image=image, layer=change.layer, edits=change.edits, packed=change.packed, iso=iso, settings=settings,
        result=result, sums=checksums.changes, memory=change.memory, warnings=context.warnings.messages,
    )  # fmt: skip


def prepare_overlay(request: NormalizedRequest, context: RemasterContext) -> Overlay:
    """Read and check the user's files. Raises as ``prepare_item``."""
    reading = ReadContext(
        max_mtime=request.max_mtime, limits=None, spool=context.contents, progress=context.progress,
        warn=context.warnings.add,
    )  # fmt: skip
    items: tuple[PreparedItem, ...] = ()
    if request.additions:  # the limits load every layer format, which a change of the ISO's own tree goes without
        items = prepare_items(request.additions, replace(reading, limits=strictest_limits()))
    return Overlay(items, prepare_items(request.iso_additions, replace(reading, option="--add-iso")))


def plan_layer(
    image: RemasterImage, index: LayerIndex, request: NormalizedRequest, overlay: Overlay, iso: IsoEdits,
    context: RemasterContext,
) -> LayerChange:  # fmt: skip
    """Return what the request does to the layer that it names, or to the root file system: steps 2 to 6."""
    layers = index.layers(request.layer, context.progress)
    context.start_precopy()
    layer = choose_layer(image, layers, request.layer)
    edits = plan_overlay(layer, overlay, request, context)
    if edits.is_empty:
        context.warnings.extend(shadowing_warnings(layer, layers, edits))
        memory = estimate_image_memory(image, layers.layers).get(layer.address[0])
        return LayerChange(iso, layer, edits, memory=memory)
    packing = Packing.of(request, context)
    check_writable(layer)
    with prepacking_container(layer, packing, context.folder):
        inner = pack_layer(layer, layer.edit(edits), packing)
    packed = repack_containers(layer, inner, packing)
    changed = replace_layer_file(image, iso, layer, packed[-1])
    context.warnings.extend(layer_warnings(layer, layers, edits, packed))
    edited = EditedLayer(layer, edits, inner.packed.table.length)
    size = changed.replaced[layer.address[0]].length
    return LayerChange(changed, layer, edits, packed, estimate_edited_memory(layers.layers, edited, size))


def plan_overlay(layer: Layer, overlay: Overlay, request: NormalizedRequest, context: RemasterContext) -> Edits:
    """Return the edits that lay ``overlay`` over ``layer``. Step 4, instead of cp.

    Paths that the request removes are removed first, directories with their contents.

    :raises OverlayError: types do not agree (unless ``force_type``), a parent dangles, there is nothing to remove
        (unless ``allow_missing``), or it stands in an archive before this one in the same file.
    """
    edits = merge(
        layer.tree(), overlay.items, request.removals, layer.place, allow_missing=request.allow_missing,
        force_type=request.force_type,
    )  # fmt: skip
    for earlier in layer.preceding:
        names = set(earlier.paths)
        for path in edits.removed:
            if path in names or any(name.startswith(path + b"/") for name in names):
                where = format_address(earlier.address)
                raise OverlayError(f"stands in {where}, where alone it can be removed", layer.place.inside(path))
    context.warnings.extend(edits.warnings)
    return edits


def layer_warnings(
    layer: Layer, layers: ImageLayers, edits: Edits, packed: Sequence[RepackedLayer]
) -> Iterator[str]:  # fmt: skip
    """Yield the warnings about a ``layer`` that ``edits`` changed and that was ``packed``."""
    yield from layer.edit_warnings()
    yield from shadowing_warnings(layer, layers, edits)
    for warning in estimate_memory(InitramfsSizes(packed=packed[-1].packed.table.length)).warnings:
        yield f"{printable(layer.address[0])} {warning}"


def shadowing_warnings(layer: Layer, layers: ImageLayers, edits: Edits) -> Iterator[str]:
    """Yield a warning for each addition that has no effect because of another archive in the same file."""
    following = [other for other in layers.layers if any(layer is earlier for earlier in other.preceding)]
    shadows = {path: other for other in following for path in other.paths}
    for node, _ in edits.additions:
        if node.kind is NodeKind.DIRECTORY:
            continue
        shadow = shadows.get(node.path)
        if shadow is not None:
            yield (
                f"{printable(node.path)} stands in {format_address(shadow.address)} too,"
                " which is unpacked later and counts"
            )
        if layer.preceding and node.path.startswith(EARLY):
            first = format_address(layer.preceding[0].address)
            yield f"{printable(node.path)}: the kernel looks for it in the first archive alone (--layer {first})"


def replace_layer_file(image: SourceImage, iso: IsoEdits, layer: Layer, packed: RepackedLayer) -> IsoEdits:
    """Return ``iso`` with the new bytes of the file that holds ``layer``, whose outermost stream became ``packed``.

    :raises UsageError: ``iso`` replaces or removes that file.
    """
    path = layer.address[0]
    paths = paths_sharing_data(image, path)
    if iso.replaced.keys() & set(paths):
        raise UsageError(f"{printable(path)} cannot be changed inside and be exchanged as a whole")
    if iso.new_path(path) is None:
        raise UsageError(f"{printable(path)} cannot be changed inside and be removed")
    return replace(iso, replaced={**iso.replaced, **dict.fromkeys(paths, rebuilt_file(layer, packed))})


def paths_sharing_data(image: SourceImage, path: bytes) -> tuple[bytes, ...]:
    """Return the paths of all files on ``image`` that share the data of ``path``, such as hard links."""
    (file,) = (file for file in image.files if file.path == path)
    shared = (other.path for other in image.files if file.size and (other.start, other.size) == (file.start, file.size))
    return tuple(shared) or (path,)


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


def plan_checksums(
    image: RemasterImage, edits: IsoEdits, request: NormalizedRequest, context: RemasterContext
) -> RenewedLists:
    """Return the new lists of checksums on the ISO after ``edits`` of its tree.

    Raises as ``plan_result``, and what reading the files raises.
    """
    if edits.is_empty or image.volume is None:
        return RenewedLists()
    # The implanted MD5 is in no file, and making it reads the whole image.
    plain = replace(image.volume, implanted=None)

    def make_plan(lists: Mapping[bytes, PieceTable]) -> ImagePlan:
        """Return the plan of the image with these lists."""
        changed = with_checksum_lists(plain, edits, lists)
        return plan_result(plain, context.source, changed, drop_hfsplus=request.drop_hfsplus)

    checksums = update_checksums(plain, edits, make_plan, context.progress, keep=request.keep_checksums)
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
