"""Steps 5 and 6 of a remaster: a changed layer is compressed, and then every container around it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.codecs.base import BlockCache, RepackJob, RepackResult, StreamParameters
from cosremaster.codecs.cuts import Cutting, measure_parts
from cosremaster.codecs.defaults import new_parameters
from cosremaster.errors import CosremasterError, Place, UnsupportedError, UsageError, printable
from cosremaster.io.parallel import Worker
from cosremaster.io.pieces import Piece, PieceTable, Range
from cosremaster.io.spool import Spool
from cosremaster.layers.address import Address, format_address, format_last_part
from cosremaster.layers.decoded import DecodedSource
from cosremaster.layers.early_files import find_early_borders
from cosremaster.layers.formats import ContainerEntry, EditResources, Repacking
from cosremaster.layers.model import Layer
from cosremaster.lazy_log import LazyLogger
from cosremaster.progress import ENCODE, Progress, SilentProgress, begin_work
from cosremaster.records import Struct, field, replace
from cosremaster.records.lazy_dataclass import dataclass
from cosremaster.remastering.context import RemasterContext
from cosremaster.remastering.request import NormalizedRequest
from cosremaster.remastering.spread_edits import ArchiveEdits
from cosremaster.tree.nodes import Edits
from cosremaster.tree.replacements import with_new_contents

if TYPE_CHECKING:
    from cosremaster.layers.remembered_parts import RememberedParts
    from cosremaster.remastering.front_packer import FrontPacker

_LOG = LazyLogger(__name__)


class Packing(Struct, frozen=True, kw_only=True):
    """The helpers and options of compression.

    ``spool`` takes new bytes; ``repacking``: what is written anew beside edits. ``preset`` and ``always_compress``
    are those of ``RepackJob``; ``codec``: that of the output's name, if it says another; ``gzip``: what deflates.
    ``caches``: what one remaster of an image keeps for the next, by the address of a layer. ``parts``: what earlier
    plans packed, or None. ``fronts``: what packs fronts of containers while layers are indexed, or None.
    """

    spool: Spool
    threads: int
    progress: Progress
    preset: int | None = None
    always_compress: bool = False
    gzip: str = "zlib"
    repacking: Repacking = Repacking.NOTHING
    codec: str | None = None
    caches: dict[Address, BlockCache] = field(default_factory=dict)
    parts: RememberedParts | None = None
    fronts: FrontPacker | None = None

    @classmethod
    def of(cls, request: NormalizedRequest, context: RemasterContext) -> Packing:
        """Return the packing that ``request`` asks for."""
        return cls(
            spool=context.packed, threads=request.threads, progress=context.progress, preset=request.xz_preset,
            always_compress=request.always_compress, repacking=request.repacking, caches=context.caches,
            codec=request.codec, gzip=request.gzip, parts=context.parts, fronts=context.fronts,
        )  # fmt: skip

    @property
    def resources(self) -> EditResources:
        """What the edit of a layer may use."""
        return EditResources(self.spool, self.threads, self.repacking, self.progress, self.parts)

    def method_of(self, parameters: StreamParameters) -> str:
        """Return what sets the speed at which a stream with ``parameters`` is packed."""
        preset = "" if self.preset is None or parameters.name != "xz" else f"-{self.preset}"
        return f"{_with_coder(parameters.name, parameters, self)}{preset}, {self.threads} threads"


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer that was compressed again; sizes are in bytes.

    ``address``: of the layer, as in ``"live.cgz::rootfs.cxz"``; ``name``: the last part of it; ``codec``: name of
    the compression, as in ``gzip``, or ``gzip by isal`` where that was asked for. ``size``: of the new compressed
    data. Of these, ``reused`` bytes were copied from the input. Of the new decoded data, ``encoded`` bytes were
    compressed and ``stored`` bytes were not. ``parts``: blocks or frames of which each can
    be compressed without the others, and ``largest_part`` decoded bytes of the largest: so many a later change of one
    place compresses again at most; both 0 where there are none. ``parts_before`` and ``largest_before``: those of the
    input.
    """

    address: str
    name: str
    codec: str
    size: int
    reused: int
    encoded: int
    stored: int
    parts: int = 0
    largest_part: int = 0
    parts_before: int = 0
    largest_before: int = 0


