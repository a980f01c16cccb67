"""The kernel that a virtual machine boots, and those of its modules by which it talks to us."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from cosremaster.codecs import find_codec
from cosremaster.codecs.base import Codec
from cosremaster.errors import CorruptError, CosremasterError, Place, SandboxError, UnsupportedError
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.records import Struct
from cosremaster.records.tuples import NamedTuple
from cosremaster.tree.nodes import ListedTree, Node, NodeKind

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
"""What Linux calls the processors on which the machine runs, by their names in ``uname -m``."""

_LOAD_ORDER = (
    "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_console",
)  # fmt: skip
_REQUIRED = ("virtio_ring", "virtio", "virtio_pci", "virtio_console")
"""Modules of kernels before 5.12 and 5.17 have no ``modern_dev`` and ``legacy_dev``."""

_MODULE_NAME = re.compile(rb"(?:.*/)?([^/]+)\.ko(?:\.(?:gz|xz|zst))?")
_BANNER = re.compile(rb"Linux version ([!-~]{1,64}) ")
_KERNEL_NAME = rb"(?:vmlinu[xz]|bzImage|Image|kernel)"
_KERNEL_PATH = re.compile(
    rb"boot/%(name)b[^/]*|%(name)b(?:[-.][^/]*)?|(?:usr/)?lib/modules/[^/]+/%(name)b" % {b"name": _KERNEL_NAME}
)
_BOOT_SECTOR = 1024
_ZBOOT = b"zimg"
_MAX_KERNEL = 1 << 30


class MachineBoot(Struct, frozen=True):
    """What an image has to boot a machine with.

    :ivar kernel: a kernel as a boot loader gets it.
    :ivar places: the trees that may hold ``lib/modules``: the root's, an initramfs'.
    :ivar place: the kernel in the image, for messages.
    """

    kernel: PieceTable
    places: tuple[Mapping[bytes, Node], ...]
    place: Place = Place(("the image's kernel",))


class KernelFacts(NamedTuple):
    """What a kernel says of itself: the processor that it is made for, as in :data:`MACHINES`, and its release."""

    machine: str
    release: str


class KernelModule(NamedTuple):
    """A module for the guest, as plain bytes."""

    name: str
    data: bytes


def read_kernel_facts(kernel: PieceTable, place: Place) -> KernelFacts:
    """Return what ``kernel`` says of itself (Documentation/arch/x86/boot.rst, arch/arm64/booting.rst).

    :raises UnsupportedError: it is no kernel that a machine here boots.
    """
    head = kernel.read(0, _BOOT_SECTOR)
    if head[0x202:0x206] == b"HdrS":
        return _read_x86_facts(kernel, head, place)
    codec = find_codec(head)
    image = _decode(kernel, codec, place) if codec is not None else kernel.chunks()
    if head[4:8] == _ZBOOT:
        start, size = (int.from_bytes(head[at : at + 4], "little") for at in (8, 12))
        payload = kernel.cut(min(start, kernel.length), min(start + size, kernel.length))
        codec = find_codec(payload.read(0, 16))
        image = _decode(payload, codec, place) if codec is not None else payload.chunks()
    return KernelFacts("aarch64", _find_release(image, place))


def _read_x86_facts(kernel: PieceTable, head: bytes, place: Place) -> KernelFacts:
    """Return the facts in the header ``head`` of a bzImage."""
    has_64_bits = int.from_bytes(head[0x206:0x208], "little") >= 0x20C and head[0x236] & 1  # XLF_KERNEL_64
    if not has_64_bits:
        raise UnsupportedError("a kernel of 32 bits is not booted by --run-in vm", place)
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    release = re.match(rb"[!-~]{1,64}(?=[ \0])", kernel.read(start, 256))
    if release is None:
        raise UnsupportedError("the kernel does not say its release, so that its modules cannot be chosen", place)
    return KernelFacts("x86_64", release[0].decode())


def _find_release(image: Iterable[bytes], place: Place) -> str:
    """Return the release in the plain kernel ``image`` for 64-bit ARM. :raises UnsupportedError: it is none."""
    rest, seen = b"", 0
    for chunk in image:
        if not seen and (chunk[0x38:0x3C] != b"ARM\x64"):
            break
        seen += len(chunk)
        rest += chunk
        if match := _BANNER.search(rest):
            return match[1].decode()
        rest = rest[-128:]
    raise UnsupportedError("the file is no Linux kernel that --run-in vm can boot", place)


def _decode(packed: PieceTable, codec: Codec, place: Place) -> Iterable[bytes]:
    """Yield the plain bytes of the stream ``packed``. :raises CorruptError: it is damaged, or too large."""
    count = 0
    for chunk in codec.for_reading().decode(ByteReader(packed.chunks(), place)).chunks():
        count += len(chunk)
        if count > _MAX_KERNEL:
            raise CorruptError("the stream does not end where a kernel or module would", place)
        yield chunk


def list_kernels(tree: Mapping[bytes, Node]) -> Iterator[MachineBoot]:
    """Yield the kernels in the root ``tree``, that with the highest version first."""
    if isinstance(tree, ListedTree):
        places = [path for path in (b"boot", b"lib/modules", b"usr/lib/modules") if path in tree]
        paths = [*tree.list_directory(b""), *(path for place in places for path in tree.walk_paths(place))]
    else:
        paths = list(tree)
    for path in sorted(filter(_KERNEL_PATH.fullmatch, paths), key=_version_key, reverse=True):
        node = tree[path]
        if node.kind is NodeKind.FILE and node.content is not None:
            yield MachineBoot(node.content.table(), (tree,), Place().inside(path))


def _version_key(path: bytes) -> list[tuple[int, bytes]]:
    """Return what sorts names by the numbers in them."""
    return [(int(part) if part.isdigit() else 0, part) for part in re.split(rb"([0-9]+)", path)]


def choose_kernel(kernels: Iterable[MachineBoot], machine: str) -> tuple[MachineBoot, list[KernelModule]]:
    """Return the first of ``kernels`` that boots on ``machine`` and can talk to us, with the modules that it needs.

    :raises SandboxError: there is none; the message says what is wrong with the first. :raises UnsupportedError: the
        same. :raises CorruptError: it is damaged.
    """
    failure: CosremasterError | None = None
    unsure: MachineBoot | None = None
    for boot in kernels:
        try:
            facts = read_kernel_facts(boot.kernel, boot.place)
            check_machine(facts, machine, boot.place)
            modules = find_modules(facts, boot.places, boot.place)
        except CosremasterError as error:
            failure = failure or error
            continue
        if modules:
            return boot, modules
        unsure = unsure or boot
    if unsure is not None:  # a kernel without any modules: all may be built in
        return unsure, []
    raise failure or SandboxError("--run-in vm needs a kernel, and there is none in the image")


def check_machine(facts: KernelFacts, machine: str, place: Place) -> None:
    """Check that ``machine`` boots the kernel: our part of the guest is this machine's own program.

    :raises SandboxError: the kernel is for another processor.
    """
    if machine != facts.machine:
        raise SandboxError(
            f"--run-in vm runs images for this machine's kind of processor, {machine}; the kernel is for"
            f" {facts.machine}",
            place,
        )


def find_modules(facts: KernelFacts, places: Sequence[Mapping[bytes, Node]], place: Place) -> list[KernelModule]:
    """Return the modules by which the guest talks to us, in the order of loading.

    What is not a module may be built in; where the kernel's list of those is at hand, it must say so.

    :raises SandboxError: a module is missing.
    """
    directories = [base + b"/" + facts.release.encode() for base in (b"lib/modules", b"usr/lib/modules")]
    by_name: dict[str, Node] = {}
    built_in: set[str] | None = None
    for tree in places:
        for path in (path for directory in directories for path in _paths_below(tree, directory)):
            if path.endswith(b"/modules.builtin"):
                lines = _text(tree[path]).split()
                built_in = (built_in or set()) | {name for line in lines if (name := _module_name(line))}
            elif (name := _module_name(path)) in _LOAD_ORDER:
                by_name.setdefault(name, tree[path])
    missing = [name for name in _REQUIRED if name not in by_name and built_in is not None and name not in built_in]
    if missing:
        raise SandboxError(
            f"--run-in vm talks to the machine by {missing[0]}, and the image has no such module for its kernel"
            f" {facts.release}",
            place,
        )
    return [KernelModule(name, _plain_module(by_name[name], place)) for name in _LOAD_ORDER if name in by_name]


def _paths_below(tree: Mapping[bytes, Node], directory: bytes) -> Iterable[bytes]:
    """Return the paths in ``tree`` below ``directory``."""
    if isinstance(tree, ListedTree):
        return tree.walk_paths(directory) if directory in tree else ()
    return (path for path in tree if path.startswith(directory + b"/"))


def _module_name(path: bytes) -> str | None:
    """Return the name of the module whose file is called ``path``; None if it is no module."""
    match = _MODULE_NAME.fullmatch(path)
    return match[1].decode("latin-1").replace("-", "_") if match else None


def _text(node: Node) -> bytes:
    """Return the beginning of a file, as much as lists of modules have."""
    return b"" if node.content is None else node.content.head(1 << 20)


def _plain_module(node: Node, place: Place) -> bytes:
    """Return the bytes of a module, decompressed."""
    if node.content is None:
        raise SandboxError("a module of the image's kernel is no file", place.inside(node.path))
    table = node.content.table()
    codec = find_codec(table.read(0, 16))
    chunks = table.chunks() if codec is None else _decode(table, codec, place.inside(node.path))
    return b"".join(islice(chunks, 1 << 16))
