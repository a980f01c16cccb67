"""Colours by meaning, and tables for people: on a terminal alone, unless somebody asks for more or less."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from rich.table import Table

import cosremaster
from cosremaster.cli import main
from cosremaster.cli.colors import paint, paint_finding, paint_long_line, paint_mark, uses_color
from cosremaster.cli.fleet import SiteLines
from cosremaster.cli.settings import Settings
from cosremaster.cli.terminal import Quiet
from cosremaster.fleet.state import SiteRecord
from tests.support.small import write_small

_CODE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an image, and one with another file in its root."""
    path = tmp_path_factory.mktemp("images")
    image = write_small(path)
    (path / "site").write_text("7\n")
    cosremaster.remaster(image, path / "out.iso", add=[f"{path}/site:/etc/site"])
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter the folder."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return folder


COMMANDS = ["ls in.iso", "ls -l in.iso", "ls -R in.iso::debirf-live-demo.cgz", "tree in.iso", "diff in.iso out.iso",
            "diff --text in.iso::@root::etc out.iso::@root::etc", "verify in.iso",
            "cache list", "ls missing.iso", "cat in.iso::nothing", "ls in.iso --recursiv", "in.iso",
            "diff in.iso"]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_colours_change_nothing_but_colours(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(words.split())
    plain = capsys.readouterr()
    assert "\x1b" not in plain.out + plain.err
    assert main(["--color", "always", *words.split()]) == code
    colored = capsys.readouterr()
    assert words == "cache list" or "\x1b[" in colored.out + colored.err
    assert (_CODE.sub("", colored.out), _CODE.sub("", colored.err)) == plain
    assert main([*words.split(), "--color=never"]) == code
    assert capsys.readouterr() == plain


def test_what_a_plan_adds_is_painted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "in.iso", "--add", "site:/etc/site", "--color", "always"]) == 0
    assert re.search(r"^\x1b\[32m *\+ etc/site\x1b\[0m$", capsys.readouterr().out, re.MULTILINE)


