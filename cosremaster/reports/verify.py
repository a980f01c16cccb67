"""A verification as lines of text or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosremaster.verification.finding import Finding, Level, VerificationReport

if TYPE_CHECKING:
    from cosremaster.reports.documents import CountsDocument, VerifyDocument

VERSION = 1
"""Of the JSON; it grows when a field changes its meaning or goes away (docs/verify.md)."""

_MARKS = {Level.HOLDS: "ok  ", Level.NOTE: "note", Level.FAILS: "FAIL"}


def verify_lines(report: VerificationReport) -> Iterator[str]:
    """Yield a line for each finding, then the totals."""
    for finding in report.findings:
        before = " (the original has it too)" if finding.is_preexisting else ""
        mark = "was " if finding.is_preexisting else _MARKS[finding.level]
        yield f"{mark} {finding.check}: {_where(report, finding)}{finding.message}{before}"
    counts = _counts(report)
    totals = (
        f"{counts['holds']:,} hold, {counts['notes']:,} note{'s' * (counts['notes'] != 1)}, {counts['fails']:,} fail"
    )
    if counts["before"]:
        totals += f", {counts['before']:,} as in the original"
    yield f"{report.place}: {'sound' if report.ok else 'NOT SOUND'} ({totals})"


def _where(report: VerificationReport, finding: Finding) -> str:
    """Return the place of a note or failure, unless it is the image as a whole."""
    if finding.level is Level.HOLDS or finding.place == report.place:
        return ""
    return f"{finding.place}: "


def _counts(report: VerificationReport) -> CountsDocument:
    """Count the findings of each level."""
    return {
        "holds": len(report.at_level(Level.HOLDS)),
        "notes": len(report.at_level(Level.NOTE)),
        "fails": sum(finding.is_counted for finding in report.findings),
        "before": sum(finding.is_preexisting for finding in report.findings),
    }


def verify_report(report: VerificationReport) -> VerifyDocument:
    """Return the report as plain values (docs/verify.md)."""
    return {
        "schema": VERSION,
        "version": VERSION,
        "image": str(report.place),
        "size": report.size,
        "ok": report.ok,
        "counts": _counts(report),
        "findings": [
            {
                "level": finding.level.value,
                "check": finding.check,
                "message": finding.message,
                "place": list(finding.place.parts),
                "offset": finding.place.offset,
                "before": finding.is_preexisting,
            }
            for finding in report.findings
        ],
    }
