"""``make bench``: our figures beside those of the hand-made steps and plain tools, as ratios in one run.

Timings never decide anything: the exit code is 0 whatever they are. ``python -m benchmarks GROUP...`` measures some
groups only, in this order; ``--write`` puts what was measured into docs/benchmarks.md after each group: a new page
where all groups are measured, else their rows alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import images
from benchmarks.groups import COMPARED, GROUPS
from benchmarks.measure import Row, machine, measured
from benchmarks.pages import page, renewed, restarted, shown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
TOOLS = (
    *images.TOOLS, "bsdtar", "genisoimage", "7z", "mksquashfs", "unsquashfs", "gensquashfs", "rdsquashfs",
    "zstd", "wrk", "nginx", "xdelta3", "mkfs.xfs", "mkfs.btrfs",
)  # fmt: skip


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    missing = [tool for tool in TOOLS if not (Path(tool).exists() if tool.startswith("/") else shutil.which(tool))]
    if missing:
        sys.exit(f"bench needs what is not installed: {', '.join(missing)} (make tools)")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode beside it
    print(machine(), flush=True)
    names, rows = options.groups or list(GROUPS), list[Row]()
    is_whole = {*names} == {*GROUPS}
    with tempfile.TemporaryDirectory(prefix="cosremaster-bench-") as folder:
        if options.write and is_whole:
            PAGE.write_text(restarted(PAGE.read_text()))
        for name in names:
            found = list(measured(GROUPS[name], Path(folder)))
            for row in found:
                print(shown(row), flush=True)
            rows += found
            if options.write:
                PAGE.write_text(renewed(PAGE.read_text(), found, COMPARED))
    if options.write and is_whole:
        rows.sort(key=lambda row: COMPARED.index(row.compared))
        PAGE.write_text(page(rows, images.described()))


if __name__ == "__main__":
    main()
