"""The parts of the page about an image and its original: what changed, and the state of the way to boot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosremaster.browse.compare import Difference
from cosremaster.layers.address import Address
from cosremaster.reports.html.facts import Facts, pointers_alone, where
from cosremaster.reports.html.markup import LONGEST, Child, Markup, element, joined, text
from cosremaster.reports.html.sections import section
from cosremaster.verification.finding import Finding, Level, VerificationReport

LISTED = 150
"""Lines of a kind before the rest is only counted."""

DIFF_LINES = 40
"""Lines of the diff of a text file before the rest is only counted."""

_GROUPS = {
    "added": ("+", "Added"), "removed": ("−", "Removed"), "content": ("~", "Holds something else"),
    "type": ("!", "Of another type"), "metadata": ("m", "Other owner, mode or time"),
    "packing": ("z", "Same things inside, packed otherwise"), "boot": ("b", "Boot and volume records"),
}  # fmt: skip
_POINTERS = ("p", "Same but for the block numbers in it")

_BOOT = (
    "eltorito", "bootinfo", "grub2", "mbr", "code", "gpt", "apm", "partition", "firmware", "coreos",
    "against.boot",
    "against.mbr", "against.gpt", "against.code", "against.partition",
)  # fmt: skip


def changes(facts: Facts) -> Markup:
    """Return the section with every difference from the original, grouped by kind."""
    if facts.old is None:
        note = "The page was made without the original (--against), so nothing can be said of changes."
        return section("changes", "What changed", element("p", note, class_="note"))
    if not facts.differences:
        return section("changes", "What changed", element("p", f"Nothing: it holds what {facts.old.name} holds."))
    pointers = pointers_alone(facts.new.image, facts.differences, facts.verified)
    groups: dict[tuple[str, str], list[Difference]] = {difference: [] for difference in (*_GROUPS.values(), _POINTERS)}
    for difference in facts.differences:
        groups[
            _POINTERS if difference.what == "content" and where(difference) in pointers else _GROUPS[difference.what]
        ].append(difference)
    parts = [_group(mark, title, group) for (mark, title), group in groups.items() if group]
    return section("changes", "What changed", *parts)


def _group(mark: str, title: str, differences: Sequence[Difference]) -> Markup:
    """Return a list of differences of one kind, the first :data:`LISTED` of them."""
    lines = [
        element(
            "li",
            _address(difference, where(difference)),
            " ",
            element("small", text("; ".join(difference.details), 2 * LONGEST)),
            _text_diff(difference.text),
        )
        for difference in differences[:LISTED]
    ]
    if len(differences) > LISTED:
        lines.append(element("li", f"… and {len(differences) - LISTED:,} more"))
    head = element("summary", element("i", mark, class_="mark"), f" {title}: {len(differences):,}")
    return element("details", head, element("ul", *lines, class_="paths"), open_="open")


def _text_diff(lines: Sequence[str]) -> Markup:
    """Return the lines of a unified diff, without the two that name the file; nothing where there are none."""
    shown = lines[2 : 2 + DIFF_LINES]
    if not shown:
        return Markup()
    classes = {"+": "plus", "-": "minus", "@": "spot"}
    parts = [element("code", text(line, 2 * LONGEST), class_=classes.get(line[:1], "")) for line in shown]
    if len(lines) > 2 + DIFF_LINES:
        parts.append(element("small", f"… and {len(lines) - 2 - DIFF_LINES:,} more lines"))
    return element("div", *parts, class_="lines")


def _address(difference: Difference, address: Address) -> Markup:
    """Return an address with its last part, the path, standing out."""
    if not address:
        return element("code", text(difference.where) or "the image")
    above = joined(*(element("span", part, " › ") for part in address[:-1]))
    return element("code", above, address[-1])


def proof(facts: Facts) -> Markup:
    """Return the section with every way to boot, where it leads, and what was checked."""
    report = facts.verified
    if report is None:
        note = "It is no ISO image: there are no boot records in it that could be checked."
        return section("proof", "Boot proof", element("p", note))
    boot = [finding for finding in report.findings if _is_boot(finding)]
    rest = [finding for finding in report.findings if not _is_boot(finding)]
    parts = [
        _findings(title, group, report, shown=shown or any(finding.is_counted for finding in group))
        for title, group, shown in (("The way to boot", boot, True), ("Everything else", rest, False)) if group
    ]  # fmt: skip
    return section("proof", "Boot proof", *parts)


def verdict(facts: Facts) -> Markup:
    """Return a sentence that says whether the image is sound. It says nothing about things that were not checked."""
    report = facts.verified
    if report is None:
        return Markup()
    failed, held = sum(finding.is_counted for finding in report.findings), len(report.at_level(Level.HOLDS))
    word = "Sound" if report.ok else f"Not sound: {failed:,} checks fail"
    compared = " and compared with the original" if facts.old else ""
    summary = f"Every pointer was followed{compared}; nothing was booted. {held:,} checks hold."
    return element("p", element("strong", word), " ", summary, class_="verdict" if report.ok else "verdict bad")


def _is_boot(finding: Finding) -> bool:
    """Tell whether a finding is about a boot record."""
    return any(finding.check == name or finding.check.startswith(name + ".") for name in _BOOT)


_MARKS = {Level.HOLDS: ("ok", "✓"), Level.NOTE: ("note", "•"), Level.FAILS: ("fail", "✗")}


def _findings(title: str, findings: Sequence[Finding], report: VerificationReport, *, shown: bool) -> Markup:
    """Return a list of findings, failures first."""
    ordered = sorted(findings, key=lambda finding: (not finding.is_counted, finding.level is not Level.FAILS))
    lines = [element("li", *_finding(finding, report), class_=_MARKS[finding.level][0]) for finding in ordered[:LISTED]]
    if len(findings) > LISTED:
        lines.append(element("li", f"… and {len(findings) - LISTED:,} more"))
    head = element("summary", f"{title}: {len(findings):,}")
    return element("details", head, element("ul", *lines, class_="checks"), open_="open" if shown else "")


def _finding(finding: Finding, report: VerificationReport) -> Iterator[Child]:
    """Yield the parts of a line about ``finding``: mark, place, message, check."""
    word, mark = _MARKS[finding.level]
    yield element("i", mark, title=word, role="img", aria_label=word)
    inside = finding.place.parts[len(report.place.parts) :]
    offset = "" if finding.place.offset is None else f"byte {finding.place.offset:,}"
    spot = " › ".join((*(text(part) for part in inside), *((offset,) if offset else ())))
    if finding.level is not Level.HOLDS and spot:
        yield element("code", spot)
        yield ": "
    yield element("span", text(finding.message, 4 * LONGEST))
    yield " "
    yield element("small", f"{finding.check}{' (the original has it too)' if finding.is_preexisting else ''}")
