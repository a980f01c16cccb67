"""Images through pipes, and what people mistype."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.support.small import packed_root, root_without_devices, write_small


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path, packed_root(root_without_devices())).rename(tmp_path / "in.iso")
    (tmp_path / "site").write_text("7\n")
    return tmp_path


def piped(words: str, given: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The program with ``given`` through a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "cosremaster", *words.split()], input=given or b"", capture_output=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    return done


def test_an_image_goes_through_pipes(work: Path) -> None:
    data = Path("in.iso").read_bytes()
    assert main(["in.iso", "out.iso", "--add", "site:/etc/", "--quiet"]) == 0
    want = Path("out.iso").read_bytes()
    done = piped("- - --add site:/etc/", data)
    assert (done.returncode, done.stdout) == (0, want)
    assert b"-: " in done.stderr and b"proved:" in done.stderr, "the summary goes where it is no part of the image"
    done = piped("- two.iso --add site:/etc/ --quiet --expect sha256:" + hashlib.sha256(data).hexdigest(), data)
    assert (done.returncode, done.stderr, Path("two.iso").read_bytes()) == (0, b"", want)
    with Path("in.iso").open("rb") as file:
        words = [sys.executable, "-m", "cosremaster", "-", "in.iso", "--force"]
        refused = subprocess.run(words, stdin=file, capture_output=True, check=False)
    assert (refused.returncode, refused.stderr) == (
        8, b"cosremaster: in.iso: is the input itself, which is never changed\n",
    )  # fmt: skip
    assert sorted(os.listdir()) == ["in.iso", "out.iso", "site", "two.iso"]


@pytest.mark.parametrize(
    "words", ["ls", "ls -l", "tree", "verify", "inspect", "inspect --json", "stat", "find {} **/init"]
)
def test_what_looks_at_an_image_reads_standard_input(work: Path, words: str) -> None:
    data = Path("in.iso").read_bytes()
    address = words if "{}" in words else words + " {}"
    file, pipe = piped(address.format("in.iso")), piped(address.format("-"), data)
    assert pipe.returncode == file.returncode == 0
    assert pipe.stdout == file.stdout.replace(b"in.iso", b"-")


def test_addresses_begin_with_standard_input_too(work: Path) -> None:
    data = Path("in.iso").read_bytes()
    with cosremaster.open("in.iso") as image:
        layer = image.layers()[-1].address
    names = piped(f"ls -::{layer}", data)
    assert (names.returncode, names.stdout) == (0, piped(f"ls in.iso::{layer}").stdout)
    assert piped("diff - in.iso", data).returncode == 0
    assert piped(f"cat -::{layer}::missing", data).returncode == 6


def test_what_cannot_be_is_said(work: Path) -> None:
    tar = io.BytesIO()
    tarfile.open(fileobj=tar, mode="w").close()
    for words, code, said in (
        ("in.iso - --digest md5", 2, b"--digest md5: an image on standard output has no name for it"),
        ("- out.iso --add -", 2, b"- can be the image or what is added, not both: standard input is read once"),
        ("- out.iso", 3, b"-: is no ISO 9660 image"),
    ):
        done = piped(words, tar.getvalue())
        assert (done.returncode, done.stderr.startswith(b"cosremaster: " + said), done.stdout) == (code, True, b"")
    done = piped("- out.iso", b"x", TMPDIR="/proc")
    assert done.returncode in (3, 8)
    assert not Path("out.iso").exists()


def test_a_file_of_that_name_is_a_file(work: Path) -> None:
    assert main(["in.iso", "./-", "--quiet"]) == 0
    assert Path("./-").read_bytes() == Path("in.iso").read_bytes()
    assert main(["verify", "./-"]) == 0


def test_a_recipe_writes_to_standard_output(work: Path) -> None:
    Path("r.toml").write_text('input = "in.iso"\n[[add]]\nsource = "site"\ndest = "/etc/"\n')
    assert main(["build", "r.toml", "--output", "out.iso", "--quiet"]) == 0
    done = piped("build r.toml --output - --quiet")
    assert (done.returncode, done.stdout) == (0, Path("out.iso").read_bytes())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("in.iso out.iso --add site:etc/x", "--add site:etc/x: DEST begins with /, as in site:/etc/x"),
        ("in.iso out.iso --add-iso site:x", "--add-iso site:x: DEST begins with /, as in site:/x"),
        ("in.iso out.iso --add-file site:x", "--add site:x: DEST begins with /, as in site:/x"),
        ("inspct in.iso", "inspct is neither a command nor a file; did you mean inspect?"),
        ("Verify in.iso", "Verify is neither a command nor a file; did you mean verify?"),
        ("lst in.iso", "lst is neither a command nor a file; did you mean ls?"),
        ("--force verfy in.iso", "verfy is neither a command nor a file; did you mean verify?"),
        ("--force ls in.iso", "ls is a command, whose options stand behind its name: cosremaster ls ..."),
        ("biuld", "biuld is neither a command nor a file; did you mean build?"),
    ],
)
def test_what_is_mistyped_is_told(work: Path, words: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert capfd.readouterr().err == f"cosremaster: {said}\n"


def test_names_with_a_colon_and_files_like_commands_are_meant(work: Path) -> None:
    Path("a:b").write_text("x")
    assert main(["in.iso", "out.iso", "--add", "a:b:/etc/", "--quiet"]) == 0
    Path("in.iso").rename("inspct")
    assert main(["inspct", "two.iso", "--quiet"]) == 0
    assert main(["missing", "three.iso"]) == 3


def test_what_is_done_names_the_format_that_packs(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A squashfs is no stream under a codec, but compresses its own blocks."""
    Path("root").mkdir()
    Path("root/file").write_text("x")
    assert main(["pack", "root", "root.squashfs", "--compression", "gzip", "--quiet"]) == 0
    assert main(["root.squashfs", "new.squashfs", "--add", "site:/etc/", "-v"]) == 0
    assert re.search(r"^root.squashfs: squashfs, \d+ bytes packed as before, ", capfd.readouterr().err, re.MULTILINE)


def test_a_run_without_a_wish_says_so(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["in.iso", "out.iso"]) == 0
    assert "out.iso is a copy of in.iso: no change was asked for\n" in capfd.readouterr().err
    assert main(["in.iso", "two.iso", "--add", "site:/etc/"]) == 0
    assert "is a copy" not in capfd.readouterr().err


@pytest.mark.parametrize("way", ["plan", "build"])
def test_a_plan_writes_the_report(work: Path, way: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("r.toml").write_text('input = "in.iso"\n[[add]]\nsource = "site"\ndest = "/etc/site"\n')
    words = ["plan", "in.iso", "--add", "site:/etc/site"] if way == "plan" else ["build", "r.toml", "--plan"]
    assert main([*words, "--report", "plan.json"]) == 0
    assert main(["in.iso", "out.iso", "--add", "site:/etc/site", "--report", "done.json", "--quiet"]) == 0
    assert Path("plan.json").read_bytes() == Path("done.json").read_bytes()
    assert [path["path"] for path in json.loads(Path("plan.json").read_text())["paths"]] == ["etc/site"]
    assert main([*words, "--report", "plan.json"]) == 8
    assert main([*words, "--report", "plan.json", "--force"]) == 0
    assert main([*words, "--report", "in.iso", "--force"]) == 8
    assert main([*words, "--report", "site", "--force"]) == 8 and Path("site").read_text() == "7\n"
