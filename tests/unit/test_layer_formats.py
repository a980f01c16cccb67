"""A layer format that the package has never heard of: one registry entry, and every command and call knows it."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, directory, regular, root_items
from cosremaster.layers.cpio.format import OLD_MAGICS
from cosremaster.layers.cpio.newc import MAGICS as NEWC_MAGICS
from cosremaster.layers.formats import FORMATS, MAGICS, PLAIN_HEAD_SIZE, identify_format, load_format
from cosremaster.layers.model import RootfsLikelihood
from cosremaster.remastering.image import OpenedImage
from cosremaster.remastering.request import Request
from cosremaster.tree.limits import ANY_LAYER
from tests.support.small import without_layer
from tests.support.toyfs import toy_file

ROOT = {"etc/hostname": "toy", "etc/motd": "hello", "sbin/init": "#!init", "usr/bin/tool": "tool"}
NAMES = ["toyfs", "toydisk"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "toyfs", "tests.support.toyfs:ToyFormat")
    monkeypatch.setitem(FORMATS, "toydisk", "tests.support.toyfs:ToyDisk")


def as_file(name: str) -> tuple[dict[str, bytes], str]:
    """Files for an ISO, and the address of the toy file system among them."""
    return {"live/root.toy": toy_file(ROOT, name)}, "live/root.toy"


def under_gzip(name: str) -> tuple[dict[str, bytes], str]:
    return {"live/root.toy": gzip.compress(toy_file(ROOT, name), mtime=0)}, "live/root.toy"


def in_an_initramfs(name: str) -> tuple[dict[str, bytes], str]:
    items = [directory(b"lib"), regular(b"lib/f", b"x"), regular(b"root.toy", toy_file(ROOT, name))]
    return {"initrd.gz": gzip.compress(build_archive(items), mtime=0)}, "initrd.gz::root.toy"


WAYS = [as_file, under_gzip, in_an_initramfs]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_every_command_and_call_knows_a_new_format(
    name: str, way: Callable[[str], tuple[dict[str, bytes], str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, address = way(name)
    image, out = tmp_path / "in.iso", tmp_path / "out.iso"
    image.write_bytes(without_layer(files))

    def run(*words: object, code: int = 0) -> str:
        assert main([str(word) for word in words]) == code
        return capsys.readouterr().out

    # Found by content, and taken for a root filesystem by its paths.
    with OpenedImage(image, remember=False) as opened:
        layer = opened.layers().layers[-1]
        assert (layer.format.name, layer.entry_count, layer.likelihood) == (name, len(ROOT), RootfsLikelihood.SYSTEM)
    report = json.loads(run("inspect", "--json", "--deep", image))
    assert [(one["address"], one["format"]) for one in report["layers"]][-1] == (address, name)
    # Listed and read.
    assert run("ls", f"{image}::{address}::etc").split() == ["hostname", "motd"]
    assert run("cat", f"{image}::{address}::etc/motd") == "hello"
    assert run("verify", "--deep", image).count(f"{address}: {len(ROOT)} entries") == 1
    # Edited, by the command line and by the call.
    (tmp_path / "site/etc").mkdir(parents=True)
    (tmp_path / "site/etc/motd").write_text("other")
    (tmp_path / "site/etc/new").write_text("new")
    run(image, out, "--add", tmp_path / "site", "--remove", "usr/bin/tool")
    result = cosremaster.remaster(image, tmp_path / "api.iso", add=[tmp_path / "site"], remove=["usr/bin/tool"])
    assert (result.added, result.replaced, result.removed) == ((b"etc", b"etc/new"), (b"etc/motd",), (b"usr/bin/tool",))
    assert out.read_bytes() == (tmp_path / "api.iso").read_bytes()
    assert run("cat", f"{out}::{address}::etc/motd") == "other"
    assert run("ls", "-R", f"{out}::{address}").split() == [
        "etc", "etc/hostname", "etc/motd", "etc/new", "sbin", "sbin/init"
    ]  # fmt: skip
    run("verify", "--deep", out, "--against", image, "--changed", address.partition("::")[0])
    # Compared, and exported.
    found = json.loads(run("diff", "--json", f"{image}::{address}", f"{out}::{address}", code=1))
    changes = {(one["what"], one["address"].rpartition("::")[2]) for one in found["differences"]}
    assert {("added", "etc/new"), ("content", "etc/motd"), ("removed", "usr/bin/tool")} <= changes
    run("export", f"{out}::{address}", "--maas", "toy", "--output", tmp_path / "root.tar")
    with tarfile.open(tmp_path / "root.tar") as tar:
        assert {"etc/motd", "etc/new", "sbin/init"} <= set(tar.getnames())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_a_new_format_is_remembered(
    name: str, way: Callable[[str], tuple[dict[str, bytes], str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = way(name)
    image = tmp_path / "in.iso"
    image.write_bytes(without_layer(files))
    with OpenedImage(image) as opened:
        first = opened.layers()
    monkeypatch.setattr("cosremaster.remastering.layer_index.find_layers", None)  # it would index again
    with OpenedImage(image) as opened:
        again = opened.layers()
        assert [layer.format.name for layer in again.layers] == [layer.format.name for layer in first.layers]
        assert b"".join(again.layers[-1].tree()[b"etc/motd"].content.table().chunks()) == b"hello"  # type: ignore[union-attr]
        opened.remaster(tmp_path / "out.iso", Request(remove=["etc/motd"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_toy_file_system_in_a_file_of_its_own(
    name: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    source = tmp_path / "root.toy"
    source.write_bytes(toy_file(ROOT, name))
    assert main(["ls", str(source)]) == 0
    assert capsysbinary.readouterr().out.split() == [b"etc", b"sbin", b"usr"]
    cosremaster.remaster(source, tmp_path / "out.toy", remove=["usr/bin/tool"])
    assert (tmp_path / "out.toy").read_bytes() == toy_file({p: t for p, t in ROOT.items() if "tool" not in p}, name)


def test_without_its_entry_a_toy_file_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "in.iso"
    image.write_bytes(without_layer(as_file("toyfs")[0]))
    with OpenedImage(image) as opened:
        assert len(opened.layers().layers) == 1
    monkeypatch.delitem(FORMATS, "toyfs")
    with OpenedImage(image) as opened:  # the index of before does not fit
        assert not opened.layers().layers


def _traced_peak(folder: Path, count: int) -> int:
    """The most bytes that Python holds while a layer of ``count`` entries is remastered."""
    image = folder / f"{count}.cpio"
    files = [regular(b"files/file%07d.conf" % number, b"content %d" % number) for number in range(count)]
    image.write_bytes(build_archive([*root_items(), directory(b"files"), *files]))
    del files
    tracemalloc.start(1)
    try:
        add = [cosremaster.InlineFile("/etc/motd", b"x")]
        cosremaster.remaster(image, folder / f"{count}.out", add=add, remember=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_remaster_takes_less_than_400_bytes_for_each_entry(tmp_path: Path) -> None:
    _traced_peak(tmp_path, 100)  # loads modules
    few, many = (_traced_peak(tmp_path, count) for count in (3_000, 12_000))
    assert (many - few) / 9_000 < 420  # the last table that grew may have grown just now


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_any_layer_holds_every_format_holds(name: str) -> None:
    assert load_format(name).limits.max_file_size >= ANY_LAYER.max_file_size


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_is_loaded_for_files_with_its_magic_alone(name: str) -> None:
    superblock = struct.pack("<I20xI28x2sH16xI", 16, 2, b"\x53\xef", 1, 1)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("etc"))
    heads = {
        "cpio": build_archive(root_items()), "squashfs": b"hsqs", "tar": archive.getvalue(),
        "ext4": bytes(1024) + superblock, "erofs": bytes(1024) + b"\xe2\xe1\xf5\xe0",
    }  # fmt: skip
    head = heads[name].ljust(PLAIN_HEAD_SIZE, b"\0")[:PLAIN_HEAD_SIZE]
    assert load_format(name).identify(head) == ""
    assert identify_format(head) == (load_format(name), "")
    for place, magic in MAGICS.get(name, ()):
        other = bytearray(head)
        other[place : place + len(magic)] = bytes(byte ^ 0x55 for byte in other[place : place + len(magic)])
        assert load_format(name).identify(bytes(other)) is None
    assert name not in MAGICS or any(head.startswith(magic, place) for place, magic in MAGICS[name])


def test_every_cpio_has_a_magic_of_the_registry() -> None:
    assert all(any(own.startswith(magic) for _, magic in MAGICS["cpio"]) for own in (*NEWC_MAGICS, *OLD_MAGICS))
