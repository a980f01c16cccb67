"""The plan of what happens to layers: steps 2 to 6 of a remaster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cosremaster.boot_memory.estimate import InitramfsSizes, MemoryEstimate, estimate_memory
from cosremaster.boot_memory.layers import EditedLayer
from cosremaster.boot_memory.needs import estimate_edited_memory, estimate_image_memory
from cosremaster.errors import OverlayError, Place, UnsupportedError, UsageError, printable
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, format_address
from cosremaster.layers.find import QUICK_HEAD, ImageLayers, identify_files, list_system_images
from cosremaster.layers.formats import Repacking
from cosremaster.layers.model import Layer
from cosremaster.layers.segments import EARLY
from cosremaster.overlay.addition import PreparedItem
from cosremaster.overlay.attributes import FittedItems
from cosremaster.overlay.items import ReadContext, prepare_items
from cosremaster.overlay.merge import merge
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import OverlayItem
from cosremaster.progress import ENCODE, PROOF, expect_work
from cosremaster.records import Struct, replace
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.layer_index import LayerIndex
from cosremaster.remastering.load_order import describe_taken, list_shared_files, load_order_warnings
from cosremaster.remastering.pack import Packing, RepackedLayer, changes_codec, pack_file, with_containers
from cosremaster.remastering.request import NormalizedRequest
from cosremaster.remastering.select_layers import (
    FileTargets,
    LayerTarget,
    facts_of_layers,
    group_targets,
    read_layers,
    select_layers,
)
from cosremaster.remastering.spread_edits import ArchiveEdits, archives_of, check_rows, spread_edits, takes_early_files
from cosremaster.remastering.supersede_entries import KernelUse, plan_superseding, superseding_warnings
from cosremaster.tree.limits import ANY_LAYER, Limits
from cosremaster.tree.nodes import Edits, Node, NodeKind
from cosremaster.tree.replacements import NO_EDITS
from cosremaster.tree.superseding import NO_SUPERSEDING, Superseding, join_superseding

if TYPE_CHECKING:
    from cosremaster.layers.boot_facts import BootFacts

_NO_LIMIT = 1 << 63
"""Bytes of a file: how large it may be is known when its place is."""

_ISO, _FAT = Limits("the ISO's own tree", _NO_LIMIT), Limits("a FAT file system", _NO_LIMIT)


class Overlay(Struct, frozen=True):
    """The additions of a request, read from this machine: those to the layer, and those to the ISO's own tree.

    ``fat_items``: for each of the request's FAT file systems the additions to it. ``oversized``: size and place of each
    file that not every format of layers can hold.
    """

    items: tuple[PreparedItem, ...]
    iso_items: tuple[PreparedItem, ...]
    fat_items: tuple[tuple[PreparedItem, ...], ...] = ()
    oversized: tuple[tuple[int, Place], ...] = ()

    def check_sizes(self, limits: Limits) -> None:
        """Check that a layer with ``limits`` can hold the files. :raises SizeError: one is too large."""
        for size, place in self.oversized:
            limits.check_file_size(size, place)


class LayerChange(Struct, frozen=True, kw_only=True):
    """What happens to a layer.

    ``address``: of several archives in a file, of the one that changes, or of the file where several do. ``paths``: of
    the files on the image that hold it; the first is its own, the others are hard links and files of equal bytes.
    ``memory``: what it takes to boot such a file. ``repacking``: what of the layer was written anew beside the edits;
    ``superseding``: which of its entries stay though they are replaced.
    """

    layer: Layer
    address: Address
    edits: Edits
    paths: tuple[bytes, ...]
    memory: MemoryEstimate | None = None
    repacking: Repacking = Repacking.NOTHING
    superseding: Superseding = NO_SUPERSEDING


class LayerChanges(Struct, frozen=True):
    """What happens to all layers that a request changes.

    ``packed``: layers and their containers, compressed again, the inner first; ``iso``: the edits of the ISO's tree
    with the new files that hold the layers. ``replaced_arguments``: of kernels, as ``--replace-kernel-arg`` takes them:
    those that name a new layer.
    """

    iso: IsoEdits
    changes: tuple[LayerChange, ...] = ()
    packed: tuple[RepackedLayer, ...] = ()
    replaced_arguments: tuple[str, ...] = ()


def prepare_overlay(request: NormalizedRequest, context: RemasterContext) -> Overlay:
    """Read and check the user's files. Raises as ``prepare_item``."""
    reading = ReadContext(
        max_mtime=request.max_mtime, limits=None, spool=context.contents, progress=context.progress,
        warn=context.warnings.add, outcomes=context.outcomes, find_boot=context.find_boot,
    )  # fmt: skip
    items: tuple[PreparedItem, ...] = ()
    oversized: list[tuple[int, Place]] = []
    if request.additions:
        strict = replace(reading, limits=ANY_LAYER, oversized=oversized)
        items = prepare_items(request.additions, strict)
    reading = replace(reading, option="--add-iso")
    others = [(_ISO, request.iso_additions), *((_FAT, fat.additions) for fat in request.fats)]
    iso_items, *fat_items = (_prepare_fitted(limits, additions, reading) for limits, additions in others)
    return Overlay(items, iso_items, tuple(fat_items), tuple(oversized))


