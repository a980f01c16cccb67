"""Images by URL on nginx: what is said of them, in how many requests, and what happens when they change on the way."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from cosremaster.cli import main
from tests.fixtures import debirf
from tests.fixtures.tools import EPOCH, require, run
from tests.support.user import REPOSITORY

_NGINX = "/usr/sbin/nginx"
_CONFIG = """
daemon off; user root; worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    log_format sizes '$request_method $status $http_range $body_bytes_sent';
    access_log {folder}/access.log sizes;
    client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
    uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
    default_type application/octet-stream;
    root {folder}/www;
    server {{
        listen 127.0.0.1:{plain};
        location /whole/ {{ alias {folder}/www/; max_ranges 0; }}
        location /slow/ {{ alias {folder}/www/; limit_rate 8m; }}
        location /latest/ {{ return 302 /; }}
        location /moved/ {{ rewrite ^/moved/(.*)$ http://127.0.0.1:{plain}/$1 redirect; }}
        location /circle/ {{ return 302 $request_uri; }}
        location /closed/ {{ return 403; }}
    }}
    server {{ listen 127.0.0.1:{tls} ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; }}
}}
"""


class Nginx(NamedTuple):
    """A running nginx: its ports, and its folder with `www` and the access log."""

    plain: int
    tls: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.plain}"

    def measure(self) -> tuple[int, int]:
        """How many requests there were since the last call, and the bytes that they got."""
        log = self.folder / "access.log"
        lines = log.read_text().splitlines()
        log.write_text("")
        return len(lines), sum(int(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    require(_NGINX, "openssl")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "www").mkdir()
    (folder / "access.log").touch()
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", *names, *files])
    with socket.create_server(("127.0.0.1", 0)) as plain, socket.create_server(("127.0.0.1", 0)) as tls:
        ports = plain.getsockname()[1], tls.getsockname()[1]
        (folder / "nginx.conf").write_text(_CONFIG.format(folder=folder, plain=ports[0], tls=ports[1]))
        command = [_NGINX, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf", "-p", str(folder)]
        inherited = (plain.fileno(), tls.fileno())  # so that nobody else can have the ports
        environment = {**os.environ, "NGINX": "".join(f"{fd};" for fd in inherited)}
        server = subprocess.Popen(command, pass_fds=inherited, env=environment)
    try:
        yield Nginx(*ports, folder)
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def vendor(nginx: Nginx, debirf_image: debirf.DebirfImage) -> Path:
    """The vendor-shaped image on the server."""
    target = nginx.folder / "www" / "vendor.iso"
    target.symlink_to(debirf_image.iso)
    return target


@pytest.fixture(scope="module")
def many(nginx: Nginx) -> Path:
    """An image with 3,000 files, a third of which are called as images of file systems are."""
    require("genisoimage")
    tree = nginx.folder / "many"
    for number in range(3000):
        folder = tree / "pool" / f"section{number % 60}"
        folder.mkdir(parents=True, exist_ok=True)
        ending = ("img", "bin", "efi")[number % 3] if number % 9 < 3 else ("deb", "gz", "txt")[number % 3]
        size = 18_432 if ending in ("img", "bin", "efi") else 2_400
        (folder / f"file{number}.{ending}").write_bytes(b"%05d" % number * (size // 5))
    target = nginx.folder / "www" / "many.iso"
    run(["genisoimage", "-quiet", "-R", "-J", "-o", target, tree])
    return target


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this machine connect by itself."""
    for name in [*os.environ]:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class Done(NamedTuple):
    """What a command ended with."""

    returncode: int
    stdout: str
    stderr: str


