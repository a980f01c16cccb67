"""UDF without ISO 9660: what mkudffs and genisoimage make, listed and extracted; GRUB reads the same."""

from __future__ import annotations

import ctypes
import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.errors import CosremasterError, ImageError, UnsupportedError
from cosremaster.io.source import open_source
from cosremaster.iso.udf.patch import seal_descriptor
from cosremaster.iso.udf_alone import read_udf_nodes
from cosremaster.verification.run import verify
from tests.fixtures import tools

BLOCK = 2048
_LIBUDFREADS = [f"/usr/lib/x86_64-linux-gnu/libudfread.so.{version}" for version in (0, 3)]
LIBUDFREAD = next(filter(os.path.exists, _LIBUDFREADS), _LIBUDFREADS[0])
NOISE = random.Random(9).randbytes(30_000)
FILES = {"a/b/deep.txt": b"deep\n", "a/big.bin": NOISE, "empty": b"", "zulu ž.txt": b"last\n"}


def _bridge(folder: Path, *options: str, keep: bool = False) -> bytearray:
    """A bridge by genisoimage whose descriptors of ISO 9660 are wiped: the recognition sequence comes first.

    ``keep``: they are not wiped.
    """
    tools.require("genisoimage")
    for name, data in FILES.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(data)
    options = ("-quiet", "-udf", "-input-charset", "utf-8", *options)
    tools.run(["genisoimage", *options, "-o", folder / "in.iso", folder / "tree"])
    raw = bytearray((folder / "in.iso").read_bytes())
    descriptors = [bytes(raw[at : at + BLOCK]) for at in range(16 * BLOCK, 32 * BLOCK, BLOCK)]
    if keep:
        return raw
    kept = [one for one in descriptors if one[1:6] in (b"BEA01", b"NSR02", b"TEA01")]
    raw[16 * BLOCK : 32 * BLOCK] = b"".join(kept).ljust(16 * BLOCK, b"\0")
    return raw


def _by_grub(image: Path, name: str) -> bytes:
    tools.require("grub-fstest")
    return tools.run(["grub-fstest", image, "cat", f"(loop0)/{name}"])


def _by_libudfread(image: Path, name: str) -> bytes:
    """The file by the library with which players read Blu-ray discs: GRUB and 7-Zip know no metadata partition."""
    tools.require(LIBUDFREAD)
    library = ctypes.CDLL(LIBUDFREAD)
    library.udfread_init.restype = library.udfread_file_open.restype = ctypes.c_void_p
    library.udfread_open.argtypes = library.udfread_file_open.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.udfread_file_read.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.udfread_file_read.restype = ctypes.c_ssize_t
    disc = library.udfread_init()
    assert library.udfread_open(disc, bytes(image)) == 0
    file, buffer = library.udfread_file_open(disc, b"/" + name.encode()), ctypes.create_string_buffer(1 << 20)
    assert file, f"libudfread finds no {name}"
    count = library.udfread_file_read(file, buffer, len(buffer))
    return buffer.raw[:count]


def _contents(image: Path) -> dict[str, bytes]:
    with open_source(image) as source:
        nodes = read_udf_nodes(source)
        return {path.decode(): node.content.table().read() for path, node in nodes.items() if node.content is not None}


def test_it_is_listed_and_extracted(tmp_path: Path) -> None:
    image = tmp_path / "plain.udf"
    image.write_bytes(_bridge(tmp_path))
    tools.require("7z")
    tools.run(["7z", "x", "-y", "-tudf", f"-o{tmp_path}/7z", image], env={"LC_ALL": "C.UTF-8"})
    cosremaster.extract(image, tmp_path / "out")
    for folder in ("7z", "out"):
        unpacked = {str(path.relative_to(tmp_path / folder)): path for path in (tmp_path / folder).rglob("*")}
        assert {name: path.read_bytes() for name, path in unpacked.items() if path.is_file()} == FILES
    assert [entry.path for entry in cosremaster.ls(f"{image}::a")] == [b"a/b", b"a/big.bin"]
    assert cosremaster.read(f"{image}::a/big.bin") == NOISE == _by_grub(image, "a/big.bin")
    assert {entry.mode for entry in cosremaster.ls(f"{image}::a")} == {0o444, 0o555}
    assert list(cosremaster.diff(image, image)) == []


def test_it_is_not_changed(tmp_path: Path) -> None:
    image = tmp_path / "plain.udf"
    image.write_bytes(_bridge(tmp_path))
    with pytest.raises(UnsupportedError, match="is UDF without ISO 9660, which can be listed and extracted"):
        cosremaster.remaster(image, tmp_path / "out.iso", remove_iso=["empty"])
    with pytest.raises(UnsupportedError, match="is UDF without ISO 9660, which cannot be verified"):
        verify(image)


