"""Sources of bytes that can be read at any offset: the protocol, and how one is opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from cosremaster.io.clone import block_size_of, cut_at_blocks, share_range
from cosremaster.io.descriptors import Failure, data_runs, leave_hole, may_share_blocks, read_ahead, write_all
from cosremaster.io.pieces import Source
from cosremaster.io.streams import CHUNK
from cosremaster.io.urls import Url, is_url, parse_image_path
from cosremaster.lazy_log import LazyLogger
from cosremaster.records.tuples import NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from cosremaster.errors import Place
    from cosremaster.io.urls import ImagePath

_LOG = LazyLogger(__name__)

COPY_STEP = 1 << 23
"""Bytes that the kernel copies in one call: what is written goes to the disk while the next are copied."""

_FEW = 1 << 16
"""Bytes that are not worth a call of the kernel's: on btrfs it waits for the disk where a block is begun already."""

_NO_COPY = frozenset(
    (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY)
)
_ZEROS = bytes(CHUNK)
_QCOW2_MAGIC = b"QFI\xfb"


class SourceIdentity(NamedTuple):
    """Says which source it is, and in which state, without reading it.

    ``name`` is equal for one source whenever it is opened, and may be part of a file name. ``state`` (JSON values)
    changes when the bytes change, where the source ``is_dated``: a device does not tell of another medium.
    ``has_name``: it may be opened again later, so that it makes sense to remember something about it.
    """

    name: str
    state: dict[str, int | str]
    is_dated: bool = True
    has_name: bool = True


class ByteSource(Source, Protocol):
    """An image, or another file, that is read at any offset from any thread. It closes with its context.

    It is no :class:`~cosremaster.io.pieces.DirectSource` (which has ``fill``): the kernel copies the bytes of an image
    to the output, so they must not be joined with others in one piece.
    """

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    @property
    def place(self) -> Place:
        """Its place in messages."""
        ...

    @property
    def local_paths(self) -> tuple[Path, ...]:
        """The files of this machine that it reads, which no output may replace; empty if there is none."""
        ...

    @property
    def descriptor(self) -> int | None:
        """A file descriptor from which the kernel can copy (copy_file_range(2)); None if there is none."""
        ...

    @property
    def is_far(self) -> bool:
        """Whether each read may be a request to another machine."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer where the source ends. :raises ImageError: a read fails."""
        ...

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, from byte ``offset`` on. :raises ImageError: the source ends before."""
        ...

    def identity(self) -> SourceIdentity:
        """Return its identity, by which an index that was kept is recognized."""
        ...

    def check_unchanged(self) -> None:
        """Compare its state with that at its opening. :raises ImageError: somebody wrote to it since."""
        ...

    def close(self) -> None:
        """End reading."""
        ...

    def __enter__(self) -> ByteSource:
        """Return the source itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close the source."""
        ...


def open_source(path: ImagePath) -> ByteSource:
    """Open the file or block device at ``path``, which may be a URL, for reading; of a qcow2 image, the disk in it.

    :raises ImageError: it cannot be opened, or is no regular file or block device. Raises as ``Qcow2Source``, and for
        a URL as ``open_remote``.
    """
    from cosremaster.io.files import FileSource  # noqa: PLC0415 - the kind of source depends on the path

    file: ByteSource
    place = path if isinstance(path, Url) or not is_url(os.fspath(path)) else parse_image_path(path)
    if isinstance(place, Url):
        from cosremaster.io.remote import open_remote  # noqa: PLC0415 - as above

        file = open_remote(place)
    else:
        file = FileSource(place)
    if file.read(0, len(_QCOW2_MAGIC)) != _QCOW2_MAGIC:
        _LOG.info("opened %s: %d bytes", file.place, file.size)
        return file
    from cosremaster.io.qcow2 import Qcow2Source  # noqa: PLC0415 - few images are

    try:
        disk = Qcow2Source(file, FileSource)
    except BaseException:
        file.close()
        raise
    _LOG.info("opened %s: a disk of %d bytes in a qcow2 image", file.place, disk.size)
    return disk


def own_bytes(source: ByteSource) -> ByteSource:
    """Return the bytes of the file that ``source`` was opened from: those of a qcow2 image, not of the disk in it."""
    return getattr(source, "file", source)


def keep_whole(source: ByteSource) -> None:
    """Let all bytes of a far ``source`` stay on this machine once they came, whatever room they take."""
    file = own_bytes(source)
    if file.is_far:
        from cosremaster.io.remote import RemoteSource  # noqa: PLC0415 - few images are far

        assert isinstance(file, RemoteSource)
        file.keep_whole()


def check_fetched(source: ByteSource) -> None:
    """Check that what was fetched of a far ``source`` is of one file. :raises ImageError: it may not be."""
    file = own_bytes(source)
    if file.is_far:
        from cosremaster.io.remote import RemoteSource  # noqa: PLC0415 - few images are far

        if isinstance(file, RemoteSource):  # else it is made of one that has an owner
            file.check_fetched()


def open_base(path: ImagePath) -> ByteSource:
    """Open the file at ``path``, which may be a URL, as it is. Raises as :func:`open_source`."""
    place = parse_image_path(path)
    if isinstance(place, Url):
        from cosremaster.io.remote import open_remote  # noqa: PLC0415 - as above

        return open_remote(place)
    return open_file(place)


def open_file(path: str | os.PathLike[str]) -> ByteSource:
    """Open the file at ``path`` as it is, whatever is in it. :raises ImageError: it cannot be opened, or is none."""
    from cosremaster.io.files import FileSource  # noqa: PLC0415 - as above

    return FileSource(path)


def copy_bytes(
    source: ByteSource, fd: int, offset: int, length: int, failure: Failure,
    observe: Callable[[bytes | memoryview], None] | None = None,
) -> Iterator[int]:  # fmt: skip
    """Copy ``length`` bytes of ``source`` from ``offset`` to where ``fd`` stands; yield what each step copied.

    Where both file systems can, blocks are shared; else the kernel copies, or they are read and written. Holes
    stay holes: a new file has to be made as long as it is to be. An OSError of writing becomes ``failure(error)``.
    ``observe`` is called with all bytes, which are then read and written, as the kernel shows nothing.

    :raises ImageError: the source ends before.
    """
    for start, count, is_data in _runs(source, offset, length):
        if is_data:
            yield from _copy_data(source, fd, start, count, failure, observe)
            continue
        leave_hole(fd, count, failure)
        for position in range(0, count, CHUNK) if observe is not None else ():
            assert observe is not None
            observe(_ZEROS[: min(CHUNK, count - position)])
        yield count


def is_zero(source: ByteSource, offset: int, length: int) -> bool:
    """Return whether ``source`` has ``length`` bytes from ``offset`` on and all are zeros; holes are not read.

    A hole begins and ends with a block of the file system, so data may stand at both ends of a run of zeros.
    """
    return offset + length <= source.size and next(data_chunks(source, offset, length), None) is None


def data_chunks(source: ByteSource, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
    """Yield the chunks of ``length`` bytes from ``offset`` on that are not all zeros, each with its offset.

    Holes are not read. :raises ImageError: the source ends before.
    """
    for start, count, is_data in _runs(source, offset, length):
        position = start
        for chunk in source.chunks(start, count) if is_data else ():
            if chunk != _ZEROS[: len(chunk)]:
                yield position, chunk
            position += len(chunk)


def _runs(source: ByteSource, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the runs of data and holes of ``source``, as :func:`~cosremaster.io.descriptors.data_runs` does."""
    fd = source.descriptor
    return data_runs(fd, offset, length) if fd is not None else iter([(offset, length, True)] if length else ())