class RepackedLayer(Struct, frozen=True):
    """A layer that was compressed again, with its bytes. ``before``: the number of its parts, and the largest."""

    address: Address
    codec: str
    packed: RepackResult
    before: tuple[int, int] = (0, 0)

    @property
    def parts_values(self) -> dict[str, dict[str, int]] | None:
        """The parts that can be compressed one without the others, as JSON values; None where there are none."""
        if not self.packed.parts:
            return None
        count, largest = self.before
        return {
            "before": {"count": count, "largest": largest},
            "after": {"count": self.packed.parts, "largest": self.packed.largest_part},
        }

    @property
    def summary(self) -> PackedLayer:
        """The layer as callers get it."""
        packed = self.packed
        return PackedLayer(
            format_address(self.address), format_last_part(self.address), self.codec, packed.table.length,
            packed.reused, packed.encoded, packed.stored, packed.parts, packed.largest_part, *self.before,
        )  # fmt: skip


class PackedFile(Struct, frozen=True):
    """A file of the image after edits of its layers: its new bytes, and what was compressed, the inner layers first.

    Without ``layers`` nothing changed: there was nothing to repack.
    """

    table: PieceTable
    layers: tuple[RepackedLayer, ...]


def with_containers(layer: Layer) -> Iterator[Layer]:
    """Yield ``layer`` and every layer around it, the outermost last."""
    outer: Layer | None = layer
    while outer is not None:
        yield outer
        outer = outer.parent


def check_writable(layer: Layer) -> None:
    """Check that ``layer`` and its containers can be written. :raises UnsupportedError: a codec only reads."""
    for outer in with_containers(layer):
        if outer.parameters.refusal is not None:
            raise UnsupportedError(outer.parameters.refusal, outer.place)


def changes_codec(layer: Layer, codec: str | None) -> bool:
    """Return whether ``layer`` is written with another ``codec``, that of the output's name.

    Several archives in a file keep what each is; a file system compresses its own blocks.
    """
    is_whole_file = layer.parent is None and layer.concatenation is None and not layer.format.random_access
    return codec is not None and is_whole_file and codec != layer.parameters.name


def _new_parameters(codec: str, place: Place) -> StreamParameters:
    """Return the parameters of a new stream of ``codec``. :raises UnsupportedError: its library is not installed."""
    try:
        return new_parameters(codec)
    except ImportError as error:
        raise UnsupportedError(
            f"cannot be written under {codec}, whose library is not installed here", place
        ) from error


