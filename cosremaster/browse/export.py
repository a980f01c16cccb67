"""What other systems take: a root filesystem for MAAS, kernel and initramfs for a network boot."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.browse.container import Container, NodeRef
from cosremaster.browse.order import files_in_order
from cosremaster.browse.tar import TarStream
from cosremaster.browse.walk import archives_in
from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.gzip.repack import GzipParameters
from cosremaster.errors import LayerError, UsageError
from cosremaster.io.pieces import PieceTable
from cosremaster.io.spool import Spool
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, unknown system (RFC 1952, 2.3)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(?:/[A-Za-z0-9][A-Za-z0-9._+-]*)?")
_CONFIGS = (b"boot/grub/grub.cfg", b"isolinux/isolinux.cfg", b"boot/isolinux/isolinux.cfg", b"syslinux.cfg")
_KERNEL_LINE = re.compile(rb"^\s*(?:linux(?:efi|16)?\s+\S+|append)\s+(.*)$", re.MULTILINE)
_UNSAFE = re.compile(rb"[^A-Za-z0-9._+-]")
"""What an iPXE script and TFTP might read as something else than a part of a name."""
_HDRS = 0x202
"""Where a bootable Linux kernel says HdrS (Documentation/arch/x86/boot.rst)."""


def gzip_tar(tar: TarStream, spool: Spool, threads: int, advance: Callable[[int], None]) -> PieceTable:
    """``tar`` under gzip, level 6; the same bytes whenever, wherever and on however many threads."""
    plain = tar.table()
    job = RepackJob(
        packed=PieceTable([]), decoded=tar, plain=plain, spool=spool, threads=threads, advance=advance
    )  # fmt: skip
    return GzipParameters(_HEADER, 1).repack(job).table


class MaasResource(Struct, frozen=True, kw_only=True):
    """A custom image as MAAS names it: ``custom/jammy``, ``amd64/generic``.

    :raises UsageError: MAAS takes no such name.
    """

    name: str
    title: str
    architecture: str

    def __post_init__(self) -> None:
        for what, value in (("name", self.name), ("architecture", self.architecture)):
            if not _NAME.fullmatch(value):
                raise UsageError(f"MAAS takes no {what} {value!r}: letters, digits, . _ + - and one / in it")

    @property
    def file_name(self) -> str:
        """A name for the archive."""
        return self.name.rpartition("/")[2] + ".tar.gz"

    def command(self, path: str, size: int, sha256: bytes) -> str:
        """The line that uploads the archive at ``path``, for a shell."""
        words = [
            *("maas", "admin", "boot-resources", "create", f"name={self.name}", f"title={self.title}"),
            *(f"architecture={self.architecture}", "filetype=tgz", f"sha256={sha256.hex()}", f"size={size}"),
            f"content@={path}",
        ]
        return " ".join(shlex.quote(word) for word in words)


def list_pxe_files(container: Container) -> Iterator[Node]:
    """The kernel, the initramfs and ``boot.ipxe``, which starts them (ipxe.org/scripting).

    Kernel arguments are those of the first entry of the image's own boot menu.
    :raises LayerError: the image has no kernel or no initramfs, or several.
    """
    kernel = _only(container, [node.path for node in files_in_order(container.nodes.values()) if _is_kernel(node)])
    initramfs = _only(container, sorted(archives_in(container)), "initramfs")
    names = [_UNSAFE.sub(b"_", node.path.rpartition(b"/")[2]) for node in (kernel, initramfs)]
    arguments = _arguments(container)
    script = b"#!ipxe\nkernel %s initrd=%s%s\ninitrd %s\nboot\n" % (
        names[0], names[1], b" " + arguments if arguments else b"", names[1],
    )  # fmt: skip
    for node, name in zip((kernel, initramfs), names, strict=True):
        yield replace(node, path=name, mode=0o644)
    yield replace(kernel, path=b"boot.ipxe", mode=0o644, content=BytesContent(script))


def _is_kernel(node: Node) -> bool:
    content = node.content
    return node.kind is NodeKind.FILE and content is not None and content.head(_HDRS + 4)[_HDRS:] == b"HdrS"


def _only(container: Container, paths: list[bytes], what: str = "Linux kernel") -> Node:
    if len(paths) != 1:
        listed = ", ".join(NodeRef(container, container.nodes[path]).address for path in paths)
        raise LayerError(f"has {f'several of a {what}: {listed}' if paths else f'no {what}'}", container.place)
    return container.nodes[paths[0]]


def _arguments(container: Container) -> bytes:
    """What the boot menu's first entry gives the kernel, without the initrd."""
    for path in _CONFIGS:
        node = container.nodes.get(path)
        if node is None or node.content is None:
            continue
        found = _KERNEL_LINE.search(node.content.head(1 << 16))
        if found:
            words = found[1].split()
            return b" ".join(word for word in words if not word.startswith((b"initrd=", b"$")) and word != b"---")
    return b""
