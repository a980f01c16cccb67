"""The sites of a fleet: tables in its file, folders, or lines of a table (CSV) or a list (JSON)."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from cosremaster.errors import printable
from cosremaster.lazy_regex import lazy_regex
from cosremaster.recipe.document import VARIABLE_NAME, Document
from cosremaster.recipe.faults import Faults, suggest_name
from cosremaster.recipe.read import PlacedTables, validate_document
from cosremaster.recipe.toml_lines import KeyPath
from cosremaster.records import Struct

_LISTS = ("add", "add_iso", "run", "remove", "remove_iso", "rename_iso", "kernel_args")
"""The keys of a recipe that a site has too; its lists come behind the common ones."""

NAME = "NAME"
"""The variable that is the name of the site."""

_VARIABLE = lazy_regex(VARIABLE_NAME)
_MAX_NAME = 200
_OTHER_MARKS = {";": "semicolons", "\t": "tabs"}
"""What other programs put between the cells of a table."""


class SiteEntry(Struct, frozen=True, kw_only=True):
    """A site before its variables are filled in; ``document`` and ``tables`` have what it adds to the common recipe.

    The tables are placed in the file of the fleet.
    """

    name: str
    variables: Mapping[str, str]
    document: Document
    tables: Mapping[str, PlacedTables]


class _AllNames:
    """Has every name."""

    def __contains__(self, name: object) -> bool:
        """Return True."""
        return True


ALL_NAMES: Container[object] = _AllNames()


def list_sites(
    raw: Mapping[str, Any], path: Path, faults: Faults, only: Container[object] = ALL_NAMES
) -> list[SiteEntry]:  # fmt: skip
    """Return the sites of the fleet ``raw``, which is in the file ``path``; faults are added.

    ``only``: the names of those that count; the others may have faults.
    """
    entries: list[SiteEntry] = []
    listed = raw.get("site", [])
    if not isinstance(listed, list):
        faults.add(("site",), "must be tables, as in [[site]]")
        listed = []
    for number, table in enumerate(listed):
        entries += _read_site(table, ("site", number), faults, only)
    if "sites" in raw:
        entries += _read_sites(raw["sites"], path, faults, only)
    if not entries and not faults.listed:
        faults.add(
            ("sites",) if "sites" in raw else (), "there is no site: [[site]], or [sites] with directory, csv or json"
        )
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            faults.add(("site",) if "site" in raw else ("sites",), f"the site {printable(entry.name)} is there twice")
        seen.add(entry.name)
    return entries


def _read_site(table: Any, place: KeyPath, faults: Faults, only: Container[object]) -> Iterator[SiteEntry]:
    """Yield the site that ``table``, at ``place``, describes; none where it has no name in ``only``. Add faults."""
    if not isinstance(table, dict):
        faults.add(place, "must be a table")
        return
    if table.get("name") not in only:
        return
    for key in table:
        if key not in ("name", "variables", *_LISTS):
            faults.add((*place, key), "no such key of a site" + suggest_name(key, ("name", "variables", *_LISTS)))
    variables = _read_variables(table.get("variables", {}), (*place, "variables"), faults)
    rest = {key: table[key] for key in _LISTS if key in table}
    document, tables = validate_document({"input": "", **rest}, faults.below(place))
    placed = {key: [((*place, *at), item) for at, item in items] for key, items in tables.items()}
    name = table.get("name")
    if not isinstance(name, str):
        faults.add(place, "name is missing" if name is None else "name must be text in quotes")
    elif _check_name(name, (*place, "name"), faults):
        yield SiteEntry(name=name, variables=variables, document=document, tables=placed)


def _read_variables(raw: Any, place: KeyPath, faults: Faults) -> dict[str, str]:
    """Return the variables in ``raw``; faults are added."""
    if not isinstance(raw, dict):
        faults.add(place, "must be a table")
        return {}
    for name, value in raw.items():
        if not _VARIABLE.fullmatch(name):
            faults.add((*place, name), "is no name for a variable (letters, digits and _)")
        elif name == NAME:
            faults.add((*place, name), "is the name of the site, which has no other value")
        elif not isinstance(value, str):
            faults.add((*place, name), "must be text in quotes")
        elif not _is_text(value):
            faults.add((*place, name), "has half of a surrogate pair, which is no character")
    return {name: value for name, value in raw.items() if isinstance(value, str) and _is_text(value)}


def _is_text(value: str) -> bool:
    """Return whether UTF-8 can express ``value``; JSON can say what it cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_name(name: str, place: KeyPath, faults: Faults) -> bool:
    """Return whether ``name`` may be that of a site, and so of a file; a fault is added where it may not."""
    is_text = name.isprintable() and not set(name) & set("/\\")
    if is_text and 0 < len(os.fsencode(name)) <= _MAX_NAME and name[0] not in ".-" and name == name.strip():
        return True
    faults.add(
        place, f"{printable(name)!r} is no name for a site: it becomes that of a file, without a slash or .. in it"
    )
    return False


