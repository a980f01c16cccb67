"""Find the layers of an image, and choose the root file system among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cosremaster.errors import ImageError, LayerError, Place, UnsupportedError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.far_images import is_far
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, format_address, without_numbers
from cosremaster.layers.formats import LayerFormat, format_names
from cosremaster.layers.identify import Identification, identify, identify_partition, identify_table
from cosremaster.layers.inner import match_address, resolve_address
from cosremaster.layers.model import IndexedFile, Layer, RootfsLikelihood, build_layers, index_file
from cosremaster.layers.scan import ScanOptions
from cosremaster.layers.segments import Segment, find_segments
from cosremaster.layers.system_images import (
    FILESYSTEMS,
    INITRAMFS_ROOTS,
    NESTED_ROOTS,
    ForeignFile,
    SystemImages,
    is_root_name,
    sort_system_images,
)
from cosremaster.progress import DECODE, Progress, begin_work, expect_work
from cosremaster.records import Struct
from cosremaster.records.tuples import NamedTuple
from cosremaster.suggestions import PATH_CUTOFF, find_similar, format_suggestion

if TYPE_CHECKING:
    from cosremaster.iso.fats import LocatedFat
    from cosremaster.layers.boot_facts import BootFacts
    from cosremaster.tree.nodes import Node

_MAX_AROUND_DISK = 8
"""Entries of an archive around a disk image: its directories, and what may tell of it."""

_DISK_HEAD = 4104
"""Bytes up to the end of a GPT's magic behind a first sector of 4,096 bytes."""

_IN_INITRAMFS = frozenset((path,) for path in INITRAMFS_ROOTS)
"""What follows the file in the addresses of such file systems."""

QUICK_HEAD = 1 << 17
"""Bytes at most that a quick look reads of a file, whatever its codec would need."""


class ImageLayers(Struct, frozen=True):
    """The layers of an image, outer ones before those inside them, and what else was recognized.

    ``foreign_files``: files that look like something this version cannot open. ``indexed_files``: the index of each
    file that holds archives. ``refusals``: why files that are archives could not be indexed.
    """

    layers: tuple[Layer, ...]
    foreign_files: tuple[ForeignFile, ...]
    indexed_files: tuple[IndexedFile, ...] = ()
    refusals: tuple[UnsupportedError, ...] = ()


class IdentifiedFile(NamedTuple):
    """A file of the image with data, and what its first bytes say.

    ``is_alias``: a file of a path before it has the same extent.
    """

    path: bytes
    table: PieceTable
    identification: Identification
    is_alias: bool


class WatchFile(Protocol):
    """Returns for a file that is indexed what ``ScanOptions.on_nested`` is."""

    def __call__(
        self, path: bytes, packed: PieceTable, place: Place, identification: Identification
    ) -> Callable[[int], None] | None:
        """Return it; None for a file where nobody wants to know."""


class ArchiveFile(Struct, frozen=True):
    """A file of the image that begins like an archive; ``size`` in bytes.

    ``codec``: its name, with that of the format's variant, as in ``gzip+odc``. ``segments``: the archives in it, where
    there are several.
    """

    path: bytes
    format: LayerFormat
    codec: str
    size: int
    segments: tuple[Segment, ...] = ()


def identify_files(
    image: SourceImage, path: bytes | None = None, most: int | None = None, among: Collection[bytes] | None = None
) -> Iterator[IdentifiedFile]:
    """Yield each file of the image that has data, in the order of paths, identified.

    :param path: the only file to identify. :param most: bytes of a file that are read at most. :param among: the files
        that are looked at; None for all.
    :raises LayerError: there is no file ``path``.
    """
    files = sorted((file for file in image.files if path in (None, file.path)), key=lambda file: file.path)
    if path is not None and not files:
        raise LayerError(f"has no file {printable(path)}{_suggest_file(image, path)}", image.place)
    identified: dict[int, Identification] = {}
    for file in files:
        if not file.size or (among is not None and file.path not in among):
            continue
        table, is_alias = image.bytes_of(file), file.start in identified
        if not is_alias:
            has_partitions = image.volume is None and not image.is_single_file
            identified[file.start] = identify_partition(table) if has_partitions else identify_table(table, most)
        yield IdentifiedFile(file.path, table, identified[file.start], is_alias)


