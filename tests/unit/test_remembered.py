"""Remembered indexes: used when they fit, ignored and made anew in every other case, never a different result."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs.xz.codec import XzCodec
from cosremaster.layers.cache import MAX_INDEXES, store_index
from tests.support.listener import Listener
from tests.support.small import CGZ, write_overlay, write_small


def run(folder: Path, name: str, *, remember: bool = True, check_index: bool = False) -> tuple[bytes, bool]:
    """The main job's result, and whether the image was indexed for it."""
    listener, target = Listener(), folder / name
    source, overlay = folder / "in.iso", folder / "overlay"
    cosremaster.remaster(source, target, add=[overlay], progress=listener, remember=remember, check_index=check_index)
    return target.read_bytes(), f"index {CGZ}" in listener.steps


def kept() -> list[Path]:
    """The index files there are."""
    return sorted((Path(os.environ["XDG_CACHE_HOME"]) / "cosremaster" / "index").glob("*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an image and an overlay."""
    write_small(tmp_path)
    write_overlay(tmp_path)
    return tmp_path


def test_the_second_run_decodes_no_xz(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, indexed = run(folder, "first.iso")
    assert indexed
    assert len(kept()) == 1

    def refuse(*_: object) -> None:
        raise AssertionError("xz is decoded")

    monkeypatch.setattr(XzCodec, "decode", refuse)
    assert run(folder, "second.iso") == (first, False)
    assert run(folder, "third.iso", check_index=True) == (first, False)


def test_nothing_is_kept_where_it_is_not_wanted_or_cannot_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run(folder, "first.iso", remember=False)
    assert not kept()
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nobody/can/write/here")
    assert run(folder, "second.iso") == (first, True)
    assert run(folder, "third.iso") == (first, True)


def _flip(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes((data[len(data) // 2] ^ 1,)) + data[len(data) // 2 + 1 :]


def _signed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Damage under a digest that holds."""

    def damage(data: bytes) -> bytes:
        text, _, blobs = data.partition(b"\n")[2].partition(b"\n")
        values = json.loads(text)
        change(values)
        body = json.dumps(values).encode() + b"\n" + blobs
        return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    return damage


def _archive(values: dict[str, Any]) -> dict[str, Any]:
    archive: dict[str, Any] = values["files"][0]["archive"]
    return archive


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "flipped": _flip,
    "no index": lambda data: b"0" * 64 + b"\n{}",
    "another format": _signed(lambda values: values["key"].update(format=0)),
    "another version": _signed(lambda values: values["key"].update(version="0.0")),
    "another size": _signed(lambda values: values["key"].update(size=1)),
    "another time": _signed(lambda values: values["key"].update(mtime=1)),
    "another beginning": _signed(lambda values: values["key"].update(edges="")),
    "no files": _signed(lambda values: values.pop("files")),
    "another file": _signed(lambda values: values["files"][0].update(path=b"other".hex())),
    "no such codec": _signed(lambda values: _archive(values).update(codec="zoo")),
    "no such layer format": _signed(lambda values: _archive(values).update(format="zoo")),
    "other layer formats": _signed(lambda values: values["key"].update(layer_formats=["cpio", "zoo"])),
    "columns of different lengths": _signed(lambda values: _archive(values)["index"].update(names=[0, 0])),
    "a blob that is not there": _signed(lambda values: _archive(values).update(tail=[0, 1 << 40])),
    "no list": _signed(lambda values: values.update(files=7)),
}


def test_a_cache_that_cannot_be_looked_at_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", f"{folder}/{'a' * 300}")  # as one that belongs to somebody else
    with cosremaster.open(folder / "in.iso") as image:
        image.remaster(folder / "out.iso", cosremaster.Request(add=[folder / "overlay"]))
        assert image.index_file is None


def test_an_index_is_kept_before_the_image_closes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*words: Any) -> bool:
        time.sleep(0.3)
        return store_index(*words)

    monkeypatch.setattr("cosremaster.remastering.layer_index.store_index", slow)
    with cosremaster.open(folder / "in.iso") as image:
        image.layers()
    assert len(kept()) == 1


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_fit_is_ignored_and_made_anew(folder: Path, damage: str) -> None:
    first, _ = run(folder, "first.iso")
    (path,) = kept()
    sound = path.read_bytes()
    path.write_bytes(DAMAGE[damage](sound))
    assert run(folder, "second.iso") == (first, True)
    assert path.read_bytes() == sound
    assert run(folder, "third.iso") == (first, False)


def test_an_image_that_changed_is_indexed_anew(folder: Path) -> None:
    run(folder, "first.iso")
    image = folder / "in.iso"
    status = image.stat()
    raw = bytearray(image.read_bytes())
    at = raw.index(b"kernel" * 100) + 100_000
    raw[at : at + 6] = b"KERNEL"
    with image.open("r+b") as file:  # the same inode, size, ends and, put back, the same mtime
        file.write(raw)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    second, indexed = run(folder, "second.iso")
    assert indexed
    assert b"KERNEL" in second


def test_check_index_compares_the_files_it_speaks_of(folder: Path) -> None:
    first, _ = run(folder, "first.iso")
    (path,) = kept()
    other = _signed(lambda values: values["files"][0].update(digest="00" * 32))(path.read_bytes())
    path.write_bytes(other)
    assert run(folder, "second.iso") == (first, False)
    assert run(folder, "third.iso", check_index=True) == (first, True)


def test_the_index_of_another_image_is_not_used(folder: Path) -> None:
    first, _ = run(folder, "first.iso")
    (path,) = kept()
    (folder / "in.iso").rename(folder / "old.iso")
    (folder / "in.iso").write_bytes((folder / "old.iso").read_bytes())
    again, indexed = run(folder, "second.iso")
    assert (again, indexed) == (first, True)
    mine = next(one for one in kept() if one != path)
    mine.write_bytes(path.read_bytes())
    assert run(folder, "third.iso") == (first, True)


def test_only_so_many_are_kept(folder: Path) -> None:
    run(folder, "first.iso")
    (path,) = kept()
    for number in range(MAX_INDEXES + 5):
        other = path.with_name(f"{number}.index")
        other.write_bytes(b"")
        os.utime(other, (number, number))
    path.write_bytes(b"")
    run(folder, "second.iso")
    left = kept()
    assert len(left) == MAX_INDEXES
    assert path in left
    assert path.with_name("0.index") not in left


def test_the_index_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    assert main(["index", "in.iso"]) == 0
    out = capsys.readouterr().out
    (path,) = kept()
    assert out.splitlines()[-1] == f"remembered in {path}"
    assert f"layer {CGZ}::rootfs.cxz: looks like a root filesystem" in out
    _, indexed = run(folder, "first.iso")
    assert not indexed
