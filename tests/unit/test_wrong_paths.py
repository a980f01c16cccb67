"""Paths that are no image or no place for one: a sentence, a stable exit code, and nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import OutputError, UsageError
from cosremaster.overlay.patterns import Pattern, parse_inner_pattern
from tests.support.small import CGZ, write_overlay, write_small

EMPTY = "it is empty, and a path is wanted"
RECIPE = 'input = "in.iso"\n'
FLEET = 'base = "in.iso"\noutput = "out/${NAME}.iso"\n[[site]]\nname = "a"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_small(tmp_path)
    write_overlay(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.toml").write_text(RECIPE)
    (tmp_path / "fleet.toml").write_text(FLEET)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code of a command that writes nothing, and the last line that it says."""
    before = sorted(folder.rglob("*"))
    code = main(words)
    printed = capsys.readouterr()
    assert printed.out == "" and sorted(folder.rglob("*")) == before
    return code, printed.err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ("in.iso", ""), ("", "out.iso"), ("in.iso", "out.iso", "--report", ""), ("verify", ""),
        ("verify", "in.iso", "--against", ""), ("inspect", "in.iso", "--html", ""), ("extract", "in.iso", ""),
        ("apply", "in.iso", "", "out"), ("apply", "", "x", "out"), ("pack", "overlay", ""), ("man", ""), ("serve", ""),
        ("prepare", "in.iso", ""), ("build", ""), ("build", "a.toml", "--output", ""),
        ("build", "a.toml", "--report", ""), ("fleet", ""), ("fleet", "fleet.toml", "--output-dir", ""),
        ("export", "in.iso", "--pxe", ""), ("export", "in.iso", "--maas", "a", "--output", ""), ("index", ""),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_path_is_not_the_working_directory(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, sentence = _refused(folder, capsys, *words)
    assert code == 2 and sentence.endswith(EMPTY), sentence


def test_an_empty_path_is_no_image(folder: Path) -> None:
    with pytest.raises(UsageError, match="the path of the image is empty"):
        cosremaster.open("")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("empty out.iso", 3, "empty: is a directory, and no image"),
        ("pipe out.iso", 3, "pipe: is a pipe, which is read as standard input alone (-)"),
        (f"in.iso::{CGZ} out.iso", 3, f"in.iso::{CGZ}: cannot be opened: No such file or directory; in.iso is there,"
         " but a whole file is wanted here, and no address in it"),
        ("in.iso loop --add overlay", 8, "loop: is a symlink that leads to no file"),
        ("in.iso loop --add overlay --force", 8, "loop: is a symlink that leads to no file"),
        ("apply in.iso . out", 3, ".: is a directory, and no image"),
        ("apply in.iso / out", 3, "/: is a directory, and no image"),
        ("extract in.iso /", 8, "/: exists already and is no empty folder"),
        ("extract in.iso .", 8, ".: exists already and is no empty folder"),
        ("extract in.iso -", 2, "standard output takes a tar archive: --as tar (a folder called - is ./-)"),
        ("pack overlay .", 2, ".: the name has to say what to make: .cpio or .tar, alone or with .gz, .xz, .zst, .bz2"
         ", .lz4 or .lzo behind (or as in .tgz), or .squashfs"),
        ("in.iso out.iso --remove /", 2, "pattern '/': the path of something below the root directory is wanted"),
        ("in.iso out.iso --remove-iso //", 2, "pattern '//': the path of something below the root directory is wanted"),
        ("export in.iso --maas a --exclude .", 2, "pattern '.': the path of something below the root directory is"
         " wanted"),
    ],
)  # fmt: skip
def test_what_is_no_image_and_no_place_for_one(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, code: int, sentence: str
) -> None:
    assert _refused(folder, capsys, *words.split()) == (code, f"cosremaster: {sentence}")


def test_nothing_is_extracted_over_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be replaced by another folder, and a shell in it would see nothing."""
    monkeypatch.chdir(folder / "empty")
    with cosremaster.open("../in.iso") as image:
        for target in (".", folder / "empty", "../empty"):
            with pytest.raises(OutputError, match="is the working directory; the name of a new folder is wanted"):
                image.extract("", target)
        image.extract("", "new")
    assert (folder / "empty/new/vmlinuz").is_file()


def test_a_pattern_of_something_below_the_root() -> None:
    assert parse_inner_pattern(b"/etc/").literal_prefix == b"etc" and parse_inner_pattern(b"**").matches(b"a")
    for text in (b"", b"/", b".", b"./"):
        assert Pattern(text).literal_prefix == b""
        with pytest.raises(UsageError, match="below the root directory"):
            parse_inner_pattern(text)
