"""Make the image that a recipe describes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.api.image import Image
from cosremaster.errors import UsageError
from cosremaster.progress import Progress
from cosremaster.recipe.read import Recipe, read_recipe

if TYPE_CHECKING:
    from cosremaster.api.results import Plan, Result


def resolve_output(recipe: Recipe, output: str | Path | None) -> Path:
    """Return the path of the image to write: ``output``, else that of the recipe.

    :raises UsageError: there is neither.
    """
    target = recipe.output if output is None else Path(output)
    if target is None:
        raise UsageError(f"{recipe.path}: has no output, so --output must say where the image goes")
    return target


def build(
    recipe: str | Path | Recipe,
    *,
    output: str | Path | None = None,
    force: bool = False,
    digest: str | None = None,
    report: str | Path | None = None,
    check_index: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Write the image that ``recipe`` describes: the result of :func:`read_recipe`, or the path of a recipe to read.

    ``output``, relative to the working directory, replaces the output of the recipe. The other arguments are those of
    ``Image.remaster``.

    :raises RecipeError: the recipe has faults.
    :raises ImageError: the digest of the input is not the expected one.
    :raises CosremasterError: for any other reason; there is then no output.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    target = resolve_output(recipe, output)
    with _open_input(recipe, check_index, progress) as image:
        return image.remaster(target, recipe.request, force=force, digest=digest, report=report, progress=progress)


def plan(recipe: Recipe, *, check_index: bool = False, progress: Progress | None = None) -> Plan:
    """Return what :func:`build` would write. Raises as it does."""
    with _open_input(recipe, check_index, progress) as image:
        return image.plan(recipe.request, progress=progress)


@contextmanager
def _open_input(recipe: Recipe, check_index: bool, progress: Progress | None) -> Iterator[Image]:
    """Open the input of the recipe. :raises ImageError: it has not the expected digests."""
    with Image(recipe.input, check_index=check_index) as image:
        for name, digits in recipe.expect:
            image.check_digest(name, digits, progress=progress)
        yield image
