"""Check the MD5 that isomd5sum implants in the volume."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot.implanted import APPLICATION_USE, AREA_SIZE, ImplantedMd5, compute_md5_sums
from cosremaster.units import BLOCK, lba_offset
from cosremaster.verification.finding import Finding, fails, judge
from cosremaster.verification.subject import Subject


def check_implanted(subject: Subject) -> Iterator[Finding]:
    """Check the implanted MD5, which covers the whole volume."""
    primary = subject.primary
    if primary is None or primary.blocks * BLOCK > subject.source.size:
        return
    offset = lba_offset(primary.lba) + APPLICATION_USE
    place = subject.place.at(offset)
    implanted = ImplantedMd5.parse(primary.raw[APPLICATION_USE : APPLICATION_USE + AREA_SIZE])
    if implanted is None:
        if primary.raw[APPLICATION_USE:].startswith(b"ISO MD5SUM"):
            yield fails("md5.malformed", "implanted MD5: cannot be read", place)
        return
    length = (primary.blocks - implanted.skip) * BLOCK
    sums = compute_md5_sums(subject.source.chunks(0, length), offset, length, implanted.count)
    is_right, md5 = sums.md5 == implanted.sums.md5, sums.md5.decode()
    failure = f"implanted MD5: says {implanted.sums.md5.decode()}, the image has {md5}"
    yield judge(is_right, "md5.implanted", f"implanted MD5: {md5} holds", failure, place)
    if is_right and sums.fragments != implanted.sums.fragments:
        yield fails("md5.fragments", "implanted MD5: its fragment sums are wrong", place)
