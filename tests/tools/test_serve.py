"""`cosremaster serve` to the programs that read images over HTTP: each gets the bytes of the image that is written."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import pytest

from cosremaster.cli import main
from cosremaster.serve.app import Scope, Send
from cosremaster.serve.listen import Address, ServerLimits, open_socket
from cosremaster.serve.metrics import Metrics
from tests.fixtures.tools import require, require_module, run
from tests.support.serving import Server, serve, write_images, write_recipes
from tests.support.small import write_small
from tests.support.user import REPOSITORY


class Sites(NamedTuple):
    """A running server, and the written image of each site."""

    server: Server
    images: dict[str, Path]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    require_module("uvicorn")
    folder = tmp_path_factory.mktemp("fleet")
    base = write_small(folder, extra={"pad": bytes(range(256)) * 12_000})
    recipes = write_recipes(folder, base, 4)
    with serve(recipes) as server:
        yield Sites(server, write_images(recipes))


def test_curl(sites: Sites, tmp_path: Path) -> None:
    require("curl")
    for name, image in sites.images.items():
        url, data = f"{sites.server.url}{name}.iso", image.read_bytes()
        for options in ([], ["--http1.0"], ["--compressed"], ["--http2"]):
            assert run(["curl", "-sSf", *options, url]) == data
        assert run(["curl", "-sSf", "-r", "1000-299999", url]) == data[1000:300_000]
        assert run(["curl", "-sSf", "-r", "-77", url]) == data[-77:]
        part = tmp_path / f"{name}.part"
        part.write_bytes(data[:100_001])
        run(["curl", "-sSf", "-C", "-", "-o", part, url])
        assert part.read_bytes() == data
        head = run(["curl", "-sSfI", url]).decode().lower().replace("\r", "")
        assert f"content-length: {len(data)}\n" in head and "accept-ranges: bytes\n" in head
        assert "transfer-encoding" not in head and "content-encoding" not in head and "location" not in head
        etag = tmp_path / "etag"
        run(["curl", "-sSf", "--etag-save", etag, "-o", tmp_path / "a", url])
        assert run(["curl", "-sSf", "--etag-compare", etag, "-w", "%{http_code}", url]) == b"304"
        text = run(["curl", "-sSf", f"{url}.sha256"]).decode()
        assert text == f"{hashlib.sha256(data).hexdigest()}  {name}.iso\n"


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_a_client_that_sends_nothing_more_gets_its_answers(sites: Sites, version: str) -> None:
    """As `nc -N` does: it closes its half of the connection behind its requests."""
    name, image = next(iter(sites.images.items()))
    data = image.read_bytes()
    for ranges in (
        [""],
        ["", "Range: bytes=5-9\r\n", "Range: bytes=9-1000000\r\n"][: 1 if version == "HTTP/1.0" else 3],
    ):
        with socket.create_connection(("127.0.0.1", sites.server.port), 60) as connection:
            for field in ranges:
                connection.sendall(f"GET /{name}.iso {version}\r\nHost: a\r\n{field}\r\n".encode())
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
        bodies = [data, data[5:10], data[9:1_000_001]][: len(ranges)]
        assert received.count(b"HTTP/1.1 20") == len(ranges)
        is_complete = received.endswith(bodies[-1]) and all(body in received for body in bodies)
        assert is_complete


def test_wget(sites: Sites, tmp_path: Path) -> None:
    require("wget")
    data = sites.images["site-1"].read_bytes()
    target = tmp_path / "site-1.iso"
    target.write_bytes(data[:70_000])
    run(["wget", "-q", "-c", f"{sites.server.url}site-1.iso"], cwd=tmp_path)
    assert target.read_bytes() == data
    run(["wget", "-q", "-N", f"{sites.server.url}site-1.iso"], cwd=tmp_path)
    assert target.read_bytes() == data


def test_aria2(sites: Sites, tmp_path: Path) -> None:
    """Eight connections at once, of each site."""
    require("aria2c")
    for name, image in sites.images.items():
        run(
            ["aria2c", "-q", "-x8", "-s8", "-k1M", "--file-allocation=none", f"{sites.server.url}{name}.iso"],
            cwd=tmp_path,
        )
        assert (tmp_path / f"{name}.iso").read_bytes() == image.read_bytes()


def test_qemu_reads_it_as_a_disk(sites: Sites) -> None:
    require("qemu-img", "/usr/lib/x86_64-linux-gnu/qemu/block-curl.so")
    for name, image in sites.images.items():
        url = f"{sites.server.url}{name}.iso"
        assert b"identical" in run(["qemu-img", "compare", "-f", "raw", "-F", "raw", url, image])


def test_nbdkit_reads_it_as_openbmc_does(sites: Sites, tmp_path: Path) -> None:
    require("nbdkit", "nbdcopy")
    target = tmp_path / "copy.iso"
    command = f"nbdcopy $uri {target}"
    run(["nbdkit", "-U", "-", "curl", f"{sites.server.url}site-2.iso", "--run", command])
    assert target.read_bytes() == sites.images["site-2"].read_bytes()


def test_ranges_of_all_sites_at_once(sites: Sites) -> None:
    """Keep-alive connections that ask for ranges here and there, each of its site."""

    def read(number: int) -> None:
        name = list(sites.images)[number % len(sites.images)]
        data = sites.images[name].read_bytes()
        connection = http.client.HTTPConnection("127.0.0.1", sites.server.port)
        for step in range(40):
            start = (step * 7_919_003 + number * 104_729) % len(data)
            end = min(start + 16_384 * (1 + step % 5), len(data))
            connection.request("GET", f"/{name}.iso", headers={"Range": f"bytes={start}-{end - 1}"})
            response = connection.getresponse()
            assert (response.status, response.read()) == (206, data[start:end])
        connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


def test_the_log_is_json_in_lines_and_an_end_is_orderly(tmp_path: Path) -> None:
    require_module("uvicorn")
    recipes = write_recipes(tmp_path, write_small(tmp_path, extra={"pad": bytes(1 << 24)}), 1)
    images = write_images(recipes)
    with serve(recipes) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/site-0.iso", headers={"User-Agent": "BMC"})
        response = connection.getresponse()
        first = response.read(10)
        server.process.terminate()  # in the middle of an answer
        assert first + response.read() == images["site-0"].read_bytes()
        connection.close()
        assert server.process.wait() == 0
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [(line["path"], line["status"], line["agent"], line["client"]) for line in lines] == [
        ("/site-0.iso", 200, "BMC", "127.0.0.1")
    ]
    assert lines[0]["sent"] == images["site-0"].stat().st_size


def test_tokens_from_the_environment(tmp_path: Path) -> None:
    require_module("uvicorn")
    recipes = write_recipes(tmp_path, write_small(tmp_path), 1)
    with serve(recipes, tokens="0123456789abcdef\n") as server:
        for path, status in {"/site-0.iso": 401, "/s/0123456789abcdef/site-0.iso": 200, "/s/x/site-0.iso": 404}.items():
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            connection.request("HEAD", path)
            assert connection.getresponse().status == status
            connection.close()


def test_faults_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_module("uvicorn")
    (recipe,) = write_recipes(tmp_path, write_small(tmp_path), 1)
    (tmp_path / "short").write_text("short\n")
    (tmp_path / "none").write_text("# nothing\n")
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf0123456789abcdef\r\nbad\r\n")  # as editors of Windows write
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for words, code, sentence in [
            (["--listen", address], 8, f"cannot listen at {address}: the port is in use"),
            (["--listen", "8080"], 2, "--listen 8080: HOST:PORT is wanted, as in 127.0.0.1:8080 or [::1]:8080"),
            (["--token-file", str(tmp_path / "gone")], 2, f"--token-file {tmp_path}/gone: No such file or directory"),
            (["--token-file", str(tmp_path / "none")], 2, f"--token-file {tmp_path}/none: has no token"),
            (["--token-file", str(tmp_path / "short")], 2, f"{tmp_path}/short:1: a token is 16 to 128 letters"),
            (["--token-file", str(tmp_path / "marked")], 2, f"{tmp_path}/marked:2: a token is 16 to 128 letters"),
            (["--log", str(tmp_path / "a/b"), "--listen", "127.0.0.1:0"], 8, f"--log {tmp_path}/a/b: No such file"),
            ([str(recipe)], 2, f"{recipe}: the site site-0 is {recipe} already"),
        ]:
            assert main(["serve", str(recipe), *words]) == code
            assert capsys.readouterr().err.splitlines()[0].startswith(f"cosremaster: {sentence}")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "cosremaster.serve.server")
    assert main(["serve", str(recipe)]) == 5
    assert capsys.readouterr().err == "cosremaster: serve needs a web server: pip install 'cosremaster[serve]'\n"


class Endless:
    """An application that sends far more than any buffer holds, to whoever takes it."""

    SIZE = 1 << 28

    def __init__(self) -> None:
        self.metrics = Metrics()

    async def __call__(self, scope: Scope, _: object, send: Send) -> None:
        """Answers."""
        if scope["type"] != "http":
            return
        length = self.SIZE if scope["path"] == "/" else 5
        headers = [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, length, 1 << 18):
            step = min(1 << 18, length - start)
            more = start + step < length
            await send({"type": "http.response.body", "body": bytes(step), "more_body": more})


LONG = 3600.0


@pytest.fixture
def bounded(request: pytest.FixtureRequest) -> Iterator[tuple[Endless, int]]:
    """A server within the limits of the test's parameter: the application, and the port."""
    require_module("uvicorn")
    from cosremaster.serve.server import make_server  # noqa: PLC0415 - it may be missing

    app = Endless()
    listener = open_socket(Address("127.0.0.1", 0))
    server = make_server(app, request.param)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    port = listener.getsockname()[1]
    thread.start()
    yield app, port
    server.should_exit = True
    thread.join()
    listener.close()


