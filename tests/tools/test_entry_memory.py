"""The memory that commands take for each entry of an archive, from two archives of different sizes."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.demo.image import build_archive, directory, regular

_FILES = 200  # in a folder
_DATA = b"0123456789abcdef" * 45  # so that the last 4 MiB, which are kept, are as many of both archives

COMMANDS = [
    (".gz", ["{image}", "{out}", "--add", "{new}:/usr/"], 330),
    (".tar.gz", ["{image}", "{out}", "--add", "{new}:/usr/"], 330),
    (".gz", ["{image}", "{out}", "--remove", "/usr/part-003"], 400),
    (".gz", ["diff", "{image}", "{other}"], 800),
]
"""The name's end of the archive, arguments, and the bytes that an entry may take: some more than it does."""


def _write_archive(path: Path, folders: int) -> Path:
    names = [b"usr/part-%03d" % folder for folder in range(folders)]
    if path.name.endswith(".tar.gz"):
        with gzip.open(path, "wb", 1) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
            for name in names:
                folder = tarfile.TarInfo(name.decode())
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
                for file in range(_FILES):
                    member = tarfile.TarInfo(f"{name.decode()}/item-{file:03}.txt")
                    member.size = len(_DATA)
                    tar.addfile(member, io.BytesIO(_DATA))
        return path
    items = [directory(b"usr")]
    for name in names:
        items += [directory(name), *(regular(name + b"/item-%03d.txt" % file, _DATA) for file in range(_FILES))]
    path.write_bytes(gzip.compress(build_archive(items), 1))
    return path


def _measure(folder: Path, suffix: str, command: list[str], folders: int) -> int:
    """Return the most bytes that the command had allocated, with an archive of this many folders."""
    folder.mkdir()
    image, new = _write_archive(folder / f"image{suffix}", folders), folder / "new.txt"
    other = _write_archive(folder / f"other{suffix}", folders + 1)
    new.write_text("new\n")
    paths = {"image": image, "out": folder / f"out{suffix}", "new": new, "other": other}
    tracemalloc.start()
    try:
        assert main([argument.format(**paths) for argument in command]) in (0, 1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("suffix", "command", "most"), COMMANDS)
def test_an_entry_takes_few_bytes(
    suffix: str,
    command: list[str],
    most: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _measure(tmp_path / "first", suffix, command, 5)  # loads what the command needs
    few, many = (_measure(tmp_path / str(folders), suffix, command, folders) for folders in (40, 80))
    capsys.readouterr()
    print((many - few) / (40 * _FILES))
    assert (many - few) / (40 * _FILES) < most
