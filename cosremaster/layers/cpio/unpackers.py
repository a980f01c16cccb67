"""Which of two entries of one name a program that unpacks a cpio archive takes (docs/formats.md, with measurements).

The kernel and ``cpio -iu`` take the later one. ``cpio -i`` compares its time with that of the file that stands there:
with ``-m`` this is the time in the earlier entry, and without it the moment of unpacking. So do those of busybox, GNU
and libarchive; toybox' keeps the earlier one, whatever its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from cosremaster.layers.cpio import newc as cpio
from cosremaster.records import Struct
from cosremaster.tree.nodes import Edits, Node, NodeKind, resolve_links
from cosremaster.tree.paths import SymlinkLoopError, normal_name

if TYPE_CHECKING:
    from cosremaster.layers.address import Address
    from cosremaster.layers.formats import ContainerEntry
    from cosremaster.layers.model import Layer

_INIT = b"init"
_MAX_SCRIPT, _MAX_PROGRAM = 1 << 17, 1 << 24
_CPIO_PATHS = tuple(prefix + name for prefix in (b"", b"usr/", b"usr/local/") for name in (b"bin/cpio", b"sbin/cpio"))
_CPIO_TEXTS = (b"newer or same age", b"bsdcpio", b"not implemented or invalid option")
"""What the programs have in them that were tried: busybox and GNU cpio, libarchive's, klibc's."""
_TOYBOX_TEXT = b"Toybox"


class CpioUnpacker(Struct, frozen=True):
    """A program that unpacks archives; ``name``: for people, empty for one that is not known.

    ``overwrites``: a later entry always wins; ``keeps_times``: files get the times of their entries; ``keeps_first``: a
    later entry never wins.
    """

    name: str = ""
    overwrites: bool = False
    keeps_times: bool = False
    keeps_first: bool = False

    def prefers(self, mtime: int, earlier: cpio.Header) -> bool:
        """Return whether what ``earlier`` made is replaced by a later entry of the same name with ``mtime``."""
        if self.overwrites or self.keeps_first:
            return self.overwrites
        if not self.name:  # with or without -m
            return mtime >= cpio.POSTDATED > earlier.mtime
        if self.keeps_times and NodeKind(earlier.mode & 0o170000) is NodeKind.FILE:  # links and directories get no time
            return mtime > earlier.mtime
        return mtime >= cpio.POSTDATED


UNKNOWN = CpioUnpacker()
KERNEL = CpioUnpacker("the kernel", overwrites=True, keeps_times=True)
_NO_CHANGES: Mapping[Address, Edits] = MappingProxyType({})


def find_unpacker(layer: Layer, changes: Mapping[Address, Edits] = _NO_CHANGES) -> CpioUnpacker:
    """Return the program that unpacks ``layer``: the kernel, or what the ``/init`` of its holder runs for it.

    ``changes``: edits of layers by their addresses, after which the holder is looked at.
    """
    holder, entry = layer.parent, layer.container_entry
    if holder is None or entry is None:
        return KERNEL
    if not _is_unpacked_last(holder):
        return UNKNOWN
    if any(archive.address in changes for archive in (*holder.preceding, holder)):
        return _read_unpacker(holder, entry, changes)
    unpacker: CpioUnpacker | None = layer.derived.get("unpacker")
    if unpacker is None:
        unpacker = layer.derived["unpacker"] = _read_unpacker(holder, entry, changes)
    return unpacker


def _read_unpacker(holder: Layer, entry: ContainerEntry, changes: Mapping[Address, Edits]) -> CpioUnpacker:
    """Return what the ``/init`` of ``holder`` runs after ``changes`` for the archive in ``entry``."""
    from cosremaster.layers.cpio.init_script import find_cpio_options  # noqa: PLC0415 - only superseding needs it

    find_node = _node_finder(holder, changes)
    init = _find_program(_INIT, find_node)
    if init is None or init.content is None or init.content.size > _MAX_SCRIPT:
        return UNKNOWN
    options = find_cpio_options(init.content.table().read(0), normal_name(entry.name))
    if options is None:
        return UNKNOWN
    programs = [program for path in _CPIO_PATHS if (program := _find_program(path, find_node)) is not None]
    name = f"cpio -{''.join(sorted({'i', *options}))} in /init"
    if "u" not in options and any(_TOYBOX_TEXT in _read_binary(program) for program in programs):
        return CpioUnpacker(f"toybox' {name}", keeps_first=True)
    if not all(_is_usual_cpio(program) for program in programs):
        return UNKNOWN
    return CpioUnpacker(name, overwrites="u" in options, keeps_times="m" in options)


def _is_unpacked_last(holder: Layer) -> bool:
    """Return whether ``holder`` is an archive of the kernel's, behind which its file has nothing of another one."""
    if holder.parent is not None or holder.format.name != "cpio" or holder.rest:
        return False
    file = holder.concatenation
    return file is None or (holder.stream == len(file.streams) - 1 and holder.span[1] == holder.size)


def _find_program(path: bytes, find_node: Callable[[bytes], Node | None]) -> Node | None:
    """Return the file that is started as ``path``; None for none."""
    try:
        node = find_node(resolve_links(path, find_node))
    except SymlinkLoopError:
        return None
    return None if node is None or node.content is None else node


def _is_usual_cpio(program: Node) -> bool:
    """Return whether ``program`` is busybox, by its name, or one of those that were tried."""
    if program.path.rpartition(b"/")[2] == b"busybox":
        return True
    binary = _read_binary(program)
    return any(text in binary for text in (*_CPIO_TEXTS, _TOYBOX_TEXT))


def _read_binary(program: Node) -> bytes:
    """Return the bytes of ``program``; nothing of a large one."""
    content = program.content
    return b"" if content is None or content.size > _MAX_PROGRAM else content.table().read(0)


def _node_finder(holder: Layer, changes: Mapping[Address, Edits]) -> Callable[[bytes], Node | None]:
    """Return a function from a path to what the archives up to ``holder`` unpack to there after ``changes``."""
    archives = (*holder.preceding, holder)
    if not any(archive.address in changes for archive in archives):
        return holder.tree().get

    def find_node(path: bytes) -> Node | None:
        """Return the node of the last archive that has one at ``path``."""
        for archive in reversed(archives):
            edits = changes.get(archive.address)
            added = () if edits is None else [node for node, _ in edits.additions if node.path == path]
            if added:
                return added[-1]
            if path in archive.paths and (edits is None or path not in edits.removed_paths):
                return archive.tree()[path]
        return None

    return find_node
