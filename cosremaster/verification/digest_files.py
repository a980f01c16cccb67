"""Check an image against the digest files beside it, as ``sha256sum -c`` does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cosremaster.checksums.lines import DIGESTS, ChecksumLine, parse_lines
from cosremaster.errors import Place
from cosremaster.io.source import open_source
from cosremaster.io.streams import count_chunks, digest_of
from cosremaster.progress import Progress
from cosremaster.verification.finding import Finding, fails, judge

NAMES = ("sha512", "sha256", "sha1", "md5")
"""Endings of digest files, which are the names of their digests."""

_CHECK = "digest.file"


def check_digest_files(path: Path, progress: Progress) -> Iterator[Finding]:
    """Yield a finding for each file ``path.DIGEST``; that there is none is a failure.

    :raises ImageError: the image cannot be read.
    """
    place = Place((str(path),))
    digest_files = [file for file in (Path(f"{path}.{name}") for name in NAMES) if file.exists()]
    if not digest_files:
        yield fails(_CHECK, f"there is no {path.name}.sha256 or {path.name}.md5 beside it", place)
    for file in digest_files:
        name = file.suffix.removeprefix(".")
        try:
            lines = parse_lines(file.read_bytes())
        except OSError as error:
            yield fails(_CHECK, f"{file.name} cannot be read: {error.strerror}", place)
            continue
        line = _find_line(lines, os.fsencode(path.name), name)
        if line is None:
            yield fails(_CHECK, f"{file.name} has no {name} of {path.name}", place)
            continue
        with open_source(path) as source, progress.step(f"check {name}", source.size) as advance:
            digest = digest_of(name, count_chunks(source.chunks(0, source.size), advance)).hex()
        yield judge(
            line.has_checksum(digest), _CHECK, f"{name} is that in {file.name}",
            f"{name} is {digest}, not that in {file.name}", place,
        )  # fmt: skip


def _find_line(lines: tuple[ChecksumLine, ...], name: bytes, digest: str) -> ChecksumLine | None:
    """Return the line with the checksum ``digest`` of the file ``name``; None where there is none."""
    for line in lines:
        if DIGESTS.get(len(line.checksum)) == digest and os.path.basename(line.name) == name:
            return line
    return None
