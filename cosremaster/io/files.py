"""A file of this machine as a source of bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cosremaster.errors import ImageError, Place
from cosremaster.io.descriptors import read_into
from cosremaster.io.source import SourceIdentity
from cosremaster.io.streams import CHUNK

if TYPE_CHECKING:
    from pathlib import Path


SHOWN_NAMES: dict[str, str] = {}
"""Paths that say nothing to people, and what is shown in place of them."""


class FileSource:
    """A file opened for reading; see :class:`~cosremaster.io.source.ByteSource`.

    :raises ImageError: the path cannot be opened, or is no regular file or block device.
    """

    is_far = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file at ``path``."""
        self._path = os.fspath(path)
        self.name = SHOWN_NAMES.get(self._path, self._path)
        self.place = Place((self.name,))
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait
        except OSError as error:
            from cosremaster.suggestions import suggest_file  # noqa: PLC0415 - only where a file is not there

            meant = suggest_file(path, error)
            raise ImageError(f"cannot be opened: {error.strerror}{meant}", self.place) from error
        try:
            self.size = os.lseek(self.descriptor, 0, os.SEEK_END)
            os.pread(self.descriptor, 1, 0)
        except OSError as error:
            reason = self._describe_refusal(error)
            os.close(self.descriptor)
            raise ImageError(reason, self.place) from error
        status = self._status()
        self._stamp, self._inode = _stamp_of(status), (status.st_ctime_ns, status.st_nlink)

    def _describe_refusal(self, error: OSError) -> str:
        """Return why what is opened is no file to read at any offset, as ``error`` of the system shows."""
        import stat  # noqa: PLC0415 - only where something is no file

        mode = self._status().st_mode
        if stat.S_ISDIR(mode):
            return "is a directory, and no image"
        if stat.S_ISFIFO(mode):
            return "is a pipe, which is read as standard input alone (-)"
        return f"cannot be read at any offset: {error.strerror}"

    @property
    def local_paths(self) -> tuple[Path, ...]:
        """The file's path; none for a file that has no name."""
        from pathlib import Path  # noqa: PLC0415 - a plain listing needs none of it

        return (Path(self._path),) if self._status().st_nlink else ()

    def __repr__(self) -> str:
        """Return the class and the path."""
        return f"FileSource({self.name!r})"

    def __enter__(self) -> FileSource:
        """Return the source itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """End reading."""
        with suppress(OSError):  # nothing was written
            os.close(self.descriptor)

    def _status(self) -> os.stat_result:
        """Return the status of the file. :raises ImageError: there is none."""
        try:
            return os.fstat(self.descriptor)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}", self.place) from error

    def check_unchanged(self) -> None:
        """Compare size and time with those at the opening. :raises ImageError: somebody wrote to the file since."""
        if _stamp_of(self._status()) != self._stamp:
            raise ImageError("changed while it was being read", self.place)

    def check_untouched(self) -> None:
        """Compare also the time of the kernel's clock, as who writes may set the other back. Raises as the above.

        A name more or less changes it too, and no byte: so does another file that is renamed over this one.
        """
        status = self._status()
        stamp, inode = _stamp_of(status), (status.st_ctime_ns, status.st_nlink)
        if (stamp, inode) == (self._stamp, self._inode):
            return
        if stamp != self._stamp or inode[1] == self._inode[1]:
            raise ImageError("changed while it was being read", self.place)
        self._inode = inode

    def identity(self) -> SourceIdentity:
        """Return device and inode; size, and the times of the last change of data and inode in nanoseconds."""
        status = self._status()
        return SourceIdentity(
            f"{status.st_dev:x}-{status.st_ino:x}",
            {"size": self.size, "mtime": status.st_mtime_ns, "ctime": status.st_ctime_ns},
            stat.S_ISREG(status.st_mode),
            bool(status.st_nlink),
        )

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer where the file ends. :raises ImageError: a read fails."""
        parts: list[bytes] = []
        while length > 0 and offset < self.size:  # tables hold 64-bit places, more than pread(2) takes
            try:
                part = os.pread(self.descriptor, length, offset)
            except OSError as error:
                raise ImageError(f"cannot be read: {error.strerror}", self.place.at(offset)) from error
            if len(part) == length and not parts:  # the usual case
                return part
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on. :raises ImageError: the file ends before."""
        end = offset + length
        while offset < end:
            data = self.read(offset, min(CHUNK, end - offset))
            if not data:
                raise ImageError(f"ends {end - offset:,} bytes too early", self.place.at(offset))
            yield data
            offset += len(data)

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, from byte ``offset`` on. :raises ImageError: the file ends before."""
        size = sum(map(len, views))
        try:
            count = read_into(self.descriptor, offset, views)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}", self.place.at(offset)) from error
        if count < size:
            raise ImageError(f"ends {size - count:,} bytes too early", self.place.at(offset + count))


def _stamp_of(status: os.stat_result) -> tuple[int, int]:
    """Return the size in bytes, and the time of the last change in nanoseconds."""
    return status.st_size, status.st_mtime_ns
