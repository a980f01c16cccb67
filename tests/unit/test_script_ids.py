"""Which ids root gives to a script, by the ids that it has itself."""

from __future__ import annotations

import pytest

from cosremaster.errors import SandboxError
from cosremaster.sandbox.ids import RANGE, ROOT_RANGE, _choose_of_root

ALL = ((0, 0, 0xFFFFFFFF),)
CONTAINER = ((0, 100_000, RANGE),)
OWN = ((0, 0, RANGE),)


def test_root_gives_ids_that_nobody_owns() -> None:
    assert _choose_of_root("auto", (ALL, ALL))[:2] == ("root", ROOT_RANGE)
    assert _choose_of_root("single", (ALL, ALL))[:2] == ("single", ROOT_RANGE)


def test_root_of_a_container_gives_all_that_it_has() -> None:
    assert _choose_of_root("auto", (CONTAINER, CONTAINER))[:2] == ("root", 0)


def test_the_id_of_real_root_is_never_given() -> None:
    """It may write files of /proc that no namespace guards."""
    ids = _choose_of_root("auto", (OWN, OWN))
    assert ids[:3] == ("single", 1, 1)
    assert "65,536" in ids.note
    with pytest.raises(SandboxError, match="65,536"):
        _choose_of_root("subuid", (OWN, OWN))
    with pytest.raises(SandboxError):
        _choose_of_root("auto", (((0, 0, 1),), ((0, 0, 1),)))
