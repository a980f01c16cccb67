"""Boot menus and changes to them, as lines of text and as values that become JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cosremaster.errors import printable
from cosremaster.reports.fact_sections import FactSection, make_section

if TYPE_CHECKING:
    from cosremaster.boot_config.boot_menus import BootMenus, LocatedMenu
    from cosremaster.boot_config.menu_change import MenuChange
    from cosremaster.reports.documents import MenuChangeDocument, MenuDocument


def menu_sections(boot_menus: BootMenus) -> Iterator[FactSection]:
    """Yield the facts about the menus of an image, with each kernel and its arguments."""
    for place in boot_menus.menus:
        head = f"boot menu {place.label}: {place.menu.language.value}"
        head += "" if place.menu.lines else ", names no kernel"
        lines, rows = [head], list[tuple[str, str, str]]()
        for line in place.menu.lines:
            arguments = " ".join(printable(text) for text in _arguments(place, line.arguments)) or "no arguments"
            rows.append((str(line.number), printable(line.kernel), arguments))
            lines.append(f"  line {': '.join(rows[-1])}")
        for unread in place.menu.unread:
            label = f" ({printable(unread.label)})" if unread.label else ""
            rows.append((f"{unread.number}{label}", "", unread.reason))
            lines.append(f"  line {unread.number}{label}: {unread.reason}")
        yield FactSection(tuple(lines), (head,), ("line", "kernel", "arguments"), tuple(rows))
    yield make_section(boot_menus.warnings)


def _arguments(place: LocatedMenu, words: Iterable[Any]) -> Iterator[bytes]:
    """Yield arguments as the menu writes them, with its quotes."""
    yield from (place.menu.data[word.start : word.end] for word in words)


def menus_report(boot_menus: BootMenus) -> list[MenuDocument]:
    """Return the menus of an image as plain values (docs/json.md)."""
    return [
        {
            "path": printable(place.path),
            "fat": None if place.fat is None else place.fat.name,
            "kind": place.menu.language.name.lower().replace("_", "-"),
            "kernels": [
                {
                    "line": line.number,
                    "kernel": printable(line.kernel),
                    "arguments": [printable(word.text) for word in line.arguments],
                }
                for line in place.menu.lines
            ],
            "unread": [
                {"line": line.number, "label": printable(line.label), "reason": line.reason}
                for line in place.menu.unread
            ],
        }
        for place in boot_menus.menus
    ]


def menu_change_lines(menus: Sequence[MenuChange]) -> Iterator[str]:
    """Yield a line about each changed menu, and one for each place in it that looks for the volume."""
    for menu in menus:
        unchanged = sum(bool(line.already_present) for line in menu.lines)
        parts = [f"{menu.changed_count} of {len(menu.lines)} kernel lines changed"] if menu.lines else []
        parts += [f"{text}" for text in _change_texts(menu)]
        parts += [f"{unchanged} had what was to be added"] if unchanged else []
        if parts:
            yield f"boot menu {menu.label}: {', '.join(parts)}"
        yield from (f"  line {number}: {old} -> {new}" for number, old, new in menu.retargeted)


def _change_texts(menu: MenuChange) -> Iterator[str]:
    """Yield each change to arguments once, with the number of times it was made."""
    counts = Counter[str]()
    for line in menu.lines:
        counts.update(f"-{printable(text)}" for text in line.removed)
        counts.update(f"{printable(old)} -> {printable(new)}" for old, new in line.replaced)
        counts.update(f"+{printable(text)}" for text in line.added)
    yield from (f"{what}{f' ({count} times)' if count > 1 else ''}" for what, count in counts.items())


def menu_changes_report(menus: Iterable[MenuChange]) -> list[MenuChangeDocument]:
    """Return the changed menus as plain values, with every line whose arguments were requested to change."""
    return [
        {
            "where": menu.label,
            "kind": menu.language,
            "lines": [
                {
                    "line": line.number,
                    "added": [printable(text) for text in line.added],
                    "removed": [printable(text) for text in line.removed],
                    "replaced": [[printable(old), printable(new)] for old, new in line.replaced],
                    "kept": [printable(text) for text in line.already_present],
                }
                for line in menu.lines
            ],
            "retargeted": [{"line": number, "text": old, "new_text": new} for number, old, new in menu.retargeted],
        }
        for menu in menus
    ]
