"""Check an image against the digest files beside it, as ``sha256sum -c`` does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cosremaster.checksums.lines import DIGESTS, ChecksumLine, parse_lines
from cosremaster.errors import ImageError, Place, printable
from cosremaster.io.source import open_source
from cosremaster.io.streams import count_chunks, digest_of
from cosremaster.io.urls import AbsentFileError, ImagePath, Url, parse_image_path
from cosremaster.progress import SUM, Progress, begin_work
from cosremaster.verification.finding import Finding, fails, judge

NAMES = ("sha512", "sha256", "sha1", "md5")
"""Endings of digest files, which are the names of their digests."""

_CHECK = "digest.file"

_MOST = 1 << 20
"""Bytes of a digest file on another machine that are read."""


def check_digest_files(path: ImagePath, progress: Progress) -> Iterator[Finding]:
    """Yield a finding for each file ``path.DIGEST``, of a URL on its server; that there is none is a failure.

    :raises ImageError: the image cannot be read.
    """
    image = parse_image_path(path)
    place, own = Place((printable(str(image)),)), image.name
    is_alone = True
    for name in NAMES:
        file_name = f"{own}.{name}"
        try:
            data = _read_beside(image, f".{name}")
        except ImageError as error:
            yield fails(_CHECK, f"{file_name} {error.message}", place)
            is_alone = False
            continue
        if data is None:
            continue
        is_alone = False
        line = _find_line(parse_lines(data), os.fsencode(own), name)
        if line is None:
            yield fails(_CHECK, f"{file_name} has no {name} of {own}", place)
            continue
        with open_source(image) as source, begin_work(progress, f"check {name}", source.size, SUM) as advance:
            digest = digest_of(name, count_chunks(source.chunks(0, source.size), advance)).hex()
        yield judge(
            line.has_checksum(digest), _CHECK, f"{name} is that in {file_name}",
            f"{name} is {digest}, not that in {file_name}", place,
        )  # fmt: skip
    if is_alone:
        yield fails(_CHECK, f"there is no {own}.sha256 or {own}.md5 beside it", place)


def _read_beside(image: Path | Url, ending: str) -> bytes | None:
    """Return the file beside ``image`` whose name is longer by ``ending``; None if there is none.

    :raises ImageError: it cannot be read.
    """
    if isinstance(image, Url):
        try:
            with open_source(image.beside(ending)) as source:
                return source.read(0, _MOST)
        except AbsentFileError:
            return None
    file = Path(f"{image}{ending}")
    if not file.exists():
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def _find_line(lines: tuple[ChecksumLine, ...], name: bytes, digest: str) -> ChecksumLine | None:
    """Return the line with the checksum ``digest`` of the file ``name``; None where there is none."""
    for line in lines:
        if DIGESTS.get(len(line.checksum)) == digest and os.path.basename(line.name) == name:
            return line
    return None
