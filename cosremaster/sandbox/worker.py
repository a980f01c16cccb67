"""The process that owns the file system: it makes the namespaces, unpacks, watches over the script, and harvests.

It is started anew for each script (``unshare`` of a user namespace demands a single thread), stays outside the process
namespace that the script sees, and needs the standard library alone. It ends when its parent does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cosremaster.sandbox import init, network
from cosremaster.sandbox.harvest import Harvest, RecordedFacts
from cosremaster.sandbox.inodes import InodeKey, InodeReader
from cosremaster.sandbox.records import Device
from cosremaster.sandbox.scan import PathFacts, PathTooLongError, scan_tree
from cosremaster.sandbox.supervisor import Supervisor
from cosremaster.sandbox.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    PR_SET_PDEATHSIG,
    hide_arguments,
    mount,
    set_process_option,
    unshare,
)
from cosremaster.sandbox.unpack import Unpacker, write_file
from cosremaster.sandbox.wire import FrameKind, FrameWire, WireError

_NAMESPACES = (
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
)  # fmt: skip
_FULL = 1 << 16
_CLOCK_STEP = 0.02  # seconds: times of files are as coarse as the kernel's ticks


class StepError(Exception):
    """A step failed: its name, the errno, and what it was about."""

    def __init__(self, step: str, number: int, details: str = "") -> None:
        """Make the error for ``step``."""
        super().__init__(step, number, details)


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Turn errors of the system into :class:`StepError` for the step ``name``."""
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename
        raise StepError(name, error.errno or 0, os.fsdecode(path) if isinstance(path, (bytes, str)) else "") from error


def main(wire_fd: int, channel_fd: int, output_fd: int) -> None:
    """Do what comes over the wire: make a file system, run a script in it, send what it changed."""
    for fd in (wire_fd, channel_fd, output_fd):
        os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    hide_arguments(b"cosremaster-script")
    wire, channel = FrameWire(wire_fd, wire_fd), socket.socket(fileno=channel_fd)
    try:
        _, setup = wire.receive(FrameKind.SETUP)
        ScriptWork(setup, wire, channel, output_fd).run()
    except StepError as error:
        _send_failure(wire, *error.args)
    except BaseException as error:
        _send_failure(wire, "fault", 0, _describe_fault(error))
    os._exit(0)  # nothing here needs an end of its own, and the file system goes with the last process


def _describe_fault(error: BaseException) -> str:
    """Return what nobody foresaw, with its lines; the module traceback reads files, which may be out of reach."""
    lines, traceback = [], error.__traceback__
    while traceback is not None:
        lines.append(f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])


def _send_failure(wire: FrameWire, step: str, number: int, details: str) -> None:
    """Send the end of the work by a failure; nobody may be there to read it."""
    with contextlib.suppress(WireError):
        wire.send(FrameKind.FAILURE, (step, number, details))


