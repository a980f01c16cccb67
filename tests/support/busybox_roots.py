"""Small root file systems in which scripts run: busybox and what it looks up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run
from tests.support.archives_of_trees import write_tree

APPLETS = (
    *("sh", "cat", "chmod", "chown", "cp", "cut", "echo", "env", "false", "find", "grep", "head", "id", "ln", "ls"),
    *("mkdir", "mknod", "mv", "rm", "rmdir", "sed", "sleep", "sort", "stat", "touch", "true", "tr", "wc"),
)
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n", "etc/group": "root:x:0:\nwww:x:33:\n",
    "etc/hostname": "base\n", "etc/one": "one\n", "usr/share/doc/a": "a\n", "usr/share/doc/b": "b\n",
    "var/log/old.log": "old\n", "sbin/init": "#!/bin/sh\n",
}  # fmt: skip


def make_busybox_root(root: Path) -> Path:
    """Make the directory ``root`` a file system in which ``/bin/sh`` runs, and return it."""
    tools.require("busybox")
    write_tree(root, FILES)
    (root / "bin").mkdir()
    shutil.copyfile(shutil.which("busybox") or "", root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for name in ("dev", "proc", "sys", "run", "tmp", "root", "srv"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    os.link(root / "etc/one", root / "etc/two")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return root


def pack_tar(root: Path, target: Path) -> Path:
    """Pack ``root`` as root's, and return ``target``."""
    tools.require("tar")
    run(["tar", "-C", str(root), "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-cf", str(target), "."])
    return target