def _suggest_file(image: SourceImage, path: bytes) -> str:
    """Return the end of a sentence about ``path``, which ``image`` lacks: a file of that name or of a like one."""
    names = {file.path.decode("utf-8", "surrogateescape"): file.path for file in image.files}
    base = path.rpartition(b"/")[2].lower()
    same = [file.path for file in image.files if file.path.rpartition(b"/")[2].lower() == base]
    like = find_similar(path.decode("utf-8", "surrogateescape"), names, 3, PATH_CUTOFF)
    meant = same[:3] or [names[name] for name in like]
    return format_suggestion([format_address((name,)) for name in meant])


def group_shared_paths(image: SourceImage) -> dict[bytes, tuple[bytes, ...]]:
    """Return for each file of ``image`` that has data the paths of all that share them: hard links, and itself."""
    by_extents: dict[tuple[tuple[int, int], ...], list[bytes]] = defaultdict(list)
    for file in image.files:
        if file.size:
            by_extents[tuple(file.extents)].append(file.path)
    return {path: tuple(sorted(paths)) for paths in by_extents.values() for path in paths}


def find_archive_files(
    image: SourceImage, loaded: Collection[bytes] = ()
) -> tuple[tuple[ArchiveFile, ...], SystemImages]:
    """Return the files that begin like archives, and the file systems.

    Of an image on another machine only the likely files are looked at: those that are ``loaded`` by boot menus, and the
    largest whose names speak for it.

    Of most files their first 4 KiB are read, of none more than 128 KiB, but for initramfs archives that are not
    compressed: up to 16 MiB, to find what follows them.
    """
    archives: list[ArchiveFile] = []
    foreign: list[ForeignFile] = []
    among = None
    if is_far(image) and image.volume is not None:
        from cosremaster.layers.likely_files import choose_likely_files  # noqa: PLC0415 - most are on this machine

        among = choose_likely_files(image, loaded)
    for file in identify_files(image, most=QUICK_HEAD, among=among):
        layer_format = file.identification.format
        if layer_format is not None and layer_format.random_access:
            foreign.append(ForeignFile(file.path, layer_format.limits.container))
        elif layer_format is not None:
            segments = find_segments(file.table, file.identification) if layer_format.is_initramfs else ()
            parts = segments if len(segments) > 1 else ()
            codec = file.identification.codec_label
            archives.append(ArchiveFile(file.path, layer_format, codec, file.table.length, parts))
        elif file.identification.foreign is not None:
            foreign.append(ForeignFile(file.path, file.identification.foreign))
    return tuple(archives), sort_system_images(image, foreign)


def find_layers(
    image: SourceImage,
    address: Address | None,
    progress: Progress,
    options: ScanOptions = ScanOptions(),  # noqa: B008 - a value
    watch: WatchFile | None = None,
) -> ImageLayers:
    """Step 2, instead of zcat, xzcat and cpio: index every archive in the image, each in one pass.

    On an image of other files an archive of a format that is no initramfs is read only where ``address`` names it:
    there may be thousands of packages.

    :param address: index only the file of the image that it names.
    :param watch: returns what is told of archives inside a file.
    :raises LayerError: the image has no such file, or it is no archive. :raises CorruptError: a layer is damaged.
    :raises UnsupportedError: the named file is of a kind that is not handled.
    """
    indexed: list[IndexedFile] = []
    foreign: list[ForeignFile] = []
    refusals: list[UnsupportedError] = []
    archives: list[tuple[bytes, PieceTable, Identification, LayerFormat]] = []
    for path, table, identification, is_alias in identify_files(image, address[0] if address else None):
        if is_alias:
            continue
        if identification.format is None:
            if identification.foreign:
                foreign.append(ForeignFile(path, identification.foreign))
            continue
        if address is None and _is_passed_over(image, identification.format):
            if identification.format.refusal is not None:
                foreign.append(ForeignFile(path, identification.format.limits.container))
            continue
        archives.append((path, table, identification, identification.format))
    expect_work(progress, DECODE, sum(table.length for _, table, known, _ in archives if not known.reads_on_demand))
    for path, table, identification, layer_format in archives:
        method = identification.codec.name
        total = None if identification.reads_on_demand else table.length  # else little of it is read
        with begin_work(progress, f"index {printable(path)}", total, DECODE, method) as advance:
            place = _place_of(image, path)
            on_nested = watch(path, table, place, identification) if watch is not None else None
            watching = options._replace(on_nested=on_nested)
            try:
                indexed.append(index_file(path, table, place, watching, identification, advance))
            except UnsupportedError as error:
                refusals.append(error)
                if layer_format.random_access:
                    foreign.append(ForeignFile(path, layer_format.limits.container))
    if address is not None and not indexed:
        if refusals:
            raise refusals[0]
        instead = f" but {foreign[0].noun}, which is not supported yet" if foreign else ""
        raise LayerError(f"{printable(address[0])} is no {format_names()} archive{instead}", image.place)
    return layers_from_index(image, indexed, foreign, refusals)


