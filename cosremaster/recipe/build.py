"""Making the image that a recipe describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cosremaster.errors import UsageError
from cosremaster.progress import Progress
from cosremaster.recipe.read import Recipe, read_recipe
from cosremaster.remastering.image import OpenedImage, open  # noqa: A004 - as gzip.open
from cosremaster.remastering.plan import RemasterPlan
from cosremaster.remastering.result import Result


def target_of(recipe: Recipe, output: str | Path | None) -> Path:
    """Where the image goes: to ``output``, else where the recipe says. :raises UsageError: nobody says."""
    target = recipe.output if output is None else Path(output)
    if target is None:
        raise UsageError(f"{recipe.path}: has no output, so --output must say where the image goes")
    return target


def build(
    recipe: str | Path | Recipe,
    *,
    variables: Mapping[str, str] | None = None,
    output: str | Path | None = None,
    force: bool = False,
    digest: str | None = None,
    report: str | Path | None = None,
    threads: int | None = None,
    check_index: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Writes the image that ``recipe``, a file or what :func:`read_recipe` made of it, describes.

    ``variables`` as in :func:`read_recipe`; ``output``, relative to the working directory, instead of the recipe's.
    The rest is as in ``OpenedImage.remaster``.

    :raises RecipeError: the recipe has faults. :raises ImageError: the input has another digest than expected.
    :raises CosremasterError: one of its kinds; there is then no output.
    """
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, variables)
    target = target_of(read, output)
    request = replace(read.request, threads=threads)
    with _opened(read, check_index, progress) as image:
        return image.remaster(target, request, force=force, digest=digest, report=report, progress=progress)


def plan(
    recipe: Recipe, *, threads: int | None = None, check_index: bool = False, progress: Progress | None = None
) -> RemasterPlan:
    """What :func:`build` would write. Raises as it does."""
    with _opened(recipe, check_index, progress) as image:
        return image.plan(replace(recipe.request, threads=threads), progress=progress)


@contextmanager
def _opened(recipe: Recipe, check_index: bool, progress: Progress | None) -> Iterator[OpenedImage]:
    """The recipe's input, when it has the digests that are expected."""
    with open(recipe.input, check_index=check_index) as image:
        for name, digits in recipe.expect:
            image.expect(name, digits, progress=progress)
        yield image
