"""Collecting what is wrong with a recipe: each fault with its key and its line, all of them told together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cosremaster.errors import Place, RecipeError, printable
from cosremaster.recipe.document import (
    ISO_ITEMS,
    ITEMS,
    Document,
    ExpectTable,
    KernelArgsTable,
    RenameTable,
    RuleTable,
    VariableTable,
    XzTable,
)
from cosremaster.recipe.toml_lines import Path, line_of

_TABLES: dict[str, type[BaseModel]] = {
    "expect": ExpectTable,
    "xz": XzTable,
    "kernel_args": KernelArgsTable,
    "rename_iso": RenameTable,
}
_ADDED = {"add": ITEMS, "add_iso": ISO_ITEMS}
_MESSAGES = {
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "list_type": "must be an array, in [ ]",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}
_LIMITS = ("greater_than_equal", "less_than_equal")
_RANGES = {"preset": "0 to 9", "source_date_epoch": f"0 to {0xFFFFFFFF}"}
_PATTERNS = {
    "sha256": "must be 64 hexadecimal digits",
    "md5": "must be 32 hexadecimal digits",
    "mode": 'must be octal digits as in "0644", or clauses like "u+x,go-w"',
    "directory_mode": 'must be octal digits as in "0755", or clauses like "u+x,go-w"',
}


def spelled(path: Path) -> str:
    """``path`` as people write it: ``add[2].mode``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{printable(part)}" if text else printable(part)
    return text


def suggestion(name: str, known: Iterable[str]) -> str:
    """A question to append to a complaint about ``name``, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class Faults:
    """The faults of the recipe file ``name``, whose keys stand at ``lines``."""

    def __init__(self, name: str, lines: Mapping[Path, int]) -> None:
        self._name = name
        self._lines = lines
        self._found: dict[tuple[int, Path, str], str] = {}

    def add(self, path: Path, message: str) -> None:
        """What is wrong with the value at ``path``."""
        line = line_of(self._lines, path)
        place = Place().inside(self._name if line is None else f"{self._name}:{line}")
        if path:
            place = place.inside(spelled(path))
        self._found.setdefault((line or 0, path, message), f"{place}: {message}")

    def told(self, path: Path) -> bool:
        """A fault of the value at ``path`` itself is known."""
        return any(path == where for _, where, _ in self._found)

    def add_shape(self, error: ErrorDetails, raw: object) -> None:
        """What pydantic found wrong with the document ``raw``."""
        path, kind, last = key_path(error["loc"]), error["type"], error["loc"][-1]
        if error["loc"][-1] == "[key]":
            self.add(path, "is no name for a variable (letters, digits and _)")
        elif kind == "extra_forbidden":
            self.add(path, _stranger(path, raw))
        elif kind == "missing":
            self.add(path[:-1], f"{path[-1]} is missing")
        elif kind == "string_pattern_mismatch":
            self.add(path, _PATTERNS[str(last)])
        elif kind == "string_type" and str(last) in ("mode", "directory_mode"):
            self.add(path, 'must be text in quotes, as in "0644"')
        elif kind in _LIMITS:
            self.add(path, f"must lie in {_RANGES[str(last)]}")
        elif kind == "union_tag_not_found":
            self.add(path, f"must be a table with what to add: {', '.join(_ADDED[str(path[0])])}")
        else:
            self.add(path, _MESSAGES.get(kind, error["msg"][:1].lower() + error["msg"][1:]))

    def raise_any(self) -> None:
        """:raises RecipeError: there is a fault; it tells all, in the order of lines and keys."""
        if self._found:
            order = sorted(self._found, key=_order)
            raise RecipeError(printable(self._name), [self._found[fault] for fault in order])


def _order(fault: tuple[int, Path, str]) -> tuple[int, list[str]]:
    line, path, _ = fault
    return line, [f"{part:08}" if isinstance(part, int) else part for part in path]


def key_path(loc: tuple[int | str, ...]) -> Path:
    """The keys of the document on the way to pydantic's ``loc``, which also names the members of unions."""
    path = loc[:-1] if loc[-1:] == ("[key]",) else loc
    tagged = len(path) > 2 and path[0] in (*_ADDED, "variables")
    return (*path[:2], *path[3:]) if tagged else path


def _stranger(path: Path, raw: object) -> str:
    """The complaint about a key that nobody knows there."""
    name, around = str(path[-1]), path[:-1]
    if around and around[0] in _ADDED and len(around) == 2:
        item, kinds = _at(raw, around), _ADDED[str(around[0])]
        kind = next((kind for kind in kinds if isinstance(item, dict) and kind in item), "source")
        elsewhere = [other for other, table in kinds.items() if name in table.model_fields]
        if elsewhere:
            return f"does not go together with {kind}; it belongs to {' or '.join(elsewhere)}"
        known: type[BaseModel] = kinds[kind]
    elif not around:
        known = Document
    elif around[0] == "variables":
        known = VariableTable
    else:
        known = RuleTable if "rules" in around else _TABLES[str(around[0])]
    return "no such key" + suggestion(name, known.model_fields)


def _at(value: object, path: Path) -> object:
    for part in path:
        value = value[part]  # type: ignore[index]
    return value
