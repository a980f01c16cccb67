"""Other firmware's headers, UDF, implanted MD5s and lists of sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from cosremaster.boot.firmware import find_firmware
from cosremaster.boot.implanted import APPLICATION_USE, AREA_SIZE, ImplantedMd5, compute_md5_sums
from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.iso.udf.read import Udf, read_udf
from cosremaster.units import BLOCK, SECTOR, Lba, lba_offset
from cosremaster.verification.booting import find_file_starts
from cosremaster.verification.finding import Finding, fails, holds, judge, note
from cosremaster.verification.subject import Subject


def check_firmware(subject: Subject) -> Iterator[Finding]:
    """Headers of MIPS, SPARC, Alpha, HP-PA and PowerPC firmware lead to files, partitions or the volume."""
    files = find_file_starts(subject)
    for found in find_firmware(subject.source.read(0, BLOCK), subject.mbr):
        if found.has_valid_checksum is not None:
            yield judge(
                found.has_valid_checksum,
                "firmware.sum",
                f"{found.name}: its sum holds",
                f"{found.name}: its sum is wrong",
                subject.place.at(0),
            )
        partitions = found.name in ("Sun disk label", "PReP", "CHRP")
        for one in found.targets:
            place = subject.place.at(one.pointer_offset)
            what = f"{found.name}, {one.name}"
            if one.start + (0 if one.start == 0 else one.length) > _rounded(subject.source.size):
                yield fails("firmware.outside", f"{what}: leads behind the image", place)
            elif one.start == 0 or partitions or _leads(found.name, one.start, files):
                yield holds("firmware.target", f"{what}: leads to byte {one.start:,}", place)
            else:
                yield fails("firmware.target", f"{what}: no file is at byte {one.start:,}", place)


def _rounded(size: int) -> int:
    """Firmware counts tracks and cylinders: the last may lie half behind the image."""
    return -(-size // SECTOR) * SECTOR + 640 * SECTOR


def _leads(name: str, start: int, files: Mapping[Lba, tuple[bytes, int]]) -> bool:
    """A DEC boot block points at a program inside its file, the others at where theirs begins."""
    if name == "DEC boot block":
        return any(lba_offset(lba) <= start < lba_offset(lba) + length for lba, (_, length) in files.items())
    return start % BLOCK == 0 and Lba(start // BLOCK) in files


def check_udf(subject: Subject) -> Iterator[Finding]:
    """Tags, sizes that stand twice, and whether UDF's files are those of ISO 9660."""
    try:
        udf = read_udf(subject.source, subject.blocks)
    except (ImageError, UnsupportedError) as error:
        level = fails if isinstance(error, ImageError) else note
        yield level("udf.unreadable", error.message, error.place or subject.place)
        return
    if udf is not None:
        yield from chain(_tags(subject, udf), _sizes(subject, udf), _files(subject, udf))


def _tags(subject: Subject, udf: Udf) -> Iterator[Finding]:
    bad = [tag for tag in udf.tags if not tag.is_sound]
    for tag in bad:
        place = subject.place.at(tag.offset)
        if not tag.has_valid_checksum:
            yield fails("udf.tag-checksum", f"UDF {tag.name}: its tag's checksum is wrong", place)
        elif tag.tag_location != tag.true_location:
            yield fails(
                "udf.tag-place",
                f"UDF {tag.name}: says block {tag.tag_location:,}, stands at {tag.true_location:,}",
                place,
            )
        else:
            yield fails("udf.crc", f"UDF {tag.name}: its CRC is wrong", place)
    if not bad:
        yield holds(
            "udf.tags", f"UDF: {len(udf.tags):,} descriptors hold", subject.place.at(lba_offset(udf.anchors[0]))
        )
    if udf.tail_anchors is None:
        yield fails("udf.last-anchor", "UDF: the volume's last block is no anchor", subject.place)


