"""Make the image that a recipe describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.api.image import Image
from cosremaster.errors import UsageError
from cosremaster.progress import Progress
from cosremaster.recipe.read import Recipe, read_recipe

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cosremaster.api.results import Plan, Result
    from cosremaster.remastering.output_options import OutputKeywords


def resolve_output(recipe: Recipe, output: str | Path | None) -> Path:
    """Return the path of the image to write: ``output``, else that of the recipe.

    :raises UsageError: there is neither.
    """
    target = recipe.output if output is None else output if isinstance(output, Path) else Path(output)
    if target is None:
        raise UsageError(f"{recipe.path}: has no output, so --output must say where the image goes")
    return target


def build(
    recipe: str | Path | Recipe,
    *,
    output: str | Path | None = None,
    check_index: bool = False,
    progress: Progress | None = None,
    **options: Unpack[OutputKeywords],
) -> Result:
    """Write the image that ``recipe`` describes: the result of :func:`read_recipe`, or the path of a recipe to read.

    ``output``, relative to the working directory, replaces the output of the recipe. ``options`` are those of
    ``Image.remaster``.

    :raises RecipeError: the recipe has faults.
    :raises ImageError: the digest of the input is not the expected one.
    :raises CosremasterError: for any other reason; there is then no output.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    target = resolve_output(recipe, output)
    for path in (target, options.get("report")):
        _check_is_other(path, recipe)
    options["expect"] = [*options.get("expect", ()), *(f"{name}:{digits}" for name, digits in recipe.expect)]
    options["sync"] = options.get("sync", True) and recipe.sync
    with Image(recipe.input, check_index=check_index) as image:
        return image.remaster(target, recipe.request, progress=progress, **options)


def plan(
    recipe: Recipe, *, report: str | Path | None = None, force: bool = False, check_index: bool = False,
    progress: Progress | None = None,
) -> Plan:  # fmt: skip
    """Return what :func:`build` would write. ``report`` and ``force``: as for ``Image.plan``. Raises as it does."""
    _check_is_other(report, recipe)
    with Image(recipe.input, check_index=check_index) as image:
        for name, digits in recipe.expect:
            image.check_digest(name, digits, progress=progress)
        return image.plan(recipe.request, report=report, force=force, progress=progress)


def _check_is_other(path: str | os.PathLike[str] | None, recipe: Recipe) -> None:
    """Check that ``path``, which is to be written, is not the recipe. :raises UsageError: it is."""
    if path is not None and os.path.exists(path) and os.path.samefile(path, recipe.path):
        raise UsageError(f"{os.fspath(path)} is the recipe itself, which is never changed")
