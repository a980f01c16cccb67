"""How tests read additions."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from cosremaster.io.spool import Spool
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.items import ReadContext, prepare_item
from cosremaster.overlay.request import OverlayItem
from cosremaster.progress import SilentProgress
from cosremaster.records import replace
from cosremaster.tree.limits import MAX_NUMBER, Limits


def context(newest: int | None = None, largest: int = MAX_NUMBER, spool: Spool | None = None) -> ReadContext:
    """A context whose spool goes away with it."""
    spool = spool or Spool(Path(tempfile.gettempdir()))
    limits = Limits("a cpio archive", largest)
    return ReadContext(max_mtime=newest, limits=limits, spool=spool, progress=SilentProgress(), warn=lambda _: None)


def read_addition(item: OverlayItem, context: ReadContext) -> tuple[Addition, tuple[str, ...]]:
    """The only addition of an item that depends on no file system, and the warnings of reading it."""
    warnings: list[str] = []
    (addition,) = prepare_item(item, replace(context, warn=warnings.append)).additions({})
    return addition, tuple(warnings)


def read_additions(items: Iterable[OverlayItem], context: ReadContext) -> tuple[tuple[Addition, ...], tuple[str, ...]]:
    """The additions of several items in order, and all warnings."""
    results = [read_addition(item, context) for item in items]
    return tuple(addition for addition, _ in results), tuple(line for _, lines in results for line in lines)
