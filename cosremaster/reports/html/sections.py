"""The parts of the page about one image: what it is, its blocks, its layers, and the map of the root file system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from cosremaster.boot_memory.needs import estimate_image_memory
from cosremaster.errors import printable
from cosremaster.iso.model import IsoImage, SourceImage
from cosremaster.layers.address import archive_number
from cosremaster.layers.model import Layer, RootfsLikelihood
from cosremaster.reports.html.facts import Facts, Side
from cosremaster.reports.html.markup import Child, Markup, element, joined, percent, table, text
from cosremaster.reports.html.regions import KINDS, Region, Scale, drawn, regions
from cosremaster.reports.html.treemap import HEIGHT, WIDTH, Box, boxes, grow
from cosremaster.reports.roots import root_lines
from cosremaster.reports.text import memory_lines
from cosremaster.units import BLOCK, SECTORS_PER_BLOCK, format_size

_HUES = 8
_LANES = 8
_NAMED = 5.0
"""A part of the bar of fewer percent has no label of its own, only a tip."""
_LABELLED = (44.0, 13.0)
"""A box of less width or height has no label of its own, only a tip."""


def section(name: str, title: str, *children: Child) -> Markup:
    """Return a part of the page with its heading."""
    return element("section", element("h2", title), *children, id=name)


_T = TypeVar("_T")


def arrow(old: _T | None, new: _T, tell: Callable[[_T], str]) -> str:
    """Return what ``tell`` says of ``new``, preceded by what it says of ``old`` where that is different."""
    before, after = None if old is None else tell(old), tell(new)
    return after if before is None or before == after else f"{before} → {after}"


def summary(facts: Facts) -> Markup:
    """Return the few facts that identify the image."""
    new, old = facts.new.image, facts.old.image if facts.old else None
    rows: list[tuple[str, str]] = [("Size", arrow(old, new, lambda shown: format_size(shown.size)))]
    volume = new.volume
    if volume is not None:
        before = None if old is None else old.volume
        rows.insert(0, ("Volume", arrow(before, volume, lambda shown: shown.volume_id) or "without a name"))
        rows.append(("Blocks", arrow(before, volume, lambda shown: f"{shown.blocks:,}") + " of 2,048 bytes"))
        rows.append(("Files", arrow(old, new, lambda shown: f"{len(shown.files):,}") + " on the ISO"))
        rows.append(("Boots by", ", ".join(dict.fromkeys(_ways(volume))) or "nothing that is known"))
    if facts.new.chosen is not None:
        rows.append(("Root filesystem", " › ".join(_names(facts.new.chosen))))
    if facts.old is not None:
        rows.append(("Made from", facts.old.name))
    items = (element("div", element("dt", name), element("dd", value)) for name, value in rows)
    return element("dl", *items, class_="facts")


def _ways(image: IsoImage) -> Iterator[str]:
    """Yield the ways in which the image boots."""
    for boot in image.boot_images:
        yield boot.entry.describe().partition(",")[0] + " (El Torito)"
    if image.mbr_pointer:
        yield f"MBR code ({image.mbr_pointer.partition(' ->')[0]})"
    tables = (
        ("MBR", image.mbr is not None and bool(image.mbr.used_partitions)),
        ("GPT", bool(image.gpt)),
        ("APM", bool(image.apm)),
    )
    yield from (f"{name} partitions" for name, exists in tables if exists)
    yield from (firmware.name for firmware in image.firmware)


def _names(layer: Layer) -> list[str]:
    """Return the parts of an address; an archive among concatenated ones has a number."""
    return [text(part) if archive_number(part) is None else f"#{archive_number(part)}" for part in layer.address]


def blocks(facts: Facts) -> Markup:
    """Return the section with the image as a bar along its blocks, and the original's above it."""
    sides = ([("Before", facts.old)] if facts.old else []) + [("After" if facts.old else "Now", facts.new)]
    longest = max(side.image.size for _, side in sides) or 1
    rows = {title: regions(side.image, side.layered) for title, side in sides}
    shown = {title: drawn(row) for title, row in rows.items()}
    bars = [
        _bar(title, side.image, Scale.of(shown[title], 100 * side.image.size / longest))
        for title, side in sides if side.image.size
    ]  # fmt: skip
    used = {region.kind for row in shown.values() for region in row}
    legend = (element("li", element("i", class_=kind), KINDS[kind]) for kind in KINDS if kind in used)
    note = "Each part has a little width of its own beside its share, so that the small ones can be seen."
    return section(
        "blocks", "Along its blocks", *bars, element("ul", *legend, class_="legend"), element("p", note, class_="note"),
        _places(shown[sides[-1][0]], rows[sides[-1][0]], rows["Before"] if facts.old else None),
    )  # fmt: skip


