"""Read a fleet: a recipe that is common to all sites, and what each site has of its own.

All faults are reported at once. One that every site has is told once, another with the names of its sites.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosremaster.deltas.note import note_path
from cosremaster.errors import RecipeError, UsageError, printable
from cosremaster.fleet.sites import ALL_NAMES, NAME, SiteEntry, list_sites
from cosremaster.io.urls import Url
from cosremaster.overlay.request import AddPath, Symlink
from cosremaster.recipe.document import Document, VariableTable
from cosremaster.recipe.faults import Faults, suggest_name
from cosremaster.recipe.read import PlacedTables, Recipe, RecipeReader, parse_toml, read_text, validate_document
from cosremaster.recipe.toml_lines import KeyPath, find_lines
from cosremaster.recipe.variables import Variables
from cosremaster.records import Struct
from cosremaster.remastering.request import Request

ALIGNMENT = 4096
"""By a multiple of so many bytes data move in the images of a fleet, where the file does not say another."""

_MANY_NAMES = 3


class FleetSite(Struct, frozen=True, kw_only=True):
    """A site of a fleet: its whole ``request``, of the base, and the path of its image."""

    name: str
    output: Path
    request: Request

    @property
    def depends_on_files(self) -> bool:
        """Whether the request may be another when files that it adds are: variables of templates, units to enable."""
        items = (*self.request.add, *self.request.add_iso)
        return any(isinstance(item, Symlink) or getattr(item, "template", None) is not None for item in items)


class Fleet(Struct, frozen=True, kw_only=True):
    """A fleet without faults. ``path``: its file; ``expect``, ``sync`` and ``delta``: as in a recipe."""

    path: Path
    base: Path | Url
    expect: tuple[tuple[str, str], ...]
    sync: bool
    sites: tuple[FleetSite, ...]
    delta: bool = False

    def select(self, names: Sequence[str]) -> tuple[FleetSite, ...]:
        """Return the sites called ``names``, or all without any. :raises UsageError: there is no such site."""
        known = {site.name: site for site in self.sites}
        for name in names:
            if name not in known:
                meant = suggest_name(name, known)
                raise UsageError(f"{self.path}: there is no site {printable(name)}{meant}")
        return tuple(site for site in self.sites if not names or site.name in names)


def read_fleet(
    path: str | Path, variables: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None, *,
    threads: int | None = None, output_folder: Path | None = None, only: Container[object] = ALL_NAMES,
) -> Fleet:  # fmt: skip
    """Read the fleet in the TOML file ``path`` (docs/fleet.md). Paths in it are relative to it.

    ``variables`` and ``environ`` give values to what ``[variables]`` declares, as in a recipe; what a site gives comes
    first. ``output_folder``: where the images go, whatever the file says. ``only``: names of the sites that are read;
    the others may have faults.

    :raises RecipeError: the fleet has faults, all of which are reported together.
    :raises UsageError: ``variables`` has a name that the fleet does not declare.
    """
    path = Path(path)
    text = read_text(path)
    try:
        raw = parse_toml(path, text)
        lines = find_lines(text)
        faults = Faults(str(path), lines)
        entries = list_sites(raw, path, faults, only)
        document, tables = _read_common(raw, faults)
        faults.raise_if_any()
        reader = _FleetReader(path, document, tables, variables or {}, os.environ if environ is None else environ)
        sites = reader.read_sites(entries, faults, lines, threads=threads, output_folder=output_folder)
    except RecursionError as error:
        raise RecipeError(str(path), [f"{printable(str(path))}: is nested too deep"]) from error
    _check_outputs(sites, faults, delta=document.delta)
    faults.raise_if_any()
    return Fleet(
        path=path, base=reader.base, expect=reader.expect, sync=document.sync, sites=tuple(sites), delta=document.delta
    )


def _read_common(raw: Mapping[str, Any], faults: Faults) -> tuple[Document, dict[str, PlacedTables]]:
    """Return the recipe in ``raw`` that is common to all sites; faults are added."""
    rest = {key: value for key, value in raw.items() if key not in ("base", "site", "sites")}
    if "input" in rest:
        faults.add((), "input is of a recipe for one image; a fleet has base")
    if "base" not in raw:
        faults.add((), "base is missing")
    if "output" not in rest:
        faults.add((), 'output is missing, as in output = "out/${NAME}.iso"')
    base = raw.get("base", "")
    if not isinstance(base, str):
        faults.add(("base",), "must be text in quotes")
        base = ""
    document, tables = validate_document({**rest, "input": base}, faults)
    if NAME in document.variables:
        faults.add(("variables", NAME), "is the name of each site, which has no other value")
    if document.maas is not None:
        faults.add(("maas",), "is of a recipe for one image")
    return document, tables


def _check_outputs(sites: Sequence[FleetSite], faults: Faults, *, delta: bool) -> None:
    """Add a fault where two of ``sites`` have one output; a ``delta`` has a note beside it."""
    names: dict[Path, str] = {}
    for site in sites:
        others = {names.setdefault(path, site.name) for path in list_outputs(site.output, delta=delta)}
        for other in others - {site.name}:
            faults.add(
                ("output",), f"{printable(str(site.output))} is that of {printable(other)} and {printable(site.name)};"
                " does it have ${NAME}?",
            )  # fmt: skip
            return


def list_outputs(output: Path, *, delta: bool) -> tuple[Path, ...]:
    """Return the files of a site whose image is ``output``: with the note, where that is a ``delta``."""
    return (output, note_path(output)) if delta else (output,)


class _FleetReader:
    """Makes the requests of sites from the common ``document`` and its ``tables``."""

    def __init__(
        self, path: Path, document: Document, tables: Mapping[str, PlacedTables], variables: Mapping[str, str],
        environ: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Keep the arguments."""
        self._path, self._document, self._tables = path, document, tables
        self._variables, self._environ = variables, environ
        self.base: Path | Url = path.parent / document.input
        self.expect: tuple[tuple[str, str], ...] = ()

    def read_sites(
        self, entries: Sequence[SiteEntry], faults: Faults, lines: Mapping[KeyPath, int], *, threads: int | None,
        output_folder: Path | None,
    ) -> list[FleetSite]:  # fmt: skip
        """Return the sites of ``entries``; faults are added."""
        names = {name for entry in entries for name in entry.variables}
        declared = {**{name: VariableTable() for name in sorted(names)}, **self._document.variables}
        declared[NAME] = VariableTable()
        for name in self._variables:
            if name not in self._document.variables:
                meant = suggest_name(name, self._document.variables)
                raise UsageError(f"--set {name}: [variables] of the fleet has no such variable{meant}")
        environ = {name: text for name, text in self._environ.items() if name in self._document.variables}
        sites: list[FleetSite] = []
        sites_of_fault: dict[tuple[KeyPath, str], list[str]] = {}
        for entry in entries:
            mine = Faults(str(self._path), lines)
            values = Variables(declared, {**self._variables, **entry.variables, NAME: entry.name}, environ, mine)
            reader = RecipeReader(self._path, self._merge(entry), mine, values, makes_folders=True)
            reader.check_input()
            recipe = reader.make_recipe(self._tables_of(entry), threads)
            self._take_base(recipe, mine, is_first=not sites)
            for fault in mine.listed:
                sites_of_fault.setdefault(fault, []).append(entry.name)
            output = recipe.output or self._path
            if output_folder is not None:
                output = output_folder / output.name
            align = ALIGNMENT if recipe.request.align is None else recipe.request.align
            sites.append(FleetSite(name=entry.name, output=output, request=replace(recipe.request, align=align)))
        for (path, message), having in sites_of_fault.items():
            faults.add(("base",) if path == ("input",) else path, message + _name_sites(having, len(entries)))
        return sites

    def _take_base(self, recipe: Recipe, faults: Faults, *, is_first: bool) -> None:
        """Take base and digests of a site's ``recipe``, and add faults of what is not for fleets."""
        if is_first:
            self.base, self.expect = recipe.input, recipe.expect
        elif recipe.input != self.base:
            faults.add(("base",), "is not the same for all sites")
        elif recipe.expect != self.expect:
            faults.add(("expect",), "is not the same for all sites")
        if any(isinstance(item, AddPath) and str(item.source) == "-" for item in recipe.request.add):
            faults.add(("add",), "standard input is read once, so no fleet can add it")

    def _merge(self, entry: SiteEntry) -> Document:
        """Return the document of a site: the common one, with the lists of ``entry`` behind its own."""
        common, own = self._document, entry.document
        arguments = {
            key: [*getattr(common.kernel_args, key), *getattr(own.kernel_args, key)]
            for key in ("add", "remove", "replace")
        }
        return common.model_copy(
            update={
                "variables": {},
                "remove": [*common.remove, *own.remove],
                "remove_iso": [*common.remove_iso, *own.remove_iso],
                "rename_iso": [*common.rename_iso, *own.rename_iso],
                "kernel_args": common.kernel_args.model_copy(update=arguments),
            }
        )

    def _tables_of(self, entry: SiteEntry) -> dict[str, PlacedTables]:
        """Return the tables that add something to a site: the common ones, then its own."""
        return {key: [*tables, *entry.tables.get(key, ())] for key, tables in self._tables.items()}


def _name_sites(names: Sequence[str], count: int) -> str:
    """Return which sites, ``names``, a fault is about, to be put behind it; empty where it is all ``count``."""
    if len(names) == count:
        return ""
    more = f" and {len(names) - _MANY_NAMES:,} more" if len(names) > _MANY_NAMES else ""
    noun = "site" if len(names) == 1 else "sites"
    return f" ({noun} {', '.join(map(printable, names[:_MANY_NAMES]))}{more})"
