"""Run a script in a virtual machine with the image's own kernel: as real root, with real devices.

It needs QEMU and nothing of the kernel of this machine; without KVM the processor is emulated, which is slow. The
result is that of :mod:`~cosremaster.sandbox.session`: in the guest the same code lays out the file system and looks for
changes.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from cosremaster.errors import SandboxError, ScriptError, SizeError, UsageError, printable
from cosremaster.io.spool import Spool
from cosremaster.progress import Progress
from cosremaster.sandbox.collect import ChangeCollector
from cosremaster.sandbox.emulator import Emulator, NamelessFile, find_emulator, list_accelerators, own_machine
from cosremaster.sandbox.feed import send_files, send_tree
from cosremaster.sandbox.guest_files import (
    INTERPRETER,
    MODULES,
    PROGRAM,
    GuestFile,
    InitramfsArchive,
    list_python_files,
    program_text,
)
from cosremaster.sandbox.guest_wire import STREAM, OuterWire, StreamWriter
from cosremaster.sandbox.ids import IdMap
from cosremaster.sandbox.machine_boot import KernelModule, MachineBoot, choose_kernel, list_kernels
from cosremaster.sandbox.model import Output, ScriptChanges, ScriptRun, Way
from cosremaster.sandbox.network import proxy_environment
from cosremaster.sandbox.process import FrameReceiver
from cosremaster.sandbox.reach import Reach
from cosremaster.sandbox.relay import PortClosedError, carry_connection, read_run
from cosremaster.sandbox.session import ScriptSession
from cosremaster.sandbox.settings import Bounds, make_setup
from cosremaster.sandbox.wire import FrameKind
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import format_size

_GUEST = "cosremaster.sandbox.guest"
_CHANGES, _OUTPUT, _NETWORK = "changes", "output", "network"  # the names of ports in the guest
_CONNECTIONS = 8
_BOOT_TIMES = {"kvm": 20.0, "tcg": 600.0}
"""Seconds after which a machine whose kernel has not started our program is given up; they need two, and ten."""

_SILENCE_TIME = 1200
"""Seconds that the guest may take before the script, and between frames after it."""

_SYSTEM_MEMORY = 512 << 20
_MORE_MEMORY = 1 << 30
_MAX_INITRAMFS = 1900 << 20
"""Bytes: boot loaders put an initramfs below 2 GiB (initrd_addr_max, Documentation/arch/x86/boot.rst)."""

_DEAD = (
    "Kernel panic",
    "Out of memory",
    "Initramfs unpacking failed",
    "qemu-system",
    "is refused",
    "virtio-serial",
    "Error",
)


def check_machine_run(run: ScriptRun) -> Way:
    """Check what can be checked of ``run`` before any work is done, and return how owners are kept.

    :raises SandboxError: there is no QEMU here. :raises UsageError: it wants what a machine does not give.
    """
    find_emulator()
    if run.ids != "auto":
        raise UsageError("a virtual machine (--run-in vm) runs a script as real root: --run-ids is for namespaces")
    if run.interactive:
        raise UsageError("a shell is not run in a virtual machine (--run-in vm)")
    if run.directory is not None:
        raise UsageError("a virtual machine (--run-in vm) has its file system in memory, and in no directory of yours")
    return "vm"


def run_in_machine(
    tree: Mapping[bytes, Node], run: ScriptRun, spool: Spool, progress: Progress, output: Output,
    boot: MachineBoot | None = None,
) -> ScriptChanges:  # fmt: skip
    """Run ``run`` in the file system ``tree`` in a virtual machine; see :func:`session.run_script`.

    ``boot``: what the image boots with; the kernels of the tree are tried behind it.

    :raises SandboxError: this machine cannot run it, or no kernel can.
    """
    check_machine_run(run)
    boot, modules = choose_kernel(chain(() if boot is None else (boot,), list_kernels(tree)), own_machine())
    reach = Reach(run.network_allow) if run.network else None
    variables = proxy_environment(loopback_allowed=reach.includes_loopback) if reach is not None else ()
    bounds = Bounds.of(run, tree)
    memory, bounds = _plan_memory(run, bounds)
    setup = make_setup(run, tree, "", bounds, "vm", variables)
    folder = Path(tempfile.gettempdir())
    with NamelessFile(folder) as kernel, NamelessFile(folder) as initramfs:
        for chunk in boot.kernel.chunks():
            kernel.write(chunk)
        with progress.step("unpack for the script", bounds.content) as advance:
            archive = InitramfsArchive(initramfs.write)
            _add_system(archive, modules)
            stream = StreamWriter(
                lambda number, data: archive.add(GuestFile(STREAM + b"/%08d" % number, stat.S_IFREG | 0o600, data))
            )
            stream.send(FrameKind.SETUP, {**setup, "way": "vm", "time": time.time(), "processes": 0})
            send_files(run.files, stream)
            send_tree(tree, stream, advance)
            stream.finish()
            archive.finish()
        _check_size(archive.size, memory)
        with Machine(kernel, initramfs, memory, progress) as machine:
            collector = ChangeCollector(tree, spool, run.max_mtime)
            changes = ScriptSession(run, IdMap("vm", 0, 0), bounds, machine, output).finish(collector, reach)
            _check_parents(changes, tree)
            return changes


def _plan_memory(run: ScriptRun, bounds: Bounds) -> tuple[int, Bounds]:
    """Return the memory of the machine for a tree with ``bounds``, and the bounds that its file system has there.

    The tree is there twice while the kernel unpacks the initramfs.
    """
    size = bounds.size if run.size_limit is not None else bounds.content * 2 + _MORE_MEMORY
    return max(size, 2 * bounds.content) + _SYSTEM_MEMORY, bounds._replace(size=size)


def _check_parents(changes: ScriptChanges, tree: Mapping[bytes, Node]) -> None:
    """Check that each changed node is in a directory: a script in a machine could make up changes.

    :raises ScriptError: one is not.
    """
    kinds = {node.path: node.kind for node in changes.nodes}
    for node in changes.nodes:
        parent = node.path.rpartition(b"/")[0]
        old = tree.get(parent)
        kind = kinds.get(parent, NodeKind.DIRECTORY if old is None else old.kind)
        if node.path and kind is not NodeKind.DIRECTORY:
            raise ScriptError(f"the virtual machine sent a file that is in no directory: {printable(node.path)}")


def _check_size(size: int, memory: int) -> None:
    """Check that an initramfs of ``size`` bytes, and the ``memory``, can be had. :raises SizeError: they cannot."""
    if size > _MAX_INITRAMFS:
        raise SizeError(
            f"the file system has {format_size(size)}, and a virtual machine (--run-in vm) takes"
            f" {format_size(_MAX_INITRAMFS)} at most"
        )
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory > most:
        raise SizeError(
            f"a virtual machine (--run-in vm) needs {format_size(memory)} of memory for this file system, and this"
            f" machine has {format_size(most)}"
        )


def _add_system(archive: InitramfsArchive, modules: list[KernelModule]) -> None:
    """Add our own program, and what it needs, to ``archive``."""
    files = [
        *(GuestFile(name, stat.S_IFDIR | 0o755) for name in (b"dev", b"proc", b"sys", MODULES, STREAM)),
        GuestFile(b"dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1)),
        *list_python_files(_GUEST),
        GuestFile(PROGRAM, stat.S_IFREG | 0o755, program_text(_GUEST)),
    ]
    for number, module in enumerate(modules):
        name = b"%s/%02d-%s.ko" % (MODULES, number, module.name.encode())
        files.append(GuestFile(name, stat.S_IFREG | 0o600, module.data))
    for file in files:
        archive.add(file)


class Machine(FrameReceiver):
    """A machine that runs our guest, to a session what a worker process is.

    ``wire``: frames from it; ``output``: a descriptor at which arrives what the script prints.
    """

    wire: OuterWire

    def __init__(self, kernel: NamelessFile, initramfs: NamelessFile, memory: int, progress: Progress) -> None:
        """Boot, and wait until our program runs. :raises SandboxError: it does not."""
        names = (_CHANGES, _OUTPUT, *(f"{_NETWORK}{number}" for number in range(_CONNECTIONS)))
        arguments = f"quiet panic=-1 rdinit=/{INTERPRETER.decode()} -- -I -S /{PROGRAM.decode()}"
        self._stack = ExitStack()
        self._has_started = False
        with progress.step("boot a virtual machine", None):
            for accelerator in list_accelerators():
                self._emulator = Emulator(kernel, initramfs, arguments, names, memory, accelerator)
                self._port = self._emulator.ports[_CHANGES]
                if self._starts(accelerator):
                    break
                self._emulator.end()
            self._stack.callback(self._emulator.end)
            limit = struct.pack("ll", _SILENCE_TIME, 0)
            self._port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)  # a script could stop our program
            self.wire = OuterWire(self._port.fileno())
            self.output, write_end = os.pipe()
            self._stack.callback(os.close, self.output)
            self._start_thread(_copy_output, self._emulator.ports[_OUTPUT].fileno(), write_end)
            try:
                self.receive(FrameKind.READY)
            except BaseException:
                self._stack.close()
                raise
            self._has_started = True

    def __enter__(self) -> Machine:
        """Return the machine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Switch the machine off, at once."""
        self._stack.close()

    def _start_thread(self, target: Any, *arguments: Any) -> None:
        """Run ``target`` in a thread, which ends with the machine."""
        threading.Thread(target=target, args=arguments, name="machine", daemon=True).start()

    def _starts(self, accelerator: str) -> bool:
        """Return whether our program runs in there soon, or the machine ends."""
        try:
            if accelerator == "kvm" and not self._emulator.is_alive():
                return False
            return bool(select.select([self._port], (), (), _BOOT_TIMES[accelerator])[0])
        except BaseException:
            self._emulator.end()
            raise

    def fileno(self) -> int:
        """Return the descriptor at which frames arrive."""
        return self._port.fileno()

    def raise_failure(self) -> NoReturn:
        """Raise what ended the machine.

        :raises SandboxError: it did not start. :raises ScriptError: it ended, or sent what no guest of ours sends.
        """
        fault = self.wire.fault
        self._emulator.end()
        if fault:
            raise ScriptError(f"the virtual machine sent what no machine of ours does: {fault}")
        if not self._has_started:
            raise SandboxError(f"the virtual machine did not start{self._last_words()}")
        raise ScriptError(f"the virtual machine ended before the script did{self._last_words()}")

    def _last_words(self) -> str:
        """Return what the console says of the reason, for the end of a sentence."""
        console = list(self._emulator.console)
        lines = [line for line in console if any(word in line for word in _DEAD)]
        line = (lines or [*self._emulator.complaints] or console[-1:] or [""])[0]
        return f"; its last words: {printable(line)}" if line else ""

    def receive_descriptor(self) -> int:
        """Return a listening socket: who accepts there accepts the connections of the script."""
        folder = tempfile.mkdtemp(prefix="cosremaster-")
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        path = os.path.join(folder, "proxy")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(path)
        listener.listen(socket.SOMAXCONN)
        for name, port in self._emulator.ports.items():
            if name.startswith(_NETWORK):
                self._start_thread(_carry_connections, port.fileno(), path)
        return listener.detach()


def _copy_output(port: int, write_end: int) -> None:
    """Copy runs from ``port`` to the descriptor ``write_end``, which is closed at their end."""
    with suppress(OSError, PortClosedError), os.fdopen(write_end, "wb", buffering=0) as pipe:
        while data := read_run(port):
            view = memoryview(data)
            while view:
                view = view[pipe.write(view) or 0 :]


def _carry_connections(port: int, path: str) -> None:
    """Carry connections that come over ``port``, one after another, to the socket at ``path``."""
    with suppress(OSError, PortClosedError):
        while True:
            first = read_run(port)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(path)
                carry_connection(sock, port, first)
