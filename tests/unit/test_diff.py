"""Differences by meaning: what a remaster did is what diff tells, and nothing else."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import DemoEntry, build_archive, directory, regular, root_items
from tests.support.small import CGZ, packed_root, write_overlay, write_small


def _diff(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[tuple[str, str], list[str]]]:
    code = main(["diff", "--json", *words])
    report = json.loads(capsys.readouterr().out)
    assert report["different"] is bool(code)
    return code, {(one["what"], one["address"]): one["details"] for one in report["differences"]}


def test_a_remaster_told_entry_by_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = write_small(tmp_path), tmp_path / "out.iso"
    overlay = write_overlay(tmp_path)
    (overlay / "etc" / "hostname").write_text("other\n")
    result = cosremaster.remaster(image, out, add=[overlay])
    code, found = _diff(capsys, str(image), str(out))
    assert code == 1
    inside = f"{CGZ}::rootfs.cxz::"
    added = {address.removeprefix(inside) for what, address in found if what == "added"}
    assert added == {path.decode() for path in (*result.added, *result.parents)}
    assert {address for what, address in found if what == "content"} == {f"{inside}etc/hostname"}
    assert not [1 for what, _ in found if what in ("boot", "removed", "type", "packing")]
    assert main(["diff", str(image), str(image)]) == 0
    assert main(["diff", "--text", f"{image}::{inside}etc", f"{out}::{inside}etc"]) == 1
    said = capsys.readouterr().out
    assert "    -debirf\n    +other\n" in said
    # The other way round, what was added is removed.
    _, back = _diff(capsys, str(out), str(image))
    assert {address.removeprefix(inside) for what, address in back if what == "removed"} == added


def test_metadata_types_and_packing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = [
        directory(b"a"),
        regular(b"a/f", b"1"),
        DemoEntry(b"l", 0o120777, b"x"),
        DemoEntry(b"n", 0o020600, rdev=(1, 3)),
    ]
    two = [
        directory(b"a"),
        DemoEntry(b"a/f", 0o100600, b"1", uid=7),
        DemoEntry(b"l", 0o120777, b"y"),
        regular(b"n", b""),
    ]
    (tmp_path / "one").write_bytes(build_archive(one))
    (tmp_path / "two").write_bytes(gzip.compress(build_archive(two)))
    _, found = _diff(capsys, f"{tmp_path}/one", f"{tmp_path}/two")
    assert found[("metadata", "a/f")] == ["mode 0644 -> 0600", "owner 0:0 -> 7:0"]
    assert found[("metadata", "l")] == ["target x -> y"]
    assert found[("type", "n")] == ["character device -> file"]
    assert len(found) == 3
    # The same archive packed otherwise: nothing differs inside, and that is told.
    outer = [
        build_archive([regular(b"root", data)]) for data in (packed_root(), lzma.compress(build_archive(root_items())))
    ]
    for name, data in zip(("three", "four"), outer, strict=True):
        (tmp_path / name).write_bytes(data)
    code, found = _diff(capsys, f"{tmp_path}/three", f"{tmp_path}/four")
    assert code == 1
    assert list(found) == [("packing", "root")]
    assert found[("packing", "root")][0].startswith("cpio gzip -> cpio xz, ")


def test_boot_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_small(tmp_path)
    raw = bytearray(image.read_bytes())
    raw[5] ^= 1  # MBR code
    raw[16 * 2048 + 40 : 16 * 2048 + 43] = b"NEW"  # volume id
    raw[446] = 0 if raw[446] else 0x80  # partition 1's status
    (tmp_path / "changed.iso").write_bytes(raw)
    code, found = _diff(capsys, str(image), f"{tmp_path}/changed.iso")
    assert code == 1
    assert set(found) == {("boot", "MBR code"), ("boot", "volume id"), ("boot", "MBR partition 1")}


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_small(tmp_path)
    assert main(["diff", str(image), f"{image}::nope"]) == 6
    assert main(["diff", str(image), f"{tmp_path}/none"]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_each_path_has_a_line_with_dates_as_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = [directory(b"a"), regular(b"a/f", b"1"), regular(b"a/g", b"1"), regular(b"a/h", b"1")]
    two = [directory(b"a"), DemoEntry(b"a/f", 0o100600, b"22"), DemoEntry(b"a/g", 0o100644, b"1", mtime=86_400), one[3]]
    (tmp_path / "one").write_bytes(build_archive(one))
    (tmp_path / "two").write_bytes(build_archive(two))
    assert main(["diff", str(tmp_path / "one"), str(tmp_path / "two")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "~ a/f: 1 -> 2 bytes; mode 0644 -> 0600",
        "m a/g: mtime 2023-11-14 22:13:20 -> 1970-01-02 00:00:00 UTC",
    ]
    _, found = _diff(capsys, str(tmp_path / "one"), str(tmp_path / "two"))
    assert set(found) == {("metadata", "a/f"), ("content", "a/f"), ("metadata", "a/g")}
