"""Images in an object store: moto's S3 server has them, and s3fs reads them."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cosremaster.cli import main
from tests.fixtures.tools import require, require_module
from tests.support.range_server import serve_file
from tests.support.small import CGZ, write_overlay, write_small

URL = "s3://bucket/images/in.iso"


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    write_small(folder)
    write_overlay(folder)
    return folder / "in.iso"


@pytest.fixture(scope="module")
def server(image_file: Path) -> Iterator[str]:
    """The URL of a server with the image."""
    for name in ("moto", "flask_cors", "s3fs"):
        require_module(name)
    server = importlib.import_module("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path, data in (("bucket", b""), ("bucket/images/in.iso", image_file.read_bytes())):
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"http://{host}:{port}/{path}", data=data, headers=headers, method="PUT")
        opener.open(request).close()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The file system of s3fs, which finds the server and credentials in the environment, and asks once."""
    for name in [*os.environ]:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "hidden-key",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3 = importlib.import_module("s3fs").S3FileSystem
    monkeypatch.setattr(s3, "retries", 1)
    s3.clear_instance_cache()
    return s3


def _fails(store: Any, capsys: pytest.CaptureFixture[str], url: str = URL) -> str:
    """The sentence by which the command refuses ``url``."""
    store.clear_instance_cache()
    assert main(["ls", url]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "hidden-key" not in printed.err
    return printed.err


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "words", [["ls", "-l", "IN"], ["cat", f"IN::{CGZ}::rootfs.cxz::etc/hostname"], ["tree", "IN"], ["verify", "IN"]],
    ids=["ls", "cat", "tree", "verify"],
)  # fmt: skip
def test_a_command_says_of_an_object_what_it_says_of_the_file(
    words: list[str], image_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for name in (URL, str(image_file)):
        digest = f"sha256:{hashlib.sha256(image_file.read_bytes()).hexdigest()}"
        assert main([*(word.replace("IN", name, 1) for word in words), "--expect", digest]) == 0
        printed.append(capsys.readouterr().out.replace(name, "IN"))
    assert printed[0] == printed[1]


@pytest.mark.usefixtures("store")
def test_a_remaster_of_an_object_is_that_of_the_file(image_file: Path, tmp_path: Path) -> None:
    for name, source in (("near", str(image_file)), ("far", URL)):
        words = [source, str(tmp_path / name), "--add", str(image_file.parent / "overlay"), "--quiet", "--no-sync"]
        assert main(words) == 0
    assert (tmp_path / "far").read_bytes() == (tmp_path / "near").read_bytes()


def test_what_is_not_there(store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("s3://bucket/missing.iso", "s3://nobucket/in.iso"):
        assert _fails(store, capsys, url) == f"cosremaster: {url}: is not there\n"
    assert "is no file of a known size" in _fails(store, capsys, "s3://bucket/images")


def test_who_may_not_read_it(store: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = importlib.import_module("moto.settings")
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on moto looks at who asks
    assert _fails(store, capsys) == f"cosremaster: {URL}: access is refused\n"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "cannot be read: Unable to locate credentials" in _fails(store, capsys)


def test_a_store_that_is_not_reached(
    store: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require("openssl")
    for endpoint in ("http://127.0.0.1:9", "http://store.invalid"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert "cannot be read: Could not connect to the endpoint URL" in _fails(store, capsys)
    pem = tmp_path / "server.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "3650", "-subj", "/CN=localhost", "-keyout", str(pem), "-out", str(tmp_path / "cert.pem")]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    with pem.open("ab") as file:
        file.write((tmp_path / "cert.pem").read_bytes())
    with serve_file(b"", certificate=pem) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.rpartition("/")[0])
        assert "cannot be read: SSL validation failed" in _fails(store, capsys)
