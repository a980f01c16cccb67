"""The server as an application, without a server around it: what it answers, and what it does when sources change."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import re
import resource
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from email.utils import parsedate_to_datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cosremaster
from cosremaster import AddPath, Request
from cosremaster.demo.image import build_iso, initramfs
from cosremaster.errors import OutputError, RecipeError, UsageError
from cosremaster.fleet import read_fleet
from cosremaster.recipe import build
from cosremaster.recipe.read import read_recipe
from cosremaster.serve import app as application
from cosremaster.serve import catalogs
from cosremaster.serve import sites as site_images
from cosremaster.serve import tokens as token_files
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.app import ConnectionCutError, ServeApp, ServedPath, hide_tokens, parse_path
from cosremaster.serve.catalogs import RecipeCatalog, open_catalog
from cosremaster.serve.fingerprint import take_fingerprint
from cosremaster.serve.listen import Address, find_client, fit_connections, open_socket, parse_address
from cosremaster.serve.ranges import Representation, answer_request
from cosremaster.serve.sites import ServedFile, ServedSite, SiteCatalog, SiteImages, SiteSource
from cosremaster.serve.tokens import Access, FileTokens, Tokens
from tests.fixtures.tools import load_module, require, require_module, run
from tests.support import range_server
from tests.support.range_server import serve_file
from tests.support.small import CGZ, root_without_devices

TOKEN, OTHER = "0123456789abcdef", "fedcba9876543210"
KERNEL = b"MZ" + bytes(0x200) + b"HdrS" + bytes(3000)
MENU = b'menuentry "Live" { linux /vmlinuz quiet "dyndbg=file a +p"; initrd /ucode.img /debirf-live-demo.cgz; }\n'


@cache
def _base_image() -> bytes:
    """A small debirf image with a menu, whose system is a gzip archive."""
    files = {"vmlinuz": KERNEL, "boot/grub/grub.cfg": MENU, "ucode.img": b"u" * 5, "pad": b"P" * (1 << 19)}
    return build_iso({**files, CGZ: initramfs(b"rootfs.cgz", root_without_devices()[:9])})


class Reply(NamedTuple):
    """An answer, put together from its messages."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes


class Fleet:
    """Recipes of sites in a folder, and the application that serves them."""

    def __init__(self, folder: Path, sites: int = 1, tokens: str = "", limit: int = 10) -> None:
        self.folder, self.tokens, self.limit = folder, tokens, limit
        self.base = folder / "in.iso"
        self.base.write_bytes(_base_image())
        self.names = [f"site-{number}" for number in range(sites)]
        for name in self.names:
            (folder / name / "etc").mkdir(parents=True, exist_ok=True)
            (folder / name / "etc/hostname").write_text(f"{name}\n")
            recipe = f'input = "in.iso"\noutput = "{name}.iso"\n[[add]]\nsource = "{name}"\n'
            (folder / f"{name}.toml").write_text(recipe)
        self.lines: list[str] = []
        self.start()

    def start(self) -> None:
        self.images = SiteImages(RecipeCatalog([self.folder / f"{name}.toml" for name in self.names]), self.limit)
        self.log = AccessLog(self.lines.append)
        self.app = ServeApp(self.images, self.log, Tokens(self.tokens.splitlines()))

    def stop(self) -> str:
        """Ends, and returns the log."""
        self.app.close()
        self.images.close()
        self.log.close()
        return "".join(self.lines)

    def written(self, name: str = "site-0") -> bytes:
        """The image that is written for a site."""
        target = self.folder / f"{name}.written.iso"
        build(self.folder / f"{name}.toml", output=target, force=True, sync=False)
        return target.read_bytes()

    def get(self, path: str, method: str = "GET", **fields: bytes) -> Reply:
        return asyncio.run(self.request(path, method, None, **fields))

    async def request(
        self, path: str, method: str = "GET", on_body: Callable[[bytes], None] | None = None, **fields: bytes
    ) -> Reply:
        """Sends a request to the application; `on_body` hears each part of the body."""
        heads: list[MutableMapping[str, Any]] = []
        parts: list[bytes] = []
        is_open = True

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal is_open
            assert is_open
            if message["type"] == "http.response.start":
                assert not heads
                heads.append(message)
                return
            parts.append(message["body"])
            is_open = message.get("more_body", False)
            if on_body is not None:
                on_body(message["body"])

        await self.app(make_scope(path, method, fields), receive_nothing(), send)
        assert not is_open
        answer = dict(heads[0]["headers"])
        assert len(answer) == len(heads[0]["headers"])
        body = b"".join(parts)
        assert answer.get(b"content-length", b"0") == b"%d" % len(body) or method == "HEAD"
        return Reply(heads[0]["status"], answer, body)


class RemoteBase(NamedTuple):
    """A base on a web server, and the images of sites with it."""

    served: range_server.ServedFile
    images: dict[str, bytes]


def wait_for_the_next_second() -> None:
    """Dates of HTTP have no more than seconds. The clock is that of file systems, which lags behind by some ticks."""
    with tempfile.TemporaryFile() as file:
        second = read_file_clock(file.fileno())
        while read_file_clock(file.fileno()) == second:
            time.sleep(0.05)


def read_file_clock(fd: int) -> int:
    """The second that a file has which changes now."""
    os.utime(fd)
    return int(os.fstat(fd).st_mtime)


def make_scope(path: str, method: str = "GET", fields: dict[str, bytes] | None = None) -> dict[str, Any]:
    headers = [(name.replace("_", "-").encode(), value) for name, value in (fields or {}).items()]
    return {"type": "http", "method": method, "path": path, "headers": headers, "client": ("127.0.0.1", 5)}


def receive_nothing() -> Callable[[], Awaitable[MutableMapping[str, Any]]]:
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> MutableMapping[str, Any]:
        for message in messages:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    return receive


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Waits for no second to be over, but where that is what a test is about."""
    if "patient" not in request.fixturenames:
        monkeypatch.setattr(site_images, "SETTLING", 0)


@pytest.fixture
def patient() -> None:
    """Waits until the second of the last change is over."""


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the sources of a site for each request."""
    for name in ("CHECK_INTERVAL", "CHECK_SHARE", "FAILURE_INTERVAL"):
        monkeypatch.setattr(site_images, name, 0)
    monkeypatch.setattr(catalogs, "FAILURE_INTERVAL", 0)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, sites=2)
    yield made
    made.stop()


def test_an_image_is_that_which_would_be_written(fleet: Fleet) -> None:
    for name in fleet.names:
        image = fleet.written(name)
        assert len(image) > 2 * application.CHUNK
        whole = fleet.get(f"/{name}.iso")
        assert (whole.status, whole.body) == (200, image)
        head = fleet.get(f"/{name}.iso", "HEAD")
        assert (head.status, head.fields, head.body) == (200, whole.fields, b"")
        for start, end in [(0, 1), (1000, 300_000), (len(image) - 5, len(image)), (0x8000, 0x8800)]:
            part = fleet.get(f"/{name}.iso", range=b"bytes=%d-%d" % (start, end - 1))
            assert (part.status, part.body) == (206, image[start:end])
        several = fleet.get(f"/{name}.iso", range=b"bytes=0-9,100000-600000")
        assert several.status == 206
        assert image[:10] in several.body and image[100_000:600_001] in several.body
        digest = fleet.get(f"/{name}.iso.sha256").body
        assert (
            digest == f"{hashlib.sha256(image).hexdigest()}  {name}.iso\n".encode() == fleet.get(f"/{name}.sha256").body
        )
    assert fleet.images.metrics.plans_made == len(fleet.names)
    assert {fleet.get(f"/{name}.iso", "HEAD").fields[b"etag"] for name in fleet.names} != {whole.fields[b"etag"]}


