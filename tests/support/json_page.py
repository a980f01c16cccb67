"""The JSON Schemas in docs/json.md, made from types: ``python -m tests.support.json_page`` writes them anew."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cosremaster.progress import events
from cosremaster.reports import documents
from tests.support.user import REPOSITORY

PAGE = REPOSITORY / "docs" / "json.md"
HEAD = """\
## Schemas

JSON Schema (2020-12) of everything above, made from the types of `cosremaster/reports/documents.py` and
`cosremaster/progress/events.py` by `python -m tests.support.json_page`. Tests hold what each command prints against it.
"""

DOCUMENTS: dict[str, Any] = {
    "ls, stat, find, tree": documents.NodesDocument,
    "diff": documents.DiffDocument,
    "verify": documents.VerifyDocument,
    "inspect": documents.InspectDocument,
    "plan, build --plan": documents.PlanDocument,
    "remaster, build, pack": documents.ResultDocument,
    "prepare": documents.PreparationDocument,
    "apply": documents.AppliedDocument,
    "extract": documents.ExtractionDocument,
    "export": documents.ExportDocument,
    "index": documents.IndexDocument,
    "cache": documents.CacheDocument,
    "fleet": documents.FleetDocument,
    "fleet --plan": documents.FleetPlanDocument,
    "a command that fails": documents.ErrorDocument,
    "--progress json, each line": events.AnyEvent,
}
"""The type of what each command prints with ``--json``."""

_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class SchemaMaker:
    """Makes the JSON Schema of types; classes become definitions of their own."""

    def __init__(self) -> None:
        """Begin without definitions."""
        self.definitions: dict[str, Any] = {}

    def describe(self, hint: Any) -> dict[str, Any]:
        """Return the schema of values of the type ``hint``."""
        origin, arguments = get_origin(hint), get_args(hint)
        if hint in _SIMPLE:
            return {"type": _SIMPLE[hint]}
        if origin is Literal:
            return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.describe(argument) for argument in arguments]}
        if origin is list:
            return {"type": "array", "items": self.describe(arguments[0])}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.describe(arguments[1])}
        name = hint.__name__.removesuffix("Document")
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._describe_class(hint)
        return {"$ref": f"#/$defs/{name}"}

    def _describe_class(self, hint: Any) -> dict[str, Any]:
        """Return the schema of a class with fields: a TypedDict or a record. All of them are there."""
        hints = get_type_hints(hint)
        names = list(getattr(hint, "__struct_fields__", hints))
        text = " ".join(line.strip() for line in (hint.__doc__ or "").splitlines()).strip()
        return {
            "description": text, "type": "object", "properties": {name: self.describe(hints[name]) for name in names},
            "required": names, "additionalProperties": False,
        }  # fmt: skip


def make_schema(hint: Any) -> dict[str, Any]:
    """Return the JSON Schema of values of the type ``hint``."""
    maker = SchemaMaker()
    top = maker.describe(hint)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": maker.definitions}


def page_text() -> str:
    """Return docs/json.md with schemas that are up to date: what stands before them is written by hand."""
    before, _, _ = PAGE.read_text().partition("## Schemas\n")
    parts = [before.rstrip("\n"), "", HEAD]
    for title, hint in DOCUMENTS.items():
        schema = json.dumps(make_schema(hint), separators=(", ", ": "))
        parts += [f"### Schema: {title}", "", "```json", schema.replace('"$defs": {', '"$defs": {\n').replace(
            ', "additionalProperties": false}, "', ', "additionalProperties": false},\n"'), "```", ""]  # fmt: skip
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page_text())
