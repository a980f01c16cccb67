"""What server processes share, and how they are kept running; their connections come from no network here."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cosremaster.cli.serve_workers import ServeSetup, decode_setup
from cosremaster.errors import OutputError
from cosremaster.serve import fair_accept, worker_pool
from cosremaster.serve.access_log import TornLineError
from cosremaster.serve.clients import Clients
from cosremaster.serve.fair_accept import FairAcceptor
from cosremaster.serve.listen import Address, ServerLimits, open_socket
from cosremaster.serve.metrics import CELL, ROW, Metrics
from cosremaster.serve.shared_state import SharedState
from cosremaster.serve.tokens import TokenList
from cosremaster.serve.worker_pool import PoolEvents, WorkerPool, WorkerStart

SETUP = ServeSetup(("a.toml", "b\udcff"), TokenList(("x" * 16,), "tokens"), None, 5, ServerLimits(7), 2, 1, "ab")


def rows(count: int) -> list[memoryview]:
    """Rows of numbers, for so many processes."""
    return [memoryview(bytearray(ROW * CELL)).cast("q") for _ in range(count)]


def test_processes_share_what_they_count() -> None:
    state = SharedState.create(3, SETUP.encode())
    try:
        other = SharedState(state.fd)
        assert decode_setup(other.setup) == SETUP
        first, second = state.metrics(0), other.metrics(1)
        first.count_answer("GET", 206, 100)
        second.count_answer("GET", 206, 50)
        second.count_answer("POST", 405, 0)
        second.count_answer("HEAD", 0, 0)  # it was cut before it had a status
        second.planning_microseconds += 1_500_000
        first.in_progress, second.in_progress = 3, 2
        third = state.metrics(2)
        lines = [line for line in third.lines({"sites": ("Sites.", 9)}) if not line.startswith("#")]
        assert lines[:3] == [
            'cosremaster_answers_total{method="GET",status="206"} 2',
            'cosremaster_answers_total{method="HEAD",status="0"} 1',
            'cosremaster_answers_total{method="other",status="405"} 1',
        ]
        assert {
            "cosremaster_sites 9", "cosremaster_sent_bytes_total 150", "cosremaster_answers_in_progress 5",
            "cosremaster_planning_seconds_total 1.5",
        } <= set(lines)  # fmt: skip
        state.metrics(1).end_process()  # what it counted stays, what was now is not now
        assert (third.total("sent_bytes"), third.total("in_progress")) == (150, 3)
        assert dict(first.answers) == {("GET", 206): 1}
    finally:
        state.close()


def test_a_line_that_is_not_complete_is_ended() -> None:
    """As where a process is killed while it writes."""
    state = SharedState.create(1, b"")
    written: list[str] = []

    def fail(text: str) -> None:
        raise TornLineError(28, text)

    with pytest.raises(OSError, match="torn"):
        state.in_turn(fail)("torn")
    for text in ("a\n", "b\n"):
        state.in_turn(written.append)(text)
    assert written == ["\na\n", "b\n"]
    state.close()


def test_a_process_writes_when_no_other_does(tmp_path: Path) -> None:
    state = SharedState.create(1, b"")
    code = (
        "import sys; from cosremaster.serve.shared_state import SharedState; w = SharedState(int(sys.argv[1]))"
        ".in_turn(lambda text: (print('in', flush=True), sys.stdin.read())); w('')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(state.fd)], pass_fds=[state.fd], stdin=-1, stdout=-1, env=os.environ
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        is_written = threading.Event()
        thread = threading.Thread(target=state.in_turn(lambda _: is_written.set()), args=("",))
        thread.start()
        assert not is_written.wait(0.3)
        process.kill()  # the kernel gives its turn away
        assert is_written.wait(60)
        thread.join()
    state.close()


def test_limits_of_connections_are_those_of_all_processes() -> None:
    shared = rows(2)
    limits = ServerLimits(connections=5, per_client=3)
    first, second = (Clients(Metrics(shared, index), limits, b"key") for index in (0, 1))
    assert [first.add("10.0.0.1"), second.add("10.0.0.1"), first.add("10.0.0.1")] == [True] * 3
    assert not second.add("10.0.0.1")  # it is the client's fourth
    second.remove("10.0.0.1")
    assert [second.add("10.0.0.2"), first.add("10.0.0.3")] == [True] * 2
    assert not first.add("10.0.0.4")  # it is the sixth of all
    first.remove("10.0.0.4")
    assert Metrics(shared).total("refused_clients") == 2
    Metrics(shared, 1).end_process()  # the second is dead
    assert [first.add("10.0.0.1"), first.add("10.0.0.5")] == [True] * 2


class Connections:
    """A process that waits for connections of a socket beside another that has so many."""

    def __init__(self, other: int, *, is_accepting: bool = True) -> None:
        shared = rows(2)
        self.metrics, others = Metrics(shared, 0), Metrics(shared, 1)
        others.connections, others.is_accepting = other, int(is_accepting)
        self.listener = open_socket(Address("127.0.0.1", 0))
        self.address = self.listener.getsockname()

    async def take(self, count: int) -> list[float]:
        """The seconds that each of so many connections waits, one after another; the listener is closed then."""
        times: list[float] = []
        metrics, begun = self.metrics, 0.0

        class Counted(asyncio.Protocol):
            def connection_made(self, _: asyncio.BaseTransport) -> None:
                metrics.connections += 1
                times.append(time.monotonic() - begun)

        acceptor = FairAcceptor(self.listener, Counted, metrics)
        acceptor.start()
        assert metrics.is_accepting == 1
        clients = []
        for number in range(count):
            begun = time.monotonic()
            clients.append(socket.create_connection(self.address))
            while len(times) == number:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
        acceptor.stop()
        assert (metrics.is_accepting, self.listener.fileno()) == (0, -1)
        for client in clients:
            client.close()
        return times


@pytest.mark.parametrize(("other", "delayed"), [(0, 3), (2, 1), (3, 0), (100, 0)])
def test_connections_are_left_to_who_has_fewer(other: int, delayed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not for ever: who has fewer may be busy."""
    monkeypatch.setattr(fair_accept, "DEFERRAL", 1.0)
    times = asyncio.run(Connections(other).take(4))
    assert sum(seconds > 0.8 for seconds in times) == delayed


