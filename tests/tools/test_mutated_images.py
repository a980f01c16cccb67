"""Damaged images: whatever bytes change, reading and planning end well or with one of our errors."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cosremaster.errors import CosremasterError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import open_source
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import plan_copy, plan_image
from cosremaster.iso.read import read_image
from tests.fixtures import families, tools

RICH = ("debian", "ubuntu", "udf", "data-deep", "data-zisofs", "multi-session", "sun", "mips", "prep", "fedora")
ROUNDS = 120


@pytest.mark.parametrize("name", RICH)
def test_changed_bytes_never_break_more_than_the_image(name: str, tmp_path: Path) -> None:
    tools.require(*families.TOOLS)
    sound = families.build(name).read_bytes()
    with open_source(families.build(name)) as source:
        image = read_image(source)
        spans = [span for span in image.fixed_spans if span.blocks < 30]
        places = [span.start * 2048 + at for span in spans for at in range(0, span.blocks * 2048, 7)]
    chance = random.Random(name)
    places = [at for at in places if any(sound[at : at + 7])]
    path, good = tmp_path / "mutated.iso", 0
    for _ in range(ROUNDS):
        raw = bytearray(sound)
        for place in chance.sample(places, chance.choice([1, 1, 3, 20])):
            at = place + chance.randrange(7)
            raw[at] = chance.choice([0, 0xFF, raw[at] ^ 1 << chance.randrange(8), chance.randrange(256)])
        path.write_bytes(raw)
        good += works(path)
    assert 0 < good < ROUNDS, "some damage is told, and some bytes do not matter"


@pytest.mark.parametrize("name", RICH)
def test_images_cut_off_anywhere(name: str, tmp_path: Path) -> None:
    tools.require(*families.TOOLS)
    sound = families.build(name).read_bytes()
    chance = random.Random(name)
    path = tmp_path / "cut.iso"
    for end in [0, 1, 32768, 34816, *(chance.randrange(len(sound)) for _ in range(25))]:
        path.write_bytes(sound[:end])
        works(path)


def works(path: Path) -> bool:
    """Reads the image, plans a copy and an exchange of each of a few files; False where it cannot be read."""
    with open_source(path) as source:
        try:
            image = read_image(source)
        except CosremasterError as error:
            assert str(error)
            return False
        assert plan_copy(image).table.length == path.stat().st_size
        for file in image.files[:4]:
            try:
                assert (
                    plan_image(
                        image, source, IsoEdits(replaced={file.path: PieceTable([Literal(b"new" * 5000)])})
                    ).table.length
                    > 0
                )
            except CosremasterError as error:
                assert str(error)
    return True
