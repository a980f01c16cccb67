"""How tests read additions."""

import tempfile
from pathlib import Path

from cosremaster.io.files import Spool
from cosremaster.layers.cpio import newc as cpio
from cosremaster.overlay.read import ReadContext
from cosremaster.progress import Silent


def reading(newest: int | None = None, largest: int = cpio.MAX_FIELD) -> ReadContext:
    """A reading whose spool goes away with it."""
    spool = Spool(Path(tempfile.gettempdir()))
    return ReadContext(max_mtime=newest, max_file_size=largest, spool=spool, progress=Silent())
