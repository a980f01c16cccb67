"""Images that are served without being written, beside nginx with the written ones; and how often bytes are read.

``COSREMASTER_BENCH_SERVED`` is the number of sites whose memory is measured, 1,000 by default;
``COSREMASTER_BENCH_SECONDS`` how long requests are sent, 5 by default. Small ones are enough for a trial.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from shlex import quote

from benchmarks import images
from benchmarks.fleet import write_base, write_fleet
from benchmarks.measure import Compared, Group, shell
from cosremaster.cli import main
from cosremaster.io.files import FileSource
from tests.support.range_server import serve_file

Side = Callable[[Path], float | None]

SITES = 20
SERVED = int(os.environ.get("COSREMASTER_BENCH_SERVED", "1000"))
SECONDS = int(os.environ.get("COSREMASTER_BENCH_SECONDS", "5"))
CLIENTS = 64
MEMORY = 64 << 10  # bytes of a site
LATENCY = 0.2  # seconds for a hundred ranges

_NGINX = """\
daemon off; worker_processes {workers}; user root; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; tcp_nopush off; keepalive_requests 100000000;
client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t;
scgi_temp_path {folder}/t; server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""
_CONSTANT = """\
async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"65536")]})
    await send({"type": "http.response.body", "body": BODY})
BODY = bytes(65536)
"""
_WRK = """\
math.randomseed(42)
request = function()
  local at = math.random(0, {size} - 65536)
  wrk.headers["Range"] = string.format("bytes=%d-%d", at, at + 65535)
  return wrk.format("GET", string.format("/site-%03d.iso", math.random(0, {sites} - 1)))
end
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("RESULT %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(99), failed))
end
"""


@contextlib.contextmanager
def _nginx(folder: Path, root: Path, workers: int = 1) -> Iterator[int]:
    """nginx with the files of ``root``, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, root=root, port=port, workers=workers))
        command = ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf", "-p", str(folder)]
        environment = {**os.environ, "NGINX": f"{listener.fileno()};"}  # it takes the port over
        process = subprocess.Popen(command, pass_fds=(listener.fileno(),), env=environment)
    yield from _until_the_end(process, port)


@contextlib.contextmanager
def _ours(fleet: Path, workers: int = 1) -> Iterator[int]:
    """Our server for ``fleet``, on a free port."""
    command = [sys.executable, "-m", "cosremaster", "serve", str(fleet), "--listen", "127.0.0.1:0"]
    command += ["--workers", str(workers)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(fleet.parent / "cache")}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    yield from _until_the_end(process, int(re.findall(r":(\d+)/", line)[0]))


@contextlib.contextmanager
def _constant(folder: Path) -> Iterator[int]:
    """uvicorn, as quick as it is, with an application that has its answer in memory, on a free port."""
    (folder / "constant.py").write_text(_CONSTANT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "constant:answer", "--fd", str(listener.fileno())]
        command += ["--no-access-log", "--log-level", "error", "--lifespan", "off", "--ws", "none"]
        process = subprocess.Popen(command, pass_fds=(listener.fileno(),), cwd=folder)
    yield from _until_the_end(process, port)


def _until_the_end(process: subprocess.Popen[str] | subprocess.Popen[bytes], port: int) -> Iterator[int]:
    """Gives ``port`` while ``process`` runs, and ends it."""
    _PROCESSES[port] = process.pid
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


_PROCESSES: dict[int, int] = {}


def _get(connection: http.client.HTTPConnection, number: int, start: int, end: int) -> None:
    """Reads a range of a site's image."""
    connection.request("GET", f"/site-{number:03}.iso", headers={"Range": f"bytes={start}-{end - 1}"})
    answer = connection.getresponse()
    assert (answer.status, len(answer.read())) == (206, end - start)


