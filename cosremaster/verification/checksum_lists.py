"""Check the checksum lists on the image, such as Debian's and Ubuntu's md5sum.txt."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import suppress

from cosremaster.checksums.lists import ChecksumList, DigestCache, read_checksum_lists
from cosremaster.errors import CosremasterError, printable
from cosremaster.io.source import ByteSource
from cosremaster.iso.hidden import with_hidden_files
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.iso.read import read_image
from cosremaster.progress import Progress
from cosremaster.verification.finding import Finding, fails, holds, note


def check_lists(source: ByteSource, progress: Progress) -> Iterator[Finding]:
    """Check that every file named in a checksum list is on the image and has that checksum; read each file once."""
    try:
        image = read_image(source)
    except CosremasterError:
        return  # check_layers reports it
    with suppress(CosremasterError):  # check_agreement reports it
        image = with_hidden_files(image, source)
    lists = read_checksum_lists(image)
    files = {file.path: file for file in image.files}
    digests = DigestCache(progress)
    digests.read(
        (path, image.bytes_of(files[path]), line.digest)
        for checksum_list in lists
        for line, path in zip(checksum_list.lines, checksum_list.files, strict=True)
        if path is not None and path != checksum_list.path
    )
    for checksum_list in lists:
        yield from _check_list(image, checksum_list, files, digests)


def _check_list(
    image: IsoImage, checksum_list: ChecksumList, files: Mapping[bytes, IsoFile], digests: DigestCache
) -> Iterator[Finding]:
    """Check each line of a checksum list."""
    list_place = image.place.inside(checksum_list.path)
    offset = right = wrong = 0
    for line, path in zip(checksum_list.lines, checksum_list.files, strict=True):
        place = list_place.at(offset)
        offset += len(line.raw)
        if not line.digest:
            continue
        if path == checksum_list.path:
            yield note("sums.itself", "names itself, whose sum it cannot know", place)
            continue
        if _leads_through_link(checksum_list.base + b"/" + line.name if path is None else path, files):
            yield note("sums.link", f"{printable(line.name)} leads through a symlink, which is not followed", place)
            continue
        if path is None and checksum_list.is_treeinfo:
            yield note(
                "sums.missing", f"names {printable(line.name)}, which is not there, maybe of a repository", place
            )
            continue
        if path is None:
            finding = fails("sums.missing", f"names {printable(line.name)}, which is not there", place)
        elif not line.has_checksum(digests.get(image.bytes_of(files[path]), line.digest)):
            finding = fails("sums.stale", f"says another {line.digest} of {printable(path)}", place)
        else:
            right += 1
            continue
        wrong += 1
        yield finding
    if right and not wrong:
        yield holds("sums.stale", f"{printable(checksum_list.path)}: the sums of {right:,} files hold", list_place)


def _leads_through_link(path: bytes, files: Mapping[bytes, IsoFile]) -> bool:
    """Return True if ``path``, or a directory above it, is a symlink."""
    parts = posixpath.normpath(b"/" + path).lstrip(b"/").split(b"/")
    prefixes = (b"/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return any(prefix in files and not files[prefix].is_regular for prefix in prefixes)