def _bar(title: str, image: SourceImage, scale: Scale) -> Markup:
    """Return one bar with its partitions below."""
    parts = [
        element(
            "b", *((element("span", text(region.label)),) if end - start > _NAMED else ()),
            class_=region.kind, title=_tip(region), style=f"left:{percent(start)};width:{percent(end - start)}",
        )
        for region, start, end in zip(scale.row, scale.edges, scale.edges[1:], strict=False)
    ]  # fmt: skip
    bar = element("div", *parts, class_="bar", role="img", aria_label=f"{title}: {len(parts)} parts, listed below")
    head = element("h3", f"{title}: {format_size(image.size)}")
    return element("div", head, bar, *_lanes(image, scale), class_="track")


def _tip(region: Region) -> str:
    """Return the tip of a region: name, blocks, size."""
    return f"{text(region.label)} — blocks {region.start:,} to {region.end - 1:,}, {format_size(region.blocks * BLOCK)}"


def _lanes(image: SourceImage, scale: Scale) -> Iterator[Markup]:
    """Yield the partitions below the bar; partitions of one place share a line."""
    places: dict[tuple[int, int], list[str]] = {}
    for partition in image.volume.partitions if image.volume else ():
        places.setdefault((partition.start, partition.end), []).append(f"{partition.name} ({partition.label})")
    for (start, end), names in list(places.items())[:_LANES]:
        first, last = scale.at(start / SECTORS_PER_BLOCK), scale.at(end / SECTORS_PER_BLOCK)
        label, wide = ", ".join(names), max(0.4, last - first)
        style = f"margin-left:{percent(min(first, 99.6))};width:{percent(wide)}"
        tip = f"{text(label)} — sectors {start:,} to {end - 1:,}"
        line = element("i", style=style)
        behind = f"text-align:right;padding-right:{percent(100 - last)}"
        where = f"margin-left:{percent(first)}" if first < 50 else behind
        yield element("div", line, element("small", text(label), style=where), class_="lane", title=tip)
    if len(places) > _LANES:
        yield element("div", element("small", f"and {len(places) - _LANES:,} more partitions"), class_="lane")


def _places(after: Sequence[Region], whole: Sequence[Region], before: Sequence[Region] | None) -> Markup:
    """Return the table of the bar's parts with their blocks, and where each stood in the original.

    ``whole`` and ``before`` are all regions of both images. Regions of one label are matched in their order.
    """
    names = {region.start: name for name, region in _numbered(whole).items()}
    originals = _numbered(before or ())
    rows: list[tuple[Child, ...]] = []
    for region in after:
        old = originals.get(names[region.start])
        row: tuple[Child, ...] = (joined(element("i", class_=region.kind), text(region.label)), _range(region))
        if before is not None:
            previous = "" if region.count > 1 else "new" if old is None else _range(old) if old != region else "same"
            row = (*row, element("em", previous) if previous not in ("same", "") else previous)
        rows.append((*row, format_size(region.blocks * BLOCK)))
    heads = ("Part", "Blocks", *(("Before",) if before is not None else ()), "Size")
    details = table("Parts of the image in the order of their blocks", heads, rows)
    return element("details", element("summary", f"{len(rows):,} parts, block by block"), details)


def _numbered(row: Sequence[Region]) -> dict[tuple[str, int], Region]:
    """Return the regions by label and by their number among regions of that label."""
    counts = Counter[str]()
    numbered = {}
    for region in row:
        counts[region.label] += 1
        numbered[region.label, counts[region.label]] = region
    return numbered


def _range(region: Region) -> str:
    """Return the first and last block of a region."""
    return f"{region.start:,}" if region.blocks == 1 else f"{region.start:,}–{region.end - 1:,}"


_LOOKS = {
    RootfsLikelihood.NOT: "archive",
    RootfsLikelihood.SOME: "initramfs or small system",
    RootfsLikelihood.SYSTEM: "root filesystem",
}


def layers(facts: Facts) -> Markup:
    """Return the section with every layer inside its container, each with its sizes."""
    side = facts.new
    old = {facts.old.inner(layer.address): layer for layer in facts.old.layers} if facts.old else {}
    if not side.layers:
        return section("layers", "Layer by layer", element("p", "There is no archive in it that could be read."))
    most = max(side.image.size, *(layer.size for layer in side.layers)) or 1
    rows = [_layer(side, layer, old.get(side.inner(layer.address)), most) for layer in side.layers]
    if side.image.volume is not None:
        image = side.image
        description = arrow(facts.old, side, lambda shown: format_size(shown.image.size))
        rows.insert(
            0, _row(0, side.name, f"ISO 9660, {len(image.files):,} files, {description}", image.size, 0, most, "")
        )
    note = "Dark: packed. Light: unpacked. All bars have one scale."
    chain = [] if side.mounted is None else [line.strip() for line in root_lines(side.mounted)]
    root = [element("p", chain[0]), element("ul", *(element("li", line) for line in chain[1:]))] if chain else []
    needs = [element("p", line) for line in _memory(side)]
    return section(
        "layers", "Layer by layer", element("ul", *rows, class_="layers"), element("p", note, class_="note"), *root,
        *needs,
    )  # fmt: skip