def _warm(port: int, count: int) -> None:
    """Asks for each site once, as it is planned then."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(count):
        _get(connection, number, 0, 512)
    connection.close()


def _warm_workers(port: int, count: int, workers: int) -> None:
    """Asks each worker for each site: they share connections out among them, if not always one to each."""
    planned = 0
    with contextlib.ExitStack() as stack:
        while planned < count * workers:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            stack.callback(connection.close)
            for number in range(count):
                _get(connection, number, 0, 512)
            connection.request("GET", "/metrics")
            planned = int(re.findall(rb"\ncosremaster_planned_sites (\d+)\n", connection.getresponse().read())[0])


def _memory(port: int) -> int:
    """Bytes that the server has in memory."""
    status = Path(f"/proc/{_PROCESSES[port]}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) << 10


def _sides(folder: Path) -> Mapping[str, Side]:
    """Both servers with the same images: requests of many clients, a whole image, ranges one after another."""
    base = write_base(folder, SITES)
    fleet = write_fleet(folder, base, "fleet.toml")
    shell(f'XDG_CACHE_HOME="{folder}/cache" {quote(sys.executable)} -m cosremaster fleet {fleet} --quiet', folder)
    (folder / "wrk.lua").write_text(_WRK.format(size=base.stat().st_size, sites=SITES))
    latencies: dict[str, float] = {}

    def server(kind: str, work: Path) -> contextlib.AbstractContextManager[int]:
        servers: Mapping[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
            "ours": partial(_ours, fleet),
            "ours 2": partial(_ours, fleet, 2),
            "nginx": partial(_nginx, work, folder / "out"),
            "nginx 2": partial(_nginx, work, folder / "out", 2),
            "constant": partial(_constant, work),
        }
        return servers[kind]()

    def random_ranges(kind: str, work: Path) -> float:
        with server(kind, work) as port:
            if kind == "constant":
                shell(f"curl -sf -o /dev/null http://127.0.0.1:{port}/", work)
            elif kind == "ours 2":
                _warm_workers(port, SITES, 2)
            else:
                _warm(port, SITES)
            argv = [
                "wrk",
                "-t1",
                f"-c{CLIENTS}",
                f"-d{SECONDS}s",
                "-s",
                str(folder / "wrk.lua"),
                f"http://127.0.0.1:{port}/",
            ]
            printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            requests, microseconds, latencies[kind], failed = map(
                int, re.findall(r"RESULT (\d+) (\d+) (\d+) (\d+)", printed)[0]
            )
            assert not failed
        return microseconds / requests  # as many milliseconds a thousand

    def whole(kind: str, work: Path) -> float:
        with server(kind, work) as port:
            _warm(port, 1)
            start = time.perf_counter()
            for _ in range(5):
                shell(f"curl -sf -o /dev/null http://127.0.0.1:{port}/site-000.iso", work)
            return (time.perf_counter() - start) / 5 * 1000

    def one_connection(work: Path) -> float:
        with _ours(fleet) as port:
            _warm(port, 1)
            connection = http.client.HTTPConnection("127.0.0.1", port)
            start = time.perf_counter()
            for number in range(100):
                _get(connection, 0, number * 65_536, number * 65_536 + 16_384)
            return time.perf_counter() - start

    def latency(kind: str, work: Path) -> float:
        return latencies[kind] / 1000

    sides: dict[str, Side] = {}
    for kind in ("ours", "nginx", "ours 2", "nginx 2", "constant"):
        sides[f"{kind} requests"] = partial(random_ranges, kind)
        sides[f"{kind} p99"] = partial(latency, kind)
    for kind in ("ours", "nginx"):
        sides[f"{kind} whole"] = partial(whole, kind)
    sides["ours ranges"] = lambda work: one_connection(work) * 1000
    sides["ranges"] = lambda work: LATENCY * 1000
    return sides


def _memories(folder: Path) -> Mapping[str, Side]:
    """What the server has in memory for each site."""
    fleet = write_fleet(folder, write_base(folder, SERVED), "fleet.toml")

    def memory(work: Path) -> float:
        with _ours(fleet) as port:
            _warm(port, SITES)
            before = _memory(port)
            _warm(port, SERVED)
            return (_memory(port) - before) / (SERVED - SITES)

    return {"ours": memory, "goal": lambda work: float(MEMORY)}


class _Reads:
    """Counts the bytes that are read of files."""

    def __init__(self) -> None:
        """Begins to count."""
        self.count, read = 0, FileSource.read

        def counting(source: FileSource, offset: int, length: int) -> bytes:
            data = read(source, offset, length)
            self.count += len(data)
            return data

        setattr(FileSource, "read", counting)  # noqa: B010 - mypy takes no assignment; for the life of this process


def _descents(folder: Path) -> Mapping[str, Side]:
    """`tree` through all layers of the vendor's image, from a file and by URL."""
    vendor = images.vendor(images.ONE_BLOCK)
    with contextlib.redirect_stdout(io.StringIO()) as listed:
        assert main(["ls", "-l", str(vendor.iso)]) == 0
    packed = next(int(line.split()[3]) for line in listed.getvalue().splitlines() if line.endswith(".cgz"))
    reads = _Reads()

    def near(work: Path) -> float:
        before = reads.count
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["tree", str(vendor.iso)]) == 0
        return round((reads.count - before) / packed, 2)

    def far(work: Path) -> float:
        with serve_file(vendor.iso.read_bytes()) as server, contextlib.redirect_stdout(io.StringIO()):
            assert main(["tree", server.url]) == 0
            return round(server.sent / packed, 2)

    return {"near": near, "far": far, "once": lambda work: 1.0}


