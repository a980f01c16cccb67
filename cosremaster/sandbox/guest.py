"""Process 1 of our virtual machine: it lays out the file system, runs the script as root, and sends what it changed.

It is this machine's Python (see :mod:`~cosremaster.sandbox.guest_files`), and does what the worker does outside of one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import time
import traceback
from typing import NoReturn

from cosremaster.sandbox.guest_wire import STREAM, InnerWire
from cosremaster.sandbox.relay import BLOCK, carry_connection, write_run
from cosremaster.sandbox.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    mount,
    unshare,
)
from cosremaster.sandbox.wire import FrameKind, FrameWire
from cosremaster.sandbox.worker import ScriptWork, StepError

CHANGES, OUTPUT, NETWORK = "changes", "output", "network"
"""Names of the ports: frames to the caller, what the script prints, and (with a number) a connection to the proxy."""

MODULES = b"/modules"
_STORE, _SELF = b"/store", b"/self"
_NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
_POWER_OFF = 0x4321FEDC  # reboot(2)
_PORT_TIME = 20.0
_LAST_BYTES_TIME = 300.0  # seconds: a write to a port does not wait for the caller, who ends the machine

_libc = ctypes.CDLL(None, use_errno=True)


class _NoPortError(Exception):
    """There is no way to the host."""


def run_guest() -> NoReturn:
    """Be process 1 of the machine: do everything, and switch it off."""
    try:
        ports = _start_machine()
        wire = InnerWire(b"/" + STREAM, os.open(ports[CHANGES], os.O_RDWR | os.O_CLOEXEC))
        try:
            wire.send(FrameKind.READY)
            _work(wire, ports)
        except StepError as error:
            wire.send(FrameKind.FAILURE, error.args)
        except BaseException:
            wire.send(FrameKind.FAILURE, ("fault", 0, traceback.format_exc()))
        time.sleep(_LAST_BYTES_TIME)
    except _NoPortError:
        _say("the kernel shows no virtio-serial port; it needs virtio_pci and virtio_console, inside or as modules")
    except BaseException:
        traceback.print_exc()
    finally:
        _libc.reboot(_POWER_OFF)
        os._exit(1)


def _start_machine() -> dict[str, str]:
    """Mount what is needed, load the modules, and return the devices of the ports by their names."""
    for path, kind in ((b"/proc", b"proc"), (b"/sys", b"sysfs"), (b"/dev", b"devtmpfs")):
        os.makedirs(path, exist_ok=True)
        mount(kind, path, kind, 0)
    for name in sorted(os.listdir(MODULES)):
        fd = os.open(os.path.join(MODULES, name), os.O_RDONLY | os.O_CLOEXEC)
        if _libc.syscall(ctypes.c_long(_FINIT_MODULE[os.uname().machine]), fd, b"", 0):
            _say(f"the module {os.fsdecode(name)} is refused: {os.strerror(ctypes.get_errno())}")
        os.close(fd)
    end = time.monotonic() + _PORT_TIME
    while True:
        ports = _list_ports()
        if CHANGES in ports and OUTPUT in ports:
            return ports
        if time.monotonic() > end:
            raise _NoPortError
        time.sleep(0.02)


def _say(text: str) -> None:
    """Write a line to the console."""
    os.write(2, f"{text}\n".encode())


def _list_ports() -> dict[str, str]:
    """Return the devices of the ports whose names the kernel has learnt."""
    ports = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/sys/class/virtio-ports"):
            with contextlib.suppress(OSError), open(f"/sys/class/virtio-ports/{name}/name") as file:
                ports[file.read().strip()] = f"/dev/{name}"
    return ports


def _work(wire: FrameWire, ports: dict[str, str]) -> None:
    """Do what comes over ``wire``."""
    _, setup = wire.receive(FrameKind.SETUP)
    time.clock_settime(time.CLOCK_REALTIME, setup["time"])
    read_end, write_end = os.pipe()
    ours, theirs = socket.socketpair()
    pump = os.fork()
    if not pump:
        os.close(write_end)
        ours.close()
        _pump_output(read_end, ports[OUTPUT])
        os._exit(0)
    os.close(read_end)
    if setup["network"]:
        relay = os.fork()
        if not relay:
            os.close(write_end)
            ours.close()
            _relay_network(theirs, [device for name, device in ports.items() if name.startswith(NETWORK)])
            os._exit(0)
    theirs.close()
    _GuestWork(setup, wire, ours, write_end).run()


class _GuestWork(ScriptWork):
    """A script that has the machine for itself."""

    def run(self) -> None:
        """Do all steps. :raises StepError: one fails."""
        try:
            os.mkdir(_STORE)
            os.mkdir(_SELF)
            options = b"mode=755,size=%d,nr_inodes=%d" % (self._setup["size"], self._setup["inodes"])
            mount(b"tmpfs", _STORE, b"tmpfs", 0, options)
            # The first root file system is one that pivot_root(2) does not move; a mount of it is another one.
            mount(b"/", _SELF, b"", MS_BIND | MS_REC)
            os.chroot(_SELF)
            os.chdir(_STORE)
            unshare(_NAMESPACES)
            mount(b"none", b"/", b"", MS_REC | MS_PRIVATE)
        except OSError as error:
            raise StepError("mount", error.errno or 0) from error
        os.umask(0o022)
        os.mkdir("root", 0o755)
        os.mkdir("files", 0o755)
        self._run_script(self._unpack())


def _pump_output(read_end: int, device: str) -> None:
    """Copy what the script prints to the port ``device``."""
    port = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    while True:
        data = os.read(read_end, BLOCK)
        write_run(port, data)
        if not data:
            return


def _relay_network(channel: socket.socket, devices: list[str]) -> None:
    """Carry each connection to the listener that comes over ``channel`` through a port of its own."""
    message, fds, _, _ = socket.recv_fds(channel, 1, 1)
    if not message or not fds:
        return
    listener = socket.socket(fileno=fds[0])
    threads = [threading.Thread(target=_relay_port, args=(listener, device)) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _relay_port(listener: socket.socket, device: str) -> None:
    """Carry connections through the port ``device``, one after another."""
    port = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    while True:
        sock, _ = listener.accept()
        with sock:
            carry_connection(sock, port)
