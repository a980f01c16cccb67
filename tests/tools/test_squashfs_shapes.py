"""Squashfs files as their makers shape them, edited again and again; the kernel and other readers judge each edit."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

import cosremaster
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.squashfs_judges import Seen, check_with_readers, look_at_squashfs
from tests.support.tree_paths import list_paths

BLOCK = 4096
NOISE = hashlib.shake_256(b"shapes").digest(5 * BLOCK)
ODD_NAMES = (b"n\xffx", b"new\nline", b"it's", b"back\\slash", b"-dash", b"x" * 255, b"*", b" ", b"..x")
TIMES = (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
TO_BE_REPLACED, TO_BE_REMOVED, KEPT_LINK = b"sizes/exact", b"links/one", b"links/two"

MAKERS = {
    "mksquashfs: no padding": ("mksquashfs", "-nopad", "-b", "4096"),
    "mksquashfs: tails": ("mksquashfs", "-tailends", "-comp", "xz", "-Xbcj", "arm,armthumb", "-b", "8192"),
    "mksquashfs: no holes": ("mksquashfs", "-no-sparse", "-comp", "lzo", "-Xalgorithm", "lzo1x_1_15", "-b", "4096"),
    "mksquashfs: links as copies": ("mksquashfs", "-no-hardlinks", "-comp", "zstd", "-b", "4096"),
    "mksquashfs: root's": ("mksquashfs", "-all-root", "-noI", "-noX", "-b", "4096"),
    "mksquashfs: gzip's strategies": ("mksquashfs", "-Xstrategy", "filtered", "-Xwindow-size", "9", "-b", "4096"),
    "mksquashfs: half a dictionary": ("mksquashfs", "-comp", "xz", "-Xdict-size", "50%", "-b", "16384"),
    "tar2sqfs: xz": ("tar2sqfs", "-c", "xz", "-b", "4096"),
    "tar2sqfs: gzip, exportable": ("tar2sqfs", "-c", "gzip", "-b", "4096", "-e"),
    "gensquashfs: zstd": ("gensquashfs", "-c", "zstd", "-b", "4096", "-k", "-x"),
}  # fmt: skip


def make_tree(root: Path) -> None:
    """A tree with sizes at the edges of blocks, odd names and times, and every kind of node."""
    sizes = {"empty": 0, "short": 5, "below": BLOCK - 1, "exact": BLOCK, "above": BLOCK + 1, "two": 2 * BLOCK}
    (root / "sizes").mkdir(parents=True)
    for name, size in sizes.items():
        (root / "sizes" / name).write_bytes(NOISE[:size])
        (root / "sizes" / f"{name}-text").write_bytes(b"text of a line\n" * (size // 15) + b"-" * (size % 15))
        (root / "sizes" / f"{name}-hole").write_bytes(b"")
        os.truncate(root / "sizes" / f"{name}-hole", size)
    (root / "sizes/between").write_bytes(NOISE[:BLOCK] + bytes(3 * BLOCK) + NOISE[:7])
    (root / "links").mkdir()
    (root / "links/one").write_bytes(NOISE[BLOCK:])
    os.link(root / "links/one", root / "links/two")
    os.symlink(b"t" * 3000, root / "links/long")
    (root / "nodes").mkdir()
    for name, kind, device in (("char", stat.S_IFCHR, (5, 0xFFFFF)), ("block", stat.S_IFBLK, (0xFFF, 256))):
        os.mknod(root / "nodes" / name, kind | 0o600, os.makedev(*device))
    os.mkfifo(root / "nodes/fifo")
    os.mknod(root / "nodes/socket", stat.S_IFSOCK | 0o755)
    (root / "names").mkdir()
    for odd in ODD_NAMES:
        (root / "names" / os.fsdecode(odd)).write_bytes(odd)
    (root / "many").mkdir()
    for number in range(600):
        (root / f"many/entry-{number:04}-{'n' * (number % 30)}").touch()
    for number, path in enumerate(path for path in list_paths(root) if not path.is_symlink()):
        os.chown(path, number % 7 * 20_000, number % 5)
        path.chmod((0o644, 0o4755, 0o1777, 0)[number % 4])
        if number % 3 == 0 and (path.is_file() or path.is_dir()):
            os.setxattr(path, "user.note", (b"", b"short", b"long" * 200)[number % 9 // 3])
    for number, path in enumerate(list_paths(root)):
        os.utime(path, (1, TIMES[number % 5]), follow_symlinks=False)
    root.chmod(0o755)


def make(maker: tuple[str, ...], tree: Path, image: Path) -> Path:
    """The squashfs that ``maker``, a program with its options, makes of ``tree``."""
    program, *options = maker
    tools.require(program)
    if program == "mksquashfs":
        run([program, str(tree), str(image), *options, "-quiet", "-no-progress"])
    elif program == "tar2sqfs":
        packed = run(["tar", "-C", str(tree), "--xattrs", "--exclude=./nodes/socket", "-cf", "-", "."])
        run([program, "-q", *options, str(image)], stdin=packed)
    else:
        run([program, "-q", *options, "-D", str(tree), str(image)])
    return image


def untouched(seen: Seen, *changed: bytes) -> Seen:
    """What is told of all paths but ``changed``; the links of directories, and those of ``changed``, do not count."""
    return {
        path: facts if not stat.S_ISDIR(int(str(facts[0]))) else (*facts[:3], *facts[4:])
        for path, facts in seen.items()
        if path not in changed
    }


@pytest.mark.parametrize("name", MAKERS)
def test_shapes_of_makers_stay_over_edits(name: str, tmp_path: Path) -> None:
    tools.require("7z", "unsquashfs", "rdsquashfs", "sqfs2tar")
    if os.geteuid() != 0:
        tools.leave_out("This test makes device nodes and mounts, which needs root.")
    make_tree(tmp_path / "tree")
    image, out = make(MAKERS[name], tmp_path / "tree", tmp_path / "in.squashfs"), tmp_path / "out.squashfs"
    padded = tmp_path / "padded.squashfs"  # else the kernel would not mount an image without padding
    padded.write_bytes(image.read_bytes() + bytes(-image.stat().st_size % 4096))
    before = look_at_squashfs(padded, tmp_path / "mounted")
    site = tmp_path / "site"
    (site / "sizes").mkdir(parents=True)
    (site / "many").mkdir()
    additions = [f"many/entry-{number * 299:04}+" for number in range(3)]
    changed = (TO_BE_REPLACED, TO_BE_REMOVED, KEPT_LINK, *map(os.fsencode, additions))
    for number, size in enumerate((BLOCK, 2 * BLOCK + 1, 0)):
        (site / "sizes/exact").write_bytes(NOISE[number : number + size])
        (site / additions[number]).write_bytes(NOISE[:number])
        removed = [f"/{TO_BE_REMOVED.decode()}"] if number == 1 else []
        cosremaster.remaster(
            image, out, add=[site], remove=removed, repack=number == 2, force=True, remember=False, sync=False
        )  # fmt: skip
        after = look_at_squashfs(out, tmp_path / "mounted")
        assert untouched(after, *changed) == untouched(before, *changed)
        assert after[TO_BE_REPLACED][6] == hashlib.sha256(NOISE[number : number + size]).digest()
        assert after[os.fsencode(additions[number])][6] == hashlib.sha256(NOISE[:number]).digest()
        assert (TO_BE_REMOVED in after) == (number == 0)
        assert after[KEPT_LINK][3] == (2 if number == 0 and before[KEPT_LINK][3] == 2 else 1)
        check_with_readers(out, tmp_path / f"unpacked{number}")
        assert [one.message for one in cosremaster.verify(out, deep=True).findings if one.is_counted] == []
        out.rename(image)
