"""Cpio archives in the odc and binary forms: GNU cpio makes them; GNU cpio and busybox unpack what an edit made."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, directory, regular
from cosremaster.errors import CosremasterError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.layers.cpio.old import old_variant
from cosremaster.layers.model import index_file
from tests.fixtures import tools
from tests.support.layers import cpio_entries, identify_bytes
from tests.support.model import by_busybox, by_gnu, described, read_tree
from tests.support.small import CGZ, write_overlay, write_small

FORMS = ("odc", "bin")


def make_tree(folder: Path) -> Path:
    """What a small initramfs holds: links of both kinds, odd modes, an empty file."""
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "sbin").mkdir()
    (tree / "sbin/init").write_bytes(b"#!/bin/sh\n" + bytes(range(256)) * 9)
    (tree / "sbin/init").chmod(0o4755)
    os.link(tree / "sbin/init", tree / "sbin/second")
    os.link(tree / "sbin/init", tree / "sbin/third")
    (tree / "etc/hostname").write_text("old\n")
    (tree / "etc/empty").touch()
    (tree / "etc/mtab").symlink_to("../proc/mounts")
    return tree


def old_archive(tree: Path, form: str) -> bytes:
    """``tree`` as GNU cpio packs it."""
    tools.require("cpio", "find")
    tools.require_libarchive()
    names = b"\n".join(sorted(tools.run(["find", "."], cwd=tree).splitlines())) + b"\n"
    return tools.run(["cpio", "-o", "-H", form, "--quiet"], cwd=tree, stdin=names)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Each of the old forms."""
    return str(request.param)


@pytest.mark.parametrize("packed", [False, True])
def test_an_edited_one_is_newc_and_both_unpackers_see_the_tree(tmp_path: Path, form: str, packed: bool) -> None:
    tools.require("cpio", "busybox")
    tree = make_tree(tmp_path)
    source = tmp_path / "initrd"
    plain = old_archive(tree, form)
    source.write_bytes(gzip.compress(plain, mtime=0) if packed else plain)
    (tmp_path / "new").write_text("new\n")
    before = source.read_bytes()
    result = cosremaster.remaster(source, tmp_path / "out", add=[f"{tmp_path}/new:/etc/hostname"])
    assert source.read_bytes() == before
    assert any("and is written as newc" in warning for warning in result.warnings)
    made = (tmp_path / "out").read_bytes()
    made = gzip.decompress(made) if packed else made
    assert made.startswith(b"070701")
    (tree / "etc/hostname").write_text("new\n")
    os.chmod(tree / "etc/hostname", (tmp_path / "new").stat().st_mode)
    made_trees = (by_gnu(made, tmp_path / "gnu"), by_busybox(made, tmp_path / "busybox"))
    for found in made_trees:  # the names linked to each are compared too
        assert described(found, links=False) == described(read_tree(tree), links=False)
    again = cosremaster.remaster(tmp_path / "out", tmp_path / "out2", add=[f"{tmp_path}/new:/etc/two"])
    assert not any("newc" in warning for warning in again.warnings)


def test_the_big_endian_binary_form(tmp_path: Path) -> None:
    """As a machine of the other byte order writes it; bsdtar has to read the same names."""
    plain = old_archive(make_tree(tmp_path), "bin")
    swapped = bytearray(plain)
    # Headers alone are swapped: walk them (26 bytes, thirteen words; name and data padded to words).
    at = 0
    while True:
        words = [int.from_bytes(plain[at + 2 * n : at + 2 * n + 2], "little") for n in range(13)]
        for n in range(13):
            swapped[at + 2 * n], swapped[at + 2 * n + 1] = plain[at + 2 * n + 1], plain[at + 2 * n]
        size, name = words[11] << 16 | words[12], plain[at + 26 : at + 25 + words[10]]
        if name == b"TRAILER!!!":
            break
        at += 26 + words[10] + words[10] % 2 + size + size % 2
    assert old_variant(bytes(swapped)) == "bin"
    tools.require("bsdtar")
    (tmp_path / "swapped").write_bytes(swapped)
    listed = tools.run(["bsdtar", "-tf", str(tmp_path / "swapped")]).splitlines()
    found = index_file(b"x", PieceTable([Literal(bytes(swapped))]), Place())
    assert [entry.name for entry in cpio_entries(found.archive.contents)] == listed


def len_only(_count: int) -> None:
    """Nobody watches."""


