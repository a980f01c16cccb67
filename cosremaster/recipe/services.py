"""Enable systemd units: find the symlinks that ``systemctl enable`` would make (systemd.unit(5), [Install])."""

from __future__ import annotations

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

UNIT_FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
"""Directories of units, the one with the highest precedence first (systemd.unit(5), unit file load path)."""

_NAME = lazy_regex(
    r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]*)?\.(service|socket|target|timer|path|mount|automount|swap|slice|scope|device)"
)
_LINKS = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}


class Install(Struct, frozen=True):
    """The [Install] section of a unit.

    ``links``: names of units that are to start this one, each with the kind of link, such as ``wants``. ``aliases``:
    further names of the unit. ``also``: units that are enabled with it.
    """

    links: tuple[tuple[str, str], ...]
    aliases: tuple[str, ...]
    also: tuple[str, ...]


def is_unit_name(name: str) -> bool:
    """Return whether systemd accepts ``name`` for a unit (systemd.unit(5), string escaping)."""
    return len(name) <= 255 and _NAME.fullmatch(name) is not None


def template_of(name: str) -> str:
    """Return the file name of the unit ``name``: ``getty@.service`` for ``getty@tty1.service``."""
    prefix, separator, instance = name.partition("@")
    return f"{prefix}@.{instance.rpartition('.')[2]}" if separator else name


def parse_install(text: str) -> Install:
    """Read the [Install] section of the unit file ``text`` (systemd.syntax(7)).

    A backslash continues a line, an empty value clears the values before it, spaces separate words.
    """
    values: dict[str, list[str]] = {}
    section = ""
    for line in _join_lines(text):
        if line.startswith("["):
            section = line
        elif section == "[Install]" and "=" in line:
            key, _, value = line.partition("=")
            words = value.replace('"', " ").split()
            values[key.strip()] = [*values.get(key.strip(), ()), *words] if words else []
    links = [(unit, kind) for key, kind in _LINKS.items() for unit in values.get(key, ())]
    return Install(tuple(links), tuple(values.get("Alias", ())), tuple(values.get("Also", ())))


def _join_lines(text: str) -> list[str]:
    """Return the lines without comments, with continued lines joined."""
    lines: list[str] = []
    is_continued = False
    for raw in text.removeprefix("\N{BYTE ORDER MARK}").splitlines():
        line = raw.strip()
        if line[:1] in ("#", ";") or not (line or is_continued):
            continue
        if is_continued:
            lines[-1] += " " + line.removesuffix("\\").rstrip()
        else:
            lines.append(line.removesuffix("\\").rstrip())
        is_continued = line.endswith("\\")
    return lines
