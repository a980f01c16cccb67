"""The pictures of the first page: ``make pictures`` makes them of a run on the fixture in debirf's shape.

docs/run.svg shows what the command wrote to a terminal, line by line as it stood at the end; docs/report.png the page
that ``inspect --html`` writes of the result. Their figures are those of that run.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.fixtures import debirf, tools
from tests.support.user import REPOSITORY

COLUMNS, LINES = 108, 60
PICTURE, PAGE = REPOSITORY / "docs" / "run.svg", REPOSITORY / "docs" / "report.png"
COMMAND = ("debirf-live.iso", "site.iso", "--add", "site/", "--add", "install.sh:/root/")
_FONT = re.compile(r"@font-face \{\{.*?\n    \}\}\n", re.DOTALL)
_CONTROL = re.compile(r"\x1b\[\??[0-9;]*([A-Za-z])")


def prepare(folder: Path) -> None:
    """Put the image and a site's files into ``folder``."""
    (folder / "debirf-live.iso").symlink_to(debirf.build().iso)
    (folder / "site/etc/systemd/system").mkdir(parents=True)
    (folder / "site/bin").mkdir()
    (folder / "site/etc/hostname").write_text("headend-7\n", "ascii")
    (folder / "site/etc/systemd/system/install.service").write_text("[Service]\nExecStart=/root/install.sh\n", "ascii")
    for path in (folder / "site/bin/site-check", folder / "install.sh"):
        path.write_text("#!/bin/sh\n", "ascii")
        path.chmod(0o755)


def record(folder: Path, arguments: tuple[str, ...]) -> str:
    """Return what the command with ``arguments`` writes to a terminal of :data:`COLUMNS`."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES),
                   "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    command = [sys.executable, "-m", "cosremaster", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=follower, stdout=follower, stderr=follower
    ) as ran:
        os.close(follower)
        parts = []
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the last writer closed it
                break
            parts.append(part)
            if not part:
                break
    os.close(leader)
    assert ran.returncode == 0, b"".join(parts).decode(errors="replace")
    return b"".join(parts).decode()


def settle(output: str) -> str:
    """Return the lines of a terminal's ``output`` as they stand at its end, with their colours.

    What moves in it are progress bars: they go up a line or more, and write their lines anew.
    """
    lines, at = [""], 0
    for piece in re.split(r"(\x1b\[\??[0-9;]*[A-Za-z]|\r|\n)", output):
        control = _CONTROL.match(piece)
        if piece == "\n":
            at += 1
            lines += [""] * (at + 1 - len(lines))
        elif piece == "\r" or (control and control[1] == "K"):
            lines[at] = "" if control else lines[at]
        elif control and control[1] == "A":
            at = max(0, at - int(re.sub(r"\D", "", piece) or 1))
        elif control is None or control[1] == "m":
            lines[at] += piece
    return "\n".join(line for line in lines if re.sub(r"\x1b\[[0-9;]*m", "", line).strip())


def draw(command: str, output: str) -> str:
    """Return an SVG of a terminal in which ``command`` wrote ``output``."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    console.print(Text.from_ansi(output))
    # Fonts of the reader's machine: a page asks no other one for anything.
    return console.export_svg(title="cosremaster", code_format=_FONT.sub("", CONSOLE_SVG_FORMAT), unique_id="run")


def main() -> None:
    """Make both pictures anew."""
    tools.require(*debirf.TOOLS, "chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        drawn = draw(" ".join(("cosremaster", *COMMAND)), settle(record(folder, COMMAND)))
        PICTURE.write_text(re.sub(r" +$", "", drawn, flags=re.MULTILINE).rstrip() + "\n", "utf-8")
        page = ("inspect", "site.iso", "--against", "debirf-live.iso", "--html", "site.html")
        record(folder, page)
        chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                    "--window-size=1100,1090", f"--screenshot={PAGE}", f"file://{folder}/site.html"]  # fmt: skip
        subprocess.run(chromium, check=True, capture_output=True)


if __name__ == "__main__":
    main()
