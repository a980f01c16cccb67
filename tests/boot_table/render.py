"""docs/boot.md from docs/boot.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULTS, PAGE = DOCS / "boot.json", DOCS / "boot.md"
WAYS = {"bios disc": "BIOS disc", "bios disk": "BIOS disk", "uefi disc": "UEFI disc", "uefi disk": "UEFI disk"}

_HEAD = """\
# What boots, and what survives

Made by `make boot-table` from what it measured (`docs/boot.json`); nothing here is written by hand. The images are
small ones made by the tools named in `tests/fixtures/families.py`, and three that Debian packages. Measured with
{tools}.

- inspect: `cosremaster inspect` ends with 0. Copy: `cosremaster IN OUT` gives the same bytes.
- edit: files of the tree are exchanged for longer ones (`--add-iso`). "same size": refused when longer, because
  something that we do not rewrite would have to change, and done when as long.
- verify: the image is sound, and so is the edited one beside it (`cosremaster verify --against`).
- boots: in QEMU, before -> after the edit. A disc is an optical drive; a disk has no El Torito. The loader prints words
  that stand in an exchanged file, so "yes" after the edit means that the new file was read. memtest86+ reads
  no file: there it is heard to start. "-": not made to boot that way, or says nothing there.

`make test` measures inspect, copy, edit and verify again for every family but the one above 4 GiB, and boots the edited
images (`tests/tools/test_families.py`). The originals' boots and the peers are measured by `make boot-table` alone.
"""

_PEERS = """\
## The peers beside us

One file of the tree (`{path}`) exchanged for a longer one, by four tools, each used
as its users do: xorriso with `-boot_image any replay`, pycdlib with `rm_file` and `add_fp`, genisoimage over a copied
tree with the boot options typed again. "kept": there as often as before, and `cosremaster verify --against` finds no
fault with it. "boots" is QEMU's word. "no image": the tool refused. On grub-mkrescue's image cosremaster gives up the
HFS+ file system, which names the file too, because it was told to (`--drop-hfsplus`): that partition is lost.
"""


def render(results: Mapping[str, Any]) -> str:
    """The page."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    tools = ", ".join(f"{name} {version}" for name, version in results["tools"].items())
    yield _HEAD.format(tools=tools)
    yield "| family | made so by | inspect | copy | edit | verify |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, row in results["families"].items():
        marks = (row["inspect"], row["copy"], row["edit"], row["verify"])
        yield f"| {name} | {row['made']} | {' | '.join(_mark(one) for one in marks)} |"
    yield ""
    yield "| family | " + " | ".join(WAYS.values()) + " |"
    yield "| --- |" + " --- |" * len(WAYS)
    for name, row in results["families"].items():
        if row["boots"]:
            yield f"| {name} | " + " | ".join(_boot(row["boots"], way) for way in WAYS) + " |"
    yield ""
    yield _PEERS.format(path=results["peers_exchange"])
    for name, rows in results["peers"].items():
        tools_used = list(next(iter(rows.values())))
        yield f"### {name}"
        yield ""
        yield "| | " + " | ".join(tools_used) + " |"
        yield "| --- |" + " --- |" * len(tools_used)
        for what, marks in rows.items():
            yield f"| {what} | " + " | ".join(marks[tool] for tool in tools_used) + " |"
        yield ""


def _mark(value: object) -> str:
    return {True: "yes", False: "NO"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _boot(boots: Mapping[str, Any], way: str) -> str:
    if way not in boots:
        return "-"
    before, after = boots[way]
    return f"{_mark(before)} -> {'not edited' if after is None else _mark(after)}"


def load() -> dict[str, Any]:
    """The results as they were measured."""
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found
