"""Extended attributes that an edit loses are warned of, in every format that has them, whichever name has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cosremaster
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.erofs_trees import make_erofs


def pack_root(kind: str, root: Path, image: Path) -> Path:
    if kind == "erofs":
        return make_erofs(root, image)
    if kind == "squashfs":
        tools.require("mksquashfs")
        run(["mksquashfs", str(root), str(image), "-quiet", "-no-progress"])
    else:
        tools.require("tar")
        run(["tar", "--xattrs", "--xattrs-include=*", "-C", str(root), "-cf", str(image), "."])
    return image


@pytest.mark.parametrize("kind", ["erofs", "squashfs", "tar"])
def test_a_second_name_that_is_replaced_while_the_first_is_removed(kind: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"bin/a": "ping\n", "etc/hostname": "old\n"})
    os.setxattr(root / "bin/a", "user.note", b"capable")
    os.link(root / "bin/a", root / "bin/b")
    image = pack_root(kind, root, tmp_path / f"in.{kind}")
    site = write_tree(tmp_path / "site", {"bin/b": "new\n"})
    result = cosremaster.remaster(image, tmp_path / f"out.{kind}", add=[site], remove=["/bin/a"])
    assert [text for text in result.warnings if "bin/b had extended attributes" in text]
