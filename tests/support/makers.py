"""Images with Rock Ridge by several real tools."""

from __future__ import annotations

import io
from pathlib import Path

import pycdlib

from tests.fixtures.tools import run


def make_rock_ridge(maker: str, folder: Path, iso: Path) -> None:
    """Make an image of ``folder``.

    :param maker: ``bsdtar``, ``xorriso``, ``pycdlib`` or ``pycdlib-joliet`` (files and symlinks of one folder); else
        the letters of genisoimage's options (``RJ``), with ``-no-pad`` behind them if it is not to pad.
    """
    match maker.split("-"):
        case ["pycdlib", *joliet]:
            _make_with_pycdlib(folder, iso, joliet=bool(joliet))
        case ["bsdtar"]:
            run(["bsdtar", "-cf", iso, "--format=iso9660", "-C", folder, *sorted(p.name for p in folder.iterdir())])
        case ["xorriso"]:
            run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-o", iso, folder])
        case [extensions, *no_pad]:
            letters = [f"-{letter}" for letter in extensions]
            run(["genisoimage", "-quiet", *letters, *(["-no-pad"] if no_pad else []), "-o", iso, folder])


def _make_with_pycdlib(folder: Path, iso: Path, *, joliet: bool) -> None:
    """Make an image of the files and symlinks of ``folder``."""
    image = pycdlib.PyCdlib()
    image.new(rock_ridge="1.09", joliet=3 if joliet else None)
    for number, path in enumerate(sorted(folder.iterdir())):
        joliet_path = f"/{path.name}" if joliet else None
        if path.is_symlink():
            image.add_symlink(f"/L{number}.;1", path.name, str(path.readlink()))
        else:
            data = path.read_bytes()
            image.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", rr_name=path.name, joliet_path=joliet_path)
    image.write(str(iso))
    image.close()
