"""What README and Makefile let a user make in a clone is no part of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = (".venv", "venv")


def test_readme_makes_no_other_environment() -> None:
    pages = [(REPOSITORY / name).read_text() for name in ("README.md", "docs/install.md")]
    made = {name for page in pages for name in re.findall(r"python3 -m venv (\S+)", page)}
    assert made and made <= set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_environment_belongs_to_nothing_that_is_built(folder: str) -> None:
    """A file that git does not ignore goes into a source archive, and ``make release`` refuses it."""
    assert f"{folder}/" in (REPOSITORY / ".gitignore").read_text().splitlines()
    assert folder in (REPOSITORY / ".dockerignore").read_text().splitlines()
    for name in ("packages.sh", "deb.sh"):  # where there is no git, as in an unpacked source archive
        assert f" --exclude=./{folder} " in (REPOSITORY / "packaging" / name).read_text()
