"""Random edits of squashfs files, one upon the other, against the same changes of a directory; unsquashfs judges."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

import cosremaster
from tests.fixtures import tools
from tests.fixtures.tools import run

OPTIONS = [
    ("-b", "4096"),
    ("-b", "8192", "-no-fragments"),
    ("-comp", "zstd"),
    ("-noI", "-no-exports"),
    ("-b", "4096", "-comp", "xz"),
]
STEPS = 3


def data(choice: random.Random) -> bytes:
    """Bytes of many shapes: noise, runs, zeros, text; lengths around those of blocks."""
    length = choice.choice([0, 1, 100, 4095, 4096, 4097, 8192, 20_000])
    return choice.choice([
        choice.randbytes(length), bytes([choice.randrange(1, 256)]) * length, bytes(length),
        (b"%d\n" % choice.randrange(10**6)) * (length // 8),
    ])  # fmt: skip


def grow(choice: random.Random, root: Path, count: int) -> None:
    """Make ``count`` files, symlinks and directories in ``root``, with long and short names."""
    directories = [root]
    for number in range(count):
        parent = choice.choice(directories)
        if choice.random() < 0.15:
            directories.append(parent / f"d{number}{'x' * choice.randrange(0, 100)}")
            directories[-1].mkdir()
        elif choice.random() < 0.1:
            (parent / f"l{number}").symlink_to("t" * choice.randrange(1, 200))
        else:
            path = parent / f"f{number}{'y' * choice.randrange(0, 60)}"
            path.write_bytes(data(choice))
            path.chmod(choice.choice([0o644, 0o755, 0o600]))
    for path in sorted(root.rglob("*")):
        if choice.random() < 0.3 and not path.is_symlink():
            mark(choice, path)


def mark(choice: random.Random, path: Path) -> None:
    """Give ``path`` extended attributes: few different ones, or some of its own, short and long."""
    for number in range(choice.randrange(1, 4)):
        value = choice.choice(
            [b"", b"same", choice.randbytes(5), b"L" * 1000, choice.randbytes(choice.choice([9, 900]))]
        )
        try:
            os.setxattr(path, f"user.name{number}", value)
        except OSError as error:
            tools.leave_out(f"This test needs a file system with extended attributes: {error.strerror}.")


def lay(source: Path, target: Path) -> None:
    """Lay the tree ``source`` over ``target``, as docs/overlay.md says, types by force."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        is_directory = path.is_dir() and not path.is_symlink()
        kept: dict[str, bytes] = {}
        are_files = all(other.is_file() and not other.is_symlink() for other in (place, path))
        if are_files and place.read_bytes() == path.read_bytes():
            kept = {name: os.getxattr(place, name) for name in os.listxattr(place)}
        if os.path.lexists(place) and (not is_directory or place.is_symlink() or not place.is_dir()):
            remove(place)
        if is_directory:
            if not place.exists():
                place.mkdir()
                shutil.copystat(path, place)
        else:
            shutil.copy2(path, place, follow_symlinks=False)
            for name, value in kept.items():
                if name not in os.listxattr(place):
                    os.setxattr(place, name, value)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def described(root: Path) -> dict[str, tuple[int, bytes | str, dict[str, bytes]]]:
    """Mode, content or text, and extended attributes of everything below ``root``."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes(),
            {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            },
        )
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("seed", range(len(OPTIONS)))
def test_random_edits(seed: int, tmp_path: Path) -> None:
    tools.require("mksquashfs", "unsquashfs", "7z")
    choice = random.Random(seed)
    model, image, out = tmp_path / "model", tmp_path / "a.sqfs", tmp_path / "b.sqfs"
    model.mkdir()
    grow(choice, model, choice.choice([5, 60, 400]))
    run(["mksquashfs", str(model), str(image), "-quiet", "-no-progress", *OPTIONS[seed]])
    for step in range(STEPS):
        site = tmp_path / f"site{step}"
        site.mkdir()
        grow(choice, site, choice.choice([1, 30, 200]))
        paths = sorted(str(path.relative_to(model)) for path in model.rglob("*"))
        removed = sorted(choice.sample(paths, min(len(paths), choice.choice([0, 1, 4]))))
        removed = [path for path in removed if not any(path.startswith(other + "/") for other in removed)]
        cosremaster.remaster(
            image, out, add=[cosremaster.AddPath(site, keep_modes=True)], remove=[f"/{path}" for path in removed],
            force=True, force_type=True, remember=False, sync=False,
        )  # fmt: skip
        for path in removed:
            remove(model / path)
        lay(site, model)
        out.replace(image)
        assert cosremaster.verify(image, deep=True).ok
        unpacked = tmp_path / f"unpacked{step}"
        run(["unsquashfs", "-xattrs", "-quiet", "-no-progress", "-d", str(unpacked), str(image)])
        assert described(unpacked) == described(model)
        run(["7z", "t", str(image)])