def _is_passed_over(image: SourceImage, layer_format: LayerFormat) -> bool:
    """Return whether a file of ``image`` is indexed by address alone: the kernel unpacks none of its format.

    One that cannot be changed may be damaged or a bomb without harm to other files. What a disk consists of is indexed.
    """
    return image.volume is not None and (not layer_format.is_initramfs or layer_format.refusal is not None)


def layers_from_index(
    image: SourceImage, indexed: Sequence[IndexedFile], foreign: Sequence[ForeignFile],
    refusals: Sequence[UnsupportedError] = (),
) -> ImageLayers:  # fmt: skip
    """Return the layers of files of ``image`` that were indexed, now or in an earlier run."""
    tables = {file.path: image.bytes_of(file) for file in image.files}
    layers = [layer for file in indexed for layer in build_layers(file, tables[file.path], _place_of(image, file.path))]
    return ImageLayers(tuple(layers), tuple(foreign), tuple(indexed), tuple(refusals))


def _place_of(image: SourceImage, path: bytes) -> Place:
    """Return the place of the file ``path`` of ``image``, which may be the image itself."""
    return image.place if image.is_single_file else image.place.inside(path)


def choose_layer(
    image: SourceImage, layers: ImageLayers, address: Address | None, facts: BootFacts | None = None
) -> Layer:
    """Step 3: return the layer at ``address``; without it, the one that looks most like an installed system.

    ``facts``: what the image boots, which tells several root file systems apart.

    Of such layers one inside the other the inner is taken. Several archives in one file are unpacked over each other:
    the last stands for them, unless ``address`` has the number of another. Where the image is such a file alone, this
    may look like anything.
    :raises CorruptError: the archive that is meant is damaged.
    :raises LayerError: none fits (with what was found instead), several do (listed), or the root of the running system
        is a file system that is no layer.
    """
    listed = _list_addresses(layers.layers)
    if address is not None:
        layer = match_address(layers.layers, resolve_address(layers.layers, address))
        if layer is not None:
            return layer
        _check_readable(layers.layers, address)
        addresses = [format_address(layer.address) for layer in layers.layers]
        meant = format_suggestion(find_similar(format_address(address), addresses, 1, PATH_CUTOFF))
        raise LayerError(f"has no layer {format_address(address)}; found: {listed}{meant}", image.place)
    _check_readable(layers.layers, None)
    candidates = _most_likely(_without_initramfs_roots(image, layers))
    if not candidates and image.is_single_file:  # in a file of its own there is nothing else that can be meant
        candidates = [layer for layer in layers.layers if layer.parent is None][-1:]
        _check_no_lone_disk(image, candidates)
    _check_no_other_root(image, layers, candidates)
    if any(layer.parent is not None for layer in candidates):  # what is inside an initramfs is what that leaves for
        candidates = [layer for layer in candidates if not _is_image(layer)]
    else:
        candidates = _stacked_roots(image, layers, facts) or candidates
    if len(candidates) == 1:
        _check_no_nested_root(image, candidates[0])
        return candidates[0]
    if candidates:
        listed = _list_addresses(candidates)
        raise LayerError(
            f"several layers look like a root filesystem: {listed}; choose one with --layer, which may be given"
            " again (all means all of them)",
            image.place,
        )
    if layers.refusals:
        raise layers.refusals[0]
    for layer in _root_images(image, layers):
        _check_no_nested_root(image, layer)
    if listed:
        raise LayerError(
            f"no layer looks like a root filesystem; found: {listed}; choose one with --layer"
            f"{_describe_unread_archives(image)}{_describe_hidden_layers(image)}",
            image.place,
        )
    foreign = ", ".join(map(str, layers.foreign_files[:5]))
    instead = f"; found instead: {foreign}, not supported yet" if foreign else ""
    hidden = _describe_unread_archives(image) + _describe_hidden_layers(image)
    raise LayerError(f"holds no {format_names()} archive with a root filesystem{instead}{hidden}", image.place)


