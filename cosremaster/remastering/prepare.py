"""A base for many remasters: its layers are cut into parts that are compressed one without the others.

Nothing in the layers changes, and entries stay in their order. What people change early gets parts of its own
(:mod:`cosremaster.layers.early_files`), so that a later run compresses little again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest

from cosremaster.codecs.base import RepackResult
from cosremaster.codecs.cuts import Cutting, measure_parts, move_borders
from cosremaster.errors import UsageError
from cosremaster.io.pieces import Piece, PieceTable, Range
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address
from cosremaster.layers.early_files import find_early_borders
from cosremaster.layers.find import ImageLayers
from cosremaster.layers.formats import ContainerEntry
from cosremaster.layers.model import Layer
from cosremaster.records import Struct, replace
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.layer_index import LayerIndex
from cosremaster.remastering.pack import Packing, RepackedLayer, pack_layer, with_containers
from cosremaster.remastering.plan_layers import (
    LayerChange,
    LayerChanges,
    check_sole_names,
    replace_layer_file,
    size_warnings,
)
from cosremaster.remastering.request import NormalizedRequest
from cosremaster.remastering.select_layers import LayerTarget, group_targets, read_layers, select_layers
from cosremaster.remastering.spread_edits import archives_of
from cosremaster.tree.replacements import NO_EDITS

SMALLEST_PART, LARGEST_PART = 1 << 16, 1 << 30
"""Between these is the size of a part, in plain bytes."""

StreamKey = tuple[Address, int]
"""The file that a stream is in, by its address, and the number of the stream there."""


class PreparedStream(Struct, frozen=True):
    """What became of the stream of a layer.

    ``address``: of the layer, or of its file where that holds several; ``codec``: as people see it. ``reason``: why
    nothing was done, as the end of a sentence about the layer; empty where it was cut. ``before``: number of its parts,
    and plain bytes of the largest; ``size``: packed bytes. ``packed``: the new stream, None where nothing was done.
    """

    address: Address
    codec: str
    reason: str
    before: tuple[int, int]
    size: int
    packed: RepackResult | None = None


def check_part_size(size: int) -> None:
    """Check the ``size`` of parts in bytes. :raises UsageError: it is too small or too large."""
    if not SMALLEST_PART <= size <= LARGEST_PART:
        raise UsageError(f"--block-size {size:,}: 64K to 1024M are wanted")


class _Stream(Struct, frozen=True):
    """The archives in one stream, in their order."""

    archives: tuple[Layer, ...]

    @property
    def key(self) -> StreamKey:
        """What it is known by."""
        return self.archives[-1].file_address, self.archives[-1].stream

    @property
    def depth(self) -> int:
        """How many containers are around it."""
        return len(list(with_containers(self.archives[-1])))

    def find_refusal(self) -> str | None:
        """Return why it cannot be cut, as the end of a sentence about it; None if it can."""
        layer = self.archives[-1]
        if layer.format.random_access:
            by_itself = "compresses each of its blocks without the others already"
            return layer.format.refusal or by_itself
        if layer.is_in_filesystem:
            return "is in a file system, where it stays as it is"
        if layer.is_converted:
            return "is in an old form of cpio, which the first change writes anew"
        for outer in with_containers(layer):
            refusal = outer.parameters.refusal or outer.format.refusal
            if refusal is not None:
                return refusal
        by_kernel = layer.format.is_initramfs and not layer.is_in_archive
        return layer.parameters.cut_refusal(by_kernel=by_kernel)

    def plan_cutting(self, size: int) -> Cutting:
        """Return how it is to be cut: parts of at most ``size`` plain bytes, early files in their own."""
        borders = {border for layer in self.archives for border in find_early_borders(layer)}
        return Cutting(size, tuple(sorted(borders)))


def plan_preparation(
    image: SourceImage, index: LayerIndex, request: NormalizedRequest, iso: IsoEdits, context: RemasterContext
) -> tuple[LayerChanges, tuple[PreparedStream, ...]]:
    """Return what a preparation does to the layers that ``request`` names, or to all, and what becomes of each.

    Raises what reading and writing layers raises.
    """
    size = request.part_size or 0
    layers = read_layers(index, request.layers, context.progress)
    context.start_precopy()
    streams = _list_streams(layers.layers)
    meant = _find_meant(image, layers, request, index)
    cuttings: dict[StreamKey, Cutting] = {}
    prepared: dict[StreamKey, PreparedStream] = {}
    for key, stream in streams.items():
        if meant is not None and key not in meant:
            continue
        refusal = stream.find_refusal()
        if refusal is None:
            cuttings[key] = stream.plan_cutting(size)
            if cuttings[key].is_met_by(stream.archives[-1].parameters.parts):
                refusal = "is cut so already"
        prepared[key] = _describe(stream, refusal or "")
    targets = [LayerTarget(streams[key].archives[-1]) for key, stream in prepared.items() if not stream.reason]
    check_sole_names(image, targets)
    result = LayerChanges(iso)
    for group in group_targets(image, layers, targets):
        mine = {_key_of(target.layer): streams[_key_of(target.layer)] for target in group.targets}
        table, packed = _pack_file(mine, streams, cuttings, Packing.of(request, context))
        for key in mine:
            prepared[key] = replace(prepared[key], packed=packed[key].packed)
        edits = replace_layer_file(result.iso, group.paths, table)
        if group.targets[0].layer.format.is_initramfs:
            context.warnings.extend(size_warnings(group.paths[0], table))
        changes = [
            LayerChange(layer=target.layer, address=prepared[_key_of(target.layer)].address, edits=NO_EDITS,
                        paths=group.paths)
            for target in group.targets
        ]  # fmt: skip
        result = LayerChanges(edits, (*result.changes, *changes), (*result.packed, *packed.values()))
    return result, tuple(prepared.values())


def _key_of(layer: Layer) -> StreamKey:
    """Return what the stream of ``layer`` is known by."""
    return layer.file_address, layer.stream


def _list_streams(layers: Iterable[Layer]) -> dict[StreamKey, _Stream]:
    """Return the streams of ``layers``, each with its archives in order."""
    archives: dict[StreamKey, list[Layer]] = defaultdict(list)
    for layer in layers:
        archives[_key_of(layer)].append(layer)
    return {key: _Stream(tuple(listed)) for key, listed in archives.items()}


def _find_meant(
    image: SourceImage, layers: ImageLayers, request: NormalizedRequest, index: LayerIndex
) -> Collection[StreamKey] | None:
    """Return the streams of the layers that ``request`` names; None where it names none, so that all are meant."""
    if not request.layers:
        return None
    targets = select_layers(image, layers, request.layers, index.facts)
    return {
        _key_of(layer)
        for target in targets
        for layer in (archives_of(target.layer) if target.is_whole else (target.layer,))
    }


def _describe(stream: _Stream, reason: str) -> PreparedStream:
    """Return what is known of ``stream`` before anything is done; ``reason``: why that is nothing."""
    layer = stream.archives[-1]
    address = layer.address if len(stream.archives) == 1 else layer.file_address
    codec = layer.format.name if layer.packs_itself else layer.codec_label
    return PreparedStream(address, codec, reason, measure_parts(layer.parameters.parts), layer.packed.length)


def _pack_file(
    meant: Mapping[StreamKey, _Stream], streams: Mapping[StreamKey, _Stream], cuttings: Mapping[StreamKey, Cutting],
    packing: Packing,
) -> tuple[PieceTable, dict[StreamKey, RepackedLayer]]:  # fmt: skip
    """Return the new bytes of the file of the image that holds ``meant``, and all streams that were packed again.

    ``streams``: all of the image. Those inside others come first.
    """
    around = {_key_of(outer) for stream in meant.values() for outer in with_containers(stream.archives[-1])}
    files: dict[Address, list[_Stream]] = defaultdict(list)
    for stream in sorted((streams[key] for key in around), key=lambda stream: -stream.depth):
        files[stream.key[0]].append(stream)
    new_files: dict[Address, list[tuple[ContainerEntry, PieceTable]]] = defaultdict(list)
    packed: dict[StreamKey, RepackedLayer] = {}
    for inside in files.values():
        new_streams: dict[int, PieceTable] = {}
        for stream in inside:
            plain = _fill_in(stream, new_files)
            packed[stream.key] = pack_layer(stream.archives[-1], plain, packing, cuttings.get(stream.key))
            new_streams[stream.key[1]] = packed[stream.key].packed.table
        layer = inside[-1].archives[-1]
        table = layer.replace_streams(new_streams)
        if layer.parent is not None and layer.container_entry is not None:
            new_files[layer.parent.address].append((layer.container_entry, table))
    return table, packed


def _fill_in(stream: _Stream, new_files: Mapping[Address, Sequence[tuple[ContainerEntry, PieceTable]]]) -> PieceTable:
    """Return the plain bytes of ``stream`` with ``new_files``, those of each layer, in place of its own."""
    layer = stream.archives[-1]
    changed = [
        (entry.offset, archive.replace(entry, table))
        for archive in stream.archives
        for entry, table in sorted(new_files.get(archive.address, ()), key=lambda file: file[0].offset)
    ]
    if not changed:
        return PieceTable([Range(layer.decoded, 0, layer.size)])
    pieces: list[Piece] = [Range(layer.decoded, 0, changed[0][0])]
    for (start, plain), following in zip_longest(changed, changed[1:]):
        end = plain.length if following is None else move_borders(plain, layer.decoded, (following[0],))[-1]
        pieces += plain.cut(start, end).pieces
    return PieceTable(pieces)
