"""A pause for the garbage collector, while what is made is no garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MUCH_NEW = 200_000
"""Values that were made and not given up when the garbage collector looks for cycles among them: an index is several
small ones for each entry, and no garbage."""


def spare_modules() -> None:
    """Let the garbage collector not look at the modules that are loaded, and seldom at what is new."""
    gc.freeze()  # modules stay, now and later
    gc.set_threshold(MUCH_NEW)


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector for the context."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
