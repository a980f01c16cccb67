"""What would count for nothing is refused: options without what they are about, values that are lost, odd paths."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosremaster.cli import main
from tests.support.small import write_small
from tests.support.user import REPOSITORY

RECIPE = 'input = "in.iso"\noutput = "out.iso"\n[variables]\nSITE = "a"\n'


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which has a small image, a recipe and a folder to add."""
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path)
    Path("site.toml").write_text(RECIPE)
    Path("site/etc").mkdir(parents=True)
    Path("site/etc/motd").write_text("site\n")
    return tmp_path


def refused(words: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Return the last line of the error by which ``words`` are refused; nothing is made."""
    before = sorted(Path().rglob("*"))
    assert main(words.split()) == code
    out, err = capsys.readouterr()
    assert not out and sorted(Path().rglob("*")) == before
    return err.splitlines()[-1]


@pytest.mark.parametrize("end", ["new/", "new/.", "new//"])
@pytest.mark.parametrize(
    "words",
    [
        "in.iso {}",
        "in.iso out.iso --report {}",
        "plan in.iso --report {}",
        "build site.toml --output {}",
        "prepare in.iso {}",
        "inspect in.iso --html {}",
        "export in.iso --maas site --output {}",
    ],
)
def test_a_file_that_is_made_has_no_slash_at_its_end(words: str, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the folder's name was made."""
    assert "it ends in a slash, and has to name a file" in refused(words.format(end), capsys)


def test_folders_may_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "in.iso::boot", "new/", "-q"]) == main(["man", "pages/"]) == 0
    assert Path("new/grub").is_dir() and Path("pages/cosremaster.1").is_file()


@pytest.mark.parametrize(
    "words",
    ["in.iso out.iso --report -", "inspect in.iso --html -", "export in.iso --maas site --output -"],
)
def test_a_file_beside_the_output_is_no_stream(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file called - was made."""
    assert "one of that name is ./-" in refused(words, capsys)


@pytest.mark.parametrize("command", ["", "plan "])
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--owner 1000:1000", "--owner"),
        ("--mode 0600", "--mode"),
        ("--keep-modes", "--keep-modes"),
        ("--no-setuid", "--setuid"),
        ("--xattrs default", "--xattrs"),
    ],
)
def test_options_about_what_is_added_need_something(
    command: str, option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were accepted with --add-iso alone, whose files did not get them."""
    target = "" if command else " out.iso"
    for other in ("", "--remove /etc/motd", "--add-iso site:/data/", "--run true"):
        line = refused(f"{command}in.iso{target} {option} {other}", capsys)
        assert f"{said} is about what --add and --add-file bring, and there is neither" in line
    assert main([*f"{command}in.iso{target} --add site".split(), *option.split()]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("in.iso out.iso --add site --setuid --no-setuid", "--setuid and --no-setuid exclude each other"),
        ("in.iso out.iso --run true --run-env A=1 --run-env A=2", "--run-env sets A twice"),
        ("build site.toml --set SITE=b --set SITE=c", "--set SITE: it is set twice"),
        ("fleet site.toml --set SITE=b --set SITE=c", "--set SITE: it is set twice"),
        ("fleet site.toml --jobs 2 --scheduler tcp://127.0.0.1:9", "--jobs is about processes of this machine"),
        ("in.iso out.iso --add - --add -:/opt", "- is added twice, and standard input is read once"),
        ("in.iso out.iso --add - --add-iso -:/opt", "- is added twice, and standard input is read once"),
        ("pack - - out.tar", "- is added twice, and standard input is read once"),
        ("shell in.iso out.iso --add -", "standard input is read once, and is for something else"),
        ("pack site out.tar.gz --xz-preset 9", "--xz-preset is for an archive under xz, and the end of out.tar.gz"),
        ("pack site out.squashfs --compression xz --xz-preset 9", "--xz-preset is for an archive under xz"),
        ("pack site out.tar.zst --always-compress", "--always-compress is for an archive under xz"),
        ("pack site out.cpio --gzip isal", "--gzip is for an archive under gzip"),
        ("in.iso out.iso --align 1x", "--align '1x': bytes, or a number with K or M"),
    ],
)
def test_a_value_that_would_be_lost_is_told(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(words, capsys)


def test_a_boot_entry_without_a_name_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """The default entry was taken, as a variable of the shell that is not set would have it."""
    assert main(["export", "in.iso", "--pxe", "tftp", "--entry", ""]) == 2
    assert "--entry is empty, and names no boot entry" in capsys.readouterr().err
    assert not Path("tftp").exists()


def test_an_image_from_standard_input_leaves_nothing_to_add() -> None:
    command = [sys.executable, "-m", "cosremaster", "plan", "-", "--add", "-"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    image = Path("in.iso").read_bytes()
    done = subprocess.run(command, input=image, capture_output=True, check=False, env=environment)
    assert done.returncode == 2
    assert b"- can be the image or what is added, not both" in done.stderr


def test_export_says_what_it_leaves_out_when_it_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Its result is the command that hands the archive over; help said that nothing would be printed."""
    assert main(["export", "in.iso", "--maas", "site", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "boot-resources create" in out and not err
    assert main(["export", "-h"]) == 0
    assert "Print nothing but results, warnings and errors." in " ".join(capsys.readouterr().out.split())


def test_superseded_entries_that_stay_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """--supersede never did nothing, without a word, where only the ISO's own tree changed."""
    said = "no layer changes, so the entries that are superseded in one stay"
    words = "in.iso {} --add-iso site:/data --force --supersede never"
    assert main(words.format("out.iso").split()) == 0
    assert said in capsys.readouterr().err
    assert main([*words.format("out.iso").split(), "--add", "site"]) == 0
    assert main([*words.format("out.iso").split(), "--layer", "debirf-live-demo.cgz::rootfs.cxz"]) == 0
    assert main(["in.iso", "out.iso", "--force", "--supersede", "never"]) == 0
    assert main(["in.iso", "out.iso", "--add-iso", "site:/data", "--force"]) == 0
    assert said not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("new/", "output: ends in a slash, and has to name a file"),
        ("new/.", "output: ends in a slash, and has to name a file"),
        ("a\\u0000b.iso", "output: has a zero byte, which no path can have"),
    ],
)
def test_a_recipe_names_a_file(output: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A zero byte was a fault of ours."""
    Path("site.toml").write_text(RECIPE.replace("out.iso", output))
    assert said in refused("build site.toml", capsys)


@pytest.mark.parametrize("end", ["/", "/."])
def test_a_rename_into_a_directory_that_is_not_there(end: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["in.iso", "out.iso", "--quiet", "--rename-iso", f"/vmlinuz:/kernels{end}"]) == 0
    capsysbinary.readouterr()
    assert main(["cat", "out.iso::kernels/vmlinuz"]) == 0
    assert capsysbinary.readouterr().out[:2] == b"MZ"
