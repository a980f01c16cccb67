"""What a plan packed goes into the output of the run: others read it, and it has the bytes of a run without."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cosremaster.io.zstd_frames import has_zstd
from tests.fixtures import tools
from tests.fixtures.tools import leave_out, run
from tests.support.archives_of_trees import write_tree

EPOCH = 1_700_000_000
LINES = b"".join(b"%x line %d of text that shrinks\n" % (number * number, number) for number in range(25_000))


def _command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command with a cache of its own, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cosremaster", *map(str, arguments)], check=False, capture_output=True, text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}, cwd=folder,
    )  # fmt: skip


def _taken(completed: subprocess.CompletedProcess[str]) -> int:
    """How many bytes were taken from an earlier plan, by the JSON of a run."""
    assert completed.returncode == 0, completed.stderr
    taken: int = json.loads(completed.stdout)["earlier_plan"]["taken"]
    return taken


def _make_root(folder: Path) -> Path:
    root = write_tree(folder / "root", {"etc/hostname": "old\n", "sbin/init": "#!/bin/sh\n"})
    (root / "usr").mkdir()
    (root / "usr/text").write_bytes(LINES[:300_000])
    for path in [root, *root.rglob("*")]:
        os.utime(path, (EPOCH, EPOCH))
    return root


def _write_tar(folder: Path, packer: list[str]) -> bytes:
    with tarfile.open(folder / "root.tar", "w") as archive:
        archive.add(_make_root(folder), ".")
    return run(packer, stdin=(folder / "root.tar").read_bytes())


def _write_squashfs(folder: Path, *options: str) -> bytes:
    tools.require("mksquashfs", "unsquashfs")
    run(["mksquashfs", _make_root(folder), folder / "root.sqfs", "-noappend", "-quiet", *options])
    return (folder / "root.sqfs").read_bytes()


def _judge_stream(*tester: str) -> Callable[[Path, Path], None]:
    def judge(image: Path, folder: Path) -> None:
        tools.require(tester[0])
        run([*tester, image])
        with (folder / "out.tar").open("wb") as out:
            subprocess.run([tester[0], "-dc", image], check=True, stdout=out)
        with tarfile.open(folder / "out.tar") as archive:
            member = archive.extractfile("./opt/text" if "./opt/text" in archive.getnames() else "opt/text")
            assert member is not None and member.read() == LINES

    return judge


def _judge_squashfs(image: Path, folder: Path) -> None:
    run(["unsquashfs", "-no-progress", "-d", folder / "unpacked", image])
    assert (folder / "unpacked/opt/text").read_bytes() == LINES
    assert (folder / "unpacked/usr/text").read_bytes() == LINES[:300_000]


CASES: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path, Path], None]]] = {
    "gzip": ("in.tar.gz", lambda folder: _write_tar(folder, ["gzip", "-n"]), _judge_stream("gzip", "-t")),
    "xz": ("in.tar.xz", lambda folder: _write_tar(folder, ["xz"]), _judge_stream("xz", "-t")),
    "zstd": ("in.tar.zst", lambda folder: _write_tar(folder, ["zstd", "-19", "-q"]), _judge_stream("zstd", "-qt")),
    "squashfs gzip": ("in.squashfs", lambda folder: _write_squashfs(folder, "-comp", "gzip"), _judge_squashfs),
    "squashfs xz": ("in.squashfs", lambda folder: _write_squashfs(folder, "-comp", "xz"), _judge_squashfs),
    "squashfs zstd": ("in.squashfs", lambda folder: _write_squashfs(folder, "-comp", "zstd"), _judge_squashfs),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Callable[[Path, Path], None]]:
    """A folder with additions, an image in it, and who judges the result."""
    name, make, judge = CASES[request.param]
    if "zstd" in request.param and not has_zstd():
        leave_out("This test needs Python's module for zstd, or its backport.")
    tools.require(*(["gzip", "xz", "zstd"] if name.startswith("in.tar") else []))
    image = tmp_path / name
    image.write_bytes(make(tmp_path))
    (tmp_path / "big/opt").mkdir(parents=True)
    (tmp_path / "big/opt/text").write_bytes(LINES)
    return tmp_path, image, judge


def test_others_read_what_was_taken(case: tuple[Path, Path, Callable[[Path, Path], None]]) -> None:
    folder, image, judge = case
    cold, warm = folder / f"cold-{image.name}", folder / f"warm-{image.name}"
    assert _taken(_command(folder, image, cold, "--add", "big", "--json")) == 0
    plan = _command(folder, "plan", image, "--add", "big", "--json")
    kept = json.loads(plan.stdout)["earlier_plan"]["kept"]
    assert kept > 20_000
    assert _taken(_command(folder, image, warm, "--add", "big", "--json")) > len(LINES) * 3 // 4
    assert warm.read_bytes() == cold.read_bytes()
    judge(warm, folder)


@contextmanager
def _killed(folder: Path, *arguments: object) -> Iterator[None]:
    """Run the command, and kill it when it has begun to keep what it packs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cosremaster", *map(str, arguments)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}, cwd=folder,
    )  # fmt: skip
    index = folder / "cache/cosremaster/index"
    while process.poll() is None and not list(index.glob(".*.part")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    yield


def _many(folder: Path) -> list[object]:
    """Additions that take seconds to be packed, and what plans them."""
    chance, words = random.Random(1), LINES.split()
    (folder / "many").mkdir()
    for number in range(3):
        (folder / f"many/{number}").write_bytes(b" ".join(chance.choices(words, k=400_000)))
    (folder / "in.tar.gz").write_bytes(gzip.compress((folder / "root.tar").read_bytes()))
    return [folder / "in.tar.gz", "--add", "many"]


def test_a_killed_plan_leaves_nothing_that_counts(tmp_path: Path) -> None:
    tools.require("gzip")
    _write_tar(tmp_path, ["gzip", "-n"])
    image, *options = _many(tmp_path)
    assert _taken(_command(tmp_path, image, "cold.tar.gz", *options, "--json")) == 0
    with _killed(tmp_path, "plan", image, *options):
        assert _taken(_command(tmp_path, image, "warm.tar.gz", *options, "--json")) == 0
    assert (tmp_path / "warm.tar.gz").read_bytes() == (tmp_path / "cold.tar.gz").read_bytes()
    assert json.loads(_command(tmp_path, "plan", image, *options, "--json").stdout)["earlier_plan"]["kept"]
    left = [path.name for path in (tmp_path / "cache/cosremaster/index").iterdir()]
    assert not [name for name in left if name.endswith(".part")], "the next writer removes what nobody has locked"


def test_two_processes_plan_and_run_at_once(tmp_path: Path) -> None:
    tools.require("gzip")
    _write_tar(tmp_path, ["gzip", "-n"])
    image, *options = _many(tmp_path)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    starts: list[list[object]] = [["plan", image], [image, "a.tar.gz"], ["plan", image], [image, "b.tar.gz"]]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "cosremaster", *map(str, [*start, *options])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=tmp_path,
        )
        for start in starts
    ]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert _taken(_command(tmp_path, image, "c.tar.gz", *options, "--json"))
    run(["gzip", "-t", tmp_path / "c.tar.gz"])
    assert len({(tmp_path / f"{name}.tar.gz").read_bytes() for name in "abc"}) == 1


def test_a_recipe_is_planned_and_built(tmp_path: Path) -> None:
    tools.require("gzip", "xz")
    (tmp_path / "in.tar.xz").write_bytes(_write_tar(tmp_path, ["xz"]))
    (tmp_path / "big/opt").mkdir(parents=True)
    (tmp_path / "big/opt/text").write_bytes(LINES)
    recipe = 'input = "in.tar.xz"\noutput = "out.tar.xz"\n\n[[add]]\nsource = "big"\n'
    (tmp_path / "site.toml").write_text(recipe)
    assert "kept for the run: " in _command(tmp_path, "build", "site.toml", "--plan").stdout
    assert _taken(_command(tmp_path, "build", "site.toml", "--json")) > len(LINES) * 3 // 4
    run(["xz", "-t", tmp_path / "out.tar.xz"])
