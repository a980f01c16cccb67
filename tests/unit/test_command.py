"""The command as a group of click: one table of commands, options that all take, messages of the library."""

from __future__ import annotations

import importlib
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.cli.catalog import COMMANDS, SECTIONS
from cosremaster.cli.group import PROGRAM
from cosremaster.cli.help import EXAMPLES
from cosremaster.cli.plain import FLAGS, run_plainly
from cosremaster.lazy_log import LazyLogger
from cosremaster.suggestions import PATH_CUTOFF, find_similar, format_suggestion
from tests.support.small import write_small


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the path of a small image in the current folder."""
    monkeypatch.chdir(tmp_path)
    return str(write_small(tmp_path).relative_to(tmp_path))


def help_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the program prints for ``words``, a request for help."""
    assert main([*words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_names_every_command_in_its_section(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(flag, capsys=capsys)
    assert text.startswith("Usage: cosremaster IN OUT [OPTIONS]\n   or: cosremaster COMMAND [OPTIONS] ...\n")
    position = 0
    for title, entries in SECTIONS:
        position = text.index(f"\n{title}:\n", position)
        for name in entries:
            position = text.index(f"\n  {name} ", position)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_and_the_common_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(name, "-h", capsys=capsys)
    assert text.startswith(f"Usage: cosremaster {name} ")
    for option in ("-q, --quiet", "-v, --verbose"):
        assert text.count(f"  {option} ") == 1


def test_the_word_for_the_first_command_may_be_left_out(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([image, "a.iso", "-q"]) == 0
    assert main(["remaster", image, "b.iso", "--quiet"]) == 0
    assert main(["-q", image, "c.iso"]) == 0
    assert main(["--allow-missing", "-q", "--remove", "nothing", image, "d.iso"]) == 0
    assert capsys.readouterr() == ("", "")
    assert Path("a.iso").read_bytes() == Path("b.iso").read_bytes() == Path("c.iso").read_bytes()


def test_without_words_the_help_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Usage: cosremaster IN OUT")


@pytest.mark.parametrize("words", [["-V"], ["--version"], ["-q", "-V"]])
def test_the_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("cosremaster ")


def test_a_command_loads_no_other(image: str) -> None:
    """Start-up: ``ls`` and ``cat`` load neither click nor rich nor logging, other commands only their own module."""
    program = (
        "import sys\nfrom cosremaster.cli import main\nmain({words})\n"
        "print(*sorted(name for name in sys.modules if name.startswith('cosremaster.cli.')"
        " or name in ('click', 'rich', 'logging')), file=sys.stderr)"
    )
    loaded = {}
    for words in (["ls", image], ["ls", "-lR", image], ["ls", image, "--json"], ["stat", image], ["inspect", image],
                  ["cache", "path"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", program.format(words=words)], capture_output=True, text=True, check=True
        )
        loaded[" ".join(words[:2])] = set(done.stderr.split())
    quick = {"cosremaster.cli.listing", "cosremaster.cli.plain"}
    for shown in (f"ls {image}", "ls -lR"):
        assert quick <= loaded[shown] and not loaded[shown] & {"click", "rich", "logging", "cosremaster.cli.group"}
    modules = {f"cosremaster.cli.{module}" for module, _, _ in COMMANDS.values()}
    assert loaded[f"stat {image}"] & modules == {"cosremaster.cli.look"}
    assert loaded["cache path"] & modules == {"cosremaster.cli.cache"}
    assert not loaded[f"inspect {image}"] & {"click", "rich"}
    assert not (loaded[f"stat {image}"] | loaded["cache path"]) & {"rich", "logging"}


def test_the_garbage_collector_runs_only_where_there_is_work(image: str) -> None:
    """Commands that look, and the end of every run, have nothing to collect; what works long has."""
    program = (
        "import gc, sys\nsys.argv[1:] = {words}\nfrom cosremaster.cli import main\nmain()\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 1000, file=sys.stderr)"
    )
    for words, works in ((["ls", image], False), (["stat", image], True)):
        done = subprocess.run(
            [sys.executable, "-c", program.format(words=words)], capture_output=True, text=True, check=True
        )
        assert done.stderr == f"{works} True True\n"


@pytest.mark.parametrize("name", list(FLAGS))
def test_flags_without_click_are_those_of_the_command(name: str) -> None:
    module, function, _ = COMMANDS[name]
    command = getattr(importlib.import_module(f"cosremaster.cli.{module}"), function)
    own = {(tuple(option.opts), option.name): option.help for option in command.params if len(option.opts) and
           isinstance(option, click.Option)}  # fmt: skip
    for names, field, text in FLAGS[name]:
        assert own[names, field] == text
    assert not run_plainly(name, ["x", "--nothing"])
    assert not run_plainly(name, ["x", "-lx"])
    assert not run_plainly(name, ["x", "y"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("in.iso out.iso --kernel-ar x", "No such option --kernel-ar; did you mean --kernel-arg?"),
        ("ls in.iso --recursiv", "No such option --recursiv; did you mean --recursive?"),
        ("ls in.iso --zzzzz", "No such option --zzzzz."),
        ("--verbos ls in.iso", "No such option --verbos; did you mean --verbose?"),
        ("ls -q -v in.iso", "-q and -v exclude each other."),
        ("-v extract in.iso out --quiet", "-q and -v exclude each other."),
    ],
)
def test_mistyped_options(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"Error: {said}"


@pytest.mark.parametrize("before", [True, False])
def test_messages_say_what_is_done(before: bool, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-v", "stat", image] if before else ["stat", image, "-v"]
    assert main(words) == 0
    _, err = capsys.readouterr()
    assert f"opened {image}: {Path(image).stat().st_size} bytes\n" in err
    assert f"{image} is read as ISO 9660\n" in err
    assert main(["stat", image]) == 0
    assert capsys.readouterr().err == ""
    logger = logging.getLogger("cosremaster")
    assert logger.level == logging.NOTSET
    assert [type(handler).__name__ for handler in logger.handlers] in ([], ["_WarningPrinter"])


def test_more_messages_have_their_time(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x").write_text("7\n")
    assert main([image, "out.iso", "--add", "x:/etc/x", "-v"]) == 0
    err = capsys.readouterr().err
    assert "no index that fits is remembered" in err and "compressed anew" in err
    assert " ms cosremaster." not in err
    assert main([image, "two.iso", "--add", "x:/etc/x", "-vv"]) == 0
    err = capsys.readouterr().err
    assert " ms cosremaster.remastering.layer_index: " in err and "the remembered index is used" in err
    assert " threads" in err


def test_the_library_logs_by_the_standard_module(image: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cosremaster"):
        cosremaster.ls(image)
    assert {record.name for record in caplog.records} >= {"cosremaster.io.source", "cosremaster.browse.container"}
    assert all(record.filename != "lazy_log.py" and record.args for record in caplog.records)


def test_nobody_who_listens_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "logging")
    LazyLogger("cosremaster.x").info("%d", "no number")
    LazyLogger("cosremaster.x").debug("%d", "no number")


def test_the_group_is_one_of_click() -> None:
    context = click.Context(PROGRAM, info_name="cosremaster")
    assert isinstance(PROGRAM, click.Group)
    assert PROGRAM.list_commands(context) == list(COMMANDS)
    assert PROGRAM.get_command(context, "nothing") is None


@pytest.mark.parametrize(
    ("wanted", "meant"), [("HOSTNAME", ["hostname"]), ("hostnam", ["hostname"]), ("motd", []), ("issu", ["issue"])]
)
def test_what_is_like_a_name(wanted: str, meant: list[str]) -> None:
    assert find_similar(wanted, ["issue", "hostname"], cutoff=PATH_CUTOFF) == meant


def test_a_suggestion_ends_a_sentence() -> None:
    assert format_suggestion([]) == ""
    assert format_suggestion(["a"]) == "; did you mean a?"
    assert format_suggestion(["a", "b"]) == "; did you mean a or b?"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_two_examples_that_can_be_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES[name]) == 2
    text = help_of(name, "--help", capsys=capsys)
    position = text.index("\nExamples:\n")
    for line, _ in EXAMPLES[name]:
        position = text.index(f"\n  {line}\n", position)
        program, *words = shlex.split(line)
        assert program == "cosremaster" and len(f"  {line}") <= 79
        command = words.pop(0) if words[0] in COMMANDS else "remaster"
        with click.Context(PROGRAM, info_name="cosremaster") as group:
            loaded = PROGRAM.get_command(group, command)
            assert loaded is not None
            loaded.make_context(command, words, parent=group)  # parses them, or raises


def test_many_options_stand_in_sections(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("remaster", "--help", capsys=capsys)
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and line[:1].isupper()]
    assert titles[:4] == ["Examples", "What is added", "Scripts", "What is removed"]
    assert titles[-1] == "For every command"
    listed = [line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")]
    assert len(listed) == len(set(listed)) > 40


@pytest.mark.parametrize(("word", "flag"), [("help", "--help"), ("version", "--version")])
def test_a_flag_that_other_programs_have_as_a_command_is_named(
    word: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == main([word, "ls"]) == 2
    assert f"{word} is neither a command nor a file; did you mean {flag}?" in capsys.readouterr().err


def test_a_missing_choice_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("It is one of list, clear, path.")
