"""Answers to requests for ranges: preconditions, ranges and limits as RFC 9110 has them."""

from __future__ import annotations

import email.message
import email.parser
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.serve.ranges import (
    MAX_RANGES,
    Answer,
    ByteRange,
    RangeFault,
    Representation,
    answer_request,
    has_unknown_position,
    parse_ranges,
)

SIZE, MODIFIED = 1000, 1_700_000_000
NOW = MODIFIED + 1e6
DATA = bytes(number * 7 % 251 for number in range(SIZE))
IMAGE = Representation(SIZE, "abc", MODIFIED, "application/x-iso9660-image")
SAME, OLDER, NEWER = (formatdate(MODIFIED + by, usegmt=True).encode() for by in (0, -1, 1))


def ask(method: str = "GET", representation: Representation = IMAGE, now: float = NOW, **fields: bytes) -> Answer:
    return answer_request(
        method, [(name.replace("_", "-").encode(), value) for name, value in fields.items()], representation, now
    )


def body_of(answer: Answer) -> bytes:
    return b"".join(part if isinstance(part, bytes) else DATA[part.start : part.end] for part in answer.body)


def field(answer: Answer, name: bytes) -> bytes:
    (value,) = [value for key, value in answer.fields if key == name]
    return value


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        (b"bytes=0-0", 0, 1),
        (b"bytes=0-", 0, SIZE),
        (b"bytes=10-19", 10, 20),
        (b"bytes=-1", SIZE - 1, SIZE),
        (b"bytes=-5000", 0, SIZE),
        (b"bytes=999-", 999, SIZE),
        (b"bytes=900-5000", 900, SIZE),
        pytest.param(b"bytes=5-" + b"9" * 5000, 5, SIZE, id="many digits"),
        pytest.param(b"bytes=" + b"0" * 5000 + b"5-9", 5, 10, id="many zeros"),
        (b"Bytes= , 3-4 ,, ", 3, 5),
        (b"bytes=5-9,0-4", 0, 10),
        (b"bytes=5-9,2-700,-1,1-999", 1, SIZE),
        (b"bytes=5-9,2000-", 5, 10),
    ],
)
def test_a_single_range(value: bytes, start: int, end: int) -> None:
    answer = ask(range=value)
    assert (answer.status, body_of(answer)) == (206, DATA[start:end])
    assert field(answer, b"content-range") == b"bytes %d-%d/%d" % (start, end - 1, SIZE)
    assert field(answer, b"content-length") == b"%d" % (end - start)
    assert field(answer, b"content-type") == b"application/x-iso9660-image"


@pytest.mark.parametrize(
    "value",
    [
        b"bytes=u-u", b"bytes=5-4", b"bytes=", b"bytes=,", b"bytes", b"bytes=-", b"bytes=1-2-3", b"items=0-5",
        b"bytes=+1-2", b"bytes=0-5,x", b"bytes=\xb2-5", b"bytes=1 - 2", b"0-5", b"bytes=--5", b"bytes=0x10-0x20",
    ],
)  # fmt: skip
def test_a_malformed_range_is_ignored(value: bytes) -> None:
    answer = ask(range=value)
    assert (answer.status, body_of(answer), field(answer, b"content-length")) == (200, DATA, b"1000")


def test_only_a_get_has_ranges_and_only_by_a_single_field() -> None:
    answer = ask("HEAD", range=b"bytes=0-5")
    assert (answer.status, answer.body, field(answer, b"content-length")) == (200, (), b"1000")
    twice = answer_request("GET", [(b"range", b"bytes=0-5"), (b"range", b"bytes=7-9")], IMAGE, NOW)
    assert (twice.status, body_of(twice)) == (200, DATA)


@pytest.mark.parametrize(
    "value", [b"bytes=1000-", b"bytes=-0", b"bytes=1000-2000,5000-", b"bytes=" + b"9" * 5000 + b"-"]
)
def test_a_range_behind_the_end(value: bytes) -> None:
    answer = ask(range=value)
    assert (answer.status, field(answer, b"content-range")) == (416, b"bytes */1000")
    assert field(answer, b"content-length") == b"%d" % len(body_of(answer))


