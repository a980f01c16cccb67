"""The cache is believed only where nobody else can have written it, and only what fits together in it."""

from __future__ import annotations

import errno
import json
import os
import pwd
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.crc import crc64_xz
from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from cosremaster.layers import cache_folder
from cosremaster.layers.cache import load_index
from tests.fixtures.tools import leave_out
from tests.support.listener import Listener
from tests.support.small import CGZ, write_small


@pytest.fixture
def as_root() -> None:
    """Leave the test out for an ordinary user."""
    if os.geteuid() != 0:
        leave_out("Only root gives files away.")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of indexes of a cache of its own; an image and its result are beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_small(tmp_path)
    return tmp_path / "cache" / "cosremaster" / "index"


def run(image: Path, target: Path) -> tuple[bytes, bool]:
    """The result of a small change, and whether the image was indexed for it."""
    listener = Listener()
    items = [cosremaster.InlineFile("/etc/motd", b"hi")]
    cosremaster.remaster(image, target, add=items, progress=listener, force=True, threads=1)
    return target.read_bytes(), f"index {CGZ}" in listener.steps


def _index_of(cache: Path) -> Path:
    (path,) = cache.glob("*.index")
    return path


def test_the_folder_and_its_files_are_ours_alone(cache: Path, tmp_path: Path) -> None:
    run(tmp_path / "in.iso", tmp_path / "out.iso")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(_index_of(cache).stat().st_mode) == 0o600
    cache.chmod(0o755)
    assert run(tmp_path / "in.iso", tmp_path / "out.iso")[1] is False
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link_twice(path: Path) -> None:
    path.with_name("elsewhere").hardlink_to(path)


SUSPICIOUS: dict[str, Callable[[Path], object]] = {
    "writable by others": lambda path: path.chmod(0o666),
    "writable by the group": lambda path: path.chmod(0o660),
    "a symlink": _replace_by_link,
    "a FIFO": _replace_by_fifo,
    "a folder": _replace_by_folder,
    "a hard link": _link_twice,
}


@pytest.mark.parametrize("how", SUSPICIOUS)
def test_a_file_that_others_may_have_made_is_no_index(cache: Path, tmp_path: Path, how: str) -> None:
    first, _ = run(tmp_path / "in.iso", tmp_path / "out.iso")
    SUSPICIOUS[how](_index_of(cache))
    assert run(tmp_path / "in.iso", tmp_path / "out.iso") == (first, True)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("part", ["file", "folder"])
def test_what_belongs_to_somebody_else_is_no_index(cache: Path, tmp_path: Path, part: str) -> None:
    first, _ = run(tmp_path / "in.iso", tmp_path / "out.iso")
    path = _index_of(cache)
    before = path.read_bytes()
    os.chown(path if part == "file" else cache, 65534, 65534)
    assert run(tmp_path / "in.iso", tmp_path / "out.iso") == (first, True)
    if part == "folder":  # and nothing is written there
        assert path.read_bytes() == before
        assert main(["cache", "clear"]) == 8
        assert path.exists()


def test_a_folder_that_others_could_write_to_is_emptied(cache: Path, tmp_path: Path) -> None:
    first, _ = run(tmp_path / "in.iso", tmp_path / "out.iso")
    cache.chmod(0o1777)
    assert run(tmp_path / "in.iso", tmp_path / "out.iso") == (first, True)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert run(tmp_path / "in.iso", tmp_path / "out.iso") == (first, False)


