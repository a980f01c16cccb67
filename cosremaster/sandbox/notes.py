"""Sentences about a run: how it ended, and what differs from a run as root of a real system."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence

from cosremaster.errors import ScriptError, printable
from cosremaster.sandbox.proxy import NetworkUse
from cosremaster.sandbox.settings import Bounds
from cosremaster.units import format_size

_DROPPED = {
    "socket": "sockets are not taken over, as they mean nothing without the process behind them",
    "whiteout": "character devices 0:0 are not taken over, as stacked file systems take them for removals",
}
_SHOWN = 3


def make_end_error(code: int, bound: str, bounds: Bounds) -> ScriptError | None:
    """Return the error for a script that did not end by itself, or ended with ``code`` when a ``bound`` was reached.

    ``code`` is negative for a signal. None: the caller knows what to make of the code.
    """
    status = code if code >= 0 else 128 - code
    full = f"; {describe_bound(bound, bounds)}" if bound else ""
    if code < 0:
        reason = " (a call or a program that cannot run here)" if code == -signal.SIGSYS else ""
        return ScriptError(f"it was ended by signal {-code}{reason}{full}", exit_status=status)
    if code and bound:
        return ScriptError(f"it ended with exit code {code}{full}", exit_status=status)
    return None


def describe_bound(bound: str, bounds: Bounds) -> str:
    """Return the sentence for a file system that is full: of bytes (``size``) or of files (``inodes``)."""
    if bound == "inodes":
        return f"the {bounds.inodes:,} files that its file system may have were not enough"
    return f"the {format_size(bounds.size)} that its file system may hold were not enough"


def describe_losses(displaced: Iterable[bytes], dropped: Sequence[tuple[str, bytes]]) -> Iterator[str]:
    """Yield sentences on what a script saw otherwise than in the image, and on what is not taken over."""
    for path in displaced:
        yield f"/{printable(path)} was an empty directory meanwhile, and stays what it is in the image"
    for word, sentence in _DROPPED.items():
        paths = [f"/{printable(path)}" for kind, path in dropped if kind == word]
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        if paths:
            yield f"{sentence}: {', '.join(paths[:_SHOWN])}{more}"


def describe_use(use: NetworkUse) -> Iterator[str]:
    """Yield sentences about the servers that a script reached, and those that it was refused."""
    if use.requests:
        yield "servers that it reached: " + ", ".join(f"{name} ({count:,})" for name, count in use.requests.items())
    if use.refused:
        yield "servers that it was refused: " + ", ".join(use.refused)
