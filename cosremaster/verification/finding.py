"""What a check found."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.errors import Place


class Level(enum.Enum):
    """How a finding counts. Only ``FAILS`` makes an image fail."""

    HOLDS = "holds"
    NOTE = "note"
    """Odd, but tools that people use make images so."""
    FAILS = "fails"


class Finding(Struct, frozen=True):
    """One finding. ``check`` names the kind of check and never changes its meaning; ``message`` is for people.

    ``before``: the image it was compared with has the same fault, so that it does not count.
    """

    level: Level
    check: str
    message: str
    place: Place
    is_preexisting: bool = False

    @property
    def is_counted(self) -> bool:
        """True when it makes the image fail."""
        return self.level is Level.FAILS and not self.is_preexisting


def holds(check: str, message: str, place: Place) -> Finding:
    """Something was looked at and is as it should be."""
    return Finding(Level.HOLDS, check, message, place)


def note(check: str, message: str, place: Place) -> Finding:
    """Something is odd, which harms nobody."""
    return Finding(Level.NOTE, check, message, place)


def fails(check: str, message: str, place: Place) -> Finding:
    """Something is wrong."""
    return Finding(Level.FAILS, check, message, place)


def judge(good: bool, check: str, message: str, wrong: str, place: Place) -> Finding:
    """``message`` where ``good``, else ``wrong`` as a failure."""
    return holds(check, message, place) if good else fails(check, wrong, place)


class Report(Struct, frozen=True):
    """All findings about one image of ``size`` bytes."""

    place: Place
    size: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing in it makes the image fail."""
        return not any(finding.is_counted for finding in self.findings)

    def at_level(self, level: Level) -> tuple[Finding, ...]:
        """The findings of one level."""
        return tuple(finding for finding in self.findings if finding.level is level)

    def mark_preexisting(self, before: Iterable[Finding]) -> Report:
        """This report, with every failure marked that ``before`` has as well, as often as it has it."""
        known: dict[str, int] = {}
        for finding in before:
            if finding.level is Level.FAILS:
                known[finding.check] = known.get(finding.check, 0) + 1
        marked = []
        for finding in self.findings:
            if finding.level is Level.FAILS and known.get(finding.check, 0):
                known[finding.check] -= 1
                marked.append(replace(finding, is_preexisting=True))
            else:
                marked.append(finding)
        return Report(self.place, self.size, tuple(marked))