def test_looked_into_and_inside_an_iso(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    tree = make_tree(tmp_path)
    image = write_small(tmp_path, cgz=gzip.compress(old_archive(tree, form), mtime=0))
    assert main(["cat", f"{image}::{CGZ}::etc/hostname"]) == 0
    assert capsys.readouterr().out == "old\n"
    assert main(["extract", f"{image}::{CGZ}", str(tmp_path / "taken")]) == 0
    assert (tmp_path / "taken/sbin/third").read_bytes() == (tree / "sbin/init").read_bytes()
    assert (tmp_path / "taken/sbin/second").read_bytes() == (tree / "sbin/init").read_bytes()
    assert stat.S_IMODE((tmp_path / "taken/etc/hostname").stat().st_mode) == 0o644
    assert main(["inspect", "--deep", str(image)]) == 0
    assert f"gzip+{form}" in capsys.readouterr().out


def test_a_nested_layer_and_its_remembered_index(tmp_path: Path, form: str) -> None:
    nested = gzip.compress(old_archive(make_tree(tmp_path), form), mtime=0)
    outer = gzip.compress(build_archive([directory(b"bin"), regular(b"rootfs.cgz", nested)]), mtime=0)
    image = write_small(tmp_path, cgz=outer)
    overlay = write_overlay(tmp_path)
    for number in range(2):  # the second time by the index of the first
        result = cosremaster.remaster(image, tmp_path / f"{number}.iso", add=[overlay])
        assert result.layer == f"{CGZ}::rootfs.cgz"
    assert (tmp_path / "0.iso").read_bytes() == (tmp_path / "1.iso").read_bytes()


def test_an_untouched_one_keeps_its_bytes(tmp_path: Path, form: str) -> None:
    other = gzip.compress(old_archive(make_tree(tmp_path), form), mtime=0)
    image = write_small(tmp_path, extra={"other.cgz": other})
    overlay = write_overlay(tmp_path)
    result = cosremaster.remaster(image, tmp_path / "out.iso", add=[overlay], layer=f"{CGZ}::rootfs.cxz")
    assert not any("newc" in warning for warning in result.warnings)
    assert other in (tmp_path / "out.iso").read_bytes()


def damaged(plain: bytes) -> Iterator[bytes]:
    """Shorter and longer than it should be."""
    yield plain[: len(plain) // 2]
    yield plain[: plain.index(b"TRAILER!!!") - 30]
    yield plain + b"more"


def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = old_archive(make_tree(tmp_path), form)
    for number, data in enumerate(damaged(plain)):
        source = tmp_path / f"{number}.img"
        source.write_bytes(data)
        assert main(["ls", "-R", str(source)]) in (4, 5)
        assert f"{number}.img" in capsys.readouterr().err


def test_two_bytes_are_no_magic() -> None:
    for data in (b"\xc7\x71" + bytes(400), b"\x71\xc7" + b"\xff" * 400, b"070707" + b"0" * 200, b"070707", b"\xc7\x71"):
        assert old_variant(data) is None
        assert identify_bytes(data).format is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_ones_yield_located_errors_or_an_index(data: st.DataObject) -> None:
    tools.require_libarchive()
    plain = bytearray(SAMPLES[data.draw(st.sampled_from(FORMS))])
    for _ in range(data.draw(st.integers(1, 4))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    identified = identify_bytes(bytes(plain))
    if identified.format is None:
        return
    assert identified.variant or bytes(plain[:6]) in (b"070701", b"070702")
    try:
        index_file(b"x", PieceTable([Literal(bytes(plain))]), Place(("x",)))
    except CosremasterError as error:
        assert str(error).startswith("x")


def _word(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _sample(form: str) -> bytes:
    """A small archive by hand, so that what mutates is the same everywhere."""
    out = b""
    for number, (name, mode, body) in enumerate(
        ((b"etc", 0o040755, b""), (b"etc/a", 0o100644, b"abc"), (b"l", 0o120777, b"etc/a"), (b"TRAILER!!!", 0, b""))
    ):
        size = len(name) + 1
        if form == "odc":
            fields = (0, number, mode, 0, 0, 1, 0)
            out += b"070707" + b"".join(b"%06o" % one for one in fields) + b"%011o%06o%011o" % (0, size, len(body))
            out += name + b"\0" + body
        else:
            words = (0o070707, 0, number, mode, 0, 0, 1, 0, 0, 0, size, 0, len(body))
            out += b"".join(map(_word, words)) + name + bytes(1 + size % 2) + body + bytes(len(body) % 2)
    return out + bytes(-len(out) % 512)


SAMPLES = {form: _sample(form) for form in FORMS}