def _with_metadata_partition(raw: bytearray) -> bytearray:
    """UDF 2.50: a second partition is mapped by a file that has the metadata; here that file is the whole partition."""
    tags = {lba: raw[lba * BLOCK] for lba in range(32, 64)}
    (partition, _) = (lba for lba, tag in tags.items() if tag == 5)
    length = struct.unpack_from("<I", raw, partition * BLOCK + 192)[0]
    number, entry_block = 257 + length, length - 1
    for lba in (lba for lba, tag in tags.items() if tag == 6):
        volume = raw[lba * BLOCK : (lba + 1) * BLOCK]
        assert volume[440:446] == b"\1\6\1\0\0\0"
        metadata = bytearray(64)
        metadata[:2], metadata[5:28] = b"\2\x40", b"*UDF Metadata Partition"
        struct.pack_into("<HHII", metadata, 36, 1, 0, entry_block, entry_block)
        volume[446:510] = metadata
        struct.pack_into("<II", volume, 264, 70, 2)
        struct.pack_into("<H", volume, 248 + 8, 1)
        raw[lba * BLOCK : (lba + 1) * BLOCK] = seal_descriptor(bytearray(volume), 440 + 70 - 16)
    root = struct.unpack_from("<I", raw, 257 * BLOCK + 404)[0]
    file_set = raw[257 * BLOCK : 258 * BLOCK]
    struct.pack_into("<H", file_set, 404 + 4, 1)
    raw[257 * BLOCK : 258 * BLOCK] = seal_descriptor(bytearray(file_set))
    entry = bytearray(BLOCK)  # an extended file entry (4/14.17)
    entry[:56] = raw[(257 + root) * BLOCK :][:56]
    entry[:2], entry[27] = b"\x0a\1", 250  # a metadata file (UDF 2.50, 2.2.13.1)
    struct.pack_into("<3Q", entry, 56, length * BLOCK, length * BLOCK, length)
    struct.pack_into("<IIII", entry, 208, 0, 8, length * BLOCK, 0)
    struct.pack_into("<I", entry, 12, entry_block)
    raw[(number - 1) * BLOCK : number * BLOCK] = seal_descriptor(entry, 216 + 8 - 16)
    return raw


def test_a_metadata_partition_is_followed(tmp_path: Path) -> None:
    image = tmp_path / "metadata.udf"
    image.write_bytes(_with_metadata_partition(_bridge(tmp_path)))
    assert _contents(image) == FILES
    assert _by_libudfread(image, "a/b/deep.txt") == b"deep\n"
    assert _by_libudfread(image, "a/big.bin") == NOISE


