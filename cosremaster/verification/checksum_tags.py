"""Check the MD5 tags that xorriso wrote into the image."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot.checksum_tags import read_checksum_tags
from cosremaster.io.streams import digest_of
from cosremaster.units import Lba, lba_offset
from cosremaster.verification.finding import Finding, fails, judge
from cosremaster.verification.subject import Subject


def check_checksum_tags(subject: Subject) -> Iterator[Finding]:
    """Check the MD5 of each range that a tag of the image names; those of single files are not checked."""
    if subject.primary is None:
        return
    source = subject.source
    for tag in read_checksum_tags(source.read, frozenset({Lba(0)})):
        place = subject.place_at(tag.lba)
        start, end = lba_offset(tag.start), lba_offset(Lba(tag.start + tag.size))
        if end > source.size:
            yield fails("md5.tag", "MD5 tag of xorriso: its range ends behind the image", place)
            continue
        md5 = digest_of("md5", source.chunks(start, end - start)).hex()
        message = f"MD5 tag of xorriso: {tag.size:,} blocks from block {tag.start:,} on have "
        yield judge(md5 == tag.md5, "md5.tag", message + md5, f"{message}{md5}, and it says {tag.md5}", place)
