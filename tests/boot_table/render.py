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
# Which images boot after an edit, and what an edit keeps

`make boot-table` makes this page from its measurements (`docs/boot.json`). The images are small. Most are made with the
tools that `tests/fixtures/families.py` names; three are from Debian packages. Measured with
{tools}.

- inspect: `cosremaster inspect` ends with exit code 0. copy: `cosremaster IN OUT` writes the same bytes.
- edit: files of the ISO's tree are replaced by longer ones (`--add-iso`). "same size" means that longer files are
  refused, because a structure would have to change that cosremaster does not rewrite; files of the same length work.
- verify: `cosremaster verify` finds no fault in the image, and `verify --against` none in the edited image.
- The second table is the boot in QEMU, before -> after the edit. A disc is an optical drive. A disk is a hard disk or a
  USB stick, which does not use El Torito. The boot loader prints words from a replaced file, so "yes" after the edit
  means that it read the new file. memtest86+ reads no file: there the test waits for its start. "-" means that the
  image is not made to boot in this way, or prints nothing.

`make test` measures inspect, copy, edit and verify again for every family except the one above 4 GiB, and boots the
edited images (`tests/tools/test_families.py`). Only `make boot-table` boots the originals and measures the other tools.
"""

_PEERS = """\
## Comparison with other tools

Four tools replace one file of the tree (`{path}`) with a longer one. Each is used
as its users do: xorriso with `-boot_image any replay`, pycdlib with `rm_file` and `add_fp`, genisoimage on a copy of
the tree with the boot options given again. "kept" means that the structure is there as often as before, and that
`cosremaster verify --against` finds no fault in it. "boots" is the result of QEMU. "no image" means that the tool
refused. For grub-mkrescue's image cosremaster was told to give up the HFS+ file system (`--drop-hfsplus`), because that
also refers to the file; so its partition is lost.
"""


def render(results: Mapping[str, Any]) -> str:
    """Return the page."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    tools = ", ".join(f"{name} {version}" for name, version in results["tools"].items())
    yield _HEAD.format(tools=tools)
    yield "| family | example | inspect | copy | edit | verify |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, row in results["families"].items():
        marks = (row["inspect"], row["copy"], row["edit"], row["verify"])
        yield f"| {name} | {row['made']} | {' | '.join(_mark(mark) for mark in marks)} |"
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
    """Return the results as they were measured."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    return results
