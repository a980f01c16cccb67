"""An image that is written to standard output."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosremaster.cli.standard_streams import write_bytes
from cosremaster.errors import UsageError
from cosremaster.io.source import open_source

if TYPE_CHECKING:
    from cosremaster.api.results import Result


def stream_result(remaster: Callable[[Path], Result], options: Mapping[str, Any]) -> Result:
    """Call ``remaster`` with a temporary file, and write that to standard output when it is proved.

    ``options`` are those about outputs, as given.

    :raises UsageError: standard output is a terminal, or an option wants a name for the output.
    """
    if sys.stdout.isatty():
        raise UsageError("standard output is a terminal, and OUT - writes the image there")
    if options.get("digest") is not None:
        raise UsageError(f"--digest {options['digest']}: an image on standard output has no name for it")
    with tempfile.TemporaryDirectory(prefix="cosremaster-") as folder:
        target = Path(folder) / "image"
        result = remaster(target)
        with open_source(target) as image:
            target.unlink()
            write_bytes(image.chunks(0, image.size))
    return result
