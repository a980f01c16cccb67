"""Writing a result: into a temporary name beside the target, and under its own name only when proved."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cosremaster.errors import OutputError, Place
from cosremaster.files import cannot_write, write_all
from cosremaster.pieces import PieceTable


class Output:
    """A file to be made at ``target``. Unless :meth:`publish` was reached, leaving the context leaves nothing.

    ``inputs`` are files that must not be overwritten; ``force`` allows to replace another existing file. The
    new file's mode follows the umask.

    :raises OutputError: target exists, is an input, is no regular file, or its folder is missing.
    """

    def __init__(self, target: Path, inputs: tuple[Path, ...], *, force: bool) -> None:
        self.place = Place((str(target),))
        self._target = Path(os.path.realpath(target))
        self._force = force
        self._temporary: Path | None = None
        try:
            self._check(inputs)
        except OSError as error:
            raise cannot_write(error, "the output", self.place) from error

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
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def write(self, table: PieceTable, advance: Callable[[int], None]) -> Path:
        """Writes ``table`` under a temporary name, which it returns. :raises OutputError: it cannot."""
        path = self.folder / f".cosremaster-{secrets.token_hex(8)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o666)
        except OSError as error:
            raise cannot_write(error, "the output", self.place) from error
        self._temporary = path
        try:
            for chunk in table.chunks():
                write_all(fd, chunk, lambda error: cannot_write(error, "the output", self.place))
                advance(len(chunk))
        finally:
            os.close(fd)
        return path

    def publish(self) -> None:
        """Gives the written file its name. :raises OutputError: somebody else made that file meanwhile."""
        assert self._temporary is not None
        try:
            if self._force or not self._claimed(self._temporary):
                os.replace(self._temporary, self._target)
            else:
                self._temporary.unlink()
        except FileExistsError as error:
            raise OutputError("exists already (it was made while we worked)", self.place) from error
        except OSError as error:
            raise cannot_write(error, "the output", self.place) from error
        self._temporary = None

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
