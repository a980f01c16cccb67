"""What a plan packed is taken by the run: the same bytes as without, whatever became of the file that holds it."""

from __future__ import annotations

import errno
import json
import os
import random
import struct
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs import part_memory
from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.bzip2 import Bzip2Parameters
from cosremaster.codecs.frames import Frame
from cosremaster.codecs.gzip.repack import GzipParameters
from cosremaster.codecs.lzma_alone import LzmaParameters
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.part_memory import PackedPart, pack_part
from cosremaster.codecs.xz.repack import XzParameters
from cosremaster.codecs.zstd import ZstdParameters
from cosremaster.crc import crc64_xz
from cosremaster.errors import Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.spool import Spool
from cosremaster.io.zstd_frames import new_compressor, pack_frame
from cosremaster.layers import cache_folder, remembered_parts
from cosremaster.layers.decoded import DecodedSource
from cosremaster.layers.remembered_parts import RememberedParts, WorkParts
from tests.support.small import write_small

TWO = (Frame(0, 1, 0, 1), Frame(1, 2, 1, 1))
"""Of a stream that has several, so that new ones are frames of their own too."""

MAKERS: dict[str, Any] = {
    "gzip": GzipParameters(b"\x1f\x8b\x08\0\0\0\0\0\0\xff", 1),
    "xz": XzParameters(4, (), 1),
    "zstd frame": ZstdParameters(8 << 20, True, True, ()),
    "zstd frames": ZstdParameters(4 << 20, False, True, TWO),
    "lzma": LzmaParameters(93, 1 << 20),
}

CHANCE = random.Random(7)
WORDS = [CHANCE.randbytes(5) for _ in range(300)]


