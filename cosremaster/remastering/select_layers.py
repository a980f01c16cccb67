"""Step 3 of a remaster: the layers that a request means, by address, by pattern, or all that look like a system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cosremaster.errors import LayerError, UsageError
from cosremaster.io.streams import sha256_of
from cosremaster.iso.model import SourceImage
from cosremaster.layers.address import Address, archive_number, format_address, parse_address, without_numbers
from cosremaster.layers.find import (
    ImageLayers,
    WatchFile,
    choose_in_file,
    choose_layer,
    group_shared_paths,
    without_side_images,
)
from cosremaster.layers.model import Layer
from cosremaster.overlay.patterns import Pattern
from cosremaster.progress import Progress
from cosremaster.records import Struct, replace
from cosremaster.records.tuples import NamedTuple
from cosremaster.remastering.layer_index import LayerIndex, find_facts

if TYPE_CHECKING:
    from cosremaster.layers.boot_facts import BootFacts
    from cosremaster.layers.kept_plain import PlainKeeper

ALL_LAYERS = "all"
"""The text that means, of each file with a layer like a system, the one that additions would go to."""

_WILDCARDS = "*?"


class LayerSelector(Struct, frozen=True):
    """A layer, or several, as a user names them with ``text``.

    ``address``: of one layer; None for :data:`ALL_LAYERS` and for a pattern, which has ``parts``, one for each part of
    an address.
    """

    text: str
    address: Address | None = None
    parts: tuple[Pattern, ...] = ()

    @classmethod
    def parse(cls, text: str) -> LayerSelector:
        """Read an address, a pattern or ``all``. :raises UsageError: it is none of them."""
        if text == ALL_LAYERS:
            return cls(text)
        if any(wildcard in text for wildcard in _WILDCARDS):
            return cls(text, None, tuple(Pattern(part.encode("utf-8", "surrogateescape")) for part in text.split("::")))
        return cls(text, parse_address(text))

    def fits(self, address: Address) -> bool:
        """Return whether the pattern fits ``address``."""
        return len(self.parts) == len(address) and all(
            pattern.matches(part) for pattern, part in zip(self.parts, address, strict=True)
        )


class LayerTarget(Struct, frozen=True):
    """A layer that a request changes.

    ``is_whole``: what all archives of its file unpack to is meant, and ``layer`` is the last of them; otherwise
    ``layer`` alone.
    """

    layer: Layer
    is_whole: bool = False


class FileTargets(Struct, frozen=True):
    """The ``targets`` in the file of the image at the first of ``paths``; the files at the others have equal bytes."""

    paths: tuple[bytes, ...]
    targets: tuple[LayerTarget, ...]


class MeantFile(NamedTuple):
    """What a request means in a file of an image: ``layers`` below the file, each with whether it is whole.

    ``paths``: of the file and of those with equal bytes; none where the image is that file, whatever its name.
    """

    paths: frozenset[bytes]
    layers: frozenset[tuple[Address, bool]]


def list_meant_files(
    image: SourceImage, layers: ImageLayers, targets: Sequence[LayerTarget]
) -> frozenset[MeantFile]:  # fmt: skip
    """Return what ``targets`` mean in the files of ``image``, to be compared with what is meant in another."""
    return frozenset(
        MeantFile(
            frozenset(() if image.is_single_file else group.paths),
            frozenset((target.layer.address[1:], target.is_whole) for target in group.targets),
        )
        for group in group_targets(image, layers, targets)
    )


def read_layers(
    index: LayerIndex, selectors: Sequence[LayerSelector], progress: Progress, keeper: PlainKeeper | None = None,
    watch: WatchFile | None = None,
) -> ImageLayers:  # fmt: skip
    """Return the layers of the image, or only those of the files that ``selectors`` name. Step 2.

    ``keeper``: keeps the plain bytes, where they are packed anew. ``watch``: as in ``find_layers``.
    """
    named = [selector.address for selector in selectors if selector.address is not None]
    if len(named) < max(len(selectors), 1):
        return index.open_inner(index.layers(None, progress, keeper, watch), named)
    addresses = {address[0]: address for address in named}
    first, *others = (index.layers(address, progress, keeper, watch) for address in addresses.values())
    for other in others:
        first = ImageLayers(
            (*first.layers, *other.layers), (*first.foreign_files, *other.foreign_files),
            (*first.indexed_files, *other.indexed_files), (*first.refusals, *other.refusals),
        )  # fmt: skip
    return index.open_inner(first, named)


def select_layers(
    image: SourceImage, layers: ImageLayers, selectors: Sequence[LayerSelector], facts: BootFacts | None = None
) -> tuple[LayerTarget, ...]:
    """Return the layers that ``selectors`` name, each once; without selectors, the root file system.

    ``facts``: what the image boots; found in ``layers`` when None.

    :raises LayerError: nothing fits a selector, or without one no layer or several (with what was found).
    """
    if not selectors:
        return (_target_of(choose_layer(image, layers, None, facts or facts_of_layers(image, layers)), None),)
    targets: dict[Address, LayerTarget] = {}
    for selector in selectors:
        for target in _select(image, layers, selector):
            same = targets.get(target.layer.address)
            targets[target.layer.address] = target if same is None or target.is_whole else same
    return tuple(targets.values())


def facts_of_layers(image: SourceImage, layers: ImageLayers) -> BootFacts:
    """Return what ``image`` boots, whose layers are all indexed: ``layers``."""
    return find_facts(
        image,
        lambda path: [
            layer for layer in layers.layers if layer.address[0] in group_shared_paths(image).get(path, (path,))
        ],
    )


def _select(image: SourceImage, layers: ImageLayers, selector: LayerSelector) -> Iterable[LayerTarget]:
    """Return the layers that ``selector`` names. :raises LayerError: there are none."""
    if selector.address is not None:
        return [_target_of(choose_layer(image, layers, selector.address), selector.address)]
    found = [_target_of(layer, None) for layer in _likely_layers(without_side_images(image, layers))]
    if selector.parts:
        found = list(_matching_targets(image, layers, selector))
    if not found:
        what = f"that fits {selector.text}" if selector.parts else "that looks like a root filesystem"
        listed = ", ".join(format_address(layer.address) for layer in layers.layers)
        raise LayerError(f"has no layer {what}; found: {listed or 'none'}", image.place)
    return found


def _likely_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Return of each file with a layer that looks like a system the layer that additions would go to."""
    layers = [layer for layer in layers if not layer.is_in_filesystem]  # these are named, or nobody knows of them
    files = dict.fromkeys(layer.address[0] for layer in layers)
    chosen = (choose_in_file([layer for layer in layers if layer.address[0] == path]) for path in files)
    return [layer for layer in chosen if layer is not None]


