"""Small images and recipes that would make readers do much are refused in little time; what is sound is read."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import ImageError
from tests.fixtures import tools

BLOCK = 2048
SP = b"SP\x07\x01\xbe\xef\0"
"""The field that says that there are System Use fields (SUSP 5.3)."""


def both(value: int) -> bytes:
    """A number in both byte orders (ECMA-119, 7.3.3)."""
    return struct.pack("<I", value) + struct.pack(">I", value)


def record(lba: int, size: int, name: bytes, *, directory: bool = False, fields: bytes = b"") -> bytes:
    """A directory record (ECMA-119, 9.1)."""
    head = both(lba) + both(size) + bytes((100, 1, 1, 0, 0, 0, 0, 2 * directory, 0, 0)) + b"\1\0\0\1"
    body = head + bytes((len(name),)) + name + bytes((len(name) + 1) % 2) + fields
    body += bytes(len(body) % 2)
    return bytes((len(body) + 2, 0)) + body


def pack(records: Sequence[bytes]) -> bytes:
    """A directory: no record crosses the end of a block."""
    data = bytearray()
    for raw in records:
        if len(data) % BLOCK + len(raw) > BLOCK:
            data += bytes(-len(data) % BLOCK)
        data += raw
    return bytes(data) + bytes(-len(data) % BLOCK)


def write_image(path: Path, blocks: int, root: tuple[int, int], contents: dict[int, bytes]) -> None:
    """An image with a root directory at a block, of so many bytes; ``contents`` by block."""
    image = bytearray(blocks * BLOCK)
    descriptor = bytearray(BLOCK)
    descriptor[:7] = b"\1CD001\1"
    descriptor[40:72] = b"X".ljust(32)
    descriptor[80:88] = both(blocks)
    descriptor[128:132] = struct.pack("<H", BLOCK) + struct.pack(">H", BLOCK)
    descriptor[156:190] = record(*root, b"\0", directory=True)
    descriptor[881] = 1
    for lba, data in {16: bytes(descriptor), 17: b"\xffCD001\1", **contents}.items():
        image[lba * BLOCK : lba * BLOCK + len(data)] = data
    path.write_bytes(image)


def dots(root: int, size: int, *, fields: bytes = b"") -> list[bytes]:
    """The records of ``.`` and ``..``."""
    return [record(root, size, b"\0", directory=True, fields=fields), record(root, size, b"\1", directory=True)]


def continued(block: int) -> bytes:
    """A CE field (SUSP 5.1) that leads to all of a block."""
    return b"CE\x1c\1" + both(block) + both(0) + both(BLOCK)


def share_areas(path: Path, field: bytes) -> None:
    """All records name one chain of 31 continuation areas full of ``field``."""
    chain, root, size = 20, 60, 200 * BLOCK
    full = field * ((BLOCK - 40) // len(field))
    contents = {chain + i: full + (continued(chain + i + 1) if i < 30 else b"") for i in range(31)}
    count = size // len(record(0, 0, b"F0000000", fields=continued(chain))) - 100
    names = [record(0, 0, b"F%07d" % number, fields=continued(chain)) for number in range(count)]
    contents[root] = pack([*dots(root, size, fields=SP), *names])[:size]
    write_image(path, root + 210, (root, size), contents)


def overlap_directories(path: Path) -> None:
    """Each of 400 directories goes on to the end of the last."""
    count, root = 400, 30
    first = root + 10
    names = [
        record(first + number, (count - number) * BLOCK, b"D%06d" % number, directory=True) for number in range(count)
    ]
    full = b"".join(record(0, 0, b"F%04d" % number) for number in range(48))
    contents = {first + number: full for number in range(count)}
    data = pack([*dots(root, 10 * BLOCK), *names])
    write_image(path, first + count + 5, (root, len(data)), {root: data, **contents})


def lengthen_paths(path: Path) -> None:
    """Names of 250 letters, 120 levels deep, and 25,000 files there."""
    levels, wide = 120, 600
    contents, name = {}, b"NM\xff\1\0" + b"n" * 250
    for level in range(levels):
        size = BLOCK if level < levels - 1 else wide * BLOCK
        records = dots(30 + level, size, fields=SP if not level else b"")
        if level < levels - 1:
            below = BLOCK if level < levels - 2 else wide * BLOCK
            fields = b"CE\x1c\1" + both(20) + both(0) + both(255)
            records.append(record(31 + level, below, b"D", directory=True, fields=fields))
        else:
            records += [record(0, 0, b"F%06d" % number) for number in range(wide * 48)]
        contents[30 + level] = pack(records)[:size]
    write_image(path, 30 + levels + wide, (30, BLOCK), {20: name, **contents})


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "names by shared areas": (lambda path: share_areas(path, b"NM\xfa\1\0" + b"a" * 245), "continuation areas"),
    "many small fields": (lambda path: share_areas(path, b"XX\4\1"), "continuation areas"),
    "directories that overlap": (overlap_directories, "directories overlap"),
    "long paths": (lengthen_paths, "paths are too long"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_small_image_takes_little_time_and_memory(kind: str, tmp_path: Path) -> None:
    write, sentence = HOSTILE[kind]
    image = tmp_path / "in.iso"
    write(image)
    assert image.stat().st_size < 2 << 20
    with pytest.raises(ImageError, match=sentence):
        cosremaster.inspect(image)
    for words in (["ls", "-R"], ["verify"], ["inspect"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 29,) * 2)\n{PROGRAM}"
        result = subprocess.run(
            [sys.executable, "-c", code, words[0], image, *words[1:]], capture_output=True, text=True, check=False
        )
        assert result.returncode == (1 if words == ["verify"] else 3), result.stderr
        assert sentence in result.stdout + result.stderr
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 10


PROGRAM = "from cosremaster.cli import main; sys.exit(main())"


@pytest.mark.parametrize("form", [["-R", "-J"], ["-R", "-udf"], ["-iso-level", "4"]])
def test_deep_trees_and_long_names_are_read(form: list[str], tmp_path: Path) -> None:
    tools.require("genisoimage", "isoinfo")
    folder = tmp_path / "tree"
    for number in range(40):
        below = folder.joinpath(*[f"{number:02}{'n' * 58}"] * 6)
        below.mkdir(parents=True)
        (below / ("f" * 60)).write_bytes(b"x")
    image = tmp_path / "in.iso"
    tools.run(["genisoimage", "-quiet", "-D", *form, "-o", image, folder])
    names = cosremaster.ls(image, recursive=True)
    listed = tools.run(["isoinfo", "-f", *form[:1], "-i", image]) if form[0] == "-R" else None
    assert len(names) == 40 * 7 if listed is None else len(listed.splitlines())
    assert main(["verify", str(image)]) == 0


def test_verify_takes_linear_time_for_deep_trees(tmp_path: Path) -> None:
    def write(path: Path, levels: int) -> None:
        contents = {}
        for level in range(levels):
            records = dots(30 + level, BLOCK)
            if level < levels - 1:
                records.append(record(31 + level, BLOCK, b"D", directory=True))
            contents[30 + level] = pack(records)
        write_image(path, levels + 40, (30, BLOCK), contents)

    write(tmp_path / "deep.iso", 3000)
    start = time.process_time()
    cosremaster.verify(tmp_path / "deep.iso")
    assert time.process_time() - start < 10


def test_variables_that_double_are_a_fault_of_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ['input = "in.iso"', 'output = "out.iso"', "[variables]", 'V0 = "aaaaaaaaaa"']
    lines += [f'V{number} = "${{V{number - 1}}}${{V{number - 1}}}"' for number in range(1, 29)]
    (tmp_path / "site.toml").write_text("\n".join([*lines, ""]))
    start = time.process_time()
    assert main(["build", "--plan", str(tmp_path / "site.toml")]) == 2
    assert "the variables make more than 16,777,216 characters" in capsys.readouterr().err
    assert time.process_time() - start < 5