def _can_share(source: ByteSource, fd: int, failure: Failure) -> bool:
    """Return whether the file ``fd`` may share blocks with ``source``. An OSError becomes ``failure(error)``."""
    try:
        return source.descriptor is not None and may_share_blocks(os.fstat(fd).st_dev)
    except OSError as error:
        raise failure(error) from error


def _copy_data(
    source: ByteSource, fd: int, offset: int, length: int, failure: Failure,
    observe: Callable[[bytes | memoryview], None] | None,
) -> Iterator[int]:  # fmt: skip
    """Copy a run without holes; see :func:`copy_bytes`."""
    source_fd = source.descriptor
    if source_fd is None or not _can_share(source, fd, failure):
        yield from _copy_part(source, fd, offset, length, failure, observe)
        return
    position = os.lseek(fd, 0, os.SEEK_CUR)
    for start, count, is_shareable in cut_at_blocks(offset, length, position, block_size_of(fd)):
        if is_shareable and share_range(source_fd, fd, start, count, position + start - offset):
            leave_hole(fd, count, failure)
            for view in read_ahead(source.read_into, start, count) if observe is not None else ():
                assert observe is not None
                observe(view)
            yield count
        else:
            yield from _copy_part(source, fd, start, count, failure, observe)


def _copy_part(
    source: ByteSource, fd: int, offset: int, length: int, failure: Failure,
    observe: Callable[[bytes | memoryview], None] | None,
) -> Iterator[int]:  # fmt: skip
    """Copy a run without holes that shares no blocks; the kernel does it where it can."""
    end, source_fd = offset + length, source.descriptor
    if source_fd is not None and hasattr(os, "copy_file_range") and observe is None and length > _FEW:
        while offset < end:
            try:
                count = os.copy_file_range(source_fd, fd, min(COPY_STEP, end - offset), offset)
            except OSError as error:
                if error.errno in _NO_COPY:
                    _LOG.debug("copy_file_range: %s; %s is read and written", error.strerror, source.place)
                    break
                raise failure(error) from error
            if not count:
                break
            offset += count
            yield count
    if offset < end:
        yield from _read_and_write(source, fd, offset, end - offset, failure, observe)


def _read_and_write(
    source: ByteSource, fd: int, offset: int, length: int, failure: Failure,
    observe: Callable[[bytes | memoryview], None] | None,
) -> Iterator[int]:  # fmt: skip
    """Copy a run without holes through this process."""
    for view in read_ahead(source.read_into, offset, length) if length > _FEW else source.chunks(offset, length):
        write_all(fd, view, failure)
        if observe is not None:
            observe(view)
        yield len(view)
