"""Standard output and standard error, which may be closed, full, gone, or of an encoding without most characters.

What cannot be written to standard output is an error of its own, so that the exit code tells it from failed checks and
from work that failed. Messages that cannot be written stop nothing. Nothing here loads click.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TextIO

from cosremaster.errors import OutputError, Place

_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR = range(3)


class StandardOutputError(OutputError):
    """Standard output cannot be written."""


class PipeClosedError(StandardOutputError):
    """The reader of standard output is gone. A program that does not look dies of SIGPIPE then."""

    exit_code: ClassVar[int] = 128 + signal.SIGPIPE


class _OutputFile(io.FileIO):
    """Standard output as bytes; after the first error all else is dropped."""

    _is_broken = False

    def write(self, data: Any) -> int:
        """Write ``data`` and return how many bytes of it. :raises StandardOutputError: they cannot be written."""
        if self._is_broken:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._is_broken = True
            kind = PipeClosedError if error.errno == errno.EPIPE else StandardOutputError
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise kind(f"cannot be written: {reason}", Place(("standard output",))) from error


class _MessageFile(io.FileIO):
    """Standard error as bytes; what cannot be written is dropped, as no work should fail for a message."""

    def write(self, data: Any) -> int:
        """Write ``data`` and return how many bytes of it."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def prepare_streams() -> None:
    """Replace the standard streams of this process by ones that report or ignore errors, as this module says.

    A descriptor that is closed is opened, but not for what it is for. Else the next file that is opened would get its
    number, and messages would go into an image.
    """
    for number in (_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == _STANDARD_INPUT else os.O_RDONLY)  # the lowest that is free
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    sys.stdout = _text_stream(_OutputFile(_STANDARD_OUTPUT, "w", closefd=False), sys.stdout)
    sys.stderr = _text_stream(_MessageFile(_STANDARD_ERROR, "w", closefd=False), sys.stderr)


def _text_stream(raw: io.FileIO, old: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream over ``raw`` with the encoding of ``old``; characters that it lacks are escaped."""
    encoding = "utf-8" if old is None else old.encoding
    lines = raw.isatty() or isinstance(raw, _MessageFile)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=lines)


def write_text(text: str) -> None:
    """Write ``text`` to standard output in one go."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_bytes(chunks: Iterable[bytes]) -> None:
    """Write ``chunks`` to standard output."""
    sys.stdout.flush()
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def write_json(values: object) -> None:
    """Write ``values`` to standard output as JSON (docs/json.md). What the encoding lacks is escaped as JSON does."""
    import codecs  # noqa: PLC0415 - a plain listing needs none of it
    import json  # noqa: PLC0415 - the same

    is_unicode = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    write_text(json.dumps(values, indent=2, ensure_ascii=not is_unicode) + "\n")


@contextmanager
def reporting_finished_work(work: str) -> Iterator[None]:
    """Print in the context what was done, in ``work``; if that cannot be said, only a message tells so."""
    try:
        yield
        sys.stdout.flush()
    except PipeClosedError:
        return  # who reads no further has seen enough
    except StandardOutputError as error:
        sys.stderr.write(f"cosremaster: {work}; {error}\n")
