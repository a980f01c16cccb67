"""The archives of a release, the zipapp's recipe, the Containerfile and the GitHub Action."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cosremaster.cli.catalog import COMMANDS
from tests.fixtures.tools import require

REPOSITORY = Path(__file__).resolve().parents[2]
INDEX_LINK = "https://cosremaster.example/source/"
BUILD = """
import json, os, sys
import hatchling.build
made = [hatchling.build.build_sdist(sys.argv[1]), hatchling.build.build_wheel(sys.argv[1])]
print(json.dumps(made))
"""
_UNTRACKED = ("*.egg-info", "__pycache__", ".venv", ".cache", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache",
              ".hypothesis", ".import_linter_cache", "build", "dist")  # fmt: skip


def _copy_tree(target: Path, mode: int, seconds: int) -> Path:
    """Copy the repository, with all files' modes limited to ``mode`` and their times at ``seconds``."""
    shutil.copytree(REPOSITORY, target, ignore=shutil.ignore_patterns(*_UNTRACKED), symlinks=True)
    for folder, _, names in os.walk(target):
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & mode)
                os.utime(path, (seconds, seconds))
    return target


def _build(tree: Path, made: Path, **environment: str) -> Iterator[Path]:
    """Build the source archive and the wheel of ``tree`` into ``made``."""
    made.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", BUILD, made], cwd=tree, env={**os.environ, **environment}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return (made / name for name in json.loads(ran.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive and the wheel."""
    folder = tmp_path_factory.mktemp("archives")
    source, wheel = _build(_copy_tree(folder / "tree", 0o777, 1_700_000_000), folder / "made")
    return source, wheel


def test_archives_have_the_same_bytes_wherever_they_are_built(archives: tuple[Path, Path], tmp_path: Path) -> None:
    tree = _copy_tree(tmp_path / "elsewhere", 0o700, 1_600_000_000)
    again = _build(tree, tmp_path / "made", TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
    for archive, other in zip(archives, again, strict=True):
        assert archive.name == other.name
        assert archive.read_bytes() == other.read_bytes(), archive.name


def test_the_source_archive_holds_all_that_git_tracks(archives: tuple[Path, Path]) -> None:
    require("git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    tracked = set(listed.stdout.split("\0")) - {""}
    if not tracked:  # these are the tests of an unpacked source archive, which has no repository
        tracked = {"Makefile", ".ci/run", "tests/tools/test_packaging.py"}
    with tarfile.open(archives[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in tracked if (REPOSITORY / name).is_file()} <= names


def test_the_wheel_holds_the_whole_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    shared = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    names = {name for name in names if ".data/data/" not in name}
    assert shared == {
        "share/man/man1/cosremaster.1", *(f"share/man/man1/cosremaster-{name}.1" for name in COMMANDS),
        "share/bash-completion/completions/cosremaster", "share/zsh/site-functions/_cosremaster",
        "share/fish/vendor_completions.d/cosremaster.fish",
    }  # fmt: skip
    package = REPOSITORY / "cosremaster"
    files = {path.relative_to(REPOSITORY).as_posix() for path in package.rglob("*") if path.is_file()}
    assert names == {name for name in files if not name.endswith(".pyc")}


def test_the_description_links_to_whole_addresses_of_files_that_exist(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        metadata = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
        text = wheel.read(metadata).decode()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    for link in links:
        assert link.startswith("https://"), link
        if link.startswith(INDEX_LINK):
            assert (REPOSITORY / link.removeprefix(INDEX_LINK).partition("#")[0]).exists(), link


def _read_inputs(action: str) -> Mapping[str, str]:
    """Return which input of the action each variable of its script gets; read as text: YAML needs a package more."""
    return dict(re.findall(r"^ {8}([A-Z]+): \$\{\{ inputs\.(\w+) \}\}$", action, re.MULTILINE))


def test_the_action_builds_an_image_and_its_page(tmp_path: Path) -> None:
    require("bash", "sha256sum")
    action = (REPOSITORY / "action.yml").read_text(encoding="utf-8")
    passed = _read_inputs(action)
    declared = set(re.findall(r"^  (\w+):$", action.partition("outputs:")[0], re.MULTILINE))
    assert declared == set(passed.values())
    script = (REPOSITORY / "packaging/action.sh").read_text(encoding="utf-8")
    assert {*re.findall(r"\$\{?([A-Z]+)\b", script)} - {"GITHUB"} == {*passed}, "what the script reads is passed"
    for name in re.findall(r"steps\.build\.outputs\.(\w+)", action):
        assert f'echo "{name}=' in script
    program = tmp_path / "bin" / "cosremaster"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cosremaster "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([program, "demo", "--keep", tmp_path / "demo"], env=environment, check=True, capture_output=True)
    (tmp_path / "site.toml").write_text(
        'input = "demo/in.iso"\n[variables]\nSITE = "x"\nDOMAIN = "y"\n'
        '[[add]]\nfile = "/etc/hostname"\ncontent = "${SITE}.${DOMAIN}\\n"\n',
        encoding="ascii",
    )
    told = tmp_path / "outputs"
    environment |= {
        "RECIPE": str(tmp_path / "site.toml"), "OUTPUT": "my site.iso", "VARIABLES": "SITE=north\n\nDOMAIN=a b\n",
        "AGAINST": "demo/in.iso", "PAGE": "", "GITHUB_OUTPUT": str(told),
    }  # fmt: skip
    subprocess.run(["bash", REPOSITORY / "packaging/action.sh"], cwd=tmp_path, env=environment, check=True)
    outputs = dict(line.split("=", 1) for line in told.read_text(encoding="utf-8").splitlines())
    assert (outputs["image"], outputs["html"]) == ("my site.iso", "my site.iso.html")
    judged = subprocess.run(["sha256sum", "my site.iso"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert judged.stdout.split()[0] == outputs["sha256"]
    assert "etc/hostname" in (tmp_path / outputs["html"]).read_text(encoding="utf-8")
    address = "my site.iso::debirf-live-demo.cgz::rootfs.cxz::etc/hostname"
    shown = subprocess.run([program, "cat", address], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert shown.stdout == b"north.a b\n"
