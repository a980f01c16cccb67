"""--expect of every command that reads an image: nothing is said of another one, and no byte comes twice."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.io.fetched_blocks import FetchedBlocks
from tests.support.range_server import ServedFile, serve_file
from tests.support.small import CGZ, write_overlay, write_small

COMMANDS = {
    "ls": ["ls", "-l", "IN"], "cat": ["cat", f"IN::{CGZ}::rootfs.cxz::etc/hostname"], "stat": ["stat", "IN::vmlinuz"],
    "tree": ["tree", "IN"], "find": ["find", "IN", "**/hostname"], "extract": ["extract", f"IN::{CGZ}", "OUT"],
    "inspect": ["inspect", "--deep", "IN"], "page": ["inspect", "IN", "--html", "OUT"], "verify": ["verify", "IN"],
    "against": ["verify", "NEAR", "--against", "IN"], "diff": ["diff", "IN", "NEAR"], "new": ["diff", "NEAR", "IN"],
    "export": ["export", f"IN::{CGZ}::rootfs.cxz", "--docker", "site", "--output", "OUT"],
    "plan": ["plan", "IN"], "prepare": ["prepare", "IN", "OUT"],
    "index": ["index", "IN"], "remaster": ["IN", "OUT"],
}  # fmt: skip
OPTIONS = {"against": "--expect-original", "new": "--expect-b"}


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    write_small(folder)
    write_overlay(folder)
    return folder / "in.iso"


@pytest.fixture
def image(image_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedFile]:
    for name in [*os.environ]:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with serve_file(image_file.read_bytes()) as server:
        yield server


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_looks_at_what_has_the_digest(
    name: str, image: ServedFile, image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(source: str, digest: str) -> tuple[int, str]:
        values = {"NEAR": str(image_file), "OUT": str(tmp_path / "out")}
        words = [source + word[2:] if word.startswith("IN") else values.get(word, word) for word in COMMANDS[name]]
        code = main([*words, OPTIONS.get(name, "--expect"), f"sha256:{digest}"])
        return code, capsys.readouterr().out.replace(source, "IN")

    right = hashlib.sha256(image.data).hexdigest()
    for source in (image.url, str(image_file)):
        assert run(source, "0" * 64) == (3, "")
        assert [*tmp_path.iterdir()] == []
    image.forget()
    code, printed = run(image.url, right)
    assert code == 0
    assert printed or name in ("diff", "new")
    assert image.sent <= len(image.data) + (1 << 16) + 10, "each byte comes once"


def test_what_is_no_digest_and_an_image_that_is_not_given(image_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", str(image_file), "--expect", "sha256:12"]) == 2
    assert main(["verify", str(image_file), "--expect-original", f"sha256:{'0' * 64}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--expect-original is of an image that is not given" in printed.err


def test_two_digests_are_both_compared(image_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = image_file.read_bytes()
    digests = [f"{name}:{hashlib.new(name, data).hexdigest().upper()}" for name in ("sha256", "md5")]
    assert main(["ls", str(image_file), "--expect", digests[0], "--expect", digests[1]]) == 0
    assert main(["ls", str(image_file), "--expect", digests[0], "--expect", f"md5:{'0' * 32}"]) == 3
    assert "its md5 is" in capsys.readouterr().err


def test_an_image_without_room_is_not_looked_at(
    image: ServedFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FetchedBlocks, "_write", fail)
    assert main(["ls", image.url, "--expect", f"sha256:{hashlib.sha256(image.data).hexdigest()}"]) == 8
    assert "cannot be kept in" in capsys.readouterr().err
    assert main(["ls", image.url]) == 0


def test_a_file_that_changes_behind_the_check(
    image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.iso"
    path.write_bytes(image_file.read_bytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def exchange(*_: object, **__: object) -> None:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size + 1)

    monkeypatch.setattr("cosremaster.cli.look.list_address", exchange)
    assert main(["ls", str(path), "--expect", f"sha256:{digest}"]) == 3
