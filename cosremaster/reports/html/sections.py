"""The page's parts: what the image is, its blocks, its layers, and the map of the root filesystem."""

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
from cosremaster.reports.text import memory_lines
from cosremaster.units import BLOCK, SECTORS_PER_BLOCK, format_size

_HUES = 8
_LANES = 8
_NAMED = 5.0
"""A part of the bar of fewer percent has no label of its own, only a tip."""
_LABELLED = (44.0, 13.0)
"""A box of less width or height has no label of its own, only a tip."""


def section(name: str, title: str, *children: Child) -> Markup:
    """A part of the page with its heading."""
    return element("section", element("h2", title), *children, id=name)


_T = TypeVar("_T")


def arrow(old: _T | None, new: _T, tell: Callable[[_T], str]) -> str:
    """What is to ``tell`` of ``new``, with what is of ``old`` where that is another."""
    before, after = None if old is None else tell(old), tell(new)
    return after if before is None or before == after else f"{before} → {after}"


def summary(facts: Facts) -> Markup:
    """The few facts that say which image this is."""
    new, old = facts.new.image, facts.old.image if facts.old else None
    rows: list[tuple[str, str]] = [("Size", arrow(old, new, lambda one: format_size(one.size)))]
    volume = new.volume
    if volume is not None:
        before = None if old is None else old.volume
        rows.insert(0, ("Volume", arrow(before, volume, lambda one: one.volume_id) or "without a name"))
        rows.append(("Blocks", arrow(before, volume, lambda one: f"{one.blocks:,}") + " of 2,048 bytes"))
        rows.append(("Files", arrow(old, new, lambda one: f"{len(one.files):,}") + " on the ISO"))
        rows.append(("Boots by", ", ".join(dict.fromkeys(_ways(volume))) or "nothing that is known"))
    if facts.new.chosen is not None:
        rows.append(("Root filesystem", " › ".join(_names(facts.new.chosen))))
    if facts.old is not None:
        rows.append(("Made from", facts.old.name))
    items = (element("div", element("dt", name), element("dd", value)) for name, value in rows)
    return element("dl", *items, class_="facts")


def _ways(image: IsoImage) -> Iterator[str]:
    for boot in image.boot_images:
        yield boot.entry.describe().partition(",")[0] + " (El Torito)"
    if image.mbr_pointer:
        yield f"MBR code ({image.mbr_pointer.partition(' ->')[0]})"
    tables = (
        ("MBR", image.mbr is not None and bool(image.mbr.used_partitions)),
        ("GPT", bool(image.gpt)),
        ("APM", bool(image.apm)),
    )
    yield from (f"{name} partitions" for name, there in tables if there)
    yield from (one.name for one in image.firmware)


def _names(layer: Layer) -> list[str]:
    """An address as its parts, with the number of an archive in a row."""
    return [text(part) if archive_number(part) is None else f"#{archive_number(part)}" for part in layer.address]


def blocks(facts: Facts) -> Markup:
    """The image as a bar along its blocks, above it the original's."""
    sides = ([("Before", facts.old)] if facts.old else []) + [("After" if facts.old else "Now", facts.new)]
    longest = max(side.image.size for _, side in sides) or 1
    rows = {title: regions(side.image, side.layered) for title, side in sides}
    shown = {title: drawn(row) for title, row in rows.items()}
    bars = [
        _bar(title, side.image, Scale.of(shown[title], 100 * side.image.size / longest))
        for title, side in sides if side.image.size
    ]  # fmt: skip
    used = {one.kind for row in shown.values() for one in row}
    legend = (element("li", element("i", class_=kind), KINDS[kind]) for kind in KINDS if kind in used)
    note = "Each part has a little width of its own beside its share, so that the small ones can be seen."
    return section(
        "blocks", "Along its blocks", *bars, element("ul", *legend, class_="legend"), element("p", note, class_="note"),
        _places(shown[sides[-1][0]], rows[sides[-1][0]], rows["Before"] if facts.old else None),
    )  # fmt: skip


