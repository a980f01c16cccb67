"""Writing a result: under a temporary name beside the target, and under its own name only when it was proved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cosremaster.crc import crc64_xz
from cosremaster.errors import OutputError, Place, ProofError, UsageError
from cosremaster.io.descriptors import MIN_HOLE, leave_hole, read_ahead, write_all, write_error
from cosremaster.io.framed import FramedSource
from cosremaster.io.part_files import PartFile, sync_file
from cosremaster.io.pieces import Piece, PieceTable, Range, Zeros, direct_source
from cosremaster.io.precopy import Precopy, is_in_place
from cosremaster.io.publish import FinishedFile, place_all
from cosremaster.io.source import ByteSource, copy_bytes, is_zero, open_source
from cosremaster.io.streams import Digest, hash_chunks
from cosremaster.io.write_back import WriteBack
from cosremaster.progress import Advance, skip_bytes
from cosremaster.records import Struct

if TYPE_CHECKING:
    import hashlib

    from cosremaster.io.shared_sums import FileSum, SharedSums
    from cosremaster.io.written_sum import WrittenSum

DIGESTS = ("sha256", "md5")


def check_digest_name(name: str) -> None:
    """Check that ``name`` is one of :data:`DIGESTS`. :raises UsageError: it is none."""
    if name not in DIGESTS:
        raise UsageError(f"no digest is called {name!r}; there are {', '.join(DIGESTS)}")


def format_sum_line(digest: str, path: str) -> str:
    """Return a line as sha256sum(1) writes it for the file ``path``: a backslash before it says that it has escapes."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{'' if escaped == path else chr(0x5C)}{digest}  {escaped}\n"


class NewBytes:
    """A run of written bytes that did not come from the input: its offsets and its CRC64."""

    def __init__(self, start: int) -> None:
        """Begin a run at byte ``start`` of the output."""
        self.start = self.end = start
        self.crc = 0

    def add(self, chunk: bytes | memoryview) -> None:
        """Continue the run with ``chunk``."""
        self.crc = crc64_xz(chunk, self.crc)
        self.end += len(chunk)

    def is_in(self, result: ByteSource, advance: Advance) -> bool:
        """Return whether ``result`` holds the run as it was written; ``advance`` gets the numbers of bytes read."""
        crc = 0
        for view in read_ahead(result.read_into, self.start, self.end - self.start):
            crc = crc64_xz(view, crc)
            advance(len(view))
        return crc == self.crc


class NewFrames(Struct, frozen=True):
    """A run of written frames whose CRC32 was known when they were planned."""

    start: int
    framed: FramedSource

    @property
    def end(self) -> int:
        """The byte behind the run."""
        return self.start + self.framed.length

    def is_in(self, result: ByteSource, advance: Advance) -> bool:
        """Return whether ``result`` holds the planned frames; ``advance`` gets the numbers of bytes read."""

        def read_into(offset: int, views: Sequence[memoryview]) -> None:
            """Fill ``views`` from byte ``offset`` of the run on."""
            result.read_into(self.start + offset, views)
            advance(sum(map(len, views)))

        return self.framed.crc == self.framed.crc32_of(read_into)


class NewHole(Struct, frozen=True):
    """A run of zeros that was not written: a hole in the file."""

    start: int
    end: int

    def is_in(self, result: ByteSource, advance: Advance) -> bool:
        """Return whether ``result`` holds zeros there; ``advance`` gets their number."""
        advance(self.end - self.start)
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


