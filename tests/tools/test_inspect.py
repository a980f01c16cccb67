"""inspect: what it says agrees with other tools, and it reads little."""

from __future__ import annotations

import json
import os
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
    assert shallow["archives"] == [{"path": CGZ, "codec": "gzip", "size": len(initramfs())}]
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
