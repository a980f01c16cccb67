"""The paths of a folder, on every Python: ``Path.rglob`` of 3.10 fails at a symlink with text too long for a name."""

import os
from pathlib import Path


def list_paths(root: Path) -> list[Path]:
    """Return all that is below ``root``, sorted; symlinks are not followed."""
    return sorted(
        Path(directory, name) for directory, directories, files in os.walk(root) for name in (*directories, *files)
    )
