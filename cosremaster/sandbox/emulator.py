"""QEMU as a process: a machine without devices but a console and virtio-serial ports, which are sockets of ours."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cosremaster.errors import Place, SandboxError
from cosremaster.io.descriptors import write_all, write_error
from cosremaster.sandbox.machine_boot import MACHINES

SIGN_OF_LIFE = 8.0
"""Seconds within which a kernel on KVM says its first word; where /dev/kvm is there but does not work, it says none."""

MAX_PORTS = 28
"""Ports that one virtio-serial device has beside its console."""

_END_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks the kernel to end the machine when this program ends in whatever way (PR_SET_PDEATHSIG, prctl(2))."""

_MACHINE_OPTIONS = {
    "x86_64": (("-machine", "pc"), "console=ttyS0"),
    "aarch64": (("-machine", "virt"), "console=ttyAMA0"),
}
"""The machine, and which of its consoles the kernel speaks on."""

_EARLY = {"x86_64": "earlyprintk=serial,ttyS0 ", "aarch64": "earlycon=pl011,0x9000000 "}
_CONSOLE_LINES = 200


def own_machine() -> str:
    """Return this machine's kind of processor, as in :data:`MACHINES`. :raises SandboxError: it is none of them."""
    try:
        return MACHINES[platform.machine().lower()]
    except KeyError:
        raise SandboxError(f"--run-in vm does not know processors of the kind {platform.machine()}") from None


def find_emulator() -> str:
    """Return the path of QEMU for this machine's kind of processor. :raises SandboxError: there is none."""
    name = f"qemu-system-{own_machine()}"
    path = shutil.which(name)
    if path is None:
        package = "qemu-system-x86" if own_machine() == "x86_64" else "qemu-system-arm"
        raise SandboxError(f"--run-in vm needs QEMU: there is no {name} (Debian package {package})")
    return path


def list_accelerators() -> list[str]:
    """Return the ways to run a machine, the fast one first where this user may open /dev/kvm."""
    return ["kvm", "tcg"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else ["tcg"]


class NamelessFile:
    """A temporary file in ``folder`` that has no name, and a path by which a child may open it."""

    def __init__(self, folder: Path) -> None:
        """Make the file. :raises OutputError: the folder cannot be written to."""
        self._place = Place((str(folder),))
        try:
            self.file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise write_error(error, "temporary data", self._place) from error

    def write(self, data: bytes) -> None:
        """Add ``data``. :raises OutputError: the folder is full."""
        write_all(self.file.fileno(), data, lambda error: write_error(error, "temporary data", self._place))

    @property
    def path(self) -> str:
        """Where a child process that inherits the descriptor opens it."""
        return f"/dev/fd/{self.file.fileno()}"

    def __enter__(self) -> NamelessFile:
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which removes it."""
        self.file.close()


class Emulator:
    """A running machine.

    ``ports``: our ends of its virtio-serial ports, by their names in the guest; ``console``: the last lines that its
    kernel has written; ``complaints``: those of QEMU.
    """

    def __init__(
        self, kernel: NamelessFile, initramfs: NamelessFile, arguments: str, names: Sequence[str], memory: int,
        accelerator: str,
    ) -> None:  # fmt: skip
        """Start a machine with ``memory`` bytes. :raises SandboxError: QEMU cannot be started."""
        pairs = {name: socket.socketpair() for name in names}
        self.ports = {name: ours for name, (ours, _) in pairs.items()}
        self.console: deque[str] = deque(maxlen=_CONSOLE_LINES)
        self.complaints: deque[str] = deque(maxlen=_CONSOLE_LINES)
        machine, console = _MACHINE_OPTIONS[own_machine()]
        early = _EARLY[own_machine()] if accelerator == "kvm" else ""
        options = [
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", *machine),
            *_accelerator_options(accelerator),
            *("-m", f"{-(-memory >> 20)}M", "-smp", str(min(4, len(os.sched_getaffinity(0))))),
            *("-kernel", kernel.path, "-initrd", initramfs.path, "-append", f"{early}{console} {arguments}"),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            *("-device", f"virtio-serial-pci,max_ports={MAX_PORTS + 1}"),
        ]
        for name, (_, theirs) in pairs.items():
            options += ["-chardev", f"socket,id={name},fd={theirs.fileno()}"]
            options += ["-device", f"virtserialport,chardev={name},name={name}"]
        sockets = [theirs.fileno() for _, theirs in pairs.values()]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), find_emulator(), *options],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=[kernel.file.fileno(), initramfs.file.fileno(), *sockets], start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise SandboxError(f"QEMU cannot be started: {error.strerror}") from error
        finally:
            for _, theirs in pairs.values():
                theirs.close()
        self._has_spoken = threading.Event()
        streams = ((self._process.stdout, self.console), (self._process.stderr, self.complaints))
        self._readers = [threading.Thread(target=self._read_lines, args=pair, daemon=True) for pair in streams]
        for reader in self._readers:
            reader.start()

    def _read_lines(self, stream: BinaryIO | None, lines: deque[str]) -> None:
        """Keep the last lines of ``stream`` in ``lines``."""
        while stream is not None and (line := stream.readline(4096)):
            lines.append(line.decode("utf-8", "backslashreplace").strip())
            self._has_spoken.set()
        self._has_spoken.set()  # the end

    def is_alive(self) -> bool:
        """Return whether the kernel says its first word soon."""
        self._has_spoken.wait(SIGN_OF_LIFE)
        return bool(self.console)

    def end(self) -> None:
        """End the machine, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        for port in self.ports.values():
            with suppress(OSError):
                port.shutdown(socket.SHUT_RDWR)  # wakes the threads that wait on it


def _accelerator_options(accelerator: str) -> list[str]:
    """Return the options for ``kvm`` or ``tcg``."""
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # A kernel that sees fast strings copies byte by byte, which an emulated processor does at a third of the speed.
    fast_strings = ",erms=off,fsrm=off" if own_machine() == "x86_64" else ""
    return ["-accel", "tcg,thread=multi", "-cpu", f"max{fast_strings}"]
