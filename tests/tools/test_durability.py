"""What is left when the program is killed at a system call, or the power fails after exit code 0."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures.tools import leave_out, require, run

STRACE = ("strace", "-f", "-o")
LINKING, RENAMING = {"link", "linkat"}, {"rename", "renameat", "renameat2"}  # which of them, says Python's version
NAMING = [*sorted(LINKING | RENAMING), "unlink", "unlinkat", "fsync"]
WRITING = ["ftruncate", "copy_file_range"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    require("genisoimage")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(os.urandom(300_000))
    (tmp_path / "b").write_bytes(os.urandom(100_000))
    run(["genisoimage", "-quiet", "-R", "-o", tmp_path / "in.iso", tmp_path / "tree"])
    return tmp_path


def command(target: Path, *options: str) -> list[str]:
    words = ["--add-iso", f"{target.parent / 'b'}:/b", "--digest", "sha256", "--report", f"{target}.json", "--quiet"]
    return [sys.executable, "-m", "cosremaster", str(target.parent / "in.iso"), str(target), *words, *options]


def traced_counts(words: list[str], calls: list[str], log: Path) -> Counter[str]:
    """How often each of ``calls`` is made by the thread that makes it most often."""
    trace = "trace=" + ",".join(f"?{call}" for call in calls)  # some machines have not all of them
    done = subprocess.run([*STRACE, log, "-e", trace, *words], capture_output=True, check=False)
    if done.returncode:
        leave_out("Strace cannot trace here.")
    traced = [(match[1], match[2]) for match in re.finditer(r"^(\d+) +(\w+)\(", log.read_text(), re.M)]
    most: Counter[str] = Counter()
    for (_, name), count in Counter(traced).items():
        most[name] = max(most[name], count)
    return most


@pytest.mark.parametrize("force", [False, True])
def test_a_kill_at_any_system_call_leaves_no_false_pair(folder: Path, force: bool) -> None:
    require("strace", "sha256sum")
    target, digest, report = (folder / name for name in ("out", "out.sha256", "out.json"))
    options = ["--force"] if force else []
    run(command(target))
    new = target.read_bytes()
    shutil.copy(folder / "in.iso", folder / "old")
    old = (folder / "old").read_bytes()

    def reset() -> None:
        """Make the state before a run."""
        for path in (target, digest, report):
            path.unlink(missing_ok=True)
        if force:
            target.write_bytes(old)
            digest.write_bytes(run(["sha256sum", "out"], cwd=folder))
            report.write_text(json.dumps({"size": {"after": len(old)}}))

    reset()
    calls = [*NAMING, *(WRITING if force else [])]
    counts = traced_counts(command(target, *options), calls, folder / "log")
    for names in (RENAMING if force else LINKING, {"unlink", "unlinkat"}, {"fsync"}):
        assert names & counts.keys()
    kills = 0
    for name, count in counts.items():
        for number in range(1, count + 1):
            reset()
            inject = f"inject={name}:signal=KILL:when={number}"
            done = subprocess.run(
                [*STRACE, folder / "log", "-e", f"trace={name}", "-e", inject, *command(target, *options)],
                capture_output=True, check=False,
            )  # fmt: skip
            kills += done.returncode != 0
            what = f"{name} {number}: {done.returncode}"
            found = target.read_bytes() if target.exists() else None
            assert found in ((old, new) if force else (None, new)), what
            if done.returncode == 0:
                assert found == new, what
            if digest.exists():
                run(["sha256sum", "--status", "-c", "out.sha256"], cwd=folder)
            if report.exists():
                assert found is not None and json.loads(report.read_text())["size"]["after"] == len(found), what
            assert (folder / "in.iso").read_bytes() == old, what
    assert kills >= 5
    for path in (target, digest, report):
        path.unlink(missing_ok=True)
    run(command(target))
    assert not [name for name in os.listdir(folder) if name.endswith(".part")], "the next run removes what was left"


@contextmanager
def mounted(disk: Path, folder: Path) -> Iterator[Path]:
    """The file system in the file ``disk``, mounted on ``folder``."""
    folder.mkdir()
    if subprocess.run(["mount", "-o", "loop", disk, folder], capture_output=True, check=False).returncode:
        leave_out("No file system can be mounted here.")
    try:
        yield folder
    finally:
        run(["umount", folder])


@pytest.mark.parametrize("force", [False, True])
def test_what_ended_with_0_is_on_the_disk(folder: Path, force: bool) -> None:
    """A copy of the disk, taken at once, holds what a power cut would leave."""
    require("mount", "mkfs.ext4")
    if os.geteuid() != 0:
        leave_out("Only root mounts.")
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(24 << 20)
    run(["mkfs.ext4", "-q", "-F", disk])
    with mounted(disk, folder / "mnt") as mount:
        for name in ("in.iso", "b"):
            shutil.copy(folder / name, mount)
        if force:
            (mount / "out").write_bytes(b"old")
        run(["sync", "-f", mount])
        run(command(mount / "out", *(["--force"] if force else [])))
        shutil.copyfile(disk, folder / "cut")
        want = {name: (mount / name).read_bytes() for name in ("out", "out.sha256", "out.json")}
    with mounted(folder / "cut", folder / "after") as mount:
        assert {name: (mount / name).read_bytes() for name in want} == want