def _check_no_lone_disk(image: SourceImage, layers: Sequence[Layer]) -> None:
    """Check that none of ``layers`` is an archive around a disk image, as Debian's clouds have it.

    :raises LayerError: one is.
    """
    for layer in layers:
        if layer.format.random_access or layer.entry_count > _MAX_AROUND_DISK:
            continue
        files = [node for node in layer.tree().values() if node.content is not None]
        if len(files) == 1 and files[0].content is not None and _is_disk(files[0].content.head(_DISK_HEAD)):
            name = printable(files[0].path)
            raise LayerError(
                f"holds nothing but the disk image {name}: unpack that, and take it as the input (--layer"
                f" {format_address(layer.address)} means the archive itself)",
                image.place,
            )


def _is_disk(head: bytes) -> bool:
    """Return whether ``head`` begins a disk image: with a GPT behind the first sector, or in the form of qcow2."""
    return head[512:520] == b"EFI PART" or head[4096:4104] == b"EFI PART" or head[:4] == b"QFI\xfb"


class UnchangedRoot(NamedTuple):
    """A file system at ``address`` that is the root of the running system and no layer; ``noun``: what it is."""

    address: Address
    noun: str

    def __str__(self) -> str:
        """Return the address and what is there, for people."""
        return f"{format_address(self.address)} ({self.noun})"


class UnchangedRootError(LayerError):
    """The root of the running system cannot be changed. ``address``: where it can be read; empty for several."""

    address: Address = ()


def _check_no_nested_root(image: SourceImage, layer: Layer) -> None:
    """Check that ``layer`` is the root itself. :raises UnchangedRootError: it holds a file system that is."""
    nested = next(find_nested_roots(layer), None) if _is_image(layer) else None
    if nested is not None:
        error = UnchangedRootError(
            f"the root file system of the running system is {nested}, which cannot be changed; --layer"
            f" {format_address(layer.address)} changes the file system around it instead",
            image.place,
        )
        error.address = nested.address
        raise error


def find_nested_roots(layer: Layer) -> Iterator[UnchangedRoot]:
    """Yield each file of the file system ``layer`` that dracut mounts as the root instead of it."""
    for path in NESTED_ROOTS:
        node = layer.tree().get(path)
        noun = _noun_of_unchanged(node)
        if noun is not None:
            yield UnchangedRoot((*layer.address[:1], path), noun)


def _noun_of_unchanged(node: Node | None) -> str | None:
    """Return, for people, what the file ``node`` is where it is recognized and cannot be changed; else None."""
    if node is None or node.content is None:
        return None
    identification = identify(node.content.head)
    if identification.format is not None and identification.format.refusal is not None:
        return identification.format.limits.container
    return identification.foreign


def _describe_unread_archives(image: SourceImage) -> str:
    """Return words about the archives on ``image`` that only an address makes layers; empty if there are none."""
    if image.volume is None:
        return ""
    unread = [
        format_address((file.path,))
        for file in identify_files(image, most=QUICK_HEAD)
        if file.identification.format is not None and not file.identification.format.is_initramfs
    ]
    if not unread:
        return ""
    more = f" and {len(unread) - 3:,} others" if len(unread) > 3 else ""
    return f"; {', '.join(unread[:3])}{more} can be changed with --layer"


