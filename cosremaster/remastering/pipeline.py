"""The seven steps of a remaster as functions; :mod:`cosremaster.remastering.image` runs them.

They are the steps people do by hand (docs/architecture.md maps them): open the image, find its layers, choose
one, lay the overlay over it, pack that layer, pack what holds it, write the image. Nothing is written before
the last, but newly packed bytes into a nameless spool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from cosremaster.boot_config.values import BootSettingsPlan
from cosremaster.boot_memory.estimate import InitramfsSizes, MemoryEstimate, estimate_memory
from cosremaster.checksums.renew import ListChange, RenewedLists
from cosremaster.checksums.update import update_checksums
from cosremaster.codecs.base import BlockCache, RepackJob, RepackResult
from cosremaster.errors import CosremasterError, OverlayError, UnsupportedError, printable
from cosremaster.io.output import Output
from cosremaster.io.parallel import Worker
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource, open_source
from cosremaster.io.spool import Spool
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan, plan_copy, plan_image
from cosremaster.iso.model import IsoImage, SourceImage
from cosremaster.iso.prove import prove_image
from cosremaster.iso.read import read_image
from cosremaster.layers.address import Address, format_address
from cosremaster.layers.cpio.edit import replace_entry_data, replace_stream
from cosremaster.layers.cpio.old import ODC, OldForm
from cosremaster.layers.cpio.tree import LayerTree
from cosremaster.layers.find import ImageLayers
from cosremaster.layers.model import Layer
from cosremaster.overlay.addition import PreparedItem
from cosremaster.overlay.merge import merge
from cosremaster.overlay.patterns import Pattern
from cosremaster.progress import Progress, SilentProgress
from cosremaster.remastering.initramfs_file import InitramfsFile, is_archive_file, read_initramfs_file
from cosremaster.tree.nodes import Edits, NodeKind

EARLY = (b"kernel/x86/microcode/", b"kernel/firmware/acpi/")
"""What the kernel takes from the front of an initramfs before it unpacks it (Documentation/arch/x86/microcode.rst)."""


class Packing(Struct, frozen=True, kw_only=True):
    """How steps 5 and 6 pack: where new bytes go, on how many threads, and with what effort (as in ``Job``).
    ``memos``: of the opened image.
    """

    spool: Spool
    threads: int
    progress: Progress
    preset: int | None = None
    always_compress: bool = False
    memos: dict[Address, BlockCache] = field(default_factory=dict)


class PackedLayer(Struct, frozen=True):
    """A layer packed again."""

    address: Address
    codec: str
    packed: RepackResult


class Plan(Struct, frozen=True, kw_only=True):
    """A remaster before it is written: the chosen layer, its edits, how layers were packed, the new image.

    ``iso``: what becomes of the ISO's own tree as it was asked; ``settings``: of kernel arguments and of the volume's
    id and date; ``sums``: of the lists of sums on it. ``memory``: what it takes to boot the file that holds the chosen
    layer.
    """

    image: IsoImage | InitramfsFile
    layer: Layer | None
    edits: Edits
    packed: tuple[PackedLayer, ...]
    iso: IsoEdits
    settings: BootSettingsPlan
    result: ImagePlan
    sums: tuple[ListChange, ...]
    memory: MemoryEstimate | None
    warnings: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Nothing changes."""
        settings = self.settings
        return self.iso.is_empty and not (self.packed or settings.replaced or settings.overwritten)


def open_image(source: ByteSource) -> IsoImage | InitramfsFile:
    """Step 1, instead of a loop mount: the ISO's tree and boot records, or a bare initramfs.

    Raises as ``read_image``.
    """
    return read_initramfs_file(source) if is_archive_file(source) else read_image(source)


def plan_result(
    image: IsoImage | InitramfsFile, source: ByteSource, edits: IsoEdits, *, drop_hfsplus: bool = False,
    overwritten: Mapping[int, bytes] | None = None,
) -> ImagePlan:  # fmt: skip
    """The new image after ``edits`` of its own tree. Raises as ``plan_image``.

    ``overwritten``: byte offset in the old image -> as many bytes that stand there instead.
    """
    if image.volume is None:
        return image.plan(edits.replaced)
    if edits.is_empty:
        return plan_copy(image, overwritten)
    return plan_image(image, source, edits, drop_hfsplus=drop_hfsplus, overwrites=overwritten)


