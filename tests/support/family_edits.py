"""Images of the families, with names of their trees changed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.api.results import Result
from tests.fixtures import families, tools
from tests.fixtures.tools import EPOCH
from tests.support import judges


def change(name: str, target: Path, **asked: object) -> Result:
    asked.setdefault("source_date_epoch", EPOCH)
    return remaster(image(name), target, drop_hfsplus=name == "grub-mkrescue", **asked)  # type: ignore[arg-type]


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """A directory with a thousand files in it, some deeper, one empty."""
    tree = tools.Tree(tmp_path / "overlay")
    for number in range(MANY - 3):
        tree.file(f"site-data/a-file-with-a-name-of-some-length-{number:04}.txt", b"file %d\n" % number)
    tree.file("site-data/below/deeper/still deeper/last.bin", random.Random(3).randbytes(70_000))
    tree.file("site-data/below/.hidden.conf", b"hidden\n", 0o600)
    tree.file("site-data/nothing", b"", 0o755)
    return tree.root


MANY = 1000


def image(name: str) -> Path:
    tools.require(*families.TOOLS, *judges.TOOLS)
    return families.build(name)