def _prepare_fitted(limits: Limits, additions: Sequence[OverlayItem], reading: ReadContext) -> tuple[PreparedItem, ...]:
    """Return ``additions`` prepared, without extended attributes that a container with ``limits`` cannot hold."""
    fitted = FittedItems(limits)
    items = fitted.fit(prepare_items(additions, reading))
    for warning in fitted.warnings():
        reading.warn(warning)
    return items


def plan_layers(
    image: SourceImage, index: LayerIndex, request: NormalizedRequest, overlay: Overlay, iso: IsoEdits,
    context: RemasterContext,
) -> LayerChanges:  # fmt: skip
    """Return what the request does to the layers that it names, or to the root file system: steps 2 to 6."""
    if overlay.oversized:
        _check_some_layer_holds(image, overlay)
    keeper = context.make_keeper(request) if image.is_single_file else None
    fronts = context.pack_fronts(request)
    layers = read_layers(index, request.layers, context.progress, keeper, fronts.watch)
    targets = select_layers(image, layers, request.layers, index.facts)
    if not any(changes_codec(target.layer, request.codec) for target in targets):  # else nothing stays
        context.start_precopy(_find_front(context.source, targets))
    for target in targets:
        for outer in with_containers(target.layer):
            if outer.format.refusal is not None:
                raise UnsupportedError(outer.format.refusal, outer.place)
    _check_repacking(targets, request.repacking)
    check_sole_names(image, targets)
    if not request.layers:
        context.warnings.extend(stage_warnings(image, layers, targets))
    result = LayerChanges(iso)
    groups = group_targets(image, layers, targets)
    expect_work(context.progress, PROOF, sum(_measure_streams(group, is_packed=True) for group in groups))
    for number, group in enumerate(groups):
        rest = sum(_measure_streams(other, is_packed=False) for other in groups[number + 1 :])
        expect_work(context.progress, ENCODE, rest)
        edits = [
            plan_overlay(image, target, layers, overlay, request, context, index.facts) for target in group.targets
        ]
        part = plan_file(image, layers, group, edits, request, result.iso, context)
        result = LayerChanges(part.iso, (*result.changes, *part.changes), (*result.packed, *part.packed))
    return result


def _measure_streams(group: FileTargets, *, is_packed: bool) -> int:
    """Return the bytes of the streams of ``group`` that are compressed again; no edit compresses more old bytes."""
    layers = [target.layer for target in group.targets if not target.layer.format.random_access]
    return sum(layer.packed.length if is_packed else layer.size for layer in layers)


def _find_front(source: ByteSource, targets: Sequence[LayerTarget]) -> int | None:
    """Return how many bytes at the front of ``source`` stay though ``targets`` change; None where more is likely to.

    The first file whose front is compressed again moves what follows in it. One whose front stays grows at its end, and
    moves what follows it.
    """
    streams = [list(with_containers(target.layer))[-1] for target in targets]
    ends = list[int]()
    for stream in (stream for stream in streams if stream.packed.length):
        keeps_front = stream.parameters.keeps_front(stream.packed)
        piece = stream.packed.pieces[-1 if keeps_front else 0]
        if isinstance(piece, Range) and piece.source is source:
            ends.append(piece.offset + piece.length if keeps_front else piece.offset)
    return min(ends, default=None)


def _check_some_layer_holds(image: SourceImage, overlay: Overlay) -> None:
    """Check, before the long work, that a file of ``image`` is of a format that can hold the overlay's large files.

    :raises SizeError: none is; what is inside such a file is no larger than the file.
    """
    formats = (file.identification.format for file in identify_files(image, most=QUICK_HEAD))
    limits = [layer_format.limits for layer_format in formats if layer_format is not None]
    if limits:
        overlay.check_sizes(max(limits, key=lambda limit: limit.max_file_size))