def test_the_number_of_ranges_is_limited() -> None:
    values = [b"%d-%d" % (each * 10, each * 10) for each in range(MAX_RANGES + 1)]
    assert ask(range=b"bytes=" + b",".join(values[:-1])).status == 206
    answer = ask(range=b"bytes=" + b",".join(values))
    assert (answer.status, body_of(answer)) == (416, b"more than 32 ranges in one request\n")


def test_several_ranges_are_parts_of_one_body() -> None:
    answer = ask(range=b"bytes=500-509, -3, 0-1,505-520")
    head = b"Content-Type: " + field(answer, b"content-type") + b"\r\n\r\n"
    message = email.parser.BytesParser().parsebytes(head + body_of(answer))
    parts = message.get_payload()
    assert isinstance(parts, list)
    messages = [part for part in parts if isinstance(part, email.message.Message)]
    payloads = {part["Content-Range"]: part.get_payload(decode=True) for part in messages}
    assert payloads == {
        "bytes 500-520/1000": DATA[500:521], "bytes 997-999/1000": DATA[997:], "bytes 0-1/1000": DATA[:2],
    }  # fmt: skip
    assert list(payloads) == ["bytes 500-520/1000", "bytes 997-999/1000", "bytes 0-1/1000"]
    assert {part["Content-Type"] for part in messages} == {"application/x-iso9660-image"}
    assert field(answer, b"content-length") == b"%d" % len(body_of(answer)) == b"%d" % answer.length
    assert ask(range=b"bytes=500-509, -3, 0-1,505-520") == answer


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if_match": b'"abc"'}, 200),
        ({"if_match": b"*"}, 200),
        ({"if_match": b'"x", "abc"'}, 200),
        ({"if_match": b'W/"abc"'}, 412),  # strong comparison
        ({"if_match": b'"x"'}, 412),
        ({"if_match": b"abc"}, 412),
        ({"if_match": b'"abc"', "if_unmodified_since": OLDER}, 200),  # the date does not count
        ({"if_unmodified_since": SAME}, 200),
        ({"if_unmodified_since": NEWER}, 200),
        ({"if_unmodified_since": OLDER}, 412),
        ({"if_unmodified_since": b"yesterday"}, 200),
        ({"if_none_match": b'"abc"'}, 304),
        ({"if_none_match": b'W/"abc"'}, 304),  # weak comparison
        ({"if_none_match": b"*"}, 304),
        ({"if_none_match": b'"x"'}, 200),
        ({"if_none_match": b'"x"', "if_modified_since": NEWER}, 200),  # the date does not count
        ({"if_none_match": b'"abc'}, 200),
        ({"if_modified_since": SAME}, 304),
        ({"if_modified_since": NEWER}, 304),
        ({"if_modified_since": OLDER}, 200),
        ({"if_modified_since": b"Tuesday, 14-Nov-23 22:13:20 GMT"}, 304),
        ({"if_modified_since": b"Tue Nov 14 22:13:20 2023"}, 304),
        ({"if_modified_since": b"\xff" * 20}, 200),
        ({"if_match": b'"abc"', "if_none_match": b'"abc"'}, 304),
        ({"if_match": b'"x"', "if_none_match": b'"abc"'}, 412),
        ({"range": b"bytes=0-1", "if_none_match": b'"abc"'}, 304),
        ({"range": b"bytes=0-1", "if_match": b'"x"'}, 412),
        ({"range": b"bytes=5000-", "if_match": b'"x"'}, 412),
        ({"range": b"bytes=0-1", "if_range": b'"abc"'}, 206),
        ({"range": b"bytes=0-1", "if_range": b'W/"abc"'}, 200),
        ({"range": b"bytes=0-1", "if_range": b'"x"'}, 200),
        ({"range": b"bytes=5000-", "if_range": b'"x"'}, 200),
        ({"range": b"bytes=0-1", "if_range": SAME}, 206),
        ({"range": b"bytes=0-1", "if_range": NEWER}, 200),  # an exact match alone
        ({"range": b"bytes=0-1", "if_range": b"nonsense"}, 200),
        ({"if_range": b'"abc"'}, 200),
    ],
)
def test_preconditions(fields: dict[str, bytes], status: int) -> None:
    for method in ("GET", "HEAD"):
        answer = ask(method, IMAGE, NOW, **fields)
        assert answer.status == (200 if method == "HEAD" and status == 206 else status)
        assert (field(answer, b"etag"), field(answer, b"last-modified")) == (b'"abc"', SAME)
    if status == 304:
        assert answer.body == ()