def pack_layer(layer: Layer, plain: PieceTable, packing: Packing, cutting: Cutting | None = None) -> RepackedLayer:
    """Return ``layer`` with the new decoded bytes ``plain``, compressed as it was. Step 5, instead of cpio and xz.

    ``cutting``: how it is cut into parts; None for the codec's own way. The result does not depend on the number of
    threads. Raises what reading the layer and the overlay raises.
    """
    parameters = layer.parameters
    if packing.codec is not None and changes_codec(layer, packing.codec):
        parameters = _new_parameters(packing.codec, layer.place)
    is_new = parameters is not layer.parameters
    title, method = f"pack {format_last_part(layer.address)}", packing.method_of(parameters)
    with begin_work(packing.progress, title, plain.length, ENCODE, method) as advance:
        job = RepackJob(
            packed=PieceTable([]) if is_new else layer.packed,
            # of a stream under another codec nothing can stay
            decoded=DecodedSource(PieceTable([]), parameters, layer.place, b"", 0) if is_new else layer.stream_source,
            plain=plain,
            spool=packing.spool,
            threads=packing.threads,
            advance=advance,
            preset=packing.preset,
            always_compress=packing.always_compress,
            gzip_coder=packing.gzip,
            cache=BlockCache()
            if layer.is_converted or is_new
            else packing.caches.setdefault(layer.address, BlockCache()),
            cutting=cutting,
            origin=layer.decoded if is_new else None,
            ahead=layer.decoded.ahead if is_new else None,
            memory=None if packing.parts is None else packing.parts.for_work(method, packing.threads),
            find_borders=tuple if layer.is_converted or is_new else cache(partial(find_early_borders, layer)),
        )
        packed = parameters.repack(job)
    by_itself = not is_new and layer.packs_itself
    _LOG.info(
        "%s: %s, %d bytes packed as before, %d compressed anew, %d stored, by %d threads",
        layer.place, layer.format.name if by_itself else parameters.name, packed.reused, packed.encoded, packed.stored,
        packing.threads,
    )  # fmt: skip
    if is_new:
        return RepackedLayer(layer.address, _with_coder(parameters.name, parameters, packing), packed)
    label = layer.format.name if by_itself else _with_coder(layer.codec_label, parameters, packing)
    return RepackedLayer(layer.address, label, packed, measure_parts(parameters.parts))


def _with_coder(label: str, parameters: StreamParameters, packing: Packing) -> str:
    """Return ``label`` of a stream with ``parameters``, with what deflated it where that was chosen."""
    return f"{label} by {packing.gzip}" if parameters.name == "gzip" and packing.gzip != "zlib" else label


@contextmanager
def prepacking_container(layer: Layer, packing: Packing, folder: Path) -> Iterator[None]:
    """Compress, on another thread, what stands before ``layer`` in a container whose codec caches blocks.

    Step 6 needs these bytes whatever ``layer`` becomes; they are kept in the caches of ``packing``, as much as these
    take. Temporary data go to ``folder``. Errors are ignored here, for they come again in step 6.
    """
    worker = prepack_container_front(layer, packing, folder)
    try:
        yield
    finally:
        worker.join()


def prepack_container_front(layer: Layer, packing: Packing, folder: Path) -> Worker[None]:
    """Start the thread of :func:`prepacking_container`."""

    def prepack() -> None:
        """Compress the front of the container, unless its cache has it."""
        container, entry = layer.parent, layer.container_entry
        if container is None or entry is None or not container.parameters.caches_blocks:
            return
        packed = None if packing.fronts is None else packing.fronts.wait_for(container.address)
        if container.address in packing.caches and packed in (None, entry.offset):
            return
        front = PieceTable([Range(container.decoded, 0, min(entry.offset, BlockCache.LIMIT))])
        with suppress(CosremasterError), Spool(folder) as spool:
            pack_layer(container, front, replace(packing, spool=spool, progress=SilentProgress()))

    return Worker(prepack)


def repack_containers(layer: Layer, packed: RepackedLayer, packing: Packing) -> tuple[RepackedLayer, ...]:
    """Return ``packed`` and every container of ``layer``, compressed with it inside. Step 6, instead of cpio and gzip.

    ``packed`` is first; the file on the ISO, or its stream where the file is a row of streams, is last.
    """
    layers = [packed]
    while layer.parent is not None and layer.container_entry is not None:
        new_file = (layer.container_entry, layer.replace_stream(layers[-1].packed.table))
        plain = _edit_archive(layer.parent, None, [new_file], packing.resources)
        layer = layer.parent
        layers.append(pack_layer(layer, plain, packing))
    return tuple(layers)


def rebuilt_file(layer: Layer, packed: RepackedLayer) -> PieceTable:
    """Return the bytes of the file on the image that holds ``layer``, whose outermost stream became ``packed``."""
    *_, outermost = with_containers(layer)
    return outermost.replace_stream(packed.packed.table)


