"""Debian's Chromium without a window or a network, as the judge of a page."""

from __future__ import annotations

import html
import json
import struct
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tests.fixtures import tools
from tests.fixtures.tools import run

_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
LIGHT, DARK = 1, 0


def _chromium(page: Path, *options: str) -> bytes:
    tools.require("chromium")
    with tempfile.TemporaryDirectory(prefix="chromium.") as profile:
        words = ("timeout", "120", "chromium", *_OPTIONS, f"--user-data-dir={profile}", *options, page.as_uri())
        return run(words, env={"HOME": profile})


def screenshot(page: Path, target: Path, width: int, height: int, *, scheme: int = LIGHT) -> tuple[int, int]:
    """Draws the page into the PNG file ``target`` and returns its width and height, from its header."""
    colours = f"--blink-settings=preferredColorScheme={scheme}"
    _chromium(page, f"--screenshot={target}", f"--window-size={width},{height}", colours)
    wide, high = struct.unpack(">II", target.read_bytes()[16:24])
    return wide, high


def pdf_text(page: Path, target: Path) -> str:
    """Prints the page into ``target`` and returns the text on paper, as pdftotext reads it."""
    tools.require("pdftotext")
    _chromium(page, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    return run(["pdftotext", "-layout", target, "-"]).decode()


def measured(page: Path, script: str, width: int, scratch: Path) -> Any:
    """What the JavaScript expression ``script`` tells of the page, as ``d``, laid out ``width`` pixels wide.

    The page stands in a frame, because Chromium has no window of less than 500 pixels; scripts of its own would run.
    """
    around = scratch / "around.html"
    code = (
        "frame.onload = () => { const d = frame.contentDocument;"
        f"document.getElementById('told').textContent = encodeURIComponent(JSON.stringify({script})); }};"
        f"frame.srcdoc = decodeURIComponent({json.dumps(quote(page.read_text()))});"
    )
    around.write_text(
        f'<meta charset="utf-8"><iframe id="frame" style="width:{width}px;height:800px;border:0"></iframe>'
        f'<p id="told"></p><script>{code}</script>'
    )
    dumped = _chromium(around, "--dump-dom", "--virtual-time-budget=5000").decode()
    told = dumped.partition('<p id="told">')[2].partition("</p>")[0]
    return json.loads(unquote(html.unescape(told)))
