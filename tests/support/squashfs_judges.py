"""Squashfs files as the kernel and other programs see them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fixtures import tools
from tests.fixtures.tools import run

_LZ4 = 5
"""Of squashfs' compressions the one that 7-Zip does not read."""

Seen = dict[bytes, tuple[object, ...]]


@contextmanager
def mounted_squashfs(image: Path, folder: Path) -> Iterator[Path]:
    """The tree of ``image`` as the kernel shows it; skips where nothing may be mounted."""
    if os.geteuid() != 0 or "\tsquashfs" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        tools.leave_out("This test needs root and a kernel with squashfs.")
    folder.mkdir(exist_ok=True)
    run(["mount", "-t", "squashfs", "-o", "loop,ro", str(image), str(folder)])
    try:
        yield folder
    finally:
        run(["umount", str(folder)])


def look_at_tree(root: Path) -> Seen:
    """Type, mode, owners, links, time, device, text or digest and extended attributes of all below ``root``, and it."""
    seen: Seen = {}
    top = os.fsencode(root)
    paths = [top, *(os.path.join(folder, name) for folder, *names in os.walk(top) for name in (*names[0], *names[1]))]
    for path in sorted(paths):
        status = os.lstat(path)
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError:  # an image without extended attributes
            names = []
        xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))
        seen[os.path.relpath(path, top)] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_nlink, int(status.st_mtime), status.st_rdev,
            content, xattrs,
        )  # fmt: skip
    return seen


def look_at_squashfs(image: Path, folder: Path) -> Seen:
    """The tree of ``image``, mounted."""
    with mounted_squashfs(image, folder) as root:
        return look_at_tree(root)


def check_with_readers(image: Path, folder: Path) -> None:
    """Have 7-Zip, unsquashfs, rdsquashfs and sqfs2tar read all of ``image``."""
    tools.require("7z", "unsquashfs", "rdsquashfs", "sqfs2tar")
    if int.from_bytes(image.read_bytes()[20:22], "little") != _LZ4:
        run(["7z", "t", str(image)])
    run(["unsquashfs", "-quiet", "-no-progress", "-f", "-d", str(folder), str(image)])
    run(["rdsquashfs", "-d", str(image)])
    run(["sqfs2tar", str(image)])