def test_a_date_does_not_tell_what_changed_in_its_own_second() -> None:
    assert ask(now=MODIFIED + 0.5, range=b"bytes=0-1", if_range=SAME).status == 200
    assert ask(now=MODIFIED + 2, range=b"bytes=0-1", if_range=SAME).status == 206


def test_without_a_date_only_the_tag_counts() -> None:
    undated = IMAGE._replace(modified=None)
    cases: list[tuple[dict[str, bytes], int]] = [
        ({"if_modified_since": NEWER}, 200),
        ({"if_unmodified_since": OLDER}, 200),
        ({"range": b"bytes=0-1", "if_range": SAME}, 200),
        ({"range": b"bytes=0-1", "if_range": b"nonsense"}, 200),
        ({"if_none_match": b'"abc"'}, 304),
    ]
    for fields, status in cases:
        answer = ask("GET", undated, NOW, **fields)
        assert answer.status == status and b"last-modified" not in dict(answer.fields)


def test_nothing_has_no_range() -> None:
    empty = IMAGE._replace(size=0)
    for value in (b"bytes=0-", b"bytes=-5"):
        assert (ask(representation=empty, range=value).status, ask(representation=empty).body) == (200, ())


def test_a_range_of_words_is_recognized() -> None:
    assert has_unknown_position([(b"range", b"bytes=u-u")])
    assert not has_unknown_position([(b"range", b"bytes=1-2")])
    assert not has_unknown_position([(b"range", b"bytes=-2")])


SPEC = st.one_of(
    st.tuples(st.integers(0, 1500), st.one_of(st.none(), st.integers(0, 1500))),
    st.integers(0, 1500),
)


@given(st.lists(SPEC, min_size=1, max_size=MAX_RANGES), st.integers(0, 1200))
def test_ranges_are_those_asked_for(specs: list[int | tuple[int, int | None]], size: int) -> None:
    """Every byte asked for is there, none twice, and no other."""
    words, wanted, is_valid = [], set[int](), True
    for spec in specs:
        if isinstance(spec, int):
            words.append(f"-{spec}")
            wanted |= set(range(max(size - spec, 0), size))
        else:
            first, last = spec
            words.append(f"{first}-{'' if last is None else last}")
            is_valid &= last is None or last >= first
            wanted |= set(range(first, size if last is None else min(last + 1, size)))
    ranges = parse_ranges(f"bytes={','.join(words)}".encode(), size)
    if not is_valid:
        assert ranges is None
    elif not wanted:
        assert isinstance(ranges, RangeFault) if size else ranges is None
    else:
        assert isinstance(ranges, list)
        assert all(isinstance(each, ByteRange) and 0 <= each.start < each.end <= size for each in ranges)
        sent = [byte for each in ranges for byte in range(each.start, each.end)]
        assert sorted(sent) == sorted(wanted)


@given(st.integers(0, 1500), st.integers(0, 1500), st.integers(0, 1200))
def test_the_usual_range_is_read_as_any_other(first: int, last: int, size: int) -> None:
    """An empty element of the list changes nothing, but is none that the quick way takes (RFC 9110, 5.6.1)."""
    value = b"bytes=%d-%d" % (first, last)
    assert parse_ranges(value, size) == parse_ranges(value + b",", size)


@given(st.binary(max_size=60), st.binary(max_size=40), st.sampled_from([b"if-match", b"if-range", b"if-none-match"]))
def test_any_bytes_get_an_answer(value: bytes, other: bytes, name: bytes) -> None:
    fields = [(b"range", b"bytes=" + value), (name, other), (b"if-modified-since", other)]
    answer = answer_request("GET", fields, IMAGE, NOW)
    assert answer.status in (200, 206, 304, 412, 416)
    assert answer.length == len(body_of(answer))
