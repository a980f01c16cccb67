"""What the public functions return and raise goes from process to process: pools and Dask pickle it."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster import errors
from cosremaster.recipe.read import read_recipe
from tests.fixtures.tools import leave_out
from tests.support.small import write_small

ITEMS = (cosremaster.InlineFile("/etc/motd", b"hi"),)
REQUEST = cosremaster.Request(add=list(ITEMS), add_iso=[cosremaster.InlineFile("/n", b"n")], kernel_args=["quiet"])


def _write_recipe(image: Path) -> Path:
    """A recipe for ``image``, beside it."""
    recipe = image.with_name("site.toml")
    recipe.write_text('input = "in.iso"\noutput = "out.iso"\nremove = ["/etc/motd"]\n')
    return recipe


VALUES: dict[str, Callable[[Path], object]] = {
    "request": lambda path: REQUEST,
    "result": lambda path: cosremaster.Image(path).remaster(path.with_name("out.iso"), REQUEST),
    "plan": lambda path: cosremaster.plan(path, REQUEST),
    "facts": lambda path: cosremaster.inspect(path, deep=True),
    "layers": lambda path: cosremaster.Image(path).layers(),
    "verification": lambda path: cosremaster.verify(path, deep=True),
    "entries": cosremaster.ls,
    "differences": lambda path: list(cosremaster.diff(path, path)),
    "recipe": lambda path: read_recipe(_write_recipe(path), {}, {}),
    "extraction": lambda path: cosremaster.extract(path, path.with_name("tree")),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_are_equal_in_another_process(kind: str, tmp_path: Path) -> None:
    value = VALUES[kind](write_small(tmp_path))
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value


def test_a_plan_is_shown_in_another_process(tmp_path: Path) -> None:
    plan = cosremaster.plan(write_small(tmp_path), REQUEST)
    again = pickle.loads(pickle.dumps(plan))
    assert (again.lines, again.values) == (plan.lines, plan.values)
    assert again.lines


def test_an_image_is_opened_anew_in_another_process(tmp_path: Path) -> None:
    with cosremaster.open(write_small(tmp_path), remember=False) as image:
        data = image.read("vmlinuz")
        with pickle.loads(pickle.dumps(image)) as again:
            assert again.read("vmlinuz") == data


ERRORS = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, Exception)]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_say_the_same_in_another_process(kind: type[errors.CosremasterError]) -> None:
    arguments: tuple[tuple[Any, ...], ...] = (("m",), ("m", errors.Place(("in.iso", "x"), 7)))
    if issubclass(kind, errors.RecipeError):
        arguments = (("r.toml", ["one"]), ("r.toml", ["one", "two"]))
    for values in arguments:
        error = kind(*values)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.args, vars(again)) == (kind, str(error), error.args, vars(error))


def remaster(image: Path, number: int) -> cosremaster.Result:
    """A task of a pool."""
    return cosremaster.remaster(image, image.with_name(f"{number}.iso"), add=list(ITEMS), threads=1)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_pool_gets_results_and_errors(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        leave_out("This system has no such processes.")
    image = write_small(tmp_path)
    (tmp_path / "bad.toml").write_text("nonsense = 1\n")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        good = [pool.submit(remaster, image, number) for number in range(2)]
        bad = pool.submit(read_recipe, tmp_path / "bad.toml", {}, {})
        exists = pool.submit(remaster, image, 0)
        assert [task.result().added or task.result().replaced for task in good] == [(b"etc/motd",)] * 2
        with pytest.raises(cosremaster.RecipeError, match="nonsense"):
            bad.result()
        with pytest.raises(cosremaster.OutputError, match="exists already"):
            exists.result()
        assert pool.submit(len, "abc").result() == 3
