"""The JSON Schema of recipes, made from the types of :mod:`cosremaster.recipe.document`.

It ships as ``recipe.schema.json``; ``python -m cosremaster.recipe.schema`` writes that file anew.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from cosremaster.recipe.document import Document

FILE = "recipe.schema.json"


def shipped_schema() -> str:
    """The schema file of this package, as text."""
    return resources.files("cosremaster.recipe").joinpath(FILE).read_text(encoding="utf-8")


def make_schema() -> str:
    """The schema that the types make (JSON Schema 2020-12), as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_tidied(Document.model_json_schema())}
    schema["title"] = "cosremaster recipe"
    return json.dumps(schema, indent=2) + "\n"


def _tidied(value: Any) -> Any:
    """Without null, which TOML has not, and without titles, which repeat the keys."""
    if isinstance(value, list):
        return [_tidied(one) for one in value]
    if not isinstance(value, dict):
        return value
    value = {
        key: {name: _tidied(one) for name, one in found.items()} if key in _NAMED else _tidied(found)
        for key, found in value.items()
        if not (key == "title" and isinstance(found, str)) and not (key == "default" and found is None)
    }
    if "patternProperties" in value:
        value["additionalProperties"] = False  # a name that fits no pattern is a fault
    choices = [one for one in value.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1:
        del value["anyOf"]
        value = {**choices[0], **value}
    return value


_NAMED = frozenset(("properties", "$defs", "patternProperties"))
"""Where keys are names of the recipe, not words of the schema."""


if __name__ == "__main__":
    Path(__file__).with_name(FILE).write_text(make_schema(), encoding="utf-8")
