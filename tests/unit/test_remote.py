"""Images by URL: read in few requests, never two versions mixed, and each fault of a server in one sentence."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import pickle
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from sys import executable
from types import SimpleNamespace
from typing import Any

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import ImageError, Place, UnsupportedError, UsageError
from cosremaster.io import remote
from cosremaster.io.fetched_blocks import BLOCK_SIZE, FetchedBlocks, make_room
from cosremaster.io.source import ByteSource, open_source
from cosremaster.io.urls import Url, is_url, parse_image_path, shown_image_path, split_image_path
from cosremaster.iso.far_images import Candidate, choose_candidates
from tests.fixtures.tools import load_module, require_module
from tests.support.forward_proxy import run_proxy
from tests.support.listener import Listener
from tests.support.range_server import ServedFile, serve_file
from tests.support.small import CGZ, packed_root, write_overlay, write_small
from tests.support.user import REPOSITORY

DATA = b"".join(number.to_bytes(4, "big") for number in range(1 << 20))  # 4 MiB in which every place is another


@pytest.fixture(autouse=True)
def _plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between, and nobody waits before a request is sent again."""
    for name in [*os.environ]:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with contextlib.suppress(ImportError):  # who needs urllib3 asks for it
        monkeypatch.setattr("cosremaster.io.http_file._PAUSES", (0, 0, 0))