def _describe_hidden_layers(image: SourceImage) -> str:
    """Return words about each initramfs of ``image`` that is in a FAT file system or in a unified kernel image.

    Empty if there are none.
    """
    if image.volume is None:
        return ""
    from cosremaster.boot.uki import INITRAMFS  # noqa: PLC0415 - only a refusal needs it
    from cosremaster.iso.fats import find_fats  # noqa: PLC0415 - the same
    from cosremaster.iso.unified_kernels import find_unified_kernels  # noqa: PLC0415 - the same

    fats = find_fats(image.volume).fats
    kernels = find_unified_kernels(image.volume, fats)
    unified = [kernel.name for kernel in kernels if INITRAMFS in kernel.unified.sections]
    words = f"; {', '.join(unified)}: a unified kernel image with its initramfs inside" if unified else ""
    inside = [format_address((fat.address, path)) for fat in fats for path in _find_archives(fat)]
    if inside:
        words += f"; {', '.join(inside)}: in a FAT file system (--add-iso can exchange it as a whole)"
    return words + (", which is not supported yet" if words else "")


def _find_archives(fat: LocatedFat) -> Iterator[bytes]:
    """Yield the paths of the files in ``fat`` that begin like archives."""
    for path, file in sorted(fat.files.items()):
        with suppress(ImageError):  # a damaged file
            if file.size and identify_table(fat.table_of(file), QUICK_HEAD).format is not None:
                yield path


def _check_readable(layers: Sequence[Layer], address: Address | None) -> None:
    """Check that no damaged file in an archive is the layer at ``address``, or without it the root file system.

    A file that makes up most of what holds it is taken for that; others are plain files.
    :raises CorruptError: one is.
    """
    for layer in layers:
        for damaged in layer.unreadable:
            names = [(*known, damaged.path) for known in (layer.address, without_numbers(layer.address))]
            if address in names or (address is None and 2 * damaged.size > layer.size):
                raise damaged.error


def list_system_images(image: SourceImage, layers: ImageLayers) -> SystemImages:
    """Return the file systems among the files of ``image``, those that are layers included."""
    own = [ForeignFile(layer.address[0], layer.limits.container) for layer in layers.layers if _is_image(layer)]
    return sort_system_images(image, [*layers.foreign_files, *own])


def _is_image(layer: Layer) -> bool:
    """Return whether ``layer`` is a file system that a file of the image holds."""
    return layer.parent is None and layer.format.random_access


def without_side_images(image: SourceImage, layers: ImageLayers) -> list[Layer]:
    """Return the layers without file systems that become no root: modules, stages of installers, packages.

    An archive of a format that is no initramfs counts only as the file that the image itself is.
    """
    if image.volume is None:
        return [layer for layer in layers.layers if layer.format.is_initramfs or layer.parent is None]
    roots = {file.path for file in list_system_images(image, layers).roots}
    return [
        layer
        for layer in layers.layers
        if (layer.address[0] in roots if _is_image(layer) else layer.format.is_initramfs)
    ]


def _without_initramfs_roots(image: SourceImage, layers: ImageLayers) -> list[Layer]:
    """Return the layers that may be the root of the running system.

    Where a file of the image looks so, a file system that holds the rest of an initramfs is none.
    """
    likely = without_side_images(image, layers)
    if not any(map(_is_initramfs_root, likely)):
        return likely
    foreign = [file for file in list_system_images(image, layers).roots if file in layers.foreign_files]
    if not (foreign or _most_likely(_root_images(image, layers))):
        return likely
    return [layer for layer in likely if not _is_initramfs_root(layer)]


def _is_initramfs_root(layer: Layer) -> bool:
    """Return whether ``layer`` is a file system in an initramfs that holds the rest of that."""
    return without_numbers(layer.address)[1:] in _IN_INITRAMFS


def _root_images(image: SourceImage, layers: ImageLayers) -> list[Layer]:
    """Return the layers that are file systems which become the root of the running system."""
    return [layer for layer in without_side_images(image, layers) if _is_image(layer)]