def plan_overlay(
    tree: LayerTree, items: Sequence[PreparedItem], remove: Sequence[Pattern], *,
    allow_missing: bool = False, force_type: bool = False,
) -> Edits:  # fmt: skip
    """Step 4, instead of cp: what the layer of ``tree`` has to become.

    ``items`` come from ``prepare_items``; ``remove``: what leaves before, directories with what is in them.
    :raises OverlayError: types do not agree (unless ``force_type``), a parent dangles, there is nothing to
        remove (unless ``allow_missing``), or it stands in another archive of the row.
    """
    layer = tree.layer
    edits = merge(tree, items, remove, layer.place, allow_missing=allow_missing, force_type=force_type)
    for earlier in layer.preceding:
        names = set(earlier.paths)
        for path in edits.removed:
            if path in names or any(name.startswith(path + b"/") for name in names):
                where = format_address(earlier.address)
                raise OverlayError(f"stands in {where}, where alone it can be removed", layer.place.inside(path))
    return edits


def shadowing_warnings(layer: Layer, found: ImageLayers, edits: Edits) -> Iterator[str]:
    """What in ``edits`` will not count, because of the other archives in a row with ``layer``."""
    later = [one for one in found.layers if any(layer is before for before in one.preceding)]
    names = {path: one for one in later for path in one.paths}
    for node, _ in edits.additions:
        over = names.get(node.path)
        if over is not None and node.kind is not NodeKind.DIRECTORY:
            yield (
                f"{printable(node.path)} stands in {format_address(over.address)} too,"
                " which is unpacked later and counts"
            )
        if layer.preceding and node.path.startswith(EARLY) and node.kind is not NodeKind.DIRECTORY:
            first = format_address(layer.preceding[0].address)
            yield f"{printable(node.path)}: the kernel looks for it in the first archive alone (--layer {first})"


def format_warnings(layer: Layer) -> Iterator[str]:
    """What an edit of ``layer`` changes beside its entries: it and what holds it are written as newc."""
    one: Layer | None = layer
    while one is not None:
        if isinstance(one.parameters, OldForm):
            kind = "odc" if one.parameters.kind == ODC else "binary"
            yield f"{format_address(one.address)} was a cpio archive in the {kind} form and is written as newc"
        one = one.parent


def check_writable(layer: Layer) -> None:
    """:raises UnsupportedError: ``layer``, or what holds it, is packed in a way that is read only."""
    one: Layer | None = layer
    while one is not None:
        form = one.parameters.inner if isinstance(one.parameters, OldForm) else one.parameters
        if form.name == "lzop":
            from cosremaster.codecs.lzop.codec import REFUSAL  # noqa: PLC0415 - loaded by now, and rare

            raise UnsupportedError(REFUSAL, one.place)
        one = one.parent


def pack_layer(layer: Layer, plain: PieceTable, packing: Packing) -> PackedLayer:
    """Step 5, instead of cpio and xz: ``layer`` holding ``plain``, compressed as it was.

    The result does not depend on the number of threads. Raises what reading the layer and the overlay raises.
    """
    with packing.progress.step(f"pack {printable(layer.address[-1])}", plain.length) as advance:
        job = RepackJob(
            packed=layer.packed,
            decoded=layer.decoded,
            plain=plain,
            spool=packing.spool,
            threads=packing.threads,
            advance=advance,
            preset=packing.preset,
            always_compress=packing.always_compress,
            cache=packing.memos.setdefault(layer.address, BlockCache()),
        )
        packed = layer.parameters.repack(job)
    return PackedLayer(layer.address, layer.parameters.name, packed)


