"""Paths of ``pathlib``, which takes longer to load than a small image to read: most commands that look need none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_path(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as one of ``pathlib``, which is loaded now."""
    from pathlib import Path  # noqa: PLC0415 - as the module says

    return Path(path)


def path_text(path: str | os.PathLike[str]) -> str:
    """Return the text of ``path`` as ``pathlib`` writes it: without empty parts and ``.`` in between.

    >>> path_text("images/vendor.iso"), path_text("./images//vendor.iso")
    ('images/vendor.iso', 'images/vendor.iso')
    """
    text = os.fspath(path)
    parts = text.removeprefix("/").split("/")
    return str(make_path(text)) if "" in parts or "." in parts else text
