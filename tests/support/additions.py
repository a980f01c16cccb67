"""How tests read additions."""

import tempfile
from pathlib import Path

from cosremaster.io.files import Spool
from cosremaster.overlay.read import ReadContext
from cosremaster.progress import SilentProgress
from cosremaster.tree.limits import MAX_NUMBER, Limits


def reading(newest: int | None = None, largest: int = MAX_NUMBER) -> ReadContext:
    """A reading whose spool goes away with it."""
    spool = Spool(Path(tempfile.gettempdir()))
    return ReadContext(
        max_mtime=newest, limits=Limits("a cpio archive", largest), spool=spool, progress=SilentProgress()
    )
