"""UDF bridges as genisoimage makes them: every place found, moved as 7z and udfinfo accept it, damage told."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso.udf.patch import MAX_EXTENT_SIZE, BlockMove, move_tail_anchors, patch_udf, seal_descriptor
from cosremaster.iso.udf.read import Udf, has_udf, read_udf
from cosremaster.units import BLOCK, Lba, blocks_for
from tests.fixtures import tools

NOISE = random.Random(5).randbytes(300_000)
FILES = {
    "a/b/deep.txt": b"deep\n", "a/big.bin": NOISE, "empty": b"", "first.bin": NOISE[:5000],
    "zulu ž.bin": NOISE[:70_000],
}  # fmt: skip


def _build(folder: Path, *options: str) -> Path:
    tools.require("genisoimage")
    root = folder / "tree"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    iso = folder / "udf.iso"
    charset = ("-input-charset", "utf-8")
    tools.run(["genisoimage", "-quiet", "-udf", "-R", *charset, *options, "-o", iso, root])
    return iso


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of ``FILES``."""
    return _build(tmp_path_factory.mktemp("udf"))


@pytest.fixture
def source(bridge: Path) -> Iterator[ByteSource]:
    """The image, opened."""
    with open_source(bridge) as opened:
        yield opened


def _read(source: ByteSource) -> Udf:
    udf = read_udf(source, source.size // BLOCK)
    assert udf is not None
    return udf


def _data(source: ByteSource, udf: Udf) -> dict[str, bytes]:
    return {
        "/".join(file.path): b"".join(source.read(lba * BLOCK, length) for lba, length in file.extents)
        for file in udf.files
    }


def _unpacked_by_7z(iso: Path, into: Path) -> dict[str, bytes]:
    tools.require("7z")
    tools.run(["7z", "x", "-y", "-tudf", f"-o{into}", iso], env={"LC_ALL": "C.UTF-8"})
    return {str(path.relative_to(into)): path.read_bytes() for path in into.rglob("*") if path.is_file()}


def test_every_file_and_every_descriptor_is_found(source: ByteSource) -> None:
    udf = _read(source)
    assert _data(source, udf) == FILES
    assert [file.size for file in udf.files if file.path == ("a", "big.bin")] == [len(NOISE)]
    assert udf.tags and all(tag.is_sound for tag in udf.tags)
    assert udf.integrity_counts == (len(FILES), udf.directory_count) == (len(FILES), 3)
    assert set(udf.partition_lengths) == set(udf.integrity_sizes) == {udf.partition.blocks}
    assert len(udf.partition_descriptors) == 2
    assert udf.tail_anchors is not None and udf.tail_anchors.end * BLOCK == source.size
    named = {tag.name for tag in udf.tags}
    assert {"anchor", "partition descriptor", "file entry", "integrity descriptor"} <= named


def test_plain_images_have_no_udf(tmp_path: Path) -> None:
    tools.require("genisoimage")
    (tmp_path / "tree").mkdir()
    tools.run(["genisoimage", "-quiet", "-o", tmp_path / "plain.iso", tmp_path / "tree"])
    with open_source(tmp_path / "plain.iso") as source:
        assert not has_udf(source)
        assert read_udf(source, source.size // BLOCK) is None


def _changed(source: ByteSource, udf: Udf, name: str, data: bytes) -> bytes:
    """The image with one file's data at the end of its tree, and all behind it moved down by what it left."""
    old = {file.path: file for file in udf.files}
    (lba, length) = old[tuple(name.split("/"))].extents[0]
    assert udf.tail_anchors is not None
    left = blocks_for(length)
    raw = source.read(0, source.size)
    behind = raw[(lba + left) * BLOCK : udf.tail_anchors.start * BLOCK]
    end = Lba(udf.tail_anchors.start - left + blocks_for(len(data)))
    growth = end + udf.tail_anchors.blocks - source.size // BLOCK
    moves = [BlockMove(Lba(lba + left), len(behind) // BLOCK, lba)]
    exchanged = {lba: (Lba(udf.tail_anchors.start - left), len(data))}
    image = bytearray(raw)
    for offset, patch in patch_udf(udf, source, moves, exchanged, growth):
        image[offset : offset + len(patch)] = patch
    patched = bytes(image[: lba * BLOCK]) + behind + data + bytes(-len(data) % BLOCK)
    return patched + move_tail_anchors(udf, source, Lba(end + udf.tail_anchors.blocks))


@pytest.mark.parametrize("name", ["first.bin", "a/big.bin", "zulu ž.bin", "a/b/deep.txt"])
@pytest.mark.parametrize("size", [1, 2048, 400_001])
def test_other_tools_read_what_was_moved_and_exchanged(
    tmp_path: Path, source: ByteSource, name: str, size: int
) -> None:
    tools.require("udfinfo")
    udf = _read(source)
    data = random.Random(size).randbytes(size)
    changed = tmp_path / "changed.iso"
    changed.write_bytes(_changed(source, udf, name, data))
    with open_source(changed) as other:
        again = _read(other)
        assert all(tag.is_sound for tag in again.tags), [tag for tag in again.tags if not tag.is_sound]
        assert _data(other, again) == {**FILES, name: data}
        assert set(again.partition_lengths) == set(again.integrity_sizes) == {again.partition.blocks}
        assert again.tail_anchors is not None and again.tail_anchors.blocks == udf.tail_anchors.blocks  # type: ignore[union-attr]
    assert _unpacked_by_7z(changed, tmp_path / "out") == {**FILES, name: data}
    said = tools.run(["udfinfo", changed]).decode()
    assert f"blocks={changed.stat().st_size // BLOCK}\n" in said
    assert f"numfiles={len(FILES)}\n" in said


def test_nothing_moved_changes_nothing(source: ByteSource) -> None:
    udf = _read(source)
    assert list(patch_udf(udf, source, [], {}, 0)) == []
    assert udf.tail_anchors is not None
    end = Lba(source.size // BLOCK)
    assert move_tail_anchors(udf, source, end) == source.read(
        udf.tail_anchors.start * BLOCK, udf.tail_anchors.blocks * BLOCK
    )


def test_a_file_that_comes_to_stand_in_parts_keeps_its_bytes(source: ByteSource) -> None:
    """Data cut into odd moves: the entry lists each part, and parts that follow each other once."""
    udf = _read(source)
    (file,) = (file for file in udf.files if file.path == ("a", "big.bin"))
    lba, _ = file.extents[0]
    moves = [
        BlockMove(Lba(lba + 2), 3, Lba(9000)),
        BlockMove(Lba(lba + 5), 1, Lba(9003)),
        BlockMove(Lba(lba + 6), 4, Lba(8000)),
    ]
    ((offset, patch),) = patch_udf(udf, source, moves, {}, 0)
    assert offset == file.entry_offset
    listed = int.from_bytes(patch[172:176], "little")
    numbers = [int.from_bytes(patch[at : at + 4], "little") for at in range(176, 176 + listed, 4)]
    start = udf.partition.start
    assert list(zip(numbers[::2], (one + start for one in numbers[1::2]), strict=True)) == [
        (2 * BLOCK, lba),
        (4 * BLOCK, 9000),
        (4 * BLOCK, 8000),
        (len(NOISE) - 10 * BLOCK, lba + 10),
    ]


def test_more_extents_than_an_entry_holds_are_refused(source: ByteSource) -> None:
    udf = _read(source)
    file = next(file for file in udf.files if file.extents)
    with pytest.raises(UnsupportedError, match="more extents now than its UDF file entry can hold"):
        list(patch_udf(udf, source, [], {file.extents[0][0]: (Lba(5000), MAX_EXTENT_SIZE * 240)}, 0))


@pytest.mark.parametrize("fault", ["a size and no extents", "extents and no size"])
@pytest.mark.parametrize("removed", [(), ("/first.bin",)])
def test_a_file_entry_whose_size_is_not_that_of_its_extents_stays_beside_an_edit(
    bridge: Path, tmp_path: Path, fault: str, removed: tuple[str, ...]
) -> None:
    raw = bytearray(bridge.read_bytes())
    with open_source(bridge) as source:
        udf = _read(source)
        file = next(file for file in udf.files if file.path == ("first.bin",))
    at = file.entry_offset
    fields = slice(at + 172, at + 176) if fault == "a size and no extents" else slice(at + 56, at + 64)
    raw[fields] = bytes(fields.stop - fields.start)
    raw[at : at + BLOCK] = seal_descriptor(raw[at : at + BLOCK])
    (tmp_path / "in.iso").write_bytes(raw)
    out, others = tmp_path / "out.iso", FILES.keys() - {"first.bin"}
    cosremaster.remaster(
        tmp_path / "in.iso", out, remove_iso=removed, add_iso=[cosremaster.InlineFile("/new", NOISE[:9000])]
    )
    with open_source(out) as source:
        udf = _read(source)
        data = _data(source, udf)
        assert {name: data[name] for name in others} == {name: FILES[name] for name in others}
        kept = [(file.size, file.extents) for file in udf.files if file.path == ("first.bin",)]
    assert data["new"] == NOISE[:9000]
    assert kept == ([] if removed else [(5000, ())] if fault == "a size and no extents" else [(0, file.extents)])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_images_are_read_or_told(bridge: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(bridge.read_bytes())
    blocks = st.sampled_from([17, 18, 19, 20, *range(32, 38), 64, *range(256, 275), len(raw) // BLOCK - 1])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(blocks) * BLOCK + data.draw(st.integers(0, 500))
        raw[at] = data.draw(st.integers(0, 255))
    length = data.draw(st.sampled_from([len(raw), 40_000, 280 * BLOCK]))
    broken = tmp_path / "broken.iso"
    broken.write_bytes(raw[:length])
    with open_source(broken) as source:
        try:
            read_udf(source, len(raw) // BLOCK)
        except (ImageError, UnsupportedError) as error:
            assert str(error).startswith(str(broken))


@pytest.mark.parametrize("block", [34, 50, 35, 64, 256, 257, 259, 260, 262])
def test_a_flipped_bit_breaks_a_tag(tmp_path: Path, bridge: Path, block: int) -> None:
    raw = bytearray(bridge.read_bytes())
    raw[block * BLOCK + 23 if block != 256 else 256 * BLOCK + 200] ^= 0x80
    broken = tmp_path / "broken.iso"
    broken.write_bytes(raw)
    with open_source(broken) as source:
        udf = _read(source)
        assert [tag.offset // BLOCK for tag in udf.tags if not tag.is_sound] == [block]
