"""Make the image that a recipe describes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.api.image import Image
from cosremaster.browse.export import MaasResource, names_gzip_tar
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
    ``Image.remaster``. Where the recipe has a ``[maas]`` table the result has the command of the import as ``upload``.

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
    options["delta"] = options.get("delta", False) or recipe.delta
    if recipe.maas is not None:
        _check_upload(recipe, target, options.get("digest"), delta=options["delta"])
        options["digest"] = "sha256"
    with Image(recipe.input, check_index=check_index) as image:
        result = image.remaster(target, recipe.request, progress=progress, **options)
    return result if recipe.maas is None else _with_upload(result, recipe.maas, target)


def _check_upload(recipe: Recipe, target: Path, digest: str | None = None, *, delta: bool = False) -> None:
    """Check that MAAS can import ``target``. :raises UsageError: it is no .tar.gz, or gets another ``digest``."""
    if delta:
        raise UsageError(f"{recipe.path}: MAAS imports no delta, and the recipe has [maas]")
    if not names_gzip_tar(target.name):
        raise UsageError(f"{target}: MAAS takes a .tar.gz, and the recipe has [maas]")
    if digest not in (None, "sha256"):
        raise UsageError(f"MAAS compares the SHA-256, so {target} gets no {digest} beside it")


def _with_upload(result: Result, maas: MaasResource, target: Path) -> Result:
    """Return ``result`` with the command that imports the finished ``target``."""
    digest = bytes.fromhex(Path(f"{target}.sha256").read_text("utf-8", "replace")[:64])
    if not (maas.base_image and maas.architecture):
        with Image(target, remember=False) as image:
            maas = replace(
                maas, base_image=maas.base_image or image.find_base_image(),
                architecture=maas.architecture or image.find_architecture(),
            )  # fmt: skip
    return replace(result, upload=maas.command(str(target), result.output_size, digest))


def plan(
    recipe: Recipe, *, output: str | Path | None = None, report: str | Path | None = None, force: bool = False,
    check_index: bool = False, progress: Progress | None = None,
) -> Plan:  # fmt: skip
    """Return what :func:`build` would write to ``output``, or else to the output of ``recipe``.

    ``report`` and ``force``: as for ``Image.plan``. Raises as it does.
    """
    _check_is_other(report, recipe)
    target = output or recipe.output
    if recipe.maas is not None and target is not None:
        _check_upload(recipe, Path(target), delta=recipe.delta)
    with Image(recipe.input, check_index=check_index) as image:
        for name, digits in recipe.expect:
            image.check_digest(name, digits, progress=progress)
        return image.plan(
            recipe.request, target=target, report=report, force=force, delta=recipe.delta,
            progress=progress,
        )  # fmt: skip


def _check_is_other(path: str | os.PathLike[str] | None, recipe: Recipe) -> None:
    """Check that ``path``, which is to be written, is not the recipe. :raises UsageError: it is."""
    if path is not None and os.path.exists(path) and os.path.samefile(path, recipe.path):
        raise UsageError(f"{os.fspath(path)} is the recipe itself, which is never changed")
