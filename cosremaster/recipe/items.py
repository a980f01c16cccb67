"""What a recipe adds, as the overlay knows it; and what is wrong with it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from cosremaster.errors import CosremasterError, printable
from cosremaster.overlay.ownership import Mode, parse_owner
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import (
    AddPath,
    Directory,
    InlineFile,
    OverlayItem,
    OwnershipRule,
    Symlink,
    is_archive_name,
    parse_dest,
)
from cosremaster.recipe.document import DirectoryTable, FileTable, ServiceTable, SourceTable, SymlinkTable
from cosremaster.recipe.faults import Faults
from cosremaster.recipe.services import UNIT_FOLDERS, is_unit_name, parse_install, template_of
from cosremaster.recipe.toml_lines import Path as KeyPath

STDIN = "-"


class Made(Struct, frozen=True):
    """An item of a recipe, its variables filled in. ``host``: a path of this machine, seen from the recipe."""

    table: Any
    at: KeyPath
    host: Callable[[str], Path]


def make_item(one: Made, others: Sequence[Made], faults: Faults) -> Iterator[OverlayItem]:
    """What ``one`` of ``others`` adds. Faults are told; what comes out is then of no use."""
    table = one.table
    check = _Checks(one.at, faults)
    if isinstance(table, SourceTable):
        yield _source(table, one, check)
    elif isinstance(table, FileTable):
        check.made(table.file, "file", table.owner, table.mode)
        yield InlineFile(table.file, table.content.encode("utf-8", "surrogateescape"), table.mode, table.owner)
    elif isinstance(table, SymlinkTable):
        check.made(table.symlink, "symlink", table.owner, None)
        if not table.target or "\0" in table.target:
            check.faults.add((*one.at, "target"), "must not be empty, nor hold a NUL")
        yield Symlink(table.symlink, table.target, table.owner)
    elif isinstance(table, DirectoryTable):
        check.made(table.directory, "directory", table.owner, table.mode)
        yield Directory(table.directory, table.mode, table.owner)
    else:
        yield from _service(table, others, check)


class _Checks:
    """Looks at the values of the item at ``at``."""

    def __init__(self, at: KeyPath, faults: Faults) -> None:
        self.at = at
        self.faults = faults

    def value(self, key: str | KeyPath, parse: Callable[[Any], object], value: object) -> None:
        """``parse`` takes the value of ``key``, if there is one."""
        if value is None:
            return
        try:
            parse(value)
        except CosremasterError as error:
            self.faults.add((*self.at, *((key,) if isinstance(key, str) else key)), error.message)

    def dest(self, key: str, value: str | None) -> None:
        """An absolute path in the layer."""
        self.value(key, lambda dest: parse_dest(dest, printable(dest)), value)

    def made(self, path: str, key: str, owner: str, mode: str | None) -> None:
        """Something that comes from no file."""
        self.dest(key, path)
        if path.startswith("/") and posixpath.normpath(path) in ("/", "//"):
            self.faults.add((*self.at, key), "the root directory cannot be made")
        if owner == "source":
            self.faults.add((*self.at, "owner"), "there is no source that could tell its owner")
        self.value("owner", parse_owner, owner)
        self.value("mode", Mode, mode)

    def file(self, key: str, path: Path) -> bool:
        """A file of this machine that must be there."""
        told = absence(path)
        if told:
            self.faults.add((*self.at, key), told)
        return not told


def absence(path: Path) -> str:
    """Why the file ``path`` of this machine cannot be had; nothing when it is there."""
    try:
        os.stat(path)
    except PermissionError as error:
        return f"the file {printable(str(path))} cannot be reached: {error.strerror}"
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return f"there is no file {printable(str(path))}"
    return ""


def _source(table: SourceTable, one: Made, check: _Checks) -> AddPath:
    source = STDIN if table.source == STDIN else str(one.host(table.source))
    archive = table.unpack if table.unpack is not None else is_archive_name(os.fsencode(source))
    if source != STDIN and check.file("source", Path(source)):
        single = not os.path.isdir(source) and not archive
        if single and table.dest is None:
            check.faults.add(one.at, "dest is missing: where does this file go?")
    mtree = None if table.mtree is None else one.host(table.mtree)
    if mtree is not None and check.file("mtree", mtree) and source != STDIN and os.path.isfile(source):
        check.faults.add((*one.at, "mtree"), "an mtree file tells of a directory, and the source is none")
    check.dest("dest", table.dest)
    check.value("owner", parse_owner, table.owner)
    check.value("mode", Mode, table.mode)
    for number, rule in enumerate(table.rules):
        at = ("rules", number)
        check.value((*at, "pattern"), Pattern, os.fsencode(rule.pattern))
        check.value((*at, "owner"), parse_owner, rule.owner)
        check.value((*at, "mode"), Mode, rule.mode)
        check.value((*at, "directory_mode"), Mode, rule.directory_mode)
    return AddPath(
        source,
        table.dest,
        owner=table.owner,
        mode=table.mode,
        rules=tuple(OwnershipRule(rule.pattern, rule.owner, rule.mode, rule.directory_mode) for rule in table.rules),
        mtree=mtree,
        setuid=table.setuid,
        unpack=table.unpack,
    )


def _service(table: ServiceTable, others: Sequence[Made], check: _Checks) -> Iterator[Symlink]:
    """The links that enable a unit: those that are asked for, or those its [Install] section asks for."""
    name = table.service
    if not is_unit_name(name) or "@." in name:
        check.faults.add((*check.at, "service"), f"{printable(name)} is no name of a unit, as site.service would be")
        return
    check.dest("unit", table.unit)
    file = template_of(name)
    try:
        found = next((unit for other in reversed(others) if (unit := _unit_in(other, file))), None)
    except OSError as error:
        check.faults.add(check.at, f"the unit {printable(str(error.filename))} cannot be read: {error.strerror}")
        return
    path = table.unit or (found[0] if found else f"{UNIT_FOLDERS[-1]}/{file}")
    if table.wanted_by is not None:
        links = [(unit, "wants") for unit in table.wanted_by.split()]
        aliases: tuple[str, ...] = ()
        if not links:
            check.faults.add((*check.at, "wanted_by"), "names no unit")
    elif found is None:
        check.faults.add(check.at, f"wanted_by is missing: nothing here adds {file}, so its [Install] is not known")
        return
    else:
        install = parse_install(found[1])
        links, aliases = list(install.links), install.aliases
        if not links and not aliases:
            check.faults.add(check.at, f"wanted_by is missing: {file} has none in an [Install] section")
        enabled = {other.table.service for other in others if isinstance(other.table, ServiceTable)}
        for also in sorted(set(install.also) - enabled):
            check.faults.add(check.at, f"{file} has Also={also}: give that service, too, or this one a wanted_by")
    for other_name in (*(asking for asking, _ in links), *aliases):
        if not is_unit_name(other_name):
            check.faults.add(
                check.at, f"{printable(other_name)} is no name of a unit; say with wanted_by what is meant"
            )
            return
    for asking, kind in links:
        yield Symlink(f"{UNIT_FOLDERS[0]}/{asking}.{kind}/{name}", path)
    for alias in aliases:
        yield Symlink(f"{UNIT_FOLDERS[0]}/{alias}", path)


def _unit_in(one: Made, file: str) -> tuple[str, str] | None:
    """Where in the layer ``one`` puts the unit file called ``file``, and what that holds; None if it does not."""
    for folder in UNIT_FOLDERS:
        path = f"{folder}/{file}"
        if isinstance(one.table, FileTable) and posixpath.normpath(one.table.file) == path:
            return path, one.table.content
        if isinstance(one.table, SourceTable) and one.table.source != STDIN:
            found = _on_host(one, path)
            if found and os.path.isfile(found) and not os.path.islink(found):
                return path, found.read_text("utf-8", "replace")
    return None


def _on_host(one: Made, path: str) -> Path | None:
    """The file of this machine that comes to lie at ``path``, if the source is a directory or that file itself."""
    source, dest = one.host(one.table.source), posixpath.normpath(one.table.dest or "/")
    if os.path.isdir(source):
        below = posixpath.relpath(path, dest)
        return None if below.startswith("../") else source / below
    if one.table.dest is None:
        return None
    into = posixpath.normpath(f"{dest}/{source.name}")
    return source if path in (dest, into) else None
