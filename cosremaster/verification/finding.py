"""Findings of the checks, and the report of all of them."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable

from cosremaster.errors import Place
from cosremaster.records.lazy_dataclass import dataclass, replace


class Level(enum.Enum):
    """The weight of a finding. Only ``FAILS`` makes an image fail."""

    HOLDS = "holds"
    NOTE = "note"
    """Odd, but common tools make such images."""
    FAILS = "fails"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    :param check: name of the kind of check; a name never changes its meaning (docs/verify.md).
    :param message: a text for people.
    :param is_preexisting: the original image has the same fault, or may have it, so that it does not count.
    """

    level: Level
    check: str
    message: str
    place: Place
    is_preexisting: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether it makes the image fail."""
        return self.level is Level.FAILS and not self.is_preexisting


def holds(check: str, message: str, place: Place) -> Finding:
    """Return the finding that something is correct."""
    return Finding(Level.HOLDS, check, message, place)


def note(check: str, message: str, place: Place) -> Finding:
    """Return the finding that something is odd, but harmless."""
    return Finding(Level.NOTE, check, message, place)


def fails(check: str, message: str, place: Place) -> Finding:
    """Return the finding that something is wrong."""
    return Finding(Level.FAILS, check, message, place)


def judge(is_good: bool, check: str, message: str, failure: str, place: Place) -> Finding:
    """Return the finding ``message`` if ``is_good``, else ``failure``."""
    return holds(check, message, place) if is_good else fails(check, failure, place)


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All findings about one image of ``size`` bytes."""

    place: Place
    size: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no finding makes the image fail."""
        return not any(finding.is_counted for finding in self.findings)

    def at_level(self, level: Level) -> tuple[Finding, ...]:
        """Return the findings of one level."""
        return tuple(finding for finding in self.findings if finding.level is level)

    def with_findings(self, findings: Iterable[Finding]) -> VerificationReport:
        """Return the report with more ``findings`` at its end."""
        return replace(self, findings=(*self.findings, *findings))

    def mark_preexisting(self, original: Iterable[Finding], unknown: Collection[str] = ()) -> VerificationReport:
        """Return the report with those failures marked that the ``original`` image has too, as often as it has them.

        :param unknown: checks that could not be made of the original; whatever fails them may be its own fault.
        """
        preexisting = Counter(finding.check for finding in original if finding.level is Level.FAILS)
        marked = list[Finding]()
        for finding in self.findings:
            is_known = bool(preexisting[finding.check])
            if finding.level is Level.FAILS and (is_known or finding.check in unknown):
                preexisting[finding.check] -= is_known
                marked.append(replace(finding, is_preexisting=True))
            else:
                marked.append(finding)
        return VerificationReport(self.place, self.size, tuple(marked))
