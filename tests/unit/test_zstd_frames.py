"""zstd frames are those of another binding of the same library."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.errors import UnsupportedError
from cosremaster.io import zstd_frames
from cosremaster.io.zstd_frames import load_zstd, new_compressor, pack_frame, read_header, unpack_frame
from tests.fixtures.tools import leave_out, load_module, require_zstd

DICE = random.Random(3)
WORDS = [DICE.randbytes(DICE.randrange(3, 9)) for _ in range(400)]
TEXT = b" ".join(DICE.choices(WORDS, k=30_000))
WINDOWS = [(23, 19), (22, 12), (21, 3), (17, 3), (10, 3)]


@pytest.mark.parametrize(("window_log", "level"), WINDOWS)
def test_frames_are_those_of_another_binding(window_log: int, level: int) -> None:
    require_zstd()
    zstandard = load_module("zstandard")
    if load_zstd().zstd_version_info != zstandard.ZSTD_VERSION:
        leave_out("The two bindings of zstd are of different versions of libzstd.")
    for size, threads in ((0, 0), (1000, 0), (100_000, 2)):
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, window_log=window_log, write_checksum=True, write_content_size=True, threads=threads
        )
        theirs = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)
        expected = theirs.compress(TEXT[:size]) + theirs.flush()
        ours = new_compressor(level, checksum=True, sized=True, window_log=window_log, threads=threads)
        ours.set_pledged_input_size(size)
        assert ours.compress(TEXT[:size]) + ours.flush() == expected
        assert unpack_frame(expected, size) == TEXT[:size]


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    require_zstd()
    packed = {
        pack_frame(new_compressor(3, checksum=False, sized=False, window_log=17, threads=threads), TEXT)
        for threads in (1, 2, 5)
    }
    assert len(packed) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 70_000), st.integers(10, 31), st.booleans(), st.booleans())
def test_headers_say_what_another_reader_says(size: int, window_log: int, checksum: bool, sized: bool) -> None:
    zstandard = load_module("zstandard")
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            1, window_log=window_log, write_checksum=checksum, write_content_size=sized
        )
    ).compressobj(size=size if sized else -1)
    frame = packer.compress(bytes(size)) + packer.flush()
    header, theirs = read_header(frame[:18]), zstandard.get_frame_parameters(frame)
    assert (header.window, header.has_checksum) == (theirs.window_size, theirs.has_checksum)
    assert header.size == (size if sized else None)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=14))
def test_strange_headers_are_refused_as_another_reader_refuses_them(rest: bytes) -> None:
    zstandard = load_module("zstandard")
    head = zstd_frames.MAGIC + rest
    try:
        theirs = zstandard.get_frame_parameters(head)
    except zstandard.ZstdError:
        with pytest.raises(ValueError, match=r"^it|reserved|window"):
            read_header(head)
    else:
        assert read_header(head).window == theirs.window_size


def test_damage_and_too_many_bytes_are_refused() -> None:
    require_zstd()
    frame = pack_frame(new_compressor(3, checksum=True, sized=True), TEXT[:5000])
    for damaged in (frame[:-1], frame[:-1] + bytes([frame[-1] ^ 1]), b"", b"no frame"):
        with pytest.raises(ValueError, match=r"\w"):
            unpack_frame(damaged, 5000)
    with pytest.raises(ValueError, match="more plain bytes"):
        unpack_frame(frame, 4999)
    assert unpack_frame(frame + b"more", 5000) == TEXT[:5000]


@pytest.fixture
def _without_zstd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    load_zstd.cache_clear()
    yield
    load_zstd.cache_clear()


@pytest.mark.usefixtures("_without_zstd")
def test_without_zstd_a_sentence_says_what_to_install() -> None:
    with pytest.raises(UnsupportedError, match=r"not installed here \(pip install backports.zstd\)"):
        load_zstd()
    assert not zstd_frames.has_zstd()