def prepack_container_front(layer: Layer, packing: Packing, folder: Path) -> Worker[None]:
    """Begins with what step 6 will need however ``layer`` is packed: what stands before it in a gzip stream is packed
    again, as much as ``memos`` of ``packing`` keep. Temporary data go to ``folder``. Errors come again with step 6."""

    def work() -> None:
        holder, inside = layer.parent, layer.holder
        if holder is None or inside is None or holder.parameters.name != "gzip" or holder.address in packing.memos:
            return
        front = PieceTable([Range(holder.decoded, 0, min(inside.offset, BlockCache.LIMIT))])
        with suppress(CosremasterError), Spool(folder) as spool:
            pack_layer(holder, front, replace(packing, spool=spool, threads=1, progress=SilentProgress()))

    return Worker(work)


def repack_containers(layer: Layer, packed: PackedLayer, packing: Packing) -> tuple[PackedLayer, ...]:
    """Step 6, instead of cpio and gzip: what holds ``layer``, with the new ``packed`` layer in its place inside.

    ``packed`` first, the ISO's file (or its stream, where it is a row of several) last.
    """
    done = [packed]
    while layer.parent is not None and layer.holder is not None:
        plain = replace_entry_data(layer.parent, layer.holder, done[-1].packed.table)
        layer = layer.parent
        done.append(pack_layer(layer, plain, packing))
    return tuple(done)


def paths_sharing_data(image: SourceImage, path: bytes) -> tuple[bytes, ...]:
    """The paths on the ISO whose data are those of ``path``: hard links, files that share an extent."""
    (wanted,) = (file for file in image.files if file.path == path)
    first, size = wanted.start, wanted.size
    found = (file.path for file in image.files if size and (file.start, file.size) == (first, size))
    return tuple(found) or (path,)


def rebuilt_file(layer: Layer, packed: PackedLayer) -> PieceTable:
    """The bytes of the file that holds ``layer`` at any depth, when its outermost stream became ``packed``."""
    while layer.parent is not None:
        layer = layer.parent
    return replace_stream(layer, packed.packed.table)


def write_image(
    image: IsoImage | InitramfsFile, plan: ImagePlan, output: Output, source: ByteSource, progress: Progress
) -> tuple[str, ...]:
    """Step 7, instead of mkisofs: writes the image, proves it, and gives it its name; returns the proof.

    :raises OutputError: it cannot be written. :raises ProofError: the result is not what was planned.
    """
    with progress.step("write", plan.table.length) as advance:
        written = output.write(plan.table, source, advance)
    with progress.step("prove", None), open_source(written.path) as result:
        proof = (
            image.prove(plan, written, result) if image.volume is None else prove_image(image, plan, written, result)
        )
    source.check_unchanged()
    output.publish()
    return proof


def plan_checksums(
    image: IsoImage | InitramfsFile, source: ByteSource, edits: IsoEdits, progress: Progress, *,
    drop_hfsplus: bool = False, keep: bool = False,
) -> RenewedLists:  # fmt: skip
    """What becomes of the lists of sums on the ISO when ``edits`` change its tree.

    :func:`with_checksum_lists` makes its ``lists`` part of the edits. ``keep``: they stay as they are. Raises as
    ``plan_result``, and what reading the files raises.
    """
    if edits.is_empty or image.volume is None:
        return RenewedLists()
    # The implanted MD5 is in no file, and making it reads the whole image.
    plain = replace(image, implanted=None)

    def make_plan(lists: Mapping[bytes, PieceTable]) -> ImagePlan:
        return plan_result(plain, source, with_checksum_lists(plain, edits, lists), drop_hfsplus=drop_hfsplus)

    return update_checksums(plain, edits, make_plan, progress, keep=keep)


def with_checksum_lists(image: SourceImage, edits: IsoEdits, lists: Mapping[bytes, PieceTable]) -> IsoEdits:
    """``edits`` of ``image`` with new bytes for files of its tree, by the paths that these have in the end."""
    old = {edits.new_path(file.path): file.path for file in image.files} if lists else {}
    return edits.with_contents({old.get(path) or path: table for path, table in lists.items()})


def size_warnings(packed: Sequence[PackedLayer]) -> Iterator[str]:
    """What may be wrong with the sizes of layers that were ``packed`` again, the one that is a file of the ISO last."""
    for layer in packed[-1:]:
        for warning in estimate_memory(InitramfsSizes(packed=layer.packed.table.length)).warnings:
            yield f"{printable(layer.address[0])} {warning}"
