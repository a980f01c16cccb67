"""The table of docs/exit-codes.md: what a run ends with when standard output or standard error takes nothing."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from shlex import quote

import pytest

import cosremaster
from cosremaster.demo.image import build_archive, regular
from cosremaster.io.descriptors import data_runs
from tests.fixtures.tools import leave_out, require, run

ENTRIES = [regular(b"init", b"#!/bin/sh\n", 0o755), *(regular(b"f%05d" % n, b"x") for n in range(12000))]
NAMES = "f\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{CJK UNIFIED IDEOGRAPH-6F22}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("genisoimage")
    folder = tmp_path_factory.mktemp("codes")
    (folder / "in.cpio").write_bytes(build_archive(ENTRIES))
    (folder / "names.cpio").write_bytes(build_archive([regular(name.encode(), b"x") for name in NAMES]))
    (folder / "tree").mkdir()
    (folder / "tree/a").write_text("a\n")
    run(["genisoimage", "-quiet", "-R", "-o", folder / "in.iso", folder / "tree"])
    return folder


def ended(folder: Path, words: str, redirection: str, **environment: str) -> tuple[int, str]:
    """The exit code of the program under a shell, and what it says on standard error."""
    command = f"exec {quote(sys.executable)} -m cosremaster {words} {redirection}"
    if redirection.startswith("|"):
        command = f"set -o pipefail; {quote(sys.executable)} -m cosremaster {words} 2>err.txt {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip
    said = (folder / "err.txt").read_text() if redirection.startswith("|") else done.stderr
    assert "Traceback" not in said and "Exception ignored" not in said, said
    return done.returncode, said


PRINTING = ["ls in.cpio", "cat in.cpio::init", "inspect in.iso", "plan in.iso", "verify in.iso",
            "extract in.iso - --as tar", "diff in.iso in.cpio --json", "find in.cpio '**'", "--help"]  # fmt: skip
WORKING = ["in.iso {out}", "in.iso {out} --quiet", "extract in.iso {out}", "inspect in.iso --html {out}"]


@pytest.mark.parametrize("words", PRINTING)
@pytest.mark.parametrize(
    ("redirection", "reason"), [("> /dev/full", "No space left on device"), (">&-", "it is closed")]
)
def test_what_cannot_be_printed_is_an_error_of_the_output(
    folder: Path, words: str, redirection: str, reason: str
) -> None:
    code, said = ended(folder, words, redirection)
    assert (code, said.splitlines()[-1]) == (8, f"cosremaster: standard output: cannot be written: {reason}")


@pytest.mark.parametrize("words", PRINTING)
def test_a_reader_that_is_gone_is_no_failed_check(folder: Path, words: str) -> None:
    assert ended(folder, words, "| sleep 0") in ((141, ""), (0, ""))  # 0: it was faster than the reader
    if words.startswith(("ls in", "find")):
        assert ended(folder, words, "| head -1") == (141, "")


@pytest.mark.parametrize("words", WORKING)
@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-", "| sleep 0", "2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_work_that_was_done_ends_with_0(folder: Path, tmp_path: Path, words: str, redirection: str) -> None:
    out = tmp_path / "out"
    code, said = ended(folder, words.format(out=out), redirection)
    assert code == 0 and out.exists()
    if redirection in ("> /dev/full", ">&-") and "--quiet" not in words:
        assert f"cosremaster: {out} is written" in said
    if words.startswith("in.iso"):
        assert out.read_bytes() == (folder / "in.iso").read_bytes()


def test_errors_keep_their_code_when_nothing_can_be_said(folder: Path) -> None:
    for redirection in ("2>&-", "2>/dev/full", ">&- 2>&-", "> /dev/full 2>&1"):
        assert ended(folder, "missing.iso out.iso", redirection)[0] == 3
    assert ended(folder, "in.iso", ">/dev/full")[0] == 2


def test_a_closed_standard_input_is_no_archive(folder: Path, tmp_path: Path) -> None:
    code, said = ended(folder, f"in.cpio {tmp_path / 'out'} --layer in.cpio --add -", "<&-")
    assert code == 7 and said.startswith("cosremaster: standard input: ")


@pytest.mark.parametrize(
    ("words", "encoding", "shown"),
    [
        ("ls names.cpio", "latin-1", b"f\xe9\n\\u6f22\n"),
        ("ls -l names.cpio", "ascii", b"\\u6f22\n"),
        ("tree names.cpio", "latin-1", b"\\u6f22\n"),
        ("diff in.cpio names.cpio", "latin-1", b"+ \\u6f22: file"),
        ("find names.cpio **", "latin-1", b"names.cpio::\\u6f22\n"),
        ("ls names.cpio", "utf-8", "\N{CJK UNIFIED IDEOGRAPH-6F22}\n".encode()),
    ],
)
def test_names_that_standard_output_lacks_are_escaped(folder: Path, words: str, encoding: str, shown: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cosremaster", *words.split()], cwd=folder, capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == (1 if words.startswith("diff") else 0) and shown in done.stdout and not done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_stays_json(folder: Path, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cosremaster", "ls", "--json", "names.cpio"], cwd=folder, stdout=subprocess.PIPE,
        check=True, env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert [node["path"] for node in json.loads(done.stdout.decode(encoding))["nodes"]] == list(NAMES)


def test_a_plain_locale_shows_names(folder: Path) -> None:
    path = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "cosremaster", "ls", "names.cpio"], cwd=folder, capture_output=True, check=False,
        env={**path, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"f\\xe9\n\\u6f22\n")


def test_a_system_that_knows_no_holes_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 18))
    seek = os.lseek

    def refusing(fd: int, offset: int, whence: int) -> int:
        """As lseek for a block device of Linux."""
        if whence == os.SEEK_HOLE:
            raise OSError(errno.EINVAL, "Invalid argument")
        return seek(fd, offset, whence)

    monkeypatch.setattr(os, "lseek", refusing)
    with (tmp_path / "a").open("r+b") as file:
        file.write(b"x")
        file.flush()
        assert list(data_runs(file.fileno(), 0, 1 << 18)) == [(0, 1 << 18, True)]


def test_a_block_device_is_an_image(folder: Path, tmp_path: Path) -> None:
    require("losetup")
    made = subprocess.run(
        ["losetup", "-f", "--show", "-r", folder / "in.iso"], capture_output=True, text=True, check=False
    )
    if made.returncode:
        leave_out("No loop device can be made here.")
    device = made.stdout.strip()
    try:
        (tmp_path / "b").write_text("b\n")
        for name, source in (("device", device), ("file", folder / "in.iso")):
            cosremaster.remaster(source, tmp_path / name, add_iso=[f"{tmp_path / 'b'}:/b"])
        assert (tmp_path / "device").read_bytes() == (tmp_path / "file").read_bytes()
        assert ended(folder, f"verify {device}", "")[0] == 0
    finally:
        run(["losetup", "-d", device])
