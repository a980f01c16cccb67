"""Enabling systemd units: the links that ``systemctl enable`` would make (systemd.unit(5), [Install])."""

from __future__ import annotations

import re

from msgspec import Struct

UNIT_FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
"""Where units lie, the one that counts most first (systemd.unit(5), unit file load path)."""

_NAME = re.compile(
    r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]*)?\.(service|socket|target|timer|path|mount|automount|swap|slice|scope|device)"
)
_LINKS = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}


class Install(Struct, frozen=True):
    """What a unit's [Install] section asks for: names of other units, by kind of link."""

    links: tuple[tuple[str, str], ...]  # (the unit that asks, "wants" and the like)
    aliases: tuple[str, ...]
    also: tuple[str, ...]


def is_unit_name(name: str) -> bool:
    """True for names that systemd takes (systemd.unit(5), string escaping)."""
    return len(name) <= 255 and _NAME.fullmatch(name) is not None


def template_of(name: str) -> str:
    """The name of the file that holds the unit: ``getty@.service`` for ``getty@tty1.service``."""
    before, at, after = name.partition("@")
    return f"{before}@.{after.rpartition('.')[2]}" if at else name


def parse_install(text: str) -> Install:
    """The [Install] section of a unit file (systemd.syntax(7)): lines go on after a backslash, an empty value
    forgets those before it, words are separated by spaces."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in _whole_lines(text):
        if line.startswith("["):
            section = line
        elif section == "[Install]" and "=" in line:
            key, _, value = line.partition("=")
            words = value.replace('"', " ").split()
            values[key.strip()] = [*values.get(key.strip(), ()), *words] if words else []
    links = [(unit, kind) for key, kind in _LINKS.items() for unit in values.get(key, ())]
    return Install(tuple(links), tuple(values.get("Alias", ())), tuple(values.get("Also", ())))


def _whole_lines(text: str) -> list[str]:
    """Lines without comments, those that go on joined."""
    lines: list[str] = []
    going_on = False
    for raw in text.splitlines():
        line = raw.strip()
        if line[:1] in ("#", ";") or not (line or going_on):
            continue
        if going_on:
            lines[-1] += " " + line.removesuffix("\\").rstrip()
        else:
            lines.append(line.removesuffix("\\").rstrip())
        going_on = line.endswith("\\")
    return lines
