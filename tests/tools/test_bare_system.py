"""On a system without the calls that only Linux has, every command gives the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ORDINARY, BARE = "cosremaster", "tests.support.bare_system"
STEPS = (
    ("demo", "--keep", "demo"),
    ("demo/in.iso", "site.iso", "--add", "site", "--quiet"),
    (
        "demo/in.iso",
        "remembered.iso",
        "--add",
        "site",
        "--remove",
        "/usr/share/words",
        "--add-iso",
        "holes:/data/",
        "--quiet",
    ),
    ("verify", "remembered.iso"),
    ("ls", "-lR", "remembered.iso"),
    ("cat", "site.iso::debirf-live-demo.cgz::rootfs.cxz::etc/hostname"),
    ("extract", "site.iso::debirf-live-demo.cgz::rootfs.cxz::etc", "etc"),
    ("pack", "site", "root.squashfs"),
    ("root.squashfs", "edited.squashfs", "--add", "holes:/srv/", "--quiet"),
    ("pack", "site", "root.tar.xz"),
    ("root.tar.xz", "edited.tar.gz", "--add", "holes:/srv/", "--quiet"),
    ("diff", "demo/in.iso", "site.iso"),
    ("prepare", "demo/in.iso", "base.iso"),
)


def _run_steps(module: str, folder: Path) -> list[tuple[int, bytes]]:
    """Run all steps in ``folder`` and return the exit code and the standard output of each."""
    folder.mkdir()
    (folder / "site/etc").mkdir(parents=True)
    (folder / "site/etc/hostname").write_bytes(b"headend\n")
    with open(folder / "holes", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    for path in (folder / "holes", folder / "site/etc/hostname", folder / "site/etc", folder / "site"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "SOURCE_DATE_EPOCH": "1",
    }
    done = []
    for arguments in STEPS:
        command = [sys.executable, "-m", module, *arguments]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        assert ran.returncode in {0, 1}, (arguments, ran.stderr)
        done.append((ran.returncode, b"" if arguments[0] in {"demo", "prepare"} else ran.stdout))  # those tell seconds
    return done


def _read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file that the steps wrote, but for the cache's."""
    files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.timeout(300)
def test_every_command_gives_the_same_bytes_without_the_calls_of_linux(tmp_path: Path) -> None:
    ordinary = _run_steps(ORDINARY, tmp_path / "ordinary")
    assert [code for code, _ in ordinary] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert _run_steps(BARE, tmp_path / "bare") == ordinary
    assert _read_files(tmp_path / "bare") == _read_files(tmp_path / "ordinary")
