"""Which files of an image on another machine are looked at, where each look is a request."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cosremaster.iso.model import SourceImage
from cosremaster.records.tuples import NamedTuple

MIN_SIZE = 1 << 16
"""Bytes that a file has at least that is looked at for its name alone, where there are many such."""


class Candidate(NamedTuple):
    """A file that may be looked at: its path, its bytes, and whether its name speaks for it."""

    path: bytes
    size: int
    is_likely: bool


def is_far(image: SourceImage) -> bool:
    """Return whether each look into ``image`` is a request to another machine."""
    return bool(getattr(image.source.source, "is_far", False))


def choose_candidates(candidates: Sequence[Candidate], certain: Collection[bytes], most: int) -> set[bytes]:
    """Return the paths of those ``candidates`` that are looked at: some ``most``, and all that are ``certain``.

    Of many the largest count whose names speak for them; where there are few, all do.
    """
    if len(candidates) <= most:
        return {candidate.path for candidate in candidates}
    likely = [candidate for candidate in candidates if candidate.is_likely]
    if len(likely) > most:
        likely = [candidate for candidate in likely if candidate.size >= MIN_SIZE]
    likely.sort(key=lambda candidate: (-candidate.size, candidate.path))
    return {candidate.path for candidate in likely[:most]} | {
        candidate.path for candidate in candidates if candidate.path in certain
    }


def warn_of_unread(image: SourceImage, count: int, what: str) -> None:
    """Log that ``count`` files of ``image`` were not looked at, which may be ``what``."""
    import logging  # noqa: PLC0415 - images on this machine need none of it

    logging.getLogger("cosremaster").warning(
        "%s: %s files were not looked into, as neither names, sizes nor boot menus say that they are %s", image.place,
        f"{count:,}", what,
    )  # fmt: skip
