"""A copy of examples/apollo with a small platform ISO beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.small import without_layer
from tests.support.user import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "apollo"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example with a small platform ISO beside it."""
    folder = tmp_path / "apollo"
    shutil.copytree(EXAMPLE, folder)
    (folder / "apollo-platform.iso").write_bytes(without_layer({"platform.bin": os.urandom(300_000)}))
    return folder
