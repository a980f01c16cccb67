"""The man pages: mandoc and groff have nothing against them, and they say what help says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.cli.catalog import COMMANDS
from cosremaster.cli.help import EXAMPLES
from tests.fixtures import tools


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all pages."""
    folder = tmp_path_factory.mktemp("man") / "man1"
    assert main(["man", str(folder)]) == 0
    return folder


def test_there_is_a_page_for_each_command(pages: Path) -> None:
    assert {path.name for path in pages.iterdir()} == {
        "cosremaster.1", *(f"cosremaster-{name}.1" for name in COMMANDS)
    }  # fmt: skip


def test_mandoc_and_groff_have_nothing_against_them(pages: Path) -> None:
    tools.require("mandoc", "groff")
    paths = sorted(pages.iterdir())
    lint = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *paths], capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")
    typeset = subprocess.run(["groff", "-man", "-ww", "-Tascii", *paths], capture_output=True, text=True, check=False)
    assert (typeset.returncode, typeset.stderr) == (0, "")


def test_a_page_says_what_help_says(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("mandoc")
    command = ["mandoc", "-Tascii", "-Owidth=78", str(pages / "cosremaster-remaster.1")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    plain = " ".join(re.sub(".\b", "", shown).split())  # bold letters are struck twice
    assert main(["remaster", "--help"]) == 0
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  -"):
            assert line.split("  ")[1].strip() in plain
    for line, text in EXAMPLES["remaster"]:
        assert line in plain and text in plain


def test_pages_are_the_same_each_time(pages: Path, tmp_path: Path) -> None:
    assert main(["man", str(tmp_path / "again")]) == 0
    for path in pages.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    (tmp_path / "file").touch()
    assert main(["man", str(tmp_path / "file" / "x")]) == 8


@pytest.mark.parametrize(
    ("epoch", "date"), [("0", "1970-01-01"), ("99999999999999999", "2106-02-07")], ids=["first", "large"]
)
def test_pages_have_the_date_of_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str, date: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert main(["man", str(tmp_path / "man1")]) == 0
    assert (tmp_path / "man1" / "cosremaster-ls.1").read_text().startswith(f".TH COSREMASTER-LS 1 {date} ")


def test_no_page_has_the_date_of_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    assert main(["man", str(tmp_path / "man1")]) == 2
    assert "SOURCE_DATE_EPOCH is 'today', not a number of seconds" in capsys.readouterr().err