def plan_file(
    image: SourceImage, layers: ImageLayers, group: FileTargets, edits: Sequence[Edits], request: NormalizedRequest,
    iso: IsoEdits, context: RemasterContext,
) -> LayerChanges:  # fmt: skip
    """Return what ``edits`` do, one for each target of ``group``, to a file of the image.

    :param iso: the edits of the ISO's tree so far.
    """
    spread = [
        (target, whole, _spread(target, whole, request.repacking))
        for target, whole in zip(group.targets, edits, strict=True)
    ]
    archives = [archive for _, _, parts in spread for archive in parts]
    if not archives and changes_codec(group.targets[0].layer, request.codec):
        archives = [ArchiveEdits(group.targets[0].layer, edits[0])]
    find_facts = context.find_facts or partial(facts_of_layers, image, layers)
    kernel_use = KernelUse(image, group.paths, find_facts)
    archives = [*plan_superseding(archives, group.targets, layers.layers, request.supersede, kernel_use)]
    check_rows(archives, layers.layers)
    context.warnings.extend(superseding_warnings(archives, request.supersede))
    packed: tuple[RepackedLayer, ...] = ()
    if archives:
        packed_file = pack_file(archives, Packing.of(request, context), context.folder)
        packed = packed_file.layers
    if packed:
        iso = replace_layer_file(iso, group.paths, packed_file.table)
        memory = estimate_edited_memory(layers.layers, edited_layers(archives, packed), packed_file.table.length)
        if group.targets[0].layer.format.is_initramfs:
            context.warnings.extend(size_warnings(group.paths[0], packed_file.table))
    else:
        memory = estimate_image_memory(image, layers.layers).get(group.paths[0])
    for target, whole, _ in spread:
        context.warnings.extend(layer_warnings(target, layers, whole, request.repacking))
        if not image.is_single_file:
            context.warnings.extend(load_order_warnings(target.layer, group.paths, whole, find_facts))
    changes = tuple(
        LayerChange(
            layer=target.layer,
            address=_address_of(target.layer, parts),
            edits=whole,
            paths=group.paths,
            memory=memory,
            repacking=request.repacking if packed and _can_repack(target.layer) else Repacking.NOTHING,
            superseding=_superseding_of(target.layer, archives),
        )
        for target, whole, parts in spread
    )
    return LayerChanges(iso, changes, packed)


def _superseding_of(layer: Layer, archives: Sequence[ArchiveEdits]) -> Superseding:
    """Return which entries stay in ``layer`` and the archives before it, of whose edits ``archives`` are some."""
    own = [archive.address for archive in archives_of(layer)]
    return join_superseding(part.edits.superseding for part in archives if part.layer.address in own)


def _check_repacking(targets: Sequence[LayerTarget], repacking: Repacking) -> None:
    """Check that a layer can be repacked, if that is wanted. :raises UsageError: none of ``targets`` can."""
    if repacking is Repacking.NOTHING or any(_can_repack(target.layer) for target in targets):
        return
    option = "--repack" if repacking is Repacking.DATA else "--repack-metadata"
    layer = targets[0].layer
    fate = "they do not"
    if layer.format.random_access:
        fate = "they stay too; an output called NAME.tar.gz is without them"
    raise UsageError(
        f"{option} is for squashfs, where bytes of removed files stay; {format_address(layer.address)} is"
        f" {layer.format.name}, where {fate}"
    )


def _can_repack(layer: Layer) -> bool:
    """Return whether edits of ``layer`` leave old bytes behind, in itself or in a file system around it."""
    return any(outer.format.can_repack for outer in with_containers(layer))


def _spread(target: LayerTarget, edits: Edits, repacking: Repacking) -> tuple[ArchiveEdits, ...]:
    """Return ``edits`` of ``target`` by the archives that they change, or that are repacked."""
    if repacking and target.layer.format.can_repack:
        return (ArchiveEdits(target.layer, edits),)
    if target.is_whole:
        return spread_edits(target.layer, edits)
    return () if edits.is_empty else (ArchiveEdits(target.layer, edits),)


def _address_of(layer: Layer, parts: Sequence[ArchiveEdits]) -> Address:
    """Return the address of the archive in ``parts``, that of the file where they are several, else of ``layer``."""
    if len(parts) > 1:
        return layer.file_address
    return parts[0].layer.address if parts else layer.address


def edited_layers(changes: Sequence[ArchiveEdits], packed: Sequence[RepackedLayer]) -> tuple[EditedLayer, ...]:
    """Return ``changes`` with the bytes that each layer takes in its container, by what was ``packed``."""
    sizes = {layer.address: layer.packed.table.length for layer in packed}
    edits = {change.layer.address: change.edits for change in changes}
    layers = {outer.address: outer for change in changes for outer in with_containers(change.layer)}
    return tuple(
        EditedLayer(layer, edits.get(address, NO_EDITS), sizes.get(address, layer.packed.length))
        for address, layer in layers.items()
        if address in edits or layer.parent is not None
    )


