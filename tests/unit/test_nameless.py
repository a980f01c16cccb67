"""Temporary files are opened by descriptor, and by a name where a Linux has no /proc, as in the chroot of a build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cosremaster
from cosremaster.io import nameless
from tests.support.small import write_overlay, write_small

WITHOUT_PROC = """
import sys
from cosremaster.cli import main
from cosremaster.io import nameless
nameless._FOLDERS = ("/none",)
sys.exit(main(sys.argv[1:]))
"""


def test_an_archive_is_packed_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay, temporary = write_overlay(tmp_path), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    cosremaster.pack(overlay, tmp_path / "with.tar")
    monkeypatch.setattr(nameless, "_FOLDERS", ("/none",))
    cosremaster.pack(overlay, tmp_path / "without.tar")
    assert (tmp_path / "without.tar").read_bytes() == (tmp_path / "with.tar").read_bytes()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "pipe"])
def test_standard_input_is_read_without_proc(tmp_path: Path, is_file: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    image, temporary = write_small(tmp_path), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with image.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_PROC, "cat", "-::vmlinuz"], capture_output=True, check=False,
            stdin=file if is_file else None, input=None if is_file else image.read_bytes(),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == cosremaster.open(image).read("vmlinuz")
    assert not list(temporary.iterdir())
