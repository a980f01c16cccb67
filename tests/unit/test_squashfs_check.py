"""Images that break a rule of some reader of squashfs, and what the check says of them."""

from __future__ import annotations

import pytest

from cosremaster.errors import CorruptError, Place, ProofError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.layers.squashfs.check import check_whole, find_breaches
from cosremaster.layers.squashfs.check_tables import Breach
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from tests.support.squashfs_faults import BROKEN, SOUND
from tests.support.squashfs_image import SquashfsDraft


def opened(data: bytes) -> SquashfsFilesystem:
    return SquashfsFilesystem(PieceTable([Literal(data)]), Place(("x.squashfs",)))


def breaches(draft: SquashfsDraft) -> list[Breach]:
    return list(find_breaches(opened(draft.build()), with_data=True))


@pytest.mark.parametrize("name", SOUND)
def test_sound_images_pass(name: str) -> None:
    assert breaches(SOUND[name]) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named(name: str) -> None:
    rule, _, draft = BROKEN[name]
    try:
        assert rule in {breach.rule for breach in breaches(draft)}
    except CorruptError as error:  # a table so far off that nothing can be read
        assert rule == "order", error


def test_what_the_input_breaks_too_is_no_fault_of_an_edit() -> None:
    broken, sound = SquashfsDraft(padding=512).build(), SquashfsDraft().build()
    place = Place(("x.squashfs",))
    check_whole(PieceTable([Literal(broken)]), place, opened(broken))
    with pytest.raises(ProofError, match="not padded to a multiple of 4,096"):
        check_whole(PieceTable([Literal(broken)]), place, opened(sound))
