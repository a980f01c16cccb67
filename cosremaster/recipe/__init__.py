"""Recipes: a remaster written down in a TOML file (docs/recipe.md)."""

from cosremaster.recipe.build import build, plan, resolve_output
from cosremaster.recipe.read import Recipe, read_recipe

__all__ = ["Recipe", "build", "plan", "read_recipe", "resolve_output"]
