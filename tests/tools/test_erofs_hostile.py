"""EROFS images that lie: each ends with an error that tells where, soon, and none with a fault of ours."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import CorruptError, CosremasterError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.layers.erofs.checksums import superblock_checksum
from cosremaster.layers.erofs.directories import DIRECTORY_TYPE
from cosremaster.layers.erofs.expand import ExtentError, expand_extent
from cosremaster.layers.erofs.extents import INTERLACED, LZ4, ErofsExtent
from cosremaster.layers.erofs.inodes import DataLayout
from cosremaster.layers.erofs.tree import ErofsTree
from cosremaster.layers.erofs.write import apply_edits
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind
from tests.fixtures import tools
from tests.support.archives_of_trees import write_tree
from tests.support.erofs_trees import FIXED, describe_image, make_erofs, make_newer_erofs, write_text

FORMS = {
    "plain": (),
    "extended": ("-Eforce-inode-extended",),
    "lz4": ("-zlz4hc",),
    "legacy": ("-zlz4", "-Elegacy-compress"),
    "large clusters": ("-zlz4hc", "-C65536"),
    "fragments": ("-zlz4hc", "-C65536", "-Efragments,ztailpacking"),
    "chunks": ("--chunksize=4096", "-Eforce-chunk-indexes"),
}
NEWER = ("zstd-1k-blocks", "lzma-256k", "metabox-48bit", "prefix-fragments")
MOST = 1 << 22


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files = {"etc/hostname": "old\n", "usr/text": write_text(30_000).decode(), "usr/more": write_text(9000, 2).decode()}
    files |= {f"many/{number}": "x" * number for number in range(30)} | {"etc/link": "-> hostname"}
    folder = tmp_path_factory.mktemp("hostile")
    root = write_tree(folder / "root", files)
    made = {name: make_erofs(root, folder / name, *FIXED, *options).read_bytes() for name, options in FORMS.items()}
    os.setxattr(root / "etc/hostname", "user.a.long.prefix.of.names", b"v" * 700)
    make_newer_erofs(root, folder)
    return made | {name: (folder / f"{name}.erofs").read_bytes() for name in NEWER}


def seal(data: bytearray) -> bytes:
    """The image with a true checksum, so that all else is looked at."""
    end = max(1 << (data[1036] & 15), 2048) if data[1036] <= 12 else 4096
    end = end if (1 << data[1036]) > 1024 else 1024 + (1 << data[1036])
    data[1028:1032] = superblock_checksum(bytes(data[1024:end])).to_bytes(4, "little")
    return bytes(data)


def open_tree(data: bytes) -> ErofsTree:
    return ErofsTree(PieceTable([Literal(data)]), Place(("in.erofs",)))


def read_and_edit(data: bytes) -> None:
    """Read everything in the image, and change it."""
    tree = open_tree(data)
    room = MOST
    for node in tree.values():
        if node.content is not None and room > 0:
            for chunk in node.content.table().cut(0, min(node.content.size, room)).chunks():
                room -= len(chunk)
    nodes = (
        Node(path=b"etc", kind=NodeKind.DIRECTORY, mode=0o755, mtime=5),
        Node(path=b"etc/new", kind=NodeKind.SYMLINK, mode=0o777, target=b"x"),
    )
    if tree.directory(b"etc") is not None:
        edits = Edits(frozenset({b"etc/hostname"}), tuple((node, Action.ADDED) for node in nodes), (), (), ())
        apply_edits(tree, edits, Place(("in.erofs",)))


@pytest.mark.parametrize("name", [*FORMS, *NEWER])
def test_damage_is_an_error_with_its_place(name: str, images: dict[str, bytes]) -> None:
    original, numbers = images[name], random.Random(name)
    for _ in range(40):
        data = bytearray(original)
        for _ in range(numbers.choice((1, 2, 8))):
            at = numbers.randrange(1024, min(len(data) - 4, numbers.choice((1168, 8192, 40_000, len(data)))))
            data[at : at + 4] = numbers.choice((b"\xff" * 4, bytes(4), numbers.randbytes(4), bytes([data[at] ^ 1])))[:4]
        try:
            read_and_edit(seal(data[: len(original)]))
        except CosremasterError as error:
            assert "in.erofs" in str(error)


@pytest.mark.parametrize("name", [*FORMS, "lzma-256k", "metabox-48bit"])
def test_a_cut_off_image_is_an_error(name: str, images: dict[str, bytes]) -> None:
    for end in range(0, len(images[name]), 512):
        with pytest.raises(CosremasterError, match=r"in\.erofs"):
            read_and_edit(images[name][:end])


def patch(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return seal(changed)


def position_of(data: bytes, path: bytes) -> int:
    """Where the inode of ``path`` stands."""
    tree = open_tree(data)
    entry = tree.entry(path)
    assert entry is not None
    return tree.filesystem.inode(entry.nid).position


@pytest.mark.parametrize("name", ["plain", "lz4", "legacy", "chunks"])
@pytest.mark.parametrize("size", [1 << 24, (1 << 32) - 1])
def test_a_size_that_lies_is_found_before_it_is_read(name: str, size: int, images: dict[str, bytes]) -> None:
    data = patch(images[name], position_of(images[name], b"usr/text") + 8, "<I", size)
    content = open_tree(data)[b"usr/text"].content
    assert content is not None
    with pytest.raises(CorruptError, match=r"in\.erofs @0x.*EROFS inode"):
        content.table().read()


def test_a_directory_that_contains_itself(images: dict[str, bytes]) -> None:
    """Its entry leads to the root: reading ends, and an edit through it too."""
    tree = open_tree(images["plain"])
    entry = tree.entry(b"usr")
    assert entry is not None
    assert entry.type == DIRECTORY_TYPE
    root, nid = tree.filesystem.root, tree.filesystem.superblock.root
    listing = tree.filesystem.data(root).read()
    at = listing.index(struct.pack("<Q", entry.nid))
    start = images["plain"].index(listing)
    data = patch(images["plain"], start + at, "<Q", nid)
    with pytest.raises(CorruptError, match="has two names, or stands below itself"):
        list(open_tree(data))
    node = Node(path=b"usr/new", kind=NodeKind.SYMLINK, mode=0o777, target=b"x")
    with pytest.raises(CorruptError, match="has two names, or stands below itself"):
        apply_edits(open_tree(data), Edits(frozenset(), ((node, Action.ADDED),), (), (), ()), Place(("in.erofs",)))


def test_a_number_outside_of_the_image(
    images: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = patch(images["plain"], 1024 + 14, "<H", 0xFFFF)
    image = tmp_path / "in.erofs"
    image.write_bytes(data)
    assert main(["ls", str(image)]) == 4
    assert "EROFS inode 65535 is damaged" in capsys.readouterr().err
    assert main([str(image), str(tmp_path / "out"), "--add", f"{image}:/a"]) == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("time", [1 << 62, -(1 << 62)])
def test_a_time_that_is_none(time: int, images: dict[str, bytes], tmp_path: Path) -> None:
    image = tmp_path / "in.erofs"
    image.write_bytes(patch(images["extended"], position_of(images["extended"], b"etc/hostname") + 32, "<q", time))
    assert main(["ls", "-l", f"{image}::etc"]) == 4
    assert main(["verify", "--deep", str(image)]) == 1
    assert main([str(image), str(tmp_path / "out.tar"), "--add", f"{image}:/a"]) == 4


@pytest.mark.parametrize("name", ["plain", "lz4", "chunks"])
@pytest.mark.parametrize(
    ("at", "form", "value", "sentence"),
    [
        (0, "<H", 0xFFFF, "format 0xffff is not known"),
        (2, "<H", 0xFFFF, "an extended attribute of EROFS inode"),
        (4, "<H", 0o050000, "has no type of a file"),
        (4, "<H", 0o040755, "do not agree whether it is a directory"),
        (8, "<I", (1 << 32) - 1, "the map of blocks of EROFS inode"),
    ],
    ids=["format", "attributes", "no type", "other type", "size"],
)  # fmt: skip
def test_a_damaged_inode_is_a_finding(
    name: str, at: int, form: str, value: int, sentence: str, images: dict[str, bytes], tmp_path: Path
) -> None:
    """Without the data too, as verification then says that the tables are sound."""
    image, data = tmp_path / "in.erofs", images[name]
    image.write_bytes(patch(data, position_of(data, b"usr/text") + at, form, value))
    for deep in (False, True):
        assert any(sentence in finding.message for finding in cosremaster.verify(image, deep=deep).findings)


def test_a_directory_that_seems_a_file(images: dict[str, bytes], tmp_path: Path) -> None:
    """Linux shows what is in it; without a look at its inode it would seem empty."""
    image, data = tmp_path / "in.erofs", images["plain"]
    listing = open_tree(data).filesystem.data(open_tree(data).filesystem.root).read()
    entry = open_tree(data).entry(b"many")
    assert entry is not None
    at = data.index(listing) + listing.index(struct.pack("<Q", entry.nid))
    image.write_bytes(patch(data, at + 10, "<B", 1))
    assert main(["ls", "-lR", str(image)]) == 4
    assert main(["verify", str(image)]) == 1
    assert main([str(image), str(tmp_path / "out.tar"), "--add", f"{image.parent}:/a"]) == 4


@pytest.mark.parametrize("text", [b"host\0ame", b""], ids=["a zero byte", "none"])
def test_a_symlink_whose_text_is_odd(
    text: bytes, images: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends at a zero byte, as in Linux; without any it cannot be made."""
    data, target = bytearray(images["plain"]), tmp_path / "out"
    position = position_of(bytes(data), b"etc/link")
    inode = open_tree(bytes(data)).filesystem.inode(position // 32)
    assert data[inode.body : inode.body + 8] == b"hostname"
    struct.pack_into("<I", data, position + 8, len(text))
    data[inode.body : inode.body + len(text)] = text
    image = tmp_path / "in.erofs"
    image.write_bytes(seal(data))
    if text:
        assert main(["extract", str(image), str(target)]) == 0
        assert (target / "etc/link").readlink() == Path("host")
    else:
        assert main(["extract", str(image), str(target)]) == 5
        assert "etc/link: is a symlink without a target" in capsys.readouterr().err
        assert not target.exists()


def test_an_edit_of_an_image_with_as_many_inodes_as_fit(images: dict[str, bytes]) -> None:
    read_and_edit(patch(images["plain"], 1024 + 16, "<Q", (1 << 64) - 1))


OVERLAPS: dict[str, tuple[str, bytes, bytes | int]] = {
    "the superblock": ("plain", b"usr/text", 0),
    "a directory that changes": ("plain", b"usr/text", b"etc"),
    "chunks": ("chunks", b"usr/text", b"etc"),
    "compressed data": ("large clusters", b"usr/text", b"etc"),
}
"""An image, a file in it that gets other data, and where: the block of a byte, or of an inode."""


@pytest.mark.parametrize("case", OVERLAPS)
def test_data_over_bytes_that_an_edit_writes(
    case: str, images: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file would have other bytes afterwards."""
    name, path, over = OVERLAPS[case]
    data = images[name]
    block = (position_of(data, over) if isinstance(over, bytes) else over) >> data[1036]
    image, out = tmp_path / "in.erofs", tmp_path / "out.erofs"
    image.write_bytes(lead_data_to(data, path, block))
    (tmp_path / "new").write_text("new\n")
    assert main([str(image), str(out), "--add", f"{tmp_path}/new:/etc/new"]) == 5
    sentence = "bytes of this file are those of inodes or of the superblock too"
    assert f"in.erofs » {path.decode()}: is in an EROFS file system that cannot be changed: {sentence}" in (
        capsys.readouterr().err
    )
    assert not out.exists()


def lead_data_to(data: bytes, path: bytes, block: int) -> bytes:
    """The image in which the data of ``path`` begin in ``block``."""
    tree = open_tree(data)
    inode = tree.filesystem.inode(position_of(data, path) // 32)
    if inode.layout == DataLayout.CHUNK_BASED:
        return patch(data, -(-inode.body // 8) * 8 + 4, "<I", block)
    if not inode.layout.is_compressed:
        return patch(data, inode.position + 16, "<I", block)
    extent = tree.filesystem.extents(inode).extent(0)
    first = extent.position >> data[1036]
    at = next(
        at
        for at in range(-(-inode.body // 8) * 8 + 8, inode.body + 4096, 4)
        if struct.unpack_from("<I", data, at) == (first,)
    )
    return patch(data, at, "<I", block)


def test_attributes_over_an_inode_that_changes(images: dict[str, bytes], tmp_path: Path) -> None:
    """A file claims so many that the inode behind its own is among them."""
    data, tree = images["extended"], open_tree(images["extended"])
    changed = position_of(data, b"usr")
    position = max(at for path in tree if (at := position_of(data, path)) < changed)
    count = (changed - position - 64 - 12) // 4 + 9
    image, out = tmp_path / "in.erofs", tmp_path / "out.erofs"
    image.write_bytes(patch(data, position + 2, "<H", count))
    (tmp_path / "new").write_text("new\n")
    assert main([str(image), str(out), "--add", f"{tmp_path}/new:/usr/new"]) == 5
    assert not out.exists()


def test_zeros_behind_the_blocks_that_a_file_has(images: dict[str, bytes], tmp_path: Path) -> None:
    """What follows the blocks of the image is free for new ones, if no file says that it is its own."""
    data = images["chunks"]
    block = len(data) >> data[1036]
    image, out = tmp_path / "in.erofs", tmp_path / "out.erofs"
    image.write_bytes(lead_data_to(data, b"usr/text", block) + bytes(1 << data[1036]))
    (tmp_path / "new").write_text("new\n")
    assert main([str(image), str(out), "--add", f"{tmp_path}/new:/etc/new"]) == 5
    assert not out.exists()


def test_a_wrong_checksum(images: dict[str, bytes], tmp_path: Path) -> None:
    image = tmp_path / "in.erofs"
    image.write_bytes(images["plain"][:1040] + b"\1" + images["plain"][1041:])
    with pytest.raises(CorruptError, match="the checksum of the EROFS superblock is wrong"):
        cosremaster.read(f"{image}::etc/hostname")


def test_a_directory_that_is_not_sorted_is_a_finding(images: dict[str, bytes], tmp_path: Path) -> None:
    image = tmp_path / "in.erofs"
    image.write_bytes(seal(bytearray(images["plain"].replace(b"hostnamelink", b"zostnamelink"))))
    assert any("are not sorted" in finding.message for finding in cosremaster.verify(image, deep=True).findings)


def test_a_name_that_is_twice_in_a_directory_is_a_finding(images: dict[str, bytes], tmp_path: Path) -> None:
    image = tmp_path / "in.erofs"
    assert images["plain"].count(b"22232425") == 1
    image.write_bytes(seal(bytearray(images["plain"].replace(b"22232425", b"22222425"))))
    assert any("not all different" in finding.message for finding in cosremaster.verify(image).findings)


@pytest.mark.parametrize("number", [0, 1], ids=["itself", "its parent"])
def test_a_directory_that_is_not_where_it_says_is_a_finding(
    number: int, images: dict[str, bytes], tmp_path: Path
) -> None:  # fmt: skip
    """fsck.erofs unpacks no such image."""
    tools.require("fsck.erofs")
    image, data, tree = tmp_path / "in.erofs", images["plain"], open_tree(images["plain"])
    inode = tree.directory_inode(b"usr")
    assert inode is not None
    listing = tree.filesystem.data(inode).read()
    assert data.count(listing) == 1
    image.write_bytes(patch(data, data.index(listing) + 12 * number, "<Q", tree.filesystem.superblock.root + 1))
    assert subprocess.run(["fsck.erofs", "--extract", str(image)], check=False, capture_output=True).returncode
    for deep in (False, True):
        (finding,) = [finding for finding in cosremaster.verify(image, deep=deep).findings if "/usr" in finding.message]
        assert "lead elsewhere" in finding.message


def test_turned_bytes_that_two_files_share(images: dict[str, bytes]) -> None:
    """Where they begin in a block of the file says how they are turned: the first file's do not serve the second."""
    filesystem = open_tree(images["plain"]).filesystem
    stored = images["plain"][4096:8192]
    for start in (0, 100, 0, 4096 + 100):
        extent = ErofsExtent(start, start + 4096, 4096, 4096, INTERLACED)
        turned = start % 4096
        assert filesystem.expand(filesystem.root, extent) == stored[turned:] + stored[:turned]


def test_a_feature_of_later_versions_is_refused(images: dict[str, bytes], tmp_path: Path) -> None:
    image = tmp_path / "in.erofs"
    image.write_bytes(patch(images["plain"], 1024 + 80, "<I", 1 << 20))
    with pytest.raises(CosremasterError, match=r"features that are not known \(0x100000\)"):
        cosremaster.read(f"{image}::etc/hostname")


def test_lz4_is_read_without_its_library(
    images: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = []
    for module in (sys.modules.get("lz4.block"), None):
        monkeypatch.setitem(sys.modules, "lz4.block", module)
        for name in ("lz4", "legacy", "fragments"):
            (tmp_path / name).write_bytes(images[name])
            described.append(describe_image(tmp_path / name))
    assert described[:3] == described[3:]


@pytest.mark.parametrize("stored", [b"", b"\xf0", b"\x10", b"\x00\x00\x00", b"\x1fa\x05\x00", b"\x10a\x02\x00\x00"])
def test_damaged_lz4_blocks(stored: bytes) -> None:
    with pytest.raises(ExtentError):
        expand_extent(stored, LZ4, 1000, is_partial=False, block_offset=0, block_size=4096)
