"""Deltas applied by xdelta3."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.tools import run


def apply_by_xdelta3(base: Path, delta: Path, target: Path) -> bytes:
    """What xdelta3 without options makes of ``delta``."""
    run(["xdelta3", "-d", "-s", str(base), str(delta), str(target)])
    return target.read_bytes()
