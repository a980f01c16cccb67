"""Lists of sums that stand on the image, such as Debian's and Ubuntu's md5sum.txt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cosremaster.errors import CosremasterError, show
from cosremaster.files import FileSource
from cosremaster.iso.model import Image, IsoFile
from cosremaster.iso.read import read_image
from cosremaster.pipeline import SUMS
from cosremaster.progress import Progress
from cosremaster.streams import counted, digest_of
from cosremaster.verify.finding import Finding, fails, holds

MAX_LIST = 1 << 26
"""Bytes; a longer list of sums is none."""
_LINE = re.compile(rb"^(?P<sum>[0-9a-f]{32}|[0-9a-f]{64}) [ *](?:\./|/)?(?P<path>[^\n]+)$", re.M)
_DIGESTS = {32: "md5", 64: "sha256"}


def check_lists(source: FileSource, progress: Progress) -> Iterator[Finding]:
    """Every file named in a list of sums has the sum that the list says; paths count from the list's directory."""
    try:
        image = read_image(source)
    except CosremasterError:
        return  # check_layers tells it
    files = {file.path: file for file in image.files}
    for path, file in files.items():
        if path.rpartition(b"/")[2] in SUMS and file.size <= MAX_LIST:
            yield from _list(image, path, files, progress)


def _list(image: Image, path: bytes, files: Mapping[bytes, IsoFile], progress: Progress) -> Iterator[Finding]:
    text = b"".join(image.bytes_of(files[path]).chunks())
    folder = path[: path.rfind(b"/") + 1]
    place = image.place.inside(path)
    right = wrong = 0
    for line in _LINE.finditer(text):
        named = folder + line["path"]
        file = files.get(named)
        if file is None:
            wrong += 1
            yield fails("sums.missing", f"names {show(named)}, which is not there", place.at(line.start()))
            continue
        table = image.bytes_of(file)
        with progress.step(f"sum {show(named)}", table.length) as advance:
            found = digest_of(_DIGESTS[len(line["sum"])], counted(table.chunks(), advance)).hex().encode()
        if found == line["sum"]:
            right += 1
        else:
            wrong += 1
            yield fails("sums.stale", f"says another sum of {show(named)}", place.at(line.start()))
    if right and not wrong:
        yield holds("sums.stale", f"{show(path)}: the sums of {right:,} files hold", place)
