"""`cosremaster serve --workers`: several processes that behave as one server, whichever answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.serve.listen import Address, open_socket
from tests.fixtures.tools import require_module
from tests.support.serving import Server, serve, write_images, write_recipes
from tests.support.small import write_small

WORKERS = 3


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a server started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_until(holds: Callable[[], bool]) -> None:
    """Returns when it does."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process runs still."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@contextlib.contextmanager
def connections(server: Server, count: int) -> Iterator[list[http.client.HTTPConnection]]:
    """So many connections to a server, which share its processes."""
    opened = []
    for _ in range(count):
        opened.append(http.client.HTTPConnection("127.0.0.1", server.port, timeout=120))
        opened[-1].request("GET", "/healthz")
        assert opened[-1].getresponse().read() == b"ok\n"
    yield opened
    for each in opened:
        each.close()


def get(connection: http.client.HTTPConnection, path: str, **fields: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request."""
    connection.request("GET", path, headers=fields)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def read_metrics(connection: http.client.HTTPConnection) -> dict[str, float]:
    """The metrics by their names."""
    lines = get(connection, "/metrics")[2].decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


@pytest.fixture(scope="module", autouse=True)
def _needs_a_server() -> None:
    require_module("uvicorn")
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("needs /proc")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("workers")
    return write_recipes(folder, write_small(folder, extra={"pad": bytes(range(256)) * 4000}), 2)


@pytest.fixture
def server(recipes: list[Path]) -> Iterator[Server]:
    with serve(recipes, "--workers", str(WORKERS)) as running:
        yield running


def test_each_worker_answers_the_same(server: Server, recipes: list[Path]) -> None:
    """And metrics are those of all."""
    images = {name: path.read_bytes() for name, path in write_images(recipes).items()}
    assert len(children_of(server.process)) == WORKERS
    heads, ranges = set(), 0
    with contextlib.ExitStack() as stack:
        opened: list[http.client.HTTPConnection] = []
        planned = 0.0
        while planned < WORKERS * len(images):  # a busy machine may give one of them none at first
            assert len(opened) < 20 * WORKERS
            opened += stack.enter_context(connections(server, WORKERS))
            for connection in opened[-WORKERS:]:
                for name, data in images.items():
                    status, fields, body = get(connection, f"/{name}.iso")
                    assert (status, body) == (200, data)
                    heads.add((name, fields["etag"], fields["last-modified"]))
                    assert get(connection, f"/{name}.iso", Range="bytes=1000-70999")[2] == data[1000:71000]
                    ranges += 1
            planned = read_metrics(opened[0])["cosremaster_planned_sites"]
        assert len(heads) == len(images)

        def count_ranges() -> set[float]:
            name = 'cosremaster_answers_total{method="GET",status="206"}'
            return {read_metrics(connection)[name] for connection in opened}

        wait_until(lambda: count_ranges() == {ranges})  # each counts an answer a moment behind its last byte
        metrics = read_metrics(opened[0])
    assert metrics["cosremaster_sites"] == len(images)
    assert metrics["cosremaster_planned_sites"] == metrics["cosremaster_plans_total"] == WORKERS * len(images)
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert sum(line["status"] == 206 for line in lines) == ranges
    assert {line["event"] for line in lines} == {"answer"}


def test_a_dead_worker_is_replaced(server: Server) -> None:
    """Requests go on meanwhile, and nothing that was counted is lost."""
    before = children_of(server.process)
    with connections(server, 2 * WORKERS) as opened:
        for connection in opened:
            assert get(connection, "/site-0.iso", Range="bytes=0-9")[0] == 206
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: not is_running(before[0]))
        others = 0
        for connection in opened:
            with contextlib.suppress(OSError, http.client.HTTPException):
                others += get(connection, "/site-0.iso", Range="bytes=0-9")[0] == 206
        assert 0 < others <= 2 * WORKERS
    wait_until(lambda: len(children_of(server.process)) == WORKERS)
    assert set(before[1:]) < set(children_of(server.process))
    with connections(server, 1) as (connection,):
        name, count = 'cosremaster_answers_total{method="GET",status="206"}', 2 * WORKERS + others
        wait_until(lambda: read_metrics(connection)[name] == count)
        wait_until(lambda: read_metrics(connection)["cosremaster_answers_in_progress"] == 1)
    assert server.stop() == 0
    faults = [line for line in map(json.loads, server.log.read_text().splitlines()) if line["event"] == "fault"]
    assert [line["error"] for line in faults] == [
        f"server process {before[0]} was ended by SIGKILL; another takes its place"
    ]


def test_an_end_is_orderly(tmp_path: Path) -> None:
    """Answers are completed, new connections refused, no process is left, and the port is free."""
    recipes = write_recipes(tmp_path, write_small(tmp_path, extra={"pad": bytes(1 << 24)}), 1)
    image = write_images(recipes)["site-0"].read_bytes()
    with serve(recipes, "--workers", "2") as server:
        pids = children_of(server.process)
        with connections(server, 2) as opened:
            answers = []
            for connection in opened:
                connection.request("GET", "/site-0.iso")
                response = connection.getresponse()
                answers.append((response, response.read(10)))
            server.process.terminate()

            def is_refused() -> bool:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 5) as tried:
                    return tried.recv(1) == b""
                return True

            wait_until(is_refused)
            assert [first + response.read() for response, first in answers] == [image, image]
        assert server.process.wait() == 0
        assert not any(map(is_running, pids))
        open_socket(Address("127.0.0.1", server.port)).close()
        assert server.process.stderr is not None
        assert server.process.stderr.read() == "stopped\n"


def test_an_end_is_orderly_from_the_first_line_on(recipes: list[Path]) -> None:
    with serve(recipes, "--workers", "2") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.stderr is not None
        assert (server.process.wait(), server.process.stderr.read()) == (0, "stopped\n")


def test_workers_end_with_who_started_them(server: Server) -> None:
    pids = children_of(server.process)
    server.process.kill()
    wait_until(lambda: not any(map(is_running, pids)))
    open_socket(Address("127.0.0.1", server.port)).close()


def test_workers_that_die_at_once_end_the_server(server: Server) -> None:
    """With the code of an output that cannot be: a supervisor of services may start it anew."""
    while server.process.poll() is None:
        with contextlib.suppress(OSError):
            for pid in children_of(server.process):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    assert server.process.stderr is not None
    assert re.fullmatch(
        r"cosremaster: server processes die again and again; the last, server process \d+ was ended by SIGKILL\n",
        server.process.stderr.read(),
    )
    assert server.process.returncode == 8


def test_lines_of_all_are_whole(recipes: list[Path]) -> None:
    """In a pipe, where a long write may be cut anywhere; its reader is slow."""
    argv = [
        sys.executable,
        "-m",
        "cosremaster",
        "serve",
        *map(str, recipes),
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "2",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        server = Server(process.stderr.readline().split()[-1], process, Path())

        def ask() -> None:
            with connections(server, 1) as (connection,):
                for _ in range(1500):
                    assert get(connection, "/gone", **{"User-Agent": "a" * 200})[0] == 404

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        process.terminate()
        lines = [json.loads(line) for line in process.stdout]
        assert process.wait() == 0
    assert len(lines) == 4 * 1501


def test_limits_are_those_of_the_whole_server(recipes: list[Path]) -> None:
    with serve(recipes, "--workers", "2", "--connections", "5") as server, connections(server, 5) as opened:
        with socket.create_connection(("127.0.0.1", server.port)) as refused:
            refused.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert refused.recv(1) == b""
        assert read_metrics(opened[0])["cosremaster_refused_connections_total"] == 1


def test_tokens_and_changes_count_for_each_worker(tmp_path: Path) -> None:
    """Each reads the file of tokens again when it changed, as does a worker that takes the place of another."""
    recipes = write_recipes(tmp_path, write_small(tmp_path), 1)
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef\n")
    with serve(recipes, "--workers", "2", "--token-file", str(tokens), "--log", str(tmp_path / "log")) as server:
        tokens.write_text("0123456789abcdeX\n")
        pids = children_of(server.process)
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: not is_running(pids[0]) and len(children_of(server.process)) == 2)
        path = "/s/0123456789abcdeX/site-0.iso"

        def statuses() -> set[tuple[int, int]]:
            with connections(server, 4) as opened:
                return {(get(each, path)[0], get(each, "/s/0123456789abcdef/site-0.iso")[0]) for each in opened}

        wait_until(lambda: statuses() == {(200, 404)})

        def etags() -> list[str]:
            with connections(server, 4) as opened:
                assert {get(connection, "/site-0.iso")[0] for connection in opened} == {401}
                return [get(connection, path)[1]["etag"] for connection in opened]

        wait_until(lambda: len(set(etags())) == 1)
        before = etags()[0]
        (tmp_path / "site-0/etc/hostname").write_text("other\n")
        wait_until(lambda: len(after := set(etags())) == 1 and before not in after)
        assert server.stop() == 0
    log = (tmp_path / "log").read_text()
    assert "0123456789abcde" not in log and '"path":"/s/***/site-0.iso","status":200' in log


def test_faults_of_the_command_are_those_of_a_single_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (recipe,) = write_recipes(tmp_path, write_small(tmp_path), 1)
    (tmp_path / "fleet.toml").write_text('base = "in.iso"\noutput = "${NAME}.iso"\nfault = 1\n[[site]]\nname = "a"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for words, code in [
            ([str(recipe), "--listen", address], 8),
            ([str(recipe), "--listen", "8080"], 2),
            ([str(tmp_path / "fleet.toml")], 2),
            ([str(tmp_path / "gone.toml")], 2),
            ([str(recipe), "--token-file", str(tmp_path / "gone")], 2),
            ([str(recipe), "--log", str(tmp_path / "a/b"), "--listen", "127.0.0.1:0"], 8),
        ]:
            assert main(["serve", *words]) == code
            single = capsys.readouterr()
            assert main(["serve", *words, "--workers", "2"]) == code
            assert capsys.readouterr() == single
    assert main(["serve", str(recipe), "--workers", "0"]) == 2
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "cosremaster.serve.server")
    assert main(["serve", str(recipe), "--workers", "2"]) == 5
