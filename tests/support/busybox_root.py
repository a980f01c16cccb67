"""A small root file system whose only program is busybox, as nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind, Xattrs

BUSYBOX = Path("/bin/busybox")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""``cap_net_bind_service+ep`` as version 2 of the kernel's vfs_cap_data."""

_COMMANDS = ("sh", "cat", "chmod", "chown", "cp", "dd", "echo", "id", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount",
             "mv", "poweroff", "rm", "seq", "sleep", "touch", "uname", "wget")  # fmt: skip


def directory(path: bytes, mode: int = 0o755) -> Node:
    """A directory."""
    return Node(path=path, kind=NodeKind.DIRECTORY, mode=mode)


def file(path: bytes, data: bytes, mode: int = 0o644, gid: int = 0, link: object = None, xattrs: Xattrs = ()) -> Node:
    """A regular file."""
    content = BytesContent(data)
    return Node(path=path, kind=NodeKind.FILE, mode=mode, gid=gid, content=content, link=link, xattrs=xattrs)


def busybox_root() -> Mapping[bytes, Node]:
    """The root, with something of every kind."""
    nodes = [
        *(directory(path) for path in (b"bin", b"dev", b"etc", b"proc", b"usr", b"usr/share", b"usr/share/doc")),
        directory(b"tmp", 0o1777),
        file(b"bin/busybox", BUSYBOX.read_bytes(), 0o755),
        *(
            Node(path=b"bin/" + name.encode(), kind=NodeKind.SYMLINK, mode=0o777, target=b"busybox")
            for name in _COMMANDS
        ),
        file(b"etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
        file(b"etc/shadow", b"root:*::::::\n", 0o640, gid=42),
        file(b"usr/share/doc/large", b"0123456789abcdef" * 20_000),
        file(b"usr/share/doc/able", b"able", 0o755, xattrs=((b"security.capability", CAPABILITY),)),
        file(b"usr/share/first", b"linked", link=1),
        file(b"usr/share/second", b"linked", link=1),
        file(b"usr/share/\xff\xfe", b"no UTF-8"),
        Node(path=b"dev/sda", kind=NodeKind.BLOCK, mode=0o660, gid=6, rdev=(8, 0)),
        Node(path=b"usr/share/pipe", kind=NodeKind.FIFO, mode=0o600),
    ]
    return {node.path: node for node in nodes}
