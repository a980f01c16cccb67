"""What a server answers to a GET or HEAD of some bytes: status, fields and the parts of the body (RFC 9110), pure.

Nothing is read here: a body is a list of literal bytes and of ranges of the representation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import timezone
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import TypeAlias

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.tuples import NamedTuple

MAX_RANGES = 32
"""Ranges in one request. Downloaders and machines ask for one at a time; many small ones are an attack (14.2)."""

Fields: TypeAlias = "list[tuple[bytes, bytes]]"
"""The fields of a message's head, names in lower case."""

_RANGE = lazy_regex(r"(\d+)-(\d*)|-(\d+)", 0)
_ENTITY_TAG = lazy_regex(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"', 0)
_TAG_LIST = lazy_regex(r'[ \t,]*(?:(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*(?:,[ \t,]*|$))+', 0)
_UNKNOWN_POSITION = lazy_regex(rb"bytes=\D+-\D+", 0)
_USUAL_RANGE = lazy_regex(rb"bytes=(\d{1,18})-(\d{1,18})", 0)
_PRECONDITIONS = frozenset((b"if-match", b"if-unmodified-since", b"if-none-match", b"if-modified-since"))
_LONGEST_NUMBER = 30
"""Digits of a position: what is longer lies behind the end of everything, and int() would take time for it."""


class Representation(NamedTuple):
    """What is served. ``etag`` without quotes; ``modified``: seconds since the epoch, None where nobody knows."""

    size: int
    etag: str
    modified: int | None
    media_type: str


class ByteRange(NamedTuple):
    """Bytes ``start`` to ``end`` of the representation; the last is not included."""

    start: int
    end: int


class Answer(NamedTuple):
    """An answer. ``length``: the bytes of the body that belongs to it; a HEAD has the field and no body."""

    status: int
    fields: Fields
    body: tuple[bytes | ByteRange, ...]
    length: int


class RangeFault(NamedTuple):
    """Why a Range field cannot be satisfied."""

    reason: str


def answer_request(method: str, fields: Fields, representation: Representation, now: float) -> Answer:
    """Return the answer to a GET or HEAD with ``fields``, at ``now`` (seconds since the epoch).

    Preconditions are evaluated in the order of RFC 9110, 13.2.2; a Range field that is malformed is ignored (14.2).
    """
    names = [name for name, _ in fields]
    status = None if _PRECONDITIONS.isdisjoint(names) else check_preconditions(fields, representation)
    if status == 412:
        return plain_answer(412, "the image has changed: its ETag or date is not the one asked for", representation)
    if status == 304:
        return Answer(304, [*_validator_fields(representation)], (), 0)
    whole = ByteRange(0, representation.size)
    value = _single_field(fields, b"range") if b"range" in names else None
    if method != "GET" or value is None or (b"if-range" in names and not _is_range_valid(fields, representation, now)):
        return _whole_answer(method, representation, whole)
    ranges = parse_ranges(value, representation.size)
    if ranges is None:
        return _whole_answer(method, representation, whole)
    if isinstance(ranges, RangeFault):
        extra = (b"content-range", b"bytes */%d" % representation.size)
        return plain_answer(416, ranges.reason, representation, extra)
    return _partial_answer(representation, ranges)


def check_preconditions(fields: Fields, representation: Representation) -> int | None:
    """Return 412 or 304 where a precondition of the request with ``fields`` says so, else None."""
    match = _list_field(fields, b"if-match")
    if match is not None:
        if not _matches(match, representation.etag, is_weak_enough=False):
            return 412
    else:
        date = _date_field(fields, b"if-unmodified-since")
        if date is not None and representation.modified is not None and representation.modified > date:
            return 412
    none_match = _list_field(fields, b"if-none-match")
    if none_match is not None:
        return 304 if _matches(none_match, representation.etag, is_weak_enough=True) else None
    date = _date_field(fields, b"if-modified-since")
    is_same = date is not None and representation.modified is not None and representation.modified <= date
    return 304 if is_same else None


def parse_ranges(value: bytes, size: int) -> Sequence[ByteRange] | RangeFault | None:
    """Return the ranges of ``size`` bytes that the Range field ``value`` asks for.

    Ranges that overlap or touch are one, so no byte is sent twice. None for a malformed field, and for another unit;
    a fault where no range is satisfiable, or there are too many.
    """
    usual = _USUAL_RANGE.fullmatch(value)
    if usual is not None:
        start, end = int(usual[1]), int(usual[2]) + 1
        if start < end and start < size:
            return [ByteRange(start, min(end, size))]
    unit, equals, text = value.decode("latin-1").partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    specs = [spec for spec in (part.strip(" \t") for part in text.split(",")) if spec]
    parsed = [_parse_spec(spec, size) for spec in specs]
    if not parsed or None in parsed:
        return None
    if len(parsed) > MAX_RANGES:
        return RangeFault(f"more than {MAX_RANGES} ranges in one request")
    ranges = [each for each in parsed if isinstance(each, ByteRange) and each.end > each.start]
    if not ranges:
        return RangeFault(f"there are {size} bytes") if size else None
    return _coalesce(ranges)


def _parse_spec(spec: str, size: int) -> ByteRange | None:
    """Return the range of ``size`` bytes that ``spec`` means, empty if it is not satisfiable; None if malformed."""
    match = _RANGE.fullmatch(spec) if spec.isascii() else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return ByteRange(max(size - _number(suffix), 0), size)
    start = _number(first)
    if not last:
        return ByteRange(start, size)
    end = _number(last) + 1
    return None if end <= start else ByteRange(start, min(end, size))


def _number(digits: str) -> int:
    """Return the number that ``digits`` write; of very many a number behind the end of everything."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _LONGEST_NUMBER else 10**_LONGEST_NUMBER


def _coalesce(ranges: Sequence[ByteRange]) -> list[ByteRange]:
    """Return ``ranges`` with those that overlap or touch as one, each where its first part stood (15.3.7.2)."""
    order = sorted(range(len(ranges)), key=lambda number: ranges[number])
    groups: list[tuple[int, ByteRange]] = []
    for number in order:
        current = ranges[number]
        if groups and current.start <= groups[-1][1].end:
            position, last = groups[-1]
            groups[-1] = min(position, number), ByteRange(last.start, max(last.end, current.end))
        else:
            groups.append((number, current))
    return [joined for _, joined in sorted(groups)]


def has_unknown_position(fields: Fields) -> bool:
    """Tell whether a Range field has words for numbers, as ``bytes=u-u`` of iPXE that is built for another platform."""
    value = _single_field(fields, b"range")
    return value is not None and _UNKNOWN_POSITION.fullmatch(value) is not None


def plain_answer(
    status: int, text: str, representation: Representation | None = None, *extra: tuple[bytes, bytes]
) -> Answer:
    """Return an answer whose body is the line ``text``; with the validators of ``representation``, if any.

    Without, no cache keeps it: a 404 is one that it may keep (RFC 9110, 15.1), and a site may appear.
    """
    data = f"{text}\n".encode("utf-8", "backslashreplace")
    fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(data)),
        *([(b"cache-control", b"no-store")] if representation is None else _validator_fields(representation)),
        *extra,
    ]
    return Answer(status, fields, (data,), len(data))


def _whole_answer(method: str, representation: Representation, whole: ByteRange) -> Answer:
    """Return the answer with all of the representation; to a HEAD without its bytes."""
    fields = [
        (b"content-type", representation.media_type.encode()),
        (b"content-length", b"%d" % representation.size),
        *_validator_fields(representation),
    ]
    body = (whole,) if method == "GET" and representation.size else ()
    return Answer(200, fields, body, representation.size)


def _partial_answer(representation: Representation, ranges: Sequence[ByteRange]) -> Answer:
    """Return the answer with ``ranges`` of the representation: one by itself, several as multipart/byteranges."""
    media_type, size = representation.media_type.encode(), representation.size
    if len(ranges) == 1:
        start, end = ranges[0]
        length = end - start
        return Answer(
            206,
            [
                (b"content-type", media_type),
                (b"content-length", b"%d" % length),
                (b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)),
                *_validator_fields(representation),
            ],
            tuple(ranges),
            length,
        )
    boundary = hashlib.sha256(repr((representation.etag, ranges)).encode()).hexdigest()[:32].encode()
    body: list[bytes | ByteRange] = []
    for number, each in enumerate(ranges):
        head = b"%b--%b\r\nContent-Type: %b\r\nContent-Range: %b\r\n\r\n"
        body += [head % (b"\r\n" if number else b"", boundary, media_type, _content_range(each, size)), each]
    body.append(b"\r\n--%b--\r\n" % boundary)
    length = sum(len(part) if isinstance(part, bytes) else part.end - part.start for part in body)
    fields = [
        (b"content-type", b"multipart/byteranges; boundary=" + boundary),
        (b"content-length", b"%d" % length),
        *_validator_fields(representation),
    ]
    return Answer(206, fields, tuple(body), length)


def _content_range(each: ByteRange, size: int) -> bytes:
    """Return the value of Content-Range for ``each`` of ``size`` bytes."""
    return b"bytes %d-%d/%d" % (each.start, each.end - 1, size)


@lru_cache(256)
def _validator_fields(representation: Representation) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields by which a client tells this representation from others.

    Caches ask again before they use what they have, and nobody on the way compresses it.
    """
    modified = representation.modified
    return (
        (b"etag", b'"%b"' % representation.etag.encode()),
        *([] if modified is None else [(b"last-modified", formatdate(modified, usegmt=True).encode())]),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"no-cache, no-transform"),
    )


