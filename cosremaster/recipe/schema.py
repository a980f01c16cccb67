"""The JSON Schema of recipes, generated from the types in :mod:`cosremaster.recipe.document`.

It ships as ``recipe.schema.json``; ``python -m cosremaster.recipe.schema`` writes that file again.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from cosremaster.recipe.document import Document

FILE = "recipe.schema.json"


def shipped_schema() -> str:
    """Return the text of the schema file of this package."""
    return resources.files("cosremaster.recipe").joinpath(FILE).read_text(encoding="utf-8")


def make_schema() -> str:
    """Return the schema of the types (JSON Schema 2020-12) as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_tidy(Document.model_json_schema())}
    schema["title"] = "cosremaster recipe"
    return json.dumps(schema, indent=2) + "\n"


def _tidy(value: Any) -> Any:
    """Return a part of the schema without null, which TOML lacks, and without titles, which repeat the keys."""
    if isinstance(value, list):
        return [_tidy(element) for element in value]
    if not isinstance(value, dict):
        return value
    value = {
        key: {name: _tidy(schema) for name, schema in part.items()} if key in _NAMED else _tidy(part)
        for key, part in value.items()
        if not (key == "title" and isinstance(part, str)) and not (key == "default" and part is None)
    }
    if "patternProperties" in value:
        value["additionalProperties"] = False  # a name that fits no pattern is a fault
    choices = [choice for choice in value.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del value["anyOf"]
        value = {**choices[0], **value}
    return value


_NAMED = frozenset(("properties", "$defs", "patternProperties"))
"""Keywords whose own keys are names of the recipe, not words of the schema."""


if __name__ == "__main__":
    Path(__file__).with_name(FILE).write_text(make_schema(), encoding="utf-8")
