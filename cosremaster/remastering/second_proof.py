"""Prove a new image with a second reader: pycdlib must see it as we do, where it saw the old image as we do."""

from __future__ import annotations

from threading import Thread
from types import TracebackType
from weakref import WeakKeyDictionary

from cosremaster.errors import ProofError
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoImage
from cosremaster.verification.second_reader import SecondReaderError, is_too_slow, list_differences, read_with_pycdlib
from cosremaster.verification.subject import read_subject

MAX_FILES = 2_000
"""Images with as many files are proved without pycdlib, which takes seconds for some ten thousand."""


_REASONS: WeakKeyDictionary[ByteSource, str | None] = WeakKeyDictionary()
"""What was found out about old images that are still open: many new ones may be made of one."""


class SecondProof:
    """Reads the old image with pycdlib on a thread of its own, while the new image is written, and then the new one."""

    def __init__(self, image: IsoImage, source: ByteSource) -> None:
        """Begin to read the old ``image`` in ``source``, unless it has too many files."""
        self._source = source
        self._reason: str | None = None
        self._error: Exception | None = None
        self._thread: Thread | None = None
        self._is_asked = len(image.files) < MAX_FILES
        if self._is_asked and source in _REASONS:
            self._reason = _REASONS[source]
        elif self._is_asked:
            self._thread = Thread(target=self._read_old, name="second reader", daemon=True)
            self._thread.start()

    def __enter__(self) -> SecondProof:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until the old image is no longer read: its source may be closed then."""
        if self._thread is not None:
            self._thread.join()

    def _read_old(self) -> None:
        """Find whether, and why, pycdlib does not see the old image as we do."""
        try:
            self._reason = _REASONS[self._source] = _find_disagreement(self._source)
        except Exception as error:  # of any kind: who proves the new image raises it
            self._error = error

    def prove(self, result: ByteSource) -> str | None:
        """Return what pycdlib sees of the new image in ``result``, as a line of the proof; None where nobody asked it.

        :raises ProofError: it does not see what we do. :raises CosremasterError: the old image cannot be read.
        """
        if not self._is_asked:
            return None
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        if self._reason is not None:
            return f"not read with pycdlib: {self._reason}"
        subject = read_subject(result)
        try:
            reading = read_with_pycdlib(result)
        except SecondReaderError as error:
            raise ProofError(f"pycdlib reads the input, and not the result: {error}", result.place) from error
        for message, place in list_differences(subject, reading):
            raise ProofError(message, place)
        return reading.describe()


def _find_disagreement(source: ByteSource) -> str | None:
    """Return why pycdlib is no witness for the image in ``source``; None if it sees what we do."""
    subject = read_subject(source)
    if subject.main_tree is None or subject.problems:
        return "the input has faults"
    if is_too_slow(subject):
        return "it would sort the directories for very long"
    try:
        reading = read_with_pycdlib(source)
    except SecondReaderError as error:
        return f"it cannot read the input: {error}"
    difference = next(list_differences(subject, reading), None)
    return None if difference is None else f"of the input, {difference[0]}"
