"""Trees as unpackers and the kernel show them: described by what counts, and mounted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fixtures import tools
from tests.fixtures.tools import run

Description = dict[str, tuple[object, ...]]


def on_disk(root: Path) -> Description:
    """Type, mode, links, time, device, text and digest of everything below ``root``."""
    described: Description = {}
    for path in sorted([os.fsencode(root), *_below(os.fsencode(root))]):
        status = os.lstat(path)
        content = ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsdecode(os.readlink(path))
        name = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        described[name] = (status.st_mode, links, int(status.st_mtime), status.st_rdev, content)
    return described


def _below(root: bytes) -> Iterator[bytes]:
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield os.path.join(directory, name)


@contextmanager
def mounted(image: Path, folder: Path, kind: str = "squashfs") -> Iterator[Path]:
    """The tree as the kernel shows it; skips where nothing may be mounted."""
    if os.geteuid() != 0 or f"\t{kind}" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        tools.leave_out(f"This test needs root and a kernel with {kind}.")
    folder.mkdir()
    run(["mount", "-t", kind, "-o", "loop,ro", str(image), str(folder)])
    try:
        yield folder
    finally:
        run(["umount", str(folder)])
