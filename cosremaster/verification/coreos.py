"""Check the headers of a CoreOS image, which name places in its files."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot.coreos import find_embed_areas
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, lba_offset
from cosremaster.verification.finding import Finding, judge
from cosremaster.verification.subject import Subject


def check_embed_areas(subject: Subject) -> Iterator[Finding]:
    """Check that each area that a CoreOS header names lies in a file."""
    areas = find_embed_areas(subject.source.read(0, FIRST_DESCRIPTOR * BLOCK))
    if not areas:
        return
    ranges = [(lba_offset(lba), lba_offset(lba) + length) for lba, (_, length) in subject.files_by_lba().items()]
    for area in areas:
        is_inside = any(start <= area.start and area.start + area.length <= end for start, end in ranges)
        label = f"CoreOS header, {area.name}"
        failure = f"{label}: bytes {area.start:,} to {area.start + area.length:,} are in no file"
        message = f"{label}: at byte {area.start:,}"
        yield judge(is_inside, "coreos.area", message, failure, subject.place.at(area.pointer_offset))
