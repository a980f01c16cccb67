"""The seven steps of a remaster as functions, and :func:`remaster` over them.

They are the steps people do by hand (docs/architecture.md maps them): open the image, find its layers, choose
one, lay the overlay over it, pack that layer, pack what holds it, write the image. Nothing is written before
the last, but newly packed bytes into a nameless spool.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosremaster import cpio
from cosremaster.codecs.base import Job, Packed
from cosremaster.errors import LayerError, UnsupportedError, UsageError, show
from cosremaster.files import FileSource, Spool
from cosremaster.iso.encode import MAX_EXTENT, ImagePlan, plan_image, unchanged_plan
from cosremaster.iso.model import Image
from cosremaster.iso.prove import prove
from cosremaster.iso.read import read_image
from cosremaster.layers.address import Address, format_address, parse_address
from cosremaster.layers.edit import apply_edits, exchange_member
from cosremaster.layers.index import HEAD_SIZE, Layer, Probe, Rootness, index_file, probe
from cosremaster.layers.tree import LayerTree
from cosremaster.nodes import Action, Edits
from cosremaster.output import Output
from cosremaster.overlay.merge import Addition, merge
from cosremaster.overlay.request import Add, read_additions
from cosremaster.parallel import cores
from cosremaster.pieces import PieceTable
from cosremaster.progress import Progress, Silent
from cosremaster.units import human

GRUB_LIMIT = int(1.2 * (1 << 30))
"""GRUB loads the layer's ISO file below 2 GiB of memory; 1.3 GiB booted everywhere, 1.7 GiB not (docs/formats.md)."""

SUMS = frozenset((b"md5sum.txt", b"MD5SUMS", b"SHA256SUMS", b"sha256sum.txt"))


