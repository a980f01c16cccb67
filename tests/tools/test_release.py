"""``make release``: what it refuses, and the sums and the tag that it makes; the archives have tests of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosremaster.__about__ import __version__
from tests.fixtures.tools import require, run
from tests.support.user import REPOSITORY

SECTION = f"## [{__version__}] - 2026-11-29\n"
NO_SECTION = f"CHANGELOG.md has no section [{__version__}] with its date"
CHANGELOG = f"# Changelog\n\n## [Unreleased]\n\n{SECTION}\n### Added\n\n- All of it.\n"
BUILDERS = {
    "packages.sh": "mkdir -p dist && echo wheel >dist/x.whl && echo \"$SOURCE_DATE_EPOCH\" >dist/time\n",
    "zipapp.sh": f'echo "print(\\"cosremaster {__version__}\\")" >dist/cosremaster.pyz\n',
}  # fmt: skip
"""What stands in the place of the builders, which take a minute."""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the script, its builders replaced, and the version; everything is committed."""
    require("git", "sha256sum")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("COMMITTER", "AUTHOR"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@cosremaster.example")
    folder = tmp_path / "clone"
    (folder / "packaging").mkdir(parents=True)
    (folder / "cosremaster").mkdir()
    shutil.copy(REPOSITORY / "packaging/release.sh", folder / "packaging")
    shutil.copy(REPOSITORY / "cosremaster/__about__.py", folder / "cosremaster")
    (folder / "cosremaster/__init__.py").touch()
    for name, text in BUILDERS.items():
        (folder / "packaging" / name).write_text(text)
    (folder / ".gitignore").write_text("dist/\n__pycache__/\n")
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    run(["git", "init", "--quiet"], cwd=folder)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run(["git", "add", "--all"], cwd=folder)
    run(["git", "commit", "--quiet", "--message", "A change"], cwd=folder)


def release(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script in ``folder``, with this Python first in the PATH, as make does."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return subprocess.run(
        ["sh", "packaging/release.sh"], cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": "", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_release_has_sums_and_a_tag(clone: Path) -> None:
    ran = release(clone)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith(f"are ready: git push origin v{__version__}\n")
    run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=clone / "dist")
    listed = {line.split()[1] for line in (clone / "dist/SHA256SUMS").read_text().splitlines()}
    assert listed == {"x.whl", "time", "cosremaster.pyz"}
    when = run(["git", "log", "-1", "--format=%ct"], cwd=clone)
    assert (clone / "dist/time").read_bytes() == when
    assert run(["git", "cat-file", "-t", f"v{__version__}"], cwd=clone) == b"tag\n"
    again = release(clone)
    assert again.returncode == 1 and again.stderr == f"release: the tag v{__version__} exists\n"
    assert (clone / "dist/SHA256SUMS").exists(), "a refusal removes nothing"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("CHANGELOG.md", SECTION, "## [0.0.1] - 2026-11-29\n", NO_SECTION),
        ("CHANGELOG.md", SECTION, f"## [{__version__}]\n", NO_SECTION),
        ("CHANGELOG.md", SECTION, f"### Fixed\n\n- More.\n\n{SECTION}",
         "CHANGELOG.md has entries under [Unreleased], which belong to a version"),
        ("packaging/zipapp.sh", __version__, "0.0.1", "the zipapp tells another version"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_version_is_refused(clone: Path, name: str, old: str, new: str, message: str) -> None:
    path = clone / name
    path.write_text(path.read_text().replace(old, new))
    dirty = release(clone)
    assert (dirty.returncode, dirty.stderr) == (1, "release: there are changes that are not committed\n")
    commit(clone)
    ran = release(clone)
    assert (ran.returncode, ran.stderr) == (1, f"release: {message}\n")
    assert not run(["git", "tag"], cwd=clone)


def test_a_tag_needs_a_name_before_anything_is_built(clone: Path) -> None:
    ran = release(clone, GIT_COMMITTER_NAME="", GIT_COMMITTER_EMAIL="")
    assert ran.returncode == 1 and ran.stderr.startswith("release: git knows no name and address for the tag")
    assert not (clone / "dist").exists()
