"""The page's parts that tell of an image and its original: what changed, and what holds of the way to boot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosremaster.browse.compare import Difference
from cosremaster.layers.address import Address
from cosremaster.reports.html.facts import Facts, pointers_alone, where
from cosremaster.reports.html.markup import LONGEST, Child, Markup, element, joined, text
from cosremaster.reports.html.sections import section
from cosremaster.verification.finding import Finding, Level, Report

LISTED = 150
"""Lines of a kind before the rest is only counted."""

_GROUPS = {
    "added": ("+", "Added"), "removed": ("−", "Removed"), "content": ("~", "Holds something else"),
    "type": ("!", "Of another type"), "metadata": ("m", "Other owner, mode or time"),
    "packing": ("z", "Same things inside, packed otherwise"), "boot": ("b", "Boot and volume records"),
}  # fmt: skip
_POINTERS = ("p", "Same but for the block numbers in it")

_BOOT = (
    "eltorito", "bootinfo", "grub2", "mbr", "code", "gpt", "apm", "partition", "firmware", "against.boot",
    "against.mbr", "against.gpt", "against.code", "against.partition",
)  # fmt: skip


def changes(facts: Facts) -> Markup:
    """Every difference from the original, by its kind."""
    if facts.old is None:
        told = "The page was made without the original (--against), so nothing can be said of changes."
        return section("changes", "What changed", element("p", told, class_="note"))
    if not facts.differences:
        return section("changes", "What changed", element("p", f"Nothing: it holds what {facts.old.name} holds."))
    pointers = pointers_alone(facts.new.image, facts.differences, facts.verified)
    groups: dict[tuple[str, str], list[Difference]] = {one: [] for one in (*_GROUPS.values(), _POINTERS)}
    for one in facts.differences:
        groups[_POINTERS if one.what == "content" and where(one) in pointers else _GROUPS[one.what]].append(one)
    parts = [_group(mark, title, found) for (mark, title), found in groups.items() if found]
    return section("changes", "What changed", *parts)


def _group(mark: str, title: str, found: Sequence[Difference]) -> Markup:
    lines = [
        element("li", _address(one, where(one)), " ", element("small", text("; ".join(one.details), 2 * LONGEST)))
        for one in found[:LISTED]
    ]
    if len(found) > LISTED:
        lines.append(element("li", f"… and {len(found) - LISTED:,} more"))
    head = element("summary", element("i", mark, class_="mark"), f" {title}: {len(found):,}")
    return element("details", head, element("ul", *lines, class_="paths"), open_="open")


def _address(one: Difference, address: Address) -> Markup:
    """An address with its last part, the path, standing out."""
    if not address:
        return element("code", text(one.where) or "the image")
    above = joined(*(element("span", part, " › ") for part in address[:-1]))
    return element("code", above, address[-1])


def proof(facts: Facts) -> Markup:
    """Every way to boot with where it leads, and what was checked."""
    report = facts.verified
    if report is None:
        told = "It is no ISO image: there are no boot records in it that could be checked."
        return section("proof", "Boot proof", element("p", told))
    boot = [one for one in report.findings if _is_boot(one)]
    rest = [one for one in report.findings if not _is_boot(one)]
    parts = [
        _findings(title, found, report, shown=shown or any(one.is_counted for one in found))
        for title, found, shown in (("The way to boot", boot, True), ("Everything else", rest, False)) if found
    ]  # fmt: skip
    return section("proof", "Boot proof", verdict(facts), *parts)


def verdict(facts: Facts) -> Markup:
    """Whether the image is sound, in a sentence; nothing of what was not checked."""
    report = facts.verified
    if report is None:
        return Markup()
    failed, held = sum(one.is_counted for one in report.findings), len(report.at_level(Level.HOLDS))
    word = "Sound" if report.ok else f"Not sound: {failed:,} checks fail"
    compared = " and compared with the original" if facts.old else ""
    told = f"Every pointer was followed{compared}; nothing was booted. {held:,} checks hold."
    return element("p", element("strong", word), " ", told, class_="verdict" if report.ok else "verdict bad")


def _is_boot(one: Finding) -> bool:
    return any(one.check == name or one.check.startswith(name + ".") for name in _BOOT)


_MARKS = {Level.HOLDS: ("ok", "✓"), Level.NOTE: ("note", "•"), Level.FAILS: ("fail", "✗")}


def _findings(title: str, found: Sequence[Finding], report: Report, *, shown: bool) -> Markup:
    """What does not hold comes first."""
    ordered = sorted(found, key=lambda one: (not one.is_counted, one.level is not Level.FAILS))
    lines = [element("li", *_finding(one, report), class_=_MARKS[one.level][0]) for one in ordered[:LISTED]]
    if len(found) > LISTED:
        lines.append(element("li", f"… and {len(found) - LISTED:,} more"))
    head = element("summary", f"{title}: {len(found):,}")
    return element("details", head, element("ul", *lines, class_="checks"), open_="open" if shown else "")


def _finding(one: Finding, report: Report) -> Iterator[Child]:
    word, mark = _MARKS[one.level]
    yield element("i", mark, title=word, role="img", aria_label=word)
    inside = one.place.parts[len(report.place.parts) :]
    offset = "" if one.place.offset is None else f"byte {one.place.offset:,}"
    spot = " › ".join((*(text(part) for part in inside), *((offset,) if offset else ())))
    if one.level is not Level.HOLDS and spot:
        yield element("code", spot)
        yield ": "
    yield element("span", text(one.message, 4 * LONGEST))
    yield " "
    yield element("small", f"{one.check}{' (the original has it too)' if one.is_preexisting else ''}")
