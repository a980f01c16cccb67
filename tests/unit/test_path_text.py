"""Names are found in a text of paths as in a list of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cosremaster.iso.path_text import PathText

_PATHS = st.lists(st.text(alphabet="aA.cC/é", min_size=1, max_size=6).map(str.encode), max_size=8)
_ODD = st.lists(st.binary(min_size=1, max_size=3) | st.just(b"a\0b.c"), max_size=3)
_PARTS = st.text(alphabet="a.c/", min_size=1, max_size=3).map(str.encode)


@given(_PATHS | _ODD, _PATHS | _ODD, _PARTS, _PARTS)
def test_what_is_found(paths: list[bytes], added: list[bytes], part: bytes, other: bytes) -> None:
    text, everything = PathText(paths).extend(added), [*paths, *added]
    for _ in range(2):  # what was looked for is known then
        assert list(text.find_containing(part)) == [path for path in everything if part in path.lower()]
        assert list(text.find_ending(part, other)) == [
            path for path in everything if path.lower().endswith((part, other))
        ]
    for path in (part, *everything):
        same = [known for known in everything if known.lower() == path.lower()]
        assert text.find_last(path) == (same[-1] if same else None)
        small = [known for known in same if known.islower()]
        assert text.find_last(path, bytes.islower) == (small[-1] if small else None)


@given(_PATHS, _PATHS)
def test_what_is_added_changes_no_other_text(paths: list[bytes], added: list[bytes]) -> None:
    text = PathText(paths)
    text.extend(added)
    assert list(text.find_containing(b"a")) == [path for path in paths if b"a" in path.lower()]
