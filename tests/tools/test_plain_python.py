"""Everything works as pure Python, where nothing compiled can be installed, and gives the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.small import write_overlay, write_small

COMPILED = (
    "fastcrc", "msgspec", "zstandard", "backports", "compression.zstd", "pydantic", "pydantic_core", "isal", "lz4",
    "lzallright", "lzokay", "httptools", "uvloop",
)  # fmt: skip
"""What has wheels for some machines alone."""

PLAIN = f"import sys; sys.modules.update(dict.fromkeys({COMPILED!r})); "
RUN = "from cosremaster.cli import main; import sys; sys.exit(main(sys.argv[1:]))"


def _run(folder: Path, *words: str, plain: bool) -> subprocess.CompletedProcess[bytes]:
    """Run the command in ``folder``; ``plain``: without anything compiled."""
    program = (PLAIN if plain else "") + RUN
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", program, *words], cwd=folder, capture_output=True, env=environment, check=False
    )


@pytest.mark.parametrize("first", [True, False], ids=["plain-first", "fast-first"])
def test_a_remaster_is_the_same(tmp_path: Path, first: bool) -> None:
    """The second run reads the index that the first remembers."""
    write_small(tmp_path)
    write_overlay(tmp_path)
    for plain, name in ((first, "1.iso"), (not first, "2.iso")):
        done = _run(tmp_path, "in.iso", name, "--add", "overlay", "--quiet", plain=plain)
        assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "1.iso").read_bytes() == (tmp_path / "2.iso").read_bytes()
    assert len(list((tmp_path / "cache" / "cosremaster").rglob("*.index*"))) <= 1


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "-lR", "in.iso"],
        ["ls", "-R", "in.iso::debirf-live-demo.cgz::rootfs.cxz"],
        ["inspect", "--json", "in.iso"],
        ["verify", "in.iso"],
        ["cat", "in.iso::vmlinuz"],
        ["plan", "in.iso", "--add", "overlay"],
    ],
    ids=lambda words: words[0] + str(len(words)),
)
def test_commands_say_the_same(tmp_path: Path, words: list[str]) -> None:
    write_small(tmp_path)
    write_overlay(tmp_path)
    fast, plain = (_run(tmp_path, *words, plain=plain) for plain in (False, True))
    assert (plain.returncode, _lines_but_times(plain)) == (fast.returncode, _lines_but_times(fast))
    assert _lines_but_times(fast)


def _lines_but_times(done: subprocess.CompletedProcess[bytes]) -> list[bytes]:
    """What was printed, without the time that ``plan`` measured, and without what it kept for a run, or took of one."""
    ends = (b"an earlier plan had done so",)
    starts = (b"time for the run: ", b"kept for the run: ")
    return [line for line in done.stdout.splitlines() if not (line.startswith(starts) or line.endswith(ends))]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["build", "site.toml"],
            b"recipes and fleets are read with pydantic, which is not installed here (pip install pydantic)",
        ),
        (["ls", "x.zst"], b"zstd is read and written by Python 3.14 and newer, or by its backport"),
    ],
    ids=["recipe", "zstd"],
)
def test_what_needs_more_says_so(tmp_path: Path, words: list[str], sentence: bytes) -> None:
    (tmp_path / "site.toml").write_text('input = "in.iso"\noutput = "out.iso"\n')
    (tmp_path / "x.zst").write_bytes(bytes.fromhex("28b52ffd2401000061"))
    done = _run(tmp_path, *words, plain=True)
    assert sentence in done.stderr
    assert done.returncode == 5
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["build", "fleet", "serve"])
def test_help_needs_nothing_compiled(tmp_path: Path, command: str) -> None:
    fast, plain = (_run(tmp_path, command, "-h", plain=plain) for plain in (False, True))
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, fast.stdout, b"")


def test_man_pages_need_nothing_compiled(tmp_path: Path) -> None:
    """A wheel that is built where pydantic has none holds them all the same."""
    for plain, name in ((False, "fast"), (True, "plain")):
        assert _run(tmp_path, "man", name, plain=plain).returncode == 0
    pages = {path.name: path.read_bytes() for path in (tmp_path / "fast").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()} == pages


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("click", ["in.iso", "out.iso", "--add", "overlay"]),
        ("pycdlib", ["in.iso", "out.iso", "--add", "overlay"]),
        ("pycdlib", ["verify", "in.iso"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_package_that_is_missing_is_named(tmp_path: Path, package: str, words: list[str]) -> None:
    """``pip install --no-deps`` may leave out what has to be there."""
    write_small(tmp_path)
    write_overlay(tmp_path)
    program = f"import sys; sys.modules[{package!r}] = None; {RUN}"
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, check=False)
    sentence = f"cosremaster: {package} is needed for this, and not installed here (pip install {package})"
    assert (done.returncode, done.stderr.decode().splitlines()[-1:]) == (5, [sentence])
    assert not (tmp_path / "out.iso").exists()
