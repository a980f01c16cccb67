"""Collect the faults of a recipe, each with its key and its line, to report all of them together."""

from __future__ import annotations

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
    RunTable,
    VariableTable,
    XzTable,
)
from cosremaster.recipe.toml_lines import KeyPath, line_of
from cosremaster.suggestions import find_similar, format_suggestion

_TABLES: dict[str, type[BaseModel]] = {
    "expect": ExpectTable,
    "xz": XzTable,
    "kernel_args": KernelArgsTable,
    "rename_iso": RenameTable,
    "run": RunTable,
}
_ITEM_KINDS = {"add": ITEMS, "add_iso": ISO_ITEMS}
_MESSAGES = {
    "string_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "greater_than": "must be more than 0",
    "list_type": "must be an array, in [ ]",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}
_LIMITS = ("greater_than_equal", "less_than_equal")
_RANGES = {"preset": "0 to 9", "align": "2048 to 1048576", "source_date_epoch": f"0 to {0xFFFFFFFF}"}
_PATTERNS = {
    "sha256": "must be 64 hexadecimal digits",
    "md5": "must be 32 hexadecimal digits",
    "ids": "must be auto, subuid or single",
    "run_in": "must be namespace or vm",
    "mode": 'must be octal digits as in "0644", or clauses like "u+x,go-w"',
    "directory_mode": 'must be octal digits as in "0755", or clauses like "u+x,go-w"',
}


def format_key_path(path: KeyPath) -> str:
    """Return ``path`` as people write it: ``add[2].mode``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{printable(part)}" if text else printable(part)
    return text


def suggest_name(name: str, valid_names: Iterable[str]) -> str:
    """Return a question to append to a message about the wrong ``name``; empty if no valid name is similar."""
    return format_suggestion(find_similar(name, valid_names))


class Faults:
    """The faults of the recipe file ``name``. ``lines``: the line of each key, from 1."""

    def __init__(self, name: str, lines: Mapping[KeyPath, int]) -> None:
        """Begin without faults."""
        self._name = name
        self._lines = lines
        self._messages: dict[tuple[int, KeyPath, str], str] = {}

    def add(self, path: KeyPath, message: str) -> None:
        """Add a fault of the value at ``path``."""
        line = line_of(self._lines, path)
        place = Place().inside(self._name if line is None else f"{self._name}:{line}")
        if path:
            place = place.inside(format_key_path(path))
        self._messages.setdefault((line or 0, path, message), f"{place}: {message}")

    @property
    def listed(self) -> list[tuple[KeyPath, str]]:
        """The place and the message of each fault."""
        return [(path, message) for _, path, message in self._messages]

    def below(self, prefix: KeyPath) -> Faults:
        """Return what takes the faults of a document that stands at ``prefix`` of this one."""
        return _InnerFaults(self, prefix)

    def line_of(self, path: KeyPath) -> int:
        """Return the line, from 1, of the value at ``path``; 0 where it is not known."""
        return line_of(self._lines, path) or 0

    def has_fault_at(self, path: KeyPath) -> bool:
        """Return whether the value at exactly ``path`` has a fault."""
        return any(path == fault_path for _, fault_path, _ in self._messages)

    def add_validation_error(self, error: ErrorDetails, raw: object) -> None:
        """Add a fault that pydantic reports for the document ``raw``."""
        path, kind, last = to_key_path(error["loc"]), error["type"], error["loc"][-1]
        if error["loc"][-1] == "[key]":
            self.add(path, "is no name for a variable (letters, digits and _)")
        elif kind == "extra_forbidden":
            self.add(path, _describe_unknown_key(path, raw))
        elif kind == "missing":
            self.add(path[:-1], f"{path[-1]} is missing")
        elif kind == "string_pattern_mismatch":
            self.add(path, _PATTERNS[str(last)])
        elif kind == "string_type" and str(last) in ("mode", "directory_mode"):
            self.add(path, 'must be text in quotes, as in "0644"')
        elif kind in _LIMITS:
            self.add(path, f"must lie in {_RANGES[str(last)]}")
        elif kind == "union_tag_not_found":
            self.add(path, f"must be a table with what to add: {', '.join(_ITEM_KINDS[str(path[0])])}")
        else:
            self.add(path, _MESSAGES.get(kind, error["msg"][:1].lower() + error["msg"][1:]))

    def raise_if_any(self) -> None:
        """Report all faults, in the order of their lines and keys. :raises RecipeError: there is a fault."""
        if self._messages:
            order = sorted(self._messages, key=_sort_key)
            raise RecipeError(printable(self._name), [self._messages[fault] for fault in order])


class _InnerFaults(Faults):
    """Takes the faults of a document inside another: they are added to ``outer``, at places below ``prefix``."""

    def __init__(self, outer: Faults, prefix: KeyPath) -> None:
        """Keep the arguments."""
        self._outer, self._prefix = outer, prefix

    def add(self, path: KeyPath, message: str) -> None:
        """Add a fault to the outer document."""
        self._outer.add((*self._prefix, *path), message)

    def line_of(self, path: KeyPath) -> int:
        """Return the line of the value at ``path``."""
        return self._outer.line_of((*self._prefix, *path))

    def has_fault_at(self, path: KeyPath) -> bool:
        """Return whether the value at exactly ``path`` has a fault."""
        return self._outer.has_fault_at((*self._prefix, *path))


def _sort_key(fault: tuple[int, KeyPath, str]) -> tuple[int, list[str]]:
    """Return the key by which faults are sorted: by line, then by path, with numbers in numerical order."""
    line, path, _ = fault
    return line, [f"{part:08}" if isinstance(part, int) else part for part in path]


def to_key_path(loc: tuple[int | str, ...]) -> KeyPath:
    """Return the path in the document for pydantic's ``loc``, which also contains the tags of union members."""
    path = loc[:-1] if loc[-1:] == ("[key]",) else loc
    if path[:1] == ("layer",):
        return (*path[:1], *path[2:])
    if path[:1] == ("run",) and path[2:3] == ("timeout",):
        return path[:3]
    is_tagged = len(path) > 2 and path[0] in (*_ITEM_KINDS, "variables")
    return (*path[:2], *path[3:]) if is_tagged else path


def _describe_unknown_key(path: KeyPath, raw: object) -> str:
    """Return the message about a key that its table does not have."""
    name, table_path = str(path[-1]), path[:-1]
    if table_path and table_path[0] in _ITEM_KINDS and len(table_path) == 2:
        item, kinds = _value_at(raw, table_path), _ITEM_KINDS[str(table_path[0])]
        kind = next((kind for kind in kinds if isinstance(item, dict) and kind in item), "source")
        other_kinds = [other for other, table in kinds.items() if name in table.model_fields]
        if other_kinds:
            return f"does not go together with {kind}; it belongs to {' or '.join(other_kinds)}"
        expected: type[BaseModel] = kinds[kind]
    elif not table_path:
        expected = Document
    elif table_path[0] == "variables":
        expected = VariableTable
    else:
        expected = RuleTable if "rules" in table_path else _TABLES[str(table_path[0])]
    return "no such key" + suggest_name(name, expected.model_fields)


def _value_at(value: object, path: KeyPath) -> object:
    """Return the part of ``value`` at ``path``."""
    for part in path:
        value = value[part]  # type: ignore[index]
    return value
