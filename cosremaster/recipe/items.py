"""Turn the tables of a recipe that add something into overlay items, and find their faults."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from cosremaster.errors import CosremasterError, UsageError, printable
from cosremaster.overlay.attributes import parse_choice
from cosremaster.overlay.ownership import Mode, parse_owner
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import (
    ID_CHOICES,
    RUN_PLACES,
    AddPath,
    Directory,
    InlineFile,
    OverlayItem,
    OwnershipRule,
    RunScript,
    Symlink,
    is_archive_name,
    names_directory,
    parse_dest,
)
from cosremaster.overlay.template import MAX_TEMPLATE, TemplateError, find_variables
from cosremaster.recipe.document import DirectoryTable, FileTable, RunTable, ServiceTable, SourceTable, SymlinkTable
from cosremaster.recipe.faults import Faults
from cosremaster.recipe.services import UNIT_FOLDERS, Install, is_unit_name, parse_install, template_of
from cosremaster.recipe.toml_lines import KeyPath
from cosremaster.recipe.variables import VariableError
from cosremaster.records import Struct
from cosremaster.suggestions import suggest_file

STDIN = "-"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class FilledTable(Struct, frozen=True):
    """A table of a recipe that adds something, with the values of its variables.

    ``key_path``: where it is in the recipe. ``host_path`` returns the path on this machine for a path in the recipe,
    ``value_of`` the value of a variable, or raises VariableError.
    """

    table: Any
    key_path: KeyPath
    host_path: Callable[[str], Path]
    value_of: Callable[[str], str]


class _ItemMaker:
    """Makes the items of one table. ``others``: all tables of the same array. Faults go to ``faults``."""

    def __init__(self, filled: FilledTable, others: Sequence[FilledTable], faults: Faults) -> None:
        """Keep the arguments."""
        self.key_path = filled.key_path
        self.host_path = filled.host_path
        self.value_of = filled.value_of
        self.others = others
        self._faults = faults

    def add_fault(self, message: str, *keys: str) -> None:
        """Add a fault of the table, or of the value below it that ``keys`` lead to."""
        self._faults.add((*self.key_path, *keys), message)

    def has_fault(self, *keys: str) -> bool:
        """Return whether the value of one of ``keys`` has a fault."""
        return any(self._faults.has_fault_at((*self.key_path, key)) for key in keys)

    def check_value(self, keys: str | KeyPath, parse: Callable[[Any], object], value: object) -> None:
        """Add a fault if ``parse`` refuses the value at ``keys``. None is always accepted."""
        if value is None:
            return
        try:
            parse(value)
        except CosremasterError as error:
            self._faults.add((*self.key_path, *((keys,) if isinstance(keys, str) else keys)), error.message)

    def check_dest(self, key: str, value: str | None) -> None:
        """Check that the value of ``key`` is an absolute path in the layer."""
        self.check_value(key, lambda dest: parse_dest(dest, printable(dest)), value)

    def check_inline(self, key: str, path: str, owner: str, mode: str | None) -> None:
        """Check the values of an item that comes from no file; its path is the value of ``key``."""
        self.check_dest(key, path)
        if path.startswith("/") and posixpath.normpath(path) in ("/", "//"):
            self.add_fault("the root directory cannot be made", key)
        elif key != "directory" and names_directory(path):
            self.add_fault("only the path of a directory ends in a slash", key)
        if owner == "source":
            self.add_fault("there is no source that could tell its owner", "owner")
        self.check_value("owner", parse_owner, owner)
        self.check_value("mode", Mode, mode)

    def check_host_file(self, key: str, path: Path) -> bool:
        """Check that the file ``path`` of this machine exists, and return whether it does."""
        message = find_absence(path)
        if message:
            self.add_fault(message, key)
        return not message


def find_absence(path: Path) -> str:
    """Return why the file ``path`` of this machine cannot be reached; empty if it can."""
    try:
        os.stat(path)
    except PermissionError as error:
        return f"the file {printable(str(path))} cannot be reached: {error.strerror}"
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return f"there is no file {printable(str(path))}{suggest_file(path)}"
    return ""


def make_items(filled: FilledTable, others: Sequence[FilledTable], faults: Faults) -> Iterator[OverlayItem]:
    """Yield what ``filled``, one of ``others``, adds. If it has faults they are added, and the items are of no use."""
    yield from _MAKERS[type(filled.table)](filled.table, _ItemMaker(filled, others, faults))


def _make_path(table: SourceTable, maker: _ItemMaker) -> Iterator[AddPath]:
    """Yield the item for a file, a directory or an archive of this machine."""
    source = STDIN if table.source == STDIN else str(maker.host_path(table.source))
    is_archive = table.unpack if table.unpack is not None else is_archive_name(os.fsencode(source))
    if source != STDIN and maker.check_host_file("source", Path(source)):
        is_single_file = not os.path.isdir(source) and not is_archive
        if is_single_file and table.dest is None:
            maker.add_fault("dest is missing: where does this file go?")
    mtree = None if table.mtree is None else maker.host_path(table.mtree)
    if mtree is not None and maker.check_host_file("mtree", mtree) and source != STDIN and os.path.isfile(source):
        maker.add_fault("an mtree file tells of a directory, and the source is none", "mtree")
    maker.check_dest("dest", table.dest)
    maker.check_value("owner", parse_owner, table.owner)
    maker.check_value("mode", Mode, table.mode)
    maker.check_value("xattrs", parse_choice, table.xattrs)
    for number, rule in enumerate(table.rules):
        rule_path = ("rules", number)
        maker.check_value((*rule_path, "pattern"), Pattern, os.fsencode(rule.pattern))
        maker.check_value((*rule_path, "owner"), parse_owner, rule.owner)
        maker.check_value((*rule_path, "mode"), Mode, rule.mode)
        maker.check_value((*rule_path, "directory_mode"), Mode, rule.directory_mode)
    yield AddPath(
        source,
        table.dest,
        owner=table.owner,
        mode=table.mode,
        rules=tuple(OwnershipRule(rule.pattern, rule.owner, rule.mode, rule.directory_mode) for rule in table.rules),
        mtree=mtree,
        setuid=table.setuid,
        keep_modes=table.keep_modes,
        xattrs=table.xattrs,
        unpack=table.unpack,
        template=_read_template(source, maker) if table.template else None,
    )


def _read_template(source: str, maker: _ItemMaker) -> tuple[tuple[str, str], ...]:
    """Return the variables in the files of ``source`` with their values; faults of them are added."""
    values: dict[str, str] = {}
    if source == STDIN or (os.path.isfile(source) and is_archive_name(os.fsencode(source))):
        maker.add_fault("is for a file or a directory, not for an archive", "template")
        return ()
    for path in _list_files(source):
        try:
            status = os.stat(path)
            for name, line in _find_variables(path, (status.st_size, status.st_mtime_ns, status.st_ctime_ns)):
                try:
                    values[name] = maker.value_of(name)
                except VariableError as fault:
                    maker.add_fault(f"{printable(path)}:{line}: {fault}", "template")
        except TemplateError as fault:
            maker.add_fault(f"{printable(path)}:{fault.line}: {fault}", "template")
        except OSError as error:
            maker.add_fault(f"{printable(path)} cannot be read: {error.strerror}", "template")
    return tuple(sorted(values.items()))


def _list_files(source: str) -> list[str]:
    """Return the regular files at and below ``source``, symlinks left out, sorted."""
    if not os.path.isdir(source):
        return [source] if os.path.isfile(source) else []
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names]
    return sorted(path for path in paths if os.path.isfile(path) and not os.path.islink(path))


@lru_cache(maxsize=4096)
def _find_variables(path: str, _: tuple[int, int, int]) -> tuple[tuple[str, int], ...]:
    """Return names and lines of the variables in the file ``path``, which has that size and was changed at those times.

    :raises TemplateError: there is none behind a ``${``, or the file is too large. :raises OSError: it is unreadable.
    """
    if os.path.getsize(path) > MAX_TEMPLATE:
        raise TemplateError(f"a template has {MAX_TEMPLATE:,} bytes at most", 1)
    return tuple(find_variables(Path(path).read_bytes()))


def _make_file(table: FileTable, maker: _ItemMaker) -> Iterator[InlineFile]:
    """Yield the item for a file whose content is in the recipe."""
    maker.check_inline("file", table.file, table.owner, table.mode)
    yield InlineFile(table.file, table.content.encode("utf-8", "surrogateescape"), table.mode, table.owner)


def _make_symlink(table: SymlinkTable, maker: _ItemMaker) -> Iterator[Symlink]:
    """Yield the item for a symlink."""
    maker.check_inline("symlink", table.symlink, table.owner, None)
    if not table.target or "\0" in table.target:
        maker.add_fault("must not be empty, nor hold a NUL", "target")
    yield Symlink(table.symlink, table.target, table.owner)


def _make_directory(table: DirectoryTable, maker: _ItemMaker) -> Iterator[Directory]:
    """Yield the item for a directory."""
    maker.check_inline("directory", table.directory, table.owner, table.mode)
    yield Directory(table.directory, table.mode, table.owner)


def _make_service_links(table: ServiceTable, maker: _ItemMaker) -> Iterator[Symlink]:
    """Yield the symlinks that enable a unit: those in ``wanted_by``, or else those of its [Install] section."""
    name = table.service
    if not is_unit_name(name) or "@." in name:
        maker.add_fault(f"{printable(name)} is no name of a unit, as site.service would be", "service")
        return
    maker.check_dest("unit", table.unit)
    file_name = template_of(name)
    try:
        unit = next((unit for other in reversed(maker.others) if (unit := _find_unit(other, file_name))), None)
    except OSError as error:
        maker.add_fault(f"the unit {printable(str(error.filename))} cannot be read: {error.strerror}")
        return
    install = _find_install(table, maker, file_name, None if unit is None else unit[1])
    if install is None:
        return
    for other_name in (*(wanting for wanting, _ in install.links), *install.aliases):
        if not is_unit_name(other_name):
            maker.add_fault(f"{printable(other_name)} is no name of a unit; say with wanted_by what is meant")
            return
    path = table.unit or (unit[0] if unit else f"{UNIT_FOLDERS[-1]}/{file_name}")
    for wanting, kind in install.links:
        yield Symlink(f"{UNIT_FOLDERS[0]}/{wanting}.{kind}/{name}", path)
    for alias in install.aliases:
        yield Symlink(f"{UNIT_FOLDERS[0]}/{alias}", path)


def _parse_duration(text: str) -> float:
    """Return the seconds that ``text`` says: a number, with ``s``, ``m``, ``h`` or ``d`` behind it for a unit.

    :raises UsageError: it is none, or zero.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise UsageError(f"{text!r} is no time: seconds are wanted, or a number as in 90s, 30m or 1h")
    return seconds


def _make_run(table: RunTable, maker: _ItemMaker) -> Iterator[RunScript]:
    """Yield the script that runs; none where ``script`` is empty, as a variable without a value makes it, or no file's
    name (/dev/null).
    """
    if table.script in ("", os.devnull) and table.command is None:
        return
    if (table.script is None) == (table.command is None) and not maker.has_fault("script", "command"):
        maker.add_fault("needs a script or a command, and not both")
    if table.command is not None and (not table.command.strip() or "\0" in table.command):
        maker.add_fault("must not be empty, nor hold a NUL", "command")
    script = None if table.script is None else maker.host_path(table.script)
    if script is not None and maker.check_host_file("script", script) and not script.is_file():
        maker.add_fault(f"{printable(str(script))} is no file", "script")
    files = maker.host_path(table.files) if table.files else None
    if files is not None:
        maker.check_host_file("files", files)
    for key, value, choices in (("ids", table.ids, ID_CHOICES), ("run_in", table.run_in, RUN_PLACES)):
        if value not in choices:
            maker.add_fault(f"must be {' or '.join(choices)}", key)
    timeout: float | None = None
    if isinstance(table.timeout, str):
        maker.check_value("timeout", _parse_duration, table.timeout)
        with suppress(UsageError):
            timeout = _parse_duration(table.timeout)
    else:
        timeout = table.timeout
    yield RunScript(
        script, table.command, files=files, environment=table.env, network=table.network,
        network_allow=tuple(table.network_allow), timeout=timeout, ids=table.ids, run_in=table.run_in,
        clean=table.clean, reuse=table.reuse,
    )  # fmt: skip


def _find_install(table: ServiceTable, maker: _ItemMaker, file_name: str, unit_text: str | None) -> Install | None:
    """Return how the unit is enabled: by ``wanted_by``, or else by the text of its file; None: that is not known."""
    if table.wanted_by is not None:
        links = tuple((unit, "wants") for unit in table.wanted_by.split())
        if not links:
            maker.add_fault("names no unit", "wanted_by")
        return Install(links, (), ())
    if unit_text is None:
        maker.add_fault(f"wanted_by is missing: nothing here adds {file_name}, so its [Install] is not known")
        return None
    install = parse_install(unit_text)
    if not install.links and not install.aliases:
        maker.add_fault(f"wanted_by is missing: {file_name} has none in an [Install] section")
    names = {file_name, table.service}
    try:
        drop_in = next(filter(None, (_find_drop_in(other, names) for other in maker.others)), None)
    except OSError as error:
        maker.add_fault(f"the drop-in {printable(str(error.filename))} cannot be read: {error.strerror}")
        return None
    if drop_in is not None:
        fault = "has an [Install] section, which is not read: say with wanted_by what is meant"
        maker.add_fault(f"{printable(drop_in)} {fault}")
    enabled = {other.table.service for other in maker.others if isinstance(other.table, ServiceTable)}
    for also in sorted(set(install.also) - enabled):
        maker.add_fault(f"{file_name} has Also={also}: give that service, too, or this one a wanted_by")
    return install


def _find_unit(filled: FilledTable, file_name: str) -> tuple[str, str] | None:
    """Return the path and text of the unit file ``file_name`` if ``filled`` adds it to the layer, else None."""
    for directory in UNIT_FOLDERS:
        path = f"{directory}/{file_name}"
        if isinstance(filled.table, FileTable) and posixpath.normpath(filled.table.file) == path:
            return path, filled.table.content
        if isinstance(filled.table, SourceTable) and filled.table.source != STDIN:
            host_file = _find_host_file(filled, path)
            if host_file and os.path.isfile(host_file) and not os.path.islink(host_file):
                return path, host_file.read_text("utf-8", "replace")
    return None


def _find_drop_in(filled: FilledTable, names: Collection[str]) -> str | None:
    """Return a drop-in with an [Install] section that ``filled`` adds for one of the units ``names``; None without."""
    for folder in (f"{directory}/{name}.d" for directory in UNIT_FOLDERS for name in sorted(names)):
        texts: Iterable[tuple[str, str]] = ()
        if isinstance(filled.table, FileTable):
            texts = [(posixpath.normpath(filled.table.file), filled.table.content)]
        elif isinstance(filled.table, SourceTable) and filled.table.source != STDIN:
            source = filled.host_path(filled.table.source)
            host = _find_host_file(filled, folder) if source.is_dir() else source
            files = host.glob("*.conf") if host is not None and host.is_dir() else [source]
            paths = sorted(f"{folder}/{file.name}" for file in files)
            pairs = ((path, _find_host_file(filled, path)) for path in paths)
            texts = ((path, file.read_text("utf-8", "replace")) for path, file in pairs if file and file.is_file())
        for path, text in texts:
            is_drop_in = path.startswith(f"{folder}/") and path.endswith(".conf")
            if is_drop_in and parse_install(text) != parse_install(""):
                return path
    return None


def _find_host_file(filled: FilledTable, path: str) -> Path | None:
    """Return the file of this machine that gets ``path``, if the source is a directory or that file itself."""
    source, dest = filled.host_path(filled.table.source), posixpath.normpath(filled.table.dest or "/")
    if os.path.isdir(source):
        below = posixpath.relpath(path, dest)
        return None if below.startswith("../") else source / below
    if filled.table.dest is None:
        return None
    path_in_dest = posixpath.normpath(f"{dest}/{source.name}")
    return source if path in (dest, path_in_dest) else None


_MAKERS: dict[type, Callable[[Any, _ItemMaker], Iterator[OverlayItem]]] = {
    SourceTable: _make_path,
    FileTable: _make_file,
    SymlinkTable: _make_symlink,
    DirectoryTable: _make_directory,
    ServiceTable: _make_service_links,
    RunTable: _make_run,
}
"""For each kind of table the function that yields its items."""
