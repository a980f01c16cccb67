"""Values of JSON are read as the types that were asked for, and nothing else is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.records import NumberRange, Struct
from cosremaster.records import json as records_json
from cosremaster.records.json import MismatchError, convert, decode_json, encode_json

Count = Annotated[int, NumberRange(ge=0, le=9)]


class Leaf(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A record that refuses what it does not know."""

    path: str
    number: Count = 0
    pairs: tuple[tuple[Count, str], ...] = ()


class Branch(Struct, frozen=True):
    """A record with records in it."""

    leaves: tuple[Leaf, ...]
    others: dict[str, Any]
    inner: Branch | None = None


LEAVES = st.builds(
    Leaf, st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 9),
    st.lists(st.tuples(st.integers(0, 9), st.just("x"))).map(tuple),
)  # fmt: skip
BRANCHES = st.builds(
    Branch, st.lists(LEAVES, max_size=3).map(tuple), st.dictionaries(st.text("ab"), st.integers()),
    st.none() | st.builds(Branch, st.just(()), st.just({})),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(BRANCHES)
def test_records_come_back(branch: Branch) -> None:
    assert decode_json(encode_json(branch), Branch) == branch


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(
        st.none() | st.integers() | st.binary() | st.tuples(st.integers(), st.integers()),
        st.lists(st.binary()),
        st.floats(allow_nan=False),
        st.booleans(),
    )
)
def test_bytes_and_unions_come_back(value: tuple[Any, ...]) -> None:
    kind: Any = tuple[bytes | int | tuple[int, int] | None, list[bytes], float, bool]
    assert decode_json(encode_json(value), kind) == value


def test_json_is_short_and_leaves_defaults_out() -> None:
    leaf = Leaf("ü", 0, ((1, "b"),))
    assert encode_json(leaf) == '{"path":"ü","pairs":[[1,"b"]]}'.encode()
    assert encode_json(Branch((), {})) == b'{"leaves":[],"others":{},"inner":null}'
    with pytest.raises(ValueError, match="surrogates"):
        encode_json("\udc80")


OTHERS: list[tuple[object, Any]] = [
    (True, int), (1.0, int), ("1", int), (1, str), (1, bool), (None, str), (10, Count), (-1, Count), (True, Count),
    (True, float), ("x", float), (10**400, float), ([1], tuple[int, int]), ([1, "2"], list[int]), ({"a": 1}, list[int]),
    ({"a": "b"}, dict[str, int]), ([], dict[str, int]), ({"path": 1}, Leaf), ({}, Leaf), ([], Leaf),
    ({"path": "", "more": 1}, Leaf), ("c", Literal["a", "b"]), ([], Literal["a", "b"]), (1.5, int | str),
    ("text", bytes), (1, bytes),
    ({"base64": "a"}, bytes), ({"base64": "", "x": 1}, bytes), ({"base64": 1}, bytes),
    ({"leaves": [], "others": {}, "inner": {}}, Branch),
]  # fmt: skip


def test_another_type_is_refused() -> None:
    for value, kind in OTHERS:
        with pytest.raises(MismatchError):
            convert(value, kind)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1,]", b"\xff", b"[" * 100_000], ids=["none", "open", "comma", "utf-8", "deep"]
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(MismatchError):
        decode_json(data, list[int])


class Slow(Struct, frozen=True):
    """A record whose first reading is not over when the second begins."""

    first: int = 0
    second: int = 0


def test_a_record_that_is_read_on_two_threads_at_first_is_whole_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    make, inner = records_json._reader, list[Any]()

    def make_and_read(kind: Any) -> Any:
        """Another thread reads such a record, when this one knows the first field."""
        if kind is int and not inner:
            inner.append(None)
            inner.append(read({"first": 1, "second": 2}))
        return make(kind)

    read = make(Slow)
    monkeypatch.setattr(records_json, "_reader", make_and_read)
    assert read({"first": 3, "second": 4}) == Slow(3, 4)
    assert inner[1:] == [Slow(1, 2)]


def test_unknown_names_are_passed_over_unless_forbidden() -> None:
    assert convert({"leaves": [], "others": {}, "more": 1}, Branch) == Branch((), {})
