"""Writing a result: into a temporary name beside the target, and under its own name only when proved."""

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
    """:raises UsageError: no digest is called ``name``."""
    if name not in DIGESTS:
        raise UsageError(f"no digest is called {name!r}; there are {', '.join(DIGESTS)}")


class NewBytes:
    """A run of written bytes that did not come from the input: its place and its CRC64."""

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.sum = 0

    def add(self, chunk: bytes | memoryview) -> None:
        """The run goes on with ``chunk``."""
        self.sum = crc64.xz(chunk, self.sum)
        self.end += len(chunk)

    def is_in(self, result: ByteSource) -> bool:
        """True when the run is in ``result`` as it was written."""
        found = 0
        for view in read_ahead(result.fill, self.start, self.end - self.start):
            found = crc64.xz(view, found)
        return found == self.sum


class NewFrames(Struct, frozen=True):
    """A run of written frames whose sum was known when they were planned."""

    start: int
    framed: FramedSource

    @property
    def end(self) -> int:
        """Where the run ends."""
        return self.start + self.framed.length

    def is_in(self, result: ByteSource) -> bool:
        """True when ``result`` holds what was planned."""
        found = self.framed.crc32_of(lambda offset, views: result.fill(self.start + offset, views))
        return found == self.framed.crc


class NewHole(Struct, frozen=True):
    """Zeros that were left out: a hole in the file."""

    start: int
    end: int

    def is_in(self, result: ByteSource) -> bool:
        """True when there are zeros in ``result``."""
        return is_zero(result, self.start, self.end - self.start)


NewRun: TypeAlias = NewBytes | NewFrames | NewHole


class Written(Struct, frozen=True):
    """A file written under a temporary name, and which of its bytes are new."""

    path: Path
    new_runs: tuple[NewRun, ...]


def _run(new: list[NewRun], at: int, piece: Piece) -> NewRun:
    """The last of ``new``, one of its own for planned frames and for holes, that ``piece`` at ``at`` goes on with."""
    last = new[-1] if new else None
    if isinstance(piece, Zeros) and piece.length >= MIN_HOLE:
        new.append(NewHole(at, at + piece.length))
        return new[-1]
    if isinstance(piece, Range) and isinstance(piece.source, FramedSource):
        framed = piece.source
        if framed.crc is not None and piece.length == framed.length:
            new.append(NewFrames(at, framed))
            return new[-1]
    if not isinstance(last, NewBytes) or last.end != at:
        new.append(NewBytes(at))
    return new[-1]


def _chunks(piece: Piece) -> Iterator[bytes | memoryview]:
    """The bytes of ``piece``, each chunk good until the next is asked for."""
    source = direct_source(piece)
    if source is None or not isinstance(piece, Range):
        return piece.chunks()
    return read_ahead(source.fill, piece.offset, piece.length)