def text(size: int, seed: int = 1) -> bytes:
    """Bytes that can be compressed, of which any part is like any other."""
    chance = random.Random(seed)
    return b"".join(chance.choices(WORDS, k=size // 5 + 1))[:size]


PLAIN = text(300_000)


class Fed:
    """Counts the bytes that were fed to an encoder."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, count: int) -> None:
        self.count += count

    def skip(self, count: int) -> None:
        """Count nothing: these needed no work."""


def pack(name: str, plain: bytes, memory: WorkParts | None, preset: int | None = None) -> tuple[bytes, int]:
    """Return ``plain``, packed, and how many bytes were fed to an encoder."""
    parameters, fed = MAKERS[name], Fed()
    with Spool(Path(tempfile.gettempdir())) as spool:
        job = RepackJob(
            packed=PieceTable([]), decoded=DecodedSource(PieceTable([]), parameters, Place(), b"", 0),
            plain=PieceTable([Literal(plain)]), spool=spool, threads=2, advance=fed, memory=memory, preset=preset,
        )  # fmt: skip
        return parameters.repack(job).table.read(), fed.count


def plan(name: str, plain: bytes, preset: int | None = None) -> bytes:
    """Pack ``plain`` as a plan does, and return it."""
    with RememberedParts(stores=True) as parts:
        packed, _ = pack(name, plain, parts.for_work("test", 2), preset)
        parts.finish()
    return packed


def take(name: str, plain: bytes, preset: int | None = None) -> tuple[bytes, int, int]:
    """Pack ``plain`` as a run does; return it, the bytes that were encoded, and those that were taken."""
    with RememberedParts(stores=False) as parts:
        packed, fed = pack(name, plain, parts.for_work("test", 2), preset)
        return packed, fed, parts.total.taken


@pytest.fixture
def folder() -> Path:
    """The folder of what is remembered."""
    return Path(os.environ["XDG_CACHE_HOME"]) / "cosremaster" / "index"


def find_file(folder: Path) -> Path:
    """The only file of parts."""
    (path,) = folder.glob("*.parts")
    return path


@pytest.mark.parametrize("name", MAKERS)
def test_the_run_takes_what_the_plan_packed(name: str, folder: Path) -> None:
    cold, fed = pack(name, PLAIN, None)
    assert fed == len(PLAIN)
    assert take(name, PLAIN) == (cold, len(PLAIN), 0)
    assert not folder.exists(), "a run keeps nothing"
    assert plan(name, PLAIN) == cold
    assert take(name, PLAIN) == (cold, 0, len(PLAIN))
    file = find_file(folder)
    assert file.stat().st_mode & 0o777 == 0o600
    assert plan(name, PLAIN) == cold
    assert list(folder.iterdir()) == [file], "what is there is not kept again"


@pytest.mark.parametrize(("name", "preset"), [("gzip", None), ("xz", 0)])
def test_of_nearly_the_same_bytes_the_same_parts_are_taken(name: str, preset: int | None) -> None:
    plain = text(2_500_000)
    other = plain[:-9] + b"?" * 9
    cold, _ = pack(name, other, None, preset)
    plan(name, plain, preset)
    warm, fed, taken = take(name, other, preset)
    assert warm == cold
    assert fed + taken == len(other) and taken > len(other) / 3


@pytest.mark.parametrize("name", ["zstd frame", "lzma"])
def test_of_streams_of_one_size_the_equal_one_is_taken(name: str) -> None:
    other = PLAIN[:-9] + b"?" * 9
    plan(name, PLAIN)
    plan(name, other)
    for plain in (PLAIN, other):
        assert take(name, plain) == (pack(name, plain, None)[0], 0, len(plain))
    assert take(name, PLAIN[:-9] + b"!" * 9)[1:] == (len(PLAIN), 0)


def test_another_preset_or_another_library_packs_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    plan("xz", PLAIN, 1)
    cold, _ = pack("xz", PLAIN, None, 2)
    assert take("xz", PLAIN, 2) == (cold, len(PLAIN), 0)
    assert take("xz", PLAIN, 1)[1:] == (0, len(PLAIN))
    monkeypatch.setattr("cosremaster.codecs.xz.encode.describe_library", lambda name: f"{name} 99")
    assert take("xz", PLAIN, 1)[1:] == (len(PLAIN), 0)


def test_a_library_is_told_by_its_files() -> None:
    state = part_memory.describe_library("lzma")
    assert state == part_memory.describe_library("lzma") != part_memory.describe_library("z")
    assert sys.version in state


@pytest.mark.parametrize("is_bound", [False, True])
def test_a_library_counts_if_its_module_was_linked_with_it(
    is_bound: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL loads a libzstd too, earlier or later: a module with its own packs the same whether that is there."""
    module, library = ModuleType("_zstd"), tmp_path / "libzstd.so.1.5.7"
    binding = tmp_path / "_zstd.so"
    binding.write_bytes(b"\x7fELF" + (b"libzstd.so.1\0" if is_bound else b"ZSTD_compress\0"))
    library.write_bytes(b"\x7fELF")
    module.__file__ = str(binding)
    monkeypatch.setattr(part_memory, "_MODULES", {"zstd": ("_zstd",)})
    monkeypatch.setitem(sys.modules, "_zstd", module)
    states = []
    for mapped in ([], [str(library)]):
        monkeypatch.setattr(part_memory, "_find_mapped", lambda prefix, mapped=mapped: iter(mapped))
        part_memory.describe_library.cache_clear()
        states.append(part_memory.describe_library("zstd"))
    part_memory.describe_library.cache_clear()
    assert (states[0] != states[1], str(library) in states[1]) == (is_bound, is_bound)


def test_small_parts_and_quick_encoders_are_not_worth_it(folder: Path) -> None:
    MAKERS["small window"] = ZstdParameters(1 << 20, True, True, ())  # level 3
    MAKERS["bzip2"] = Bzip2Parameters(9, ())  # unpacks about as slowly as it packs
    for name in ("small window", "bzip2", "xz"):
        plan(name, PLAIN if name != "xz" else PLAIN[:10_000])
    assert not folder.exists() or not list(folder.glob("*.parts"))
    assert deflate_by_isal(folder) == []


def deflate_by_isal(folder: Path) -> list[Path]:
    """What is kept of a block that ISA-L deflates, which is as quick as to inflate it."""
    with RememberedParts(stores=True) as parts:
        pack_part(parts.for_work("test", 1), "", PLAIN, lambda: b"packed", lambda data: [PLAIN])
        parts.finish()
    return list(folder.glob("*.parts"))


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FAULTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a footer alone": lambda path: path.write_bytes(path.read_bytes()[-24:]),
    "a table that is too long": lambda path: path.write_bytes(path.read_bytes()[:-24] + struct.pack("<Q", 1 << 60)),
    "writable by others": lambda path: path.chmod(0o666),
    "a symlink": _replace_by_link,
    "a hard link": lambda path: path.with_name("elsewhere").hardlink_to(path),
    "a folder": _replace_by_folder,
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["xz", "zstd frame"])
def test_a_file_that_does_not_hold_is_none(name: str, fault: str, folder: Path) -> None:
    cold = plan(name, PLAIN)
    FAULTS[fault](find_file(folder))
    assert take(name, PLAIN) == (cold, len(PLAIN), 0)


def test_a_file_of_somebody_else_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cold = plan("xz", PLAIN)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert take("xz", PLAIN) == (cold, len(PLAIN), 0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from(["gzip", "xz", "lzma"]))
def test_a_flipped_bit_anywhere_changes_no_output(at: float, bit: int, name: str) -> None:
    with tempfile.TemporaryDirectory() as cache, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", cache)
        plain = PLAIN[:40_000]
        cold = plan(name, plain)
        path = find_file(Path(cache) / "cosremaster" / "index")
        data = bytearray(path.read_bytes())
        data[int(at * len(data))] ^= 1 << bit
        path.write_bytes(data)
        warm, fed, taken = take(name, plain)
        assert warm == cold
        assert (fed, taken) == (len(plain), 0), "no byte of the file is without a meaning"


class Stored:
    """A part that somebody else made, under the right key."""

    def __init__(self, *chunks: bytes) -> None:
        self.data, self.length = chunks, sum(map(len, chunks))

    def chunks(self) -> Iterator[bytes]:
        yield from self.data


class Foreign(WorkParts):
    """A memory that answers every question with one part."""

    part: Stored

    def find(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield self.part


def _raw_deflate(plain: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(plain) + packer.flush(mode)


def _raw_lzma(plain: bytes) -> bytes:
    return lzma.compress(plain, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": len(PLAIN)}])


def _zstd(plain: bytes) -> bytes:
    return pack_frame(new_compressor(1, checksum=True, sized=True), plain)


OTHER = PLAIN[:-1] + b"?"
FOREIGN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "other bytes": ("xz", lambda: _raw_lzma(OTHER)),
    "less bytes": ("xz", lambda: _raw_lzma(PLAIN[:-1])),
    "more bytes": ("xz", lambda: _raw_lzma(PLAIN + b"?")),
    "something behind": ("xz", lambda: _raw_lzma(PLAIN) + b"\0"),
    "noise": ("xz", lambda: random.Random(1).randbytes(5000)),
    "nothing": ("xz", lambda: b""),
    "far more packed than plain ones": ("xz", lambda: bytes(3 * len(PLAIN))),
    "other deflated bytes": ("gzip", lambda: _raw_deflate(OTHER)),
    "less deflated bytes": ("gzip", lambda: _raw_deflate(PLAIN[:-1])),
    "more deflated bytes": ("gzip", lambda: _raw_deflate(PLAIN + b"?")),
    "a final block": ("gzip", lambda: _raw_deflate(PLAIN, zlib.Z_FINISH)),
    "no flush": ("gzip", lambda: _raw_deflate(PLAIN)[:-4]),
    "half a block behind": ("gzip", lambda: _raw_deflate(PLAIN) + b"\0"),
    "no deflate data": ("gzip", lambda: b"\xff" * 5000),
    "two frames": (
        "zstd frame",
        lambda: _zstd(PLAIN[:9]) + _zstd(PLAIN[9:]),
    ),
    "zeros behind": ("zstd frame", lambda: _zstd(PLAIN) + bytes(4)),
    "a frame of other bytes": ("zstd frame", lambda: _zstd(OTHER)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_part_that_is_not_these_bytes_is_not_taken(what: str) -> None:
    name, make = FOREIGN[what]
    with RememberedParts(stores=False) as parts:
        memory = Foreign(parts, "test", 2)
        Foreign.part = Stored(make())
        assert pack(name, PLAIN, memory) == (pack(name, PLAIN, None)[0], len(PLAIN))
        assert parts.total.is_empty


def test_a_part_with_the_same_bytes_is_taken() -> None:
    """The check of the checks above."""
    with RememberedParts(stores=False) as parts:
        memory = Foreign(parts, "test", 2)
        Foreign.part = Stored(_raw_deflate(PLAIN))
        packed, fed = pack("gzip", PLAIN, memory)
        assert zlib.decompress(packed, 31) == PLAIN and fed == 0
    assert pack_part(memory, "m", PLAIN, lambda: b"new", lambda data: [PLAIN]) == PackedPart(_raw_deflate(PLAIN), True)


def test_where_nothing_can_be_written_nothing_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cold, _ = pack("xz", PLAIN, None)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nobody/can/write/here")
    assert plan("xz", PLAIN) == cold
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent.parent))
    monkeypatch.setattr(remembered_parts, "count_free_bytes", lambda: 10)
    assert plan("xz", PLAIN) == cold
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("when", ["at the first part", "at the end"])
def test_a_full_disk_keeps_nothing_and_harms_nothing(when: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cold, _ = pack("gzip", text(2_500_000), None)
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: Any, **__: Any) -> None:
        raise full

    if when == "at the end":
        monkeypatch.setattr(os, "replace", refuse)
    else:
        real = cache_folder.writing_remembered

        class FullFile:
            write = refuse

        @contextmanager
        def writing(name: str) -> Iterator[Any]:
            with real(name):
                yield FullFile()

        monkeypatch.setattr(remembered_parts, "writing_remembered", writing)
    with RememberedParts(stores=True) as parts:
        assert pack("gzip", text(2_500_000), parts.for_work("test", 2))[0] == cold
        parts.finish()
        assert parts.total.packed == 0
    assert list(folder.iterdir()) == []


def test_a_plan_that_fails_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), RememberedParts(stores=True) as parts:
        pack("xz", PLAIN, parts.for_work("test", 2))
        raise ZeroDivisionError
    assert list(folder.iterdir()) == []


def test_the_oldest_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        plan("gzip", text(100_000, seed))
        for path in folder.glob("*.parts"):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**12))
    assert take("gzip", text(100_000, 0))[1] == 0, "which marks it as used"
    size = sum(path.stat().st_size for path in folder.glob("*.parts"))
    monkeypatch.setattr(cache_folder, "MAX_PARTS_BYTES", size + 1000)
    plan("gzip", text(100_000, 3))
    assert [take("gzip", text(100_000, seed))[1] == 0 for seed in range(4)] == [True, False, True, True]


