"""Measures everything, writes docs/boot.json and docs/boot.md. Names of families measure those alone."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.boot_table import measure, peers
from tests.boot_table.render import PAGE, RESULTS, load, render
from tests.fixtures import families
from tests.fixtures.tools import run

VERSIONS = {
    "xorriso": (["xorriso", "-version"], r"xorriso version +: +(\S+)"),
    "genisoimage": (["genisoimage", "-version"], r"genisoimage (\S+)"),
    "QEMU": (["qemu-system-x86_64", "--version"], r"version (\S+)"),
}


def main(wanted: list[str]) -> int:
    """Measures the families named in ``wanted``, or all."""
    results = load() if RESULTS.exists() else {"families": {}, "peers": {}}
    results["tools"] = {name: _version(*how) for name, how in VERSIONS.items()}
    results["tools"]["pycdlib"] = version("pycdlib")
    results["peers_exchange"] = families.PAYLOAD
    for name in wanted or families.FAMILIES:
        with tempfile.TemporaryDirectory(prefix="boot-table-") as folder, contextlib.redirect_stdout(io.StringIO()):
            row = asdict(measure.measure(name, Path(folder)))
        print(f"{name}: {row['edit']}, verify {row['verify']}, boots {row['boots']}", flush=True)
        results["families"][name] = row
        _write(results)
    for name in peers.FAMILIES:
        if not wanted or name in wanted:
            with tempfile.TemporaryDirectory(prefix="boot-table-") as folder, contextlib.redirect_stdout(io.StringIO()):
                results["peers"][name] = peers.measure(name, Path(folder))
            print(f"{name}: peers measured", flush=True)
            _write(results)
    return 0


def _write(results: dict[str, Any]) -> None:
    """Both files, families in their order."""
    order = list(families.FAMILIES)
    results["families"] = {name: results["families"][name] for name in order if name in results["families"]}
    results["peers"] = {name: results["peers"][name] for name in peers.FAMILIES if name in results["peers"]}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=False) + "\n")
    PAGE.write_text(render(load()))


def _version(command: list[str], pattern: str) -> str:
    found = re.search(pattern, run(command).decode())
    return found[1] if found else "?"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