def pack_file(changes: Sequence[ArchiveEdits], packing: Packing, folder: Path) -> PackedFile:
    """Return the file of the image that holds the layers of ``changes`` after these. Steps 5 and 6.

    Temporary data go to ``folder``. :raises UnsupportedError: a codec only reads. :raises UsageError: an edit of a
    container removes or replaces the file that holds another layer of ``changes``.
    """
    for change in changes:
        check_writable(change.layer)
    if len(changes) > 1:
        return _pack_several(changes, packing)
    ((layer, edits),) = ((change.layer, change.edits) for change in changes)
    with prepacking_container(layer, packing, folder):
        plain = layer.edit(edits, packing.resources)
        if edits.is_empty and plain.pieces == (Range(layer.decoded, 0, layer.size),):
            return PackedFile(layer.packed, ())
        inner = pack_layer(layer, plain, packing)
    packed = repack_containers(layer, inner, packing)
    return PackedFile(rebuilt_file(layer, packed[-1]), packed)


def _pack_several(changes: Sequence[ArchiveEdits], packing: Packing) -> PackedFile:
    """Return the file after ``changes`` of several of its layers; raises as :func:`pack_file`.

    The files that hold the innermost layers come first; each is a file of the layer around these.
    """
    edits = {change.layer.address: change.edits for change in changes}
    layers = {outer.address: outer for change in changes for outer in with_containers(change.layer)}
    files: dict[Address, list[Layer]] = defaultdict(list)
    for layer in sorted(layers.values(), key=lambda layer: -len(list(with_containers(layer)))):
        files[layer.file_address].append(layer)
    new_files: dict[Address, list[tuple[ContainerEntry, PieceTable]]] = defaultdict(list)
    packed: list[RepackedLayer] = []
    for archives in files.values():
        streams: dict[int, list[tuple[Layer, PieceTable]]] = defaultdict(list)
        for layer in archives:
            plain = _edit_archive(layer, edits.get(layer.address), new_files[layer.address], packing.resources)
            streams[layer.stream].append((layer, plain))
        new_streams: dict[int, PieceTable] = {}
        for number, changed in sorted(streams.items()):
            packed.append(pack_layer(changed[-1][0], _join_archives(changed), packing))
            new_streams[number] = packed[-1].packed.table
        table = layer.replace_streams(new_streams)
        if layer.parent is not None and layer.container_entry is not None:
            new_files[layer.parent.address].append((layer.container_entry, table))
    return PackedFile(table, tuple(packed))


def _edit_archive(
    layer: Layer, edits: Edits | None, new_files: Sequence[tuple[ContainerEntry, PieceTable]],
    resources: EditResources,
) -> PieceTable:  # fmt: skip
    """Return the plain bytes of the stream of ``layer`` after ``edits``, with ``new_files`` in these entries.

    :raises UsageError: an edit removes or replaces one of the entries.
    """
    if edits is None and len(new_files) == 1 and not layer.format.random_access:
        return layer.replace(*new_files[0])
    contents = [(layer.path_of(entry), table) for entry, table in new_files]
    for path, _ in contents:
        if edits is not None and path in edits.removed_paths:
            raise UsageError(
                f"{printable(path)} cannot be changed inside and be replaced or removed", layer.place.inside(path)
            )
    whole = with_new_contents(layer.tree(), edits, contents) if contents or edits is None else edits
    return layer.edit(whole, resources)


def _join_archives(archives: Sequence[tuple[Layer, PieceTable]]) -> PieceTable:
    """Return the plain bytes of a stream of several archives, of which some changed.

    :param archives: each changed one with the plain bytes of the stream in which it alone changed.
    """
    pieces: list[Piece] = []
    reached = 0
    for layer, plain in sorted(archives, key=lambda changed: changed[0].span):
        start, end = layer.span
        own = plain.cut(start, plain.length - (layer.size - end))
        pieces += [Range(layer.decoded, reached, start - reached), *own.pieces]
        reached = end
    return PieceTable([*pieces, Range(layer.decoded, reached, layer.size - reached)])