def _look(*words: object) -> Done:
    """Run the command with `words` in this process."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as messages:
        code = main([str(word) for word in words])
    return Done(code, output.getvalue(), messages.getvalue())


def _same(nginx: Nginx, file: Path, *words: str) -> None:
    """Check that the command says of the URL what it says of the file."""
    url = f"{nginx.url}/{file.name}"
    far = _look(*(word.replace("IN", url, 1) for word in words))
    near = _look(*(word.replace("IN", str(file), 1) for word in words))
    assert (far.returncode, far.stdout.replace(url, "IN")) == (near.returncode, near.stdout.replace(str(file), "IN"))


@pytest.mark.parametrize(
    ("words", "requests"),
    [(("ls", "-l", "IN"), 6), (("inspect", "IN"), 10), (("verify", "IN"), 10)],
    ids=["ls", "inspect", "verify"],
)
def test_the_vendor_shape_takes_few_requests(words: tuple[str, ...], requests: int, nginx: Nginx, vendor: Path) -> None:
    nginx.measure()
    _same(nginx, vendor, *words)
    count, size = nginx.measure()
    assert count <= requests
    assert size <= 1 << 20


def test_an_image_of_3000_files_takes_few_requests(nginx: Nginx, many: Path) -> None:
    nginx.measure()
    _same(nginx, many, "inspect", "IN")
    count, size = nginx.measure()
    assert count <= 40
    assert size <= 2 << 20


def test_what_was_not_looked_into_is_said(nginx: Nginx, many: Path) -> None:
    messages = _look("inspect", f"{nginx.url}/{many.name}").stderr
    assert re.findall(r"([\d,]+) files were not looked into", messages) == ["1,002", "3,000", "334"]


def test_a_server_without_ranges_sends_all_once(nginx: Nginx, vendor: Path) -> None:
    nginx.measure()
    done = _look("ls", f"{nginx.url}/whole/{vendor.name}")
    assert done.stdout == _look("ls", vendor).stdout
    assert "the server gives no parts of files, so all of it is downloaded" in done.stderr
    assert nginx.measure() == (1, vendor.stat().st_size)


def test_redirects_are_followed(nginx: Nginx, vendor: Path) -> None:
    assert _look("ls", f"{nginx.url}/moved/{vendor.name}").stdout == _look("ls", vendor).stdout


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.iso", "is not there (404 Not Found)"),
        ("closed/x.iso", "the server refuses access (403 Forbidden)"),
        ("circle/x.iso", "the server redirects more than 8 times"),
    ],
    ids=["missing", "closed", "circle"],
)
def test_what_nginx_refuses(nginx: Nginx, path: str, message: str) -> None:
    done = _look("inspect", f"{nginx.url}/{path}")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"cosremaster: {nginx.url}/{path}: {message}\n"


def test_a_certificate_has_to_be_trusted(nginx: Nginx, vendor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"https://127.0.0.1:{nginx.tls}/{vendor.name}"
    refused = _look("ls", url)
    assert (refused.returncode, refused.stderr) == (3, f"cosremaster: {url}: TLS fails: self-signed certificate\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(nginx.folder / "cert.pem"))
    trusted = _look("ls", url)
    assert (trusted.returncode, trusted.stdout) == (0, _look("ls", vendor).stdout)


def test_a_file_that_is_exchanged_while_it_is_copied(nginx: Nginx, vendor: Path, tmp_path: Path) -> None:
    target = nginx.folder / "www" / "changing.iso"
    data = vendor.read_bytes()
    target.write_bytes(data)
    os.utime(target, (EPOCH, EPOCH))
    words = [f"{nginx.url}/slow/{target.name}", str(tmp_path / "out.iso")]
    command = [sys.executable, "-m", "cosremaster", *words]
    nginx.measure()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY) as running:
        while not (nginx.folder / "access.log").read_text():
            assert running.poll() is None
        other = target.with_name("other.iso")
        other.write_bytes(data[:-2048] + bytes(2048))
        other.replace(target)
        _, messages = running.communicate()
    assert running.returncode == 3
    assert messages.endswith(f"{words[0]}: changed on the server while it was being read\n")
    assert list(tmp_path.iterdir()) == []