def _is_range_valid(fields: Fields, representation: Representation, now: float) -> bool:
    """Tell whether the Range field of a request counts, by its only If-Range (13.1.5).

    A date counts if it is exactly ours, and so old that nothing can have changed in the same second (8.8.2.2).
    """
    value = _single_field(fields, b"if-range")
    if value is None:
        return False
    text = value.decode("latin-1").strip()
    if text.startswith(('"', "W/")):
        return text == f'"{representation.etag}"'
    date = _parse_date(text)
    return date is not None and date == representation.modified and date + 1 < now


def _matches(value: str, etag: str, *, is_weak_enough: bool) -> bool:
    """Tell whether the list of entity tags ``value`` has ``etag``; ``*`` is any, and a malformed list has none."""
    if value.strip() == "*":
        return True
    if _TAG_LIST.fullmatch(value) is None:
        return False
    tags = [match.group() for match in _ENTITY_TAG.finditer(value)]
    return f'"{etag}"' in tags or (is_weak_enough and f'W/"{etag}"' in tags)


def _list_field(fields: Fields, name: bytes) -> str | None:
    """Return the values of all fields ``name`` as one list; None if there is none (5.3)."""
    values = [value for key, value in fields if key == name]
    return b", ".join(values).decode("latin-1") if values else None


def _single_field(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the value of the only field ``name``; None where there is none, or several."""
    values = [value for key, value in fields if key == name]
    return values[0] if len(values) == 1 else None


def _date_field(fields: Fields, name: bytes) -> int | None:
    """Return the date in the field ``name`` as seconds since the epoch; None without a valid one."""
    value = _single_field(fields, name)
    return None if value is None else _parse_date(value.decode("latin-1").strip())


def _parse_date(text: str) -> int | None:
    """Return an HTTP-date (5.6.7, in each of its three forms) as seconds since the epoch; None if it is none."""
    try:
        date = parsedate_to_datetime(text)
        return int((date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)).timestamp())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