def _read_sites(table: Any, path: Path, faults: Faults, only: Container[object]) -> Iterator[SiteEntry]:
    """Yield those of the sites that the table ``sites`` names whose names are in ``only``; faults are added."""
    if not isinstance(table, dict):
        faults.add(("sites",), "must be a table with directory, csv or json")
        return
    for key in table:
        if key not in (*_KINDS, "template"):
            faults.add(("sites", key), "no such key" + suggest_name(key, (*_KINDS, "template")))
    kinds = [kind for kind in _KINDS if kind in table]
    if len(kinds) != 1:
        faults.add(("sites",), "must have one of directory, csv and json")
        return
    if "template" in table and (kinds[0] != "directory" or not isinstance(table["template"], bool)):
        faults.add(("sites", "template"), "is true or false, beside directory")
        return
    place: KeyPath = ("sites", kinds[0])
    if not isinstance(table[kinds[0]], str):
        faults.add(place, "must be text in quotes")
        return
    try:
        yield from _KINDS[kinds[0]](path.parent, table, faults, only)
    except OSError as error:
        faults.add(place, f"{printable(table[kinds[0]])} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        faults.add(place, f"{printable(table[kinds[0]])} is not UTF-8")
    except csv.Error as error:
        faults.add(place, f"{printable(table[kinds[0]])} is no table: {error}")
    except json.JSONDecodeError as error:
        faults.add(place, f"{printable(table[kinds[0]])}:{error.lineno}: is no JSON: {error.msg}")
    except ValueError as error:  # a path with a zero byte, or a number of thousands of digits
        faults.add(place, f"{printable(table[kinds[0]])} cannot be read: {error}")


def _read_directory(
    folder: Path, table: Mapping[str, Any], faults: Faults, only: Container[object]
) -> Iterator[SiteEntry]:
    """Yield a site for each folder, which is its overlay; faults are added."""
    place: KeyPath = ("sites", "directory")
    for name in sorted(os.listdir(folder / table["directory"])):
        path = folder / table["directory"] / name
        if name.startswith(".") or name not in only:
            continue
        if not path.exists():
            faults.add(place, f"{printable(name)} in it is a symlink to nothing: is it a site?")
        if not path.is_dir():
            continue
        if not _check_name(name, place, faults):
            continue
        source = f"{table['directory']}/{name}".replace("$", "$$")
        item = {"source": source, "template": table.get("template", False)}
        document, tables = validate_document({"input": "", "add": [item]}, faults.below(place))
        placed = {key: [((*place, name, *at), made) for at, made in items] for key, items in tables.items()}
        yield SiteEntry(name=name, variables={}, document=document, tables=placed)


def _read_csv(folder: Path, table: Mapping[str, Any], faults: Faults, only: Container[object]) -> Iterator[SiteEntry]:
    """Yield a site for each line of a table, whose first line has the names of the variables; faults are added.

    A space behind a comma is none of the cell, or else quotes behind it would be.
    """
    place: KeyPath = ("sites", "csv")
    shown = printable(table["csv"])
    with open(folder / table["csv"], encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True, skipinitialspace=True)
        header = [cell.strip() for cell in next(rows, [])]
        columns = [number for number, cell in enumerate(header) if cell.upper() == "NAME"]
        if len(columns) != 1:
            parted = next((noun for mark, noun in _OTHER_MARKS.items() if len(header) == 1 and mark in header[0]), "")
            hint = f"; its cells are parted by {parted}, and commas are wanted" if parted else ""
            faults.add(place, f"{shown}:1: needs one column called name, with the names of the sites{hint}")
            return
        for cell in header:
            if not _VARIABLE.fullmatch(cell):
                faults.add(place, f"{shown}:1: {printable(cell)!r} is no name for a variable (letters, digits and _)")
                return
        if len(set(header)) != len(header):
            faults.add(place, f"{shown}:1: two columns have one name")
            return
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                faults.add(place, f"{shown}:{rows.line_num}: has {len(row)} cells, and there are {len(header)} columns")
                continue
            name = row[columns[0]].strip()
            if name not in only:
                continue
            values = {cell: value for number, (cell, value) in enumerate(zip(header, row, strict=True))
                      if number != columns[0]}  # fmt: skip
            if _check_name(name, (*place, f"line {rows.line_num}"), faults):
                yield SiteEntry(name=name, variables=values, document=Document(input=""), tables={})


def _read_json(folder: Path, table: Mapping[str, Any], faults: Faults, only: Container[object]) -> Iterator[SiteEntry]:
    """Yield the sites of a list, whose elements are as the tables ``[[site]]``; faults are added."""
    place: KeyPath = ("sites", "json")
    listed = json.loads((folder / table["json"]).read_bytes())
    if not isinstance(listed, list):
        faults.add(place, f"{printable(table['json'])}: must be an array of sites")
        return
    for number, element in enumerate(listed):
        yield from _read_site(element, (*place, number), faults, only)


_KINDS: dict[str, Callable[[Path, Mapping[str, Any], Faults, Container[object]], Iterator[SiteEntry]]] = {
    "directory": _read_directory,
    "csv": _read_csv,
    "json": _read_json,
}
"""What reads the sites, by the key that names where they are."""
