"""The pictures of the first page: what a terminal shows at its end, in an SVG that asks no other machine for more."""

from __future__ import annotations

import re

from tests.support.pictures import COMMAND, PICTURE, draw, settle
from tests.support.user import REPOSITORY

BARS = "".join(
    (
        "\x1b[?25lpack 10%\r\n\x1b[2Kwrite 0%\x1b[1A\r\x1b[2K",
        "\x1b[32mpack: done\x1b[0m\r\n\x1b[2Kwrite: done\r\n\x1b[?25h\r\n",
    )
)


def test_progress_bars_settle() -> None:
    assert settle(BARS) == "\x1b[32mpack: done\x1b[0m\nwrite: done"


def test_a_picture_has_its_text_and_no_addresses() -> None:
    drawn = draw("cosremaster ls x.iso", settle(BARS))
    text = drawn.replace("&#160;", " ")
    assert "cosremaster ls x.iso" in text and "pack: done" in text
    assert drawn == draw("cosremaster ls x.iso", settle(BARS)), "the same bytes again"
    for picture in (drawn, PICTURE.read_text("utf-8")):
        assert "@font-face" not in picture
        assert re.findall(r"url\((?!#)", picture) == []


def test_the_first_page_shows_both_pictures_of_its_command() -> None:
    page = (REPOSITORY / "README.md").read_text("utf-8")
    assert "](docs/run.svg)" in page and "](docs/report.png)" in page
    command = " ".join(("cosremaster", *COMMAND))
    assert f"    $ {command}\n" in page
    assert command in PICTURE.read_text("utf-8").replace("&#160;", " ")
