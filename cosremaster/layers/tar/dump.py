"""The index of a tar archive as JSON values and blobs, and back: so that an archive is indexed once.

Pure: values in, values out. Each column is one blob, since there may be a million entries.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from typing import Annotated, Any

from cosremaster.layers.blobs import Blobs, blob_reader, view_blob
from cosremaster.layers.tar import blocks
from cosremaster.layers.tar.entries import DIGEST_SIZE, NUMBERS, SparseMap, TarEntries
from cosremaster.layers.tar.index import TarIndex, TarStyle
from cosremaster.records import NumberRange, Struct
from cosremaster.records.json import convert

_AT_ONCE = 4096  # strings

Values = dict[str, Any]
Count = Annotated[int, NumberRange(ge=0, le=(1 << 63) - 1)]
Number = Annotated[int, NumberRange(ge=0, le=0xFFFFFFFF)]
Span = tuple[Count, Count]


class _StyleValues(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of a :class:`TarStyle`; bytes as text of one character for each."""

    has_pax: bool
    is_gnu: bool
    is_ustar: bool
    users: Count
    slashes: int
    prefixes: dict[str, Count]
    parts: tuple[str, ...]


class _IndexValues(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of an index: where its columns stand among the blobs.

    ``links``, ``targets`` and ``sparse``: the numbers of the entries that have some, and what they have.
    """

    names: Span
    numbers: tuple[Span, ...]
    digests: Span
    targets: tuple[Span, Span]
    links: tuple[Span, Span]
    rdevs: tuple[tuple[Count, Number, Number], ...]
    xattrs: tuple[tuple[tuple[Span, Span], ...], ...]
    xattr_numbers: Span
    sparse: tuple[tuple[Count, Count, Span], ...]
    global_records: tuple[tuple[Span, Span], ...]
    inner_globals: tuple[Span, ...]
    globals_end: Count
    end: Count
    has_end: bool
    style: _StyleValues


def dump_index(index: TarIndex, blobs: Blobs) -> Values:
    """Return ``index`` as values for :func:`load_index`, with its bytes in ``blobs``.

    :raises ValueError: a name or target holds a NUL.
    """
    entries, style = index.entries, index.style
    sets = {xattrs: number for number, xattrs in enumerate(dict.fromkeys(entries.xattrs.values()))}
    owners = array("Q", (value for number, xattrs in entries.xattrs.items() for value in (number, sets[xattrs])))
    return {
        "names": blobs.put(_join(entries.names)),
        "numbers": [blobs.put(memoryview(column).cast("B") if column else b"") for column in entries.numbers],
        "digests": blobs.put(entries.digests),
        "targets": _dump_texts(entries.targets, blobs),
        "links": _dump_texts(entries.links, blobs),
        "rdevs": [[number, *device] for number, device in entries.rdevs.items()],
        "xattrs": [[(blobs.put(name), blobs.put(value)) for name, value in xattrs] for xattrs in sets],
        "xattr_numbers": blobs.put(owners.tobytes()),
        "sparse": [
            [number, sparse.size, blobs.put(sparse.segments.tobytes())] for number, sparse in entries.sparse.items()
        ],
        "global_records": [(blobs.put(keyword), blobs.put(value)) for keyword, value in index.globals.items()],
        "inner_globals": list(index.inner_globals),
        "globals_end": index.globals_end,
        "end": index.end,
        "has_end": index.has_end,
        "style": {
            "has_pax": style.has_pax, "is_gnu": style.is_gnu, "is_ustar": style.is_ustar, "users": style.users,
            "slashes": style.slashes,
            "prefixes": {prefix.decode(): count for prefix, count in style.prefixes.items()},
            "parts": [part.decode("latin-1") for part in sorted(style.parts)],
        },
    }  # fmt: skip


def load_index(values: Values, blobs: memoryview) -> TarIndex:
    """Return the index that :func:`dump_index` made ``values`` of; ``blobs``: the bytes of its blobs.

    :raises ValueError, MismatchError: these are not such values.
    """
    read, places = blob_reader(blobs), convert(values, _IndexValues)
    entries = TarEntries()
    entries.names = _split(read(places.names))
    entries.numbers = tuple(_numbers(code, read(span)) for code, span in zip(NUMBERS, places.numbers, strict=True))
    entries.digests = bytearray(view_blob(blobs, places.digests))
    count = len(entries)
    if any(len(column) != count for column in entries.numbers) or len(entries.digests) != count * DIGEST_SIZE:
        raise ValueError("columns of different lengths")
    entries.targets = _load_texts([read(span) for span in places.targets])
    entries.links = _load_texts([read(span) for span in places.links])
    entries.rdevs = {number: (major, minor) for number, major, minor in places.rdevs}
    sets = [tuple((read(name), read(value)) for name, value in xattrs) for xattrs in places.xattrs]
    owners = iter(_numbers("Q", read(places.xattr_numbers)))
    entries.xattrs = {number: sets[at] for number, at in zip(owners, owners, strict=True)}
    entries.sparse = {
        number: SparseMap(size, _numbers("Q", read(segments))) for number, size, segments in places.sparse
    }
    for column in (entries.targets, entries.links, entries.rdevs, entries.xattrs, entries.sparse):
        if any(number >= count for number in column):
            raise ValueError("a value of no entry")
    style = TarStyle()
    given = places.style
    style.has_pax, style.is_gnu, style.is_ustar = given.has_pax, given.is_gnu, given.is_ustar
    style.users, style.slashes = given.users, given.slashes
    style.prefixes.update({prefix.encode(): number for prefix, number in given.prefixes.items()})
    style.parts = {part.encode("latin-1") for part in given.parts}
    global_records = {read(keyword): read(value) for keyword, value in places.global_records}
    return TarIndex(
        entries, style, places.end, global_records, places.inner_globals, globals_end=places.globals_end,
        has_end=places.has_end,
    )  # fmt: skip


def check_entries(index: TarIndex, size: int, tail: bytes) -> None:
    """Check that the entries of ``index`` follow one another in ``size`` bytes, which end with ``tail``.

    :raises ValueError: no archive has such entries.
    """
    entries = index.entries
    modes, _, _, _, starts, heads, data, stored, ends = entries.numbers
    reached = 0
    for start, head, begin, length, end in zip(starts, heads, data, stored, ends, strict=True):
        if not reached <= start <= head < begin <= begin + length <= end or end % blocks.BLOCK:
            raise ValueError("entries do not follow one another")
        reached = end
    if not reached <= index.end <= size:
        raise ValueError("entries of another archive")
    if any(mode >> 12 not in (1, 2, 4, 6, 8, 10) for mode in modes):
        raise ValueError("an entry of no type")
    for number, sparse in entries.sparse.items():
        if len(sparse.segments) % 2:
            raise ValueError("a sparse map of half a part")
        spans = list(zip(sparse.segments[::2], sparse.segments[1::2], strict=True))
        edges = [edge for offset, length in spans for edge in (offset, offset + length)]
        if any(after < before for before, after in pairwise([0, *edges, sparse.size])):
            raise ValueError("a sparse map of another file")
        if sum(length for _, length in spans) != stored[number]:
            raise ValueError("a sparse map of another file")
    _check_tail(index, size, tail)


def _check_tail(index: TarIndex, size: int, tail: bytes) -> None:
    """Check that headers stand in ``tail``, the last of ``size`` bytes, where the index says.

    :raises ValueError: they do not.
    """
    begin = size - len(tail)
    for head in reversed(index.entries.numbers[5]):
        if head < begin:
            break
        if not blocks.looks_like_header(tail[head - begin : head - begin + blocks.BLOCK]):
            raise ValueError("last bytes of another archive")


def _numbers(code: str, data: bytes) -> array[int]:
    """Return the column whose bytes are ``data``. :raises ValueError: they are no whole numbers."""
    column: array[int] = array(code)
    column.frombytes(data)
    return column


def _dump_texts(texts: dict[int, bytes], blobs: Blobs) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where the numbers and the bytes of ``texts`` are put. :raises ValueError: one holds a NUL."""
    return blobs.put(array("Q", texts).tobytes()), blobs.put(_join(texts.values()))


def _load_texts(columns: Sequence[bytes]) -> dict[int, bytes]:
    """Return what :func:`_dump_texts` put. :raises ValueError: these are no such bytes."""
    numbers, texts = columns
    return dict(zip(_numbers("Q", numbers), _split(texts), strict=True))


def _join(strings: Iterable[bytes]) -> bytes:
    """Return ``strings``, each with a NUL behind it. :raises ValueError: one holds a NUL."""
    rest, parts, count = iter(strings), list[bytes](), 0
    while some := list(islice(rest, _AT_ONCE)):
        parts.append(b"\0".join((*some, b"")))
        count += len(some)
    joined = b"".join(parts)
    if joined.count(b"\0") != count:
        raise ValueError("a string holds a NUL")
    return joined


def _split(joined: bytes) -> list[bytes]:
    """Return the strings that :func:`_join` was given."""
    return joined.split(b"\0")[:-1]