def _chunks_of(piece: Piece, digest: Digest | None = None) -> Iterator[bytes | memoryview]:
    """Return an iterator over the bytes of ``piece``, each chunk valid until the next is taken.

    ``digest``: gets the bytes when they are read: of many on the thread that reads them ahead.
    """
    source = direct_source(piece)
    if source is None or not isinstance(piece, Range):
        return piece.chunks() if digest is None else hash_chunks(piece.chunks(), digest)
    fill = source.fill
    if digest is None:
        return read_ahead(fill, piece.offset, piece.length)

    def fill_and_sum(offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, and add them to the digest."""
        fill(offset, views)
        for view in views:
            digest.update(view)

    return read_ahead(fill_and_sum, piece.offset, piece.length)


class Output:
    """A file to be made at ``target``. If the context ends before :meth:`publish`, no file remains.

    A new file's mode follows the umask. One that replaces another has its mode, and its owner where that is allowed.

    :param inputs: files that must not be overwritten.
    :param force: whether another existing file may be replaced.
    :param digest: one of :data:`DIGESTS`: also make a file ``target.DIGEST`` with one line, as sha256sum(1) writes it.
    :param sync: wait until the file is on the disk before it gets its name, and until the name is (fsync(2)).
    :param sources: files of the overlay, and folders whose contents are in it, none of which may be replaced.
    :raises OutputError: the target exists, is an input or no regular file, or its folder is missing.
    """

    def __init__(
        self, target: Path, inputs: tuple[Path, ...], *, force: bool, digest: str | None = None, sync: bool = True,
        sources: tuple[Path, ...] = (),
    ) -> None:  # fmt: skip
        """Check the target; the file is made with the first write."""
        self.place = Place((str(target),))
        self._given, self._target = target, Path(os.path.realpath(target))
        self._force, self._is_synced = force, sync
        self._part: PartFile | None = None
        self._precopy: Precopy | None = None
        self._write_back: WriteBack | None = None
        self._file_sum: FileSum | None = None
        self._written_sum: WrittenSum | None = None
        self._hash: hashlib._Hash | None = None
        if digest is not None:
            import hashlib  # noqa: PLC0415 - loads OpenSSL, which a run without a digest does not need

            self._hash = hashlib.new(digest)
        self._companions: list[Output] = []
        self._sidecar: Output | None = None
        if digest is not None:
            sidecar = Path(f"{target}.{digest}")
            self._sidecar = Output(sidecar, inputs, force=force, sync=sync, sources=sources)
            self.add_companion(self._sidecar)
        try:
            self._check(inputs, sources)
        except OSError as error:
            raise self._failure(error) from error

    def _check(self, inputs: tuple[Path, ...], sources: tuple[Path, ...]) -> None:
        """Check the target before any work. :raises OutputError: it cannot be written to."""
        exists, folder = self._target.exists(), self._target.parent
        if exists and any(source.exists() and source.samefile(self._target) for source in inputs):
            raise OutputError("is the input itself, which is never changed", self.place)
        if self._target.is_symlink():  # even when resolved
            raise OutputError("is a symlink that leads to no file", self.place)
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
        for source in sources if exists else ():
            real = Path(os.path.realpath(source))
            if real == self._target or (real in self._target.parents and real.is_dir()):
                raise OutputError(f"is part of what is added ({source}), which is never changed", self.place)

    @property
    def folder(self) -> Path:
        """The folder of the target and its temporary files."""
        return self._target.parent

    @property
    def written_digest(self) -> bytes:
        """The digest of all bytes that were written, where there is to be one."""
        assert self._hash is not None
        return self._hash.digest()

    def add_companion(self, other: Output) -> None:
        """Publish ``other``, which tells of this file, together with it: both or none."""
        self._companions.append(other)

    def stale_digests(self) -> tuple[Path, ...]:
        """Return the digest files beside the target that will tell of another file when it is replaced."""
        known = {companion._target for companion in self._companions}
        named = [Path(f"{path}.{name}") for path in (self._given, self._target) for name in DIGESTS]
        digests = {Path(os.path.realpath(path)): path for path in named}  # a symlink has some beside itself
        stale = (path for real, path in digests.items() if real not in known and path.exists())
        return tuple(stale) if self._target.exists() else ()

    def __enter__(self) -> Output:
        """Return the output itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file, if there is one."""
        precopy, self._precopy = self._precopy, None
        write_back, self._write_back = self._write_back, None
        part, self._part = self._part, None
        try:
            if self._file_sum is not None:
                self._file_sum.stop()
            if self._written_sum is not None:
                self._written_sum.stop()
            if precopy is not None:
                precopy.stop()
            if write_back is not None:
                write_back.stop()
        finally:
            if part is not None:
                part.close()
            for companion in self._companions:
                companion.__exit__()

    def sum_beside(self, sums: SharedSums) -> FileSum:
        """Let ``sums`` take the SHA-256 of what :meth:`write` writes, while that is proved; return what tells it.

        :meth:`publish` waits for it, and raises as ``FileSum.wait``.
        """
        self._file_sum = sums.start()
        return self._file_sum

    def sum_while_written(self) -> WrittenSum:
        """Take the SHA-256 of what :meth:`write_pieces` writes while it does; return what tells it.

        :raises OutputError: no file can be made.
        """
        from cosremaster.io.written_sum import WrittenSum  # noqa: PLC0415 - what applies a delta needs it alone

        self._open()
        assert self._part is not None
        self._written_sum = WrittenSum(self._part.path)
        return self._written_sum

    def start_precopy(self, source: ByteSource, limit: int | None = None) -> bool:
        """Begin to copy ``source`` under a temporary name; most likely much of it will be in the table to be written.

        Return whether anything is copied before :meth:`write`.

        ``limit``: the bytes of its front that may be; None for all.

        :raises OutputError: no file can be made.
        """
        fd = self._open()
        self._precopy = Precopy(source, fd, limit, self._count_written)
        return self._precopy.is_copying

    def write(self, table: PieceTable, source: ByteSource | None, advance: Callable[[int], None]) -> Written:
        """Write ``table`` under a temporary name. The kernel copies ranges of ``source`` where it can.

        :raises OutputError: it cannot be written.
        """
        fd = self._open()
        copied, reported = self._finish_precopy(table, advance)
        self._truncate(fd, copied)
        if source is not None and source.is_far:
            from cosremaster.io.fetched_blocks import make_room  # noqa: PLC0415 - only an image by URL has loaded it

            make_room(fd, table.length - copied)
        written = self._write_pieces(table.pieces, source, advance, copied, reported)
        if self._file_sum is not None:
            self._file_sum.begin(table, written.path)
        return written

    def write_pieces(
        self, pieces: Iterable[Piece], source: ByteSource | None, advance: Callable[[int], None]
    ) -> Written:  # fmt: skip
        """Write ``pieces``, which are made while they are written, as :meth:`write` does a table of them."""
        assert self._precopy is None
        return self._write_pieces(pieces, source, advance, 0, 0)

    def _write_pieces(
        self, pieces: Iterable[Piece], source: ByteSource | None, advance: Callable[[int], None], copied: int,
        reported: int,
    ) -> Written:  # fmt: skip
        """Write ``pieces`` behind the first ``copied`` bytes, of which ``advance`` knows ``reported`` already."""
        runs: list[NewRun] = []
        offset = 0
        fd = self._open()
        for piece in pieces:
            if isinstance(piece, Range) and piece.source is source:
                ready = copied - offset if is_in_place(piece, source, offset) else 0
                counts = self._copy(fd, source, piece, min(max(ready, 0), piece.length))
            else:
                counts = self._write_new(fd, piece, _run_for(runs, offset, piece))
            for count in counts:
                self._count_written(count)
                if self._written_sum is not None:
                    self._written_sum.add(count)
                known = min(reported, count)
                reported -= known
                advance(count - known)
            offset += piece.length
        self._truncate(fd, offset)  # to its full length, as a hole may be at the end
        self._finish_writing(fd)
        if self._written_sum is not None:
            self._written_sum.finish()
        assert self._part is not None
        return Written(self._part.path, tuple(runs))

    def _finish_precopy(self, table: PieceTable, advance: Callable[[int], None]) -> tuple[int, int]:
        """Return how many bytes of ``table`` from its beginning on are copied, and of how many ``advance`` knows.

        The kernel copies the rest of what stays at its place, unless all bytes have to be seen for a digest.
        """
        if self._precopy is None or self._hash is not None:
            return 0 if self._precopy is None else self._precopy.reusable_front(table), 0
        reported = self._precopy.reach(table)
        skip_bytes(advance, reported)

        def report(copied: int) -> None:
            """Tell ``advance`` of what is new in ``copied`` bytes."""
            nonlocal reported
            if copied > reported:
                advance(copied - reported)
                reported = copied

        return self._precopy.complete_front(table, report), reported

    def _copy(self, fd: int, source: ByteSource, piece: Range, ready: int) -> Iterator[int]:
        """Copy ``piece`` of ``source``, whose first ``ready`` bytes are written already; yield what each step adds."""
        if ready:
            leave_hole(fd, ready, self._failure)
            if self._hash is not None:
                for view in read_ahead(source.read_into, piece.offset, ready):
                    self._hash.update(view)
            yield ready
        observe = None if self._hash is None else self._hash.update
        yield from copy_bytes(source, fd, piece.offset + ready, piece.length - ready, self._failure, observe)

    def _truncate(self, fd: int, length: int) -> None:
        """Set the file's length to ``length`` bytes, unless it has it: XFS and btrfs wait for the disk then."""
        try:
            if os.fstat(fd).st_size != length:
                os.ftruncate(fd, length)
        except OSError as error:
            raise self._failure(error) from error

    def _write_new(self, fd: int, piece: Piece, run: NewRun) -> Iterator[int]:
        """Write ``piece``, which belongs to ``run``; yield what each step wrote."""
        if isinstance(run, NewHole):
            leave_hole(fd, piece.length, self._failure)
            for zeros in piece.chunks() if self._hash is not None else ():
                self._observe(zeros)
            yield piece.length
            return
        for chunk in _chunks_of(piece, self._hash):
            write_all(fd, chunk, self._failure)
            if isinstance(run, NewBytes):
                run.add(chunk)
            yield len(chunk)

    def _observe(self, chunk: bytes | memoryview) -> None:
        """Add ``chunk`` to the digest, where there is to be one."""
        if self._hash is not None:
            self._hash.update(chunk)

    def write_chunks(self, chunks: Iterable[bytes]) -> Path:
        """Write ``chunks`` under a temporary name, and return that. :raises OutputError: they cannot be written."""
        assert self._precopy is None
        fd = self._open()
        for chunk in chunks:
            write_all(fd, chunk, self._failure)
            self._observe(chunk)
            self._count_written(len(chunk))
        self._finish_writing(fd)
        assert self._part is not None
        return self._part.path

    def _count_written(self, count: int) -> None:
        """Let the disk get what was written, after ``count`` more bytes, where that is waited for at the end."""
        if self._write_back is not None:
            self._write_back.add(count)

    def _open(self) -> int:
        """Return the descriptor of the file under a temporary name, which is made the first time."""
        if self._part is None:
            try:
                self._part = PartFile(self.folder)
            except OSError as error:
                raise self._failure(error) from error
            self._write_back = WriteBack(self._part.fd) if self._is_synced else None
        return self._part.fd

    def _finish_writing(self, fd: int) -> None:
        """Let the file go to the disk while it is proved. :raises OutputError: the file system reports an error."""
        precopy, self._precopy = self._precopy, None
        if precopy is not None:
            precopy.stop()
        try:
            os.close(os.dup(fd))  # some file systems report only when a descriptor is closed that they are full
        except OSError as error:
            raise self._failure(error) from error
        if self._write_back is not None:
            self._write_back.finish()

    def _wait_for_disk(self) -> None:
        """Wait until the file is on the disk, where that is wanted. :raises OutputError: the disk reports an error."""
        if self._write_back is not None:
            try:
                self._write_back.result()
            except OSError as error:
                raise self._failure(error) from error
            self._write_back = None

    def read_back(self, table: PieceTable, advance: Callable[[int], None]) -> None:
        """Compare the written file with ``table``, byte by byte, after the system was told to forget what it has of it.

        So the bytes come from the disk, where there is one. :raises ProofError: they differ.
        """
        assert self._part is not None
        self._wait_for_disk()
        try:
            sync_file(self._part.fd)  # only what is on the disk is dropped
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._part.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise self._failure(error) from error
        offset = 0
        with open_source(self._part.path) as result:
            for piece in table.pieces:
                for chunk in _chunks_of(piece):
                    if result.read(offset, len(chunk)) != bytes(chunk):
                        raise ProofError("was not read back as it was written", self.place.at(offset))
                    offset += len(chunk)
                    advance(len(chunk))

    def _failure(self, error: OSError) -> OutputError:
        """Return the error to raise for ``error`` of the system."""
        return write_error(error, "the output", self.place)

    def publish(self, warn: Callable[[str], None] = lambda message: None) -> None:
        """Give the written file its name, and its companions theirs.

        ``warn`` is called if the file cannot have the owner of the one that it replaces.

        :raises OutputError: another program made that file meanwhile, or the disk reports an error.
        :raises ImageError: it cannot be summed, where that is wanted.
        """
        if self._file_sum is not None:
            self._file_sum.wait()
        if self._sidecar is not None and self._hash is not None:
            line = format_sum_line(self._hash.hexdigest(), self._given.name)  # beside which it stands
            self._sidecar.write_chunks([os.fsencode(line)])
        outputs = (self, *self._companions)
        first, *others = [output._finish(warn) for output in outputs]
        try:
            place_all(first, others, sync=self._is_synced)
        except FileExistsError as error:
            place = next((output.place for output in outputs if output._target.exists()), self.place)
            raise OutputError("exists already (it was made while we worked)", place) from error
        except OSError as error:
            raise self._failure(error) from error
        self.__exit__()

    def _finish(self, warn: Callable[[str], None]) -> FinishedFile:
        """Return the file of the file, which is on the disk and has its mode and owner."""
        assert self._part is not None
        self._wait_for_disk()
        try:
            if self._force and self._target.exists():
                self._take_over_owner(self._part.fd, warn)
        except OSError as error:
            raise self._failure(error) from error
        return FinishedFile(self._part, self._target, force=self._force)

    def _take_over_owner(self, fd: int, warn: Callable[[str], None]) -> None:
        """Give the file ``fd`` the owner and mode of the file that it replaces."""
        old, new = os.stat(self._target), os.fstat(fd)
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            try:
                os.fchown(fd, old.st_uid, old.st_gid)
            except OSError:
                warn(f"{self.place}: it belonged to {old.st_uid}:{old.st_gid}, and now to {new.st_uid}:{new.st_gid}")
        os.fchmod(fd, old.st_mode & 0o777)
        if old.st_nlink > 1:
            warn(f"{self.place}: its other names (hard links) keep the old file")
