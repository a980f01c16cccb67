"""Giving finished files their names, all or none, so that no kill leaves files that contradict each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cosremaster.io.interruptions import finishing_names, hold_signals
from cosremaster.io.part_files import PartFile, lock_part, part_path, sync_folder


class FinishedFile:
    """A finished file that is to be named ``target``. ``force``: it may replace another file."""

    def __init__(self, part: PartFile, target: Path, *, force: bool) -> None:
        """Begin with nothing done."""
        self.part, self.target, self._force = part, target, force
        self._old: Path | None = None
        self._lock_fd = -1  # keeps other programs from taking the old file's temporary name for a stale one
        self._is_placed, self._is_new = False, not target.exists()

    def keep_old(self) -> None:
        """Give the file that is replaced a second name, by which it can come back."""
        if self._force and self.target.exists():
            old = self._lock_old()
            with suppress(OSError):  # a file system without hard links
                os.link(self.target, old)
                self._old = old

    def set_old_aside(self) -> None:
        """Take the name of the file that is replaced away. It tells of another file, which is replaced too."""
        if self._force and self.target.exists():
            old = self._lock_old()
            os.rename(self.target, old)
            self._old = old

    def _lock_old(self) -> Path:
        """Lock the file that is replaced and return a temporary name for it."""
        with suppress(OSError):  # it may be unreadable
            self._lock_fd = os.open(self.target, os.O_RDONLY | os.O_CLOEXEC)
            lock_part(self._lock_fd)
        return part_path(self.target.parent)

    def place(self) -> None:
        """Give the file its name. :raises FileExistsError: another program made a file of that name meanwhile."""
        if self._force or not self._link():
            os.replace(self.part.path, self.target)
        self._is_placed = True

    def _link(self) -> bool:
        """Link the file to its name and return True; return False where hard links cannot be made.

        :raises FileExistsError: the name is taken.
        """
        try:
            os.link(self.part.path, self.target)
        except FileExistsError:
            raise
        except OSError:
            if self.target.exists():
                raise FileExistsError(self.target) from None
            return False
        return True

    def undo(self) -> None:
        """Take the name away again, and give it back to the file that had it."""
        with suppress(OSError):
            if self._old is not None:
                os.replace(self._old, self.target)
                self._old.unlink(missing_ok=True)  # rename(2) leaves it where both name one file
            elif self._is_placed and self._is_new:
                self.target.unlink()
        self._old, self._is_placed = None, False
        self._unlock()

    def forget_old(self) -> None:
        """Remove the file that was replaced."""
        if self._old is not None:
            with suppress(OSError):  # its name is one that the next program removes
                self._old.unlink()
        self._unlock()

    def _unlock(self) -> None:
        """Give up the lock of the file that was replaced."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def place_all(first: FinishedFile, others: Sequence[FinishedFile], *, sync: bool) -> None:
    """Give ``first`` its name, and then ``others``, which tell of it. ``sync``: wait until the names are on the disk.

    At no moment does one of ``others``, old or new, stand beside another ``first`` than its own.
    Signals wait until then.

    :raises OSError: one cannot be named. All names are as before then.
    """
    files = (first, *others)
    with finishing_names():
        hold_signals()
        try:
            for other in others:
                other.set_old_aside()
            first.keep_old()
            for file in files:
                file.place()
            if sync:
                for folder in dict.fromkeys(file.target.parent for file in files):
                    sync_folder(folder)
        except BaseException:
            for file in reversed(files):
                file.undo()
            raise
        for file in files:
            file.forget_old()
