"""`cosremaster demo --keep DIR` writes over nothing that it did not write itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.demo import OVERLAY


def refused(folder: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error by which a demo in ``folder`` is refused, in which nothing changes."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert main(["demo", "--keep", folder]) == 8
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return capsys.readouterr().err


def test_an_image_of_others_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An in.iso and an out.iso were replaced, whatever they were."""
    monkeypatch.chdir(tmp_path)
    Path("in.iso").write_bytes(b"of a vendor")
    assert "in.iso: exists already, and no demo wrote it" in refused(".", capsys)
    Path("in.iso").rename("out.iso")
    assert "out.iso: exists already, and no demo wrote it" in refused(".", capsys)


def test_a_demo_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["demo", "--keep", "demo"]) == 0
    changed = Path("demo/overlay", min(OVERLAY))
    changed.write_text("mine")
    capsys.readouterr()
    assert f"{changed}: exists already, and no demo wrote it" in refused("demo", capsys)