def read_all(connection: socket.socket) -> int:
    """How many bytes come before the connection ends."""
    count = 0
    try:
        while data := connection.recv(1 << 16):
            count += len(data)
    except ConnectionResetError:
        pass
    return count


SLOW_HEAD = ServerLimits(grace=1, head_timeout=0.3, stall_timeout=LONG)
SLOW_TAKING = ServerLimits(grace=1, head_timeout=LONG, stall_timeout=0.2)
THREE_EACH = ServerLimits(4, 3, grace=1, head_timeout=LONG, stall_timeout=LONG)


@pytest.mark.parametrize("bounded", [SLOW_HEAD], ids=["limits"], indirect=True)
@pytest.mark.parametrize(
    "head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: 1\r\n"], ids=["none", "line", "fields"]
)
def test_a_client_that_never_ends_its_request_is_cut(bounded: tuple[Endless, int], head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", bounded[1])) as connection:
        connection.sendall(head)
        assert read_all(connection) == 0


@pytest.mark.parametrize("bounded", [SLOW_HEAD], ids=["limits"], indirect=True)
def test_a_client_that_never_ends_its_second_request_is_cut(bounded: tuple[Endless, int]) -> None:
    is_answered = False
    while not is_answered:  # this process may be slow, too
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", bounded[1])) as connection:
            connection.sendall(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
            is_answered = connection.recv(1) == b"H"
            connection.sendall(b"GET /sh")
            assert read_all(connection) < 1000


@pytest.mark.parametrize("bounded", [SLOW_TAKING], ids=["limits"], indirect=True)
def test_a_client_that_takes_nothing_is_cut(bounded: tuple[Endless, int]) -> None:
    app, port = bounded
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        poll = threading.Event()
        while not app.metrics.cut:
            poll.wait(0.05)
        assert 0 < read_all(connection) < app.SIZE


@pytest.mark.parametrize("bounded", [THREE_EACH], ids=["limits"], indirect=True)
def test_a_client_has_a_share_of_the_connections(bounded: tuple[Endless, int]) -> None:
    app, port = bounded
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(1)
        refused = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        refused.sendall(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_all(refused) == 0
        assert app.metrics.refused_clients == 1


HEAD = b"GET /short HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize("bounded", [ServerLimits(grace=1, head_timeout=LONG)], ids=["limits"], indirect=True)
@pytest.mark.parametrize(
    ("first", "more"),
    [(HEAD, b"a:b\r\n"), (HEAD + b"X: ", b"a"), (b"GET /", b"a"), (HEAD + b"Content-Length: 9999999\r\n\r\n", b"a"),
     (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a:b\r\n"),
     (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", HEAD + b"\r\n")],
    ids=["fields", "field", "line", "body", "trailers", "requests"],
)  # fmt: skip
def test_a_client_that_sends_without_end_is_cut(bounded: tuple[Endless, int], first: bytes, more: bytes) -> None:
    """What would fill the memory: heads, bodies that nobody wants, requests that wait for an answer."""
    app, port = bounded
    with socket.create_connection(("127.0.0.1", port)) as connection, pytest.raises(OSError, match=r"reset|pipe"):
        for data in chain([first], repeat(more * 5000, 2000)):
            connection.sendall(data)
    poll = threading.Event()
    while not app.metrics.cut:
        poll.wait(0.05)


@pytest.mark.parametrize("bounded", [ServerLimits(grace=1)], ids=["limits"], indirect=True)
def test_requests_in_advance_are_answered_in_order(bounded: tuple[Endless, int]) -> None:
    with socket.create_connection(("127.0.0.1", bounded[1])) as connection:
        connection.sendall(
            (HEAD + b"\r\n") * 40 + HEAD + b"Connection: close\r\n" + b"X: " + b"a" * 14_000 + b"\r\n\r\n"
        )
        answers = b""
        while data := connection.recv(1 << 16):
            answers += data
    assert answers.count(b"HTTP/1.1 200 OK") == 41 and answers.endswith(bytes(5))


def test_an_end_is_orderly_from_the_first_line_on(tmp_path: Path) -> None:
    require_module("uvicorn")
    with serve(write_recipes(tmp_path, write_small(tmp_path), 1)) as server:
        server.process.terminate()
        assert server.process.stderr is not None
        assert (server.process.wait(), server.process.stderr.read()) == (0, "stopped\n")


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keeps it."""
        self.writes.append(bytes(data))

    def close(self) -> None:
        """Keeps that, too."""
        self.writes.append(b"closed")

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.writes[-1:] == [b"closed"]


def test_a_head_and_its_body_leave_in_one_segment() -> None:
    require_module("uvicorn")
    from cosremaster.serve.server import JoiningTransport  # noqa: PLC0415 - it may be missing

    async def write() -> list[bytes]:
        inner = Written()
        transport = JoiningTransport(inner, asyncio.get_running_loop())
        for data in (b"head", b"body" * 9000, b"more" * 9000, b"head", b"short"):
            transport.write(data)
        transport.write(b"alone")
        await asyncio.sleep(0)
        transport.write(b"last")
        transport.close()
        transport.write(b"late")
        await asyncio.sleep(0)
        return inner.writes

    expected = [b"head" + b"body" * 9000, b"more" * 9000, b"headshort", b"alone", b"last", b"closed"]
    assert asyncio.run(write()) == expected


def test_a_warning_where_anybody_can_read(tmp_path: Path) -> None:
    require_module("uvicorn")
    recipes = write_recipes(tmp_path, write_small(tmp_path), 1)
    with serve(recipes, host="0.0.0.0") as server:
        assert server.process.stderr is not None
        assert server.process.stderr.readline().startswith("warning: anybody who reaches this address")
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()
        assert server.stop() == 0


def test_the_systemd_unit_has_no_fault(tmp_path: Path) -> None:
    require("systemd-analyze")
    unit = tmp_path / "cosremaster-serve.service"
    text = (REPOSITORY / "examples/serve/cosremaster-serve.service").read_text()
    command = "/opt/cosremaster/bin/cosremaster "
    assert text.count(command) == 1
    unit.write_text(text.replace(command, "/bin/true "))  # what is not installed there is the only fault
    argv = ["systemd-analyze", "verify", "--man=no", str(unit)]
    printed = subprocess.run(argv, check=False, capture_output=True, text=True).stderr
    assert [line for line in printed.splitlines() if unit.stem in line] == []
    unit.write_text(text.replace(command, "/bin/true ").replace("Restart=", "Restrat="))
    printed = subprocess.run(argv, check=False, capture_output=True, text=True).stderr
    assert f"{unit.name}:" in printed
    assert "Unknown key" in printed
