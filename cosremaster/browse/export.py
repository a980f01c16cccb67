"""Export for other systems: a root file system for MAAS, kernel and initramfs for a network boot."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from cosremaster.browse.container import Container, NodeRef
from cosremaster.browse.order import files_in_order
from cosremaster.browse.tar import TarStream
from cosremaster.browse.walk import find_archives
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
    """Compress ``tar`` with gzip at level 6.

    The bytes are the same at any time, on any machine, with any number of threads.
    """
    plain = tar.table()
    job = RepackJob(
        packed=PieceTable([]), decoded=tar, plain=plain, spool=spool, threads=threads, advance=advance
    )  # fmt: skip
    return GzipParameters(_HEADER, 1).repack(job).table


@dataclass(frozen=True)
class MaasResource:
    """A custom image as MAAS names it.

    ``name``: as in ``jammy`` or ``custom/jammy``, without a slash below ``custom/``; ``title``: what MAAS shows, the
    last part of the name when empty; ``architecture``: as in ``amd64/generic``. ``base_image``: MAAS' own image that
    installs it, as in ``ubuntu/jammy``; empty to leave it out. ``profile``: that of the command, as in ``maas login``.

    :raises UsageError: MAAS accepts no such name.
    """

    name: str
    title: str = ""
    architecture: str = "amd64/generic"
    base_image: str = ""
    profile: str = "admin"

    def __post_init__(self) -> None:
        """Complete and check the names."""
        if "/" not in self.name:
            object.__setattr__(self, "name", f"custom/{self.name}")
        if not self.title:
            object.__setattr__(self, "title", self.name.rpartition("/")[2])
        names = [("name", self.name), ("architecture", self.architecture), ("profile", self.profile)]
        for what, value in [*names, ("base image", self.base_image)] if self.base_image else names:
            if not _NAME.fullmatch(value):
                raise UsageError(f"MAAS takes no {what} {value!r}: letters, digits, . _ + - and one / in it")

    @property
    def file_name(self) -> str:
        """The name of the archive's file."""
        return self.name.rpartition("/")[2] + ".tar.gz"

    def command(self, path: str, size: int, sha256: bytes) -> str:
        """Return the shell command that uploads the archive at ``path``; ``size`` is in bytes."""
        words = [
            *("maas", self.profile, "boot-resources", "create", f"name={self.name}", f"title={self.title}"),
            f"architecture={self.architecture}",
            *([f"base_image={self.base_image}"] if self.base_image else ()),
            *("filetype=tgz", f"sha256={sha256.hex()}", f"size={size}"),
            f"content@={path}",
        ]
        return " ".join(shlex.quote(word) for word in words)


def find_base_image(root: Container) -> str:
    """Return the ``base_image`` of the system in ``root`` by its os-release(5); empty for another than Ubuntu.

    MAAS installs a custom image with an ephemeral system of its own, and it has those of Ubuntu's releases.
    """
    node = root.node(root.resolve(b"etc/os-release", last=True))
    if node is None or node.content is None:
        return ""
    text = node.content.head(1 << 16).decode("utf-8", "replace")
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    system, release = (values.get(key, "").strip("\"'") for key in ("ID", "VERSION_CODENAME"))
    base_image = f"{system}/{release}"
    return base_image if system == "ubuntu" and _NAME.fullmatch(base_image) else ""


def list_pxe_files(container: Container) -> Iterator[Node]:
    """Yield the kernel, the initramfs and ``boot.ipxe``, the script that starts them (ipxe.org/scripting).

    Kernel arguments are those of the first entry of the image's own boot menu.

    :raises LayerError: the image has no kernel or no initramfs, or several.
    """
    kernel = _single_node(
        container, [node.path for node in files_in_order(container.nodes.values()) if _is_kernel(node)]
    )
    initramfs = _single_node(container, sorted(find_archives(container)), "initramfs")
    names = [_UNSAFE.sub(b"_", node.path.rpartition(b"/")[2]) for node in (kernel, initramfs)]
    arguments = _first_arguments(container)
    script = b"#!ipxe\nkernel %s initrd=%s%s\ninitrd %s\nboot\n" % (
        names[0], names[1], b" " + arguments if arguments else b"", names[1],
    )  # fmt: skip
    for node, name in zip((kernel, initramfs), names, strict=True):
        yield replace(node, path=name, mode=0o644)
    yield replace(kernel, path=b"boot.ipxe", mode=0o644, content=BytesContent(script))


def _is_kernel(node: Node) -> bool:
    """Tell whether ``node`` is a bootable Linux kernel."""
    content = node.content
    return node.kind is NodeKind.FILE and content is not None and content.head(_HDRS + 4)[_HDRS:] == b"HdrS"


def _single_node(container: Container, paths: list[bytes], what: str = "Linux kernel") -> Node:
    """Return the node at the only one of ``paths``."""
    if len(paths) != 1:
        listed = ", ".join(NodeRef(container, container.nodes[path]).address for path in paths)
        raise LayerError(f"has {f'several of a {what}: {listed}' if paths else f'no {what}'}", container.place)
    return container.nodes[paths[0]]


def _first_arguments(container: Container) -> bytes:
    """Return the kernel arguments of the boot menu's first entry, without the initrd."""
    for path in _CONFIGS:
        node = container.nodes.get(path)
        if node is None or node.content is None:
            continue
        match = _KERNEL_LINE.search(node.content.head(1 << 16))
        if match:
            words = match[1].split()
            return b" ".join(word for word in words if not word.startswith((b"initrd=", b"$")) and word != b"---")
    return b""
