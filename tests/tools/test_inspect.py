"""inspect: what it says agrees with other tools, and it reads little."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.demo.image import initramfs, root_items
from tests.fixtures import tools
from tests.fixtures.debirf import CGZ as REAL_CGZ
from tests.fixtures.debirf import DebirfImage
from tests.fixtures.tools import run
from tests.support.small import CGZ, write_small


def _report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["inspect", "--json", *words]) == 0
    report: dict[str, object] = json.loads(capsys.readouterr().out)
    assert report["schema"] == 1
    return report


def test_json_with_and_without_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_small(tmp_path)
    shallow = _report(capsys, str(image))
    assert shallow["layers"] is None
    assert shallow["archives"] == [
        {"path": CGZ, "format": "cpio", "codec": "gzip", "size": len(initramfs()), "segments": []}
    ]
    deep = _report(capsys, str(image), "--deep")
    layers = deep["layers"]
    assert isinstance(layers, list)
    assert [layer["chosen"] for layer in layers] == [False, True]
    assert layers[1]["entries"] == len(root_items())
    assert _report(capsys, str(image)) == shallow, "whatever is remembered now"
    (tmp_path / "bare").write_bytes(initramfs())
    bare = _report(capsys, str(tmp_path / "bare"))
    assert bare["image"]["kind"] == "initramfs"  # type: ignore[index]


def test_partitions_as_sfdisk_tells_them(debirf_image: DebirfImage, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("sfdisk")
    report = _report(capsys, str(debirf_image.iso))
    table = json.loads(run(["sfdisk", "--json", str(debirf_image.iso)]))["partitiontable"]["partitions"]
    mbr = report["boot"]["mbr"]  # type: ignore[index]
    ours = [(one["start"], one["sectors"], one["type"]) for one in mbr["partitions"]]
    assert ours == [(one["start"], one["size"], int(one["type"], 16)) for one in table]


def test_less_than_a_mebibyte_is_read(
    debirf_image: DebirfImage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by the kernel: what this process read, its own modules loaded before."""
    main(["inspect", str(debirf_image.iso)])
    capsys.readouterr()
    before = _read_so_far()
    assert main(["inspect", str(debirf_image.iso)]) == 0
    assert _read_so_far() - before < 1 << 20
    assert f"archive {REAL_CGZ}: gzip" in capsys.readouterr().out


def _read_so_far() -> int:
    with open(f"/proc/{os.getpid()}/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("rchar:"))


def _pack(folder: Path, files: dict[str, bytes]) -> bytes:
    """A plain archive by GNU cpio."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    command = "find . -mindepth 1 | sort | cpio -o -H newc --quiet --reproducible"
    return subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True).stdout


def test_an_initramfs_of_several_archives_is_described_without_decoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("xorriso", "cpio", "gzip")
    early = _pack(tmp_path / "early", {"kernel/x86/microcode/GenuineIntel.bin": bytes(3000)})
    main_archive = _pack(tmp_path / "main", {"init": b"#!/bin/sh\n", "etc/hostname": b"a\n", "bin/sh": b"x"})
    packed = run(["gzip", "-9n"], stdin=main_archive)
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot" / "initrd.img").write_bytes(early + packed)
    (tree / "boot" / "link.img").hardlink_to(tree / "boot" / "initrd.img")
    (tree / "boot" / "plain.img").write_bytes(early + bytes(512) + main_archive)
    (tree / "boot" / "alone.img").write_bytes(packed)
    (tree / "boot" / "junk.img").write_bytes(early + b"no archive")
    iso = tmp_path / "made.iso"
    run(["xorriso", "-as", "mkisofs", "-r", "--hardlinks", "-V", "A", "-o", iso, tree])
    assert main(["inspect", str(iso), "--json"]) == 0
    archives = {each["path"]: each["segments"] for each in json.loads(capsys.readouterr().out)["archives"]}
    first = {"codec": "none", "size": len(early), "entries": 4, "early": True}
    second = {"codec": "gzip", "size": len(packed), "entries": None, "early": False}
    assert archives["boot/initrd.img"] == archives["boot/link.img"] == [first, second]
    assert archives["boot/alone.img"] == []
    assert archives["boot/junk.img"] == [first, {"codec": None, "size": 10, "entries": None, "early": False}]
    behind = {"codec": "none", "size": len(main_archive), "entries": 5, "early": False}
    assert archives["boot/plain.img"] == [{**first, "size": len(early) + 512}, behind]
    assert main(["inspect", str(iso)]) == 0
    lines = capsys.readouterr().out
    assert "archive boot/initrd.img: 2 or more archives, one behind the other, " in lines
    assert "  #1: none, 4.0 KiB, 4 entries, early: microcode or ACPI tables for the kernel\n  #2: gzip, " in lines
    assert main(["inspect", str(iso), "--deep", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {tuple(layer["files"]) for layer in layers if "alone" not in layer["address"]} == {
        ("boot/initrd.img", "boot/link.img"), ("boot/junk.img",), ("boot/plain.img",),
    }  # fmt: skip
    assert main(["inspect", str(iso), "--deep"]) == 0
    assert "boot/initrd.img is also boot/link.img\n" in capsys.readouterr().out
