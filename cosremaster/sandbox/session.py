"""Run a script in a file system, and return what it changed."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NoReturn, Protocol

from cosremaster.errors import OutputError, Place, SandboxError, ScriptError, printable
from cosremaster.io.spool import Spool
from cosremaster.progress import Progress
from cosremaster.sandbox.architecture import check_architecture
from cosremaster.sandbox.collect import ChangeCollector
from cosremaster.sandbox.feed import send_files, send_tree
from cosremaster.sandbox.ids import IdMap, IdMapError, choose_id_map
from cosremaster.sandbox.lines import LineSplitter
from cosremaster.sandbox.model import IdChoice, Output, ScriptChanges, ScriptReport, ScriptRun
from cosremaster.sandbox.network import proxy_environment
from cosremaster.sandbox.process import WorkerProcess, default_place
from cosremaster.sandbox.proxy import NetworkUse, Proxy
from cosremaster.sandbox.reach import Reach
from cosremaster.sandbox.refusals import describe_bound
from cosremaster.sandbox.settings import Bounds, make_setup
from cosremaster.sandbox.wire import FrameKind, FrameWire, WireError
from cosremaster.tree.nodes import Node

_PROBE_SIZE = 1 << 20


@cache
def probe(choice: IdChoice) -> IdMap:
    """Return how this machine keeps owners, after a try of all that a script needs.

    :raises SandboxError: it refuses something; the message says what, and what would help.
    """
    ids = choose_id_map(choice)
    try:
        _try_namespaces(ids)
    except IdMapError as error:
        if choice != "auto":
            raise SandboxError(f"{error.message}; --run-ids single needs none") from error
        ids = IdMap("single", os.geteuid(), os.getegid(), note=f"owners were recorded instead of set: {error.message}")
        _try_namespaces(ids)
    return ids


def _try_namespaces(ids: IdMap) -> None:
    """Make what a script needs, with ``ids``, and throw it away. Raises as :func:`probe`."""
    with WorkerProcess(ids) as worker:
        worker.set_up({
            "purpose": "probe", "place": default_place(), "is_directory": False, "size": _PROBE_SIZE, "inodes": 16,
            "processes": 0,
        })  # fmt: skip
        worker.receive(FrameKind.READY)


def check_run(run: ScriptRun) -> None:
    """Check that this machine lets ``run`` happen, before any work is done. Raises as :func:`probe`."""
    probe(run.ids)
    if run.directory is not None and not os.access(run.directory, os.W_OK | os.X_OK):
        raise OutputError(
            "no file system can be put here: it is no directory, or not writable", Place((str(run.directory),))
        )


def run_script(
    tree: Mapping[bytes, Node], run: ScriptRun, spool: Spool, progress: Progress, output: Output
) -> ScriptChanges:
    """Run ``run`` in the file system ``tree``; contents of what it changes go into ``spool``.

    :raises SandboxError: this machine does not let it run. :raises ScriptError: it failed, took too long, or passed
        the bounds of its file system. :raises OverlayError: the user's files cannot be read.
    """
    check_run(run)
    check_architecture(tree)
    ids, bounds = probe(run.ids), Bounds.of(run, tree)
    reach = Reach(run.network_allow) if run.network else None
    variables = proxy_environment(loopback_allowed=reach.includes_loopback) if reach is not None else ()
    with _make_place(run, ids) as place, WorkerProcess(ids) as worker:
        worker.set_up(make_setup(run, tree, place, bounds, ids.way, variables))
        collector = ChangeCollector(tree, spool, run.max_mtime)
        try:
            with progress.step("unpack for the script", bounds.content) as advance:
                send_files(run.files, worker.wire)
                send_tree(tree, worker.wire, advance)
        except WireError:
            worker.raise_failure()
        return ScriptSession(run, ids, bounds, worker, output).finish(collector, reach)


@contextmanager
def _make_place(run: ScriptRun, ids: IdMap) -> Iterator[str]:
    """Yield the directory that the worker goes to: one to mount over, or an own one in that of ``run``.

    The ids inside cannot pass the outer of its two directories but from where the worker stands, and nobody else can.
    """
    if run.directory is None:
        yield default_place()
        return
    try:
        outer = tempfile.mkdtemp(prefix=".cosremaster-run-", dir=os.path.realpath(run.directory))
        inner = os.path.join(outer, "root")
        os.mkdir(inner)
        os.chmod(inner, 0o777)  # noqa: S103 - the ids inside own nothing here
    except OSError as error:
        raise OutputError(f"cannot be written to: {error.strerror}", Place((str(run.directory),))) from error
    try:
        yield inner
    finally:
        if os.listdir(inner):
            with WorkerProcess(ids) as worker:
                worker.set_up({
                    "purpose": "clean", "place": inner, "is_directory": True, "size": 0, "inodes": 0, "processes": 0,
                })  # fmt: skip
                worker.receive(FrameKind.READY)
        shutil.rmtree(outer, ignore_errors=True)


class ScriptHost(Protocol):
    """What a script runs in: a worker process, or a virtual machine."""

    @property
    def wire(self) -> FrameWire:
        """Frames from it."""
        ...

    output: int
    """A descriptor at which arrives what the script prints."""

    def fileno(self) -> int:
        """Return the descriptor at which frames arrive."""
        ...

    def receive(self, *kinds: FrameKind) -> tuple[FrameKind, Any]:
        """Return the next frame. Raises as :meth:`raise_failure`."""
        ...

    def raise_failure(self) -> NoReturn:
        """Raise what ended it, which speaks no more."""
        ...

    def receive_descriptor(self) -> int:
        """Return the descriptor of a listening socket: the network of the script."""
        ...


class ScriptSession:
    """A script that runs in the ``worker``, seen from outside."""

    def __init__(self, run: ScriptRun, ids: IdMap, bounds: Bounds, worker: ScriptHost, output: Output) -> None:
        """Watch over ``run``."""
        self._run, self._ids, self._bounds, self._worker, self._output = run, ids, bounds, worker, output
        self._notes = [ids.note] if ids.note else []

    def finish(self, collector: ChangeCollector, reach: Reach | None) -> ScriptChanges:
        """Run the script to its end, and let ``collector`` take what it changed. Raises as :func:`run_script`.

        ``reach``: where its requests may lead; None if it has no network.
        """
        with ExitStack() as stack:
            self._worker.receive(FrameKind.STARTED)
            if reach is not None:
                proxy = stack.enter_context(Proxy(socket.socket(fileno=self._worker.receive_descriptor()), reach))
                stack.callback(lambda: self._notes.extend(_describe_use(proxy.use())))
            started = time.monotonic()
            code, bound, displaced = self._watch(None if self._run.timeout is None else started + self._run.timeout)
            seconds = time.monotonic() - started
        if code and not self._run.interactive:
            raise self._failure(code, bound)
        if not code:
            try:
                collector.receive(self._worker.wire)
            except WireError:
                self._worker.raise_failure()
        if bound:
            self._notes.append(f"at its end {describe_bound(bound, self._bounds.size, self._bounds.inodes)}")
        self._note_losses(displaced, collector)
        report = ScriptReport(
            way=self._ids.way, exit_code=code if code >= 0 else 128 - code, seconds=seconds, notes=tuple(self._notes)
        )
        return ScriptChanges(tuple(collector.nodes), tuple(sorted(set(collector.removed))), report)

    def _failure(self, code: int, bound: str) -> ScriptError:
        """Return the error for a script that ended with ``code``, negative for a signal."""
        end = f"signal {-code} ended it" if code < 0 else f"it ended with exit code {code}"
        if code == -signal.SIGSYS:
            end += " (a program of an architecture that cannot run here)"
        full = f"; {describe_bound(bound, self._bounds.size, self._bounds.inodes)}" if bound else ""
        return ScriptError(end + full, exit_status=128 - code if code < 0 else code)

    def _note_losses(self, displaced: list[bytes], collector: ChangeCollector) -> None:
        """Note what the script saw otherwise than on the real system, and what is not taken over."""
        for path in displaced:
            self._notes.append(
                f"/{printable(path)} was an empty directory meanwhile, and stays what it is in the image"
            )
        for word, sentence in _DROPPED.items():
            paths = [printable(path) for kind, path in collector.dropped if kind == word]
            if paths:
                more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
                self._notes.append(f"{sentence}: {', '.join(paths[:3])}{more}")

    def _watch(self, deadline: float | None) -> tuple[int, str, list[bytes]]:
        """Pass on what the script prints until it ends. Return its code, a bound that was reached, displaced paths.

        This is the watchdog: whatever the script does to processes inside, none of them can hold up this one.

        :raises ScriptError: the time is over.
        """
        lines, printed, frames = LineSplitter(), self._worker.output, self._worker.fileno()
        waiting = {printed, frames}
        result: tuple[int, str, list[bytes]] | None = None
        while result is None or printed in waiting:
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select(waiting, (), (), rest)
            if not ready and result is None:
                raise ScriptError(f"it took longer than {self._run.timeout:g} seconds, and was ended")
            if printed in ready:
                data = os.read(printed, 1 << 16)
                for line in lines.take(data) if data else lines.finish():
                    self._output(line)
                if not data:
                    waiting.discard(printed)
            if frames in ready:
                result = self._worker.receive(FrameKind.ENDED)[1]
                waiting.discard(frames)
        return result


def _describe_use(use: NetworkUse) -> Iterator[str]:
    """Yield sentences about the servers that a script reached, and those that it was refused."""
    if use.requests:
        yield "servers that it reached: " + ", ".join(f"{name} ({count:,})" for name, count in use.requests.items())
    if use.refused:
        yield "servers that it was refused: " + ", ".join(use.refused)


_DROPPED = {
    "socket": "sockets are not taken over, as they mean nothing without the process behind them",
    "whiteout": "character devices 0:0 are not taken over, as stacked file systems take them for removals",
}
