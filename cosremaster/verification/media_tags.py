"""Check the digests that tagmedia wrote into the volume."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot.implanted import APPLICATION_USE, AREA_SIZE
from cosremaster.boot.media_tags import MediaTags, compute_media_digests
from cosremaster.units import BLOCK, SECTOR, lba_offset
from cosremaster.verification.finding import Finding, fails, judge
from cosremaster.verification.subject import Subject


def check_media_tags(subject: Subject) -> Iterator[Finding]:
    """Check the digests of the volume and of a partition, and the fragment sums; a signature is not checked."""
    primary = subject.primary
    if primary is None or primary.blocks * BLOCK > subject.source.size:
        return
    tags = MediaTags.parse(primary.raw[APPLICATION_USE : APPLICATION_USE + AREA_SIZE])
    if tags is None:
        return
    area = lba_offset(primary.lba) + APPLICATION_USE
    place = subject.place.at(area)
    partition = tags.partition
    if partition is not None and (partition.start + partition.blocks) * SECTOR > subject.source.size:
        yield fails("media.partition", "media tags: their partition ends behind the image", place)
        partition = None
    chunks = subject.source.chunks(0, subject.source.size)
    digests = compute_media_digests(chunks, tags, area, primary.blocks, partition, tags.signature)
    is_right = digests.volume == tags.digest
    failure = f"media tags: say {tags.kind} {tags.digest}, the image has {digests.volume}"
    yield judge(is_right, "media.digest", f"media tags: {tags.kind} {digests.volume} holds", failure, place)
    if partition is not None:
        failure = f"media tags: say {tags.kind} {partition.digest} of the partition, which has {digests.partition}"
        message = f"media tags: {tags.kind} of the partition holds"
        yield judge(digests.partition == partition.digest, "media.partition", message, failure, place)
    if is_right and tags.fragment_count and digests.fragments != tags.fragments:
        yield fails("media.fragments", "media tags: their fragment sums are wrong", place)
