"""Damaged images under the commands that look: they answer, or say in one sentence where the damage is."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.demo.image import build_archive, root_items
from tests.fixtures import families, tools
from tests.support.small import CGZ, write_small

CODES = frozenset((0, 1, 3, 4, 5, 6, 8, 9))
ROUNDS = 60


def commands(image: Path, sound: Path, target: Path) -> list[list[str]]:
    """One of each, into layers where there are any."""
    return [
        ["ls", "-R", "-l", str(image)],
        ["ls", "-R", f"{image}::{CGZ}::rootfs.cxz"],
        ["cat", f"{image}::{CGZ}::rootfs.cxz::etc/hostname"],
        ["find", str(image), "**/hostname"],
        ["tree", str(image)],
        ["extract", "--quiet", str(image), str(target)],
        ["diff", str(sound), str(image)],
        ["inspect", "--json", str(image)],
    ]


def told(words: list[str], image: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Runs a command; True when it succeeded."""
    code = main(words)
    said = capsys.readouterr().err
    assert code in CODES, (words, code, said)
    assert "Traceback" not in said
    assert code != 1 or words[0] == "diff"
    if code > 1:
        assert image.name in said, (words, said)
    return code in (0, 1)


def mutated(sound: bytes, chance: random.Random, places: list[int]) -> bytes:
    """``sound`` with some bytes changed, or its end missing."""
    if not chance.randrange(6):
        return sound[: chance.randrange(len(sound))]
    raw = bytearray(sound)
    for at in chance.sample(places, chance.choice((1, 1, 4, 30))):
        raw[at] = chance.choice((0, 0xFF, raw[at] ^ 1 << chance.randrange(8), chance.randrange(256)))
    return bytes(raw)


@pytest.mark.parametrize("seed", range(3))
def test_the_small_image(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    sound = write_small(tmp_path)
    data = sound.read_bytes()
    places = [at for at in range(len(data)) if data[at]]  # zeros are mostly padding
    run(tmp_path, sound, places, random.Random(seed), capsys)


@pytest.mark.parametrize("name", ["data-deep", "udf"])
def test_other_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    tools.require(*families.TOOLS)
    sound = tmp_path / "in.iso"
    shutil.copyfile(families.build(name), sound)
    data = sound.read_bytes()
    places = [at for at in range(16 * 2048, min(len(data), 600 * 2048)) if data[at]]
    run(tmp_path, sound, places, random.Random(name), capsys)


def run(
    folder: Path, sound: Path, places: list[int], chance: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    """All commands over damaged copies of ``sound``; nothing outside the target of ``extract`` may appear."""
    image, target = folder / "mutated.iso", folder / "out"
    before = {*os.listdir(folder), image.name}
    good = bad = 0
    for _ in range(ROUNDS // 3):
        image.write_bytes(mutated(sound.read_bytes(), chance, places))
        for words in commands(image, sound, target):
            if told(words, image, capsys):
                good += 1
            else:
                bad += 1
        if target.is_dir():
            tools.run(["chmod", "-R", "u+rwx", target])  # folders got damaged modes, which bind an ordinary user
        shutil.rmtree(target, ignore_errors=True)
        assert {name for name in os.listdir(folder) if not name.startswith("out")} == before
        for left in folder.glob("out*"):
            left.unlink()
    assert good
    assert bad


def test_a_bare_initramfs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(1)
    plain = build_archive(root_items())
    sound, image = tmp_path / "sound.img", tmp_path / "mutated.img"
    sound.write_bytes(plain)
    good = bad = 0
    for turn in range(ROUNDS):
        data = mutated(plain, chance, [at for at in range(len(plain)) if plain[at]])
        image.write_bytes(gzip.compress(data, 1) if turn % 2 else data)
        for words in (["ls", "-R", str(image)], ["cat", f"{image}::etc/hostname"], ["diff", str(sound), str(image)]):
            if told(words, image, capsys):
                good += 1
            else:
                bad += 1
    assert good
    assert bad