@pytest.fixture
def served() -> Iterator[ServedFile]:
    """A server with the bytes of DATA."""
    with serve_file(DATA) as server:
        yield server


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image, which no test changes."""
    folder = tmp_path_factory.mktemp("image")
    write_small(folder)
    write_overlay(folder)
    return folder / "in.iso"


@pytest.fixture
def image(image_file: Path) -> Iterator[ServedFile]:
    """A server with that image."""
    with serve_file(image_file.read_bytes()) as server:
        yield server


def _message(url: str) -> str:
    """What is said of a URL that cannot be opened, without the URL."""
    with pytest.raises(ImageError) as caught, open_source(url) as source:
        source.read(0, source.size)
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(url)
    return caught.value.message


# --- reading


def test_the_first_block_is_the_opening_request(served: ServedFile) -> None:
    served.has_head = False
    with open_source(served.url) as source:
        assert source.size == len(DATA)
        assert source.read(10, 20) == DATA[10:30]
        assert served.log == [f"bytes=0-{BLOCK_SIZE - 1}"]
        assert source.read(len(DATA) - 3, 10) == DATA[-3:]
        assert source.read(len(DATA) + 3, 10) == b""
        assert source.local_paths == ()
        assert source.descriptor is None


def test_every_request_holds_the_condition(served: ServedFile) -> None:
    with open_source(served.url) as source:
        source.read(1 << 20, 5)
        assert served.fields["If-Match"] == '"v1"'
        assert served.fields["Accept-Encoding"] == "identity"


def test_a_stream_is_fetched_ahead_in_growing_requests(served: ServedFile) -> None:
    with open_source(served.url) as source:
        parts = [source.read(offset, 4096) for offset in range(0, len(DATA), 4096)]
    assert b"".join(parts) == DATA
    sizes = [int(last) - int(first) + 1 for first, last in (text[6:].split("-") for text in served.log)]
    assert sizes[:6] == [1 << 16, 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20]
    assert max(sizes) == 1 << 20
    assert sum(sizes) == len(DATA), "a byte was fetched twice"


def test_scattered_reads_fetch_no_more_than_their_block(served: ServedFile) -> None:
    with open_source(served.url) as source:
        for block in (50, 20, 35, 20, 50):
            assert source.read(block * BLOCK_SIZE + 7, 9) == DATA[block * BLOCK_SIZE + 7 :][:9]
    assert served.sent == 4 * BLOCK_SIZE


def test_a_gap_of_a_block_is_no_request_of_its_own(served: ServedFile) -> None:
    with open_source(served.url) as source:
        source.read(21 * BLOCK_SIZE, 1)
        served.forget()
        assert source.read(20 * BLOCK_SIZE, 3 * BLOCK_SIZE) == DATA[20 * BLOCK_SIZE : 23 * BLOCK_SIZE]
        assert len(served.log) == 1


def test_every_way_of_reading_gives_the_bytes(served: ServedFile) -> None:
    with open_source(served.url) as source:
        buffers = [bytearray(100_000), bytearray(3)]
        source.read_into(65_500, [memoryview(buffer) for buffer in buffers])
        assert b"".join(buffers) == DATA[65_500:165_503]
        assert b"".join(source.chunks(1, len(DATA) - 1)) == DATA[1:]
        with pytest.raises(ImageError, match="ends 1 bytes too early"):
            source.read_into(len(DATA) - 2, [memoryview(bytearray(3))])
        with pytest.raises(ImageError, match="too early"):
            list(source.chunks(len(DATA) - 2, 3))


def test_threads_read_the_same_source(served: ServedFile) -> None:
    wrong: list[int] = []

    def read(source: ByteSource, seed: int) -> None:
        for step in range(40):
            offset = (seed * 777_767 + step * 1_234_577) % (len(DATA) - 70_000)
            if source.read(offset, 70_000) != DATA[offset : offset + 70_000]:
                wrong.append(offset)

    with open_source(served.url) as source:
        threads = [threading.Thread(target=read, args=(source, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_url_that_is_open_is_not_asked_for_again(served: ServedFile) -> None:
    with open_source(served.url) as first, open_source(Url(served.url)) as second:
        assert first is second
        first.close()
        assert second.read(1 << 20, 4) == DATA[1 << 20 :][:4]
        second.share() if isinstance(second, remote.RemoteSource) else None
    assert len(served.log) == 2
    with open_source(served.url):
        assert len(served.log) == 3, "a new opening asks the server"


def test_blocks_make_room_for_others() -> None:
    blocks = FetchedBlocks(limit=3 * BLOCK_SIZE)
    for number in range(5):
        blocks.store(number, bytes([number]) * BLOCK_SIZE)
    assert [number in blocks for number in range(5)] == [False, False, True, True, True]
    blocks.read(2)
    blocks.store(9, b"short")
    assert blocks.read(2) == b"\x02" * BLOCK_SIZE
    assert (blocks.read(3), blocks.read(9)) == (None, b"short")
    blocks.close()
    assert blocks.read(9) is None


def test_a_full_disk_leaves_blocks_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    blocks = FetchedBlocks()
    monkeypatch.setattr(os, "pwrite", refuse)
    blocks.store(7, b"x" * BLOCK_SIZE)
    assert blocks.read(7) == b"x" * BLOCK_SIZE
    blocks.close()


def test_blocks_give_way_to_an_output_on_their_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    blocks, free = FetchedBlocks(), 100 * BLOCK_SIZE
    for number in range(10):
        blocks.store(number, bytes([number]) * BLOCK_SIZE)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    with (tmp_path / "out").open("w") as out, open("/dev/null", "w") as elsewhere:
        make_room(out.fileno(), 64 * BLOCK_SIZE)
        assert all(number in blocks for number in range(10)), "there is room"
        make_room(elsewhere.fileno(), 200 * BLOCK_SIZE)
        assert all(number in blocks for number in range(10)), "they are on another disk"
        free = 82 * BLOCK_SIZE
        make_room(out.fileno(), 64 * BLOCK_SIZE)
        for number in range(10, 40):
            blocks.store(number, bytes([number]) * BLOCK_SIZE)
        assert sum(number in blocks for number in range(40)) == 26, "they grow into what the output does not want"
        for number in range(10):
            blocks.store(number, bytes([number]) * BLOCK_SIZE)
        free = 44 * BLOCK_SIZE
        make_room(out.fileno(), 64 * BLOCK_SIZE)  # and one for where they are, and one more
        rest = [number for number in range(40) if number in blocks]
        assert len(rest) == 4 and all(blocks.read(number) == bytes([number]) * BLOCK_SIZE for number in rest)
        blocks.store(50, b"\x32" * BLOCK_SIZE)
        assert sum(number in blocks for number in range(51)) == 4, "they take no more than that"
        free = 70 * BLOCK_SIZE
        make_room(out.fileno(), 64 * BLOCK_SIZE)
        for number in range(20, 40):
            blocks.store(number, bytes([number]) * BLOCK_SIZE)
        assert sum(number in blocks for number in range(40)) == 4, "a bound stays"
        blocks.keep_all(10 * BLOCK_SIZE)
        blocks.store(4, b"\x04" * BLOCK_SIZE)
        make_room(out.fileno(), 500 * BLOCK_SIZE)
        assert blocks.read(4) == b"\x04" * BLOCK_SIZE, "what has to stay stays"
    blocks.close()


# --- connections and versions


def test_a_cut_answer_goes_on_where_it_ended(served: ServedFile) -> None:
    with open_source(served.url) as source:
        served.forget()
        served.cuts = [100_000, 0, 50]
        assert source.read(1 << 20, 300_000) == DATA[1 << 20 :][:300_000]
        assert [text.partition("-")[0] for text in served.log] == [
            f"bytes={(1 << 20) + reached}" for reached in (0, 100_000, 100_000, 100_050)
        ]


def test_what_is_cut_again_and_again_is_an_error(served: ServedFile) -> None:
    served.cuts = [0, 0, 0, 0]
    assert _message(served.url) == "the connection was cut (4 times in a row)"
    with open_source(served.url) as source:
        served.cuts = [5, 5, 5, 5]
        with pytest.raises(ImageError, match=r"@0x100014: the connection was cut \(4 times in a row\)"):
            source.read(1 << 20, 100)


def test_what_is_cut_often_goes_on_while_there_is_progress(served: ServedFile) -> None:
    with open_source(served.url) as source:
        served.cuts = [100_000] * 9
        assert source.read(1 << 20, 1 << 20) == DATA[1 << 20 : 2 << 20]
        served.cuts = [4095] * 4
        with pytest.raises(ImageError, match=r"the connection was cut \(4 times in a row\)"):
            source.read(3 << 20, 1 << 16)


def test_a_server_may_give_less_than_was_asked_for(served: ServedFile) -> None:
    served.most = 50_000
    with open_source(served.url) as source:
        assert source.read(0, 3 << 20) == DATA[: 3 << 20]
        served.most = 4095
        with pytest.raises(ImageError, match=r"gives less than was asked for \(4 times in a row\)"):
            source.read(3 << 20, 1 << 20)
    assert "other bytes than were asked for (bytes 0-4094/4194304)" in _message(served.url)


def test_a_body_of_unknown_length_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    require_module("urllib3")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nsome bytes")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with open_source(f"http://127.0.0.1:{server.getsockname()[1]}/in.iso") as source:
            assert source.read(0, 99) == b"some bytes"
        thread.join()
    assert "does not tell how many bytes there are, so it goes unseen if some are cut" in caplog.text


def test_a_refusal_says_what_the_name_and_password_were_for(served: ServedFile) -> None:
    served.credentials = "Basic other"
    url = served.url.replace("//", "//me:secret@")
    with pytest.raises(ImageError, match=r"\(401 Unauthorized\) with the name and password in the URL$"):
        open_source(url)
    with serve_file(DATA) as elsewhere:
        served.credentials, served.redirects = "", {"/in.iso": elsewhere.url}
        elsewhere.credentials = "Basic any"
        host = elsewhere.url.split("/")[2]
        with pytest.raises(ImageError, match=rf"; {host}, where it redirects to, gets no name and password"):
            open_source(url)


def test_a_server_that_fails_for_a_moment_is_asked_again(served: ServedFile) -> None:
    served.statuses = [503, 502]
    with open_source(served.url) as source:
        served.statuses = [500, 429, 504]
        assert source.read(1 << 20, 4) == DATA[1 << 20 :][:4]
        served.statuses = [503] * 4
        with pytest.raises(ImageError, match=r"the server fails \(503 Service Unavailable\) \(4 times"):
            source.read(2 << 20, 4)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', ""])
def test_a_changed_file_is_never_mixed(served: ServedFile, etag: str, conditional: bool) -> None:
    served.etag, served.is_conditional = etag, conditional
    with open_source(served.url) as source:
        source.check_unchanged()
        served.change()
        if not etag:
            served.etag = ""
        with pytest.raises(ImageError, match="changed on the server while it was being read"):
            source.read(1 << 20, 4)
        with pytest.raises(ImageError, match="changed on the server"):
            source.check_unchanged()


def test_a_file_that_shrank_has_changed(served: ServedFile) -> None:
    served.etag = served.modified = ""
    with open_source(served.url) as source:
        served.data = DATA[: 1 << 20]
        with pytest.raises(ImageError, match="changed on the server"):
            source.read(2 << 20, 4)


def test_a_version_that_nobody_tells_is_a_warning(served: ServedFile, caplog: pytest.LogCaptureFixture) -> None:
    served.etag = served.modified = ""
    with open_source(served.url) as source:
        assert source.identity().is_dated is False
    assert "tells no version" in caplog.text


def test_without_ranges_the_file_is_downloaded_once(served: ServedFile, caplog: pytest.LogCaptureFixture) -> None:
    served.has_ranges = False
    with open_source(served.url) as source:
        assert b"".join(source.chunks(0, source.size)) == DATA
        assert source.read(1 << 20, 9) == DATA[1 << 20 :][:9]
        source.check_unchanged()
    assert len(served.log) == 1
    assert "the server gives no parts of files, so all of it is downloaded (4.0 MiB)" in caplog.text


def test_a_download_that_is_cut_begins_again(served: ServedFile) -> None:
    served.has_ranges, served.cuts = False, [1 << 20]
    with open_source(served.url) as source:
        assert source.read(0, source.size) == DATA


def test_an_empty_file_has_no_bytes(served: ServedFile) -> None:
    served.data = b""
    with open_source(served.url) as source:
        assert (source.size, source.read(0, 5)) == (0, b"")
        source.check_unchanged()


# --- what servers answer


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "is not there (404 Not Found)"),
        (410, "is not there (410 Gone)"),
        (403, "the server refuses access (403 Forbidden)"),
        (401, "the server refuses access (401 Unauthorized); a name and a password go into the URL:"),
        (418, "the server answers 418 I'm a Teapot, and no image"),
        (204, "the server answers 204 No Content, and no image"),
    ],
)
def test_an_answer_without_an_image(served: ServedFile, status: int, message: str) -> None:
    served.statuses = [status]
    assert _message(served.url).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bytes 5-65540/4194304", "other bytes than were asked for (bytes 5-65540/4194304)"),
        ("bytes 0-65535/*", "does not tell which part of the file it sends (bytes 0-65535/*)"),
        ("pages 1-2/3", "does not tell which part of the file it sends (pages 1-2/3)"),
        ("bytes 9-3/10", "tells of a part that cannot be (bytes 9-3/10)"),
        ("bytes 0-99/4194304", "tells of 100 bytes (bytes 0-99/4194304) and sends 65,536"),
    ],
    ids=["elsewhere", "no size", "no bytes", "backwards", "length"],
)
def test_a_server_that_lies_about_ranges(served: ServedFile, text: str, message: str) -> None:
    served.content_range = text
    assert message in _message(served.url)


def test_a_body_shorter_than_its_range(served: ServedFile) -> None:
    served.short_by = 5
    assert "tells of 65,536 bytes" in _message(served.url)


def test_a_server_that_forgets_ranges_on_the_way(served: ServedFile) -> None:
    with open_source(served.url) as source:
        served.answers_whole = True
        with pytest.raises(ImageError, match="ignores that only a part is asked for"):
            source.read(1 << 20, 4)


def test_bytes_that_are_packed_on_the_way_are_refused(served: ServedFile) -> None:
    served.coding = "gzip"
    assert _message(served.url) == "the server packs the image on the way (gzip), though it must not"


def test_redirects_are_followed(served: ServedFile) -> None:
    served.redirects = {"/latest/in.iso": "/moved?signature=1", "/moved": "/2026/in.iso"}
    url = served.url.replace("/in.iso", "/latest/in.iso")
    with open_source(url) as source:
        assert source.name == url
        assert source.read(1 << 20, 4) == DATA[1 << 20 :][:4]
        assert len(served.log) == 4, "later requests go to where the redirects led"
        served.redirects = {"/latest/in.iso": "/new/in.iso", "/moved": "/gone"}
        served.statuses = [403]  # the signature is no longer valid
        assert source.read(2 << 20, 4) == DATA[2 << 20 :][:4]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/in.iso", "the server redirects more than 8 times"),
        ("ftp://127.0.0.1/in.iso", "the server redirects to what is no http or https URL"),
        ("file:///etc/passwd", "the server redirects to what is no http or https URL"),
        ("http://[bad/in.iso", "the server redirects to what is no http or https URL"),
    ],
    ids=["loop", "ftp", "file", "malformed"],
)
def test_redirects_that_lead_nowhere(served: ServedFile, target: str, message: str) -> None:
    served.redirects = {"/in.iso": target}
    assert _message(served.url) == message


def test_a_port_where_nobody_listens() -> None:
    require_module("urllib3")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/in.iso"
        assert _message(url) == "the server cannot be reached: connection refused"


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    require_module("urllib3")

    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert _message("https://images.invalid/in.iso") == "the name images.invalid is not known"


def test_what_is_no_web_server() -> None:
    require_module("urllib3")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(4):
                connection, _ = server.accept()
                connection.recv(1 << 16)
                connection.sendall(b"220 smtp.example ESMTP\r\n")
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert _message(f"http://127.0.0.1:{server.getsockname()[1]}/in.iso").startswith(
            "the server's answer is no HTTP"
        )
        thread.join()


def test_tls_with_what_speaks_none(served: ServedFile) -> None:
    assert _message(served.url.replace("http:", "https:")).startswith("TLS fails: ")


# --- secrets, and text that is a URL


def test_name_and_password_reach_their_server_alone(served: ServedFile) -> None:
    served.credentials = "Basic " + base64.b64encode(b"anna:p@ss").decode()
    url = served.url.replace("://", "://anna:p%40ss@") + "?token=hidden"
    with serve_file(DATA) as other, open_source(url) as source:
        assert source.read(1 << 20, 4) == DATA[1 << 20 :][:4]
        assert source.name == f"{served.url}?..."
        served.redirects = {"/far/in.iso": other.url}
        with open_source(url.replace("/in.iso", "/far/in.iso")) as far:
            assert far.read(0, 4) == DATA[:4]
        assert "Authorization" not in other.fields


@pytest.mark.parametrize("command", ["ls", "cat", "inspect", "verify", "tree", "plan", "prepare", "remaster"])
def test_no_message_shows_a_password(
    command: str, served: ServedFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.statuses = [403]
    url = served.url.replace("://", "://anna:secret@") + "?token=hidden"
    words = {"remaster": [url, str(tmp_path / "o")], "prepare": ["prepare", url, str(tmp_path / "o")]}
    assert main(words.get(command, [command, url])) == 3
    printed = "".join(capsys.readouterr())
    assert "the server refuses access (403 Forbidden)" in printed
    assert served.url in printed
    assert "secret" not in printed
    assert "hidden" not in printed


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://h/in.iso::a::b", ("http://h/in.iso", "::", "a::b")),
        ("http://[::1]:80/in.iso::a", ("http://[::1]:80/in.iso", "::", "a")),
        ("https://[::1]", ("https://[::1]", "", "")),
        ("in.iso::a", ("in.iso", "::", "a")),
        ("in.iso", ("in.iso", "", "")),
    ],
    ids=["host", "IPv6", "bare", "path", "whole path"],
)
def test_addresses_begin_with_a_url_or_a_path(text: str, parts: tuple[str, str, str]) -> None:
    assert split_image_path(text) == parts


def test_which_text_is_a_url(tmp_path: Path) -> None:
    assert [is_url(text) for text in ("http://h/x", "s3://b/k", "c://x", "./http://x", "a/b", "http:/x")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    assert parse_image_path("file:///tmp/a%20b.iso") == Path("/tmp/a b.iso")
    assert parse_image_path(tmp_path) == tmp_path
    assert Url("http://h/a/b%20c.iso?x=1").name == "b c.iso"
    assert shown_image_path("http://u:p@h:1/x::y?q#f") == "http://h:1/x%3A%3Ay?..."
    assert pickle.loads(pickle.dumps(Url("http://u:p@h/x"))) == Url("http://u:p@h/x")
    assert "u:p" not in repr(Url("http://u:p@h/x"))
    for text in ("http:///x", "http://h:port/x", "http://h/a b", "http://h:0/x", "file://far/x"):
        with pytest.raises(UsageError):
            parse_image_path(text)


# --- whole commands


COMMANDS = [
    ["ls", "IN"], ["ls", "-lR", "IN"], ["ls", "--json", "IN"], ["ls", f"IN::{CGZ}"], ["ls", "IN::@root::etc"],
    ["cat", f"IN::{CGZ}::rootfs.cxz::etc/hostname"], ["stat", f"IN::{CGZ}"], ["tree", "IN"],
    ["find", "IN", "**/hostname"], ["inspect", "IN"], ["inspect", "--deep", "IN"], ["inspect", "--json", "IN"],
    ["verify", "IN"], ["verify", "--deep", "IN"], ["verify", "IN", "--against", "IN"], ["diff", "IN", "IN"],
    ["plan", "IN"], ["index", "IN"],
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_says_of_a_url_what_it_says_of_the_file(
    words: list[str], image: ServedFile, image_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str) -> tuple[int, str]:
        code = main([word.replace("IN", name) if word.startswith("IN") else word for word in words])
        printed = capsys.readouterr().out
        return code, "\n".join(line for line in printed.split("\n") if "remembered in" not in line).replace(name, "IN")

    local = run(str(image_file))
    assert run(image.url) == local
    assert local[0] == 0


def test_a_remaster_of_a_url_is_that_of_the_file(image: ServedFile, image_file: Path, tmp_path: Path) -> None:
    image.delay = 0.001
    overlay = image_file.parent / "overlay"
    cosremaster.remaster(image_file, tmp_path / "local.iso", add=[overlay])
    image.forget()
    listener = Listener()
    cosremaster.remaster(image.url, tmp_path / "far.iso", add=[overlay], progress=listener)
    assert (tmp_path / "far.iso").read_bytes() == (tmp_path / "local.iso").read_bytes()
    assert f"index {CGZ}" in listener.steps
    assert image.sent <= len(image.data) + BLOCK_SIZE + 10, "each byte comes once, but for a gap that is merged"
    again = Listener()
    cosremaster.remaster(image.url, tmp_path / "again.iso", add=[overlay], progress=again)
    assert f"index {CGZ}" not in again.steps, "the index is remembered for the URL"
    image.etag = '"v2"'
    anew = Listener()
    cosremaster.remaster(image.url, tmp_path / "anew.iso", add=[overlay], progress=anew)
    assert f"index {CGZ}" in anew.steps, "it is that of another version"


def test_other_outputs_are_those_of_the_file(image: ServedFile, image_file: Path, tmp_path: Path) -> None:
    for name, source in (("local", str(image_file)), ("far", image.url)):
        folder = tmp_path / name
        folder.mkdir()
        cosremaster.extract(f"{source}::{CGZ}::rootfs.cxz", folder / "root.tar", as_tar=True)
        cosremaster.extract(f"{source}::vmlinuz", folder / "files")
        assert main(["prepare", "--quiet", source, str(folder / "base.iso")]) == 0
        assert main([source, str(folder / "root.tar.gz"), "--quiet"]) == 0
    far = {path.relative_to(tmp_path / "far"): path for path in (tmp_path / "far").rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in far.items()} == {
        name: (tmp_path / "local" / name).read_bytes() for name in far
    }
    assert len(far) == (4 if os.geteuid() == 0 else 5)  # an ordinary user's extract writes the owners into files.mtree


def test_a_change_on_the_way_leaves_no_output(image: ServedFile, image_file: Path, tmp_path: Path) -> None:
    image.change_after = 2
    with pytest.raises(ImageError, match="changed on the server"):
        cosremaster.remaster(image.url, tmp_path / "out.iso", add=[image_file.parent / "overlay"])
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_may_start_from_a_url(image: ServedFile, image_file: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(image.data).hexdigest()
    recipe = tmp_path / "site.toml"
    recipe.write_text(f'input = "{image.url}"\noutput = "out.iso"\n[expect]\nsha256 = "{digest}"\n')
    assert main(["build", str(recipe), "--quiet"]) == 0
    assert (tmp_path / "out.iso").read_bytes() == image_file.read_bytes()
    recipe.write_text('input = "http://[bad/in.iso"\noutput = "out.iso"\n')
    assert main(["build", str(recipe), "--quiet", "--force"]) == 2


def test_digest_files_stand_beside_the_url(image: ServedFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--digest", image.url]) == 1
    assert "there is no in.iso.sha256 or in.iso.md5 beside it" in capsys.readouterr().out
    image.files = {"/in.iso.sha256": f"{hashlib.sha256(image.data).hexdigest()}  in.iso\n".encode()}
    assert main(["verify", "--digest", image.url]) == 0
    image.files = {"/in.iso.sha256": f"{'0' * 64}  in.iso\n".encode()}
    assert main(["verify", "--digest", image.url]) == 1


def test_an_expected_digest_is_that_of_the_bytes_on_the_way(image: ServedFile, tmp_path: Path) -> None:
    digest = hashlib.sha256(image.data).hexdigest()
    assert main([image.url, str(tmp_path / "out.iso"), "--quiet", "--expect", f"sha256:{digest}"]) == 0
    assert image.sent <= len(image.data) + BLOCK_SIZE + 10
    assert main([image.url, str(tmp_path / "no.iso"), "--quiet", "--expect", f"sha256:{'0' * 64}"]) == 3
    assert not (tmp_path / "no.iso").exists()


def test_warnings_reach_standard_error(image: ServedFile, capsys: pytest.CaptureFixture[str]) -> None:
    image.has_ranges = False
    assert main(["ls", image.url]) == 0
    assert f"warning: {image.url}: the server gives no parts of files" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["-q", "build", "site.toml"], ["fleet", "fleet.toml"]])
def test_warnings_are_events_where_a_file_names_the_url(words: list[str], image: ServedFile, tmp_path: Path) -> None:
    """They were bare lines, without the word warning, and no JSON."""
    image.has_ranges = False
    (tmp_path / "site.toml").write_text(f'input = "{image.url}"\noutput = "out.iso"\n')
    (tmp_path / "fleet.toml").write_text(
        f'base = "{image.url}"\noutput = "out/${{NAME}}.iso"\n[[site]]\nname = "north"\n'
    )
    command = [executable, "-m", "cosremaster", *words, "--progress", "json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in ran.stderr.splitlines()]
    assert any(event["event"] == "warning" and "gives no parts of files" in event["message"] for event in events)


# --- what is not installed, and other schemes


def test_without_urllib3_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys  # noqa: PLC0415 - only this test takes modules away

    monkeypatch.delitem(sys.modules, "cosremaster.io.http_file", raising=False)
    monkeypatch.delitem(sys.modules, "cosremaster.io.http_errors", raising=False)
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'cosremaster\[remote\]'"):
        open_source("http://127.0.0.1/in.iso")


def test_without_fsspec_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys  # noqa: PLC0415 - as above

    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError, match="pip install fsspec") as caught:
        open_source("s3://bucket/in.iso")
    assert caught.value.exit_code == 5


def test_nobody_waits_for_the_server_of_another_url(served: ServedFile) -> None:
    require_module("urllib3")
    with serve_file(DATA) as slow:
        slow.delay = 3
        source = open_source(served.url)
        opening = threading.Thread(target=lambda: open_source(slow.url).close())
        opening.start()
        time.sleep(0.5)
        begun = time.monotonic()
        source.close()
        open_source(served.url).close()
        assert time.monotonic() - begun < 1.5
        opening.join()


@pytest.fixture
def memory(image_file: Path) -> Iterator[Any]:
    """An object store in memory that has the image, and tells when it was changed."""
    store = load_module("fsspec.implementations.memory").MemoryFileSystem()
    store.pipe("/bucket/in.iso", image_file.read_bytes())
    yield store
    store.rm("/bucket", recursive=True)


def test_other_schemes_are_read_through_fsspec(
    memory: Any, image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "memory://bucket/in.iso"
    assert main(["cat", f"{url}::vmlinuz"]) == 0
    printed = capsys.readouterr()
    assert (
        f"warning: {url}: is read through fsspec, so a change while it is read is seen at the end alone" in printed.err
    )
    assert main([url, str(tmp_path / "out.iso"), "--quiet"]) == 0
    assert (tmp_path / "out.iso").read_bytes() == image_file.read_bytes()
    with contextlib.closing(open_source(url)) as source:
        memory.pipe("/bucket/in.iso", image_file.read_bytes())
        with pytest.raises(ImageError, match="changed while it was being read"):
            source.check_unchanged()


@pytest.mark.parametrize(
    "words",
    [["tree", f"IN::{CGZ}"], ["ls", f"IN::{CGZ}"], ["verify", "IN"], ["inspect", "IN"], ["plan", "IN"]],
    ids=lambda words: words[0],
)
def test_no_command_ends_well_where_an_object_changed(
    words: list[str], memory: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], image_file: Path
) -> None:
    """Requests of fsspec hold no condition, so its bytes may be of two files."""
    cat_file, counts = type(memory).cat_file, [0]

    def change(store: Any, path: str, **values: Any) -> bytes:
        counts[0] += 1
        if counts[0] == 2:
            memory.pipe("/bucket/in.iso", image_file.read_bytes())
        data: bytes = cat_file(store, path, **values)
        return data

    monkeypatch.setattr(type(memory), "cat_file", change)
    assert main([word.replace("IN", "memory://bucket/in.iso") for word in words]) == 3
    assert "memory://bucket/in.iso: changed while it was being read" in capsys.readouterr().err


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("memory://bucket/missing.iso", 3, "is not there"),
        ("memory://bucket", 3, "is no file of a known size"),
        ("unheard://bucket/in.iso", 2, "unheard: is no scheme of URLs that is known"),
    ],
    ids=["missing", "folder", "scheme"],
)
def test_what_fsspec_cannot_read(url: str, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", url]) == code
    assert f"cosremaster: {url}: {message}\n" == capsys.readouterr().err


def test_an_error_of_a_file_system_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object, path: str) -> None:
        raise RuntimeError(f"boom at {path} with anna:secret\nand more")

    monkeypatch.setattr(load_module("fsspec.implementations.memory").MemoryFileSystem, "info", refuse)
    with pytest.raises(ImageError) as caught:
        open_source("memory://anna:secret@bucket/in.iso?key=hidden")
    assert "boom at" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_messages_are_logged_for_programs(served: ServedFile, caplog: pytest.LogCaptureFixture) -> None:
    served.has_ranges = False
    with caplog.at_level(logging.WARNING, "cosremaster"), open_source(served.url):
        assert [record.name for record in caplog.records] == ["cosremaster"]


# --- which files are looked into


def test_where_there_are_few_files_all_are_looked_into() -> None:
    few = [Candidate(b"a", 1, False), Candidate(b"b", 5, True)]
    assert choose_candidates(few, (), 2) == {b"a", b"b"}


def test_of_many_files_the_largest_likely_and_the_certain_are_looked_into() -> None:
    many = [Candidate(b"%d" % size, size << 16, size % 2 == 0) for size in range(10)]
    assert choose_candidates(many, {b"3", b"gone"}, 2) == {b"8", b"6", b"3"}
    assert choose_candidates(many, (), 9) == {b"0", b"2", b"4", b"6", b"8"}
    assert choose_candidates(many, (), 4) == {b"2", b"4", b"6", b"8"}


@pytest.mark.parametrize("near", [True, False], ids=["file", "url"])
def test_a_layer_of_an_odd_name_is_found_by_the_boot_menu(near: bool, tmp_path: Path) -> None:
    menu = b"menuentry x {\n linux /vmlinuz\n initrd /odd\n}\n"
    files = {f"F{number:02}.TXT": b"text" for number in range(30)} | {"odd": packed_root(), "grub.cfg": menu}
    path = write_small(tmp_path, extra=files)
    with serve_file(path.read_bytes()) as server:
        info = cosremaster.inspect(path if near else server.url)
    archives = [archive["path"] for archive in info.values["archives"]]
    assert archives == [CGZ, "odd"]


@pytest.mark.parametrize(
    "text", ["http://u:pa/ss@h/x", "http://u:pa?ss@h:x/", "http://u:pa#ss@h:y/", "http://u:pa/ s@h/x"]
)
def test_a_password_that_ends_its_url_early_is_not_shown(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Url(text)
    assert "pa" not in caught.value.message.partition(" ")[0] and "ss@" not in caught.value.message


@pytest.mark.parametrize("proxy", ["http://u:secret@127.0.0.1:xx", "http://[::1", "http://u:secret@"])
def test_a_malformed_proxy_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    require_module("urllib3")
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ImageError) as caught:
        cosremaster.open("http://127.0.0.1:1/in.iso").close()
    assert "proxy" in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["9" * 5000, "-1", "", "1, 2", "\u0663", "0x10"])
def test_a_length_that_is_none_is_an_error(text: str) -> None:
    require_module("urllib3")
    http_file = load_module("cosremaster.io.http_file")
    with pytest.raises(ImageError, match="tells of a length that is none"):
        http_file._read_length(SimpleNamespace(headers={"Content-Length": text}), Place(("u",)))
    for fields, length in (({}, None), ({"Content-Length": "12"}, 12), ({"Content-Length": "7, 7"}, 7)):
        assert http_file._read_length(SimpleNamespace(headers=fields), Place(("u",))) == length


# --- what stands around an answer


def test_answers_that_are_not_final_are_passed_over(served: ServedFile) -> None:
    served.interim = [103, 102, 103]
    with open_source(served.url) as source:
        assert source.read(0, source.size) == DATA
    served.interim = [103] * 50
    assert _message(served.url).startswith("the server's answer is no HTTP")


@pytest.mark.parametrize("has_ranges", [True, False])
def test_lengths_that_differ_are_an_error(served: ServedFile, has_ranges: bool) -> None:
    served.has_ranges = has_ranges
    served.extra = [("Content-Length", str(len(DATA) - 2048))]
    assert _message(served.url) == "the server tells of several lengths of an answer"


def test_a_busy_server_is_waited_for_as_it_asks(
    served: ServedFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    clock = SimpleNamespace(sleep=pauses.append, time=time.time)
    monkeypatch.setattr(load_module("cosremaster.io.http_file"), "time", clock)
    served.statuses, served.extra = [503, 429], [("Retry-After", "7")]
    with open_source(served.url) as source:
        served.statuses = [503]
        assert source.read(0, source.size) == DATA
    assert pauses == [7, 7, 7]
    assert f"{served.url}: the server fails (429 Too Many Requests), and is asked again in 7 seconds" in caplog.text
    pauses.clear()
    for text, pause in (("soon", 0), ("Mon, 30 Nov 2020 10:00:00 GMT", 0), ("0", 0)):
        served.statuses, served.extra = [503], [("Retry-After", text)]
        with open_source(served.url):
            assert pauses.pop() == pause
    later = formatdate(time.time() + 10, usegmt=True)
    served.statuses, served.extra = [503], [("Retry-After", later)]
    with open_source(served.url):
        assert 8 <= pauses.pop() <= 10


def test_a_server_that_asks_for_a_long_time_is_not_waited_for(served: ServedFile) -> None:
    served.statuses, served.extra = [429], [("Retry-After", "3600")]
    assert _message(served.url) == "the server fails (429 Too Many Requests), and asks to wait for 3,600 seconds"
    assert len(served.log) == 1


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("http://b\u00fccher.example/\u00fc.iso", "http://xn--bcher-kva.example/%C3%BC.iso"),
        ("https://anna:p\u00e4ss@B\u00dcCHER.example:8443/x", "https://anna:p%C3%A4ss@xn--bcher-kva.example:8443/x"),
        ("http://images.example/%20\u00fc?a=\u00fc", "http://images.example/%20%C3%BC?a=%C3%BC"),
        ("s3://b\u00fccher/x", "s3://b%C3%BCcher/x"),
    ],
)
def test_names_of_hosts_are_encoded(text: str, host: str) -> None:
    assert Url(text).text == host


@pytest.mark.parametrize("host", ["fa\u00df.example", "\u03b2\u03c2.example", "a\u200db.example", "\u00fc" * 70])
def test_a_name_of_a_host_that_may_mean_two_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="the name of its host"):
        Url(f"http://anna:secret@{host}/in.iso")


def test_a_redirect_may_hold_bytes_of_utf8(served: ServedFile) -> None:
    served.redirects = {"/in.iso": "/\u00fc/x".encode().decode("latin-1"), "/%C3%BC/x": "/y/in.iso"}
    with open_source(served.url) as source:
        assert source.read(9, 4) == DATA[9:13]


# --- proxies


def test_a_proxy_of_the_environment_is_asked(served: ServedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_proxy() as proxy:
        proxy.credentials = "Basic " + base64.b64encode(b"anna:p@ss").decode()
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.replace("://", "://anna:p%40ss@"))
            with open_source(served.url) as source:
                assert source.read(1 << 20, 4) == DATA[1 << 20 :][:4]
            assert set(proxy.log) == {f"GET {served.url}"}
            proxy.log.clear()
            for away in ("127.0.0.1", "*", served.url.split("/")[2], "example.com, 127.0.0.1"):
                monkeypatch.setenv("no_proxy", away)
                with open_source(served.url):
                    assert not proxy.log
            monkeypatch.delenv("no_proxy")
            monkeypatch.delenv(name)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert _message(served.url) == "the server refuses access (407 Proxy Authentication Required)"


def test_each_redirect_has_its_own_proxy(served: ServedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """One leads from a server that is reached through the proxy to one that is not, and the other way round."""
    with run_proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        near, far = served.url, served.url.replace("127.0.0.1", "localhost")
        served.redirects = {"/far/in.iso": near, "/near/in.iso": far}
        for path, log in ((far.replace("/in", "/far/in"), "/far/in.iso"), (near.replace("/in", "/near/in"), "/in.iso")):
            proxy.log.clear()
            with open_source(path):
                assert [line.rpartition(far.rpartition("/")[0])[2] for line in proxy.log] == [log]


def test_a_proxy_that_refuses_a_tunnel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require_module("urllib3")
    with run_proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://anna:secret@"))
        for status, text in ((407, "407 Proxy Authentication Required"), (403, "403 Forbidden")):
            proxy.status = status
            message = _message("https://images.invalid/in.iso")
            assert message == f"the proxy refuses to connect to the server ({text})"
        assert proxy.log == ["CONNECT images.invalid:443"] * 2
