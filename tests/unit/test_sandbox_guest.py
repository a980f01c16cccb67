"""What goes into a virtual machine and comes out: kernels, modules, our initramfs, frames of a hostile guest."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.errors import CosremasterError, Place, SandboxError, UnsupportedError, UsageError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.records.json import encode_json
from cosremaster.sandbox import machine
from cosremaster.sandbox.guest_files import InitramfsArchive, list_python_files
from cosremaster.sandbox.guest_wire import InnerWire, OuterWire, StreamWriter
from cosremaster.sandbox.machine_boot import (
    KernelFacts,
    MachineBoot,
    choose_kernel,
    find_modules,
    list_kernels,
    read_kernel_facts,
)
from cosremaster.sandbox.model import ScriptRun
from cosremaster.sandbox.wire import FrameKind, WireError
from cosremaster.tree.nodes import Node
from tests.support.sandboxed import file_node

RELEASE = "6.1.0-9-amd64"
PLACE = Place(("vmlinuz",))


def _bzimage(release: bytes = b"6.1.0-9-amd64 (debian) #1", *, is_64: bool = True) -> bytes:
    """The header of a bzImage (Documentation/arch/x86/boot.rst) with a version."""
    data = bytearray(0x1000)
    data[0x202:0x206] = b"HdrS"
    data[0x206:0x208] = (0x20F).to_bytes(2, "little")
    data[0x20E:0x210] = (0x400).to_bytes(2, "little")
    data[0x236] = is_64
    data[0x600 : 0x600 + len(release)] = release
    return bytes(data)


def _image(release: bytes = b"6.8.0-arm64") -> bytes:
    """A kernel for 64-bit ARM (Documentation/arch/arm64/booting.rst) with a banner far inside."""
    head = bytearray(64)
    head[0x38:0x3C] = b"ARM\x64"
    return bytes(head) + bytes(3_000_000) + b"Linux version " + release + b" (gcc) #1" + bytes(1000)


def _zboot(image: bytes) -> bytes:
    """A kernel that unpacks itself under UEFI (drivers/firmware/efi/libstub/zboot-header.S)."""
    payload = gzip.compress(image, mtime=0)
    head = b"MZ\0\0zimg" + (64).to_bytes(4, "little") + len(payload).to_bytes(4, "little")
    return head.ljust(64, b"\0") + payload


def _table(data: bytes) -> PieceTable:
    return PieceTable([Literal(data)])


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (_bzimage(), KernelFacts("x86_64", RELEASE)),
        (_image(), KernelFacts("aarch64", "6.8.0-arm64")),
        (gzip.compress(_image(), mtime=0), KernelFacts("aarch64", "6.8.0-arm64")),
        (_zboot(_image()), KernelFacts("aarch64", "6.8.0-arm64")),
    ],
)
def test_a_kernel_says_for_which_processor_it_is_and_its_release(data: bytes, facts: KernelFacts) -> None:
    assert read_kernel_facts(_table(data), PLACE) == facts


@pytest.mark.parametrize(
    "data",
    [b"", b"text", _bzimage(is_64=False), _bzimage(b""), _image().replace(b"Linux version", b"Other version"),
     gzip.compress(b"no kernel", mtime=0), gzip.compress(_image(), mtime=0)[:2000], _zboot(_image())[:100],
     bytes(4096)],
)  # fmt: skip
def test_what_is_no_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(CosremasterError):
        read_kernel_facts(_table(data), PLACE)


@given(st.binary(max_size=0x300), st.integers(0, 0x240))
def test_a_damaged_kernel_is_read_or_refused(data: bytes, at: int) -> None:
    for base in (_bzimage(), _zboot(_image()[:4000])):
        damaged = bytearray(base)
        damaged[at : at + len(data)] = data
        with contextlib.suppress(CosremasterError):
            read_kernel_facts(_table(bytes(damaged)), PLACE)


MODULES = {"virtio_ring", "virtio", "virtio_pci", "virtio_console", "virtio_pci_modern_dev"}


def _module_tree(
    names: set[str],
    base: str = "lib/modules",
    pack: Callable[[bytes], bytes] = bytes,
    end: str = "",
    built_in: str = "",
) -> dict[bytes, Node]:
    """A tree with modules, each with its name as its bytes; ``built_in``: the text of modules.builtin."""
    top = f"{base}/{RELEASE}"
    nodes = [
        file_node(f"{top}/kernel/{name.replace('_', '-')}.ko{end}".encode(), pack(name.encode())) for name in names
    ]
    if built_in:
        nodes.append(file_node(f"{top}/modules.builtin".encode(), built_in.encode()))
    return {node.path: node for node in nodes}


@pytest.mark.parametrize(
    ("pack", "end"), [(bytes, ""), (gzip.compress, ".gz"), (lzma.compress, ".xz")], ids=["plain", "gz", "xz"]
)
@pytest.mark.parametrize("base", ["lib/modules", "usr/lib/modules"])
def test_modules_are_loaded_in_their_order_and_plain(pack: Callable[[bytes], bytes], end: str, base: str) -> None:
    found = find_modules(KernelFacts("x86_64", RELEASE), [{}, _module_tree(MODULES, base, pack, end)], PLACE)
    names = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci", "virtio_console"]
    assert [(module.name, module.data) for module in found] == [(name, name.encode()) for name in names]


def test_a_module_that_is_neither_there_nor_built_in_is_named() -> None:
    facts = KernelFacts("x86_64", RELEASE)
    rest = MODULES - {"virtio_console"}
    assert len(find_modules(facts, [_module_tree(rest)], PLACE)) == 4  # there is no list of what is built in
    built_in = "kernel/drivers/char/virtio_console.ko\n"
    assert len(find_modules(facts, [_module_tree(rest, built_in=built_in)], PLACE)) == 4
    places = [_module_tree(rest, built_in="x.ko\n"), _module_tree({"virtio_console"}, "usr/lib/modules")]
    assert [module.name for module in find_modules(facts, places, PLACE)][-1] == "virtio_console"
    with pytest.raises(SandboxError, match="by virtio_console, and the image has no such module"):
        find_modules(facts, [_module_tree(rest, built_in="kernel/fs/ext4/ext4.ko\n")], PLACE)


def test_the_newest_kernel_with_modules_is_chosen() -> None:
    kernels = {name: _bzimage(f"{name} x".encode()) for name in ("6.1.0-9-amd64", "6.1.0-10-amd64")}
    tree = {
        f"boot/vmlinuz-{name}".encode(): file_node(f"boot/vmlinuz-{name}".encode(), data)
        for name, data in kernels.items()
    }
    tree[b"boot/vmlinuz-old"] = file_node(b"boot/vmlinuz-old", b"no kernel")
    order = [boot.place.parts[-1] for boot in list_kernels(tree)]
    assert order == ["boot/vmlinuz-old", "boot/vmlinuz-6.1.0-10-amd64", "boot/vmlinuz-6.1.0-9-amd64"]
    tree |= _module_tree(MODULES)
    chosen, modules = choose_kernel(list_kernels(tree), "x86_64")
    assert (chosen.place.parts, len(modules)) == (("boot/vmlinuz-6.1.0-9-amd64",), 5)
    without = {path: node for path, node in tree.items() if path.startswith(b"boot")}
    assert choose_kernel(list_kernels(without), "x86_64")[1] == []
    with pytest.raises(SandboxError, match="kind of processor, aarch64"):
        choose_kernel([MachineBoot(_table(_bzimage()), (tree,), PLACE)], "aarch64")
    with pytest.raises(SandboxError, match="there is none in the image"):
        choose_kernel([], "x86_64")
    with pytest.raises(UnsupportedError, match="32 bits"):
        choose_kernel([MachineBoot(_table(_bzimage(is_64=False)), (tree,), PLACE)], "x86_64")


def test_the_guest_brings_the_modules_of_this_python_and_no_more() -> None:
    files = {guest_file.path: guest_file for guest_file in list_python_files("cosremaster.sandbox.guest")}
    names = {os.path.basename(path) for path in files}
    assert {b"guest.py", b"worker.py", b"harvest.py", b"unpack.py", b"python"} <= names
    assert not {b"urllib", b"proxy.py", b"machine.py", b"tempfile.py"} & names
    for path in files:  # each is in a directory of its own, and no symlink is a part of its path
        parents = [path[:at] for at in range(len(path)) if path[at : at + 1] == b"/"]
        assert all(stat.S_ISDIR(files[parent].mode) for parent in parents)


def test_the_stream_comes_out_as_it_went_in(tmp_path: Path) -> None:
    def add_part(number: int, data: bytes) -> None:
        (tmp_path / f"{number:08d}").write_bytes(data)

    writer = StreamWriter(add_part)
    block = os.urandom(1 << 20)
    writer.send(FrameKind.SETUP, {"a": (1, b"2")})
    for _ in range(20):
        writer.send_data(block)
    writer.send(FrameKind.END)
    writer.finish()
    assert len([*tmp_path.iterdir()]) == 3
    wire = InnerWire(os.fsencode(tmp_path), -1)
    assert wire.receive(FrameKind.SETUP) == (FrameKind.SETUP, {"a": (1, b"2")})
    assert all(wire.receive(FrameKind.DATA)[1] == block for _ in range(20))
    assert wire.receive(FrameKind.END)[1] is None
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(WireError):
        wire.receive(FrameKind.END)


def _receive(data: bytes, *kinds: FrameKind) -> Any:
    """What the caller gets of frames that a guest sent."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb"):
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(data)
        return OuterWire(read_end).receive(*kinds)[1]