def test_colours_on_a_terminal(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*words: str) -> str:
        """Return what a terminal gets."""
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main([*words]) == 0
        return capsys.readouterr().out

    assert "\x1b[1;34mEFI\x1b[0m\n" in shown("ls", "in.iso")
    assert "\x1b[" not in shown("ls", "in.iso", "--color", "never")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in shown("ls", "in.iso")
    assert "\x1b[" in shown("ls", "in.iso", "--color", "always")
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b[" in shown("ls", "in.iso")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in shown("ls", "in.iso")


def test_a_table_on_a_terminal_is_lines_in_a_pipe(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "in.iso"]) == 0
    capsys.readouterr()
    assert main(["cache", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"[\d.]+ \w+, last used [\d: -]+ UTC, [\w-]+\.index: .*", lines[0])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cache", "list", "--color", "never"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"^ *size +last used \(UTC\) +index +image *$", table, re.MULTILINE) and "\x1b" not in table
    for line in lines[:-1]:
        assert line.split(": ")[-1] in table
    assert table.splitlines()[-1] == lines[-1]


def _get_padding_width_of_old_rich(table: Table, column_index: int) -> int:
    """The padding that rich 13 and 14 count beside a column of a set width."""
    _, right, _, left = table.padding
    return right + (max(0, left - right) if table.collapse_padding and column_index > 0 else left)


def words_of(text: str) -> set[str]:
    """The words in ``text``, without marks that stand between columns of lines."""
    return {word.strip(",;:()") for word in _CODE.sub("", text).split()}


def inspect_on_terminal(
    width: int, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What ``inspect`` shows on a terminal of ``width`` columns."""
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        patch.setenv("COLUMNS", str(width))
        assert main(["inspect", "in.iso", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--deep"], ["--layer", "debirf-live-demo.cgz"]])
def test_inspect_has_tables_of_the_same_facts_on_a_terminal(
    words: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "in.iso", *words]) == 0
    lines = capsys.readouterr().out
    wide = inspect_on_terminal(400, [*words, "--color=never"], monkeypatch, capsys)
    assert words_of(lines) - words_of(wide) <= {"entry", "line", "at", "block", "sectors", "to", "layer", "entries",
                                                "packed", "plain"}  # fmt: skip
    assert re.search(r"^ +entry +how +file +block +size +tables in it *$", wide, re.MULTILINE) and "\x1b" not in wide
    assert bool(re.search(r"^ layer +what it is +format +entries +codec +packed +plain", wide, re.MULTILINE)) == bool(
        words
    )
    painted = inspect_on_terminal(400, [*words, "--color=always"], monkeypatch, capsys)
    assert painted != wide and _CODE.sub("", painted) == wide
    monkeypatch.setenv("NO_COLOR", "1")
    assert inspect_on_terminal(400, words, monkeypatch, capsys) == wide


@pytest.mark.parametrize("is_old_rich", [False, True])
@pytest.mark.parametrize("width", [20, 40, 80, 90, 100, 120])
def test_inspect_fits_a_narrow_terminal(
    width: int, is_old_rich: bool, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With rich before 15 too, which counts the padding at a table's edge for columns of a set width alone."""
    if is_old_rich:
        monkeypatch.setattr(Table, "_get_padding_width", _get_padding_width_of_old_rich)
    narrow = inspect_on_terminal(width, ["--deep", "--color=never"], monkeypatch, capsys)
    assert max(map(len, narrow.splitlines())) <= width
    if width >= 80:  # no word is broken
        wide = inspect_on_terminal(400, ["--deep", "--color=never"], monkeypatch, capsys)
        assert main(["inspect", "in.iso", "--deep"]) == 0
        facts = words_of(capsys.readouterr().out) & words_of(wide)  # without titles
        assert facts <= words_of(narrow) and "debirf-live-demo.cgz::rootfs.cxz" in facts


def test_a_table_that_breaks_words_is_lines(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is for a path that the terminal has no room for beside the other columns."""
    assert main(["index", "in.iso"]) == 0
    capsys.readouterr()
    assert main(["cache", "list"]) == 0
    lines = capsys.readouterr().out
    path = lines.splitlines()[0].split(": ")[-1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for width in range(20, 140, 10):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["cache", "list", "--color", "never"]) == 0
        printed = capsys.readouterr().out
        assert path in printed and (printed == lines or max(map(len, printed.splitlines()[:-2])) <= width)


def test_lines_are_painted_by_their_meaning() -> None:
    Settings.color = "always"
    try:
        assert uses_color(sys.stderr)
        assert paint("x", "error") == "\x1b[1;31mx\x1b[0m" and paint("", "error") == "" and paint("x", "") == "x"
        link = "lrwxrwxrwx     0     0          7 2023-11-14 22:13 bin -> usr/bin"
        assert paint_long_line(link).endswith(" 22:13 \x1b[36mbin\x1b[0m -> usr/bin")
        assert paint_long_line("-rw-r--r--     0     0          7 2023-11-14 22:13 a").endswith("22:13 a")
        assert paint_mark("  + etc/site") == "\x1b[32m  + etc/site\x1b[0m" and paint_mark("volume: 1") == "volume: 1"
        assert paint_finding("FAIL a: b").startswith("\x1b[1;31mFAIL\x1b[0m a")
        assert paint_finding("x: NOT SOUND (1 fail)") == "x: \x1b[1;31mNOT SOUND\x1b[0m (1 fail)"
        assert paint_finding("x: sound (1 hold)") == "x: \x1b[32msound\x1b[0m (1 hold)"
    finally:
        Settings.reset()
    assert not uses_color(sys.stderr)


@pytest.mark.parametrize("words", ["--color always ls in.iso --recursiv", "ls in.iso --recursiv --color=always"])
def test_a_usage_error_is_painted_as_click_writes_it(
    words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert main(words.split()) == 2
    usage, hint, empty, message = capsys.readouterr().err.splitlines()
    assert usage.startswith("Usage: cosremaster ls ") and hint.startswith("Try 'cosremaster ls -") and not empty
    assert message == "\x1b[1;31mError:\x1b[0m No such option --recursiv; did you mean --recursive?"


@pytest.mark.parametrize(("term", "start"), [("xterm", "\r\x1b[K"), ("dumb", "")])
def test_a_fleet_has_a_line_that_changes_where_a_terminal_can(
    term: str, start: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("cosremaster.cli.fleet.looking_progress", Quiet)
    lines = SiteLines(quiet=False)
    lines.begin(2, 0, has_common=False)
    lines.add(SiteRecord(site="north", path="north.iso", state="failed", error="it is full"))
    assert capsys.readouterr().err == f"2 to make; 0 current\n{start}[1/2] north: failed; 0:00 left" + (
        "\n" if term == "dumb" else ""
    )
    lines.end()
