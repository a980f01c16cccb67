"""Find the layers of an image, and choose the root file system among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from msgspec import Struct

from cosremaster.codecs import SNIFF_SIZE, find_codec
from cosremaster.errors import LayerError, UnsupportedError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, format_address, without_numbers
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.old import MAGICS as OLD_MAGICS
from cosremaster.layers.cpio.scan import ScanOptions
from cosremaster.layers.identify import Identification, look
from cosremaster.layers.model import IndexedFile, Layer, RootfsLikelihood, build_layers, index_file
from cosremaster.progress import Progress


class ImageLayers(Struct, frozen=True):
    """The layers of an image, outer ones before those inside them, and what else was recognized, in words.

    ``files``: what indexing each file learned; ``refused``: why files that are archives could not be indexed.
    """

    layers: tuple[Layer, ...]
    foreign_files: tuple[str, ...]
    indexed_files: tuple[IndexedFile, ...] = ()
    refusals: tuple[UnsupportedError, ...] = ()


def find_layers(
    image: SourceImage,
    wanted: Address | None,
    progress: Progress,
    effort: ScanOptions = ScanOptions(),  # noqa: B008 - a value
) -> ImageLayers:
    """Step 2, instead of zcat, xzcat and cpio: every archive in the image, each read once and noted.

    With ``wanted`` only the file of the ISO that it names. :raises LayerError: the ISO has no such file, or
    it is no archive. :raises CorruptError: a layer is damaged. :raises UnsupportedError: of a kind not handled.
    """
    files: list[IndexedFile] = []
    others: list[str] = []
    refused: list[UnsupportedError] = []
    for path, table, looked in _candidates(image, wanted):
        if not looked.is_archive:
            if looked.foreign:
                others.append(f"{printable(path)} ({looked.foreign})")
            continue
        with progress.step(f"index {printable(path)}", table.length) as advance:
            try:
                files.append(index_file(path, table, looked.codec, image.place.inside(path), advance, effort))
            except UnsupportedError as error:
                refused.append(error)
    if wanted is not None and not files:
        if refused:
            raise refused[0]
        what = f" but {others[0]}, which is not supported yet" if others else ""
        raise LayerError(f"{printable(wanted[0])} is no cpio archive{what}", image.place)
    return layers_from_index(image, files, others, refused)


def layers_from_index(
    image: SourceImage, files: Sequence[IndexedFile], others: Sequence[str], refused: Sequence[UnsupportedError] = ()
) -> ImageLayers:
    """The layers of files of ``image`` that were indexed, now or before."""
    tables = {file.path: image.bytes_of(file) for file in image.files}
    layers = (layer for one in files for layer in build_layers(one, tables[one.path], image.place.inside(one.path)))
    return ImageLayers(tuple(layers), tuple(others), tuple(files), tuple(refused))


class ArchiveFile(Struct, frozen=True):
    """A file of the image that begins like an archive under ``codec``; ``size`` in bytes."""

    path: bytes
    codec: str
    size: int


_GLANCE = 1 << 17


def find_archive_files(image: SourceImage) -> Iterator[ArchiveFile]:
    """What files look like archives, by a few of their first bytes: of most 16, at most 128 KiB of any."""
    for file in sorted(image.files, key=lambda file: file.path):
        table = image.bytes_of(file)
        head = table.read(0, SNIFF_SIZE)
        codec = find_codec(head)
        if codec is None and not head.startswith(cpio.MAGICS + OLD_MAGICS):
            continue
        looked = look(lambda count, table=table: table.read(0, min(count, _GLANCE)))  # type: ignore[misc]
        if looked.is_archive:
            yield ArchiveFile(file.path, looked.codec.name, table.length)


def _candidates(image: SourceImage, wanted: Address | None) -> Iterable[tuple[bytes, PieceTable, Identification]]:
    """Each file of the ISO with what its first bytes say; of names that share an extent the first."""
    seen: set[int] = set()
    files = sorted(image.files, key=lambda file: file.path)
    if wanted is not None:
        files = [file for file in files if file.path == wanted[0]]
        if not files:
            raise LayerError(f"has no file {printable(wanted[0])}", image.place)
    for file in files:
        if not file.size or file.start in seen:
            continue
        seen.add(file.start)
        table = image.bytes_of(file)
        yield file.path, table, look(partial(table.read, 0))


def choose_layer(image: SourceImage, found: ImageLayers, wanted: Address | None) -> Layer:
    """Step 3: the root filesystem among the layers, or the one ``wanted``.

    Without ``wanted``: the archive that looks most like an installed system; of one inside another the inner, of
    several in a row the last.
    :raises LayerError: none fits (told with what was found instead), or several do (listed).
    """
    listed = ", ".join(format_address(layer.address) for layer in found.layers)
    if wanted is not None:
        for layer in reversed(found.layers):
            if wanted in (layer.address, without_numbers(layer.address)):
                return layer
        raise LayerError(f"has no layer {format_address(wanted)}; found: {listed}", image.place)
    best = max((layer.likelihood for layer in found.layers), default=RootfsLikelihood.NOT)
    fit = [layer for layer in found.layers if layer.likelihood is best and best is not RootfsLikelihood.NOT]
    parents = [layer.parent for layer in fit]
    fit = [layer for layer in fit if not any(layer is parent for parent in parents)]
    # Of several archives in a row the last counts: what it holds is unpacked over the others.
    fit = [layer for layer in fit if not any(layer is one for other in fit for one in other.preceding)]
    if len(fit) == 1:
        return fit[0]
    if fit:
        choices = ", ".join(format_address(layer.address) for layer in fit)
        raise LayerError(f"several layers look like a root filesystem: {choices}; choose one with --layer", image.place)
    if found.refusals:
        raise found.refusals[0]
    if listed:
        raise LayerError(
            f"no layer looks like a root filesystem; found: {listed}; choose one with --layer", image.place
        )
    instead = f"; found instead: {', '.join(found.foreign_files[:5])}, not supported yet" if found.foreign_files else ""
    raise LayerError(f"holds no cpio archive with a root filesystem{instead}", image.place)
