"""Expressions that are compiled on first use."""

from __future__ import annotations

import re

import pytest

from cosremaster.lazy_regex import lazy_regex


def test_nothing_is_compiled_before_the_first_use() -> None:
    broken = lazy_regex("(")
    with pytest.raises(re.error):
        broken.match("")


def test_text_and_bytes_with_flags_are_matched_as_by_re() -> None:
    assert lazy_regex(rb"a(.)", re.IGNORECASE | re.DOTALL).fullmatch(b"A\n")[1] == b"\n"  # type: ignore[index]
    names = lazy_regex(r"[a-z]+")
    assert (names.findall("a1b"), names.sub("x", "a1b"), names.pattern) == (["a", "b"], "x1x", "[a-z]+")
