"""Lists of sums that stand on the image, such as Debian's and Ubuntu's md5sum.txt."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from cosremaster.checksums.lines import ChecksumLine
from cosremaster.checksums.lists import ChecksumList, DigestCache, read_checksum_lists
from cosremaster.errors import CosremasterError, printable
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.iso.read import read_image
from cosremaster.progress import Progress
from cosremaster.verification.finding import Finding, fails, holds, note


def check_lists(source: ByteSource, progress: Progress) -> Iterator[Finding]:
    """Every file named in a list of sums is there and has the sum that the list says. Each file is read once."""
    try:
        image = read_image(source)
    except CosremasterError:
        return  # check_layers tells it
    lists = read_checksum_lists(image)
    files = {file.path: file for file in image.files}
    digests = DigestCache(progress)
    digests.read(
        (path, image.bytes_of(files[path]), line.digest)
        for one in lists
        for line, path in zip(one.lines, one.files, strict=True)
        if path is not None and path != one.path
    )
    for one in lists:
        yield from _list(image, one, files, digests)


def _list(
    image: IsoImage, one: ChecksumList, files: Mapping[bytes, IsoFile], digests: DigestCache
) -> Iterator[Finding]:
    place = image.place.inside(one.path)
    offset = right = wrong = 0
    for line, path in zip(one.lines, one.files, strict=True):
        here = place.at(offset)
        offset += len(line.raw)
        if not line.digest:
            continue
        if path == one.path:
            yield note("sums.itself", "names itself, whose sum it cannot know", here)
            continue
        if _through_link(one.base + b"/" + line.name if path is None else path, files):
            yield note("sums.link", f"{printable(line.name)} leads through a symlink, which is not followed", here)
            continue
        if path is None:
            finding = fails("sums.missing", f"names {printable(line.name)}, which is not there", here)
        elif not _holds(image, line, files[path], digests):
            finding = fails("sums.stale", f"says another {line.digest} of {printable(path)}", here)
        else:
            right += 1
            continue
        wrong += 1
        yield finding
    if right and not wrong:
        yield holds("sums.stale", f"{printable(one.path)}: the sums of {right:,} files hold", place)


def _through_link(path: bytes, files: Mapping[bytes, IsoFile]) -> bool:
    """``path`` or a folder on the way to it is a symlink."""
    parts = posixpath.normpath(b"/" + path).lstrip(b"/").split(b"/")
    ways = (b"/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return any(way in files and not files[way].is_regular for way in ways)


def _holds(image: IsoImage, line: ChecksumLine, file: IsoFile, digests: DigestCache) -> bool:
    return line.has_checksum(digests.get(image.bytes_of(file), line.digest))