def plan_overlay(
    image: SourceImage, target: LayerTarget, layers: ImageLayers, overlay: Overlay, request: NormalizedRequest,
    context: RemasterContext, facts: BootFacts | None = None,
) -> Edits:  # fmt: skip
    """Return the edits that lay ``overlay`` over ``target``. Step 4, instead of cp.

    ``facts``: what the image boots; found in ``layers`` when None.
    Paths that the request removes are removed first, directories with their contents.

    :raises OverlayError: types do not agree (unless ``force_type``), a parent dangles, there is nothing to remove
        (unless ``allow_missing``), or it stands in another archive of the same file than the one that is meant.
    """
    layer = target.layer
    following = [other for other in layers.layers if any(layer is earlier for earlier in other.preceding)]
    if not target.is_whole:
        _check_removals(layer, following, request.removals)

    overlay.check_sizes(layer.limits)
    fitted = FittedItems(layer.limits)
    items = fitted.fit(overlay.items)

    def merge_into(tree: Mapping[bytes, Node]) -> Edits:
        """Return the edits of ``tree``."""
        return merge_items(tree, items, request, layer)

    edits = _edit_layer(image, layer, facts or facts_of_layers(image, layers), merge_into)
    context.note_layer(layer.address)
    if not target.is_whole:
        _check_preceding(layer, edits)
    context.warnings.extend([*fitted.warnings(), *edits.warnings])
    return edits


def _edit_layer(
    image: SourceImage, layer: Layer, facts: BootFacts, merge_into: Callable[[Mapping[bytes, Node]], Edits]
) -> Edits:
    """Return the edits that ``merge_into`` makes of the tree that ``layer`` shows, with warnings of what hides them."""
    if not layer.format.random_access and not layer.is_in_filesystem:
        return merge_into(layer.tree())
    from cosremaster.remastering.stacked_edits import (  # noqa: PLC0415 - an archive lies over no other
        container_warnings,
        edit_in_stack,
    )

    if layer.format.random_access:
        edits: Edits = edit_in_stack(image, layer, facts, merge_into)
    else:
        edits = merge_into(layer.tree())
    if edits.is_empty or not layer.is_in_filesystem:
        return edits
    return replace(edits, warnings=(*edits.warnings, *container_warnings(image, layer, facts)))


def merge_items(
    tree: Mapping[bytes, Node], items: Sequence[PreparedItem], request: NormalizedRequest, layer: Layer
) -> Edits:
    """Return the edits of ``tree``, which ``layer`` shows, by the removals of ``request`` and by ``items``."""
    removals: Sequence[Pattern] = request.removals
    if request.maas_clean:
        from cosremaster.remastering.clean_root import with_cleaning  # noqa: PLC0415 - images for MAAS alone

        removals, items = with_cleaning(tree, removals, items)
    return merge(
        tree, items, removals, layer.place, allow_missing=request.allow_missing,
        force_type=request.force_type,
    )  # fmt: skip


def _check_removals(layer: Layer, following: Sequence[Layer], removals: Sequence[Pattern]) -> None:
    """Check that nothing is to be removed from ``layer`` that only archives behind it have.

    :raises OverlayError: something is.
    """
    for pattern in removals if following else ():
        if any(pattern.matches(path) for path in layer.tree()):
            continue
        for other in following:
            match = next((path for path in other.paths if pattern.matches(path)), None)
            if match is not None:
                raise _stands_elsewhere(layer, other, match)


def _check_preceding(layer: Layer, edits: Edits) -> None:
    """Check that ``edits`` remove nothing that an archive before ``layer`` has, and change no hard link there.

    :raises OverlayError: they do.
    """
    for earlier in layer.preceding[-1:]:
        for path, other in list_shared_files(earlier.tree(), edits):
            file = format_address(layer.file_address)
            raise OverlayError(
                f"is one file with {printable(other)} in an archive before {format_address(layer.address)}, and the"
                f" kernel would change it under all its names; --layer {file} changes one",
                layer.place.inside(path),
            )
    for earlier in layer.preceding:
        names = set(earlier.paths)
        for path in edits.removed:
            if path in names or any(name.startswith(path + b"/") for name in names):
                raise _stands_elsewhere(layer, earlier, path)


def _stands_elsewhere(layer: Layer, other: Layer, path: bytes) -> OverlayError:
    """Return the error for ``path``, which is to leave ``layer`` and stands in the archive ``other`` of its file."""
    file = format_address(layer.file_address)
    return OverlayError(
        f"stands in {format_address(other.address)}, not in {format_address(layer.address)}; --layer {file} removes it"
        " from each archive that has it",
        layer.place.inside(path),
    )


