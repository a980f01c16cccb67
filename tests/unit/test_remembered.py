"""Remembered indexes: used when they fit, ignored and made anew in every other case, never a different result."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs.xz.codec import XzCodec
from cosremaster.crc import crc64_xz
from cosremaster.errors import Place
from cosremaster.io.files import FileSource
from cosremaster.io.parallel import StopFlag
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import open_source
from cosremaster.layers.cache import store_index
from cosremaster.layers.cache_folder import MAX_INDEXES
from cosremaster.layers.packed_sums import SPAN, PackedSums, check_sums, sums_size
from tests.support.listener import Listener
from tests.support.small import CGZ, packed_root, read_volume, write_overlay, write_small


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
    """Damage under a checksum that holds."""

    def damage(data: bytes) -> bytes:
        _, first, second, blobs = data.split(b"\n", 3)
        head, values = json.loads(first), json.loads(second)
        values["key"] = head["key"]
        change(values)
        head["key"] = values.pop("key")
        body = b"\n".join((json.dumps(head).encode(), json.dumps(values).encode(), blobs))
        return b"%016x\n%b" % (crc64_xz(body), body)

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


@pytest.fixture
def rotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Flips a bit of the image as storage does: its size and all of its times stay."""
    times = {"mtime": 1, "ctime": 1}
    read = FileSource.identity
    monkeypatch.setattr(
        FileSource, "identity", lambda source: read(source)._replace(state={**read(source).state, **times})
    )

    def flip(offset: int) -> None:
        with (folder / "in.iso").open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes((byte ^ 4,)))

    return flip


def _layer_span(image: Path) -> tuple[int, int]:
    file = next(file for file in read_volume(image).files if file.path == CGZ.encode())
    return file.start * 2048, file.size


@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9999])
def test_rot_beneath_an_index_is_refused(folder: Path, rotten: Callable[[int], None], share: float) -> None:
    first, _ = run(folder, "first.iso")
    start, size = _layer_span(folder / "in.iso")
    rotten(start + int(share * size))
    with pytest.raises(cosremaster.CorruptError) as caught:
        run(folder, "second.iso")
    assert caught.value.place is not None
    assert caught.value.place.parts[1] == CGZ
    assert not (folder / "second.iso").exists()
    assert not list(folder.glob(".cosremaster*"))
    rotten(start + int(share * size))
    assert run(folder, "third.iso") == (first, False)


def test_rot_is_told_by_whoever_uses_the_index(
    folder: Path, rotten: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    run(folder, "first.iso")
    start, size = _layer_span(folder / "in.iso")
    rotten(start + size // 2)
    for words in (["index"], ["plan", "--add", "overlay"], ["inspect", "--deep"], ["verify", "--deep"]):
        assert main([words[0], "in.iso", *words[1:]]) in (1, 4)
        captured = capsys.readouterr()
        assert "@0x" in captured.out + captured.err
        assert "remembered in" not in captured.out


def test_the_place_of_rot_is_its_mebibyte(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 * SPAN + 5)
    sums = PackedSums()
    assert b"".join(sums.watch([data[: SPAN + 7], data[SPAN + 7 :]])) == data
    assert len(sums.packed()) == sums_size(len(data)) == 4 * 8
    for offset in (0, SPAN, 3 * SPAN - 1, 3 * SPAN + 4):
        path = tmp_path / "data"
        path.write_bytes(data)
        with open_source(path) as source:
            table = PieceTable([Range(source, 0, source.size)])
            check_sums(table, sums.packed(), Place(), StopFlag())
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(bytes((data[offset] ^ 1,)))
            with pytest.raises(cosremaster.CorruptError) as caught:
                check_sums(table, sums.packed(), Place(), StopFlag())
        assert caught.value.place == Place((), offset - offset % SPAN)


def test_an_index_of_an_undated_source_is_compared_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosremaster.layers.cache._EDGE", 16)
    read = FileSource.identity  # as a device is, whose times do not tell of another medium
    state: dict[str, int | str] = {"size": 0, "mtime": 1, "ctime": 1}
    monkeypatch.setattr(FileSource, "identity", lambda source: read(source)._replace(state=state, is_dated=False))
    first, _ = run(folder, "first.iso")
    assert run(folder, "second.iso") == (first, False)
    write_small(folder, packed_root())
    other, indexed = run(folder, "third.iso")
    assert indexed
    assert other == run(folder, "fourth.iso", remember=False)[0] != first
