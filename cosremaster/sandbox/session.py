"""Run a script in a file system, and return what it changed."""

from __future__ import annotations

import os
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NoReturn, Protocol

from cosremaster.errors import OutputError, Place, SandboxError, ScriptError
from cosremaster.io.spool import Spool
from cosremaster.progress import Progress
from cosremaster.records import replace
from cosremaster.sandbox.architecture import check_architecture
from cosremaster.sandbox.collect import ChangeCollector
from cosremaster.sandbox.feed import send_files, send_tree
from cosremaster.sandbox.ids import IdMap, IdMapError, choose_id_map
from cosremaster.sandbox.lines import LineSplitter
from cosremaster.sandbox.model import IdChoice, Output, ScriptChanges, ScriptReport, ScriptRun, Way
from cosremaster.sandbox.network import proxy_environment
from cosremaster.sandbox.notes import describe_bound, describe_losses, describe_use, make_end_error
from cosremaster.sandbox.process import WorkerProcess, default_place, raise_worker_failure
from cosremaster.sandbox.proxy import Proxy
from cosremaster.sandbox.reach import Reach
from cosremaster.sandbox.settings import Bounds, make_setup
from cosremaster.sandbox.terminal import TerminalRelay
from cosremaster.sandbox.wire import FailureError, FrameKind, FrameWire, WireError
from cosremaster.tree.nodes import Node

_PROBE_SIZE = 1 << 20
_LAST_LINES_TIME = 60.0
"""Seconds that the last lines of a script may take when it has ended."""


@cache
def probe(choice: IdChoice, user: int) -> IdMap:
    """Return how this machine keeps owners for the effective ``user``, after a try of all that a script needs.

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


def check_run(run: ScriptRun) -> Way:
    """Check that this machine lets ``run`` happen, before any work is done, and return how owners are kept.

    Raises as :func:`probe`.
    """
    way = probe(run.ids, os.geteuid()).way
    if run.directory is not None:
        place = Place((str(run.directory),))
        if not os.path.isdir(run.directory) or not os.access(run.directory, os.W_OK | os.X_OK):
            raise OutputError("the file system of a script cannot be put here: no directory, or not writable", place)
        if os.statvfs(run.directory).f_flag & (os.ST_NOEXEC | os.ST_NOSUID):
            raise OutputError("the file system of a script cannot be put here: it is mounted noexec or nosuid", place)
    return way


def run_script(
    tree: Mapping[bytes, Node], run: ScriptRun, spool: Spool, progress: Progress, output: Output
) -> ScriptChanges:
    """Run ``run`` in the file system ``tree``; contents of what it changes go into ``spool``.

    :raises SandboxError: this machine does not let it run. :raises ScriptError: it failed, took too long, or passed
        the bounds of its file system. :raises OverlayError: the user's files cannot be read.
    """
    check_run(run)
    check_architecture(tree)
    if run.interactive and not os.isatty(0):
        run = replace(run, interactive=False, program=_read_standard_input())
    ids, bounds = probe(run.ids, os.geteuid()), Bounds.of(run, tree)
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


def _read_standard_input() -> bytes:
    """Return what is piped to a shell: the text of a script then."""
    with open(0, "rb", closefd=False) as file:
        return file.read()


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
        code, bound, displaced = 0, "", list[bytes]()
        with ExitStack() as stack:
            self._worker.receive(FrameKind.STARTED)
            if reach is not None:
                proxy = stack.enter_context(Proxy(socket.socket(fileno=self._worker.receive_descriptor()), reach))
                stack.callback(lambda: self._notes.extend(describe_use(proxy.use())))
            started = time.monotonic()
            if self._run.interactive:
                relay = stack.enter_context(TerminalRelay(self._worker.receive_descriptor()))
                self._pass_terminal_on(relay)
            else:
                self._watch(None if self._run.timeout is None else started + self._run.timeout)
            code, bound, displaced = self._worker.receive(FrameKind.ENDED)[1]
            seconds = time.monotonic() - started
        error = make_end_error(code, bound, self._bounds)
        if error is not None:
            raise error
        if not code:
            self._collect(collector)
        if bound:
            self._notes.append(f"at its end {describe_bound(bound, self._bounds)}")
        self._notes += describe_losses(displaced, collector.dropped)
        report = ScriptReport(way=self._ids.way, exit_code=code, seconds=seconds, notes=tuple(self._notes))
        return ScriptChanges(tuple(collector.nodes), tuple(sorted(set(collector.removed))), report)

    def _collect(self, collector: ChangeCollector) -> None:
        """Let ``collector`` take what the script changed. Raises as :func:`run_script`."""
        try:
            collector.receive(self._worker.wire)
            if self._run.directory is not None:
                self._worker.receive(FrameKind.READY)  # it has removed what is there
        except FailureError as failure:
            raise_worker_failure(*failure.args)
        except WireError:
            self._worker.raise_failure()

    def _watch(self, deadline: float | None) -> None:
        """Pass on what the script prints until it has ended, and nothing is left that could print.

        This is the watchdog: whatever the script does to processes inside, none of them can hold up this one.

        :raises ScriptError: the time is over.
        """
        lines, printed, frames = LineSplitter(), self._worker.output, self._worker.fileno()
        waiting = {printed, frames}
        while waiting:
            has_ended = frames not in waiting
            rest = (
                _LAST_LINES_TIME if has_ended else None if deadline is None else max(0.0, deadline - time.monotonic())
            )
            ready, _, _ = select.select(waiting, (), (), rest)
            if not ready and has_ended:  # nobody inside is alive, so nothing can come: a machine lies
                return
            if not ready:
                raise ScriptError(f"it took longer than {self._run.timeout:g} seconds and was ended")
            if frames in ready:  # the frame is received when the output has ended
                waiting.discard(frames)
            if printed in ready:
                data = os.read(printed, 1 << 16)
                for line in lines.take(data) if data else lines.finish():
                    self._output(line)
                if not data:
                    waiting.discard(printed)

    def _pass_terminal_on(self, relay: TerminalRelay) -> None:
        """Pass keys and text on until the shell ends."""
        frames = self._worker.fileno()
        while True:
            ready, _, _ = select.select((*relay.descriptors, frames), (), ())
            for fd in relay.descriptors & set(ready):
                relay.pass_on(fd)
            if ready == [frames]:
                return
