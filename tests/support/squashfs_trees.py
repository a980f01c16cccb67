"""What unsquashfs finds in a squashfs file, with the extended attributes of which only root may know."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.tools import run


@dataclass(frozen=True)
class UnpackedNode:
    """A node of an unpacked tree. ``content``: a regular file's SHA-256, or a symlink's text."""

    mode: int
    owner: tuple[int, int]
    time: int
    device: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]


def unpack_squashfs(image: Path, folder: Path) -> dict[str, UnpackedNode]:
    """Unpack ``image`` with unsquashfs, as root, into the new ``folder`` and describe all nodes by their paths."""
    run(["unsquashfs", "-quiet", "-no-progress", "-xattrs", "-d", str(folder), str(image)])
    return {os.path.relpath(path, folder): _describe(path) for path in _walk(str(folder))}


def _walk(folder: str) -> Iterator[str]:
    yield folder
    for directory, directories, files in os.walk(folder):
        yield from (os.path.join(directory, name) for name in (*directories, *files))


def _describe(path: str) -> UnpackedNode:
    status = os.lstat(path)
    content = ""
    if stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    owner = (status.st_uid, status.st_gid)
    return UnpackedNode(status.st_mode, owner, int(status.st_mtime), status.st_rdev, content, xattrs)
