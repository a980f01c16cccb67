"""Where the sites come from: recipes, a site each."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

from cosremaster.errors import UsageError
from cosremaster.lazy_regex import lazy_regex
from cosremaster.recipe.read import read_recipe
from cosremaster.serve.sites import SiteCatalog, SiteSource

LONGEST_NAME = 100
"""Characters of a site's name: with a token before it, the URL stays below the 255 that machines take."""

_NAME = lazy_regex(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}", re.ASCII)


def check_site_name(name: str) -> None:
    """Check that ``name`` can stand in a URL as it is. :raises UsageError: it cannot."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"site {name!r}: its name becomes part of a URL, so it is at most {LONGEST_NAME} letters, digits and . _ -"
        )


class RecipeCatalog:
    """A site for each recipe, named as the file without its ending."""

    title = "Sites"

    def __init__(self, paths: Sequence[Path]) -> None:
        """Take the recipes ``paths``, and those in the folders among them, where others may appear later.

        Raises as :meth:`names`.
        """
        self._paths = paths
        self._state: list[int | None] = []
        self._recipes: dict[str, Path] = {}
        self._read_folders()

    def names(self) -> Collection[str]:
        """Return the names of the sites. :raises UsageError: two have a name, or one has a name that no URL takes."""
        return self._read_folders()

    def read_site(self, name: str) -> SiteSource:
        """Return what the site ``name`` is made of. :raises RecipeError: its recipe has faults, or is gone."""
        path = self._read_folders().get(name)
        if path is None:
            raise UsageError(f"there is no recipe of the site {name} any more")
        recipe = read_recipe(path)
        return SiteSource(recipe.input, recipe.request, (recipe.path,), recipe.expect)

    def _read_folders(self) -> dict[str, Path]:
        """Return the recipes by their names; folders are read again when something appeared or vanished in them."""
        state = [_folder_state(path) for path in self._paths]
        if state == self._state:
            return self._recipes
        recipes: dict[str, Path] = {}
        for path, folder in zip(self._paths, state, strict=True):
            for recipe in [path] if folder is None else sorted(path.glob("*.toml")):
                check_site_name(recipe.stem)
                if recipe.stem in recipes:
                    raise UsageError(f"{recipe}: the site {recipe.stem} is {recipes[recipe.stem]} already")
                recipes[recipe.stem] = recipe
        self._state, self._recipes = state, recipes
        return recipes


def _folder_state(path: Path) -> int | None:
    """Return what changes when something appears or vanishes in the folder ``path``; None for what is no folder."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns if stat.S_ISDIR(status.st_mode) else None


def open_catalog(files: Sequence[Path]) -> SiteCatalog:
    """Return the sites that ``files`` describe: recipes, and folders of recipes. Raises as these do."""
    for path in files:
        if not path.exists():
            raise UsageError(f"{path}: there is no such file or folder")
    return RecipeCatalog(files)
