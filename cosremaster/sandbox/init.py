"""The first process inside: it mounts, starts the script, and takes every other process along when the script ends.

It is a copy of the worker (fork), so everything must be imported before: its root is soon another.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import resource
import signal
import socket
import struct
import termios
from typing import TYPE_CHECKING, Any, NoReturn

from cosremaster.sandbox import filter as seccomp
from cosremaster.sandbox.mounts import enter_root
from cosremaster.sandbox.syscalls import (
    CLONE_NEWNS,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    join_new_session_keyring,
    set_process_option,
    unshare,
)
from cosremaster.sandbox.unpack import write_file

if TYPE_CHECKING:
    from cosremaster.sandbox.model import Way

STATUS = struct.Struct("<Bi")
"""What the first process says at its end: one of the kinds below, and a number."""

EXITED, NOT_STARTED, NOT_MOUNTED, NOT_FILTERED = range(4)
"""The script ended with a wait status; or it, its mounts or its filter failed with an errno."""

_TIOCSPTLCK, _TIOCGPTN = 0x40045431, 0x80045430  # asm-generic/ioctls.h

MAX_FILES = 1 << 16
_SCRIPT_PATH = b"/run/cosremaster.script/"


def run_init(setup: dict[str, Any], status_fd: int, output_fd: int, channel: socket.socket) -> NoReturn:
    """Be process 1: mount, run the script of ``setup``, write its :data:`STATUS` to ``status_fd``, end.

    The script writes to ``output_fd``. The descriptor of its system calls' listener goes over ``channel``, and before
    it the terminal's of an interactive shell.
    """
    kind, number = NOT_MOUNTED, 0
    try:
        set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
        unshare(CLONE_NEWNS)
        enter_root(
            b"root", b"files", has_groups=setup["way"] != "single", size=setup["scratch"], inodes=setup["inodes"]
        )
        socket.sethostname(setup["hostname"])
        os.setsid()
        join_new_session_keyring()
        set_process_option(PR_SET_DUMPABLE, 0)  # or the script could look into this process, and stop it
        kind, number = _run_script(setup, output_fd, channel, status_fd)
    except OSError as error:
        number = error.errno or 0
    except BaseException:
        number = 0
    os.write(status_fd, STATUS.pack(kind, number))
    os._exit(0)


def _run_script(setup: dict[str, Any], output_fd: int, channel: socket.socket, status_fd: int) -> tuple[int, int]:
    """Start the script and wait for its end; adopt and reap all others. Return what :data:`STATUS` holds."""
    program = _write_program(setup)
    terminal = _open_terminal(setup, channel) if setup["interactive"] else -1
    failure_read, failure_write = os.pipe()
    child = os.fork()
    if not child:
        kind, number = NOT_STARTED, 0
        try:
            _prepare_script(setup, output_fd, terminal)
            kind = NOT_FILTERED
            _install_filter(setup["way"], channel)
            kind = NOT_STARTED
            _close_all_but(failure_write)
            os.execve(program[0], program, setup["environment"])  # noqa: S606 - the script itself
        except OSError as error:
            number = error.errno or 0
        finally:
            os.write(failure_write, STATUS.pack(kind, number))
            os._exit(127)
    os.close(failure_write)
    os.close(output_fd)
    channel.close()
    if terminal >= 0:
        os.close(terminal)
    failure = os.read(failure_read, STATUS.size)
    while True:
        pid, status = os.wait()
        if pid == child:
            return STATUS.unpack(failure) if failure else (EXITED, status)


def _install_filter(way: Way, channel: socket.socket) -> None:
    """Put the filter on this process, and send the descriptor of its listener over ``channel``.

    :raises OSError: the kernel refuses. In a virtual machine nothing depends on the filter: there a kernel without it
        lets the script go on, and every file is compared.
    """
    try:
        if way == "vm" and not seccomp.can_install_filter():
            return
        listener = seccomp.install_filter(way if way in ("single", "vm") else "subuid")
    except OSError:
        if way != "vm":
            raise
        return
    socket.send_fds(channel, [b"L"], [listener])
    os.close(listener)


def _write_program(setup: dict[str, Any]) -> list[bytes]:
    """Write the script where it can be executed, and files of settings. Return the command."""
    path, program = _SCRIPT_PATH + setup["file_name"], setup["program"]
    for name, data in (*setup["files"].items(), (path, program)):
        write_file(name, data, 0o755)
    if setup["interactive"]:
        return [b"/bin/bash" if os.path.exists(b"/bin/bash") else b"/bin/sh", b"-l"]
    return [path] if program.startswith(b"#!") else [b"/bin/sh", path]


def _open_terminal(setup: dict[str, Any], channel: socket.socket) -> int:
    """Open a new terminal of the namespace's own; its master goes over ``channel``. Return the slave."""
    master = os.open(b"/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    number = array.array("I", [0])
    fcntl.ioctl(master, _TIOCGPTN, number)
    slave = os.open(b"/dev/pts/%d" % number[0], os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    socket.send_fds(channel, [b"T"], [master])
    os.close(master)
    return slave


def _prepare_script(setup: dict[str, Any], output_fd: int, terminal: int) -> None:
    """Give this process what a script gets: a session, standard streams, limits, signals, and an umask."""
    os.setsid()
    if terminal >= 0:
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        streams = (terminal, terminal, terminal)
    else:
        streams = (os.open(b"/dev/null", os.O_RDONLY), output_fd, output_fd)
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (setup["size"], setup["size"]))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, most), most))
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.chdir(b"/")


def _close_all_but(fd: int) -> None:
    """Close every descriptor above the standard streams but ``fd``, which closes when a program starts."""
    os.closerange(3, fd)
    os.closerange(fd + 1, MAX_FILES)
