"""``cosremaster demo``: remaster a small image that is made on the spot."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from cosremaster.api.keywords import remaster
from cosremaster.api.results import Result
from cosremaster.demo.image import build_iso, debirf_files
from cosremaster.errors import OutputError, Place

OVERLAY = {
    "bin/site-check": ("#!/bin/sh\necho checking the site\n", 0o755),
    "etc/hostname": ("headend-7\n", 0o644),
    "etc/systemd/system/site.service": ("[Service]\nType=oneshot\nExecStart=/bin/site-check\n", 0o644),
    "etc/os-release": ('PRETTY_NAME="debirf demo"\n', 0o644),
}


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Write the ISO and the overlay of the demo into ``folder``, and return both paths."""
    image, overlay = folder / "in.iso", folder / "overlay"
    image.write_bytes(build_iso(debirf_files()))
    for name, (text, mode) in OVERLAY.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    return image, overlay


def run_demo(keep: Path | None, say: Callable[[str], None], report: Callable[[Result, Path], None]) -> None:
    """Make the inputs in ``keep`` (None: in a temporary folder), remaster the image, and report the result.

    :param say: prints the command that does the same.
    :param report: prints the result; its second argument is the path of the new image.
    :raises OutputError: ``keep`` cannot be created or written to, or another's file is there.
    """
    try:
        if keep is None:
            with tempfile.TemporaryDirectory(prefix="cosremaster-demo-") as folder:
                _remaster_in(Path(folder), say, report)
        else:
            keep.mkdir(parents=True, exist_ok=True)
            _check_is_ours(keep)
            _remaster_in(keep, say, report)
    except OSError as error:
        place = Place((str(keep or tempfile.gettempdir()),))
        raise OutputError(f"the demo cannot write there: {error.strerror or error}", place) from error


def _check_is_ours(folder: Path) -> None:
    """Check that ``folder`` has nothing under the names of the demo's files but what an earlier demo wrote there.

    :raises OutputError: it has, as an image of somebody else.
    """
    image, overlay, result = folder / "in.iso", folder / "overlay", folder / "out.iso"
    texts = {overlay / name: text.encode() for name, (text, _) in OVERLAY.items()}
    files = {image: build_iso(debirf_files()), **texts}
    others = [path for path, data in files.items() if os.path.lexists(path) and not _holds(path, data)]
    if not others and not image.exists() and os.path.lexists(result):
        others = [result]
    if others:
        reason = "exists already, and no demo wrote it; the name of a new folder is wanted"
        raise OutputError(reason, Place((str(others[0]),)))


def _holds(path: Path, data: bytes) -> bool:
    """Return whether the file ``path`` has the bytes ``data``."""
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _remaster_in(folder: Path, say: Callable[[str], None], report: Callable[[Result, Path], None]) -> None:
    """Make the inputs in ``folder`` and remaster the image."""
    image, overlay = write_inputs(folder)
    target = folder / "out.iso"
    say(f"$ cosremaster {image} {target} --add {overlay}/")
    report(remaster(image, target, add=[overlay], force=True), target)
