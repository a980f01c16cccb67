"""Paths as text are those of ``pathlib``, which is loaded only where they need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import cosremaster
from cosremaster.io.urls import Url, parse_image_path, parse_image_place
from cosremaster.lazy_path import make_path, path_text


@given(st.text(st.sampled_from("a./ é"), max_size=12))
@example("")
@example("/")
@example("//a")
@example("///a")
@example("a/..")
@example("/./a")
def test_the_text_of_a_path_is_that_of_pathlib(text: str) -> None:
    assert path_text(text) == str(Path(text)) == path_text(Path(text))
    assert make_path(text) == Path(text)


@pytest.mark.parametrize(
    "path",
    ["in.iso", "./in.iso", Path("a/in.iso"), "file:///a//in.iso", "http://host/in.iso", Url("http://host/in.iso")],
)
def test_the_place_of_an_image_is_the_text_of_its_path(path: str | Path | Url) -> None:
    place, expected = parse_image_place(path), parse_image_path(path)
    assert place == (expected if isinstance(expected, Url) else str(expected))
    assert cosremaster.Image(path).path == expected


def test_an_ordinary_path_does_without_pathlib() -> None:
    program = (
        "import sys; from cosremaster.lazy_path import path_text; from cosremaster import Image;"
        "path_text('/a/in.iso'), Image('in.iso'); print('pathlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