def test_a_restart_keeps_the_validators(fleet: Fleet) -> None:
    before = fleet.get("/site-0.iso", "HEAD").fields
    etag, boot = before[b"etag"], fleet.get("/site-0/vmlinuz", "HEAD").fields
    fleet.stop()
    fleet.start()
    assert fleet.get("/site-0.iso", "HEAD").fields == before
    assert fleet.get("/site-0/vmlinuz", "HEAD").fields == boot
    assert boot[b"etag"] != etag
    assert fleet.get("/site-0.iso", if_none_match=etag).status == 304
    assert fleet.get("/site-0.iso", if_match=b'"other"').status == 412


def test_a_network_boot_loads_what_the_menu_of_the_image_does(fleet: Fleet) -> None:
    live = cosremaster.read(f"{fleet.base}::debirf-live-demo.cgz")
    script = fleet.get("/site-0/boot.ipxe").body.decode()
    assert script.splitlines() == [
        "#!ipxe", 'kernel vmlinuz initrd=ucode.img initrd=debirf-live-demo.cgz quiet "dyndbg=file a +p"',
        "initrd ucode.img", "initrd debirf-live-demo.cgz", "boot",
    ]  # fmt: skip
    assert fleet.get("/site-0/vmlinuz").body == KERNEL
    packed = fleet.get("/site-0/debirf-live-demo.cgz").body
    assert packed != live
    target = fleet.folder / "written.iso"
    target.write_bytes(fleet.written())
    assert packed == cosremaster.read(f"{target}::debirf-live-demo.cgz")
    assert fleet.get("/site-0/initrd").body == b"uuuuu\0\0\0" + packed + bytes(-len(packed) % 4)
    part = fleet.get("/site-0/initrd", range=b"bytes=3-11")
    assert (part.status, part.body) == (206, (b"uuuuu\0\0\0" + packed)[3:12])
    assert fleet.get("/site-0/etc").status == 404


def test_paths() -> None:
    for path, target in {
        "/": ServedPath("index"),
        "/a.iso": ServedPath("image", "a"),
        "/a.iso.iso": ServedPath("image", "a.iso"),
        "/a.iso.sha256": ServedPath("digest", "a", other_site="a.iso"),
        "/a.sha256": ServedPath("digest", "a"),
        "/a/vmlinuz": ServedPath("boot", "a", "vmlinuz"),
        "/s/t/a.iso": ServedPath("image", "a", token="t"),
        "/s/t/": ServedPath("index", token="t"),
        "/s/t/a/initrd": ServedPath("boot", "a", "initrd", "t"),
        "/s/initrd": ServedPath("boot", "s", "initrd"),
        "/healthz": ServedPath("health"),
        "/metrics": ServedPath("metrics"),
    }.items():
        assert parse_path(path) == target
    for path in ("", "a.iso", "//", "/a", "/.iso", "/a//b", "/a/b/c", "/s/t/a/b/c", "//a.iso", "/a.iso/", "*", "/a/"):
        assert not parse_path(path).kind, path


def test_a_site_whose_name_ends_as_that_of_an_image(tmp_path: Path) -> None:
    """Its checksum is there under both names that others have, where that means no other site."""
    fleet = Fleet(tmp_path, 0, f"{TOKEN}\n{OTHER} a.iso\n")
    for name in ("a.iso", "b", "b.iso"):
        overlay = f'[[add]]\nfile = "/etc/name"\ncontent = "{name}"\n'
        (fleet.folder / f"{name}.toml").write_text(f'input = "in.iso"\noutput = "x.iso"\n{overlay}')
        fleet.names.append(name)
    fleet.start()

    def digest(path: str, token: str = TOKEN) -> bytes:
        answer = fleet.get(f"/s/{token}/{path}")
        return answer.body if answer.status == 200 else b"%d" % answer.status

    sums = {name: hashlib.sha256(fleet.get(f"/s/{TOKEN}/{name}.iso").body).hexdigest() for name in fleet.names}
    lines = {name: f"{sums[name]}  {name}.iso\n".encode() for name in fleet.names}
    assert len(set(sums.values())) == 3
    for path, name in {
        "a.iso.sha256": "a.iso", "a.iso.iso.sha256": "a.iso", "b.iso.sha256": "b", "b.sha256": "b",
        "b.iso.iso.sha256": "b.iso",
    }.items():  # fmt: skip
        assert digest(path) == lines[name], path
    assert digest("a.iso.sha256", OTHER) == lines["a.iso"]
    assert [digest(path, OTHER) for path in ("b.iso.sha256", "b.iso.iso.sha256", "a.iso")] == [b"404"] * 3
    fleet.stop()


def test_no_path_leaves_the_fleet(fleet: Fleet) -> None:
    for path in ("/../in.iso", "/in.iso", "/site-0/../in.iso", "/site-9.iso", "/site-0.toml", "/..%2fvendor.iso",
                 "/site-0/..", "/s/x/site-0.iso", "/\0.iso", "/site-0.iso\0.iso"):  # fmt: skip
        assert fleet.get(path).status == 404, path
    refused = fleet.get("/site-0.iso", "POST")
    assert (refused.status, refused.fields[b"allow"]) == (405, b"GET, HEAD")


