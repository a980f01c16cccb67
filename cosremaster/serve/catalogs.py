"""Where the sites come from: recipes, a site each, or a fleet."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from cosremaster.errors import UsageError
from cosremaster.fleet.read import Fleet, FleetSite, read_fleet
from cosremaster.lazy_regex import lazy_regex
from cosremaster.overlay.request import STANDARD_INPUT, AddPath
from cosremaster.recipe.read import parse_toml, read_recipe, read_text
from cosremaster.serve.fingerprint import Fingerprint, take_fingerprint
from cosremaster.serve.sites import FAILURE_INTERVAL, SiteCatalog, SiteSource
from cosremaster.suggestions import suggest_file

LONGEST_NAME = 100
"""Characters of a site's name: with a token before it, the URL stays below the 255 that machines take."""
SETTLED = 100_000_000
"""Nanoseconds after which a file that appears in a folder changes the time of that, however coarse the clock is."""

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

        :raises UsageError: two have a name, or one has a name that no URL takes.
        """
        self._paths = paths
        self._state: list[int | None] | None = None
        self._recipes: dict[str, Path] = {}
        self.problems: tuple[str, ...] = ()
        self._read_folders()
        if self.problems:
            raise UsageError(self.problems[0])

    def names(self) -> Collection[str]:
        """Return the names of the sites; a recipe that appears and cannot be a site stands in the way of no other."""
        return self._read_folders()

    def read_site(self, name: str) -> SiteSource:
        """Return what the site ``name`` is made of. :raises RecipeError: its recipe has faults, or is gone."""
        path = self._read_folders().get(name)
        if path is None:
            raise UsageError(f"there is no recipe of the site {name} any more")
        recipe = read_recipe(path)
        items = (*recipe.request.add, *recipe.request.add_iso)
        if any(isinstance(item, AddPath) and os.fsencode(item.source) == STANDARD_INPUT for item in items):
            raise UsageError(f"{path}: standard input is read once, so nothing that is planned again adds it")
        return SiteSource(recipe.input, recipe.request, (recipe.path,), recipe.expect)

    def _read_folders(self) -> dict[str, Path]:
        """Return the recipes by their names; folders are read again when something appeared or vanished in them."""
        now = time.time_ns()
        state = [_folder_state(path) for path in self._paths]
        if state == self._state:
            return self._recipes
        recipes: dict[str, Path] = {}
        problems: list[str] = []
        for path, folder in zip(self._paths, state, strict=True):
            for recipe in [path] if folder is None else sorted(path.glob("*.toml")):
                try:
                    check_site_name(recipe.stem)
                except UsageError as error:
                    problems.append(error.message)
                    continue
                if recipe.stem in recipes:
                    problems.append(f"{recipe}: the site {recipe.stem} is {recipes[recipe.stem]} already")
                    continue
                recipes[recipe.stem] = recipe
        is_settled = not any(folder is not None and abs(now - folder) < SETTLED for folder in state)
        self._recipes, self.problems, self._state = recipes, tuple(problems), state if is_settled else None
        return recipes


def _folder_state(path: Path) -> int | None:
    """Return what changes when something appears or vanishes in the folder ``path``; None for what is no folder."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns if stat.S_ISDIR(status.st_mode) else None


class FleetCatalog:
    """The sites of the fleet in the file ``path``, which is read again when it, or its list of sites, changed.

    Where that has faults, the sites stay those that were read before.
    """

    def __init__(self, path: Path) -> None:
        """Read the fleet. :raises RecipeError: it has faults. :raises UsageError: no URL takes the name of a site."""
        self._path, self._lock = path, threading.Lock()
        self.problems: tuple[str, ...] = ()
        self._next_trial = 0.0
        self._files = (path, *_find_lists(path))
        self._state = _state_of_lists(self._files)
        self._fleet, self._sites = self._read_sites()

    @property
    def title(self) -> str:
        """The name of the fleet's file."""
        return self._path.stem

    def names(self) -> Collection[str]:
        """Return the names of the sites."""
        return self._read()[1]

    def read_site(self, name: str) -> SiteSource:
        """Return what the site ``name`` is made of.

        :raises UsageError: it is gone. :raises RecipeError: files that it adds make a fault of it.
        """
        fleet, sites = self._read()
        if name not in sites:
            raise UsageError(f"{self._path}: there is no site {name} any more")
        site = sites[name]
        if site.depends_on_files and not self.problems:  # which may have changed since
            (site,) = read_fleet(self._path, only=(name,)).sites or (site,)
        files = tuple(path for path in self._files if not path.is_dir())  # what a site has in a folder, it adds
        return SiteSource(fleet.base, site.request, files, fleet.expect)

    def _read(self) -> tuple[Fleet, dict[str, FleetSite]]:
        """Return the fleet, and its sites by name: as they are now, or else as they were before there were faults."""
        with self._lock:
            state = _state_of_lists(self._files)
            if state != self._state or (self.problems and time.monotonic() >= self._next_trial):
                try:
                    files = (self._path, *_find_lists(self._path))
                    state = _state_of_lists(files)  # before the fleet is read: what changes meanwhile is seen then
                    self._fleet, self._sites = self._read_sites()
                    self._files, self.problems = files, ()
                except UsageError as error:
                    self.problems = (f"{self._path} has faults, and its sites stay as they were: {error.message}",)
                    self._next_trial = time.monotonic() + FAILURE_INTERVAL
                self._state = state
            return self._fleet, self._sites

    def _read_sites(self) -> tuple[Fleet, dict[str, FleetSite]]:
        """Return the fleet, and its sites by name. :raises UsageError: it has faults."""
        fleet = read_fleet(self._path)
        for site in fleet.sites:
            check_site_name(site.name)
        return fleet, {site.name: site for site in fleet.sites}


def _find_lists(path: Path) -> tuple[Path, ...]:
    """Return the file or folder that lists the sites of the fleet in the file ``path``, if there is any."""
    table = parse_toml(path, read_text(path)).get("sites")
    names = [table.get(kind) for kind in ("directory", "csv", "json")] if isinstance(table, dict) else []
    return tuple(path.parent / name for name in names if isinstance(name, str))


def _state_of_lists(paths: Sequence[Path]) -> Fingerprint:
    """Return the state of files, and of folders without what is in those below them."""
    folders = [entry for path in paths if path.is_dir() for entry in _list_folder(path)]
    files = take_fingerprint([path for path in paths if not path.is_dir()])
    return files._replace(digest=files.digest + "\0".join(folders).encode("utf-8", "surrogateescape"))


def _list_folder(path: Path) -> list[str]:
    """Return the names in the folder ``path``, or what says that nobody may read them: who reads it then tells why."""
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return [f"/{error.errno}"]


def open_catalog(paths: Sequence[Path]) -> SiteCatalog:
    """Return the sites that ``paths`` describe: a fleet, or recipes and folders of recipes. Raises as these do."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: there is no such file or folder{suggest_file(path)}")
    fleets = [path for path in paths if path.is_file() and "base" in parse_toml(path, read_text(path))]
    if not fleets:
        return RecipeCatalog(paths)
    if len(paths) > 1:
        raise UsageError(f"{fleets[0]}: is a fleet, which is served alone")
    return FleetCatalog(fleets[0])