def layer_warnings(
    target: LayerTarget, layers: ImageLayers, edits: Edits, repacking: Repacking = Repacking.NOTHING
) -> Iterator[str]:
    """Yield the warnings about the layer ``target``, which ``edits`` change; ``repacking``: what it is beside them."""
    if not edits.is_empty:
        yield from target.layer.edit_warnings(edits, repacking)
    yield from shadowing_warnings(target, layers, edits)


def stage_warnings(image: SourceImage, layers: ImageLayers, targets: Sequence[LayerTarget]) -> Iterator[str]:
    """Yield a warning where the chosen initramfs starts an installer that is a file system of its own."""
    if any(target.layer.parent is not None for target in targets):
        return
    for stage in list_system_images(image, layers).stages[:1]:
        chosen = ", ".join(format_address(target.layer.address[:1]) for target in targets)
        yield (
            f"the installer itself runs from {stage}, which cannot be changed yet; the change is made in the initramfs"
            f" {chosen}, where kickstart and driver files are looked for (--layer {chosen} says that this is meant)"
        )


def size_warnings(path: bytes, table: PieceTable) -> Iterator[str]:
    """Yield a warning where the new bytes ``table`` of the file ``path`` are too many to be booted."""
    for warning in estimate_memory(InitramfsSizes(packed=table.length)).warnings:
        yield f"{printable(path)} {warning}"


def shadowing_warnings(target: LayerTarget, layers: ImageLayers, edits: Edits) -> Iterator[str]:
    """Yield a warning for each addition that has no effect because of another archive in the same file."""
    layer = target.layer
    following = [other for other in layers.layers if any(layer is earlier for earlier in other.preceding)]
    shadows = {path: other for other in following for path in other.paths}
    for node, _ in edits.additions:
        if node.kind is NodeKind.DIRECTORY:
            continue
        shadow = shadows.get(node.path)
        if shadow is not None and not node.path.startswith(EARLY):
            yield (
                f"{printable(node.path)} stands in {format_address(shadow.address)} too,"
                " which is unpacked later and counts"
            )
        if node.path.startswith(EARLY) and layer.parent is None and layer.format.is_initramfs:
            yield from _early_warnings(target, node.path)


def _early_warnings(target: LayerTarget, path: bytes) -> Iterator[str]:
    """Yield a warning where the kernel does not find ``path``, which it takes before it unpacks, in ``target``.

    It looks through archives that are not compressed, from the front of the file to the first other one.
    """
    archives = archives_of(target.layer)
    first = format_address(archives[0].address)
    if all(map(takes_early_files, archives[:1] if target.is_whole else archives)):
        earlier = () if target.is_whole else [archive for archive in archives[:-1] if path in archive.paths]
        for archive in earlier[:1]:
            taken = describe_taken(path)
            yield f"{printable(path)} stands in {format_address(archive.address)} too: the kernel takes {taken}"
        return
    if takes_early_files(archives[0]):
        yield f"{printable(path)}: the kernel looks for it in the first archive alone (--layer {first})"
    else:
        yield (
            f"{printable(path)}: the kernel looks for it before it decompresses anything, and {first} is compressed; an"
            " archive that is not has to stand before it (cat early.cpio initrd > new)"
        )


def check_sole_names(image: SourceImage, targets: Iterable[LayerTarget]) -> None:
    """Check that the path of each of ``targets`` means a single file. :raises UnsupportedError: two have it."""
    counts = Counter(file.path for file in image.files)
    for path in (target.layer.address[0] for target in targets):
        if counts[path] > 1:
            what = f"two things on the image are called {printable(path)}, so nothing there can be changed by name"
            raise UnsupportedError(what, image.place.inside(path))


def replace_layer_file(iso: IsoEdits, paths: Sequence[bytes], table: PieceTable) -> IsoEdits:
    """Return ``iso`` with the bytes ``table`` for the files at ``paths``, which hold a layer.

    :raises UsageError: ``iso`` replaces or removes one of these files.
    """
    for path in paths:
        if path in iso.replaced:
            raise UsageError(f"{printable(path)} cannot be changed inside and be exchanged as a whole")
    if iso.new_path(paths[0]) is None:
        raise UsageError(f"{printable(paths[0])} cannot be changed inside and be removed")
    remaining = [path for path in paths if iso.new_path(path) is not None]
    return replace(iso, replaced={**iso.replaced, **dict.fromkeys(remaining, table)})
