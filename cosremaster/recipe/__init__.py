"""Recipes: a remaster written down in a TOML file (docs/recipe.md)."""

from cosremaster.errors import UnsupportedError

try:
    import pydantic as _pydantic  # noqa: F401 - compiled, so some machines have none
except ImportError as error:
    raise UnsupportedError(
        "recipes and fleets are read with pydantic, which is not installed here (pip install pydantic)"
    ) from error

from cosremaster.recipe.build import build, plan, resolve_output
from cosremaster.recipe.read import Recipe, read_recipe

__all__ = ["Recipe", "build", "plan", "read_recipe", "resolve_output"]
