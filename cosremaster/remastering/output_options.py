"""How the output of a remaster is written, and what is asked of the input meanwhile."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from cosremaster.errors import CosremasterError, ImageError, UsageError
from cosremaster.io.output import DIGESTS, check_digest_name
from cosremaster.io.parallel import CancelledError, StopFlag, Worker
from cosremaster.io.source import ByteSource, keep_whole, own_bytes
from cosremaster.progress import SUM, Progress, begin_work
from cosremaster.records import Struct


class OutputKeywords(TypedDict, total=False):
    """The fields of :class:`OutputOptions` as keywords."""

    force: bool
    digest: str | None
    report: str | os.PathLike[str] | None
    sync: bool
    read_back: bool
    sha256: bool
    expect: Iterable[str]
    delta: bool
    plain: bool
    base_delta: str | os.PathLike[str] | None


class OutputOptions(Struct, frozen=True, kw_only=True):
    """How an output is written.

    ``force`` replaces an existing target. ``digest`` (``sha256`` or ``md5``) writes ``TARGET.sha256`` beside it, as
    sha256sum does. ``report``: a file for what happened to each path, as JSON. ``sync``: wait until file and name are
    on the disk. ``read_back``: compare every byte of the file, read from the disk. ``sha256``: tell the digest of
    the image that was written. ``expect``: digests that the input must have, as in ``"sha256:HEX"``. ``delta``: write
    the difference from the input, in the format VCDIFF, in place of an image; ``plain``: without checksums in it, which
    not all decoders of that format know; ``base_delta``: the delta by which the input was made of another base, which
    the new delta is for as well.
    """

    force: bool = False
    digest: str | None = None
    report: str | os.PathLike[str] | None = None
    sync: bool = True
    read_back: bool = False
    sha256: bool = False
    expect: Iterable[str] = ()
    delta: bool = False
    plain: bool = False
    base_delta: str | os.PathLike[str] | None = None

    def check(self, target: Path) -> None:
        """Check what can be checked before any work on the file ``target``. :raises UsageError: it makes no sense."""
        if self.digest is not None:
            check_digest_name(self.digest)
        if self.plain and not self.delta:
            raise UsageError("plain (--plain) says how a delta is written, and none is (--delta)")
        if self.base_delta is not None and not self.delta:
            raise UsageError("base_delta says what a delta is for, and none is written (delta)")
        if self.delta and (self.report is not None or self.read_back):
            raise UsageError("a delta has neither a report (--report) nor what would be read back (--read-back)")
        for other in (target, Path(f"{target}.{self.digest}")) if self.report is not None else ():
            if os.path.realpath(self.report or "") == os.path.realpath(other):
                raise UsageError(f"{other} cannot be the report too")

    def expected_digests(self) -> tuple[tuple[str, str], ...]:
        """Return name and hexadecimal digits, in small letters, of each expected digest.

        :raises UsageError: one is no digest.
        """
        return parse_digests(self.expect)


def parse_digests(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return name and hexadecimal digits of each digest in ``texts``. :raises UsageError: one is none."""
    return tuple(_parse_digest(text) for text in texts)


def _parse_digest(text: str) -> tuple[str, str]:
    """Return the name and the digits of a digest such as ``sha256:HEX``. :raises UsageError: it is none."""
    import hashlib  # noqa: PLC0415 - loads OpenSSL, which a run without digests does not need

    name, _, digits = text.lower().partition(":")
    length = hashlib.new(name).digest_size * 2 if name in DIGESTS else 0
    if not length or not re.fullmatch(f"[0-9a-f]{{{length}}}", digits):
        raise UsageError(f"{text!r} is no digest; sha256:HEX or md5:HEX is wanted")
    return name, digits


def _sum_bytes(
    source: ByteSource, expected: Iterable[tuple[str, str]], advance: Callable[[int], None]
) -> list[str]:  # fmt: skip
    """Return the digests of all bytes of ``source`` that are ``expected``; ``advance`` gets the count of each part."""
    import hashlib  # noqa: PLC0415 - the same

    sums = [hashlib.new(name) for name, _ in expected]
    for chunk in source.chunks(0, source.size):
        advance(len(chunk))
        for digest in sums:
            digest.update(chunk)
    return [digest.hexdigest() for digest in sums]


def _check_sums(source: ByteSource, expected: Iterable[tuple[str, str]], sums: Iterable[str]) -> None:
    """Compare ``sums`` of ``source`` with those that are ``expected``. :raises ImageError: one differs."""
    for (name, digits), digest in zip(expected, sums, strict=True):
        if digest != digits.lower():
            raise ImageError(f"its {name} is {digest}, and {digits.lower()} was expected", source.place)


def compare_digests(source: ByteSource, expected: Iterable[tuple[str, str]], progress: Progress) -> None:
    """Read all of the file that ``source`` was opened from, and compare its digests with those that are ``expected``.

    All of a far one is on this machine then. :raises ImageError: one differs.
    :raises OutputError: there is no room for it.
    """
    file, listed = own_bytes(source), tuple(expected)
    if not listed:
        return
    keep_whole(file)
    names = ", ".join(name for name, _ in listed)
    with begin_work(progress, f"check {names}", file.size, SUM) as advance:
        sums = _sum_bytes(file, listed, advance)
    _check_sums(file, listed, sums)


class DigestCheck:
    """Sums the bytes of ``source`` on a thread of its own, beside the work on them, and compares the digests."""

    def __init__(self, source: ByteSource, expected: tuple[tuple[str, str], ...]) -> None:
        """Start the thread, if anything is expected."""
        self._source, self._expected = own_bytes(source), expected
        self._stop = StopFlag()
        self._worker = Worker(self._sum) if expected else None

    def _sum(self) -> list[str]:
        """Return the digests of the whole source, in hexadecimal digits."""
        return _sum_bytes(self._source, self._expected, lambda count: self._stop.check())

    def check(self) -> None:
        """Wait for the sums. :raises ImageError: the source cannot be read, or has another digest."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        _check_sums(self._source, self._expected, worker.result())

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._worker is not None:
            self._worker.join()


@contextmanager
def checking_digests(source: ByteSource, expected: tuple[tuple[str, str], ...]) -> Iterator[DigestCheck]:
    """Sum ``source`` while the context works on it.

    An error of the work becomes one about the digests if those differ, as that explains it.
    """
    sums = DigestCheck(source, expected)
    try:
        yield sums
    except CosremasterError as error:
        try:
            sums.check()
        except CancelledError:
            raise error from None
        raise
    finally:
        sums.stop()
