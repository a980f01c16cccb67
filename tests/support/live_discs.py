"""Images of live systems: plain files, squashfs files by the trees that they hold, initramfs of several archives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree

SYSTEM = {"etc/hostname": "base\n", "sbin/init": "i\n", "usr/bin/tool": "t\n"}
CASPER = {"scripts/casper": "#!/bin/sh\n", "init": "#!/bin/sh\n", "conf/initramfs.conf": "BOOT=local\n"}
SLAX = {
    "slax/02-xorg.sb": {"usr/bin/xorg": "x\n"}, "slax/01-core.sb": SYSTEM, "slax/10-apps.sb": {"etc/hostname": "ten\n"},
    "slax/modules/9-late.sb": {"etc/late": "l\n"},
}  # fmt: skip
DiscMaker = Callable[[Mapping[str, Any], Mapping[str, Mapping[str, str]]], Path]


@pytest.fixture
def live_disc(tmp_path: Path) -> DiscMaker:
    """Makes an ISO of plain files and of squashfs files, by the trees that these hold."""
    tools.require("genisoimage", "mksquashfs")

    def make(files: Mapping[str, Any], trees: Mapping[str, Mapping[str, str]]) -> Path:
        folder = tmp_path / "disc"
        if folder.exists():
            run(["rm", "-rf", str(folder)])
        folder.mkdir()
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data if isinstance(data, bytes) else data.encode())
        for number, (path, tree) in enumerate(trees.items()):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            root = tmp_path / f"tree{number}"
            run(["rm", "-rf", str(root)])
            write_tree(root, dict(tree))
            options = ["-quiet", "-no-progress", "-noappend", "-processors", "1", "-all-root"]
            run(["mksquashfs", str(root), str(folder / path), *options])
        iso = tmp_path / "in.iso"
        run(["genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-o", str(iso), str(folder)])
        return iso

    return make


def initramfs(folder: Path, *archives: Mapping[str, str]) -> bytes:
    """An initramfs of several archives, as GNU cpio and gzip make them: the first is plain."""
    tools.require("cpio", "gzip")
    result = b""
    for number, files in enumerate(archives):
        root = write_tree(folder / f"initramfs{number}-{len(list(folder.iterdir()))}", dict(files))
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        archive = run(["cpio", "-o", "-H", "newc", "--quiet"], stdin="\n".join(names).encode() + b"\n", cwd=root)
        result += archive if number + 1 < len(archives) else run(["gzip", "-9n"], stdin=archive)
    return result
