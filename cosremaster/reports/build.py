"""An image, beside the one it was made from where that is there, as a page that people look at (docs/html.md)."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from cosremaster.browse.compare import Difference, compare_nodes
from cosremaster.browse.container import enter_if_container, follow, open_container
from cosremaster.errors import LayerError, UsageError
from cosremaster.io.output import Output
from cosremaster.io.source import open_source
from cosremaster.io.urls import ImagePath, parse_image_path
from cosremaster.iso.model import IsoImage
from cosremaster.layers.find import ImageLayers, choose_layer, list_system_images
from cosremaster.layers.model import Layer
from cosremaster.layers.scan import MAX_EXPAND, ScanOptions
from cosremaster.layers.stacks import find_mounted_root
from cosremaster.progress import Progress, SilentProgress
from cosremaster.remastering.image import OpenedImage
from cosremaster.reports.html.facts import Facts, Side, where
from cosremaster.reports.html.findings import LISTED
from cosremaster.reports.html.page import page
from cosremaster.reports.html.treemap import Weight
from cosremaster.verification.named_paths import list_tree_paths
from cosremaster.verification.run import verify


def write_overview(
    source: ImagePath,
    target: str | os.PathLike[str],
    *,
    against: ImagePath | None = None,
    changed: Collection[bytes] = (),
    force: bool = False,
    max_expand: int = MAX_EXPAND,
    progress: Progress | None = None,
) -> None:
    """Write the page about the image ``source`` to ``target``. Neither image is changed.

    ``against`` is the image that ``source`` was made from. Files on the ISO that differ from its files are listed as
    changed. Only files that boot records lead to must hold the same bytes, except ``changed``: the paths that were
    meant to change. ``force`` replaces an existing target. ``max_expand`` is the ratio above which a layer is refused
    as a bomb.

    :raises CosremasterError: any of its kinds; there is no target then.
    """
    progress = progress or SilentProgress()
    images = (parse_image_path(path) for path in (source, against) if path is not None)
    paths = tuple(path for path in images if isinstance(path, Path))
    with ExitStack() as stack:
        output = stack.enter_context(Output(Path(target), paths, force=force))
        new, old = _side(stack, source, max_expand, progress), None
        if changed and new.image.volume is None:
            raise UsageError(f"{source}: is no ISO, and paths that were to be changed are those of an ISO")
        differences: tuple[Difference, ...] = ()
        if against is not None:
            old = _side(stack, against, max_expand, progress)
            with progress.step("compare layers", None):
                differences = tuple(_compared(stack, against, source, max_expand))
        verified = None
        if new.image.volume is not None:
            meant = {*changed, *_exchanged((new, old), differences)} if old is not None else ()
            verified = verify(source, against=against, changed=meant, progress=progress)
        facts = Facts(new=new, old=old, differences=differences, verified=verified, mapped=_mapped(new))
        output.write_chunks([page(facts)])
        output.publish()


def _side(stack: ExitStack, path: ImagePath, max_expand: int, progress: Progress) -> Side:
    """Open the image at ``path`` and return it with its layers; ``stack`` closes it."""
    opened = stack.enter_context(OpenedImage(path, max_expand=max_expand))
    image_layers = opened.layers(progress=progress)
    roots = [file.path for file in list_system_images(opened.image, image_layers).roots]
    return Side(
        name=parse_image_path(path).name, image=opened.image, layers=image_layers.layers,
        chosen=_chosen(opened, image_layers),
        mounted=find_mounted_root(opened.image, opened.facts, roots),
    )  # fmt: skip


def _chosen(opened: OpenedImage, image_layers: ImageLayers) -> Layer | None:
    """Return the layer that additions would go to. Where several fit, return the one with the most entries."""
    try:
        return choose_layer(opened.image, image_layers, None, opened.facts)
    except LayerError:
        return max(image_layers.layers, key=lambda layer: (layer.likelihood, layer.entry_count), default=None)


def _compared(stack: ExitStack, old: ImagePath, new: ImagePath, max_expand: int) -> Iterable[Difference]:
    """Compare two images without descending into archives inside archives."""
    options = ScanOptions(digests=True, nesting=0, max_expand=max_expand)
    sides = [
        enter_if_container(follow(*open_container(stack.enter_context(open_source(path)), (), options)))
        for path in (old, new)
    ]
    return compare_nodes(sides[0], sides[1], text=True, most_texts=LISTED)


def _exchanged(sides: Sequence[Side], differences: Iterable[Difference]) -> set[bytes]:
    """Return the files on the ISO that differ, without boot files, which verification compares itself.

    ``sides``: the new image and the old one, in one of which each path is that :func:`verify` gets.
    """
    volume = sides[0].image.volume
    boot_paths = {boot.path for boot in volume.boot_images} if volume else set()
    if volume and volume.catalog is not None:
        boot_paths |= {file.path for file in volume.files if file.start == volume.catalog.lba}
    paths = {address[0] for difference in differences if (address := where(difference))} - boot_paths
    return paths & set[bytes]().union(*map(list_tree_paths, _volumes(sides))) if paths else paths


def _volumes(sides: Sequence[Side]) -> Iterator[IsoImage]:
    """Yield the ISO 9660 volumes among ``sides``."""
    for side in sides:
        if side.image.volume is not None:
            yield side.image.volume


def _mapped(side: Side) -> Iterator[Weight]:
    """Yield the files of the root file system, or of the ISO where there is no layer."""
    if side.chosen is None:
        for file in side.image.files:
            yield Weight(file.path, file.size, file.start if file.size else None)
        return
    for node in side.chosen.tree().values():
        if node.content is not None:
            yield Weight(node.path, node.content.size, node.link)