def _bar(title: str, image: SourceImage, scale: Scale) -> Markup:
    parts = [
        element(
            "b", *((element("span", text(one.label)),) if right - left > _NAMED else ()),
            class_=one.kind, title=_tip(one), style=f"left:{percent(left)};width:{percent(right - left)}",
        )
        for one, left, right in zip(scale.row, scale.edges, scale.edges[1:], strict=False)
    ]  # fmt: skip
    bar = element("div", *parts, class_="bar", role="img", aria_label=f"{title}: {len(parts)} parts, listed below")
    head = element("h3", f"{title}: {format_size(image.size)}")
    return element("div", head, bar, *_lanes(image, scale), class_="track")


def _tip(one: Region) -> str:
    return f"{text(one.label)} — blocks {one.start:,} to {one.end - 1:,}, {format_size(one.blocks * BLOCK)}"


def _lanes(image: SourceImage, scale: Scale) -> Iterator[Markup]:
    """The partitions below the bar, those of one place together."""
    places: dict[tuple[int, int], list[str]] = {}
    for one in image.volume.partitions if image.volume else ():
        places.setdefault((one.start, one.end), []).append(f"{one.name} ({one.label})")
    for (start, end), names in list(places.items())[:_LANES]:
        left, right = scale.at(start / SECTORS_PER_BLOCK), scale.at(end / SECTORS_PER_BLOCK)
        label, wide = ", ".join(names), max(0.4, right - left)
        style = f"margin-left:{percent(min(left, 99.6))};width:{percent(wide)}"
        tip = f"{text(label)} — sectors {start:,} to {end - 1:,}"
        line = element("i", style=style)
        behind = f"text-align:right;padding-right:{percent(100 - right)}"
        where = f"margin-left:{percent(left)}" if left < 50 else behind
        yield element("div", line, element("small", text(label), style=where), class_="lane", title=tip)
    if len(places) > _LANES:
        yield element("div", element("small", f"and {len(places) - _LANES:,} more partitions"), class_="lane")


def _places(after: Sequence[Region], whole: Sequence[Region], before: Sequence[Region] | None) -> Markup:
    """The parts of the bar with their blocks, and where each stood in the original.

    ``whole``, ``before``: all regions of both images. Of several with one label the first was the first, and so on.
    """
    names = {one.start: name for name, one in _numbered(whole).items()}
    known = _numbered(before or ())
    rows: list[tuple[Child, ...]] = []
    for one in after:
        old = known.get(names[one.start])
        row: tuple[Child, ...] = (joined(element("i", class_=one.kind), text(one.label)), _range(one))
        if before is not None:
            told = "" if one.count > 1 else "new" if old is None else _range(old) if old != one else "same"
            row = (*row, element("em", told) if told not in ("same", "") else told)
        rows.append((*row, format_size(one.blocks * BLOCK)))
    heads = ("Part", "Blocks", *(("Before",) if before is not None else ()), "Size")
    found = table("Parts of the image in the order of their blocks", heads, rows)
    return element("details", element("summary", f"{len(rows):,} parts, block by block"), found)


def _numbered(row: Sequence[Region]) -> dict[tuple[str, int], Region]:
    """``row`` by label, and the how many-th of that label."""
    counts = Counter[str]()
    found = {}
    for one in row:
        counts[one.label] += 1
        found[one.label, counts[one.label]] = one
    return found


def _range(one: Region) -> str:
    return f"{one.start:,}" if one.blocks == 1 else f"{one.start:,}–{one.end - 1:,}"


_LOOKS = {
    RootfsLikelihood.NOT: "archive",
    RootfsLikelihood.SOME: "initramfs or small system",
    RootfsLikelihood.SYSTEM: "root filesystem",
}


def layers(facts: Facts) -> Markup:
    """What stands in what, each with its sizes."""
    side = facts.new
    old = {facts.old.inner(layer.address): layer for layer in facts.old.layers} if facts.old else {}
    if not side.layers:
        return section("layers", "Layer by layer", element("p", "There is no archive in it that could be read."))
    most = max(side.image.size, *(layer.size for layer in side.layers)) or 1
    rows = [_layer(side, layer, old.get(side.inner(layer.address)), most) for layer in side.layers]
    if side.image.volume is not None:
        image = side.image
        told = arrow(facts.old, side, lambda one: format_size(one.image.size))
        rows.insert(0, _row(0, side.name, f"ISO 9660, {len(image.files):,} files, {told}", image.size, 0, most, ""))
    note = "Dark: packed. Light: unpacked. All bars have one scale."
    needs = [element("p", line) for line in _memory(side)]
    return section(
        "layers", "Layer by layer", element("ul", *rows, class_="layers"), element("p", note, class_="note"), *needs
    )