class ScriptWork:
    """One script from its namespaces to its harvest."""

    def __init__(self, setup: dict[str, Any], wire: FrameWire, channel: socket.socket, output_fd: int) -> None:
        """Take the script of ``setup``."""
        self._setup, self._wire, self._channel, self._output_fd = setup, wire, channel, output_fd
        self._supervisor: Supervisor | None = None

    def run(self) -> None:
        """Do all steps. :raises StepError: one fails. :raises WireError: the parent is gone."""
        self._die_with_parent()
        if self._setup["is_directory"]:
            import shutil  # noqa: F401, PLC0415 - for later, when its file may be out of reach
        _limit_processes(self._setup["processes"])
        with _step("unshare"):
            os.chdir(self._setup["place"])
            unshare(_NAMESPACES)
        self._wire.send(FrameKind.UNSHARED)
        self._wire.receive(FrameKind.MAPPED)
        self._make_store()
        if self._setup["purpose"] == "probe":
            self._probe()
            return
        if self._setup["purpose"] == "clean":
            self._clean()
            return
        os.mkdir("root", 0o755)
        os.mkdir("files", 0o755)
        unpacker = self._unpack()
        self._run_script(unpacker)

    def _die_with_parent(self) -> None:
        """End when the parent does, even if it is killed. :raises WireError: it is gone already."""
        set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._setup["parent"]:
            raise WireError("the parent is gone")

    def _make_store(self) -> None:
        """Make the file system that holds everything, become its root user, and go there."""
        setup = self._setup
        with _step("mount"):
            mount(b"none", b"/", b"", MS_REC | MS_PRIVATE)
            if not setup["is_directory"]:
                options = b"mode=755,uid=0,gid=0,size=%d,nr_inodes=%d" % (setup["size"], setup["inodes"])
                mount(b"tmpfs", b".", b"tmpfs", MS_NODEV, options)
                os.chdir(setup["place"])
        with _step("ids"):
            if setup["way"] != "single":
                os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        self._die_with_parent()  # which a change of ids forgets
        os.umask(0o022)

    def _probe(self) -> None:
        """Try what only a process of the new namespace can: its own /proc."""
        child = os.fork()
        if not child:
            number = 0
            try:
                unshare(CLONE_NEWNS)
                os.mkdir("proc")
                mount(b"proc", b"proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            except OSError as error:
                number = error.errno or errno.EPERM
            os._exit(number & 0xFF)
        number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if number:
            raise StepError("proc", number)
        self._wire.send(FrameKind.READY)

    def _clean(self) -> None:
        """Remove what an earlier worker left in the directory."""
        import shutil  # noqa: PLC0415 - few scripts run in a directory

        for name in ("root", "files"):
            shutil.rmtree(name, ignore_errors=True)
        self._wire.send(FrameKind.READY)

    def _unpack(self) -> Unpacker:
        """Take the user's files and the tree. Return what could not be set."""
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with _step("unpack"):
            os.chdir("files")
            Unpacker(has_owners=True, mount_points={}).take_nodes(self._wire)
            os.fchdir(top)
            os.chdir("root")
            way = self._setup["way"]
            unpacker = Unpacker(has_owners=way != "single", has_devices=way == "vm")
            unpacker.take_nodes(self._wire)
            for path, data in self._setup["helpers"].items():
                write_file(path, data, 0o755)
            os.fchdir(top)
        return unpacker

    def _run_script(self, unpacker: Unpacker) -> None:
        """Run the script, and send what it changed."""
        os.chdir("root")
        before = scan_tree()
        started = time.time_ns()
        time.sleep(_CLOCK_STEP)  # what is made from now on has a later time, by the kernel's clock too
        seed = RecordedFacts(dict(unpacker.owners), dict(unpacker.devices), dict(unpacker.acls))
        kind, number = self._supervise(unpacker, started)
        if kind != init.EXITED:
            raise StepError(("", "exec", "mounts", "filter")[kind], number)
        full = _describe_full(os.statvfs("."))
        self._wire.send(FrameKind.ENDED, (os.waitstatus_to_exitcode(number), full, unpacker.displaced))
        if number:
            return
        try:
            after = scan_tree()
        except PathTooLongError:
            raise StepError("path", errno.ENAMETOOLONG) from None
        supervisor, recorded = self._supervisor, seed
        if supervisor is not None:
            supervisor.forget_removed(after)
            recorded = RecordedFacts(supervisor.owners(), supervisor.devices(), supervisor.acls())
        harvest = Harvest(
            before, after, seed, recorded, lost_xattrs=unpacker.xattrs, started=started,
            find_group=supervisor.find_group if supervisor is not None and self._setup["way"] == "single" else None,
            mapped=None if supervisor is None else supervisor.mapped,
            reused=_find_reused(before, after, started) if self._setup["is_directory"] else frozenset(),
        )  # fmt: skip
        harvest.send(self._wire)
        if self._setup["is_directory"]:
            os.chdir("..")
            self._clean()

    def _supervise(self, unpacker: Unpacker, started: int) -> tuple[int, int]:
        """Run the script to its end. Return kind and number of its status."""
        status_read, status_write = os.pipe()
        ours, theirs = socket.socketpair()
        with _step("network"):
            network.start_loopback()
        if self._setup["network"]:
            listener = network.open_listener()
            socket.send_fds(self._channel, [b"P"], [listener.fileno()])
            listener.close()
        root_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chdir("..")
        first = os.fork()
        if not first:
            ours.close()
            os.close(status_read)
            self._channel.close()
            init.run_init(self._setup, status_write, self._output_fd, theirs)
        theirs.close()
        os.close(status_write)
        os.close(self._output_fd)
        self._wire.send(FrameKind.STARTED)
        os.fchdir(root_fd)
        proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        listener_fd = self._receive_listener(ours)
        if listener_fd is not None:
            devices = {key: Device(*device) for key, device in unpacker.devices.items()}
            reusing = os.stat(".").st_dev if self._setup["is_directory"] else None  # tmpfs gives no number twice
            self._supervisor = Supervisor(
                listener_fd, proc_fd, unpacker.owners, devices, unpacker.acls, started, reusing
            )
            self._supervisor.serve(status_read)
        status = os.read(status_read, init.STATUS.size)
        os.waitpid(first, 0)
        if len(status) < init.STATUS.size:  # the first process was killed from outside
            return init.EXITED, signal.SIGKILL
        kind, number = init.STATUS.unpack(status)
        return kind, number

    def _receive_listener(self, ours: socket.socket) -> int | None:
        """Return the descriptor that system calls of the script are reported on; pass a terminal on to the parent."""
        while True:
            message, fds, _, _ = socket.recv_fds(ours, 1, 1)
            if message == b"T":
                socket.send_fds(self._channel, [b"T"], fds)
                os.close(fds[0])
                continue
            return fds[0] if message == b"L" else None


def _find_reused(
    before: Mapping[bytes, PathFacts], after: Mapping[bytes, PathFacts], started: int
) -> set[InodeKey]:  # fmt: skip
    """Return the inodes of ``before`` whose numbers files of ``after`` have that were made since ``started``."""
    reader, old = InodeReader(), {facts.key for facts in before.values()}
    return {
        facts.key
        for path, facts in after.items()
        if facts.key in old and reader.read(path or b".", False).birth > started
    }


def _limit_processes(most: int) -> None:
    """Let this process and its children have ``most`` processes at a time; 0: as many as there may be now."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if most and (hard == resource.RLIM_INFINITY or most < hard):
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _describe_full(status: os.statvfs_result) -> str:
    """Return which bound of the file system was reached: ``size``, ``inodes``, or none of them."""
    if status.f_blocks and status.f_bavail * status.f_frsize < _FULL:
        return "size"
    return "inodes" if status.f_files and not status.f_favail else ""
