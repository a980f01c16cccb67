"""The architecture of a root file system, by its own programs."""

from __future__ import annotations

from cosremaster.browse.container import Container
from cosremaster.errors import LayerError

DEFAULT = "amd64/generic"
"""Where no program says another, as MAAS has it."""

_PROGRAMS = (b"bin/sh", b"sbin/init", b"usr/bin/env", b"bin/busybox", b"lib/systemd/systemd")
_LITTLE, _BIG = 1, 2
_NAMES = {
    (3, _LITTLE): "i386", (62, _LITTLE): "amd64", (183, _LITTLE): "arm64", (21, _LITTLE): "ppc64el",
    (21, _BIG): "ppc64", (22, _BIG): "s390x", (243, _LITTLE): "riscv64", (258, _LITTLE): "loong64",
}  # fmt: skip
"""By e_machine and the order of bytes in the head of an ELF file (gABI): Debian's names, which are MAAS' too."""

_ARM = 40
_FLAGS_OF_32 = 36
_HARD_FLOAT = 0x400  # EF_ARM_ABI_FLOAT_HARD
_HEAD = 64


def find_architecture(root: Container) -> str:
    """Return the architecture of the programs in ``root``, as in ``amd64``; empty where none of them says it."""
    for path in _PROGRAMS:
        try:
            node = root.node(root.resolve(path, last=True))
        except LayerError:  # its symlinks form a loop
            continue
        name = "" if node is None or node.content is None else _read_machine(node.content.head(_HEAD))
        if name:
            return name
    return ""


def _read_machine(head: bytes) -> str:
    """Return the architecture of the program that begins with ``head``; empty where it is none that is known."""
    if head[:4] != b"\x7fELF" or len(head) < _HEAD:
        return ""
    machine = int.from_bytes(head[18:20], "big" if head[5] == _BIG else "little")
    if machine == _ARM and head[5] == _LITTLE:
        flags = int.from_bytes(head[_FLAGS_OF_32 : _FLAGS_OF_32 + 4], "little")
        return "armhf" if flags & _HARD_FLOAT else "armel"
    return _NAMES.get((machine, head[5]), "")