def test_nothing_is_left_to_who_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_accept, "DEFERRAL", 3600)
    assert len(asyncio.run(Connections(0, is_accepting=False).take(5))) == 5


def test_descriptors_that_are_used_up_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_accept, "NO_DESCRIPTORS", 0.1)
    connections = Connections(5)

    class Failing(socket.socket):
        failures = 2

        def accept(self) -> tuple[socket.socket, object]:
            if Failing.failures:
                Failing.failures -= 1
                raise OSError(24, "Too many open files")
            return super().accept()

    connections.listener = Failing(fileno=connections.listener.detach())
    (seconds,) = asyncio.run(connections.take(1))
    assert Failing.failures == 0 and seconds > 0.15


class Kept:
    """A pool of processes that run a line of Python, which has `number` and `ready()`; and what happens."""

    PRELUDE = (
        "import os, sys, time, signal; number, _, _, control, fd = map(int, sys.argv[1:])\n"
        "def ready(): os.write(fd, b'.')\n"
    )

    def __init__(self, code: str, count: int, folder: Path) -> None:
        self.happened: list[str] = []
        self.on_ready: Callable[[], object] = lambda: None
        self.on_death: Callable[[], object] = lambda: None
        self._file = (folder / "descriptor").open("w")
        fd = self._file.fileno()
        start = WorkerStart((sys.executable, "-c", self.PRELUDE + code), fd, fd)
        events = PoolEvents(self._begin, self._die, lambda: self.happened.append("stop"))
        self.pool = WorkerPool(start, count, 1.0, events)

    def _begin(self) -> None:
        self.happened.append("ready")
        self.on_ready()

    def _die(self, index: int, reason: str) -> None:
        self.happened.append(f"{index}: {reason.partition('; ')[0].partition(' process ')[2].partition(' ')[2]}")
        self.on_death()

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.pool._workers.values()]

    def run(self) -> list[str]:
        """Runs it until it ends."""
        try:
            self.pool.run()
        finally:
            self._file.close()
        assert self.pids() == []
        return self.happened


