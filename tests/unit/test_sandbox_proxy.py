"""The proxy of a script: what it forwards, where it leads, and what hostile clients get from it."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.errors import UnsupportedError, UsageError
from cosremaster.sandbox.http_messages import HttpError, MessageKind, Target, parse_authority, parse_head
from cosremaster.sandbox.network import PROXY_URL, proxy_environment
from cosremaster.sandbox.proxy import MAX_CONNECTIONS
from cosremaster.sandbox.reach import Reach, is_of_this_machine, parse_allowed
from tests.fixtures.tools import leave_out
from tests.support.web_servers import LARGE, serve_proxy, serve_socket, serve_web


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this machine connect by itself."""
    for name in [*os.environ]:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def web() -> Iterator[Target]:
    """A web server."""
    with serve_web() as target:
        yield target


@pytest.fixture
def proxy(web: Target) -> Iterator[Target]:
    """A proxy that reaches it."""
    with serve_proxy(web) as (target, _):
        yield target


def _talk(proxy: Target, request: bytes, timeout: float = 10) -> bytes:
    """Everything that comes back for `request` until the connection ends."""
    with socket.create_connection(proxy, timeout) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(1 << 16):
            answer += data
    return answer


def _get(proxy: Target, url: str, method: str = "GET", **options: object) -> tuple[int, bytes]:
    """Status and body."""
    connection = http.client.HTTPConnection(*proxy, timeout=20)
    connection.request(method, url, **options)  # type: ignore[arg-type]
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def test_requests_stay_in_order_on_their_connections(web: Target, proxy: Target) -> None:
    request = b"".join(b"GET http://%s/%d HTTP/1.1\r\nHost: x\r\n\r\n" % (str(web).encode(), i) for i in range(30))
    answer = _talk(proxy, request)
    bodies = [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 200 ")[1:]]
    assert [body.split()[0] for body in bodies] == [b"/%d" % i for i in range(30)]
    assert len({body.split()[1] for body in bodies}) == 1  # the server sees a single connection


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chunked", b"abc0123456789"),
        ("/until-close", b"all of it"),
        ("/unchanged", b""),
        ("/large", LARGE),
        ("?q=/x", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("version", [10, 11])
def test_responses_of_every_framing_arrive_whole(
    web: Target, proxy: Target, path: str, body: bytes | None, version: int
) -> None:
    connection = http.client.HTTPConnection(*proxy, timeout=20)
    connection._http_vsn, connection._http_vsn_str = version, f"HTTP/1.{version % 10}"  # type: ignore[attr-defined]
    for _ in range(2):  # the connection, or a new one, takes the next request
        connection.request("GET", f"http://{web}{path}")
        response = connection.getresponse()
        got = response.read()
        assert got == body if body is not None else got.startswith(b"/" + path.encode() + b" ")
    connection.close()


def test_a_head_has_a_length_without_a_body(web: Target, proxy: Target) -> None:
    connection = http.client.HTTPConnection(*proxy, timeout=20)
    for _ in range(2):
        connection.request("HEAD", f"http://{web}/large")
        response = connection.getresponse()
        assert (response.getheader("Content-Length"), response.read()) == (str(len(LARGE)), b"")
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_bodies_go_up_with_a_length_and_in_chunks(web: Target, proxy: Target, method: str) -> None:
    assert _get(proxy, f"http://{web}/echo", method, body=LARGE) == (200, LARGE)
    chunks = (LARGE[at : at + 100_000] for at in range(0, len(LARGE), 100_000))
    assert _get(proxy, f"http://{web}/echo", method, body=chunks, encode_chunked=True) == (200, LARGE)


def test_a_client_that_waits_for_100_is_served(web: Target, proxy: Target) -> None:
    with socket.create_connection(proxy, 10) as sock:
        head = b"POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        sock.sendall(head % str(web).encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        answer = b""
        while not answer.endswith(b"abc"):
            answer += sock.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_an_answer_before_the_end_of_the_body_is_passed_on(web: Target, proxy: Target) -> None:
    with socket.create_connection(proxy, 10) as sock:
        sock.sendall(b"POST http://%s/refused HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nx" % str(web).encode())
        answer = b""
        while data := sock.recv(1000):
            answer += data
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"too much")


def test_a_body_that_breaks_off_is_not_taken_for_whole(web: Target, proxy: Target) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        _get(proxy, f"http://{web}/short")


def test_a_reset_is_no_end_of_a_body() -> None:
    def talk(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf of it")
        time.sleep(0.1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serve_socket(talk) as server, serve_proxy(server) as (proxy, _), pytest.raises(ConnectionError):
        _get(proxy, f"http://{server}/")


def test_a_server_that_has_left_is_reached_again(web: Target, proxy: Target) -> None:
    connection = http.client.HTTPConnection(*proxy, timeout=20)
    for path in ("/leaves", "/leaves", "/again"):
        connection.request("GET", f"http://{web}{path}")
        assert connection.getresponse().read()
        time.sleep(0.05)
    connection.close()


def test_fields_about_a_connection_stay_on_it(web: Target, proxy: Target) -> None:
    fields = {"Connection": "keep-alive, X-Mine", "X-Mine": "1", "Proxy-Authorization": "Basic x", "Host": "elsewhere"}
    connection = http.client.HTTPConnection(*proxy, timeout=20)
    connection.request("GET", f"http://{web}/fields", headers={**fields, "X-Yours": "2", "Upgrade": "h2c"})
    response = connection.getresponse()
    seen = response.read().decode()
    assert "X-Yours: 2" in seen
    assert f"Host: {web}" in seen
    assert not {"X-Mine", "Proxy-Authorization", "elsewhere", "Upgrade"} & set(seen.replace(":", " ").split())
    assert (response.getheader("X-Secret"), response.getheader("X-Open")) == (None, "2")
    connection.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET http:///x HTTP/1.1\r\n\r\n", 400),
        (b"GET http://a:0/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://a:99999/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://a b/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://\xff/ HTTP/1.1\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://a/ HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\n folded\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nA: \0\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nA: b\rc\r\n\r\n", 400),
        (b"POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST http://a/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST http://a/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"CONNECT a HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT http://a:80/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nA: " + b"x" * 70_000, 431),
        (b"GET http://" + b"a" * 300 + b"/ HTTP/1.1\r\n\r\n", 502),
        (b"GET http://a..b/ HTTP/1.1\r\n\r\n", 502),
        (b"CONNECT 192.0.2.1:22 HTTP/1.1\r\n\r\n", 403),
        (b"GET http://192.0.2.1:25/ HTTP/1.1\r\n\r\n", 403),
    ],
)
def test_what_is_no_request_for_a_web_server_is_answered(proxy: Target, request_bytes: bytes, status: int) -> None:
    answer = _talk(proxy, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    line, _, rest = answer.partition(b"\r\n")
    assert rest.endswith(b"\r\n\r\n" + line.split(b" ", 2)[2] + b"\n")  # apt shows the line, curl the body


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH_9\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 101 Go\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nX: " + b"y" * 80_000, b"HTTP/1.1 100 Continue\r\n\r\n"],
)  # fmt: skip
def test_a_server_that_speaks_something_else_is_a_502(answer: bytes) -> None:
    def talk(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(answer)

    with serve_socket(talk) as server, serve_proxy(server) as (proxy, _):
        assert b"HTTP/1.1 502 " in _talk(proxy, b"GET http://%s/ HTTP/1.1\r\n\r\n" % str(server).encode())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.8.7", "localhost", "0.0.0.0", "0", "2130706433", "0x7f.1", "[::1]", "[::]",
     "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
     "[2002:7f00:1::]", "169.254.169.254", "[fd00:ec2::254]", "100.100.100.200",
     "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_this_machine_is_not_reached(host: str) -> None:
    with serve_proxy() as (proxy, served):
        for request in (b"GET http://%s:8080/ HTTP/1.1\r\n\r\n", b"CONNECT %s:443 HTTP/1.1\r\n\r\n"):
            answer = _talk(proxy, request % host.encode())
            assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 502 ")), answer
            assert b"belongs to the machine outside" in answer or b"cannot be resolved" in answer
        assert not served.use().requests


def test_addresses_of_our_own_interfaces_are_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))
        except OSError:
            leave_out("this machine has no route")
        own = probe.getsockname()[0]
    assert is_of_this_machine(own)
    assert is_of_this_machine(f"::ffff:{own}")
    assert not is_of_this_machine("198.51.100.7")


def test_the_address_that_was_checked_is_the_one_that_is_used(web: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["198.51.100.7", "127.0.0.1"])
    connected = []

    def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), web.port))]

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(address)
        raise TimeoutError

    reach = Reach()
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(HttpError):
        reach.connect(Target("rebinding.example", web.port))
    assert connected == [("198.51.100.7", web.port)]


