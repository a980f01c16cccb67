"""How tests read additions."""

import tempfile
from pathlib import Path

from cosremaster.io.files import Spool
from cosremaster.layers.cpio import newc as cpio
from cosremaster.overlay.read import Reading
from cosremaster.progress import Silent


def reading(newest: int | None = None, largest: int = cpio.MAX_FIELD) -> Reading:
    """A reading whose spool goes away with it."""
    spool = Spool(Path(tempfile.gettempdir()))
    return Reading(newest=newest, largest=largest, spool=spool, progress=Silent())