def end() -> None:
    """Ends this pool, as systemd does."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_all_are_ready_before_that_is_said_and_end_in_order(tmp_path: Path) -> None:
    kept = Kept("time.sleep(0.3 * number); ready(); os.read(control, 1)", 3, tmp_path)
    begun, times = time.monotonic(), []

    def note_time() -> None:
        times.append(time.monotonic() - begun)
        end()

    kept.on_ready = note_time
    happened = kept.run()
    assert happened[:2] == ["ready", "stop"] and times[0] > 0.6
    assert sorted(happened[2:]) == ["0: ", "1: ", "2: "]


def test_a_dead_process_is_replaced(tmp_path: Path) -> None:
    kept = Kept("ready(); time.sleep(3600)", 2, tmp_path)
    kept.on_ready = lambda: os.kill(kept.pids()[1], signal.SIGKILL)
    kept.on_death = lambda: threading.Timer(2.0, end).start() if len(kept.happened) == 2 else None
    happened = kept.run()
    assert happened[:3] == ["ready", "1: was ended by SIGKILL", "stop"]
    assert sorted(happened[3:]) == ["0: ", "1: "]


def test_processes_that_die_again_and_again_end_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "LONGEST_PAUSE", 0.1)
    mark = tmp_path / "mark"
    waiting = f"ready()\nwhile not (number and os.path.exists({str(mark)!r})): time.sleep(0.01)\nsys.exit(3)"
    kept = Kept(waiting, 2, tmp_path)
    kept.on_ready = mark.touch
    with pytest.raises(OutputError, match=r"die again and again; the last, server process \d+ ended with code 3"):
        kept.run()
    assert kept.happened == ["ready", *["1: ended with code 3"] * worker_pool.MOST_QUICK_ENDS, "stop", "0: "]


def test_a_process_that_cannot_begin_while_others_serve_is_tried_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a fleet may have faults for a while, and the sites stay what they were."""
    monkeypatch.setattr(worker_pool, "LONGEST_PAUSE", 0.1)
    mark = tmp_path / "mark"
    code = f"number and os.path.exists({str(mark)!r}) and sys.exit(2); ready(); os.read(control, 1)"
    kept = Kept(code, 2, tmp_path)

    def break_second() -> None:
        mark.write_text("")
        os.kill(kept.pids()[1], signal.SIGKILL)

    def look() -> None:
        if mark.exists() and kept.happened.count("1: ended with code 2") == 2 * worker_pool.MOST_QUICK_ENDS:
            mark.unlink()
            threading.Timer(2.0, end).start()

    kept.on_ready, kept.on_death = break_second, look
    happened = kept.run()
    assert happened.count("1: ended with code 2") == 2 * worker_pool.MOST_QUICK_ENDS
    assert sorted(happened[-3:]) == ["0: ", "1: ", "stop"]  # both were running in the end


def test_a_process_that_dies_before_it_is_ready_ends_all(tmp_path: Path) -> None:
    kept = Kept("number and sys.exit(70); ready(); os.read(control, 1)", 2, tmp_path)
    with pytest.raises(OutputError, match=r"server process \d+ ended with code 70 before it was ready"):
        kept.run()
    assert "ready" not in kept.happened


def test_processes_that_do_not_end_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "END_MARGIN", 0.0)
    ignoring = "for each in (signal.SIGTERM, signal.SIGINT): signal.signal(each, signal.SIG_IGN)\n"
    kept = Kept(f"{ignoring}ready(); time.sleep(3600)", 2, tmp_path)
    begun = time.monotonic()
    kept.on_ready = end
    assert kept.run() == ["ready", "stop"]
    assert time.monotonic() - begun >= 1.0


def test_a_second_ctrl_c_ends_them_at_once(tmp_path: Path) -> None:
    hanging = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    kept = Kept(f"{hanging}ready(); time.sleep(3600)", 2, tmp_path)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    kept.on_ready = interrupt
    begun = time.monotonic()
    happened = kept.run()
    assert happened[:2] == ["ready", "stop"] and sorted(happened[2:]) == ["0: ", "1: "]
    assert time.monotonic() - begun < 1.0 + worker_pool.END_MARGIN


def test_no_room_for_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept("", 1, tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(OutputError, match="no server process can be started: Resource temporarily unavailable"):
        kept.run()
