"""A delta applied to its base."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.errors import CorruptError, UsageError
from cosremaster.layers.scan import MAX_EXPAND
from cosremaster.progress import COPY, PROOF, Progress, SilentProgress, begin_work
from cosremaster.records.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from cosremaster.api.image import StrPath
    from cosremaster.deltas.note import DeltaNote
    from cosremaster.io.pieces import Piece
    from cosremaster.io.source import ByteSource
    from cosremaster.io.urls import ImagePath

FREE_SIZE = 1 << 30
"""Bytes that a delta may make whatever its own size is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a delta made: ``size`` bytes, and their ``sha256`` in hexadecimal digits.

    ``proof``: as in :class:`Result`.
    """

    size: int
    sha256: str
    proof: tuple[str, ...]


def apply(
    base: ImagePath, delta: StrPath, target: StrPath, *, force: bool = False, sync: bool = True,
    max_expand: int = MAX_EXPAND, progress: Progress | None = None,
) -> Applied:  # fmt: skip
    """Write the image that the file ``delta`` makes from ``base``, a path or URL, to ``target``.

    ``DELTA.json`` beside it (:meth:`Image.remaster` writes it) says the digests of the right base and of what comes of
    it, and both are proved. Without it, each window of the delta must hold a checksum. ``force`` replaces an existing
    target; ``sync=False`` does not wait until all is on the disk. ``max_expand``: beyond the first GiB, more than so
    many times the bytes of both files are refused as a bomb.

    >>> import cosremaster
    >>> made = cosremaster.remaster("vendor.iso", "site.vcdiff", add=["site/"], delta=True)
    >>> applied = cosremaster.apply("vendor.iso", "site.vcdiff", "site.iso")
    >>> print(applied.sha256 == made.delta.sha256)
    True

    :raises ImageError: ``base`` is not the right one, or a file cannot be read. :raises CorruptError: the delta is
        damaged. :raises UnsupportedError: it has what is not read here. :raises OutputError: it cannot be written.
    """
    from cosremaster.deltas.note import note_path, read_note  # noqa: PLC0415 - who looks at an image applies nothing
    from cosremaster.io.output import Output  # noqa: PLC0415 - the same
    from cosremaster.io.source import open_base, open_file  # noqa: PLC0415 - the same
    from cosremaster.remastering.output_options import checking_digests  # noqa: PLC0415 - the same

    beside, shown = note_path(Path(delta)), progress or SilentProgress()
    note = read_note(beside)
    expected = () if note is None else (("sha256", note.base.sha256),)
    with open_base(base) as old, open_file(delta) as difference:
        inputs = (*old.local_paths, *difference.local_paths, *(() if note is None else (beside,)))
        output = Output(Path(target), inputs, force=force, sync=sync)
        with output, checking_digests(old, expected) as digests:
            size = _measure(difference, old, note, max_expand)
            if note is None:
                shown.warn(f"{beside} is not there: if whole windows are cut off the delta, that goes unseen")
            with begin_work(shown, "apply", size, COPY, "delta") as advance:
                result_sum = output.sum_while_written()
                output.write_pieces(_pieces(difference, old, is_checked=note is None), old, advance)
            with begin_work(shown, "prove", size, PROOF, "sha256") as advance:
                digest = result_sum.result(advance)
            digests.check()  # the base is summed meanwhile
            old.check_unchanged()
            difference.check_unchanged()
            if note is not None and digest != note.result.sha256:
                raise CorruptError(
                    f"makes a file whose sha256 is {digest}, and {note.result.sha256} was expected", difference.place
                )
            output.publish(shown.warn)
    proof: tuple[str, ...]
    if note is None:
        proof = ("each window has the Adler-32 that the delta says; no note beside it tells of more",)
    else:
        proof = (f"the base has the sha256 {note.base.sha256}", f"the result has the sha256 {digest}")
    return Applied(size=size, sha256=digest, proof=proof)


def _measure(delta: ByteSource, base: ByteSource, note: DeltaNote | None, max_expand: int) -> int:
    """Return how many bytes ``delta`` makes, before anything is made. Raises as :func:`apply`."""
    from cosremaster.deltas.decode import read_heads  # noqa: PLC0415 - who looks at an image applies nothing
    from cosremaster.layers.scan import BombError  # noqa: PLC0415 - the same

    size, has_windows = 0, False
    for head in read_heads(delta, base.size):
        size, has_windows = size + head.length, True
        if note is None and head.adler is None:
            raise UsageError(
                f"{delta.place} has no checksums, and no {delta.name}.json beside it says which files are right"
            )
    if note is None and not has_windows:
        raise CorruptError(
            f"ends behind its header, and no {delta.name}.json beside it says that this makes nothing",
            delta.place.at(delta.size),
        )
    if note is not None and size != note.result.size:
        raise CorruptError(
            f"makes {size:,} bytes, and {note.result.size:,} were expected: it may be cut off", delta.place
        )
    if size > FREE_SIZE + max_expand * (base.size + delta.size):
        raise BombError(
            f"makes more than {max_expand:,} times the bytes of both files, as a bomb does (--max-expand)", delta.place
        )
    return size


def _pieces(delta: ByteSource, base: ByteSource, *, is_checked: bool) -> Iterator[Piece]:
    """Return the bytes that ``delta`` makes as pieces, ranges that continue each other joined."""
    from cosremaster.deltas.decode import decode_window, read_heads  # noqa: PLC0415 - who looks at an image applies none
    from cosremaster.io.pieces import join_neighbours  # noqa: PLC0415 - the same

    heads = read_heads(delta, base.size)
    return join_neighbours(piece for head in heads for piece in decode_window(delta, head, base, is_checked=is_checked))