def _memory(side: Side) -> Iterator[str]:
    """Yield sentences about the memory that booting each initramfs takes, and its warnings."""
    for path, need in estimate_image_memory(side.image, side.layers).items():
        yield from memory_lines(printable(path), need)
        yield from (f"{printable(path)} {warning}" for warning in need.warnings)


def _layer(side: Side, layer: Layer, old: Layer | None, most: int) -> Markup:
    """Return the row of a layer. ``most`` is the size of the longest bar, in bytes."""
    stream = layer.parameters
    details = f" ({stream.describe()})" if stream.describe() else ""
    entries = arrow(old, layer, lambda version: f"{version.entry_count:,}")
    packed = arrow(old, layer, lambda version: format_size(version.packed.length))
    plain = arrow(old, layer, lambda version: format_size(version.size))
    kind = f"{_LOOKS[layer.likelihood]}: {layer.format_label}"
    sizes = f"entries, {layer.codec_label}{details}, {packed} packed, {plain} plain"
    description = f"{kind}, {entries} {f'inodes, {plain}' if layer.packs_itself else sizes}"
    depth = len(side.inner(layer.address))
    mark = "additions go here" if layer is side.chosen else ""
    return _row(depth, " ".join(_names(layer)[depth - 1 :]), description, layer.packed.length, layer.size, most, mark)


def _row(depth: int, name: str, description: str, packed: int, plain: int, most: int, mark: str) -> Markup:
    """Return a row with a bar of packed and plain bytes, indented by ``depth``."""
    bars = [
        element("i", class_=kind, style=f"width:{percent(100 * size / most)}")
        for kind, size in (("plain", plain), ("packed", packed))
    ]
    head = joined(element("strong", name), *([" ", element("mark", mark)] if mark else []))
    style = f"margin-left:{1.4 * min(depth, 6):.1f}em"
    return element(
        "li", element("div", head, element("p", description), style=style), element("div", *bars, class_="meter")
    )


def treemap(facts: Facts) -> Markup:
    """Return the section with the root file system drawn by the size of its files."""
    top = grow(facts.mapped, facts.changed)
    title = "The root filesystem by size" if facts.new.chosen is not None else "The image's files by size"
    if not top.size:
        return section("map", title, element("p", "It holds no file with data."))
    cells = [_cell(box) for box in boxes(top)]
    totals = f"{top.count:,} files, {format_size(top.size)}; a file of several names counts once."
    if top.changed:
        totals += f" Outlined: where something is new or changed, {top.changed:,} in all."
    label = f"Areas are sizes. {totals} The largest folders are listed below."
    largest = sorted(top.folders.items(), key=lambda item: (-item[1].size, item[0]))[:12]
    rows: list[tuple[Child, ...]] = [
        (b"/" + name, f"{folder.count:,}", format_size(folder.size), f"{100 * folder.size / top.size:.1f} %")
        for name, folder in largest
    ]
    listed = table("The largest folders at the top", ("Folder", "Files", "Size", "Share"), rows) if rows else Markup()
    return section(
        "map", title, element("p", totals), element("div", *cells, class_="map", role="img", aria_label=label),
        element("details", element("summary", f"The {len(rows)} largest folders at the top"), listed),
    )  # fmt: skip


def _cell(box: Box) -> Markup:
    """Return a box of the map with its tip, and its name where there is room."""
    name = box.path.rpartition(b"/")[2] if not box.others else f"{box.count:,} more"
    path = f"{'more in ' if box.others else ''}/{text(box.path)}"
    files = f", {box.count:,} files" if box.folder or box.others else ""
    kinds = [f"h{box.hue % _HUES}"] + ["open"] * box.opened + ["changed"] * box.changed + ["others"] * box.others
    place = zip(
        ("left", "top", "width", "height"),
        (box.x / WIDTH, box.y / HEIGHT, box.width / WIDTH, box.height / HEIGHT), strict=True,
    )  # fmt: skip
    style = ";".join(f"{key}:{percent(100 * value)}" for key, value in place)
    shown = (name,) if box.width >= _LABELLED[0] and box.height >= _LABELLED[1] else ()
    return element("b", *shown, class_=" ".join(kinds), title=f"{path} — {format_size(box.size)}{files}", style=style)