def _frame(kind: FrameKind, value: object) -> bytes:
    """A frame as a guest sends it."""
    payload = encode_json(value)
    return bytes((kind,)) + len(payload).to_bytes(4, "little") + payload


GOOD = (b"etc/new", 0o100644, 0, 0, 1, b"data", ((b"user.a", b"b"),), 0)


def _with(**changes: object) -> tuple[object, ...]:
    names = ("path", "bits", "uid", "gid", "mtime", "details", "xattrs", "link")
    return tuple(changes.get(name, value) for name, value in zip(names, GOOD, strict=True))


def test_a_node_of_each_kind_is_taken() -> None:
    nodes = [
        _with(path=b"", bits=0o40755, details=b""), GOOD, _with(path=b"f", details=1 << 20), _with(path=b"g", link=7),
        _with(path=b"h", link=7, details=None), _with(path=b"i", bits=0o120777),
        _with(path=b"j", bits=0o20600, details=(1, 3)), _with(path=b"k", bits=0o10600, details=b""),
    ]  # fmt: skip
    assert _receive(_frame(FrameKind.NODES, nodes), FrameKind.NODES) == nodes


@pytest.mark.parametrize(
    "change",
    [
        *({"path": path} for path in (b"/etc", b"a//b", b"../a", b"a/..", b"a/./b", b"a/", b"a\0b", "text", None, b"")),
        *({"bits": bits} for bits in (0, 0o644, 0o140644, 1 << 20, -1, 0o40755, 0o20600, "1")),
        *({"details": details} for details in (None, -1, 0, 1 << 60, (1, 2), "text", True)),
        {"bits": 0o20600, "details": (1, -2)}, {"bits": 0o20600, "details": (1, 2, 3)}, {"details": None, "link": 0},
        {"uid": -1}, {"gid": 1 << 32}, {"xattrs": ((b"", b"x"),)}, {"xattrs": ((b"a",),)}, {"link": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_node_that_cannot_be_is_refused(change: Mapping[str, object]) -> None:
    if change == {"bits": 0o40755}:
        change = {"bits": 0o40755, "details": 5}
    with pytest.raises(WireError):
        _receive(_frame(FrameKind.NODES, [_with(**change)]), FrameKind.NODES)


def test_nodes_come_in_order_and_once() -> None:
    for paths in ((b"b", b"a"), (b"a", b"a")):
        with pytest.raises(WireError):
            _receive(_frame(FrameKind.NODES, [_with(path=path) for path in paths]), FrameKind.NODES)


@given(st.sampled_from(FrameKind), st.binary(max_size=100))
def test_no_bytes_of_a_guest_do_more_than_fail(kind: FrameKind, payload: bytes) -> None:
    data = bytes((kind,)) + len(payload).to_bytes(4, "little") + payload
    for frames in (data, payload):
        with contextlib.suppress(WireError):
            _receive(frames, *FrameKind)


def test_a_frame_has_a_limit() -> None:
    with pytest.raises(WireError):
        _receive(bytes((FrameKind.DATA,)) + b"\xff\xff\xff\xff" + b"x", FrameKind.DATA)


def test_a_machine_without_qemu_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = ScriptRun(program=b"true", name="x")
    for wrong in ({"interactive": True}, {"directory": tmp_path}, {"ids": "single"}):
        with pytest.raises(UsageError):
            monkeypatch.setattr(machine, "find_emulator", lambda: "qemu")
            machine.check_machine_run(ScriptRun(program=b"true", name="x", **wrong))
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="qemu-system"):
        machine.check_machine_run(run)


def test_an_archive_has_its_files_in_newc() -> None:
    data = bytearray()
    archive = InitramfsArchive(data.extend)
    archive.finish()
    assert data.startswith(b"070701")
    assert archive.size == len(data) == 124