def test_tokens(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, f"# all\n{TOKEN}\n{OTHER} site-1 # a site\n")
    assert (fleet.get("/").status, fleet.get("/site-0.iso").status, fleet.get("/metrics").status) == (401, 401, 401)
    assert fleet.get("/healthz").body == b"ok\n"
    assert fleet.get("/s/0123456789abcdeX/site-0.iso", "HEAD").status == 404
    assert fleet.get(f"/s/{TOKEN}/site-0.iso", "HEAD").status == 200
    assert fleet.get("/site-0.iso", "HEAD", authorization=f"bearer {TOKEN}".encode()).status == 200
    assert fleet.get("/site-0.iso", "HEAD", authorization=f"Bearer {OTHER}".encode()).status == 404
    assert fleet.get(f"/s/{OTHER}/site-0.iso", "HEAD").status == 404
    assert fleet.get(f"/s/{OTHER}/site-1/boot.ipxe").status == 200
    page = fleet.get(f"/s/{OTHER}/").body
    assert b"site-1.iso" in page and b"site-0" not in page
    log = fleet.stop()
    assert TOKEN not in log and OTHER not in log and "0123456789abcdeX" not in log
    assert '"path":"/s/***/site-0.iso"' in log


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at a file of tokens for each request, and takes what is in it at once."""
    monkeypatch.setattr(token_files, "LOOK_INTERVAL", 0)
    monkeypatch.setattr(token_files, "SETTLED", 0)


def test_tokens_of_a_file_are_those_that_are_in_it_now(fleet: Fleet, watchful: None) -> None:
    path, third = fleet.folder / "tokens", "an-other-token-of-all"
    path.write_text(f"{TOKEN}\n{OTHER} site-1\n")
    fleet.app = ServeApp(fleet.images, fleet.log, FileTokens(path))

    def statuses(*words: str) -> list[int]:
        return [fleet.get(f"/s/{word}/site-0.iso", "HEAD").status for word in words]

    assert statuses(TOKEN, OTHER, third) == [200, 404, 404]
    fleet.get(f"/{third}")
    path.write_text(f"{OTHER}\n{third} site-0 # new\n")
    assert statuses(TOKEN, OTHER, third) == [404, 200, 200]
    fleet.get(f"/{third}")  # as before: now it is a token
    for spoil, fault in (
        (lambda: path.write_text("# nothing\n"), f"--token-file {path}: has no token"),
        (lambda: path.write_text(f"{OTHER}\nshort\n"), f"{path}:2: a token is 16 to 128 letters"),
        (lambda: path.write_bytes(b"\xff"), f"--token-file {path}: is no text"),
        (path.unlink, f"--token-file {path}: No such file or directory"),
    ):
        assert "\ncosremaster_token_file_faults 0\n" in fleet.get(f"/s/{OTHER}/metrics").body.decode()
        spoil()
        assert statuses(TOKEN, OTHER, third) == [404, 200, 200]
        assert fleet.app._tokens.problem.startswith(f"the tokens stay what they were: {fault}")
        assert "\ncosremaster_token_file_faults 1\n" in fleet.get(f"/s/{OTHER}/metrics").body.decode()
        path.write_text(f"{OTHER}\n{third} site-0\n")
        assert statuses(TOKEN, OTHER, third) == [404, 200, 200]
    new = fleet.folder / "new"
    new.write_text(f"{TOKEN}\n")
    new.rename(path)
    assert statuses(TOKEN, OTHER, third) == [200, 404, 404]
    log = fleet.stop()
    assert log.count('"event":"fault"') == 4 and "the tokens stay what they were" in log
    assert log.count(f'"path":"/{third}"') == 1 and log.count('"path":"/***"') == 1


def test_a_file_of_tokens_is_read_when_nobody_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without its last word would open all sites."""
    monkeypatch.setattr(token_files, "LOOK_INTERVAL", 0)
    path = tmp_path / "tokens"
    path.write_text(f"{OTHER} site-1\n")
    tokens = FileTokens(path)
    monkeypatch.setattr(token_files, "SETTLED", 10**12)
    path.write_text(f"{OTHER}")
    assert not tokens.renew()
    monkeypatch.setattr(token_files, "SETTLED", 0)
    read_text = Path.read_text

    def read_early(file: Path, encoding: str) -> str:
        text = read_text(file, encoding)
        file.write_text(f"{OTHER} site-2\n")
        return text

    with monkeypatch.context() as context:
        context.setattr(Path, "read_text", read_early)
        assert not tokens.renew()
    assert tokens.find_access(OTHER) == Access(frozenset(("site-1",)))
    assert tokens.renew() and not tokens.renew()
    assert tokens.find_access(OTHER) == Access(frozenset(("site-2",)))
    monkeypatch.setattr(token_files, "LOOK_INTERVAL", 3600)
    assert not tokens.renew()
    path.write_text(f"{TOKEN}\n")
    assert not tokens.renew()


@pytest.mark.parametrize("line", ["short", "0123456789abcde/", "0123456789abcdef" * 9, "ünicode-ünicode-ünicode"])
def test_a_token_is_long_and_fits_into_a_url(line: str) -> None:
    with pytest.raises(UsageError, match="place:2: a token is 16 to 128 letters"):
        Tokens(["# comment", line], "place")


def test_the_log_has_no_token_wherever_a_client_puts_it() -> None:
    tokens = Tokens([TOKEN])
    for path, shown in {
        f"//s/{TOKEN}/a.iso": "//s/***/a.iso", f"/S/{TOKEN}/a.iso": "/S/***/a.iso", f"/x/s/{TOKEN}": "/x/s/***",
        f"/{TOKEN}/a.iso": "/***/a.iso", f"/a.iso;t={TOKEN}": "/a.iso;t=***", "/s/wrong/a.iso": "/s/***/a.iso",
        f"/s//{TOKEN}/a.iso": "/s//***/a.iso", f"/http:/h/s/{TOKEN}": "/http:/h/s/***", "/a.iso": "/a.iso",
        f"{'/a' * 145}/{TOKEN}": f"{'/a' * 145}/...",
    }.items():  # fmt: skip
        assert hide_tokens(path, tokens) == shown, path


def test_the_log_has_no_token_behind_escapes_of_escapes(fleet: Fleet) -> None:
    """A server decodes a path once; what is in the log is read by people, who may do it again."""
    tokens = Tokens([TOKEN, f"41{TOKEN}"])
    spelled = "".join(f"%{byte:02x}" for byte in TOKEN.encode())
    for path, shown in {
        f"/s%2F{TOKEN}/a.iso": "/s%2F***/a.iso", f"/s%252f{TOKEN}": "/s%252f***", f"/%2525{TOKEN}": "/%2525***",
        f"/{spelled}/a.iso": "/***/a.iso", f"/{spelled.replace('%', '%25')}": "/***", "/s%2Fx/a.iso": "/s/***/a.iso",
        f"/s{TOKEN}/a.iso": "/s***/a.iso", f"/{TOKEN}0": "/***0", f"/-{TOKEN}{TOKEN}.iso.sha256": "/-******.iso.sha256",
        f"/{TOKEN}/%2541{TOKEN}": "/***/%25***", "/a%20b%2Fc": "/a%20b%2Fc", "/" + "%25" * 99: "/" + "%25" * 99,
    }.items():  # fmt: skip
        assert hide_tokens(path, tokens) == shown, path
    fleet.tokens = f"{TOKEN}\n"
    fleet.start()
    for path in (f"/s%2F{TOKEN}/site-0.iso", f"/S%252F{TOKEN}", f"/{spelled}", f"/x{TOKEN}x"):
        assert fleet.get(path).status == 401
    log = fleet.stop()
    assert TOKEN not in log and spelled not in log and log.count("***") == 4


def test_pages(fleet: Fleet) -> None:
    fleet.get("/site-0.iso", "HEAD")
    page = fleet.get("/")
    assert page.fields[b"content-type"] == b"text/html; charset=utf-8"
    assert re.findall(rb'href="([^"]+)"', page.body)[:3] == [b"site-0.iso", b"site-0.iso.sha256", b"site-0/boot.ipxe"]
    assert b"not planned yet" in page.body
    metrics = fleet.get("/metrics").body.decode()
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert values['cosremaster_answers_total{method="HEAD",status="200"}'] == "1"
    assert (values["cosremaster_sites"], values["cosremaster_planned_sites"]) == ("2", "1")
    assert len(re.findall(r"^# TYPE cosremaster_\w+ (?:counter|gauge)$", metrics, re.MULTILINE)) == len(values) - 1


def test_a_changed_overlay_is_another_image(fleet: Fleet, eager: None) -> None:
    before = fleet.get("/site-0.iso")
    (fleet.folder / "site-0/etc/hostname").write_text("other\n")
    assert fleet.get("/site-0.iso", if_match=before.fields[b"etag"]).status == 412
    after = fleet.get("/site-0.iso", if_range=before.fields[b"etag"], range=b"bytes=0-9")
    assert (after.status, after.body) == (200, fleet.written())
    assert after.body != before.body
    (fleet.folder / "site-0/new").write_text("added\n")
    assert fleet.get("/site-0.iso").body == fleet.written() != after.body
    assert fleet.images.metrics.plans_made == 3


def test_a_file_with_a_time_in_the_future_hides_no_change(fleet: Fleet, eager: None) -> None:
    overlay = fleet.folder / "site-0/etc/hostname"
    os.utime(overlay, (2e9, 2e9))
    modified = fleet.get("/site-0.iso", "HEAD").fields[b"last-modified"]
    assert parsedate_to_datetime(modified.decode()).timestamp() <= time.time()
    wait_for_the_next_second()
    (overlay.parent / "other").write_text("new")
    assert fleet.get("/site-0.iso", "HEAD", if_modified_since=modified).status == 200
    assert fleet.get("/site-0.iso", "HEAD", if_unmodified_since=modified).status == 412


