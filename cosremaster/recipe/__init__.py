"""Recipes: a remaster written down in a TOML file (docs/recipe.md)."""

from cosremaster.recipe.build import build, plan, target_of
from cosremaster.recipe.read import Recipe, read_recipe

__all__ = ["Recipe", "build", "plan", "read_recipe", "target_of"]
