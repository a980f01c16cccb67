"""Edits of EROFS file systems: fsck.erofs and the kernel judge, and what was there stays byte for byte."""

from __future__ import annotations

import os
import struct
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import OverlayError, Place, UnsupportedError, UsageError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.layers.erofs.tree import ErofsTree
from cosremaster.layers.erofs.write import apply_edits
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind
from tests.fixtures import tools
from tests.fixtures.erofs_utils import find_program
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.erofs_trees import (
    EPOCH,
    NEWER,
    describe_image,
    describe_tree,
    make_erofs,
    make_erofs_tree,
    make_newer_erofs,
    write_text,
)
from tests.support.mounted_trees import Description, mounted
from tests.support.tree_paths import list_paths


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        tools.leave_out("This test makes devices and owners, for which it needs root.")
    return make_erofs_tree(tmp_path_factory.mktemp("erofs") / "root")


@pytest.fixture(scope="session")
def newer_images(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_newer_erofs(tree, tmp_path_factory.mktemp("erofs-images"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {"etc/hostname": "new\n", "opt/site/deep/file": "deep\n", "usr/empty/file": "no more\n"}
    files |= {f"opt/f{number}": "x" * number for number in range(60)}
    files |= {f"opt/many/a-file-with-a-long-name-{number}": "" for number in range(150)}
    files |= {
        "opt/site/link": "-> deep",
        "opt/site/long-link": f"-> {'q' * 3000}",
        "usr/text-2": "replaces a hard link\n",
    }
    root = write_tree(tmp_path_factory.mktemp("site") / "site", files)
    for size in (4096, 8191, 8192, 100_000):
        (root / f"opt/text-{size}").write_bytes(write_text(size, size))
    os.link(root / "opt/text-8192", root / "opt/text-again")
    os.setxattr(root / "opt/text-8191", "user.note", b"n" * 2000)
    for path in [root, *list_paths(root)]:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return root


def expect(before: Description, site: Path) -> Description:
    """The tree ``before`` with ``site`` over it, without usr/share, and with two names less of usr/text."""
    after = {path: facts for path, facts in before.items() if not path.startswith("usr/share") and path != "etc/text-3"}
    mode, _, *rest = after["usr/text"]
    after["usr/text"] = (mode, 1, *rest)
    for path, facts in describe_tree(site).items():
        if path not in before or not os.path.isdir(site / path):
            after[path] = facts
    return after


def comparable(described: Description) -> Description:
    """What fsck.erofs unpacks: file types, permissions without the bits that chown(2) takes away, and contents."""
    return {path: (int(str(facts[0])) & ~0o6000, facts[7]) for path, facts in described.items()}


def count_inodes(described: Description) -> int:
    """How many inodes there are, the root's too."""
    return 1 + round(sum(1 / int(str(facts[1])) for facts in described.values()))


MATRIX = {
    "plain": (),
    "lz4hc 64K": ("-zlz4hc,12", "-C65536"),
    "legacy": ("-zlz4", "-Elegacy-compress"),
    "fragments": ("-zlz4hc", "-C65536", "-Efragments,ztailpacking"),
    "dedupe": ("-zlz4hc", "-Ededupe"),
    "chunk indexes": ("--chunksize=16384", "-Eforce-chunk-indexes"),
    "no inline data": ("-Enoinline_data",),
}


def check_newer(image: Path, expected: Description, folder: Path) -> None:
    """Compare what the newest fsck.erofs unpacks from ``image`` into ``folder`` with what is expected."""
    run([*find_program("fsck.erofs"), f"--extract={folder}", str(image)])
    assert comparable(describe_tree(folder)) == comparable(expected)
    facts = " ".join(run([*find_program("dump.erofs"), "-s", str(image)]).decode().split())
    without_names = sum(f"Filesystem {use} nid:" in facts for use in ("packed", "metabox"))
    assert f"inode count: {count_inodes(expected) + without_names} " in facts


@pytest.mark.parametrize("name", MATRIX)
def test_an_edit_is_read_by_all(name: str, tree: Path, site: Path, tmp_path: Path) -> None:
    tools.require("fsck.erofs", "dump.erofs")
    image, out = make_erofs(tree, tmp_path / "in.erofs", *MATRIX[name]), tmp_path / "out.erofs"
    result = cosremaster.remaster(image, out, add=[site], remove=["/usr/share", "/etc/text-3"])
    assert result.layer == "in.erofs"
    expected = expect(describe_tree(tree), site)
    with mounted(out, tmp_path / "mounted", "erofs") as folder:
        assert describe_tree(folder) == expected
    assert describe_image(out) == expected
    run(["fsck.erofs", f"--extract={tmp_path / 'extracted'}", str(out)])
    extracted = describe_tree(tmp_path / "extracted")
    assert comparable(extracted) == comparable(expected)
    facts = run(["dump.erofs", "-s", str(out)]).decode()
    assert f"inode count: {count_inodes(expected)} " in " ".join(facts.split())
    assert cosremaster.verify(out, deep=True).ok
    again = tmp_path / "again.erofs"
    cosremaster.remaster(image, again, add=[site], remove=["/usr/share", "/etc/text-3"])
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("name", [name for name in NEWER if name != "metabox-48bit"])
def test_an_edit_of_an_image_of_newer_tools(
    name: str, tree: Path, newer_images: Path, site: Path, tmp_path: Path
) -> None:  # fmt: skip
    """Kernels that know them read them too: those of 6.18 did."""
    image, out = newer_images / f"{name}.erofs", tmp_path / "out.erofs"
    expected = expect(describe_image(image), site)
    cosremaster.remaster(image, out, add=[site], remove=["/usr/share", "/etc/text-3"])
    assert describe_image(out) == expected
    check_newer(out, expected, tmp_path / "extracted")
    assert cosremaster.verify(out, deep=True).ok
    old, new = image.read_bytes(), out.read_bytes()
    changed = [at for at in range(0, len(old), 16) if old[at : at + 16] != new[at : at + 16]]
    assert len(changed) <= 40, "of old bytes only inodes of changed directories and the superblock change"


def test_an_edit_of_compressed_metadata(tree: Path, newer_images: Path, site: Path, tmp_path: Path) -> None:
    image, out = newer_images / "metabox-48bit.erofs", tmp_path / "out.erofs"
    with pytest.raises(UnsupportedError, match="compressed metadata, where a file cannot lose one of its names"):
        cosremaster.remaster(image, out, remove=["/etc/text-3"])
    assert not out.exists()
    cosremaster.remaster(image, out, add=[f"{site}/etc:/etc"], remove=["/usr/share"])
    expected = {path: facts for path, facts in describe_image(image).items() if not path.startswith("usr/share")}
    expected["etc/hostname"] = describe_tree(site)["etc/hostname"]
    assert describe_image(out) == expected
    check_newer(out, expected, tmp_path / "extracted")


def test_the_proof_claims_no_entries_that_were_not_read(tmp_path: Path) -> None:
    """The superblock says how many there are; only the root directory was read."""
    image = make_erofs(write_tree(tmp_path / "root", {"etc/a": "1"}), tmp_path / "root.erofs")
    (proof, *_) = cosremaster.remaster(image, tmp_path / "out.erofs", add=[f"{image}:/new"]).proof
    assert proof == "the superblock and the root directory of the new erofs file system read"


def open_image(image: Path) -> ErofsTree:
    return ErofsTree(PieceTable([Literal(image.read_bytes())]), Place((image.name,)))


def check_parents(image: Path) -> None:
    """Check that each directory names itself and its parent."""
    opened = open_image(image)
    numbers = {b"": opened.filesystem.root.nid}
    for path in opened:
        entry = opened.entry(path)
        assert entry is not None
        numbers[path] = entry.nid
    for path in (path for path in [b"", *opened] if opened.directory(path) is not None):
        inode = opened.directory_inode(path)
        assert inode is not None
        own = {entry.name: entry.nid for entry in opened.filesystem.full_listing(inode) if entry.name in (b".", b"..")}
        assert own == {b".": numbers[path], b"..": numbers[path.rpartition(b"/")[0]]}


@pytest.mark.parametrize("form", ["compact", "extended"])
def test_directories_get_other_attributes(form: str, tmp_path: Path) -> None:
    """Compact inodes have no room for a time of their own, and none for more attributes."""
    files = {"etc/hostname": "old\n", "etc/deep/er/file": "x\n", "usr/bin/true": "true\n"}
    root = write_tree(tmp_path / "root", files)
    image = make_erofs(root, tmp_path / "in.erofs", "-T1700000000", f"-Eforce-inode-{form}")
    xattrs = ((b"user.note", b"new"),) if form == "compact" else ()
    nodes = [
        Node(path=path, kind=NodeKind.DIRECTORY, mode=mode, uid=70_000, gid=7, mtime=EPOCH + 7, xattrs=xattrs)
        for path, mode in ((b"", 0o711), (b"etc", 0o700))
    ]
    edits = Edits(frozenset({b"etc"}), tuple((node, Action.REPLACED) for node in nodes), (), (), ())
    out = tmp_path / "out.erofs"
    out.write_bytes(apply_edits(open_image(image), edits, Place(("in.erofs",))).read())
    with mounted(out, tmp_path / "mounted", "erofs") as folder:
        described, status = describe_tree(folder), folder.stat()
    assert described == describe_image(out)
    wanted = (70_000, 7, (EPOCH + 7) * 10**9)
    assert (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns) == (0o40711, *wanted)
    assert described["etc"] == (0o40700, 1, *wanted, (0, 0), xattrs, None)
    assert set(described) == set(describe_tree(root))
    check_parents(out)
    run(["fsck.erofs", str(out)])


def test_a_root_without_room_is_refused(tmp_path: Path) -> None:
    """A new inode for it has to stand before the superblock, where a boot loader may be."""
    image = make_erofs(
        write_tree(tmp_path / "root", {"etc/a": "a\n"}), tmp_path / "in.erofs", "-Eforce-inode-compact", "-T1"
    )
    image.write_bytes(b"boot" + image.read_bytes()[4:])
    root = Node(path=b"", kind=NodeKind.DIRECTORY, mode=0o755, mtime=EPOCH)
    edits = Edits(frozenset(), ((root, Action.REPLACED),), (), (), ())
    with pytest.raises(UnsupportedError, match="root directory has no room for"):
        apply_edits(open_image(image), edits, Place(("in.erofs",)))


@pytest.mark.parametrize("kind", ["erofs", "squashfs"])
def test_a_compressed_file_system_is_edited(kind: str, tmp_path: Path) -> None:
    """Its proof keeps none of the plain bytes that it reads."""
    tools.require("mksquashfs", "gzip")
    root, plain = write_tree(tmp_path / "root", {"etc/hostname": "old\n"}), tmp_path / f"in.{kind}"
    if kind == "erofs":
        make_erofs(root, plain)
    else:
        run(["mksquashfs", str(root), str(plain), "-quiet", "-no-progress"])
    packed = tmp_path / f"in.{kind}.gz"
    packed.write_bytes(run(["gzip", "-c", str(plain)]))
    site = write_tree(tmp_path / "site", {"etc/site": "7\n"})
    cosremaster.remaster(packed, tmp_path / "out.gz", add=[site])
    cosremaster.remaster(plain, tmp_path / "out", add=[site])
    assert run(["gzip", "-dc", str(tmp_path / "out.gz")]) == (tmp_path / "out").read_bytes()


def test_ten_edits_one_upon_the_other(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"etc/hostname": "old\n", "usr/text": write_text(20_000).decode()})
    image, out = make_erofs(root, tmp_path / "a.erofs", "-zlz4hc"), tmp_path / "b.erofs"
    for number in range(10):
        site = write_tree(tmp_path / f"site{number}", {"etc/hostname": f"host-{number}\n", f"opt/{number}": "x\n"})
        cosremaster.remaster(image, out, add=[site], force=True, remember=False)
        out.rename(image)
    run(["fsck.erofs", f"--extract={tmp_path / 'extracted'}", str(image)])
    assert (tmp_path / "extracted/etc/hostname").read_text() == "host-9\n"
    assert sorted(path.name for path in (tmp_path / "extracted/opt").iterdir()) == [str(number) for number in range(10)]
    check_parents(image)


@pytest.mark.parametrize("count", [63, 64])
def test_fsck_reads_the_last_inode_of_a_full_block(count: int, tmp_path: Path) -> None:
    """It looks for attributes behind each inode: 64 of 64 bytes fill a block, and no byte would follow the last."""
    tools.require("fsck.erofs")
    image = make_erofs(write_tree(tmp_path / "root", {"etc/hostname": "old\n"}), tmp_path / "in.erofs")
    site, out = tmp_path / "site", tmp_path / "out.erofs"
    for number in range(count):
        (site / f"folder{number}").mkdir(parents=True)
    cosremaster.remaster(image, out, add=[site])
    run(["fsck.erofs", str(out)])


def test_what_stays_is_told(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"etc/hostname": "old\n", "etc/secret": "secret\n", "etc/empty": ""})
    os.setxattr(root / "etc/hostname", "user.note", b"x")
    image = make_erofs(root, tmp_path / "in.erofs")
    site = write_tree(tmp_path / "site", {"etc/hostname": "new\n"})
    result = cosremaster.remaster(image, tmp_path / "out.erofs", add=[site], remove=["/etc/secret", "/etc/empty"])
    stays, attributes = result.warnings
    assert "the old data of etc/hostname and 1 more, 11 B, stay in the EROFS file" in stays
    assert "etc/hostname had extended attributes" in attributes


def test_a_repack_is_refused_with_what_stays(tmp_path: Path) -> None:
    """Who asks for it wants removed bytes gone: the refusal does not say that they are."""
    image = make_erofs(write_tree(tmp_path / "root", {"etc/secret": "secret\n"}), tmp_path / "in.erofs")
    with pytest.raises(UsageError, match=r"in\.erofs is erofs, where they stay too; an output called NAME\.tar\.gz is"):
        cosremaster.remaster(image, tmp_path / "out.erofs", remove=["/etc/secret"], repack=True)
    result = cosremaster.remaster(image, tmp_path / "out.tar.gz", remove=["/etc/secret"])
    assert not result.warnings


def test_whiteouts_are_devices(tmp_path: Path) -> None:
    image = make_erofs(write_tree(tmp_path / "root", {"etc/hostname": "old\n"}), tmp_path / "in.erofs")
    archive, out = tmp_path / "site.tar", tmp_path / "out.erofs"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("dev/disk")
        info.type, info.devmajor, info.devminor, info.mode, info.mtime = tarfile.BLKTYPE, 259, 70_000, 0o600, EPOCH
        tar.addfile(info)
    cosremaster.remaster(image, out, add=[str(archive)])
    with mounted(out, tmp_path / "mounted", "erofs") as folder:
        assert describe_tree(folder)["dev/disk"][5] == (259, 70_000)
    assert describe_image(out)["dev/disk"][5] == (259, 70_000)


@pytest.mark.parametrize(
    ("tail", "sentence"),
    [
        (b"verity\0\0" + bytes(4088), "hashes of dm-verity follow it"),
        (b"x" * 4096, "4,096 bytes that are no part of it follow it"),
    ],
    ids=["verity", "other"],
)  # fmt: skip
def test_what_follows_the_file_system_is_refused(tail: bytes, sentence: str, tmp_path: Path) -> None:
    image = make_erofs(write_tree(tmp_path / "root", {"etc/hostname": "old\n"}), tmp_path / "in.erofs")
    image.write_bytes(image.read_bytes() + tail)
    site, out = write_tree(tmp_path / "site", {"etc/site": "7\n"}), tmp_path / "out.erofs"
    with pytest.raises(UnsupportedError, match=sentence):
        cosremaster.remaster(image, out, add=[site])
    assert not out.exists()
    assert cosremaster.read(f"{image}::etc/hostname") == b"old\n"


def test_zeros_that_follow_go(tmp_path: Path) -> None:
    image = make_erofs(write_tree(tmp_path / "root", {"etc/hostname": "old\n"}), tmp_path / "in.erofs")
    image.write_bytes(image.read_bytes() + bytes(50_000))
    site, out = write_tree(tmp_path / "site", {"etc/site": "7\n"}), tmp_path / "out.erofs"
    cosremaster.remaster(image, out, add=[site])
    (blocks,) = struct.unpack_from("<I", out.read_bytes(), 1024 + 36)
    assert out.stat().st_size == blocks * 4096
    run(["fsck.erofs", str(out)])


def test_what_no_inode_holds_is_refused(tmp_path: Path) -> None:
    image = make_erofs(write_tree(tmp_path / "root", {"etc/hostname": "old\n"}), tmp_path / "in.erofs")
    archive = tmp_path / "site.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("n" * 256)
        info.size = 4
        tar.addfile(info, BytesIO(b"new\n"))
    with pytest.raises(OverlayError, match="name is longer than 255 bytes"):
        cosremaster.remaster(image, tmp_path / "out.erofs", add=[str(archive)])


def test_more_devices_are_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"etc/text": write_text(50_000).decode()})
    try:
        image = make_erofs(root, tmp_path / "in.erofs", "--chunksize=4096", f"--blobdev={tmp_path / 'blob'}")
    except AssertionError as error:  # that of 1.8.6 makes none
        tools.leave_out(f"This mkfs.erofs makes no image with another device: {error}")
    with pytest.raises(UnsupportedError, match="data are on 1 more device "):
        cosremaster.read(f"{image}::etc/text")
    for options in ([], ["--deep"]):
        assert main(["verify", str(image), *options]) == 5
    with pytest.raises(UnsupportedError, match="data are on 1 more device "):
        cosremaster.verify(image)
