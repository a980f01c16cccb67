"""`cosremaster serve` by several processes: the one that was called, which serves nothing, and its workers.

A worker is a fresh interpreter. What it is to serve it reads in the memory that all share, tokens among it where they
come from no file, so that successors of workers serve by the same.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cosremaster.cli.entry import explain_failure
from cosremaster.cli.pause import spare_modules
from cosremaster.cli.serve_log import open_log
from cosremaster.cli.standard_streams import prepare_streams
from cosremaster.cli.verbosity import show_messages
from cosremaster.records.tuples import NamedTuple
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.app import PLANNERS, ServeApp
from cosremaster.serve.listen import ServerLimits
from cosremaster.serve.shared_state import SharedState
from cosremaster.serve.sites import SiteImages
from cosremaster.serve.tokens import TokenList
from cosremaster.serve.worker_pool import END_MARGIN, READY, PoolEvents, WorkerPool, WorkerStart

_START = (
    "import sys; sys.path[:] = {path!r}; from cosremaster.cli.serve_workers import run_worker;"
    " sys.exit(run_worker(sys.argv[1:]))"
)
_LEVELS = {logging.INFO: 1, logging.DEBUG: 2}


class ServeSetup(NamedTuple):
    """What is served, and how. ``verbosity``: that of messages, 2 for all; ``client_key``: for hashes of addresses."""

    files: tuple[str, ...]
    tokens: TokenList
    log_file: str | None
    plans: int
    limits: ServerLimits
    workers: int
    verbosity: int = 0
    client_key: str = ""

    @property
    def log_path(self) -> Path | None:
        """The file of the access log, None for standard output."""
        return None if self.log_file is None else Path(self.log_file)

    def encode(self) -> bytes:
        """Return it as bytes."""
        return json.dumps(self).encode()


def decode_setup(data: bytes) -> ServeSetup:
    """Return what :meth:`ServeSetup.encode` made ``data`` of."""
    files, (lines, place, path), log_file, plans, limits, workers, verbosity, client_key = json.loads(data)
    tokens = TokenList(tuple(lines), place, path)
    return ServeSetup(tuple(files), tokens, log_file, plans, ServerLimits(*limits), workers, verbosity, client_key)


def serve_by_workers(setup: ServeSetup, listener: socket.socket, on_ready: Callable[[], object]) -> None:
    """Serve by workers until a signal ends it; ``on_ready`` is called when all take connections of ``listener``.

    :raises OutputError: workers cannot be started, or die again and again.
    """
    write = open_log(setup.log_path)
    verbosity = _LEVELS.get(logging.getLogger("cosremaster").level, 0)
    setup = setup._replace(verbosity=verbosity, client_key=secrets.token_hex(16))
    state = SharedState.create(setup.workers + 1, setup.encode())
    log = AccessLog(state.in_turn(write), state.metrics(setup.workers))

    def note_death(index: int, reason: str) -> None:
        """Note that the worker ``index`` is no more, for a ``reason`` if it was not to end."""
        state.metrics(index).end_process()
        if reason:
            log.add("fault", error=reason)

    code = _START.format(path=sys.path)
    start = WorkerStart((sys.executable, "-c", code), listener.fileno(), state.fd)
    events = PoolEvents(on_ready, note_death, listener.close)
    try:
        WorkerPool(start, setup.workers, setup.limits.grace, events).run()
    finally:
        log.close()
        state.close()


def run_worker(words: Sequence[str]) -> int:
    """Serve as a worker until the pool ends it, and return the exit code; ``words`` are from there."""
    index, listener, state, control, ready = map(int, words)
    for fd in (listener, state, control, ready):
        os.set_inheritable(fd, False)  # programs that a plan runs do not get them
    prepare_streams()
    try:
        _serve(index, socket.socket(fileno=listener), SharedState(state), control, ready)
        sys.stdout.flush()
        return 0
    except Exception as error:
        return explain_failure(error, ["serve", "(worker)"])


def _serve(index: int, listener: socket.socket, state: SharedState, control: int, ready: int) -> None:
    """Serve as the worker ``index`` until the end of the pipe ``control`` or a signal; ``ready``: the pipe for that.

    :raises CosremasterError: it cannot begin.
    """
    from cosremaster.serve.catalogs import open_catalog  # noqa: PLC0415 - the pool has it already, or fails
    from cosremaster.serve.server import SharedListener, make_server  # noqa: PLC0415 - the same

    setup = decode_setup(state.setup)
    if setup.verbosity:
        show_messages(setup.verbosity)
    metrics = state.metrics(index)
    catalog = open_catalog(tuple(map(Path, setup.files)))
    catalog.names()
    log = AccessLog(state.in_turn(open_log(setup.log_path)), metrics)
    sites = SiteImages(catalog, setup.plans, metrics)
    planners = max(1, PLANNERS // setup.workers)
    app = ServeApp(sites, log, setup.tokens.open(), catalog.title, planners)
    key = bytes.fromhex(setup.client_key)
    server = make_server(app, setup.limits, SharedListener(listener, key, lambda: os.write(ready, READY)))

    def follow_pool() -> None:
        """End when the pool does: in order, or else after the time for that."""
        os.read(control, 1)
        server.should_exit = True
        threading.Event().wait(setup.limits.grace + END_MARGIN)
        os._exit(1)

    threading.Thread(target=follow_pool, name="pool", daemon=True).start()
    spare_modules()
    try:
        server.run()
    finally:
        log.close()
        sites.close()