@pytest.mark.parametrize("options", [(), ("-R",)])
def test_beside_iso_9660_it_is_listed_too(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A bridge of UDF 2.50, whose names ISO 9660 does not show: listed, and not changed."""
    image = tmp_path / "bridge.iso"
    image.write_bytes(_with_metadata_partition(_bridge(tmp_path, "-hide", "b", "-hide", "zulu*", *options, keep=True)))
    folder = "a" if options else "A"
    shown = {entry.path.decode() for entry in cosremaster.ls(image, recursive=True)}
    assert shown >= {folder, f"{folder}/b", f"{folder}/b/deep.txt", "zulu ž.txt"}
    assert cosremaster.read(f"{image}::{folder}/b/deep.txt") == b"deep\n"
    assert len(shown) == 6
    with pytest.raises(UnsupportedError, match="its UDF has several partitions"):
        cosremaster.remaster(image, tmp_path / "out.iso", remove_iso=["empty"])


def test_a_disc_whose_udf_is_cut_off_is_told(tmp_path: Path) -> None:
    """ISO 9660 shows one file; that this is all would be wrong."""
    image = tmp_path / "cut.iso"
    raw = _bridge(tmp_path, "-hide", "a", "-hide", "zulu*", keep=True)
    raw[16 * BLOCK + 80 : 16 * BLOCK + 88] = (275).to_bytes(4, "little") + (275).to_bytes(4, "big")
    image.write_bytes(raw[: 276 * BLOCK])
    with pytest.raises(ImageError, match="the image is cut off"):
        cosremaster.ls(image)


def _inject(image: Path, size: int, data: bytes) -> None:
    """Add the file ``new`` to the root of what mkudffs made with blocks of ``size`` bytes, its data in two extents."""
    raw = bytearray(image.read_bytes())
    anchor = raw[256 * size : 257 * size]
    sequence = struct.unpack_from("<I", anchor, 20)[0]
    descriptors = [raw[at * size : (at + 1) * size] for at in range(sequence, sequence + 16)]
    (partition,) = (one for one in descriptors if one[:2] == b"\5\0")
    start, length = struct.unpack_from("<II", partition, 188)
    (volume,) = (one for one in descriptors if one[:2] == b"\6\0")
    file_set = start + struct.unpack_from("<I", volume, 252)[0]
    root_block = struct.unpack_from("<I", raw, file_set * size + 404)[0]
    at = (start + root_block) * size
    root = raw[at : at + size]
    fixed = 216 if root[:2] == b"\x0a\1" else 176
    used = struct.unpack_from("<I", root, fixed - 4)[0]
    entry_block, first = length - 40, length - 39
    half = -(-len(data) // size // 2) * size
    name = bytearray(38) + b"\x08new"
    name += bytes(-len(name) % 4)
    struct.pack_into("<HH", name, 0, 257, root[2])
    struct.pack_into("<I", name, 12, root_block)
    name[16], name[19] = 1, 4
    struct.pack_into("<II", name, 20, size, entry_block)
    root[fixed + used : fixed + used + len(name)] = seal_descriptor(name, len(name) - 16)
    struct.pack_into("<I", root, fixed - 4, used + len(name))
    struct.pack_into("<Q", root, 56, used + len(name))
    entry = bytearray(root)
    entry[27], entry[34] = 5, entry[34] & ~7
    struct.pack_into("<Q", entry, 56, len(data))
    struct.pack_into("<I", entry, fixed - 4, 16)
    entry[fixed:] = struct.pack("<4I", half, first + 1, len(data) - half, first + 20).ljust(size - fixed, b"\0")
    struct.pack_into("<I", entry, 12, entry_block)
    raw[at : at + size] = seal_descriptor(root, fixed + used + len(name) - 16)
    at = (start + entry_block) * size
    raw[at : at + size] = seal_descriptor(entry, fixed + 16 - 16)
    for block, part in ((first + 1, data[:half]), (first + 20, data[half:])):
        raw[(start + block) * size : (start + block) * size + len(part)] = part
    image.write_bytes(raw)


def _make(folder: Path, *options: str) -> Path:
    tools.require("mkudffs")
    image = folder / "made.udf"
    with image.open("wb") as file:
        file.truncate(12 << 20)
    tools.run(["mkudffs", *options, image])
    return image


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("options", [("-r", "1.02"), ("-r", "2.01")])
def test_other_block_sizes(tmp_path: Path, size: int, options: tuple[str, ...]) -> None:
    image = _make(tmp_path, "-m", "hd", "-b", str(size), *options)
    assert _contents(image) == {}
    _inject(image, size, NOISE[: size * 5 + 99])
    assert _by_grub(image, "new") == NOISE[: size * 5 + 99]
    assert _contents(image) == {"new": NOISE[: size * 5 + 99]}


def test_packets_that_a_sparing_table_moves(tmp_path: Path) -> None:
    image = _make(tmp_path, "-m", "cdrw")
    _inject(image, BLOCK, NOISE[:9999])
    assert _contents(image) == {"new": NOISE[:9999]}


@pytest.mark.parametrize(("options", "words"), [
    (("-m", "dvdr"), "is UDF with a UDF Virtual Partition, which cannot be read"),
    (("-m", "hd", "-b", "2048", "--strategy=4096"), "is UDF with file entries of strategy 4,096"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    image = _make(tmp_path, *options)
    with pytest.raises(UnsupportedError, match=words):
        cosremaster.ls(image)


def test_an_image_that_is_cut_off_is_told(tmp_path: Path) -> None:
    image = tmp_path / "plain.udf"
    image.write_bytes(_bridge(tmp_path)[: 270 * BLOCK])
    with pytest.raises(ImageError, match="cut off"):
        cosremaster.ls(image, recursive=True)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_images_are_read_or_told(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    original = folder / "original"
    if not original.exists():
        original.write_bytes(_bridge(folder))
    raw = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from([32, 33, 34, *range(256, 275)])) * BLOCK + data.draw(st.integers(0, 500))
        raw[at] = data.draw(st.integers(0, 255))
    (folder / "broken").write_bytes(raw)
    with open_source(folder / "broken") as source:
        try:
            for node in read_udf_nodes(source).values():
                if node.content is not None and node.content.size < 1 << 20:
                    node.content.table().read()
        except CosremasterError as error:
            assert str(error).startswith(str(folder))
