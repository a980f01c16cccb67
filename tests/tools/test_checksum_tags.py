"""MD5 tags that xorriso writes with -md5: verify checks them, and a change, which leaves them stale, tells of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.verification.run import verify
from tests.fixtures import tools
from tests.fixtures.tools import run

MAKERS = {
    "as mkisofs": ["xorriso", "-as", "mkisofs", "-quiet", "--md5", "-R", "-o", "in.iso", "tree"],
    "growable": ["xorriso", "-report_about", "WARNING", "-md5", "on", "-outdev", "in.iso", "-map", "tree", "/"],
}


def is_read(iso: Path, md5: str) -> bool:
    """Whether xorriso reads the tree with this mode of its checksums."""
    argv = ["xorriso", "-md5", md5, "-indev", str(iso), "-find", "/"]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def sums(iso: Path) -> list[tuple[str, bool]]:
    """What verify says of the tags, and whether it holds."""
    return [(finding.message, not finding.is_counted) for finding in verify(iso).findings if finding.check == "md5.tag"]


@pytest.fixture(params=MAKERS)
def tagged(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    tools.require("xorriso")
    (tmp_path / "tree/a").mkdir(parents=True)
    (tmp_path / "tree/a/old").write_bytes(b"old" * 5000)
    (tmp_path / "new").write_text("new\n")
    run(MAKERS[request.param], cwd=tmp_path)
    return tmp_path / "in.iso"


def test_tags_hold_until_a_byte_changes(tagged: Path) -> None:
    assert is_read(tagged, "on")
    assert len(sums(tagged)) >= 3
    assert all(holds for _, holds in sums(tagged))
    raw = bytearray(tagged.read_bytes())
    raw[raw.index(b"oldold")] ^= 1
    tagged.write_bytes(raw)
    assert [holds for _, holds in sums(tagged)].count(False) == 1


def change_first_tag(iso: Path, old: bytes, new: bytes) -> None:
    """Change the first tag, whose own sum is right afterwards."""
    raw = iso.read_bytes()
    start = 18 * 2048
    line = raw[start : raw.index(b"\n", start)].rpartition(b" self=")[0].replace(old, new)
    tag = line + b" self=" + hashlib.md5(line).hexdigest().encode() + b"\n"
    iso.write_bytes(raw[:start] + tag + raw[start + len(tag) :])


def test_a_range_behind_the_end_and_a_damaged_tag(tagged: Path) -> None:
    change_first_tag(tagged, b"range_size=18", b"range_size=1800000")
    assert sums(tagged)[0] == ("MD5 tag of xorriso: its range ends behind the image", False)
    raw = tagged.read_bytes()
    tagged.write_bytes(raw.replace(b"range_size=1800000 ", b"range_size=1700000 ", 1))
    assert not sums(tagged), "a line whose own sum is wrong is no tag"


@pytest.mark.parametrize("next_tag", [b"next=9999999999", b"session_start=9999999999", b"next=18"])
def test_tags_that_lead_nowhere_or_to_themselves_end(tagged: Path, tmp_path: Path, next_tag: bytes) -> None:
    raw = tagged.read_bytes()
    old = next(word for word in raw[18 * 2048 :].split() if word.startswith((b"next=", b"session_start=")))
    change_first_tag(tagged, old, next_tag)
    assert len(sums(tagged)) == 1
    assert remaster(tagged, tmp_path / "out.iso", add_iso=[f"{tmp_path / 'new'}:/n"]).warnings


def test_a_change_tells_of_stale_tags(tagged: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    result = remaster(tagged, out, add_iso=[f"{tmp_path / 'new'}:/a/old"])
    assert [warning for warning in result.warnings if "MD5 tags" in warning and "-md5 off" in warning]
    assert not is_read(out, "on")
    assert is_read(out, "off")
    assert not verify(out).ok
    assert verify(out, against=tagged, changed=[b"a/old"]).ok is False


def test_a_copy_and_an_image_without_tags_tell_nothing(tagged: Path, tmp_path: Path) -> None:
    assert not remaster(tagged, tmp_path / "same.iso").warnings
    plain = tmp_path / "plain.iso"
    run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", plain, tmp_path / "tree"])
    assert not sums(plain)
    assert not remaster(plain, tmp_path / "out.iso", add_iso=[f"{tmp_path / 'new'}:/n"]).warnings
