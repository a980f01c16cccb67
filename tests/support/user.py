"""The program as an ordinary user has it: installed from the source tree, no root, nothing in PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class User:
    """Somebody without root: where the program is installed for them, and a folder of theirs."""

    python: Path
    home: Path
    uid: int | None

    def run(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, umask: int = 0o022
    ) -> subprocess.CompletedProcess[str]:
        """``python -m cosremaster`` with ``arguments``, an empty PATH and nothing else in the environment."""
        return self.python_run("-m", "cosremaster", *arguments, env=env, cwd=cwd, umask=umask)

    def python_run(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, umask: int = 0o022
    ) -> subprocess.CompletedProcess[str]:
        """The user's Python with ``arguments``."""
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd or self.home,
            env={"PATH": "", **(env or {})},
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
            umask=umask,
            capture_output=True,
            text=True,
            check=False,
        )

    def own(self, path: Path) -> None:
        """Gives ``path`` and everything below it to the user."""
        if self.uid is not None:
            for one in (path, *path.rglob("*")):
                os.chown(one, self.uid, self.uid, follow_symlinks=False)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, and that goes away (pytest's own are for their owner alone)."""
    folder = Path(tempfile.mkdtemp(prefix="cosremaster-test-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def without_root() -> Iterator[None]:
    """This process as an ordinary user for a while, if it is root's."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextmanager
def ordinary_user() -> Iterator[User]:
    """Installs the program for an ordinary user, in a folder that goes away."""
    with open_folder() as folder:
        home = folder / "home"
        home.mkdir()
        user = User(folder / "venv" / "bin" / "python", home, NOBODY if os.geteuid() == 0 else None)
        user.own(home)
        base = _reachable_python(user)
        subprocess.run([base, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        source = folder / "source"  # a build writes beside its sources, and the tree may not be ours
        source.mkdir()
        for name in ("cosremaster", "packaging"):
            shutil.copytree(REPOSITORY / name, source / name)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(REPOSITORY / name, source)
        pip = [sys.executable, "-m", "pip", "--python", str(user.python), "install", "--quiet", str(source)]
        subprocess.run([*pip, "--disable-pip-version-check"], check=True)
        yield user


def _reachable_python(user: User) -> str:
    """A Python that the user may run: ours, or the system's where ours lies in somebody's home."""
    tried: Sequence[str] = (os.path.realpath(sys.executable), "/usr/bin/python3")
    for python in tried:
        probe = User(Path(python), Path("/"), user.uid)
        try:
            if probe.python_run("-c", "import venv, lzma").returncode == 0:
                return python
        except PermissionError:
            continue
    raise AssertionError(f"an ordinary user can run none of {', '.join(tried)}")