def _matching_targets(
    image: SourceImage, layers: ImageLayers, selector: LayerSelector
) -> Iterable[LayerTarget]:  # fmt: skip
    """Return the layers whose addresses the pattern ``selector`` fits, under any name of their files."""
    names = _names_of_files(image)
    targets: dict[Address, LayerTarget] = {}
    for layer in layers.layers:
        for name in names.get(layer.address[0], (layer.address[0],)):
            address = (name, *layer.address[1:])
            if selector.fits(without_numbers(address)):  # of several archives in a file the last stays
                targets[without_numbers(layer.address)] = _target_of(layer, None)
            elif selector.fits(tuple(_numbered(part) for part in address)):
                targets[layer.address] = LayerTarget(layer)
    return targets.values()


def _numbered(part: bytes) -> bytes:
    """Return ``part`` of an address as patterns see it: ``#2`` for the second archive."""
    number = archive_number(part)
    return part if number is None else b"#%d" % number


def _names_of_files(image: SourceImage) -> Mapping[bytes, tuple[bytes, ...]]:
    """Return the paths of all files that share the data of a file, by the path of each."""
    by_start: dict[tuple[int, int], tuple[bytes, ...]] = {}
    for file in image.files:
        key = (file.start, file.size)
        by_start[key] = (*by_start.get(key, ()), file.path)
    return {file.path: by_start[file.start, file.size] if file.size else (file.path,) for file in image.files}


def _target_of(layer: Layer, address: Address | None) -> LayerTarget:
    """Return the target that ``layer`` is when it is chosen by ``address``, or by its content."""
    has_number = address is not None and archive_number(address[-1]) is not None
    return LayerTarget(layer, is_whole=layer.concatenation is not None and not has_number)


def group_targets(
    image: SourceImage, layers: ImageLayers, targets: Sequence[LayerTarget]
) -> tuple[FileTargets, ...]:  # fmt: skip
    """Return ``targets`` by the file that they are in, with the paths of files that share its data.

    Files of equal bytes in which the same is meant are one group: what happens to them is the same.
    """
    names = _names_of_files(image)
    sizes = {file.path: file.size for file in image.files}
    files: dict[bytes, list[LayerTarget]] = {}
    for target in targets:
        files.setdefault(target.layer.address[0], []).append(target)
    digests = _digest_files(image, layers, files)
    groups: dict[object, FileTargets] = {}
    for path, inside in files.items():
        meant = frozenset((target.layer.address[1:], target.is_whole) for target in inside)
        digest = digests.get(path)
        key = (digest, sizes[path], meant) if digest else path
        group = groups.get(key, FileTargets((), tuple(inside)))
        groups[key] = replace(group, paths=tuple(dict.fromkeys((*group.paths, path, *names[path]))))
    _check_distinct(groups.values())
    return tuple(groups.values())


def _digest_files(image: SourceImage, layers: ImageLayers, paths: Iterable[bytes]) -> Mapping[bytes, bytes]:
    """Return the SHA-256 of the files at ``paths``, as far as their indexes have it or they could be equal."""
    known = {file.path: file.digest for file in layers.indexed_files}
    wanted = {file.path: file for file in image.files if file.path in set(paths)}
    sizes = Counter(file.size for file in wanted.values())
    bare = (path for path, file in wanted.items() if sizes[file.size] > 1 and known.get(path) == b"")
    return known | {path: sha256_of(image.bytes_of(wanted[path]).chunks()) for path in bare}


def _check_distinct(groups: Iterable[FileTargets]) -> None:
    """Check that no file is in two groups. :raises UsageError: other layers are meant under another of its names."""
    seen: set[bytes] = set()
    for group in groups:
        if seen & set(group.paths):
            names = ", ".join(format_address((path,)) for path in group.paths)
            raise UsageError(f"{names} are one file on the image; name all layers in it under one of its names")
        seen |= set(group.paths)