def _stacked_roots(image: SourceImage, layers: ImageLayers, facts: BootFacts | None) -> list[Layer]:
    """Return the file systems of which one is the root; one alone where several are stacked and it is clear which."""
    images = _root_images(image, layers)
    if len(images) > 1:
        from cosremaster.layers.boot_facts import NO_FACTS  # noqa: PLC0415 - only live images have several
        from cosremaster.layers.stacks import choose_in_stack  # noqa: PLC0415 - the same

        chosen = choose_in_stack(image, [layer.address[0] for layer in images], facts or NO_FACTS)
        if chosen is not None:
            return [layer for layer in images if layer.address[0] == chosen]
    return _most_likely(images)


def _check_no_other_root(image: SourceImage, layers: ImageLayers, candidates: Sequence[Layer]) -> None:
    """Check that ``candidates`` are no mere initramfs that leaves for another root file system.

    :raises LayerError: they are; the message says how they are changed all the same. It is an UnchangedRootError where
        that is a file system.
    """
    outermost = [
        layer
        for layer in candidates or layers.layers
        if layer.parent is None and not _is_image(layer) and layer.format.is_initramfs
    ]
    if not outermost or len(outermost) < len(candidates):
        return  # a layer inside another is what that leaves for
    images = list_system_images(image, layers)
    nested = (root for layer in _root_images(image, layers) for root in find_nested_roots(layer))
    files = (UnchangedRoot((file.path,), file.noun) for file in images.roots if file in layers.foreign_files)
    foreign = [*files, *nested, *_roots_inside(layers.layers)]
    chosen = " or ".join(f"--layer {format_address(layer.address[:1])}" for layer in outermost[:3])
    if foreign:
        listed = ", ".join(map(str, foreign[:5])) + (" and others" if len(foreign) > 5 else "")
        error = UnchangedRootError(
            f"the root file system of the running system is {listed}, which cannot be changed; {chosen}"
            " changes the initramfs instead",
            image.place,
        )
        error.address = foreign[0].address if len(foreign) == 1 else ()
        raise error
    if images.modules and any(file.path.startswith(b"apks/") for file in image.files):
        raise LayerError(
            "the running system is put together in memory from the packages in apks/, so no layer holds its root file"
            f" system; put an overlay beside them (--add-iso site.apkovl.tar.gz:/); {chosen} changes the initramfs"
            " instead",
            image.place,
        )


def _roots_inside(layers: Sequence[Layer]) -> Iterator[UnchangedRoot]:
    """Yield each file system in an archive of ``layers`` that is the root of the running system.

    CoreOS has one so: an EROFS in a cpio archive that the boot loader loads behind the initramfs. Names say which
    files are looked at, for their first bytes may have to be decoded.
    """
    for layer in layers:
        for path in layer.paths if layer.parent is None and not _is_image(layer) else ():
            if not is_root_name(path):
                continue
            node = layer.tree().get(path)
            noun = _noun_of_unchanged(node)
            if noun in FILESYSTEMS:
                yield UnchangedRoot((*layer.address[:1], path), noun)


def choose_in_file(layers: Sequence[Layer]) -> Layer | None:
    """Return of ``layers``, all those in a file, the one that looks most like an installed system; None for none."""
    return next(iter(_most_likely(layers)), None)


def _most_likely(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers that look most like a root filesystem, without those that contain another.

    For archives of one file the last of them stands.
    """
    best = max((layer.likelihood for layer in layers), default=RootfsLikelihood.NOT)
    if best is RootfsLikelihood.NOT:
        return []
    likely = [layer for layer in layers if layer.likelihood is best]
    containers = {id(layer.parent) for layer in likely}
    inner = [layer for layer in likely if id(layer) not in containers]
    last = {layer.address[0]: layer for layer in layers if layer.parent is None}
    chosen = (last[layer.address[0]] if layer.parent is None else layer for layer in inner)
    return list({layer.address: layer for layer in chosen}.values())


def _list_addresses(layers: Sequence[Layer]) -> str:
    """Return the addresses of ``layers`` for people."""
    return ", ".join(format_address(layer.address) for layer in layers)
