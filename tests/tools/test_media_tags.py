"""The digests that openSUSE's tagmedia writes into an image are right after every change.

tagmedia and checkmedia are in no package here: :func:`tag` and :func:`check` do what their documentation says
(github.com/openSUSE/checkmedia, README, "Technical specification"), on the whole image at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.cli import main
from cosremaster.errors import UnsupportedError
from cosremaster.verification.run import verify
from tests.fixtures import families, tools
from tests.fixtures.tools import run

AREA, SIZE = 0x8373, 512
MAGIC = b"7984fc91-a43f-4e45-bf27-6d3aa08b24cf\n"


def normalized(raw: bytes, signature: int) -> bytes:
    """The image as it is summed."""
    data = bytearray(raw)
    data[:512] = bytes(512)
    data[AREA : AREA + SIZE] = b" " * SIZE
    if signature:
        data[signature * 512 + 64 : signature * 512 + 2048] = bytes(2048 - 64)
    return bytes(data)


def digests(raw: bytes, kind: str, pad: int, signature: int, partition: tuple[int, int] | None) -> tuple[str, str]:
    """The digests of the volume and of the partition."""
    data = normalized(raw, signature)
    length = struct.unpack_from("<I", raw, 0x8050)[0] * 2048
    whole = data[: length - pad * 2048] + bytes(pad * 2048)
    start, blocks = partition or (0, 0)
    part = data[start * 512 : (start + blocks) * 512]
    return hashlib.new(kind, whole).hexdigest(), hashlib.new(kind, part).hexdigest()


def tag(iso: Path, kind: str, *, pad: int = 0, signature: int = 0, partition: tuple[int, int] | None = None) -> None:
    """Write tags as tagmedia does."""
    raw = bytearray(iso.read_bytes())
    whole, part = digests(bytes(raw), kind, pad, signature, partition)
    tags = ["check=1", *([f"pad={pad}"] if pad else []), f"{kind}sum={whole}"]
    tags += [f"partition={partition[0]},{partition[1]},{part}"] if partition else []
    tags += [f"signature={signature}"] if signature else []
    raw[AREA : AREA + SIZE] = ";".join(tags).encode().ljust(SIZE)
    iso.write_bytes(raw)


def check(iso: Path) -> dict[str, str]:
    """Check the tags as checkmedia does, and return them."""
    raw = iso.read_bytes()
    tags = dict(one.split("=", 1) for one in raw[AREA : AREA + SIZE].rstrip(b" ").decode().split(";"))
    (key,) = [one for one in tags if one.endswith("sum")]
    match = re.fullmatch(r"(\d+),(\d+),(\w+)", tags.get("partition", ""))
    partition = (int(match[1]), int(match[2])) if match else None
    signature = int(tags.get("signature", "0"))
    whole, part = digests(raw, key.removesuffix("sum"), int(tags.get("pad", "0")), signature, partition)
    assert tags[key] == whole
    assert match is None or match[3] == part
    assert not signature or raw[signature * 512 :].startswith(MAGIC)
    return tags


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    tools.require("genisoimage")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(b"a" * 50_000)
    (tmp_path / "tree/glump").write_bytes(MAGIC.ljust(2048, b"\0"))
    (tmp_path / "new").write_bytes(b"n" * 90_000)
    iso = tmp_path / "in.iso"
    run(["genisoimage", "-quiet", "-R", "-o", iso, tmp_path / "tree"])
    return iso


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
def test_digests_are_made_anew(plain: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    tag(plain, kind, pad=150)
    old, out = check(plain), tmp_path / "out.iso"
    result = remaster(plain, out, add_iso=[f"{tmp_path / 'new'}:/n"])
    new = check(out)
    assert new[f"{kind}sum"] != old[f"{kind}sum"]
    assert {key: value for key, value in new.items() if not key.endswith("sum")} == {"check": "1", "pad": "150"}
    assert not result.warnings
    assert verify(plain).ok
    assert verify(out, against=plain, changed=[b"n"]).ok
    assert any(one.check == "media.digest" and one.message.endswith("holds") for one in verify(out).findings)
    raw = bytearray(out.read_bytes())
    raw[100_000] ^= 1
    out.write_bytes(raw)
    assert [one.check for one in verify(out).findings if one.is_counted] == ["media.digest"]
    assert main(["inspect", str(plain)]) == 0
    assert f"media tags: {kind} {old[kind + 'sum']}" in capsys.readouterr().out
    assert main(["inspect", "--json", str(plain)]) == 0
    assert json.loads(capsys.readouterr().out)["image"]["media_digest"] == f"{kind}:{old[kind + 'sum']}"


def test_volume_ids_too(plain: Path, tmp_path: Path) -> None:
    tag(plain, "sha256")
    remaster(plain, tmp_path / "out.iso", volume_id="OTHER")
    assert check(tmp_path / "out.iso") != check(plain)


def sector_of_signature(iso: Path) -> int:
    """The sector at which the file for the signature begins, as isoinfo tells."""
    match = re.search(r"\[ *(\d+) \d+\] +glump", run(["isoinfo", "-R", "-l", "-i", iso]).decode())
    assert match is not None
    return int(match[1]) * 4


def test_a_signature_moves_and_is_warned_of(plain: Path, tmp_path: Path) -> None:
    sector = sector_of_signature(plain)
    tag(plain, "sha256", signature=sector)
    out = tmp_path / "out.iso"
    result = remaster(plain, out, add_iso=[f"{tmp_path / 'new'}:/a"])
    assert int(check(out)["signature"]) > sector
    assert not result.warnings, "no signature was put into its block yet"
    raw = bytearray(plain.read_bytes())
    raw[sector * 512 + 64 : sector * 512 + 90] = b"-----BEGIN PGP SIGNATURE-----"[:26]
    plain.write_bytes(raw)
    check(plain)
    result = remaster(plain, out, add_iso=[f"{tmp_path / 'new'}:/a"], force=True)
    check(out)
    assert [f"signed at sector {sector:,}" in warning for warning in result.warnings] == [True]


@pytest.mark.parametrize("name", ["isohybrid", "fedora", "debian"])
def test_a_partition_has_a_digest_of_its_own(name: str, tmp_path: Path) -> None:
    """The last primary partition, as tagmedia takes it; it grows, or moves, with the image."""
    tools.require(*families.TOOLS)
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    raw = bytearray(families.build(name).read_bytes())
    raw[AREA : AREA + SIZE] = b" " * SIZE  # an implanted MD5
    iso.write_bytes(raw)
    entries = [struct.unpack_from("<B3xB3xII", raw, 446 + 16 * index) for index in range(4)]
    start, blocks = max(((start, count) for _, kind, start, count in entries if kind), key=sum)
    blocks = min(blocks, len(raw) // 512 - start)
    tag(iso, "sha256", pad=10, partition=(start, blocks))
    check(iso)
    (tmp_path / "new").write_bytes(b"n" * 3_000_000)
    remaster(iso, out, add_iso=[f"{tmp_path / 'new'}:/n"])
    new = check(out)["partition"].split(",")
    changed = struct.unpack_from("<4x4xII", out.read_bytes(), 446 + 16 * entries.index(
        next(entry for entry in entries if entry[1] and entry[2] == start)))  # fmt: skip
    assert (int(new[0]), int(new[1])) == changed
    assert [one for one in verify(out).findings if one.is_counted and one.check.startswith("media")] == []


def test_fragment_sums(plain: Path, tmp_path: Path) -> None:
    """Each is the digest up to the end of the first buffer of 32 KiB that begins behind a fragment: in the README's
    example of Fedora 34, fragments of 100,030,561 bytes, the first up to byte 3,054 * 32,768."""

    def fragments(raw: bytes, count: int) -> str:
        data = normalized(raw, 0)[: struct.unpack_from("<I", raw, 0x8050)[0] * 2048]
        size, text = len(data) // (count + 1), ""
        for number in range(1, count + 1):
            end = -(-number * size // 0x8000) * 0x8000 + 0x8000
            text += "".join(f"{byte:x}"[0] for byte in hashlib.sha1(data[:end]).digest()[: 60 // count])
        return text

    big = tmp_path / "tree/big"
    big.write_bytes(bytes(range(256)) * 4000)
    run(["genisoimage", "-quiet", "-R", "-o", plain, tmp_path / "tree"])
    raw = bytearray(plain.read_bytes())
    whole, _ = digests(bytes(raw), "sha1", 0, 0, None)
    text = f"sha1sum={whole};fragment sums={fragments(bytes(raw), 4)};fragment count=4"
    raw[AREA : AREA + SIZE] = text.encode().ljust(SIZE)
    plain.write_bytes(raw)
    assert verify(plain).ok
    out = tmp_path / "out.iso"
    remaster(plain, out, add_iso=[f"{tmp_path / 'new'}:/n"])
    assert check(out)["fragment sums"] == fragments(out.read_bytes(), 4)
    assert verify(out).ok
    raw = bytearray(out.read_bytes())
    at = raw.index(b"fragment sums=") + 14
    raw[at] ^= 1
    out.write_bytes(raw)
    assert [one.check for one in verify(out).findings if one.is_counted] == ["media.fragments"]


def test_tags_without_room(plain: Path, tmp_path: Path) -> None:
    """The signature's place gets a digit more."""
    sector = sector_of_signature(plain)
    tag(plain, "sha512", signature=sector)
    raw = bytearray(plain.read_bytes())
    raw[AREA : AREA + SIZE] = (raw[AREA : AREA + SIZE].rstrip(b" ") + b";x=").ljust(SIZE, b"y")
    plain.write_bytes(raw)
    out = tmp_path / "out.iso"
    remaster(plain, out, add_iso=[f"{tmp_path / 'new'}:/n"])  # values of the same length fit
    (tmp_path / "new").write_bytes(bytes(5_000_000))
    with pytest.raises(UnsupportedError, match="tags of tagmedia have no room"):
        remaster(plain, out, add_iso=[f"{tmp_path / 'new'}:/a"], force=True)


@pytest.mark.parametrize(
    "text", [b"", b"sha256sum=12", b"sha256sum", b"x=1;pad=2", b"ISO MD5SUM = " + b"0" * 32, b"\xff;="]
)
def test_what_are_no_tags(plain: Path, tmp_path: Path, text: bytes) -> None:
    raw = bytearray(plain.read_bytes())
    raw[AREA : AREA + SIZE] = text.ljust(SIZE)
    plain.write_bytes(raw)
    remaster(plain, tmp_path / "out.iso", add_iso=[f"{tmp_path / 'new'}:/n"])
    assert (tmp_path / "out.iso").read_bytes()[AREA : AREA + SIZE] == text.ljust(SIZE)
