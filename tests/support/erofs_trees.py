"""A tree with everything that EROFS has a form for, and what of it counts when an image of it is read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import open_source
from cosremaster.layers.erofs.tree import ErofsTree
from tests.fixtures import tools
from tests.fixtures.erofs_utils import find_program
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.mounted_trees import Description
from tests.support.tree_paths import list_paths

EPOCH = 1_700_000_000
ACL = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")
XATTRS: Sequence[tuple[str, str, bytes]] = (
    ("usr/text", "user.note", b"a note"),
    ("usr/noise", "user.note", b"a note"),
    ("etc/hostname", "user.note", b"a note"),
    ("etc/hostname", "user.a.long.prefix.of.names", b"v" * 700),
    ("sbin/init", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")),
    ("sbin/init", "system.posix_acl_access", ACL),
    ("usr/empty", "trusted.overlay.opaque", b"y"),
)


def write_text(size: int, seed: int = 0) -> bytes:
    """Text of ``size`` bytes that compresses well, but not to nothing."""
    digest = hashlib.shake_256(b"%d" % seed).digest(64)
    lines = (
        b"%d %d the same words in every line\n" % (number * 7919 % 1013, digest[number % 64]) for number in range(size)
    )
    text = bytearray()
    while len(text) < size:
        text += next(lines)
    return bytes(text[:size])


def make_erofs_tree(root: Path) -> Path:
    """Write the tree to ``root``, which has to be done as root."""
    write_tree(
        root,
        {"etc/hostname": "old\n", "etc/group": "root:x:0:\n", "sbin/init": "#!/bin/sh\n", "usr/share/doc/a": "a\n"},
    )
    write_tree(root, {f"many/a-rather-long-name-{number}": f"{number}\n" for number in range(250)})
    noise = hashlib.shake_256(b"noise").digest(30_000)
    files = {
        "usr/text": write_text(60_000), "usr/noise": noise[:9000], "usr/zeros": bytes(70_000),
        "usr/mixed": write_text(9000, 1) + noise[9000:15_000] + write_text(20_000, 2) + noise[15_000:],
        "usr/copy": write_text(60_000)[5000:45_000], "usr/size-1": b"x", "usr/size-4096": write_text(4096, 3),
        "usr/size-4097": write_text(4097, 4), "usr/size-8100": write_text(8100, 5), "usr/size-500": write_text(500, 6),
    }  # fmt: skip
    for name, data in files.items():
        (root / name).write_bytes(data)
    os.truncate(root / "etc/group", 60_000)  # a hole
    os.link(root / "usr/text", root / "usr/text-2")
    os.link(root / "usr/text", root / "etc/text-3")
    os.symlink("../usr/text", root / "etc/link")
    os.symlink("x" * 900, root / "etc/long-link")
    os.mkfifo(root / "usr/fifo")
    os.mknod(root / "usr/null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "usr/disk", 0o60600, os.makedev(259, 70_000))
    os.close(os.open(os.fsencode(root) + b"/etc/n\xffame", os.O_CREAT | os.O_WRONLY))
    (root / "usr/empty").mkdir()
    (root / "usr/deep/er/still").mkdir(parents=True)
    os.chown(root / "etc/hostname", 70_000, 80_000)
    (root / "sbin/init").chmod(0o4755)
    for holder, name, value in XATTRS:
        os.setxattr(root / holder, name, value)
    for number, path in enumerate([root, *list_paths(root)]):
        os.utime(path, ns=(0, (EPOCH + number) * 10**9 + 1001 * number), follow_symlinks=False)
    return root


def describe_tree(root: Path) -> Description:
    """Type, mode, owner, time with nanoseconds, device, attributes, links, and text or digest of all below ``root``."""
    described: Description = {}
    for directory, directories, files in os.walk(os.fsencode(root)):
        for path in (os.path.join(directory, name) for name in (*directories, *files)):
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            names = os.listxattr(path, follow_symlinks=False)
            xattrs = tuple(
                sorted((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names)
            )
            described[os.fsdecode(os.path.relpath(path, os.fsencode(root)))] = (
                status.st_mode, 1 if stat.S_ISDIR(status.st_mode) else status.st_nlink, status.st_uid, status.st_gid,
                status.st_mtime_ns, (os.major(status.st_rdev), os.minor(status.st_rdev)), xattrs, content,
            )  # fmt: skip
    return described


def describe_image(image: Path) -> Description:
    """The same of all that is in ``image``, by cosremaster."""
    with open_source(image) as source:
        tree = ErofsTree(PieceTable([Range(source, 0, source.size)]), Place((str(image),)))
        described: Description = {}
        for node in tree.values():
            entry = tree.entry(node.path)
            assert entry is not None
            inode = tree.filesystem.inode(entry.nid)
            content = node.content.digest().hex() if node.content is not None else node.target or None
            described[os.fsdecode(node.path)] = (
                node.kind | node.mode, 1 if stat.S_ISDIR(node.kind) else inode.nlink, node.uid, node.gid,
                node.mtime * 10**9 + inode.nanoseconds, node.rdev, node.xattrs, content,
            )  # fmt: skip
        return described


FIXED = ("-T1700000000", "-U00000000-0000-0000-0000-000000000001")
"""So that every run has the same bytes."""

NEWER: Mapping[str, Sequence[str]] = {
    "deflate-ztailpacking": ("-zdeflate", "-C65536", "-Eztailpacking"),
    "directories": ("-zzstd", "-C4096", "--zD=1"),
    "directories-fragments": ("-zzstd", "-C65536", "--zD=1"),
    "dot-omitted-48bit": ("--chunksize=4096", "-Edot-omitted"),
    "lz4-512": ("-b512", "-zlz4"),
    "lzma-256k": ("-zlzma", "-C262144", "-Efragments,dedupe"),
    "metabox-48bit": (
        "-zlzma:zstd", "-C65536", "-m4096:zstd", "-E48bit,fragments,dedupe", "--xattr-prefix=user.a.long.",
    ),
    "prefix-fragments": ("-zlzma", "-C65536", "-Efragments,dedupe", "--xattr-prefix=user.a.long."),
    "prefix-plain": ("-zlz4", "-Eplain-xattr-prefixes", "--xattr-prefix=user.a.long."),
    "zstd-1k-blocks": ("-b1024", "-zzstd", "-C16384", "-Efragments,dedupe"),
    "zstd-48bit": ("-zzstd", "-C65536", "-E48bit"),
    "zstd-64k-fragments": ("-zzstd", "-C65536", "-Efragments"),
    "zstd-dedupe": ("-zzstd,level=19", "-C16384", "-Efragments,dedupe"),
}  # fmt: skip
"""Forms that Debian 12's mkfs.erofs does not know, with the options of the newest."""


def make_erofs(tree: Path, target: Path, *options: str) -> Path:
    """The image that mkfs.erofs makes of ``tree``."""
    tools.require("mkfs.erofs")
    run(["mkfs.erofs", "--quiet", *options, str(target), str(tree)])
    return target


def make_newer_erofs(tree: Path, folder: Path) -> Path:
    """Put an image of ``tree`` in each form of :data:`NEWER` into ``folder``, the same bytes in every run."""
    program = find_program("mkfs.erofs")
    for name, options in NEWER.items():
        words = (*program, "--quiet", "--workers=1", "--mkfs-time", *FIXED, *options)
        run([*words, str(folder / f"{name}.erofs"), str(tree)])
    return folder