def _fill_tunnel(sock: socket.socket, size: int) -> int:
    """Sends `size` bytes while all that comes is counted; returns the count."""

    def send() -> None:
        sock.sendall(bytes(size))
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    count = 0
    while data := sock.recv(1 << 16):
        count += len(data)
    sender.join()
    return count


def test_a_tunnel_carries_both_directions_at_once_and_their_ends() -> None:
    size = 8 << 20
    counts = []
    with (
        serve_socket(lambda sock: counts.append(_fill_tunnel(sock, size))) as server,
        serve_proxy(server) as (proxy, _),
    ):
        with socket.create_connection(proxy, 10) as sock:
            sock.sendall(b"CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n" % str(server).encode())
            assert sock.recv(len(b"HTTP/1.1 200 Connection established\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert _fill_tunnel(sock, size) == size
        for _ in range(100):
            if counts:
                break
            time.sleep(0.02)
    assert counts == [size]


def test_many_connections_at_once(web: Target) -> None:
    with serve_proxy(web) as (proxy, served):
        results: list[bytes] = []
        request = b"GET http://%s/chunked HTTP/1.1\r\nConnection: close\r\n\r\n" % str(web).encode()
        clients = [
            threading.Thread(target=lambda: results.append(_talk(proxy, request, 30)))
            for _ in range(2 * MAX_CONNECTIONS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert len(results) == len(clients)
        assert all(b"0123456789" in answer for answer in results)
        assert served.use().requests == {str(web): len(clients)}


def test_the_end_of_the_proxy_ends_its_connections(web: Target) -> None:
    with serve_proxy(web) as (proxy, _):
        idle = [socket.create_connection(proxy, 10) for _ in range(MAX_CONNECTIONS + 3)]
        waiting = socket.create_connection(proxy, 10)
        idle[0].sendall(b"GET http://%s/slow HTTP/1.1\r\n\r\n" % str(web).encode())
        time.sleep(0.2)
        start = time.monotonic()
    for sock in (*idle[:MAX_CONNECTIONS], waiting):
        with sock, contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b"" or sock is idle[0]
    for sock in idle:
        sock.close()
    assert time.monotonic() - start < 3


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_make_a_parser_fail_in_another_way(data: bytes) -> None:
    starts = {MessageKind.REQUEST: b"GET http://a/ HTTP/1.1\r\n", MessageKind.RESPONSE: b"HTTP/1.1 200\r\n"}
    for kind, start in starts.items():
        for text in (data, start + data):
            with contextlib.suppress(HttpError):
                head = parse_head(text + b"\r\n\r\n", kind)
                head.declared_framing()
                parse_authority(head.words[1], 80)


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_proxy_of_this_machine_is_used_too(web: Target, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    heads = []

    def talk(sock: socket.socket) -> None:
        heads.append(sock.recv(1 << 16))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)

    with serve_socket(talk) as upstream:
        monkeypatch.setenv(variable, f"http://us%65r:pass@{upstream}")
        monkeypatch.setenv("https_proxy", f"http://{upstream}")
        monkeypatch.setenv("no_proxy", "direct.invalid")
        with serve_proxy(web) as (proxy, _):
            assert _get(proxy, "http://name.invalid/x") == (200, b"ok")
            assert _get(proxy, "http://localhost/x")[0] == 403
            assert _get(proxy, "http://127.0.0.1:9999/x")[0] == 403
            assert _get(proxy, "http://direct.invalid/x")[0] == 502
            assert _get(proxy, f"http://{web}/chunked") == (200, b"abc0123456789")
            answer = _talk(proxy, b"CONNECT name.invalid:443 HTTP/1.1\r\n\r\nhello")
            assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\n")
    assert heads[0].startswith(b"GET http://name.invalid/x HTTP/1.1\r\nHost: name.invalid\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in heads[0]
    assert heads[1].startswith(b"CONNECT name.invalid:443 HTTP/1.1\r\n")
    assert len(heads) == 2


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://user:secret@10.0.0.1:1080")
    with pytest.raises(UnsupportedError, match="https_proxy") as refusal:
        Reach()
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("text", ["localhost", "localhost:0", "localhost:99999", "http://a:80", "a b:80", ":80", ""])
def test_a_server_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_allowed(text)


def test_servers_that_are_allowed_are_named_by_address_or_name(web: Target) -> None:
    try:
        socket.getaddrinfo("localhost", web.port)
    except socket.gaierror:
        leave_out("this machine knows no localhost")
    assert parse_allowed("[::1]:8080") == Target("::1", 8080)
    with serve_proxy(parse_allowed(f"localhost:{web.port}")) as (proxy, served):
        assert _get(proxy, f"http://127.0.0.1:{web.port}/chunked")[0] == 200
        assert _get(proxy, f"http://localhost:{web.port}/chunked")[0] == 200
        assert _get(proxy, f"http://localhost:{web.port ^ 1}/")[0] == 403
        assert served.reach.includes_loopback
    with pytest.raises(UsageError, match=r"--network-allow nowhere\.invalid:80"):
        Reach([Target("nowhere.invalid", 80)])


def test_the_environment_leads_to_the_listener() -> None:
    environment = dict(proxy_environment(loopback_allowed=False))
    assert environment["http_proxy"] == environment["https_proxy"] == PROXY_URL
    assert "localhost" in environment["no_proxy"]
    assert "no_proxy" not in dict(proxy_environment(loopback_allowed=True))
