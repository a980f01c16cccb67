"""A Python without ``_lzma``: with and without the backport. The backport here is the real module, made as bare."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.codecs.lzma_module import Bounded
from tests.support.small import CGZ, write_overlay, write_small

HIDE = "import sys\nsys.modules['_lzma'] = None\n"
BACKPORT = """
import sys
hidden = {name: sys.modules.pop(name) for name in ("_lzma", "lzma") if name in sys.modules}
import lzma as real
sys.modules.pop("lzma"), sys.modules.pop("_lzma")
sys.modules.update(hidden)
from_real = {name: value for name, value in vars(real).items() if not name.startswith("__")}
globals().update(from_real)

class LZMADecompressor:
    def __init__(self, format=real.FORMAT_AUTO, memlimit=None, filters=None):
        self._inner = real.LZMADecompressor(format, memlimit, filters)
    eof = property(lambda self: self._inner.eof)
    unused_data = property(lambda self: self._inner.unused_data)
    def decompress(self, data):
        return self._inner.decompress(data)
"""


def run(folder: Path, *argv: str, backport: bool) -> subprocess.CompletedProcess[str]:
    """The command in a Python that has no ``_lzma``."""
    path = folder / "path"
    path.mkdir(exist_ok=True)
    (path / "sitecustomize.py").write_text(HIDE)
    if backport:
        (path / "backports").mkdir(exist_ok=True)
        (path / "backports/lzma.py").write_text(BACKPORT)
    return subprocess.run(
        [sys.executable, "-m", "cosremaster", *argv],
        env={**os.environ, "PYTHONPATH": str(path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_without_the_backport_the_extra_is_named(tmp_path: Path) -> None:
    image = write_small(tmp_path)
    listed = run(tmp_path, "ls", f"{image}::{CGZ}", backport=False)
    assert (listed.returncode, listed.stderr) == (0, "")  # gzip needs none
    done = run(tmp_path, "ls", f"{image}::{CGZ}::rootfs.cxz::etc", backport=False)
    assert "the extra cosremaster[lzma] opens" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 5


def test_with_it_the_result_is_the_same(tmp_path: Path) -> None:
    image, overlay = write_small(tmp_path), write_overlay(tmp_path)
    done = run(tmp_path, str(image), str(tmp_path / "one.iso"), "--add", str(overlay), backport=True)
    assert done.returncode == 0, done.stderr
    subprocess.run(
        [sys.executable, "-m", "cosremaster", image, tmp_path / "two.iso", "--add", overlay], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert (tmp_path / "one.iso").read_bytes() == (tmp_path / "two.iso").read_bytes()


class Bare:
    """A decompressor as in Python 3.3."""

    def __init__(self) -> None:
        self._inner = lzma.LZMADecompressor()

    @property
    def eof(self) -> bool:
        """As in Python 3.3."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """As in Python 3.3."""
        return self._inner.unused_data

    def decompress(self, data: bytes) -> bytes:
        """As in Python 3.3."""
        return self._inner.decompress(data)


@given(plain=st.binary(max_size=3000), feed=st.integers(1, 500), most=st.integers(1, 4000), rest=st.binary(max_size=99))
def test_it_is_bounded_as_todays_is(plain: bytes, feed: int, most: int, rest: bytes) -> None:
    packed = lzma.compress(plain) + rest
    ours = Bounded(Bare())
    out, at = b"", 0
    while not ours.eof:
        data = packed[at : at + feed] if ours.needs_input else b""
        at += len(data)
        part = ours.decompress(data, most)
        assert len(part) <= most
        out += part
    assert out == plain
    assert ours.unused_data + packed[at:] == rest


@pytest.mark.parametrize("size", [50_000_000])
def test_a_bomb_is_not_inflated_at_once(size: int) -> None:
    ours = Bounded(Bare())
    assert len(ours.decompress(lzma.compress(bytes(size)), 1000)) == 1000
    assert not ours.needs_input
