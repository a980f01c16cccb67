"""The files of a network boot: what an entry of the image's boot menu loads, and the iPXE script that loads it.

iPXE's language (ipxe.org/scripting) knows no quotes: a command ends at ``||``, ``&&`` and ``;``, a comment begins with
``#``, and ``${name}`` is replaced. Arguments with these are refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

from cosremaster.boot_config.boot_lines import LocatedEntry, choose_default, list_entries, list_paths
from cosremaster.boot_config.boot_menus import LocatedMenu, find_boot_menus
from cosremaster.boot_config.menus.entries import LoadedFile, MenuEntry
from cosremaster.browse.container import Container, NodeRef, enter
from cosremaster.browse.order import files_in_order
from cosremaster.browse.walk import find_archives
from cosremaster.errors import ImageError, LayerError, UnsupportedError, UsageError, printable
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, replace
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind

_MICROCODE = (b"kernel/x86/microcode/", b"kernel/firmware/acpi/", b"early_cpio")
"""What an archive has that the kernel reads before it unpacks an initramfs (Documentation/arch/x86/microcode.rst)."""
_MULTIBOOT_MAGIC, _MULTIBOOT_HEAD = (0x1BADB002).to_bytes(4, "little"), 8192
"""The first bytes of a Multiboot 1 header, and where it must be (Multiboot Specification 0.6.96, 3.1.1)."""
_MAX_HYPERVISOR = 1 << 26
_UNSAFE_NAME = lazy_regex(rb"[^A-Za-z0-9._+-]")
"""What an iPXE script and TFTP might read as something else than a part of a name."""
_UNSAFE_WORD = lazy_regex(rb"\|\||&&|;|#.*", re.DOTALL)
_CONTROL = lazy_regex(rb"[\0-\x1f\x7f]|\s\s")
_KERNEL_MARKS = ((0x202, b"HdrS"), (56, b"ARM\x64"), (56, b"RSC\x05"))
"""Where kernels have their magic numbers: x86 (arch/x86/boot.rst), arm64, RISC-V."""
_OTHER_KERNELS = (b"\x7fELF", b"\x1f\x8b")
"""First bytes of other kernels, which a menu has to name: ELF (PowerPC), gzip (arm64)."""


class NetworkBoot(Struct, frozen=True):
    """The files of a network boot, the script last. ``entry``: the boot entry in words, empty where no menu has it."""

    nodes: tuple[Node, ...]
    entry: str


class _Candidate(Struct, frozen=True):
    """A boot entry whose kernel is on the image. ``nodes``: the files that it loads."""

    source: LocatedEntry
    nodes: tuple[Node | None, ...]

    @property
    def entry(self) -> MenuEntry:
        """The entry as its menu has it."""
        return self.source.entry

    @property
    def title(self) -> str:
        """The entry in words."""
        return self.source.title


def plan_network_boot(container: Container, entry: str = "") -> NetworkBoot:
    """Return the files of a network boot of the image in ``container``.

    These are those of the boot entry ``entry`` (its number, title, label or id), else of the one that a menu starts by
    itself. Where no menu names a kernel of the image, they are its only kernel and its only initramfs.

    :raises UsageError: there is no such entry. :raises UnsupportedError: iPXE cannot start it with its arguments.
    :raises LayerError: the image has no kernel or no initramfs, or several.
    """
    candidates = list(_list_candidates(container))
    if candidates:
        chosen = _choose(candidates, entry)
        return NetworkBoot(tuple(_entry_files(container, chosen)), chosen.title)
    if entry:
        raise UsageError(f"{container.place} has no boot entry {entry!r}: no boot menu names a kernel that is there")
    kernel = _single(container, [node for node in files_in_order(container.nodes.values()) if _is_kernel(node)])
    early, images = _split_microcode(container)
    files = [kernel, *early, _single(container, images, "initramfs")]
    names = _unique_names(files)
    loads = [LoadedFile(b"")] * len(files)
    nodes = _name_nodes(files, names, _write_linux_script(names, loads))
    return NetworkBoot(tuple(nodes), "")


def _list_candidates(container: Container) -> Iterator[_Candidate]:
    """Yield the boot entries whose kernel is on the image, those of GRUB's menu first, then SYSLINUX's."""
    if container.image is None:
        return
    folded = {path.lower(): path for path in container.nodes}
    for source in list_entries(find_boot_menus(container.image).menus):
        nodes = tuple(_find_file(container, folded, source.located, file.path) for file in source.entry.files)
        if nodes[0] is not None and (source.entry.is_multiboot or _may_be_kernel(nodes[0])):
            yield _Candidate(source, nodes)


def _find_file(container: Container, folded: dict[bytes, bytes], located: LocatedMenu, path: bytes) -> Node | None:
    """Return the file on the image that ``path`` in a menu means; None if there is none."""
    for name in list_paths(located, path):
        spelled = name if name in container.nodes else folded.get(name.lower(), name)
        try:
            node = container.node(container.resolve(spelled, last=True))
        except ImageError:
            continue
        if node is not None and node.kind is NodeKind.FILE and node.content is not None:
            return node
    return None


def _choose(candidates: Sequence[_Candidate], entry: str) -> _Candidate:
    """Return the candidate that ``entry`` means, or else the default one of the first menu.

    :raises UsageError: none is meant, or several that load other things.
    """
    if not entry:
        default = choose_default([candidate.source for candidate in candidates])
        return next(candidate for candidate in candidates if candidate.source is default)
    if entry.isdecimal() and 0 < int(entry) <= len(candidates):
        return candidates[int(entry) - 1]
    wanted = entry.encode("utf-8", "surrogateescape").lower()
    meant = [candidate for candidate in candidates if wanted in [name.lower() for name in candidate.entry.names]]
    if meant and all((one.nodes, one.entry.files) == (meant[0].nodes, meant[0].entry.files) for one in meant):
        return meant[0]
    listed = "; ".join(f"{number} {one.title}" for number, one in enumerate(candidates, 1))
    problem = "several boot entries are called" if meant else "no boot entry is called"
    raise UsageError(f"{problem} {entry!r}; a number chooses one of: {listed}")


def _entry_files(container: Container, chosen: _Candidate) -> Iterator[Node]:
    """Yield the files of a boot entry and its script."""
    nodes, files = list[Node](), chosen.entry.files
    for file, node in zip(files, chosen.nodes, strict=True):
        if node is None:
            raise LayerError(f"the boot entry {chosen.title} loads {printable(file.path)}, which is not there",
                             container.place)  # fmt: skip
        nodes.append(node)
    for file in files:
        _check_arguments(container, chosen, file.arguments)
    if chosen.entry.is_multiboot:
        nodes[0] = _plain_hypervisor(container, nodes[0])
    names = _unique_names(nodes)
    script = (_write_multiboot_script if chosen.entry.is_multiboot else _write_linux_script)(names, files)
    yield from _name_nodes(nodes, names, script)


def _check_arguments(container: Container, chosen: _Candidate, arguments: Iterable[bytes]) -> None:
    """Check that iPXE passes on ``arguments`` as they are. :raises UnsupportedError: when it does not."""
    for argument in arguments:
        is_unsafe = b"${" in argument or _CONTROL.search(argument)
        if is_unsafe or any(_UNSAFE_WORD.fullmatch(word) for word in argument.split()):
            raise UnsupportedError(
                f"the boot entry {chosen.title} has the argument {printable(argument)}, which iPXE would take for"
                " something else (--entry chooses another entry)",
                container.place,
            )


def _plain_hypervisor(container: Container, node: Node) -> Node:
    """Return the hypervisor ``node`` unpacked. :raises UnsupportedError: iPXE cannot start it."""
    assert node.content is not None
    data = node.content.head(min(node.content.size, _MAX_HYPERVISOR))
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(31).decompress(data, _MAX_HYPERVISOR)
        except zlib.error as error:
            raise LayerError(f"{printable(node.path)} cannot be unpacked: {error}", container.place) from error
    if _MULTIBOOT_MAGIC not in data[:_MULTIBOOT_HEAD]:
        raise UnsupportedError(
            f"{printable(node.path)} has no Multiboot 1 header, so iPXE cannot start it (--entry chooses another)",
            container.place,
        )
    return replace(node, path=node.path.removesuffix(b".gz"), content=BytesContent(data))


def _write_linux_script(names: Sequence[bytes], files: Sequence[LoadedFile]) -> bytes:
    """Return the script that starts the kernel, the first of ``names``, with the initramfs images behind it."""
    words = [names[0], *(b"initrd=" + name for name in names[1:]), *files[0].arguments]
    images = b"".join(b"initrd %b\n" % name for name in names[1:])
    return b"#!ipxe\nkernel %b\n%bboot\n" % (b" ".join(words), images)


def _write_multiboot_script(names: Sequence[bytes], files: Sequence[LoadedFile]) -> bytes:
    """Return the script that starts a hypervisor with its modules; iPXE does so on a BIOS alone."""
    lines = [b" ".join((name, *file.arguments)) for name, file in zip(names, files, strict=True)]
    return b"#!ipxe\nkernel %b\n%bboot\n" % (lines[0], b"".join(b"module %b\n" % line for line in lines[1:]))


def _unique_names(nodes: Sequence[Node]) -> list[bytes]:
    """Return names for the files that are safe in a script; a second one of a name gets its directory in front."""
    names = list[bytes]()
    for node in nodes:
        folder, _, name = node.path.rpartition(b"/")
        name = _UNSAFE_NAME.sub(b"_", name)
        while name in (*names, b"boot.ipxe"):
            parent, folder = folder.rpartition(b"/")[2] or b"other", folder.rpartition(b"/")[0]
            name = _UNSAFE_NAME.sub(b"_", parent) + b"_" + name
        names.append(name)
    return names


def _name_nodes(nodes: Sequence[Node], names: Sequence[bytes], script: bytes) -> Iterator[Node]:
    """Yield the files by their new names, each once, and the script."""
    for node, name in zip(nodes, names, strict=True):
        yield replace(node, path=name, mode=0o644, link=None)
    yield replace(nodes[0], path=b"boot.ipxe", mode=0o644, link=None, content=BytesContent(script))


def _is_kernel(node: Node) -> bool:
    """Tell whether ``node`` is a Linux kernel, by its first bytes."""
    content = node.content
    if node.kind is not NodeKind.FILE or content is None:
        return False
    head = content.head(_KERNEL_MARKS[0][0] + 4)
    return any(head[at : at + len(mark)] == mark for at, mark in _KERNEL_MARKS)


def _may_be_kernel(node: Node) -> bool:
    """Tell whether ``node``, which a menu names as its kernel, may be one."""
    return _is_kernel(node) or (node.content is not None and node.content.head(4).startswith(_OTHER_KERNELS))


def _split_microcode(container: Container) -> tuple[list[Node], list[Node]]:
    """Return the archives on the image that hold only microcode, and the others."""
    early, images = list[Node](), list[Node]()
    for path in sorted(find_archives(container)):
        node = container.nodes[path]
        try:
            inside = enter(container, node)
        except UnsupportedError:  # of a compression that is not installed
            images.append(node)
            continue
        except ImageError:  # a damaged FAT file system, for instance
            continue
        if inside.layer is None:
            continue
        files = [name for name, other in inside.nodes.items() if other.kind is NodeKind.FILE]
        (early if files and all(name.startswith(_MICROCODE) for name in files) else images).append(node)
    return early, images


def _single(container: Container, nodes: Sequence[Node], what: str = "Linux kernel") -> Node:
    """Return the only one of ``nodes``. :raises LayerError: there is none, or there are several."""
    if len(nodes) != 1:
        listed = ", ".join(NodeRef(container, node).address for node in nodes)
        problem = f"has several files that may be the {what}: {listed}" if nodes else f"has no {what}"
        raise LayerError(problem, container.place)
    return nodes[0]
