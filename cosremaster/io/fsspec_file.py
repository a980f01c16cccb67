"""A file that fsspec reads: object stores and whatever else it has a file system for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from cosremaster.errors import ImageError, Place, UnsupportedError, UsageError, printable
from cosremaster.io.fetched_blocks import BLOCK_SIZE
from cosremaster.io.urls import AbsentFileError, ChangedFileError, Url

_VALIDATORS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "modified", "updated", "created")
"""What file systems call that which changes with a file."""

_T = TypeVar("_T")
_logger = logging.getLogger("cosremaster")


class FsspecFile:
    """A file of an fsspec file system; see :class:`~cosremaster.io.remote.RemoteFile`.

    Its requests hold no condition: a change while it is read is noticed at the end alone, and only where the file
    system tells a version, size or time.

    :raises ImageError: it is not there. :raises UsageError: there is no such scheme.
    :raises UnsupportedError: what reads it is not installed.
    """

    is_here = is_conditional = False

    def __init__(self, url: Url) -> None:
        """Look the file up."""
        self._url, self._place = url, Place((printable(str(url)),))
        self._system, self._path = _find_file_system(url, self._place)
        info = self._ask(lambda: self._system.info(self._path))
        if info.get("type") == "directory" or not isinstance(info.get("size"), int):
            raise ImageError("is no file of a known size", self._place)
        self.size: int = info["size"]
        self.state: dict[str, int | str] = {
            name: str(info[name]) for name in _VALIDATORS if info.get(name) not in (None, "")
        }
        self.is_dated = bool(self.state)
        self.head = self.fetch(0, min(BLOCK_SIZE, self.size)) if self.size else b""
        seen = "a change while it is read is seen at the end alone" if self.is_dated else "a change goes unseen"
        _logger.warning("%s: is read through fsspec, so %s", url, seen)

    def close(self) -> None:
        """Do nothing: the file system keeps its connections."""

    def check_unchanged(self) -> None:
        """Look the file up again. :raises ImageError: it is another now."""
        self._system.invalidate_cache()
        info = self._ask(lambda: self._system.info(self._path))
        if info.get("size") != self.size or any(str(info.get(name)) != value for name, value in self.state.items()):
            raise ChangedFileError("changed while it was being read", self._place)

    check_current = check_unchanged

    def fetch(self, start: int, end: int) -> bytes:
        """Return the bytes ``start`` to ``end``. :raises ImageError: they cannot be had."""
        data: bytes = self._ask(lambda: self._system.cat_file(self._path, start=start, end=end))
        if len(data) != end - start:
            raise ImageError(f"has {len(data):,} bytes where {end - start:,} should be", self._place.at(start))
        return data

    def _ask(self, question: Callable[[], _T]) -> _T:
        """Return the answer to ``question``. :raises ImageError: it fails, whatever the file system raises."""
        try:
            return question()
        except FileNotFoundError as error:
            raise AbsentFileError("is not there", self._place) from error
        except PermissionError as error:
            raise ImageError("access is refused", self._place) from error
        except Exception as error:  # each file system has errors of its own
            raise ImageError(f"cannot be read: {_first_line(error, self._url)}", self._place) from error


def _find_file_system(url: Url, place: Place) -> tuple[Any, str]:
    """Return the file system that reads ``url``, and the path in it. Raises as :class:`FsspecFile`."""
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - optional, and takes 0.1 s
    except ImportError as error:
        raise UnsupportedError(
            f"{url.scheme}: URLs are read through fsspec, which is not installed here (pip install fsspec)", place
        ) from error
    try:
        system, path = url_to_fs(url.text)
    except ImportError as error:
        message = f"{url.scheme}: URLs need more than is installed here: {_first_line(error, url)}"
        raise UnsupportedError(message, place) from error
    except ValueError as error:
        raise UsageError(f"{place}: {url.scheme}: is no scheme of URLs that is known") from error
    except Exception as error:  # each file system has errors of its own
        raise ImageError(f"cannot be read: {_first_line(error, url)}", place) from error
    return system, path


def _first_line(error: BaseException, url: Url) -> str:
    """Return the first line of what ``error`` says, without the secrets of ``url``."""
    lines = url.redact(str(error)).splitlines()
    return printable(lines[0][:200]) if lines else type(error).__name__
