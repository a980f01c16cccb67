"""The lines of ``verify`` for people."""

from __future__ import annotations

import pytest

from cosremaster.errors import Place
from cosremaster.reports.verify import verify_lines
from cosremaster.verification.finding import VerificationReport, holds, note

PLACE = Place(("x.iso",))


@pytest.mark.parametrize(("count", "noun"), [(0, "notes"), (1, "note"), (2, "notes")])
def test_totals_are_counted_in_words(count: int, noun: str) -> None:
    findings = (holds("a", "is there", PLACE), *[note("b", "is odd", PLACE)] * count)
    *_, totals = verify_lines(VerificationReport(PLACE, 2048, findings))
    assert totals == f"x.iso: sound (1 hold, {count} {noun}, 0 fail)"
