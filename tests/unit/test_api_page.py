"""docs/api.md: it is made from the docstrings, has every public name, and its examples run."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import cosremaster
from tests.support.api_page import PAGE, SECTIONS, api_page, examples
from tests.support.small import write_small

EXAMPLES = {example.name: example for example in examples()}


def test_the_page_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text() == api_page(), "python -m tests.support.api_page writes it anew"


def test_the_page_has_every_public_name() -> None:
    names = [name for section in SECTIONS if section.module is cosremaster for name in section.names]
    assert sorted(names) == sorted(set(cosremaster.__all__) - {"__version__"})


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_small(tmp_path).rename(tmp_path / "vendor.iso")
    (tmp_path / "site/etc").mkdir(parents=True)
    (tmp_path / "site/etc/motd").write_text("welcome\n")
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(EXAMPLES[name], out=printed.append)
    assert not result.failed, "".join(printed)


def test_no_module_has_the_name_of_a_public_function() -> None:
    """Importing it would put the module in the function's place."""
    for name in cosremaster.__all__:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"cosremaster.{name}")


def test_public_values_are_frozen_dataclasses() -> None:
    others = {"Image", "Prepared", "OverlayItem", "Progress", "MeasuredProgress", "Place", "Level"}
    for name in cosremaster.__all__:
        value = getattr(cosremaster, name)
        if inspect.isclass(value) and not issubclass(value, Exception) and name not in others:
            assert dataclasses.is_dataclass(value), name
            assert value.__dataclass_params__.frozen, name  # type: ignore[attr-defined]