def _memory(side: Side) -> Iterator[str]:
    """What it takes to boot each initramfs, and what may keep it from that."""
    for path, need in estimate_image_memory(side.image, side.layers).items():
        yield from memory_lines(printable(path), need)
        yield from (f"{printable(path)} {warning}" for warning in need.warnings)


def _layer(side: Side, layer: Layer, old: Layer | None, most: int) -> Markup:
    form = layer.parameters
    details = f" ({form.describe()})" if form.describe() else ""
    entries = arrow(old, layer, lambda one: f"{len(one.members):,}")
    packed = arrow(old, layer, lambda one: format_size(one.packed.length))
    plain = arrow(old, layer, lambda one: format_size(one.size))
    kind = f"{_LOOKS[layer.likelihood]}: cpio {layer.trailer.header.magic.decode()}"
    told = f"{kind}, {entries} entries, {form.name}{details}, {packed} packed, {plain} plain"
    depth = len(side.inner(layer.address))
    mark = "additions go here" if layer is side.chosen else ""
    return _row(depth, " ".join(_names(layer)[depth - 1 :]), told, layer.packed.length, layer.size, most, mark)


def _row(depth: int, name: str, told: str, packed: int, plain: int, most: int, mark: str) -> Markup:
    bars = [
        element("i", class_=kind, style=f"width:{percent(100 * size / most)}")
        for kind, size in (("plain", plain), ("packed", packed))
    ]
    head = joined(element("strong", name), *([" ", element("mark", mark)] if mark else []))
    style = f"margin-left:{1.4 * min(depth, 6):.1f}em"
    return element("li", element("div", head, element("p", told), style=style), element("div", *bars, class_="meter"))


def treemap(facts: Facts) -> Markup:
    """The root filesystem by the size of what is in it."""
    top = grow(facts.mapped, facts.changed)
    title = "The root filesystem by size" if facts.new.chosen is not None else "The image's files by size"
    if not top.size:
        return section("map", title, element("p", "It holds no file with data."))
    cells = [_cell(box) for box in boxes(top)]
    told = f"{top.count:,} files, {format_size(top.size)}; a file of several names counts once."
    if top.changed:
        told += f" Outlined: where something is new or changed, {top.changed:,} in all."
    label = f"Areas are sizes. {told} The largest folders are listed below."
    largest = sorted(top.folders.items(), key=lambda item: (-item[1].size, item[0]))[:12]
    rows: list[tuple[Child, ...]] = [
        (b"/" + name, f"{one.count:,}", format_size(one.size), f"{100 * one.size / top.size:.1f} %")
        for name, one in largest
    ]
    listed = table("The largest folders at the top", ("Folder", "Files", "Size", "Share"), rows) if rows else Markup()
    return section(
        "map", title, element("p", told), element("div", *cells, class_="map", role="img", aria_label=label),
        element("details", element("summary", f"The {len(rows)} largest folders at the top"), listed),
    )  # fmt: skip


def _cell(box: Box) -> Markup:
    name = box.path.rpartition(b"/")[2] if not box.others else f"{box.count:,} more"
    path = f"{'more in ' if box.others else ''}/{text(box.path)}"
    files = f", {box.count:,} files" if box.folder or box.others else ""
    kinds = [f"h{box.hue % _HUES}"] + ["open"] * box.opened + ["changed"] * box.changed + ["others"] * box.others
    place = zip(
        ("left", "top", "width", "height"),
        (box.left / WIDTH, box.top / HEIGHT, box.width / WIDTH, box.height / HEIGHT), strict=True,
    )  # fmt: skip
    style = ";".join(f"{key}:{percent(100 * value)}" for key, value in place)
    shown = (name,) if box.width >= _LABELLED[0] and box.height >= _LABELLED[1] else ()
    return element("b", *shown, class_=" ".join(kinds), title=f"{path} — {format_size(box.size)}{files}", style=style)