class Output:
    """A file to be made at ``target``. Unless :meth:`publish` was reached, leaving the context leaves nothing.

    ``inputs`` are files that must not be overwritten; ``force`` allows to replace another existing file. The
    new file's mode follows the umask. ``digest``, one of :data:`DIGESTS`, makes a file ``target.DIGEST`` too, with
    one line as sha256sum(1) writes it.

    :raises OutputError: target exists, is an input, is no regular file, or its folder is missing.
    """

    def __init__(self, target: Path, inputs: tuple[Path, ...], *, force: bool, digest: str | None = None) -> None:
        self.place = Place((str(target),))
        self._target = Path(os.path.realpath(target))
        self._force = force
        self._temporary: Path | None = None
        self._fd = -1
        self._headstart: Precopy | None = None
        self._digest = digest
        self._sidecar: Output | None = None
        if digest is not None:
            self._sidecar = Output(Path(f"{target}.{digest}"), inputs, force=force)
        try:
            self._check(inputs)
        except OSError as error:
            raise self._failure(error) from error

    def _check(self, inputs: tuple[Path, ...]) -> None:
        """:raises OutputError: the target cannot be written to."""
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
        """Where the target and its temporary files lie."""
        return self._target.parent

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._close()
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)
                self._temporary = None
            if self._sidecar is not None:
                self._sidecar.__exit__()

    def start_precopy(self, source: ByteSource) -> None:
        """Begins to copy ``source`` under a temporary name, since :meth:`write` will most likely be given much of it.

        :raises OutputError: there can be no file.
        """
        self._headstart = Precopy(source, self._open())

    def write(self, table: PieceTable, source: ByteSource | None, advance: Callable[[int], None]) -> Written:
        """Writes ``table`` under a temporary name. Ranges of ``source`` are copied inside the kernel where it can.

        :raises OutputError: it cannot be written.
        """
        new: list[NewRun] = []
        at = 0
        fd = self._open()
        try:
            copied = 0 if self._headstart is None else self._headstart.reusable_front(table)
            self._cut(fd, copied)
            for piece in table.pieces:
                if isinstance(piece, Range) and piece.source is source:
                    there = copied - at if is_in_place(piece, source, at) else 0
                    counts = self._copy(fd, source, piece, min(max(there, 0), piece.length))
                else:
                    counts = self._write_new(fd, piece, _run(new, at, piece))
                for count in counts:
                    advance(count)
                at += piece.length
            self._cut(fd, at)  # a hole may end it
        finally:
            self._close()
        assert self._temporary is not None
        return Written(self._temporary, tuple(new))

    def _copy(self, fd: int, source: ByteSource, piece: Range, done: int) -> Iterator[int]:
        """Copies ``piece`` of ``source``, of which ``done`` bytes are there; yields what each step adds."""
        if done:
            leave_hole(fd, done, self._failure)
            yield done
        yield from copy_bytes(source, fd, piece.offset + done, piece.length - done, self._failure)

    def _cut(self, fd: int, length: int) -> None:
        """Makes the file ``length`` bytes long."""
        try:
            os.ftruncate(fd, length)
        except OSError as error:
            raise self._failure(error) from error

    def _write_new(self, fd: int, piece: Piece, run: NewRun) -> Iterator[int]:
        """Writes ``piece``, which ``run`` goes on with; yields what each step wrote."""
        if isinstance(run, NewHole):
            leave_hole(fd, piece.length, self._failure)
            yield piece.length
            return
        for chunk in _chunks(piece):
            write_all(fd, chunk, self._failure)
            if isinstance(run, NewBytes):
                run.add(chunk)
            yield len(chunk)

    def write_chunks(self, chunks: Iterable[bytes]) -> None:
        """Writes ``chunks`` under a temporary name. :raises OutputError: they cannot be written."""
        assert self._headstart is None
        fd = self._open()
        try:
            for chunk in chunks:
                write_all(fd, chunk, self._failure)
        finally:
            self._close()

    def _open(self) -> int:
        """The descriptor of the file under a temporary name, a new one the first time."""
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
        """Ends writing."""
        started, self._headstart = self._headstart, None
        fd, self._fd = self._fd, -1
        try:
            if started is not None:
                started.stop()
        finally:
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError as error:  # some file systems tell only now that there is no room
                    raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        return write_error(error, "the output", self.place)

    def publish(self) -> None:
        """Gives the written file its name. :raises OutputError: somebody else made that file meanwhile."""
        assert self._temporary is not None
        if self._sidecar is not None and self._digest is not None:
            with open_source(self._temporary) as result:
                digest = digest_of(self._digest, result.chunks(0, result.size))
            line = digest.hex().encode() + b"  " + os.fsencode(self._target.name) + b"\n"
            self._sidecar.write_chunks([line])
        try:
            if self._force or not self._claimed(self._temporary):
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

    def _claimed(self, temporary: Path) -> bool:
        """Links the target's name to the file if nobody has the name; False where hard links cannot be made.

        :raises FileExistsError: somebody has it.
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