@dataclass(frozen=True, slots=True)
class Found:
    """The layers of an image, outer ones before those inside them, and what else was recognized, in words."""

    layers: tuple[Layer, ...]
    others: tuple[str, ...]
    refused: tuple[UnsupportedError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How steps 5 and 6 pack: where new bytes go, on how many threads, and with what effort (as in ``Job``)."""

    spool: Spool
    threads: int
    progress: Progress
    preset: int | None = None
    always_compress: bool = False


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer packed again."""

    address: Address
    codec: str
    packed: Packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a remaster did. Paths are bytes, relative to the layer's root; sizes are bytes.

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
    input_size: int
    output_size: int
    layer_file: str | None = None
    layer_file_size: int = 0
    packed: tuple[PackedLayer, ...] = ()
    warnings: tuple[str, ...] = ()
    proof: tuple[str, ...]
    identical: bool


def open_image(source: FileSource) -> Image:
    """Step 1, instead of a loop mount: the ISO's tree and boot records. Raises as ``read_image``."""
    return read_image(source)


def find_layers(image: Image, wanted: Address | None, progress: Progress) -> Found:
    """Step 2, instead of zcat, xzcat and cpio: every archive in the image, each read once and noted.

    With ``wanted`` only the file of the ISO that it names. :raises LayerError: the ISO has no such file, or
    it is no archive. :raises CorruptError: a layer is damaged. :raises UnsupportedError: of a kind not handled.
    """
    layers: list[Layer] = []
    others: list[str] = []
    refused: list[UnsupportedError] = []
    for path, table, looked in _candidates(image, wanted):
        if not looked.is_archive:
            if looked.foreign:
                others.append(f"{show(path)} ({looked.foreign})")
            continue
        with progress.step(f"index {show(path)}", table.length) as advance:
            try:
                layers += index_file(path, table, looked.codec, image.place.inside(path), advance)
            except UnsupportedError as error:
                refused.append(error)
    if wanted is not None and not layers:
        if refused:
            raise refused[0]
        what = f" but {others[0]}, which is not supported yet" if others else ""
        raise LayerError(f"{show(wanted[0])} is no cpio archive{what}", image.place)
    return Found(tuple(layers), tuple(others), tuple(refused))


def _candidates(image: Image, wanted: Address | None) -> Iterable[tuple[bytes, PieceTable, Probe]]:
    """Each file of the ISO with what its first bytes say; of names that share an extent the first."""
    seen: set[int] = set()
    files = sorted(image.files, key=lambda file: file.path)
    if wanted is not None:
        files = [file for file in files if file.path == wanted[0]]
        if not files:
            raise LayerError(f"has no file {show(wanted[0])}", image.place)
    for file in files:
        if not file.size or file.records[0].lba in seen:
            continue
        seen.add(file.records[0].lba)
        table = image.bytes_of(file)
        head = b"".join(table.cut(0, min(table.length, HEAD_SIZE)).chunks())
        yield file.path, table, probe(head)


def choose_layer(image: Image, found: Found, wanted: Address | None) -> Layer:
    """Step 3: the root filesystem among the layers, or the one ``wanted``.

    Without ``wanted``: the archive that looks most like an installed system; of one inside another the inner.
    :raises LayerError: none fits (told with what was found instead), or several do (listed).
    """
    listed = ", ".join(format_address(layer.address) for layer in found.layers)
    if wanted is not None:
        for layer in found.layers:
            if layer.address == wanted:
                return layer
        raise LayerError(f"has no layer {format_address(wanted)}; found: {listed}", image.place)
    best = max((layer.rootness for layer in found.layers), default=Rootness.NOT)
    fit = [layer for layer in found.layers if layer.rootness is best and best is not Rootness.NOT]
    parents = [layer.parent for layer in fit]
    fit = [layer for layer in fit if not any(layer is parent for parent in parents)]
    if len(fit) == 1:
        return fit[0]
    if fit:
        choices = ", ".join(format_address(layer.address) for layer in fit)
        raise LayerError(f"several layers look like a root filesystem: {choices}; choose one with --layer", image.place)
    if found.refused:
        raise found.refused[0]
    if listed:
        raise LayerError(
            f"no layer looks like a root filesystem; found: {listed}; choose one with --layer", image.place
        )
    instead = f"; found instead: {', '.join(found.others[:5])}, not supported yet" if found.others else ""
    raise LayerError(f"holds no cpio archive with a root filesystem{instead}", image.place)


def plan_overlay(layer: Layer, additions: Sequence[Addition], remove: Sequence[bytes]) -> Edits:
    """Step 4, instead of cp: what the layer has to become.

    ``additions`` come from ``read_additions``; ``remove``: paths that leave, directories with what is in them.
    :raises OverlayError: types do not agree, a parent dangles, or a path to remove is not there.
    """
    return merge(LayerTree(layer), additions, [cpio.normal_name(path) for path in remove], layer.place)


def pack_layer(layer: Layer, plain: PieceTable, packing: Packing) -> PackedLayer:
    """Step 5, instead of cpio and xz: ``layer`` holding ``plain``, compressed as it was.

    The result does not depend on the number of threads. Raises what reading the layer and the overlay raises.
    """
    with packing.progress.step(f"pack {show(layer.address[-1])}", plain.length) as advance:
        job = Job(
            packed=layer.packed,
            decoded=layer.decoded,
            plain=plain,
            spool=packing.spool,
            threads=packing.threads,
            advance=advance,
            preset=packing.preset,
            always_compress=packing.always_compress,
        )
        packed = layer.form.pack(job)
    return PackedLayer(layer.address, layer.form.name, packed)


def pack_holders(layer: Layer, packed: PackedLayer, packing: Packing) -> tuple[PackedLayer, ...]:
    """Step 6, instead of cpio and gzip: what holds ``layer``, with the new ``packed`` layer in its place inside.

    ``packed`` first, the ISO's file last.
    """
    done = [packed]
    while layer.parent is not None and layer.holder is not None:
        plain = exchange_member(layer.parent, layer.holder, done[-1].packed.table)
        layer = layer.parent
        done.append(pack_layer(layer, plain, packing))
    return tuple(done)


def write_image(
    image: Image, plan: ImagePlan, output: Output, source: FileSource, progress: Progress
) -> tuple[str, ...]:
    """Step 7, instead of mkisofs: writes the image, proves it, and gives it its name; returns the proof.

    :raises OutputError: it cannot be written. :raises ProofError: the result is not what was planned.
    """
    with progress.step("write", plan.table.length) as advance:
        path = output.write(plan.table, advance)
    with progress.step("prove", None), FileSource(path) as written:
        proof = prove(image, plan, written)
    source.check_unchanged()
    output.publish()
    return proof


def remaster(
    source: str | Path,
    target: str | Path,
    *,
    add: Iterable[str | Path | Add] = (),
    remove: Iterable[str | bytes] = (),
    layer: str | None = None,
    force: bool = False,
    threads: int | None = None,
    xz_preset: int | None = None,
    always_compress: bool = False,
    source_date_epoch: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Writes the image ``source`` to ``target`` with files added to its root filesystem.

    ``add``: files and directories, as :class:`Add`, a path, or text like ``"site/:/opt"``; ``remove``: paths
    inside the layer. ``layer``: an address as in ``"live.cgz::rootfs.cxz"``, found by content when None.
    ``source_date_epoch`` (seconds; the environment's SOURCE_DATE_EPOCH when None) bounds new mtimes.
    ``force`` replaces an existing target. ``threads``: as many as there are processors when None.
    ``xz_preset``: 0 to 9 for what xz has to encode, 6 when None; ``always_compress``: also what does not shrink.

    :raises CosremasterError: one of its kinds (docs/exit-codes.md); the target is then not there.
    """
    progress = progress or Silent()
    adds = [_as_add(item) for item in add]
    removes = [os.fsencode(path) for path in remove]
    wanted = None if layer is None else parse_address(layer)
    newest = _newest() if source_date_epoch is None else source_date_epoch
    threads = cores() if threads is None else threads
    if threads < 1:
        raise UsageError(f"{threads} threads cannot do anything")
    if xz_preset is not None and xz_preset not in range(10):
        raise UsageError(f"xz has presets 0 to 9, not {xz_preset}")
    with FileSource(Path(source)) as file, Output(Path(target), (Path(source),), force=force) as output:
        image = open_image(file)
        if not adds and not removes and wanted is None:
            return _copied(image, file, output, progress)
        additions, notes = read_additions(adds, newest, cpio.MAX_FIELD)  # their faults are told before the long work
        found = find_layers(image, wanted, progress)
        chosen = choose_layer(image, found, wanted)
        edits = plan_overlay(chosen, additions, removes)
        with Spool(output.folder, MAX_EXTENT) as spool:
            done: tuple[PackedLayer, ...] = ()
            exchanged: dict[bytes, PieceTable] = {}
            if not edits.empty:
                packing = Packing(
                    spool=spool,
                    threads=threads,
                    progress=progress,
                    preset=xz_preset,
                    always_compress=always_compress,
                )
                packed = pack_layer(chosen, apply_edits(chosen, edits), packing)
                done = pack_holders(chosen, packed, packing)
                exchanged[chosen.address[0]] = done[-1].packed.table
            plan = plan_image(image, file, exchanged) if exchanged else unchanged_plan(image)
            warnings = (*notes, *edits.warnings, *_warnings(image, exchanged))
            for warning in warnings:
                progress.warn(warning)
            proof = write_image(image, plan, output, file, progress)
    return Result(
        layer=format_address(chosen.address), added=edits.paths(Action.ADDED), replaced=edits.paths(Action.REPLACED),
        removed=edits.removed, unchanged=edits.unchanged, parents=edits.paths(Action.PARENT),
        input_size=image.size, output_size=plan.table.length, layer_file=show(chosen.address[0]),
        layer_file_size=plan.changed.get(chosen.address[0], _file_size(image, chosen.address[0])),
        warnings=warnings, packed=done, proof=proof, identical=not exchanged,
    )  # fmt: skip


def _copied(image: Image, source: FileSource, output: Output, progress: Progress) -> Result:
    plan = unchanged_plan(image)
    proof = write_image(image, plan, output, source, progress)
    return Result(layer=None, input_size=image.size, output_size=image.size, proof=proof, identical=True)


def _as_add(item: str | Path | Add) -> Add:
    if isinstance(item, Add):
        return item
    return Add.parse(item) if isinstance(item, str) else Add(item)


def _newest() -> int | None:
    """SOURCE_DATE_EPOCH (reproducible-builds.org). :raises UsageError: it is set and no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return min(int(text), cpio.MAX_FIELD)


def _file_size(image: Image, path: bytes) -> int:
    return next(file.size for file in image.files if file.path == path)


def _warnings(image: Image, exchanged: Mapping[bytes, PieceTable]) -> Iterable[str]:
    for path, table in exchanged.items():
        if table.length > GRUB_LIMIT:
            yield (
                f"{show(path)} is now {human(table.length)}: GRUB loads it whole below 2 GiB of memory, and above"
                f" {human(GRUB_LIMIT)} that may fail; put large files on the ISO's own file tree instead"
            )
    stale = [show(file.path) for file in image.files if file.path.rpartition(b"/")[2] in SUMS]
    if exchanged and stale:
        yield f"{', '.join(stale)}: sums of the exchanged files are stale now"
