"""The worker process, seen from the process that starts it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any, NoReturn

from cosremaster.errors import SandboxError, ScriptError, UnsupportedError
from cosremaster.sandbox.ids import IdMap, write_id_map
from cosremaster.sandbox.refusals import describe_refusal
from cosremaster.sandbox.wire import FrameKind, FrameWire, WireError

_START = "import sys; sys.path.insert(0, {package!r}); from cosremaster.sandbox.worker import main; main({fds})"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The worker needs this package and the standard library, and looks nowhere else."""

_ENVIRONMENT = ("LD_LIBRARY_PATH", "PATH")
"""Variables that the worker gets: it sees nothing else of the user, and what it starts nothing at all."""

_OF_THE_SCRIPT = frozenset(("exec", "path"))
_BUFFER = 1 << 20


class FrameReceiver:
    """What a script runs in, as the other end of ``wire``."""

    wire: FrameWire

    def receive(self, *kinds: FrameKind) -> tuple[FrameKind, Any]:
        """Return the next frame. Raises as :meth:`raise_failure`."""
        try:
            kind, value = self.wire.receive(*kinds, FrameKind.FAILURE)
        except WireError:
            self.raise_failure()
        if kind is FrameKind.FAILURE:
            raise_worker_failure(*value)
        return kind, value

    def raise_failure(self) -> NoReturn:
        """Raise what ended it, which speaks no more."""
        raise NotImplementedError


class WorkerProcess(FrameReceiver):
    """A worker process, which ends with the context, and all that it started with it.

    ``wire``: frames to and from it; ``channel``: a socket that descriptors come over; ``output``: what the script
    prints.
    """

    def __init__(self, ids: IdMap) -> None:
        """Start a process; it waits for :meth:`set_up`."""
        self._ids = ids
        ours, theirs = socket.socketpair()
        self.channel, their_channel = socket.socketpair()
        self.output, their_output = os.pipe()
        self._socket = ours
        for end in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self.wire = FrameWire(ours.fileno(), ours.fileno())
        fds = (theirs.fileno(), their_channel.fileno(), their_output)
        code = _START.format(package=_PACKAGE, fds=", ".join(map(str, fds)))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, pass_fds=fds, start_new_session=True, cwd="/",
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )  # fmt: skip
        except OSError as error:
            self._close()
            raise SandboxError(f"no process can be started for it: {error.strerror}") from error
        finally:
            theirs.close()
            their_channel.close()
            os.close(their_output)

    def __enter__(self) -> WorkerProcess:
        """Return the worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process, and with it everything inside."""
        self.kill()
        self._process.wait()
        self._close()

    def kill(self) -> None:
        """End the process at once; the kernel ends everything inside with it."""
        self._process.kill()

    def _close(self) -> None:
        """Close this end of everything."""
        self._socket.close()
        self.channel.close()
        os.close(self.output)

    def fileno(self) -> int:
        """Return the descriptor at which frames of the worker arrive."""
        return self._socket.fileno()

    def set_up(self, setup: dict[str, Any]) -> None:
        """Let the process make its namespaces. :raises SandboxError: this machine refuses them."""
        self.wire.send(FrameKind.SETUP, {"parent": os.getpid(), "way": self._ids.way, **setup})
        self.receive(FrameKind.UNSHARED)
        try:
            write_id_map(self._process.pid, self._ids)
        except OSError as error:
            raise SandboxError(describe_refusal("map", error.errno or 0, "")) from error
        self.wire.send(FrameKind.MAPPED)

    def receive_descriptor(self) -> int:
        """Return the next descriptor that the process sends. Raises as :meth:`raise_failure`."""
        _, fds, _, _ = socket.recv_fds(self.channel, 1, 1)
        if not fds:
            self.raise_failure()
        return fds[0]

    def raise_failure(self) -> NoReturn:
        """Raise what ended the process, which speaks no more.

        :raises SandboxError: this machine refused something. :raises ScriptError: the fault is the script's.
        """
        with contextlib.suppress(WireError):
            while True:
                kind, value = self.wire.receive()
                if kind is FrameKind.FAILURE:
                    raise_worker_failure(*value)
        self._process.wait()
        raise SandboxError("the process that held its file system was killed; perhaps the memory was not enough")


def raise_worker_failure(step: str, number: int, details: str) -> NoReturn:
    """Raise the failure of ``step``."""
    if step == "fault":
        raise RuntimeError(f"the worker failed:\n{details}")
    if step == "path":
        raise ScriptError("it made a path of more than 4,095 bytes, which no layer holds")
    sentence = describe_refusal(step, number, details)
    if step == "unpack" and number != errno.ENOSPC:
        raise UnsupportedError(sentence)
    raise ScriptError(sentence) if step in _OF_THE_SCRIPT else SandboxError(sentence)


def default_place() -> str:
    """Return a directory that a file system in memory can be mounted over, in a namespace of its own."""
    return os.path.realpath(tempfile.gettempdir())