def _sizes(subject: Subject, udf: Udf) -> Iterator[Finding]:
    place = subject.place.at(udf.partition_descriptors[0])
    if len(set(udf.partition_lengths)) != 1 or len(udf.partition_lengths) != 2:
        yield fails("udf.sequences", "UDF: its two volume descriptor sequences differ", place)
    yield judge(
        udf.partition.end <= subject.blocks, "udf.partition",
        f"UDF partition: blocks {udf.partition.start:,} to {udf.partition.end - 1:,}",
        f"UDF partition: ends {udf.partition.end - subject.blocks:,} blocks behind the volume", place,
    )  # fmt: skip
    for offset, size in zip(udf.integrity_descriptors, udf.integrity_sizes, strict=True):
        if size != udf.partition.blocks:
            message = f"UDF integrity: says {size:,} blocks, the partition has {udf.partition.blocks:,}"
            yield fails("udf.integrity", message, subject.place.at(offset))
    if udf.integrity_counts and udf.integrity_counts[1] != udf.directory_count:
        message = f"UDF integrity: counts {udf.integrity_counts[1]:,} directories, there are {udf.directory_count:,}"
        yield note("udf.counts", message, subject.place.at(udf.integrity_descriptors[-1]))


def _files(subject: Subject, udf: Udf) -> Iterator[Finding]:
    """Every UDF file's data are those of a file of the ISO 9660 tree."""
    files = find_file_starts(subject)
    odd = 0
    for file in udf.files:
        place = subject.place.inside("/".join(file.path)).at(file.entry_offset)
        total = sum(length for _, length in file.extents)
        if total != file.size:
            odd += 1
            yield fails("udf.file-size", f"UDF: says {file.size:,} bytes and has extents of {total:,}", place)
        elif file.extents and files.get(file.extents[0][0], (b"", 0))[1] != total:
            odd += 1
            message = f"UDF: block {file.extents[0][0]:,}, {total:,} bytes, is no file of the ISO 9660 tree"
            yield fails("udf.file", message, place)
    known = {file.extents[0][0] for file in udf.files if file.extents}
    main = {lba for lba, _, length in subject.main.list_whole_files() if length} if subject.main else set()
    if hidden := len(main - known):
        yield note("udf.hidden", f"UDF: {hidden:,} files of the ISO 9660 tree are not in it", subject.place)
    if not odd:
        yield holds("udf.file", f"UDF: {len(udf.files):,} files, the data of all are those of ISO 9660", subject.place)


def check_implanted(subject: Subject) -> Iterator[Finding]:
    """The implanted MD5, taken over the whole volume."""
    primary = subject.primary
    if primary is None or primary.blocks * BLOCK > subject.source.size:
        return
    implanted = ImplantedMd5.parse(primary.raw[APPLICATION_USE : APPLICATION_USE + AREA_SIZE])
    if implanted is None:
        if primary.raw[APPLICATION_USE:].startswith(b"ISO MD5SUM"):
            place = subject.place.at(lba_offset(primary.lba) + APPLICATION_USE)
            yield fails("md5.malformed", "implanted MD5: cannot be read", place)
        return
    place = subject.place.at(lba_offset(primary.lba) + APPLICATION_USE)
    total = (primary.blocks - implanted.skip) * BLOCK
    chunks = subject.source.chunks(0, total)
    sums = compute_md5_sums(chunks, lba_offset(primary.lba) + APPLICATION_USE, total, implanted.count)
    yield judge(
        sums.md5 == implanted.sums.md5, "md5.implanted", f"implanted MD5: {sums.md5.decode()} holds",
        f"implanted MD5: says {implanted.sums.md5.decode()}, the image has {sums.md5.decode()}", place,
    )  # fmt: skip
    if sums.md5 == implanted.sums.md5 and sums.fragments != implanted.sums.fragments:
        yield fails("md5.fragments", "implanted MD5: its fragment sums are wrong", place)