def test_a_plan_keeps_no_more_than_its_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered_parts, "count_free_bytes", lambda: 10 * 400_000)
    plain = text(2_500_000)
    plan("gzip", plain)
    assert 300_000 < find_file(folder).stat().st_size <= 400_000
    warm, fed, taken = take("gzip", plain)
    assert warm == pack("gzip", plain, None)[0] and fed and taken


def test_plans_and_runs_at_once_have_the_same_bytes() -> None:
    plain = text(2_500_000)
    cold, _ = pack("gzip", plain, None)
    outcomes: list[bytes] = []

    def work(number: int) -> None:
        outcomes.append(plan("gzip", plain) if number % 2 else take("gzip", plain)[0])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [cold] * 8
    assert take("gzip", plain) == (cold, 0, len(plain))


def test_the_layout_of_the_file(folder: Path) -> None:
    """Parts, a row of 48 bytes for each, and a footer of 24 with the length and the CRC64 of the rows."""
    plan("gzip", text(2_500_000))
    data = find_file(folder).read_bytes()
    length, crc, magic = struct.unpack("<QQ8s", data[-24:])
    table = data[-24 - length : -24]
    assert magic == b"cosparts" and crc == crc64_xz(table) and length == 3 * 48
    rows = [struct.unpack("<24sQQQ", table[at : at + 48]) for at in range(0, length, 48)]
    assert [key for key, *_ in rows] == sorted(key for key, *_ in rows)
    for _, start, size, crc in rows:
        assert crc64_xz(data[start : start + size]) == crc


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder with an image and additions that are worth remembering."""
    write_small(tmp_path)
    (tmp_path / "big/opt").mkdir(parents=True)
    (tmp_path / "big/opt/text").write_bytes(text(400_000))
    return tmp_path


def _run(job: Path, name: str, *options: str) -> bytes:
    """The output of the command with ``options``."""
    target = job / name
    assert main([str(job / "in.iso"), str(target), "--add", str(job / "big"), "--force", "-q", *options]) == 0
    return target.read_bytes()


def test_a_plan_and_its_run(
    job: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = _run(job, "cold.iso", "--report", str(job / "cold.json"))
    assert not list(folder.glob("*.parts"))
    arguments = [str(job / "in.iso"), "--add", str(job / "big")]
    assert main(["plan", *arguments]) == 0
    lines = capsys.readouterr().out
    assert "\nkept for the run: " in lines and ", compressed of " in lines
    assert find_file(folder).stat().st_size > 10_000

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an encoder is made")

    monkeypatch.setattr(lzma, "LZMACompressor", refuse)
    assert _run(job, "warm.iso", "--report", str(job / "warm.json")) == cold
    assert (job / "warm.json").read_bytes() == (job / "cold.json").read_bytes(), "a report tells what changed alone"
    capsys.readouterr()
    assert main([*arguments[:1], str(job / "other.iso"), *arguments[1:], "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)["earlier_plan"]
    assert outcome["taken"] > 400_000 and outcome["kept"] == 0
    assert main([*arguments[:1], str(job / "again.iso"), *arguments[1:]]) == 0
    assert "were not compressed again: an earlier plan had done so\n" in capsys.readouterr().out
    assert main(["plan", "--json", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["earlier_plan"] == outcome
    assert main(["cache", "list"]) == 0
    assert " that 1 plan compressed\n" in capsys.readouterr().out
    assert main(["cache", "list", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["plans"], values["plans_size"]) == (1, find_file(folder).stat().st_size)
    assert main(["cache", "clear"]) == 0
    assert not list(folder.iterdir())


def test_in_python_too(job: Path, folder: Path) -> None:
    request = cosremaster.Request(add=[job / "big"])
    with cosremaster.open(job / "in.iso", remember=False) as image:
        assert image.plan(request).kept == 0
        cold = image.remaster(job / "cold.iso", request)
    assert cold.taken == 0 and not folder.exists()
    with cosremaster.open(job / "in.iso") as image:
        first = image.plan(request)
        assert first.kept > 10_000 and first.taken == 0
        assert image.plan(request).kept == 0
        result = image.remaster(job / "warm.iso", request)
        assert result.taken > 400_000 and result.packed == first.packed
        with image.prepare(request) as prepared:
            assert prepared.read(0, prepared.size) == (job / "warm.iso").read_bytes()
    assert (job / "warm.iso").read_bytes() == (job / "cold.iso").read_bytes()


def test_a_new_tar_archive_is_packed_once(job: Path) -> None:
    request = cosremaster.Request(add=[job / "big"])
    with cosremaster.open(job / "in.iso") as image:
        assert image.plan(request, target="root.tar.zst").kept > 10_000
        result = image.remaster(job / "root.tar.zst", request)
    assert result.taken > 400_000
    assert cosremaster.read(f"{job}/root.tar.zst::opt/text") == text(400_000)


def test_the_time_of_the_run_is_that_of_taking(job: Path) -> None:
    values = cosremaster.plan(job / "in.iso", cosremaster.Request(add=[job / "big"])).values
    work = {(part["kind"], part["method"][:2]): part for part in values["time"]["work"]}
    assert work["take", "xz"]["bytes"] > 400_000 and work["take", "xz"]["basis"] == "measured"
    assert ("encode", "xz") not in work or work["encode", "xz"]["bytes"] < 40_000