def test_a_digest_holds_up_no_other_site(fleet: Fleet, eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of gigabytes take long to read; sites are looked at and planned meanwhile."""
    fleet.get("/site-1.iso", "HEAD")
    may_end = threading.Event()
    digest_file = ServedSite.digest_file

    def digest_slowly(site: ServedSite) -> ServedFile:
        assert may_end.wait(60)
        return digest_file(site)

    monkeypatch.setattr(ServedSite, "digest_file", digest_slowly)

    async def ask() -> None:
        digests = [asyncio.ensure_future(fleet.request(f"/site-{number}.sha256")) for number in range(3)]
        assert (await fleet.request("/site-1.iso", "HEAD")).status == 200
        assert (await fleet.request("/site-2.iso", "HEAD")).status == 200
        assert not any(digest.done() for digest in digests)
        may_end.set()
        assert [(await digest).status for digest in digests] == [200] * 3

    fleet.names.append("site-2")
    (fleet.folder / "site-2.toml").write_text((fleet.folder / "site-1.toml").read_text())
    fleet.start()
    asyncio.run(ask())


def test_what_cannot_be_planned_is_said(fleet: Fleet, eager: None) -> None:
    recipe = fleet.folder / "site-0.toml"
    text = recipe.read_text()
    recipe.write_text(text + 'volume = "x"\n')
    answer = fleet.get("/site-0.iso")
    assert answer.status == 503 and b"site-0.toml:5" in answer.body and b"volume" in answer.body
    assert fleet.get("/site-1.iso", "HEAD").status == 200
    recipe.write_text(text)
    assert fleet.get("/site-0.iso", "HEAD").status == 200
    fleet.base.write_bytes(b"no image")
    assert [fleet.get(f"/{name}.iso").status for name in fleet.names] == [503, 503]
    assert (fleet.images.metrics.plans_failed, len(fleet.images)) == (3, 0)


def test_a_failure_is_remembered_for_a_moment(fleet: Fleet) -> None:
    (fleet.folder / "site-0.toml").unlink()
    assert [fleet.get("/site-0.iso").status for _ in range(5)] == [503] * 5
    assert fleet.images.metrics.plans_failed == 1


def test_a_base_that_changes_cuts_the_answer(fleet: Fleet) -> None:
    image = fleet.written()
    sent = bytearray()

    def change_base(data: bytes) -> None:
        sent.extend(data)
        if len(sent) == application.CHUNK:
            with fleet.base.open("r+b") as file:
                file.seek(application.CHUNK)
                file.write(b"\xff" * (len(image) - application.CHUNK - 9))

    with pytest.raises(ConnectionCutError, match="changed"):
        asyncio.run(fleet.request("/site-0.iso", on_body=change_base))
    assert bytes(sent) == image[: application.CHUNK]
    assert len(fleet.images) == 0
    log = fleet.stop()
    assert '"status":200' in log and f'"sent":{application.CHUNK}' in log and "changed" in log
    assert fleet.app.metrics.cut == 1


def test_a_base_that_was_written_to_and_got_its_time_back_cuts_the_answer(fleet: Fleet) -> None:
    """As a build does that writes its image in place and gives it a fixed date."""
    image, status = fleet.written(), fleet.base.stat()
    sent = bytearray()

    def change_base(data: bytes) -> None:
        sent.extend(data)
        if len(sent) == application.CHUNK:
            with fleet.base.open("r+b") as file:
                file.seek(application.CHUNK)
                file.write(b"\xff" * (status.st_size - application.CHUNK))
            os.utime(fleet.base, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(ConnectionCutError, match="changed"):
        asyncio.run(fleet.request("/site-0.iso", on_body=change_base))
    assert bytes(sent) == image[: application.CHUNK]


def test_a_base_that_another_took_the_name_of_cuts_no_answer(fleet: Fleet) -> None:
    image, other = fleet.written(), fleet.folder / "other.iso"
    os.link(fleet.base, fleet.folder / "archive.iso")
    other.write_bytes(build_iso({"vmlinuz": KERNEL, CGZ: initramfs(b"rootfs.cgz", [])}))

    def replace_base(_: bytes) -> None:
        if other.exists():
            other.rename(fleet.base)

    assert asyncio.run(fleet.request("/site-0.iso", on_body=replace_base)).body == image


def test_a_large_file_of_an_overlay_with_a_time_that_was_set_is_another(fleet: Fleet, eager: None) -> None:
    """It is read while it is served; tar and rsync give a new file an old date, and its size may be the same."""
    blob, new = fleet.folder / "blob", random.Random(3).randbytes(2 << 20)
    with (fleet.folder / "site-0.toml").open("a") as recipe:
        recipe.write('[[add_iso]]\nsource = "blob"\ndest = "/blob"\n')
    blob.write_bytes(new[::-1])
    os.utime(blob, (1e9, 1e9))
    before = fleet.get("/site-0.iso")
    assert before.body == fleet.written()
    sent = bytearray()

    def replace_file(data: bytes) -> None:
        sent.extend(data)
        if len(sent) == application.CHUNK:
            (fleet.folder / "new").write_bytes(new)
            os.utime(fleet.folder / "new", (1e9, 1e9))
            (fleet.folder / "new").rename(blob)

    with pytest.raises(ConnectionCutError, match="blob: changed"):
        asyncio.run(fleet.request("/site-0.iso", on_body=replace_file))
    assert before.body.startswith(bytes(sent))
    after = fleet.get("/site-0.iso", if_none_match=before.fields[b"etag"])
    assert (after.status, after.body) == (200, fleet.written())
    assert after.body != before.body


def test_a_base_in_an_object_store_that_changes_is_never_mixed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of fsspec hold no condition."""
    store = load_module("fsspec.implementations.memory").MemoryFileSystem()
    recipe, other = fleet.folder / "site-0.toml", random.Random(1).randbytes(4 << 20)
    first = build_iso({"pad": other, "vmlinuz": KERNEL, CGZ: initramfs(b"rootfs.cgz", [])})
    store.pipe("/bucket/in.iso", first)
    try:
        fleet.base.write_bytes(first)
        image = fleet.written()
        recipe.write_text(recipe.read_text().replace('"in.iso"', '"memory://bucket/in.iso"'))
        assert fleet.get("/site-0.iso", "HEAD").status == 200
        store.pipe("/bucket/in.iso", first.replace(other, other[::-1]))
        with contextlib.suppress(ConnectionCutError):
            assert fleet.get("/site-0.iso").status == 503
        monkeypatch.setattr(site_images, "FAILURE_INTERVAL", 0)
        after = fleet.get("/site-0.iso")
        fleet.base.write_bytes(first.replace(other, other[::-1]))
        recipe.write_text(recipe.read_text().replace('"memory://bucket/in.iso"', '"in.iso"'))
        assert after.body == fleet.written() != image
        assert "changed while it was being read" in fleet.stop()
    finally:
        store.rm("/bucket", recursive=True)


def test_a_base_that_is_another_in_a_way_that_its_file_does_not_show(fleet: Fleet, eager: None) -> None:
    """It is opened anew, though nobody reads what was planned with it."""
    require("qemu-img")
    disk, backing = fleet.folder / "disk.qcow2", fleet.folder / "raw.iso"
    backing.write_bytes(fleet.base.read_bytes())
    run(["qemu-img", "create", "-f", "qcow2", "-b", str(backing), "-F", "raw", str(disk)])
    for name in fleet.names:
        recipe = fleet.folder / f"{name}.toml"
        recipe.write_text(recipe.read_text().replace('"in.iso"', '"disk.qcow2"'))
    assert fleet.get("/site-0.iso", "HEAD").status == 200
    backing.write_bytes(build_iso({"vmlinuz": KERNEL, CGZ: initramfs(b"rootfs.cgz", []), "pad": b"P" * (1 << 19)}))
    fleet.get("/site-1.iso")
    assert fleet.get("/site-1.iso").body == fleet.written("site-1")


def test_a_plan_goes_on_when_its_base_is_dropped(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    site = fleet.images.find_site("site-0")
    images, prepare = {name: fleet.written(name) for name in fleet.names}, cosremaster.Image.prepare

    def drop_before(image: cosremaster.Image, request: Request) -> cosremaster.Prepared:
        fleet.images.drop(site)
        return prepare(image, request)

    monkeypatch.setattr(cosremaster.Image, "prepare", drop_before)
    assert fleet.get("/site-1.iso").body == images["site-1"]
    monkeypatch.undo()
    assert fleet.get("/site-0.iso").body == images["site-0"]
    assert fleet.images.metrics.plans_failed == 0


def test_no_answer_waits_until_the_base_of_others_is_open(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """That may take long, and one that cannot be read any more is dropped meanwhile."""
    monkeypatch.setattr(site_images, "CHECK_INTERVAL", 3600)
    fleet.get("/site-0.iso", "HEAD")
    (fleet.folder / "other.iso").write_bytes(fleet.base.read_bytes())
    recipe = fleet.folder / "site-1.toml"
    recipe.write_text(recipe.read_text().replace('"in.iso"', '"other.iso"'))
    is_opening, may_open, waits = threading.Event(), threading.Event(), list[bool]()

    class SlowImage(cosremaster.Image):
        def __init__(self, path: Path) -> None:
            is_opening.set()
            waits.append(may_open.wait(20))
            super().__init__(path)

    async def ask() -> list[int]:
        waiting = asyncio.ensure_future(fleet.request("/site-1.iso", "HEAD"))
        await asyncio.to_thread(is_opening.wait)
        failed = await fleet.request("/site-0.iso", range=b"bytes=0-9")
        may_open.set()
        return [failed.status, (await waiting).status]

    monkeypatch.setattr(site_images, "Image", SlowImage)
    with fleet.base.open("r+b") as file:
        file.write(b"changed")
    assert asyncio.run(ask()) == [503, 200]
    assert waits == [True]


def test_a_base_by_url(fleet: Fleet) -> None:
    """It has no date, and what it turns into is another image."""
    require_module("urllib3")
    base, tags = fleet.base.read_bytes(), ["one"]
    image = fleet.written()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            tag = f'"{tags[-1]}"'
            fields = [
                (b"range", self.headers["Range"].encode()),
                (b"if-match", self.headers.get("If-Match", tag).encode()),
            ]
            answer = answer_request("GET", fields, Representation(len(base), tags[-1], None, "image/iso"), 0)
            body = b"".join(part if isinstance(part, bytes) else base[part.start : part.end] for part in answer.body)
            self.send_response(answer.status)
            for name, value in answer.fields:
                self.send_header(name.decode(), value.decode())
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        recipe = fleet.folder / "site-0.toml"
        url = f"http://127.0.0.1:{server.server_address[1]}/in.iso"
        recipe.write_text(recipe.read_text().replace('"in.iso"', f'"{url}"'))
        before = fleet.get("/site-0.iso")
        assert before.body == image and b"last-modified" not in before.fields
        assert fleet.get("/site-0.iso", range=b"bytes=5-90000").body == image[5:90_001]
        tags.append("two")
        fleet.images.close()
        after = fleet.get("/site-0.iso")
        assert after.body == image and after.fields[b"etag"] != before.fields[b"etag"]
        server.shutdown()


@pytest.fixture
def remote(fleet: Fleet, eager: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteBase]:
    """The fleet with its base by URL, whose server is asked for each request."""
    monkeypatch.setattr(site_images, "URL_INTERVAL", 0)
    with serve_file(fleet.base.read_bytes()) as served:
        monkeypatch.setattr("cosremaster.io.http_file._PAUSES", (0, 0, 0))
        images = {name: fleet.written(name) for name in fleet.names}
        for name in fleet.names:
            recipe = fleet.folder / f"{name}.toml"
            recipe.write_text(recipe.read_text().replace('"in.iso"', f'"{served.url}"'))
        yield RemoteBase(served, images)


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_base_by_url_that_changes_is_another_image_for_each_site(
    fleet: Fleet, remote: RemoteBase, has_ranges: bool
) -> None:
    """Also where all bytes of the old one are on this machine, and for a site that nobody asks for."""
    remote.served.has_ranges = has_ranges
    before = {name: fleet.get(f"/{name}.iso") for name in fleet.names}
    assert {name: answer.body for name, answer in before.items()} == remote.images
    assert fleet.get("/site-0.iso", "HEAD").fields == before["site-0"].fields
    remote.served.data, remote.served.etag = build_iso({"vmlinuz": KERNEL, CGZ: initramfs(b"rootfs.cgz", [])}), '"v2"'
    for name in fleet.names:
        after = fleet.get(f"/{name}.iso", if_none_match=before[name].fields[b"etag"])
        assert after.status == 200
        assert after.body == fleet.written(name) != before[name].body
    assert fleet.images.metrics.plans_made == 4


def test_a_base_by_url_that_cannot_be_asked_for_is_the_same(fleet: Fleet, remote: RemoteBase) -> None:
    before = fleet.get("/site-0.iso")
    remote.served.statuses = [503] * 4
    assert fleet.get("/site-0.iso") == before
    assert remote.served.statuses == []
    assert fleet.images.metrics.plans_made == 1


def test_a_server_of_a_base_that_does_not_answer_is_waited_for_a_moment(
    fleet: Fleet, remote: RemoteBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fleet.get("/site-0.iso")
    remote.served.delay = 2
    monkeypatch.setattr("cosremaster.serve.looks.LONGEST_WAIT", 0.01)
    begun = time.monotonic()
    answer = fleet.get("/site-0.iso")
    assert time.monotonic() - begun < 1
    assert (answer.status, answer.fields) == (200, before.fields)
    is_same = answer.body == before.body
    assert is_same


def test_a_base_by_url_that_is_gone_is_said(fleet: Fleet, remote: RemoteBase) -> None:
    fleet.get("/site-0.iso")
    remote.served.statuses = [404] * 2
    answer = fleet.get("/site-0.iso")
    assert answer.status == 503
    assert b"is not there (404 Not Found)" in answer.body
    assert fleet.get("/site-0.iso").body == remote.images["site-0"]


def test_an_older_base_behind_a_symlink_has_a_newer_date(fleet: Fleet, eager: None) -> None:
    """Who goes back to it must not hear that nothing changed, nor go on with other bytes."""
    old, link = fleet.folder / "old.iso", fleet.folder / "in.iso"
    old.write_bytes(build_iso({"vmlinuz": KERNEL, CGZ: initramfs(b"rootfs.cgz", [])}))
    wait_for_the_next_second()
    link.rename(fleet.folder / "new.iso")
    link.symlink_to("new.iso")
    before = fleet.get("/site-0.iso")
    wait_for_the_next_second()
    link.unlink()
    link.symlink_to("old.iso")
    date = before.fields[b"last-modified"]
    after = fleet.get("/site-0.iso", if_modified_since=date)
    assert (after.status, after.body) == (200, fleet.written())
    assert fleet.get("/site-0.iso", if_unmodified_since=date, range=b"bytes=9-").status == 412
    fleet.stop()
    fleet.start()
    assert fleet.get("/site-0.iso", "HEAD").fields == after.fields


def test_another_image_has_another_date(fleet: Fleet, eager: None) -> None:
    """Where a folder takes the place of another, no time of a file tells."""
    folder = fleet.folder / "images"
    for name, files in (("old", {}), ("images", {"pad": b"P"})):
        (fleet.folder / name).mkdir()
        (fleet.folder / name / "in.iso").write_bytes(
            build_iso({"vmlinuz": KERNEL, CGZ: initramfs(b"rootfs.cgz", []), **files})
        )
        wait_for_the_next_second()
    for name in fleet.names:
        recipe = fleet.folder / f"{name}.toml"
        recipe.write_text(recipe.read_text().replace('"in.iso"', '"images/in.iso"'))
    before = fleet.get("/site-0.iso")
    folder.rename(fleet.folder / "new")
    (fleet.folder / "old").rename(folder)
    after = fleet.get("/site-0.iso", if_modified_since=before.fields[b"last-modified"])
    assert (after.status, after.body) == (200, fleet.written())
    assert after.fields[b"last-modified"] != before.fields[b"last-modified"]


def test_images_of_one_second_have_different_dates_in_each_process(fleet: Fleet, eager: None, patient: None) -> None:
    """Who has the first must not hear of another process that nothing changed, nor go on with other bytes."""
    others = SiteImages(RecipeCatalog([fleet.folder / f"{name}.toml" for name in fleet.names]), 10)
    wait_for_the_next_second()
    (fleet.folder / "site-0/etc/hostname").write_text("first\n")
    before = fleet.get("/site-0.iso")
    (fleet.folder / "site-0/etc/hostname").write_text("other\n")
    fleet.app = ServeApp(others, fleet.log, Tokens())
    date = before.fields[b"last-modified"]
    after = fleet.get("/site-0.iso", if_modified_since=date)
    assert (after.status, after.body) == (200, fleet.written())
    assert after.body != before.body
    assert fleet.get("/site-0.iso", if_unmodified_since=date, range=b"bytes=9-").status == 412
    assert fleet.get("/site-0.iso", if_range=date, range=b"bytes=9-").status == 200
    others.close()


def test_a_site_that_changes_all_the_time_is_planned_all_the_same(
    fleet: Fleet, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay, sleep = fleet.folder / "site-0/etc/hostname", time.sleep

    def change_late(seconds: float) -> None:
        sleep(seconds)
        overlay.write_text("late\n")

    overlay.write_text("first\n")
    monkeypatch.setattr(time, "sleep", change_late)
    assert fleet.get("/site-0.iso").body == fleet.written()


def test_a_client_that_is_gone_is_read_nothing(fleet: Fleet) -> None:
    reads = []
    gone = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            reads.append(len(message["body"]))
            gone.set()
            await asyncio.sleep(0.01)

    asyncio.run(fleet.app(make_scope("/site-0.iso"), receive, send))
    assert reads == [application.CHUNK]
    assert "the client closed the connection" in fleet.stop()


def test_all_who_wait_for_a_site_wait_for_one_plan(fleet: Fleet) -> None:
    async def ask() -> list[Reply]:
        paths = ["/site-0.iso", "/site-0.iso.sha256", "/site-0/boot.ipxe"] * 8
        return await asyncio.gather(*(fleet.request(path) for path in paths))

    replies = asyncio.run(ask())
    assert {reply.status for reply in replies} == {200}
    assert fleet.images.metrics.plans_made == 1


def test_plans_are_bounded_and_stay_while_they_are_read(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, sites=3, limit=1)
    images = {name: fleet.written(name) for name in fleet.names}
    others = iter(fleet.names[1:])

    def evict(_: bytes) -> None:
        for name in others:
            fleet.images.find_site(name)

    assert asyncio.run(fleet.request("/site-0.iso", on_body=evict)).body == images["site-0"]
    assert (len(fleet.images), fleet.images.metrics.plans_made) == (1, 3)
    assert fleet.get("/site-0.iso").body == images["site-0"]
    assert fleet.images.metrics.plans_made == 4
    fleet.stop()


def test_a_slow_disk_is_waited_for_on_another_thread(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "SLOW_READ", -1)
    assert fleet.get("/site-0.iso").body == fleet.written()


def test_a_fault_of_ours_is_a_500_without_details(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(ServeApp, "_own_page", lambda *_: fail(None))
    answer = fleet.get("/")
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert "ZeroDivisionError: secret" in fleet.stop()


def test_a_broken_ipxe_gets_a_hint_in_the_log(fleet: Fleet) -> None:
    assert fleet.get("/site-0.iso", range=b"bytes=u-u").status == 200
    assert "was built for another platform" in fleet.stop()


FLEET = """base = "in.iso"
output = "out/${NAME}.iso"
[[add]]
file = "/etc/hostname"
content = "${NAME}.${DOMAIN}\\n"
[sites]
csv = "sites.csv"
[[site]]
name = "lab"
variables = { DOMAIN = "example.com" }
[[site.add]]
source = "site-0"
"""


def test_a_fleet(fleet: Fleet, eager: None) -> None:
    """Its sites are those of its file and of the list beside it, as both are now."""
    path, table = fleet.folder / "fleet.toml", fleet.folder / "sites.csv"
    path.write_text(FLEET)
    table.write_text("name,DOMAIN\nnorth,example.org\n")
    catalog = open_catalog([path])
    fleet.images = SiteImages(catalog, 10)
    fleet.app = ServeApp(fleet.images, fleet.log, Tokens(), catalog.title)
    assert (sorted(catalog.names()), catalog.title) == (["lab", "north"], "fleet")
    for site in read_fleet(path).sites:
        with cosremaster.open(fleet.base) as image:
            image.remaster(fleet.folder / f"{site.name}.iso", site.request, sync=False)
        assert fleet.get(f"/{site.name}.iso").body == (fleet.folder / f"{site.name}.iso").read_bytes()
    assert fleet.get("/south.iso").status == 404
    table.write_text("name,DOMAIN\nsouth,example.org\n")
    assert [fleet.get(f"/{name}.iso", "HEAD").status for name in ("south", "north", "lab")] == [200, 404, 200]
    assert re.findall(rb'href="([a-z]+).iso"', fleet.get("/").body) == [b"lab", b"south"]
    table.write_text("name\nsouth\n")
    with pytest.raises(RecipeError):
        open_catalog([path])
    with pytest.raises(UsageError, match="is a fleet, which is served alone"):
        open_catalog([path, fleet.folder / "site-0.toml"])


UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy={}.target\n"


def test_what_files_say_of_a_site_of_a_fleet_is_what_they_say_now(fleet: Fleet, eager: None) -> None:
    """Variables of templates, and how units are enabled: no file of the fleet changes with them."""
    path, units = fleet.folder / "fleet.toml", fleet.folder / "units/etc/systemd/system"
    units.mkdir(parents=True)
    (units / "a.service").write_text(UNIT.format("one"))
    (fleet.folder / "texts/etc").mkdir(parents=True)
    (fleet.folder / "texts/etc/motd").write_text("no variable\n")
    path.write_text(
        'base = "in.iso"\noutput = "${NAME}.img"\n[[add]]\nsource = "units"\n[[add]]\nservice = "a.service"\n'
        '[[add]]\nsource = "texts"\ntemplate = true\n'
        '[[site]]\nname = "north"\nvariables = { A = "at A" }\n[[site]]\nname = "south"\nvariables = { A = "" }\n'
    )
    fleet.images = SiteImages(open_catalog([path]), 10)
    fleet.app = ServeApp(fleet.images, fleet.log, Tokens())

    def is_as_written() -> bool:
        """Whether the site has the image that its request, as it is read now, makes."""
        (north, _) = read_fleet(path).sites
        with cosremaster.open(fleet.base) as image:
            image.remaster(fleet.folder / "north.iso", north.request, sync=False, force=True)
        return fleet.get("/north.iso").body == (fleet.folder / "north.iso").read_bytes()

    def links() -> list[bytes]:
        with cosremaster.open(fleet.folder / "north.iso") as image:
            return [entry.path for entry in image.ls("@root::etc/systemd/system") if b".wants" in entry.path]

    assert is_as_written() and len(links()) == 1
    (units / "a.service").write_text(UNIT.format("other"))
    assert is_as_written()
    assert b"other.target.wants" in links()[0]
    (fleet.folder / "texts/etc/motd").write_text("${A}\n")
    assert is_as_written()
    (fleet.folder / "texts/etc/motd").write_text("${B}\n")
    answer = fleet.get("/north.iso")
    assert answer.status == 503 and b"B" in answer.body
    (fleet.folder / "texts/etc/motd").write_text("$${B}\n")
    assert is_as_written()


def test_a_template_is_read_again_whatever_its_time_says(tmp_path: Path) -> None:
    """Reproducible builds give all files one time."""
    (tmp_path / "in.iso").write_bytes(b"")
    (tmp_path / "motd").write_text("${A}")
    recipe = tmp_path / "a.toml"
    recipe.write_text(
        'input = "in.iso"\n[variables]\nA = "a"\nB = "b"\n[[add]]\nsource = "motd"\ndest = "/etc/"\ntemplate = true\n'
    )
    for name, value in (("A", "a"), ("B", "b")):
        (tmp_path / "motd").write_text(f"${{{name}}}")
        os.utime(tmp_path / "motd", (1e9, 1e9))
        (item,) = read_recipe(recipe).request.add
        assert isinstance(item, AddPath) and item.template == ((name, value),)


@pytest.mark.parametrize("kind", ["recipe", "fleet"])
def test_a_recipe_that_changes_while_it_is_read_is_seen(
    fleet: Fleet, eager: None, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Between its reading and the look at it, from which on changes count."""
    path = fleet.folder / ("site-0.toml" if kind == "recipe" else "fleet.toml")
    if kind == "fleet":
        (fleet.folder / "sites.csv").write_text("name,DOMAIN\nsite-0,example.org\n")
        path.write_text(FLEET.replace('name = "lab"', 'name = "lab-1"'))
        fleet.images = SiteImages(open_catalog([path]), 10)
        fleet.app = ServeApp(fleet.images, fleet.log, Tokens())
    later = path.read_text().replace("[[add]]", '[[add]]\nfile = "/etc/later"\ncontent = "later"\n[[add]]', 1)
    catalog = fleet.images.catalog
    read_site, texts = type(catalog).read_site, [later]

    def change_behind(self: SiteCatalog, name: str) -> SiteSource:
        source = read_site(self, name)
        if texts:
            path.write_text(texts.pop())
        return source

    monkeypatch.setattr(type(catalog), "read_site", change_behind)
    fleet.get("/site-0.iso", "HEAD")
    target = fleet.folder / "now.iso"
    target.write_bytes(fleet.get("/site-0.iso").body)
    assert cosremaster.read(f"{target}::@root::etc/later") == b"later"


def test_a_recipe_that_never_stays_is_no_site(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(range(100))

    def read_site(self: RecipeCatalog, name: str) -> SiteSource:
        return SiteSource(fleet.base, Request(), (fleet.folder / f"{next(names)}",))

    monkeypatch.setattr(RecipeCatalog, "read_site", read_site)
    answer = fleet.get("/site-0.iso")
    assert (answer.status, answer.body) == (503, b"the site site-0 changes while it is read\n")


def test_standard_input_makes_no_site(fleet: Fleet) -> None:
    """It is there once, for one of several processes, and a site is planned again."""
    recipe = fleet.folder / "site-0.toml"
    for key, more in (("add", ""), ("add_iso", 'dest = "/x"\n')):
        recipe.write_text(f'input = "in.iso"\n[[{key}]]\nsource = "-"\n{more}')
        fleet.images._failures.clear()
        answer = fleet.get("/site-0.iso")
        assert answer.status == 503 and b"site-0.toml: standard input is read once" in answer.body


def test_a_recipe_that_appears_at_the_same_moment_as_another_is_a_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a file system is coarse: the folder's time may be the same as before."""
    monkeypatch.setattr(catalogs, "SETTLED", 10**12)
    (tmp_path / "a.toml").write_text("")
    catalog = RecipeCatalog([tmp_path])
    assert set(catalog.names()) == {"a"}
    status = tmp_path.stat()
    (tmp_path / "b.toml").write_text("")
    os.utime(tmp_path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert set(catalog.names()) == {"a", "b"}


def test_a_fleet_with_faults_stays_what_it_was(fleet: Fleet, eager: None) -> None:
    path, table, source = fleet.folder / "fleet.toml", fleet.folder / "sites.csv", fleet.folder / "more"
    path.write_text(FLEET)
    table.write_text("name,DOMAIN\nnorth,example.org\n")
    fleet.images = SiteImages(open_catalog([path]), 10)
    fleet.app = ServeApp(fleet.images, fleet.log, Tokens())
    before = fleet.get("/north.iso")
    for spoil, fault in (
        (lambda: table.write_text("name\nsouth\n"), "variable DOMAIN"),
        (lambda: table.write_text("name,DOMAIN\na b,example.org\n"), "becomes part of a URL"),
        (lambda: path.write_text(FLEET + "[["), "is no TOML"),
        (table.unlink, "No such file"),
        (path.unlink, "cannot be read"),
    ):
        path.write_text(FLEET)
        table.write_text("name,DOMAIN\nnorth,example.org\n")
        assert "\ncosremaster_site_list_faults 0\n" in fleet.get("/metrics").body.decode()
        spoil()
        answers = [fleet.get(f"/{name}.iso") for name in ("north", "lab", "south")]
        assert [answer.status for answer in answers] == [200, 200, 404]
        assert (answers[0].body, answers[0].fields[b"etag"]) == (before.body, before.fields[b"etag"])
        page = fleet.get("/").body.decode()
        assert re.search(f"fleet.toml has faults, and its sites stay as they were: .*({fault})", page), page
        assert "\ncosremaster_site_list_faults 1\n" in fleet.get("/metrics").body.decode()
    path.write_text(f'{FLEET}[[add]]\nsource = "more"\n')
    table.write_text("name,DOMAIN\nsouth,example.org\n")
    assert [fleet.get(f"/{name}.iso", "HEAD").status for name in ("north", "south")] == [200, 404]
    source.mkdir()  # no file of the fleet changed, and its fault is gone
    assert [fleet.get(f"/{name}.iso", "HEAD").status for name in ("north", "south")] == [404, 200]
    log = fleet.stop()
    assert log.count('"event":"fault"') == 6 and "its sites stay as they were" in log


def test_what_a_site_expects_of_its_base_counts_whoever_opened_that(tmp_path: Path, eager: None) -> None:
    fleet = Fleet(tmp_path, 2)
    digest, wrong = hashlib.sha256(fleet.base.read_bytes()).hexdigest(), "0" * 64
    recipes = [fleet.folder / f"{name}.toml" for name in fleet.names]
    texts = [recipe.read_text() for recipe in recipes]
    reason = f"its sha256 is {digest}, and {wrong} was expected".encode()

    def expect(*digests: str) -> None:
        for recipe, text, each in zip(recipes, texts, digests, strict=True):
            recipe.write_text(f'{text}[expect]\nsha256 = "{each}"\n')

    expect(digest, wrong)
    for _ in range(2):
        assert [fleet.get(f"/{name}.iso").status for name in fleet.names] == [200, 503]
        assert reason in fleet.get(f"/{fleet.names[1]}.iso").body
    expect(wrong, digest)
    fleet.images._failures.clear()
    assert [fleet.get(f"/{name}.iso").status for name in fleet.names] == [503, 200]
    fleet.stop()


def test_a_folder_of_sites_that_nobody_may_read_is_a_fault(
    fleet: Fleet, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fleet.folder / "fleet.toml"
    path.write_text('base = "in.iso"\noutput = "${NAME}.img"\n[sites]\ndirectory = "sites"\n')
    (fleet.folder / "sites/north/etc").mkdir(parents=True)
    fleet.images = SiteImages(open_catalog([path]), 10)
    fleet.app = ServeApp(fleet.images, fleet.log, Tokens())
    assert fleet.get("/north.iso", "HEAD").status == 200
    listed = os.listdir

    def refuse(folder: Path) -> list[str]:
        if Path(folder).name == "sites":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return listed(folder)

    with monkeypatch.context() as context:
        context.setattr(os, "listdir", refuse)
        assert fleet.get("/north.iso", "HEAD").status == 200
        assert "sites cannot be read: Permission denied" in fleet.get("/").body.decode()
        with pytest.raises(RecipeError, match="sites cannot be read: Permission denied"):
            open_catalog([path])
    assert "cannot be read" not in fleet.get("/").body.decode()


def test_a_folder_of_recipes(fleet: Fleet) -> None:
    catalog = open_catalog([fleet.folder])
    assert sorted(catalog.names()) == ["site-0", "site-1"]
    (fleet.folder / "site-0.toml").unlink()
    (fleet.folder / "new.toml").write_bytes((fleet.folder / "site-1.toml").read_bytes())
    assert sorted(catalog.names()) == ["new", "site-1"]
    assert catalog.read_site("new").request == catalog.read_site("site-1").request
    with pytest.raises(UsageError, match="there is no recipe of the site site-0 any more"):
        catalog.read_site("site-0")
    with pytest.raises(UsageError, match=r"gone: there is no such file or folder"):
        open_catalog([fleet.folder / "gone"])


def test_a_recipe_that_cannot_be_a_site_stands_in_the_way_of_no_other(fleet: Fleet, eager: None) -> None:
    folder = fleet.folder / "more"
    folder.mkdir()
    catalog = open_catalog([*(fleet.folder / f"{name}.toml" for name in fleet.names), folder])
    fleet.images = SiteImages(catalog, 10)
    fleet.app = ServeApp(fleet.images, fleet.log, Tokens())
    for name in ("a site", "site-0"):
        (folder / f"{name}.toml").write_bytes((fleet.folder / "site-1.toml").read_bytes())
    assert [fleet.get(f"/{name}.iso", "HEAD").status for name in ("site-0", "site-1", "a site")] == [200, 200, 404]
    page = fleet.get("/").body.decode()
    assert "its name becomes part of a URL" in page and "the site site-0 is" in page
    assert "\ncosremaster_site_list_faults 2\n" in fleet.get("/metrics").body.decode()
    log = fleet.stop()
    assert log.count('"event":"fault"') == 2 and "a site" in log
    with pytest.raises(UsageError, match="becomes part of a URL"):
        open_catalog([folder])


def test_names_of_sites(tmp_path: Path) -> None:
    for name in ("a b", "ä", "-x", "a" * 101, "a%2f"):
        with pytest.raises(UsageError, match="becomes part of a URL"):
            RecipeCatalog([tmp_path / f"{name}.toml"])
    with pytest.raises(UsageError, match="the site a is"):
        RecipeCatalog([tmp_path / "a.toml", tmp_path / "b/a.toml"])


def test_a_fingerprint_sees_each_kind_of_change(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    (folder / "b/file").write_text("1")
    (folder / "link").symlink_to("b/file")
    changes: list[Callable[[], object]] = [
        lambda: (folder / "b/file").write_text("22"),
        lambda: (folder / "b/file").chmod(0o600),
        lambda: os.utime(folder / "b/file", (5, 5)),
        lambda: (folder / "b/file").rename(folder / "b/other"),
        (folder / "link").unlink,
        (folder / "new").mkdir,
        lambda: folder.rename(tmp_path / "gone"),
    ]
    states = [take_fingerprint([folder])]
    for change in changes:
        change()
        states.append(take_fingerprint([folder]))
    assert len({state.digest for state in states}) == len(states)
    assert take_fingerprint([folder]) == states[-1]


def test_a_fingerprint_sees_each_symlink_on_the_way(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / name / "deep").mkdir(parents=True)
        os.link(tmp_path / "v1/deep/file", tmp_path / name / "deep/file") if name == "v2" else (
            tmp_path / "v1/deep/file"
        ).write_text("")
    links = {"current": "v1", "relative": "current/../current/deep", "file": "relative/file", "circle": "circle"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    for name in ("current", "relative", "file"):
        before = take_fingerprint([tmp_path / "file"])
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(links[name] if name != "current" else "v2")
        after = take_fingerprint([tmp_path / "file"])
        assert after.digest != before.digest
        assert after.changed >= before.changed
    assert take_fingerprint([tmp_path / "circle/file"]) == take_fingerprint([tmp_path / "circle/file"])


@pytest.mark.parametrize("text", ["8080", "host:", ":80", "host:99999", "::1:80", "host:http", "host:" + "9" * 5000])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"--listen .*HOST:PORT is wanted"):
        parse_address(text)


@pytest.mark.parametrize(
    ("soft", "hard", "allowed", "connections"),
    [
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 1024),
        (4096, 4096, None, 1024),
        (1024, resource.RLIM_INFINITY, 1088, 1024),
        (1024, 1 << 20, 1088, 1024),
        (256, 1024, 1024, 960),
        (1024, 1024, 1024, 960),
        (40, 40, 40, 20),
    ],
)
def test_connections_leave_descriptors_for_plans(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, allowed: int | None, connections: int
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert fit_connections(1024) == connections
    assert limits == ([] if allowed is None else [(allowed, hard)])


def test_addresses() -> None:
    assert parse_address("[::1]:0") == Address("::1", 0)
    assert all(parse_address(f"{host}:1").is_loopback for host in ("127.0.0.5", "localhost", "[::1]"))
    assert not any(parse_address(f"{host}:1").is_loopback for host in ("0.0.0.0", "[::]", "example.org"))


@pytest.mark.parametrize("host", ["a" * 64, "..", "\udcff"])
def test_names_that_no_host_has(host: str) -> None:
    with pytest.raises(UsageError, match=r"--listen .*:80: is no name of a host"):
        open_socket(Address(host, 80))


def test_a_network_of_ipv6_is_one_client() -> None:
    assert find_client("2001:db8:1:2:3::4") == find_client("2001:db8:1:2::") != find_client("2001:db8:1:3::")
    assert find_client("::ffff:10.0.0.7") == find_client("10.0.0.7") == "10.0.0.7" != find_client("10.0.0.8")
    assert find_client("fe80::1%eth0") == "fe80::" and find_client("") == ""


def test_a_port_in_use() -> None:
    with open_socket(Address("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(OutputError, match=rf"^cannot listen at 127.0.0.1:{port}: the port is in use$"):
            open_socket(Address("127.0.0.1", port))
