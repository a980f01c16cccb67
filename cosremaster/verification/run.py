"""Run all checks over one image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from cosremaster.errors import UnsupportedError
from cosremaster.io.source import ByteSource, open_source
from cosremaster.io.urls import ImagePath
from cosremaster.layers.identify import is_archive_file
from cosremaster.layers.scan import MAX_EXPAND, ScanOptions
from cosremaster.progress import Progress, SilentProgress
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR
from cosremaster.verification.boot_entries import check_boot
from cosremaster.verification.checksum_lists import check_lists
from cosremaster.verification.checksum_tags import check_checksum_tags
from cosremaster.verification.compare import check_against
from cosremaster.verification.coreos import check_embed_areas
from cosremaster.verification.finding import Finding, Level, VerificationReport
from cosremaster.verification.firmware import check_firmware
from cosremaster.verification.implanted import check_implanted
from cosremaster.verification.layers import UNSUPPORTED, check_archive_file, check_layers
from cosremaster.verification.media_tags import check_media_tags
from cosremaster.verification.partitions import check_apm, check_gpt, check_mbr
from cosremaster.verification.rockridge import check_rock_ridge
from cosremaster.verification.second_reader import DIFFERS, check_second_reader, check_still_readable, has_read
from cosremaster.verification.subject import Subject, read_subject
from cosremaster.verification.udf import check_udf
from cosremaster.verification.volume import (
    check_agreement,
    check_descriptors,
    check_overlaps,
    check_path_tables,
    check_records,
)

CHECKS: Sequence[Callable[[Subject], Iterator[Finding]]] = (
    check_descriptors, check_path_tables, check_records, check_overlaps, check_agreement, check_rock_ridge,
    check_boot, check_mbr, check_gpt, check_apm, check_firmware, check_embed_areas, check_udf, check_implanted,
    check_media_tags, check_checksum_tags, check_second_reader,
)  # fmt: skip


def verify(
    path: ImagePath,
    *,
    against: ImagePath | None = None,
    changed: Collection[bytes] = (),
    changed_volume: bool = False,
    deep: bool = False,
    max_expand: int = MAX_EXPAND,
    progress: Progress | None = None,
) -> VerificationReport:
    """Check the image ``path``, and return all findings. Changes nothing.

    >>> verify("site.iso", against="vendor.iso", changed=[b"boot/grub/grub.cfg"]).ok  # doctest: +SKIP
    True

    :param against: the image that it was made from, whose own faults do not count.
    :param changed: paths on the image, or inside FAT file systems on it, that were meant to change.
    :param changed_volume: volume id and modification date were meant to change.
    :param deep: decode every layer, and check the files that checksum lists name.
    :raises ImageError: when a file cannot be opened or read.
    :raises UsageError: a path in ``changed`` is in neither image.
    :raises UnsupportedError: when it is UDF without ISO 9660, an archive that is to be compared, or of a kind that
        cannot be read.
    """
    progress = progress or SilentProgress()
    with open_source(path) as source:
        if source.read(FIRST_DESCRIPTOR * BLOCK + 1, 5) == b"BEA01":
            raise UnsupportedError("is UDF without ISO 9660, which cannot be verified", source.place)
        if is_archive_file(source):
            if against is not None:
                raise UnsupportedError("is no ISO: only ISOs are compared with their originals", source.place)
            options = ScanOptions(max_expand=max_expand)
            return _report_archive_file(source, check_archive_file(source, options, with_data=deep))
        subject = read_subject(source)
        findings = list(_run_checks(subject))
        if deep:
            findings += check_layers(source, progress, ScanOptions(max_expand=max_expand))
            findings += check_lists(source, progress)
        report = VerificationReport(source.place, source.size, tuple(findings))
        if against is None:
            return report
        with open_source(against) as original, progress.step("compare", None):
            original_subject = read_subject(original)
            original_findings = tuple(_run_checks(original_subject))
            unknown = () if has_read(original_findings) else (DIFFERS,)
            report = report.mark_preexisting(original_findings, unknown)
            report = report.with_findings(check_still_readable(original_findings, findings))
            return report.with_findings(
                check_against(original_subject, subject, changed, changed_volume=changed_volume)
            )


def _report_archive_file(source: ByteSource, findings: Iterable[Finding]) -> VerificationReport:
    """Return the report on ``source``, a file alone. :raises UnsupportedError: none of it could be checked."""
    report = VerificationReport(source.place, source.size, tuple(findings))
    unread = [finding for finding in report.findings if finding.check == UNSUPPORTED]
    if unread and all(finding.level is Level.NOTE for finding in report.findings):
        raise UnsupportedError(unread[0].message, unread[0].place)
    return report


def _run_checks(subject: Subject) -> Iterator[Finding]:
    """Yield the findings of all checks of the structures."""
    yield from subject.problems
    for check in CHECKS:
        yield from check(subject)
