"""What people are told of changes on the ISO's own tree that not every reader sees as they asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster import Inline, remaster
from cosremaster.iso import sections
from tests import judges
from tests.fixtures import families, tools


def image(name: str) -> Path:
    tools.require(*families.TOOLS, *judges.TOOLS)
    return families.build(name)


@pytest.mark.parametrize("path", ["/large.img", "/README.txt"])
def test_a_file_of_several_extents_is_told(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one, and one that is exchanged; with smaller numbers."""
    monkeypatch.setattr(sections, "MAX_EXTENT", 1 << 20)
    monkeypatch.setattr(sections, "MAX_SECTION", 1 << 20)
    told = remaster(image("data-both"), tmp_path / "out.iso", add_iso=[Inline(path, bytes((1 << 20) + 1))]).warnings
    assert [line.split(" than")[0] for line in told] == [f"{path[1:]} has more"]
    smaller = remaster(image("data-both"), tmp_path / "small.iso", add_iso=[Inline(path, bytes(1 << 20))])
    assert smaller.warnings == ()


def test_names_that_become_others_are_told(tmp_path: Path) -> None:
    asked = [Inline("/site/platform-image.iso", b"1"), Inline("/site/ok.txt", b"2"), Inline("/site/a.b.c", b"3")]
    out = tmp_path / "out.iso"
    (told,) = remaster(image("data-bare"), out, add_iso=asked, rename_iso=["readme.txt:/Read Me.txt"]).warnings
    assert told == (
        "the image has no Rock Ridge: Read Me.txt is called READ_ME.TXT on it, and 2 more have other names too"
    )
    assert {"READ_ME.TXT", "SITE/OK.TXT"} <= judges.tree(out).keys()
    for name in ("data-joliet", "data-both"):  # these tell the names as they were asked for
        assert remaster(image(name), tmp_path / f"{name}.iso", add_iso=asked).warnings == ()
