"""Boot menus and what became of them, as lines of text and as values that become JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cosremaster.errors import printable

if TYPE_CHECKING:
    from cosremaster.boot_config.places import BootMenus, LocatedMenu
    from cosremaster.boot_config.values import MenuChange


def menu_lines(found: BootMenus) -> Iterator[str]:
    """The menus of an image, with each kernel line and its arguments."""
    for place in found.menus:
        yield f"boot menu {place.label}: {place.menu.language.value}{'' if place.menu.lines else ', names no kernel'}"
        for line in place.menu.lines:
            arguments = " ".join(printable(text) for text in _arguments(place, line.arguments))
            yield f"  line {line.number}: {printable(line.kernel)}: {arguments or 'no arguments'}"
    yield from found.warnings


def _arguments(place: LocatedMenu, words: Iterable[Any]) -> Iterator[bytes]:
    """Arguments as the menu has them, its own quotes included."""
    yield from (place.menu.data[word.start : word.end] for word in words)


def menus_report(found: BootMenus) -> list[dict[str, Any]]:
    """The same as plain values (docs/json.md)."""
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
        }
        for place in found.menus
    ]


def menu_change_lines(menus: Sequence[MenuChange]) -> Iterator[str]:
    """What became of each menu, in a line, and of the places in it that look for the volume."""
    for one in menus:
        kept = sum(bool(line.already_present) for line in one.lines)
        parts = [f"{one.changed_count} of {len(one.lines)} kernel lines changed"] if one.lines else []
        parts += [f"{text}" for text in _told(one)]
        parts += [f"{kept} had what was to be added"] if kept else []
        if parts:
            yield f"boot menu {one.label}: {', '.join(parts)}"
        yield from (f"  line {number}: {text}: looks for the new name" for number, text in one.retargeted)


def _told(one: MenuChange) -> Iterator[str]:
    """Each change to arguments, once, with how often it was made."""
    counts = Counter[str]()
    for line in one.lines:
        counts.update(f"-{printable(text)}" for text in line.removed)
        counts.update(f"{printable(old)} -> {printable(new)}" for old, new in line.replaced)
        counts.update(f"+{printable(text)}" for text in line.added)
    yield from (f"{what}{f' ({count} times)' if count > 1 else ''}" for what, count in counts.items())


def menu_changes_report(menus: Iterable[MenuChange]) -> list[dict[str, Any]]:
    """What became of each menu as plain values: of all its lines, those whose arguments were asked to change."""
    return [
        {
            "where": one.label,
            "kind": one.language,
            "lines": [
                {
                    "line": line.number,
                    "added": [printable(text) for text in line.added],
                    "removed": [printable(text) for text in line.removed],
                    "replaced": [[printable(old), printable(new)] for old, new in line.replaced],
                    "kept": [printable(text) for text in line.already_present],
                }
                for line in one.lines
            ],
            "retargeted": [{"line": number, "text": text} for number, text in one.retargeted],
        }
        for one in menus
    ]