def test_a_folder_that_is_a_link_is_none_and_loses_nothing(cache: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir(0o700)
    for number in range(cache_folder.MAX_INDEXES + 8):
        (foreign / f"{number}.index").write_bytes(b"mine")
    cache.parent.mkdir(parents=True)
    cache.symlink_to(foreign)
    for _ in range(2):
        assert run(tmp_path / "in.iso", tmp_path / "out.iso")[1]
    assert main(["cache", "clear"]) == 8
    assert len(list(foreign.iterdir())) == cache_folder.MAX_INDEXES + 8


def test_the_cache_is_bounded_by_bytes(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "in.iso", tmp_path / "out.iso")
    path = _index_of(cache)
    size = path.stat().st_size
    monkeypatch.setattr(cache_folder, "MAX_BYTES", 2 * size)
    for number in range(3):
        other = cache / f"{number}.index"
        other.write_bytes(path.read_bytes())
        os.utime(other, (number + 1, number + 1))
    path.unlink()
    run(tmp_path / "in.iso", tmp_path / "out.iso")
    assert sorted(file.name for file in cache.iterdir()) == sorted([path.name, "2.index"])


def test_an_index_larger_than_the_cache_is_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosremaster.layers.cache.MAX_BYTES", 1000)
    run(tmp_path / "in.iso", tmp_path / "out.iso")
    assert not list(cache.glob("*"))


@contextmanager
def _unfinished(path: Path) -> Iterator[None]:
    """An index that another process is writing while the context lasts, and then leaves behind."""
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            yield
        finally:
            writer.send_signal(signal.SIGKILL)


def test_what_killed_writers_left_over_is_removed(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(0o700, parents=True)
    part, old, other = cache / f".{'a' * 16}.part", cache / "tmpabcd_123", cache / "tmpabcd_124"
    old.touch()
    other.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    with _unfinished(part):
        run(tmp_path / "in.iso", tmp_path / "out.iso")
        assert part.exists()
    assert other.exists()
    assert not old.exists()
    _index_of(cache).unlink()
    run(tmp_path / "in.iso", tmp_path / "out.iso")
    assert not part.exists()


def test_a_home_that_is_missing_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    run(write_small(tmp_path), tmp_path / "out.iso")
    assert not (tmp_path / "nonexistent").exists()
    (tmp_path / "nonexistent").mkdir()
    run(tmp_path / "in.iso", tmp_path / "out.iso")
    assert run(tmp_path / "in.iso", tmp_path / "out.iso")[1] is False


def test_a_user_without_an_account_has_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs under a number: nothing is remembered, and all else is done."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # as if no user had a number
    monkeypatch.chdir(tmp_path)
    assert run(write_small(tmp_path), tmp_path / "out.iso")[1] is True
    assert sorted(os.listdir(tmp_path)) == ["in.iso", "out.iso"]
    for action in ("list", "path", "clear"):
        assert main(["cache", action]) == (0 if action == "clear" else 8)
    assert main(["completion", "bash", "--install"]) == 8
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if "there is no home directory" in line] == errors[-3:]


def test_an_index_on_a_disk_that_cannot_be_written_is_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    run(write_small(tmp_path), tmp_path / "out.iso")
    assert _index_of(cache).exists()
    monkeypatch.setattr(os, "utime", refuse)
    assert run(tmp_path / "in.iso", tmp_path / "out.iso")[1] is False


@pytest.mark.usefixtures("as_root")
def test_root_makes_nothing_in_the_home_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    monkeypatch.setenv("HOME", str(home))
    run(write_small(tmp_path), tmp_path / "out.iso")
    assert not list(home.iterdir())


def test_the_command(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list"]) == main(["cache", "clear"]) == main(["cache", "path"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"0 indexes, 0 B, in {cache}", "removed 0 indexes", str(cache)
    ]  # fmt: skip
    run(tmp_path / "in.iso", tmp_path / "out.iso")
    path = _index_of(cache)
    assert main(["cache", "list"]) == 0
    index, total = capsys.readouterr().out.splitlines()
    assert index.endswith(f"UTC, {path.name}: {tmp_path / 'in.iso'}")
    assert total.startswith("1 index, ")
    path.write_bytes(b"of another version\n{}\n")
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(f"{path.name}: (of another version)")
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "removed 1 index\n"
    assert not list(cache.iterdir())


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in JSON values that holds no others."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        yield path
        return
    for key, inner in pairs:
        yield from _leaves(inner, (*path, key))


ODD: tuple[Any, ...] = (0, -1, 1, 2**31, 2**63, 2**70, None, "", "zz", [], {}, True, 1.5, "00" * 8)


def _mutate(data: bytes, chance: random.Random) -> bytes:
    """An index with another value or another bit in its blobs, under a checksum that holds."""
    _, head, body, blobs = data.split(b"\n", 3)
    if chance.random() < 0.5:
        raw = bytearray(blobs)
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        blobs = bytes(raw)
    else:
        values = json.loads(body)
        *path, last = chance.choice(list(_leaves(values)))
        inner = values
        for key in path:
            inner = inner[key]
        old = inner[last]
        near = [old + step for step in (1, -1, 4, 512)] if type(old) is int else [old[:-2], old + "00"]
        inner[last] = chance.choice([*ODD, *near, *near])
        body = json.dumps(values).encode()
    rest = b"\n".join((head, body, blobs))
    return b"%016x\n%b" % (crc64_xz(rest), rest)


def test_an_index_that_was_tampered_with_leads_to_no_other_result(cache: Path, tmp_path: Path) -> None:
    image, target = tmp_path / "in.iso", tmp_path / "out.iso"
    first, _ = run(image, target)
    path, chance = _index_of(cache), random.Random(15)
    sound = path.read_bytes()
    for _ in range(60):
        path.write_bytes(_mutate(sound, chance))
        with open_source(image) as source:
            if load_index(source, read_image(source), check=False) is None:
                continue
        try:
            assert run(image, target)[0] == first
        except cosremaster.CorruptError as error:  # of the checksums themselves
            assert "cosremaster cache clear" in error.message
