"""Fleets whose base is on another machine, and fleets of deltas: the same images, each byte of the base once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.deltas.compose import CopiedRanges
from cosremaster.deltas.note import DeltaNote, FileDigest
from cosremaster.serve.catalogs import open_catalog
from cosremaster.serve.sites import SiteImages
from tests.fixtures.tools import require, run
from tests.support.deltas import apply_by_xdelta3
from tests.support.range_server import ServedFile, serve_file
from tests.support.small import write_small

SITES = """
[[add]]
file = "/etc/site"
content = "${NAME}"
[[site]]
name = "north"
[[site]]
name = "south"
"""
COMMON = '[[add]]\nfile = "/etc/motd"\ncontent = "for all"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [*os.environ]:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path)
    return tmp_path


@pytest.fixture
def served(folder: Path) -> Iterator[ServedFile]:
    with serve_file((folder / "in.iso").read_bytes()) as server:
        yield server


def _write_fleet(name: str, base: str, *, delta: bool = False, common: str = COMMON) -> str:
    ending = "vcdiff" if delta else "iso"
    head = f'base = "{base}"\noutput = "{name}/${{NAME}}.{ending}"\n' + ("delta = true\n" if delta else "")
    Path(f"{name}.toml").write_text(head + common + SITES)
    return f"{name}.toml"


def _images(name: str) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in Path(name).iterdir() if path.suffix in (".iso", ".vcdiff")}


@pytest.mark.parametrize("common", [COMMON, ""], ids=["common", "nothing common"])
def test_a_fleet_of_deltas_makes_the_images_of_the_own_base(
    common: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require("xdelta3", "sha256sum")
    assert main(["fleet", _write_fleet("whole", "in.iso", common=common), "--quiet"]) == 0
    fleet = _write_fleet("deltas", "in.iso", delta=True, common=common)
    assert main(["fleet", fleet, "--quiet"]) == 0
    files = [f"{site}.vcdiff{ending}" for site in ("north", "south") for ending in ("", ".json")]
    assert sorted(os.listdir("deltas")) == ["SHA256SUMS", "fleet.json", *files]
    lines = run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder / "deltas").decode().splitlines()
    assert lines == [f"{name}: OK" for name in files]
    whole = _images("whole")
    base = hashlib.sha256(Path("in.iso").read_bytes()).hexdigest()
    for record in json.loads(Path("deltas/fleet.json").read_text())["sites"]:
        delta, expected = Path("deltas") / record["path"], whole[record["site"]]
        assert delta.stat().st_size < len(expected) / 8
        by_xdelta3 = folder / f"{record['site']}.by-xdelta3"
        apply_by_xdelta3(folder / "in.iso", folder / delta, by_xdelta3)
        assert by_xdelta3.read_bytes() == expected
        assert (
            cosremaster.apply("in.iso", delta, f"{record['site']}.iso").sha256 == hashlib.sha256(expected).hexdigest()
        )
        assert record["delta"]["base_sha256"] == base
        assert record["delta"]["result_sha256"] == hashlib.sha256(expected).hexdigest()
        assert record["delta"]["result_size"] == len(expected)
    before = _images("deltas")
    capsys.readouterr()
    assert main(["fleet", fleet]) == 0
    assert "2 current" in capsys.readouterr().out
    Path("deltas/south.vcdiff.json").unlink()
    assert main(["fleet", fleet, "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "north.vcdiff: current" in printed
    assert "south.vcdiff: would be written (the file changed)" in printed
    assert main(["fleet", fleet, "--quiet", *(("--force", "--jobs", "2") if common else ())]) == 0
    assert _images("deltas") == before
    assert [name for name in os.listdir("deltas") if name.startswith(".")] == []


def test_an_image_and_a_delta_are_other_outputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = Path(_write_fleet("out", "in.iso"))
    assert main(["fleet", str(fleet), "--quiet"]) == 0
    fleet.write_text(fleet.read_text().replace("\noutput", "\ndelta = true\noutput"))
    capsys.readouterr()
    assert main(["fleet", str(fleet), "--quiet"]) == 0
    assert "is a delta, which no machine boots" in capsys.readouterr().err
    assert Path("out/north.iso").read_bytes()[:4] == b"\xd6\xc3\xc4\0"
    assert main(["fleet", str(fleet), "--quiet", "--read-back"]) == 2
    fleet.write_text(fleet.read_text().replace('"south"', '"north.iso.json"').replace('.iso"\n[[add]]', '"\n[[add]]'))
    fleet.write_text(fleet.read_text().replace("/${NAME}.iso", "/${NAME}").replace('"north"', '"north.iso"'))
    assert main(["fleet", str(fleet), "--quiet"]) == 2
    assert "is that of north.iso and north.iso.json" in capsys.readouterr().err


@pytest.mark.parametrize("common", [COMMON, ""], ids=["common", "nothing common"])
def test_a_base_by_url(common: str, folder: Path, served: ServedFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", _write_fleet("near", "in.iso", common=common), "--quiet"]) == 0
    fleet = _write_fleet("far", f"{served.url}?key=secret", common=common)
    assert main(["fleet", fleet, "--plan"]) == 0
    assert "north.iso: would be written (new)" in capsys.readouterr().out
    assert served.sent <= 1 << 16
    served.forget()
    assert main(["fleet", fleet, "--quiet"]) == 0
    assert _images("far") == _images("near")
    assert served.sent <= len(served.data) + (1 << 16) + 20, "each byte comes once"
    assert "secret" not in Path("far/fleet.json").read_text()
    served.forget()
    capsys.readouterr()
    assert main(["fleet", fleet]) == 0
    assert "2 current" in capsys.readouterr().out
    assert served.sent <= (1 << 16) + 10
    served.etag = '"v2"'
    assert main(["fleet", fleet, "--plan"]) == 0
    assert "(base, recipe or overlay changed)" in capsys.readouterr().out
    assert main(["fleet", fleet]) == 0
    assert "2 current" in capsys.readouterr().out, "its bytes are the same"
    assert main(["fleet", fleet, "--quiet", "--force", "--jobs", "1" if common else "2"]) == 0
    assert _images("far") == _images("near")
    assert [name for name in os.listdir("far") if name.startswith(".")] == []


def test_deltas_of_a_base_by_url(folder: Path, served: ServedFile) -> None:
    assert main(["fleet", _write_fleet("near", "in.iso", delta=True), "--quiet"]) == 0
    assert main(["fleet", _write_fleet("far", served.url, delta=True), "--quiet"]) == 0
    assert _images("far") == _images("near")
    assert cosremaster.apply(served.url, "far/north.vcdiff", "north.iso").size > 0


def test_faults_of_a_base_by_url(folder: Path, served: ServedFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", _write_fleet("far", f"{served.url}/missing"), "--quiet"]) == 3
    assert "is not there (404" in capsys.readouterr().err
    digest = hashlib.sha256(served.data).hexdigest()
    for digits, code in ((digest, 0), ("0" * 64, 3)):
        fleet = _write_fleet("far", served.url, common=f'expect.sha256 = "{digits}"\n')
        assert main(["fleet", fleet, "--quiet", "--force"]) == code
    assert "was expected" in capsys.readouterr().err


def test_a_fleet_with_a_base_by_url_is_served(folder: Path, served: ServedFile) -> None:
    assert main(["fleet", _write_fleet("near", "in.iso", common=""), "--quiet"]) == 0
    images = SiteImages(open_catalog([Path(_write_fleet("far", served.url, common=""))]), 10)
    try:
        site = images.find_site("north")
        with site.using():
            assert site.image.read(0, site.image.representation.size) == _images("near")["north"]
    finally:
        images.close()


def test_ranges_are_told_by_those_of_the_first_base() -> None:
    note = DeltaNote(FileDigest(1000, "0" * 64), FileDigest(500, "1" * 64))
    copied = CopiedRanges(note, iter([(10, 100, 50), (60, 700, 40), (200, 0, 300)]))
    assert list(copied.map_range(0, 500)) == [
        (None, 10), (100, 50), (700, 40), (None, 100), (0, 300)
    ]  # fmt: skip
    assert list(copied.map_range(20, 10)) == [(110, 10)]
    assert list(copied.map_range(55, 10)) == [(145, 5), (700, 5)]
    assert list(copied.map_range(150, 40)) == [(None, 40)]
    assert [copied.find(*asked) for asked in ((100, 50), (650, 51), (710, 30), (299, 1), (999, 1))] == [
        10, None, 70, 499, None
    ]  # fmt: skip
    assert list(CopiedRanges(note, iter(())).map_range(3, 4)) == [(None, 4)]
