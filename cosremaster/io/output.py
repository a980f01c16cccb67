"""Writing a result: under a temporary name beside the target, and under its own name only when it was proved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from fastcrc import crc64
from msgspec import Struct

from cosremaster.errors import OutputError, Place, UsageError
from cosremaster.io.descriptors import MIN_HOLE, leave_hole, read_ahead, write_all, write_error
from cosremaster.io.framed import FramedSource
from cosremaster.io.pieces import Piece, PieceTable, Range, Zeros, direct_source
from cosremaster.io.precopy import Precopy, is_in_place
from cosremaster.io.source import ByteSource, copy_bytes, is_zero, open_source
from cosremaster.io.streams import digest_of

DIGESTS = ("sha256", "md5")


def check_digest_name(name: str) -> None:
    """Check that ``name`` is one of :data:`DIGESTS`. :raises UsageError: it is none."""
    if name not in DIGESTS:
        raise UsageError(f"no digest is called {name!r}; there are {', '.join(DIGESTS)}")


class NewBytes:
    """A run of written bytes that did not come from the input: its offsets and its CRC64."""

    def __init__(self, start: int) -> None:
        """Begin a run at byte ``start`` of the output."""
        self.start = self.end = start
        self.crc = 0

    def add(self, chunk: bytes | memoryview) -> None:
        """Continue the run with ``chunk``."""
        self.crc = crc64.xz(chunk, self.crc)
        self.end += len(chunk)

    def is_in(self, result: ByteSource) -> bool:
        """Return whether ``result`` holds the run as it was written."""
        crc = 0
        for view in read_ahead(result.read_into, self.start, self.end - self.start):
            crc = crc64.xz(view, crc)
        return crc == self.crc


class NewFrames(Struct, frozen=True):
    """A run of written frames whose CRC32 was known when they were planned."""

    start: int
    framed: FramedSource

    @property
    def end(self) -> int:
        """The byte behind the run."""
        return self.start + self.framed.length

    def is_in(self, result: ByteSource) -> bool:
        """Return whether ``result`` holds the planned frames."""
        return self.framed.crc == self.framed.crc32_of(
            lambda offset, views: result.read_into(self.start + offset, views)
        )


class NewHole(Struct, frozen=True):
    """A run of zeros that was not written: a hole in the file."""

    start: int
    end: int

    def is_in(self, result: ByteSource) -> bool:
        """Return whether ``result`` holds zeros there."""
        return is_zero(result, self.start, self.end - self.start)


NewRun: TypeAlias = NewBytes | NewFrames | NewHole


class Written(Struct, frozen=True):
    """A file written under a temporary name, and the runs of bytes in it that did not come from the input."""

    path: Path
    new_runs: tuple[NewRun, ...]


def _run_for(runs: list[NewRun], offset: int, piece: Piece) -> NewRun:
    """Return the run to which ``piece`` at ``offset`` belongs: the last of ``runs``, or a new one, which is added.

    Large holes and frames whose CRC32 is known are runs of their own.
    """
    if isinstance(piece, Zeros) and piece.length >= MIN_HOLE:
        runs.append(NewHole(offset, offset + piece.length))
        return runs[-1]
    if isinstance(piece, Range) and isinstance(piece.source, FramedSource):
        framed = piece.source
        if framed.crc is not None and piece.length == framed.length:
            runs.append(NewFrames(offset, framed))
            return runs[-1]
    if not runs or not isinstance(runs[-1], NewBytes) or runs[-1].end != offset:
        runs.append(NewBytes(offset))
    return runs[-1]


def _chunks_of(piece: Piece) -> Iterator[bytes | memoryview]:
    """Return an iterator over the bytes of ``piece``, each chunk valid until the next is taken."""
    source = direct_source(piece)
    if source is None or not isinstance(piece, Range):
        return piece.chunks()
    return read_ahead(source.fill, piece.offset, piece.length)


class Output:
    """A file to be made at ``target``. If the context ends before :meth:`publish`, no file remains.

    The new file's mode follows the umask.

    :param inputs: files that must not be overwritten.
    :param force: whether another existing file may be replaced.
    :param digest: one of :data:`DIGESTS`: also make a file ``target.DIGEST`` with one line, as sha256sum(1) writes it.
    :raises OutputError: the target exists, is an input or no regular file, or its folder is missing.
    """

    def __init__(self, target: Path, inputs: tuple[Path, ...], *, force: bool, digest: str | None = None) -> None:
        """Check the target; the file is made with the first write."""
        self.place = Place((str(target),))
        self._target = Path(os.path.realpath(target))
        self._force = force
        self._temporary: Path | None = None
        self._fd = -1
        self._precopy: Precopy | None = None
        self._digest = digest
        self._sidecar: Output | None = None
        if digest is not None:
            self._sidecar = Output(Path(f"{target}.{digest}"), inputs, force=force)
        try:
            self._check(inputs)
        except OSError as error:
            raise self._failure(error) from error

    def _check(self, inputs: tuple[Path, ...]) -> None:
        """Check the target before any work. :raises OutputError: it cannot be written to."""
        exists, folder = self._target.exists(), self._target.parent
        if exists and any(source.exists() and source.samefile(self._target) for source in inputs):
            raise OutputError("is the input itself, which is never changed", self.place)
        if self._target.is_dir():
            raise OutputError("is a directory", self.place)
        if exists and not self._target.is_file():
            raise OutputError("is no regular file", self.place)
        if exists and not self._force:
            raise OutputError("exists already (--force replaces it)", self.place)
        if not folder.is_dir():
            raise OutputError(f"cannot be written: there is no folder {folder}", self.place)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"cannot be written: no permission for folder {folder}", self.place)

    @property
    def folder(self) -> Path:
        """The folder of the target and its temporary files."""
        return self._target.parent

    def __enter__(self) -> Output:
        """Return the output itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file, if there is one."""
        try:
            self._close()
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)
                self._temporary = None
            if self._sidecar is not None:
                self._sidecar.__exit__()

    def start_precopy(self, source: ByteSource) -> None:
        """Begin to copy ``source`` under a temporary name; most likely much of it will be in the table to be written.

        :raises OutputError: no file can be made.
        """
        self._precopy = Precopy(source, self._open())

    def write(self, table: PieceTable, source: ByteSource | None, advance: Callable[[int], None]) -> Written:
        """Write ``table`` under a temporary name. The kernel copies ranges of ``source`` where it can.

        :raises OutputError: it cannot be written.
        """
        runs: list[NewRun] = []
        offset = 0
        fd = self._open()
        try:
            copied = 0 if self._precopy is None else self._precopy.reusable_front(table)
            self._truncate(fd, copied)
            for piece in table.pieces:
                if isinstance(piece, Range) and piece.source is source:
                    ready = copied - offset if is_in_place(piece, source, offset) else 0
                    counts = self._copy(fd, source, piece, min(max(ready, 0), piece.length))
                else:
                    counts = self._write_new(fd, piece, _run_for(runs, offset, piece))
                for count in counts:
                    advance(count)
                offset += piece.length
            self._truncate(fd, offset)  # to its full length, as a hole may be at the end
        finally:
            self._close()
        assert self._temporary is not None
        return Written(self._temporary, tuple(runs))

    def _copy(self, fd: int, source: ByteSource, piece: Range, ready: int) -> Iterator[int]:
        """Copy ``piece`` of ``source``, whose first ``ready`` bytes are written already; yield what each step adds."""
        if ready:
            leave_hole(fd, ready, self._failure)
            yield ready
        yield from copy_bytes(source, fd, piece.offset + ready, piece.length - ready, self._failure)

    def _truncate(self, fd: int, length: int) -> None:
        """Set the file's length to ``length`` bytes."""
        try:
            os.ftruncate(fd, length)
        except OSError as error:
            raise self._failure(error) from error

    def _write_new(self, fd: int, piece: Piece, run: NewRun) -> Iterator[int]:
        """Write ``piece``, which belongs to ``run``; yield what each step wrote."""
        if isinstance(run, NewHole):
            leave_hole(fd, piece.length, self._failure)
            yield piece.length
            return
        for chunk in _chunks_of(piece):
            write_all(fd, chunk, self._failure)
            if isinstance(run, NewBytes):
                run.add(chunk)
            yield len(chunk)

    def write_chunks(self, chunks: Iterable[bytes]) -> None:
        """Write ``chunks`` under a temporary name. :raises OutputError: they cannot be written."""
        assert self._precopy is None
        fd = self._open()
        try:
            for chunk in chunks:
                write_all(fd, chunk, self._failure)
        finally:
            self._close()

    def _open(self) -> int:
        """Return the descriptor of the file under a temporary name, which is made the first time."""
        if self._fd < 0:
            path = self.folder / f".cosremaster-{os.urandom(8).hex()}.part"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self._fd = os.open(path, flags, 0o666)
            except OSError as error:
                raise self._failure(error) from error
            self._temporary = path
        return self._fd

    def _close(self) -> None:
        """End the precopy and close the file. :raises OutputError: the file system reports an error."""
        precopy, self._precopy = self._precopy, None
        fd, self._fd = self._fd, -1
        try:
            if precopy is not None:
                precopy.stop()
        finally:
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError as error:  # some file systems report only now that they are full
                    raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        """Return the error to raise for ``error`` of the system."""
        return write_error(error, "the output", self.place)

    def publish(self) -> None:
        """Give the written file its name. :raises OutputError: another program made that file meanwhile."""
        assert self._temporary is not None
        if self._sidecar is not None and self._digest is not None:
            with open_source(self._temporary) as result:
                digest = digest_of(self._digest, result.chunks(0, result.size))
            line = digest.hex().encode() + b"  " + os.fsencode(self._target.name) + b"\n"
            self._sidecar.write_chunks([line])
        try:
            if self._force or not self._link(self._temporary):
                os.replace(self._temporary, self._target)
            else:
                self._temporary.unlink()
        except FileExistsError as error:
            raise OutputError("exists already (it was made while we worked)", self.place) from error
        except OSError as error:
            raise self._failure(error) from error
        self._temporary = None
        if self._sidecar is not None:
            self._sidecar.publish()

    def _link(self, temporary: Path) -> bool:
        """Link the file to the target's name and return True; return False where hard links cannot be made.

        :raises FileExistsError: the name is taken.
        """
        try:
            os.link(temporary, self._target)
        except FileExistsError:
            raise
        except OSError:
            if self._target.exists():
                raise FileExistsError(self._target) from None
            return False
        return True