_REQUESTS = f"{CLIENTS} clients, random 64 KiB ranges over {SITES} sites"
_RANGES = f"`serve`: {_REQUESTS}"
_TWO = f"`serve --workers 2`: {_REQUESTS}"
_NGINX_1 = "nginx with one worker process"
_NGINX_2 = "nginx with two worker processes"
_BARE = f"not ours: {CLIENTS} clients of an ASGI application on uvicorn that answers 64 KiB from memory"

GROUPS: Mapping[str, Group] = {
    "serve": Group(
        _sides,
        (
            Compared(f"{_RANGES}, time of 1,000", "ours requests", "nginx", "nginx requests", 1 / 0.9),
            Compared(f"{_RANGES}, p99", "ours p99", "nginx", "nginx p99", 2.0),
            Compared(f"{_TWO}, time of 1,000", "ours 2 requests", _NGINX_1, "nginx requests", 1 / 0.9),
            Compared(f"{_TWO}, p99", "ours 2 p99", _NGINX_1, "nginx p99", 2.0),
            Compared(f"{_TWO}, time of 1,000", "ours 2 requests", _NGINX_2, "nginx 2 requests", None),
            Compared(f"{_TWO}, p99", "ours 2 p99", _NGINX_2, "nginx 2 p99", None),
            Compared(f"{_BARE}, time of 1,000", "constant requests", _NGINX_1, "nginx requests", None),
            Compared(f"{_BARE}, p99", "constant p99", _NGINX_1, "nginx p99", None),
            Compared("`serve`: whole image", "ours whole", "nginx", "nginx whole", 1.2),
            Compared("`serve`: 100 ranges on one connection", "ours ranges", "0.2 s", "ranges", 1.0),
        ),
        unit="ms",
    ),
    "serve-memory": Group(
        _memories, [Compared(f"`serve`: memory a site, {SERVED:,} sites", "ours", "64 KiB", "goal", 1.0)],
        rounds=1, unit="bytes",
    ),
    "deep-ls": Group(
        _descents,
        (
            Compared("`tree` through all layers: bytes read", "near", "the packed bytes", "once", 1.0),
            Compared("the same by URL: bytes sent, with what surrounds them", "far", "the packed bytes", "once", None),
        ),
        rounds=1, unit="times",
    ),
}  # fmt: skip
