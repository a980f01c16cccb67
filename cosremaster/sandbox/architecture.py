"""Whether programs of a file system can run on this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from cosremaster.errors import SandboxError
from cosremaster.tree.nodes import Node, NodeKind, resolve_links
from cosremaster.tree.paths import SymlinkLoopError

_MACHINES = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64",
    258: "loongarch64",
}  # fmt: skip
"""Numbers of ELF's e_machine (the gABI's registry), with the names that Linux has for them."""

_NATIVE = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm"), "ppc64le": ("ppc64",)}
_BINFMT = "/proc/sys/fs/binfmt_misc"


def check_architecture(tree: Mapping[bytes, Node]) -> None:
    """Check that this machine runs the shell of ``tree``.

    :raises SandboxError: it is for another architecture, or there is none.
    """
    machine = platform.machine()
    head = _read_shell(tree)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return
    number = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    name = _MACHINES.get(number, f"machine {number}")
    if name in _NATIVE.get(machine, (machine,)) or _is_emulated(head):
        return
    raise SandboxError(
        f"the image is for {name} and this machine is {machine}: an emulator is needed (package qemu-user-static, with"
        " its binfmt_misc entries), or --run-in vm"
    )


def _read_shell(tree: Mapping[bytes, Node]) -> bytes:
    """Return the first bytes of the shell; empty where it is no file. :raises SandboxError: there is none."""

    try:
        node = tree.get(resolve_links(b"bin/sh", tree.get))
    except SymlinkLoopError:
        node = None
    if node is None or node.kind is not NodeKind.FILE or node.content is None:
        raise SandboxError("the image has no /bin/sh, so no script can run in it")
    return node.content.head(64)


def _is_emulated(head: bytes) -> bool:
    """Tell whether the kernel has an interpreter for programs that begin with ``head``, opened beforehand (flag F)."""
    try:
        names = os.listdir(_BINFMT)
    except OSError:
        return False
    for name in names:
        try:
            with open(os.path.join(_BINFMT, name)) as file:
                lines = dict(line.strip().partition(" ")[::2] for line in file)
            magic, mask = (bytes.fromhex(lines.get(field, "")) for field in ("magic", "mask"))
        except (OSError, ValueError):
            continue
        start, flags = int(lines.get("offset", "0")), lines.get("flags:", "")
        part = head[start : start + len(magic)]
        mask = mask or b"\xff" * len(magic)
        is_usable = magic and "F" in flags and "enabled" in lines and len(part) == len(magic) == len(mask)
        if is_usable and all(a & m == b & m for a, b, m in zip(part, magic, mask, strict=True)):
            return True
    return False
