"""Squashfs roots, made by mksquashfs, gensquashfs and tar2sqfs; unsquashfs, sqfs2tar, 7-Zip and the kernel judge."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import CosremasterError, OverlayError, SizeError, UnsupportedError
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.mounted_trees import Description, mounted, on_disk

EPOCH = 1_700_000_000


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything that squashfs has a form for."""
    tools.require("mksquashfs", "unsquashfs")
    root = tmp_path_factory.mktemp("squashfs") / "root"
    files = {"etc/hostname": "old\n", "etc/group": "root:x:0:\n", "sbin/init": "#!/bin/sh\n", "usr/share/doc/a": "a\n"}
    write_tree(root, files | {f"many/a-rather-long-name-{number}": f"{number}\n" for number in range(700)})
    noise = hashlib.shake_256(b"noise").digest(400_000)
    (root / "usr/noise").write_bytes(noise)
    (root / "usr/text").write_bytes(b"".join(b"%d\n" % number for number in range(60_000)))
    os.truncate(root / "etc/group", 300_000)  # sparse
    os.link(root / "usr/text", root / "usr/text-2")
    os.link(root / "usr/text", root / "etc/text-3")
    os.symlink("../usr/text", root / "etc/link")
    os.mkfifo(root / "usr/fifo")
    os.close(os.open(os.fsencode(root) + b"/etc/n\xffame", os.O_CREAT | os.O_WRONLY))
    (root / "usr/empty").mkdir()
    for path in [root, *root.rglob("*")]:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return root


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_tree(
        tmp_path_factory.mktemp("site") / "site",
        {"etc/hostname": "new\n", "opt/site/deep/file": "deep\n"}
        | {f"opt/f{number}": "x" * number for number in range(300)},
    )
    (root / "opt/noise").write_bytes(hashlib.shake_256(b"site").digest(300_000))
    (root / "opt/text").write_bytes(b"".join(b"%d\n" % number for number in range(50_000)))
    (root / "opt/hole").write_bytes(b"")
    os.truncate(root / "opt/hole", 500_000)
    os.symlink("deep", root / "opt/site/link")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return root


def make(tree: Path, target: Path, *options: str) -> Path:
    run(["mksquashfs", str(tree), str(target), "-quiet", "-no-progress", *options])
    return target


def unpacked(image: Path, folder: Path) -> Description:
    """The tree that unsquashfs unpacks."""
    run(["unsquashfs", "-quiet", "-no-progress", "-f", "-d", str(folder), str(image)])
    return on_disk(folder)


def expected(before: Description, site: Path) -> Description:
    """The tree ``before`` with ``site`` over it, without usr/share, and with a link less to usr/text."""
    after = {name: entry for name, entry in before.items() if not name.startswith("usr/share") and name != "etc/text-3"}
    for name in ("usr/text", "usr/text-2"):
        mode, links, *rest = after[name]
        after[name] = (mode, int(str(links)) - 1, *rest)
    new = on_disk(site)
    after |= {name: entry for name, entry in new.items() if name not in before or name == "etc/hostname"}
    return after


MATRIX = {
    "gzip": ("-comp", "gzip"),
    "gzip 4K": ("-comp", "gzip", "-b", "4096"),
    "gzip level 1": ("-comp", "gzip", "-Xcompression-level", "1"),
    "xz": ("-comp", "xz"),
    "xz 1M": ("-comp", "xz", "-b", "1M"),
    "xz x86": ("-comp", "xz", "-Xbcj", "x86"),
    "xz dictionary": ("-comp", "xz", "-b", "1M", "-Xdict-size", "32K"),
    "zstd": ("-comp", "zstd"),
    "zstd 1M": ("-comp", "zstd", "-b", "1M", "-Xcompression-level", "19"),
    "lz4": ("-comp", "lz4"),
    "lz4 high": ("-comp", "lz4", "-Xhc"),
    "lzo": ("-comp", "lzo"),
    "stored": ("-noI", "-noD", "-noF", "-noX"),
    "stored inodes": ("-noI", "-comp", "xz"),
    "stored ids": ("-noId", "-comp", "zstd"),
    "no fragments": ("-no-fragments",),
    "always fragments": ("-always-use-fragments",),
    "not exportable": ("-no-exports",),
    "no xattrs": ("-no-xattrs",),
    "no duplicates": ("-no-duplicates",),
}


@pytest.mark.parametrize("name", MATRIX)
def test_an_edit_is_read_by_all(name: str, tree: Path, site: Path, tmp_path: Path) -> None:
    tools.require("sqfs2tar", "rdsquashfs")
    image, out = make(tree, tmp_path / "in.sqfs", *MATRIX[name]), tmp_path / "out.sqfs"
    result = cosremaster.remaster(image, out, add=[site], remove=["/usr/share", "/etc/text-3"])
    assert result.layer == "in.sqfs"
    before, want = image.read_bytes(), expected(unpacked(image, tmp_path / "before"), site)
    assert unpacked(out, tmp_path / "after") == want
    inode_table = struct.unpack_from("<Q", before, 64)[0]
    assert out.read_bytes()[96:inode_table] == before[96:inode_table], "old data stay as they are"
    assert out.stat().st_size % 4096 == 0
    with tarfile.open(fileobj=BytesIO(run(["sqfs2tar", str(out)]))) as archive:
        names = {member.name.rstrip("/") for member in archive}
    assert names == {name for name in want if name != "."}
    run(["rdsquashfs", "-d", str(out)])
    for checked in (image, out):
        assert [
            finding.message for finding in cosremaster.verify(checked, deep=True).findings if finding.is_counted
        ] == []
    again = tmp_path / "again.sqfs"
    cosremaster.remaster(image, again, add=[site], remove=["/usr/share", "/etc/text-3"])
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("name", ["gzip", "xz", "xz 1M", "xz dictionary", "zstd 1M", "lz4 high", "lzo", "stored"])
def test_the_kernel_mounts_an_edit(name: str, tree: Path, site: Path, tmp_path: Path) -> None:
    image, out = make(tree, tmp_path / "in.sqfs", *MATRIX[name]), tmp_path / "out.sqfs"
    with mounted(image, tmp_path / "old") as folder:
        before = on_disk(folder)
    cosremaster.remaster(image, out, add=[site], remove=["/usr/share", "/etc/text-3"])
    with mounted(out, tmp_path / "new") as folder:
        assert on_disk(folder) == expected(before, site)


def test_images_of_other_makers(tree: Path, site: Path, tmp_path: Path) -> None:
    tools.require("tar2sqfs", "gensquashfs")
    plain = run(["tar", "-C", str(tree), "-cf", "-", "."])
    made = {"tar2sqfs": tmp_path / "tar.sqfs", "gensquashfs": tmp_path / "gen.sqfs"}
    run(["tar2sqfs", "-q", str(made["tar2sqfs"])], stdin=plain)
    run(["gensquashfs", "-q", "--pack-dir", str(tree), str(made["gensquashfs"])])
    for maker, image in made.items():
        out = tmp_path / f"{maker}.out"
        cosremaster.remaster(image, out, add=[site], remove=["/usr/share"])
        files = unpacked(out, tmp_path / maker)
        assert files["etc/hostname"][4] == hashlib.sha256(b"new\n").hexdigest()
        assert "usr/share" not in files
        assert {name for name in files if name.startswith("many/")} == {
            name for name in on_disk(tree) if name.startswith("many/")
        }


def test_an_output_beside_what_is_added_is_no_part_of_it(tree: Path, site: Path, tmp_path: Path) -> None:
    """The copy of the input begins early, under a name in the folder of the output."""
    image, overlay = make(tree, tmp_path / "in.sqfs"), tmp_path / "overlay"
    run(["cp", "-a", site, overlay])
    cosremaster.remaster(image, overlay / "out.sqfs", add=[overlay])
    names = set(unpacked(overlay / "out.sqfs", tmp_path / "unpacked"))
    assert names == {*unpacked(image, tmp_path / "before"), *on_disk(site)}


def test_blocks_of_zeros_of_a_file_without_holes_are_sound(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {f"etc/{size}": "\0" * size for size in (100, 4096, 8192)})
    image = make(root, tmp_path / "in.sqfs", "-b", "4096")
    assert cosremaster.verify(image, deep=True).ok


def test_fifty_edits_one_upon_the_other(tree: Path, tmp_path: Path) -> None:
    image, out = make(tree, tmp_path / "a.sqfs", "-comp", "zstd"), tmp_path / "b.sqfs"
    for number in range(50):
        site = write_tree(tmp_path / f"site{number}", {"etc/hostname": f"host-{number}\n", f"opt/{number}": "x\n"})
        cosremaster.remaster(image, out, add=[site], force=True, remember=False)
        out.rename(image)
    files = unpacked(image, tmp_path / "after")
    assert files["etc/hostname"][4] == hashlib.sha256(b"host-49\n").hexdigest()
    assert sum(name.startswith("opt/") for name in files) == 50
    inodes, _, _, fragments = struct.unpack_from("<IIII", image.read_bytes(), 4)
    assert fragments <= inodes
    tools.require("7z")
    run(["7z", "t", str(image)])


def test_mksquashfs_appends_to_an_edit(tree: Path, site: Path, tmp_path: Path) -> None:
    image, out = make(tree, tmp_path / "in.sqfs"), tmp_path / "out.sqfs"
    cosremaster.remaster(image, out, add=[site])
    more = write_tree(tmp_path / "more", {"later": "later\n"})
    run(["mksquashfs", str(more), str(out), "-quiet", "-no-progress"])
    files = unpacked(out, tmp_path / "after")
    assert {"later", "opt/f7", "etc/link"} <= files.keys()


@pytest.mark.parametrize("value", [b"8 bytes.", b"of more than eight bytes" * 20], ids=["short", "long"])
def test_mksquashfs_appends_where_new_attributes_have_an_old_value(value: bytes, tmp_path: Path) -> None:
    root, more = write_tree(tmp_path / "root", {"old": "old"}), write_tree(tmp_path / "more", {"later": "later"})
    image, out = tmp_path / "in.sqfs", tmp_path / "out.sqfs"
    os.setxattr(root / "old", "user.first", value)
    run(["mksquashfs", str(root), str(image), "-quiet", "-no-progress", "-xattrs"])
    for number in range(2):  # of the image, and of an edit
        site = write_tree(tmp_path / f"site{number}", {f"new{number}": "new"})
        os.setxattr(site / f"new{number}", f"user.other{number}", value)
        cosremaster.remaster(image, out, add=[site])
        out.replace(image)
    run(["mksquashfs", str(more), str(image), "-quiet", "-no-progress"])
    folder = tmp_path / "unpacked"
    run(["unsquashfs", "-quiet", "-no-progress", "-xattrs", "-d", str(folder), str(image)])
    assert (folder / "later").is_file()
    for name, attribute in (("old", "user.first"), ("new0", "user.other0"), ("new1", "user.other1")):
        assert os.getxattr(folder / name, attribute) == value


def test_every_command_looks_inside(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = make(tree, tmp_path / "in.sqfs", "-comp", "xz")
    assert main(["cat", f"{image}::etc/hostname"]) == 0
    assert capsys.readouterr().out == "old\n"
    assert main(["ls", "-l", f"{image}::etc"]) == 0
    assert "link -> ../usr/text" in capsys.readouterr().out
    assert main(["find", str(image), "**/a-rather-long-name-77"]) == 0
    assert capsys.readouterr().out.strip().endswith("many/a-rather-long-name-77")
    assert main(["extract", str(image), str(tmp_path / "out"), "--quiet"]) == 0
    ours, theirs = on_disk(tmp_path / "out"), on_disk(tree)
    assert {name: entry[4] for name, entry in ours.items()} == {name: entry[4] for name, entry in theirs.items()}


def test_an_iso_and_an_initramfs_hold_squashfs(tree: Path, site: Path, tmp_path: Path) -> None:
    tools.require("genisoimage", "bsdtar", "cpio")
    disc = tmp_path / "disc"
    (disc / "live").mkdir(parents=True)
    make(tree, disc / "live/filesystem.squashfs", "-comp", "xz")
    inner = write_tree(tmp_path / "initramfs", {"init": "#!/bin/sh\n", "etc/x": "x\n"})
    make(tree, inner / "root.squashfs")
    names = b"init\netc\netc/x\nroot.squashfs\n"
    packed = run(["cpio", "-o", "-H", "newc", "--quiet"], stdin=names, cwd=inner)
    (disc / "initrd.gz").write_bytes(run(["gzip", "-9n"], stdin=packed))
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-R", "-J", "-o", str(iso), str(disc)])
    for layer, member in (("live/filesystem.squashfs", None), ("initrd.gz::root.squashfs", "root.squashfs")):
        result = cosremaster.remaster(iso, out, add=[site], layer=layer, force=True)
        assert result.layer == layer
        data = run(["bsdtar", "-xOf", str(out), layer.split("::")[0]])
        if member is not None:
            plain = run(["gzip", "-dc"], stdin=data)
            data = run(["bsdtar", "-xOf", "-", member], stdin=plain)
        (tmp_path / "root.sqfs").write_bytes(data)
        assert run(["unsquashfs", "-cat", str(tmp_path / "root.sqfs"), "etc/hostname"]) == b"new\n"


def test_dead_bytes_and_lost_attributes_are_told(tmp_path: Path) -> None:
    tools.require("mksquashfs", "setfattr")
    root = write_tree(tmp_path / "root", {"etc/a": "a" * 9000, "etc/b": "b\n", "sbin/init": "i\n"})
    run(["setfattr", "-n", "user.note", "-v", "kept", str(root / "etc/b")])
    run(["setfattr", "-n", "user.note", "-v", "kept", str(root / "etc")])
    image, out = make(root, tmp_path / "in.sqfs"), tmp_path / "out.sqfs"
    site = write_tree(tmp_path / "site", {"etc/b": "new\n"})
    result = cosremaster.remaster(image, out, add=[site], remove=["/etc/a"])
    (dead, bare) = result.warnings
    assert "etc/a and 1 more" in dead
    assert "can still be read" in dead
    assert "etc/b had extended attributes" in bare
    run(["unsquashfs", "-quiet", "-no-progress", "-f", "-d", str(tmp_path / "after"), str(out)])
    assert os.getxattr(tmp_path / "after/etc", "user.note") == b"kept"


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (28, struct.pack("<HH", 4, 1), "is squashfs 4.1, and only 4.0 can be read"),
        (20, struct.pack("<H", 2), "under lzma, which no kernel reads"),
        (20, struct.pack("<H", 9), "names compression 9"),
        (12, struct.pack("<I", 4097), "has blocks of 4,097 bytes"),
        (40, struct.pack("<Q", 1 << 40), "is cut off"),
        (64, struct.pack("<Q", 1 << 50), "has its tables in another order"),
        (32, struct.pack("<Q", 1 << 40), "leads out of the squashfs inode table"),
        (0, b"HSQS", "a streamed squashfs file system"),
    ],
)
def test_faults_are_told(
    offset: int, data: bytes, message: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = make(tree, tmp_path / "in.sqfs"), tmp_path / "out.sqfs"
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    (tmp_path / "x").write_text("x")
    assert main([str(image), str(out), "--add", f"{tmp_path}/x:/x"]) in (3, 4, 5)
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_cut_and_changed_images_end_in_a_sentence(tree: Path, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"etc/hostname": "x\n", "sbin/init": "i\n", "d/e/f": "f" * 5000})
    data = make(root, tmp_path / "in.sqfs", "-comp", "xz").read_bytes()
    used = struct.unpack_from("<Q", data, 40)[0]
    bad = tmp_path / "bad.sqfs"
    (tmp_path / "y").write_text("y")
    outcomes = set()
    for number in range(120):
        changed = bytearray(data)
        at = number * used // 120
        changed[at] ^= 0x41
        bad.write_bytes(changed if number % 2 else data[: max(at, 96)])
        try:
            with cosremaster.open(bad, remember=False) as image:
                for entry in image.walk():
                    if entry.type == "file":
                        image.read(entry.address.partition("::")[2])
                image.remaster(tmp_path / "out.sqfs", cosremaster.Request(add=[f"{tmp_path}/y:/y"]), force=True)
            outcomes.add("read")
        except CosremasterError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_what_squashfs_cannot_hold(tree: Path, tmp_path: Path) -> None:
    image = make(tree, tmp_path / "in.sqfs")
    listing = tmp_path / "devices.mtree"
    listing.write_text("#mtree\n./dev type=dir mode=0755\n./dev/x type=char device=linux,5000,1 mode=0600\n")
    (tmp_path / "site").mkdir()
    with pytest.raises(OverlayError, match="device 5000:1 does not fit"):
        cosremaster.remaster(image, tmp_path / "out.sqfs", add=[cosremaster.AddPath(tmp_path / "site", mtree=listing)])


def test_files_that_tell_of_the_old_bytes(tmp_path: Path) -> None:
    tools.require("genisoimage", "isoinfo", "mksquashfs")
    root = write_tree(tmp_path / "root", {"etc/hostname": "x\n", "sbin/init": "i\n"})
    disc = write_tree(tmp_path / "disc", {"live/filesystem.size": "8192\n", "live/filesystem.squashfs.gpg": "signed\n"})
    make(root, disc / "live/filesystem.squashfs")
    site = write_tree(tmp_path / "site", {"etc/site": "7\n"})
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-R", "-o", str(iso), str(disc)])
    (signature,) = cosremaster.remaster(iso, out, add=[site]).warnings
    assert "live/filesystem.squashfs.gpg signs the old bytes of live/filesystem.squashfs" in signature
    assert run(["isoinfo", "-R", "-i", str(out), "-x", "/live/filesystem.size"]) == b"12288\n"
    write_tree(disc, {"live/filesystem.squashfs.verity": "tree\n", "live/filesystem.squashfs.roothash": "hash\n"})
    run(["genisoimage", "-quiet", "-R", "-o", str(iso), str(disc)])
    for request in ({"add": [site]}, {"add_iso": [f"{site}/etc/site:/live/filesystem.squashfs"]}):
        with pytest.raises(UnsupportedError, match=r"dm-verity.*--remove-iso /live/filesystem\.squashfs\.roothash"):
            cosremaster.remaster(iso, tmp_path / "none.iso", **request)
    assert not (tmp_path / "none.iso").exists()
    without = ["/live/filesystem.squashfs.verity", "/live/filesystem.squashfs.roothash"]
    assert cosremaster.remaster(iso, out, add=[site], remove_iso=without, force=True).added == (b"etc/site",)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A casper-like ISO of three layers, the middle one with a whiteout and an opaque directory."""
    tools.require("genisoimage", "mksquashfs", "setfattr")
    if os.geteuid() != 0:
        tools.leave_out("This test makes device nodes and trusted attributes, which needs root.")
    base = write_tree(
        tmp_path / "base",
        {"usr/bin/tool": "base\n", "usr/share/doc/a": "a\n", "usr/share/old/x": "x\n", "etc/host": "base\n",
         "srv/x": "x\n", "root/keep": "k\n", "etc/gone": "g\n", "sbin/init": "i\n"},
    )  # fmt: skip
    os.symlink("usr/bin", base / "bin")
    (base / "root").chmod(0o700)
    middle = write_tree(tmp_path / "middle", {"usr/share/old/y": "y\n", "etc/middle": "m\n"})
    os.mknod(middle / "srv", stat.S_IFCHR, 0)
    run(["setfattr", "-n", "trusted.overlay.opaque", "-v", "y", str(middle / "usr/share/old")])
    top = write_tree(tmp_path / "top", {"etc/host": "live\n"})
    disc = tmp_path / "disc/casper"
    disc.mkdir(parents=True)
    for name, tree in (("minimal", base), ("minimal.standard", middle), ("minimal.standard.live", top)):
        make(tree, disc / f"{name}.squashfs")
    run(["genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-o", str(tmp_path / "in.iso"), str(tmp_path / "disc")])
    return tmp_path / "in.iso"


LAYERS = ("minimal", "minimal.standard", "minimal.standard.live")


@contextmanager
def overlaid(iso: Path, folder: Path) -> Iterator[Path]:
    """The stack of an ISO as the kernel's overlayfs shows it."""
    tools.require("bsdtar")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        tools.leave_out("This test needs a kernel with overlayfs.")
    folder.mkdir()
    run(["bsdtar", "-xf", str(iso), "-C", str(folder)])
    images = [folder / "casper" / f"{name}.squashfs" for name in LAYERS]
    with (
        mounted(images[0], folder / "0") as low,
        mounted(images[1], folder / "1") as middle,
        mounted(images[2], folder / "2") as top,
    ):
        (folder / "all").mkdir()
        options = f"lowerdir={top}:{middle}:{low}"
        run(["mount", "-t", "overlay", "overlay", "-o", options, str(folder / "all")])
        try:
            yield folder / "all"
        finally:
            run(["umount", str(folder / "all")])


def test_a_layer_in_the_middle_of_a_stack(stack: Path, tmp_path: Path) -> None:
    files = {"bin/new": "new\n", "root/site": "s\n", "etc/host": "site\n", "usr/share/doc/b": "b\n"}
    out, site = tmp_path / "out.iso", write_tree(tmp_path / "site", files)
    layer = "casper/minimal.standard.squashfs"
    result = cosremaster.remaster(
        stack, out, add=[site], layer=layer, remove=["/etc/gone", "/usr/share/doc/a", "/etc/middle"]
    )
    assert result.removed == (b"etc/gone", b"etc/middle", b"usr/share/doc/a")
    (hidden,) = [warning for warning in result.warnings if "stays hidden" in warning]
    assert hidden.startswith("etc/host stays hidden in the running system: casper/minimal.standard.live.squashfs")
    with overlaid(out, tmp_path / "after") as root:
        assert (root / "usr/bin/new").read_text() == "new\n", "the symlink of the lowest layer is followed"
        assert (root / "bin").is_symlink()
        assert stat.S_IMODE((root / "root").stat().st_mode) == 0o700, "a directory keeps its mode"
        assert (root / "root/keep").read_text() == "k\n"
        assert (root / "root/site").read_text() == "s\n"
        assert (root / "etc/host").read_text() == "live\n"
        assert not any((root / path).exists() for path in ("etc/gone", "etc/middle", "usr/share/doc/a", "srv"))
        assert (root / "usr/share/doc/b").read_text() == "b\n"
        assert sorted(path.name for path in (root / "usr/share/old").iterdir()) == ["y"]
    for name in ("minimal", "minimal.standard.live"):
        path = f"casper/{name}.squashfs"
        assert run(["bsdtar", "-xOf", str(out), path]) == run(["bsdtar", "-xOf", str(stack), path])


def test_a_removal_that_a_layer_above_undoes_is_told(stack: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    result = cosremaster.remaster(
        stack, out, layer="casper/minimal.squashfs", remove=["/etc", "/usr/share/old", "/srv"]
    )
    above = [warning for warning in result.warnings if "stays in the running system" in warning]
    assert [warning.partition(",")[0] for warning in above] == [
        "etc: as far as casper/minimal.standard.live.squashfs has it",
        "usr/share/old: as far as casper/minimal.standard.squashfs has it",
    ]
    with overlaid(out, tmp_path / "after") as root:
        assert sorted(path.name for path in (root / "etc").iterdir()) == ["host", "middle"]
        assert sorted(path.name for path in (root / "usr/share/old").iterdir()) == ["y"]
        assert not (root / "srv").exists()


def test_what_a_whiteout_or_an_opaque_directory_hides_is_not_there(stack: Path, tmp_path: Path) -> None:
    layer, out = "casper/minimal.standard.live.squashfs", tmp_path / "out.iso"
    for path in ("/srv/x", "/usr/share/old/x"):
        with pytest.raises(OverlayError, match="cannot be removed: it is not there"):
            cosremaster.remaster(stack, out, layer=layer, remove=[path])
    site = write_tree(tmp_path / "site", {"srv/y": "y\n"})
    with pytest.raises(OverlayError, match="hides the directory of that name"):
        cosremaster.remaster(stack, out, add=[site], layer="casper/minimal.standard.squashfs")
    cosremaster.remaster(stack, out, layer=layer, remove=["/usr/share/old/y"])
    with overlaid(out, tmp_path / "after") as root:
        assert not list((root / "usr/share/old").iterdir())


def test_a_directory_that_hides_those_below_goes_on_hiding(stack: Path, tmp_path: Path) -> None:
    """Added again with another mode it lost the mark of overlayfs, and files of the lowest layer showed again."""
    out, layer = tmp_path / "out.iso", "casper/minimal.standard.squashfs"
    site = write_tree(tmp_path / "site", {"usr/share/old/new": "n\n", "usr/share/new": "n\n"})
    (site / "usr/share/old").chmod(0o700)
    items = [cosremaster.AddPath(site, keep_modes=True)]
    cosremaster.remaster(stack, out, layer=layer, add=items, remove=["/usr/share/old"])
    with overlaid(out, tmp_path / "after") as root:
        assert [path.name for path in (root / "usr/share/old").iterdir()] == ["new"]
        assert stat.S_IMODE((root / "usr/share/old").stat().st_mode) == 0o700


def test_a_directory_in_the_place_of_what_hides_another_is_refused(stack: Path, tmp_path: Path) -> None:
    """A file of the layer hid a directory of a lower one, whose files showed again under the new directory."""
    first, out, layer = tmp_path / "first.iso", tmp_path / "out.iso", "casper/minimal.standard.squashfs"
    file = write_tree(tmp_path / "file", {"usr/share/doc": "now a file\n", "etc/gone": "-> host\n"})
    cosremaster.remaster(stack, first, layer=layer, add=[file], force_type=True)
    site = write_tree(tmp_path / "site", {"usr/share/doc/b": "b\n"})
    for request in ({"remove": ["/usr/share/doc"]}, {"force_type": True}):
        with pytest.raises(OverlayError, match="hides the directory of that name in the layers below it"):
            cosremaster.remaster(first, out, layer=layer, add=[site], **request)
    site = write_tree(tmp_path / "other", {"etc/gone/b": "b\n"})  # what is below is a file, which shows nothing
    cosremaster.remaster(first, out, layer=layer, add=[site], remove=["/etc/gone"])
    with overlaid(out, tmp_path / "after") as root:
        assert [path.name for path in (root / "etc/gone").iterdir()] == ["b"]


def test_a_removal_in_an_opaque_directory_leaves_no_device(stack: Path, tmp_path: Path) -> None:
    """A whiteout stood there for a file that the directory hides anyway; in a directory of one layer it shows."""
    first, out, layer = tmp_path / "first.iso", tmp_path / "out.iso", "casper/minimal.standard.squashfs"
    site = write_tree(tmp_path / "site", {"usr/share/old/x": "other\n"})
    cosremaster.remaster(stack, first, layer=layer, add=[site])
    cosremaster.remaster(first, out, layer=layer, remove=["/usr/share/old/x"])
    with overlaid(out, tmp_path / "after") as root:
        assert os.listdir(root / "usr/share/old") == ["y"]


def test_below_what_hides_a_directory_all_of_it_is_hidden(tmp_path: Path) -> None:
    """In a directory of an opaque one, which has no mark of its own, files of lower layers were there again."""
    tools.require("genisoimage", "mksquashfs", "setfattr", "tar")
    if os.geteuid() != 0:
        tools.leave_out("This test makes device nodes and trusted attributes, which needs root.")
    names = ("opaque", "file", "link", "whiteout")
    files = {f"{name}/sub/low": "low\n" for name in names} | {f"{name}/sub/deep/low": "low\n" for name in names}
    base = write_tree(tmp_path / "base", files | {"sbin/init": "i\n", "etc/host": "h\n"})
    files = {"opaque/sub/middle": "m\n", "file": "f\n", "link": "-> etc", "etc/middle": "m\n"}
    middle = write_tree(tmp_path / "middle", files)
    os.mknod(middle / "whiteout", stat.S_IFCHR, 0)
    run(["setfattr", "-n", "trusted.overlay.opaque", "-v", "y", str(middle / "opaque")])
    top = write_tree(tmp_path / "top", {f"{name}/sub/deep/top": "t\n" for name in names})
    disc, iso, out = tmp_path / "disc/casper", tmp_path / "in.iso", tmp_path / "out.iso"
    disc.mkdir(parents=True)
    for name, tree in zip(LAYERS, (base, middle, top), strict=True):
        make(tree, disc / f"{name}.squashfs")
    run(["genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-o", str(iso), str(tmp_path / "disc")])
    with overlaid(iso, tmp_path / "before") as root:
        shown = {str(path.relative_to(root)) for path in root.rglob("*")}
    cosremaster.remaster(iso, tmp_path / "out.tar")
    assert {name.rstrip("/") for name in run(["tar", "-tf", tmp_path / "out.tar"]).decode().split()} - {"."} == shown
    for name in names:
        for path in ("sub/low", "sub/deep/low"):
            assert f"{name}/{path}" not in shown
            with pytest.raises(OverlayError, match="cannot be removed: it is not there"):
                cosremaster.remaster(iso, out, remove=[f"/{name}/{path}"])
    site = write_tree(tmp_path / "site", {f"{name}/sub/low": "low\n" for name in names})
    cosremaster.remaster(iso, out, add=[site])
    with overlaid(out, tmp_path / "after") as root:
        after = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert after == shown | {f"{name}/sub/low" for name in names}


def test_which_layer_of_a_stack_is_meant(stack: Path, tmp_path: Path) -> None:
    site, out = write_tree(tmp_path / "site", {"etc/site": "s\n"}), tmp_path / "out.iso"
    assert cosremaster.remaster(stack, out, add=[site]).layer == "casper/minimal.standard.live.squashfs"
    sources = "- default: true\n  id: a\n  path: minimal.standard.squashfs\n- id: b\n  path: minimal.squashfs\n"
    (tmp_path / "disc/casper/install-sources.yaml").write_text(sources)
    run(["genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-o", str(stack), str(tmp_path / "disc")])
    result = cosremaster.remaster(stack, out, add=[site], force=True)
    assert result.layer == "casper/minimal.standard.squashfs"


def test_modules_of_live_boot(tree: Path, tmp_path: Path) -> None:
    tools.require("genisoimage", "mksquashfs")
    disc = tmp_path / "disc/live"
    disc.mkdir(parents=True)
    make(tree, disc / "filesystem.squashfs")
    make(write_tree(tmp_path / "module", {"etc/hostname": "module\n"}), disc / "zz-module.squashfs")
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-R", "-o", str(iso), str(tmp_path / "disc")])
    site = write_tree(tmp_path / "site", {"etc/hostname": "site\n"})
    assert cosremaster.remaster(iso, out, add=[site]).layer == "live/zz-module.squashfs"
    result = cosremaster.remaster(iso, out, add=[site], layer="live/filesystem.squashfs", force=True)
    assert [warning for warning in result.warnings if "etc/hostname stays hidden" in warning]
    (disc / "filesystem.module").write_text("zz-module.squashfs filesystem.squashfs\n")
    run(["genisoimage", "-quiet", "-R", "-o", str(iso), str(tmp_path / "disc")])
    assert cosremaster.remaster(iso, out, add=[site], force=True).layer == "live/filesystem.squashfs"


@pytest.mark.parametrize("kind", ["verity", "signature"])
def test_what_follows_in_the_file_is_no_part_of_an_edit(kind: str, tree: Path, site: Path, tmp_path: Path) -> None:
    image, out = make(tree, tmp_path / "root.squashfs"), tmp_path / "out.squashfs"
    if kind == "verity":
        tools.require("/usr/sbin/veritysetup")
        size = str(image.stat().st_size)
        run(["/usr/sbin/veritysetup", "format", f"--hash-offset={size}", image, image])
    else:
        with image.open("ab") as file:
            file.write(b"signature")
    noun = "hashes of dm-verity follow it" if kind == "verity" else "bytes that are no part of it follow it"
    requests = (
        cosremaster.Request(add=[site]), cosremaster.Request(repack=True), cosremaster.Request(repack_metadata=True)
    )  # fmt: skip
    with cosremaster.open(image, remember=False) as opened:
        for request in requests:
            with pytest.raises(UnsupportedError, match=noun):
                opened.remaster(out, request)
            assert not out.exists()
    assert cosremaster.ls(str(image)), "it is looked into"


def test_new_blocks_under_lzo_are_packed(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.require("mksquashfs", "unsquashfs")
    tools.require_module("lzokay")
    image, out = make(tree, tmp_path / "root.squashfs", "-comp", "lzo"), tmp_path / "out.squashfs"
    text = b"".join(b"line %d\n" % number for number in range(60_000))
    cosremaster.remaster(image, out, add=[cosremaster.InlineFile("/text", text)])
    assert run(["unsquashfs", "-cat", str(out), "text"]) == text
    run(["7z", "t", str(out)])
    assert out.stat().st_size < image.stat().st_size + len(text) * 2 // 3
    monkeypatch.delattr("cosremaster.codecs.lzo")
    monkeypatch.delitem(sys.modules, "cosremaster.codecs.lzo")
    monkeypatch.setitem(sys.modules, "lzokay", None)
    with pytest.raises(UnsupportedError, match=r"squashfs under lzo, which needs the extra cosremaster\[lzo\]"):
        cosremaster.ls(str(image))


@pytest.mark.parametrize("is_shared", [True, False])
def test_equal_new_files_are_stored_once(tree: Path, tmp_path: Path, is_shared: bool) -> None:
    tools.require("unsquashfs")
    options = () if is_shared else ("-no-duplicates",)
    image, out, site = make(tree, tmp_path / "root.squashfs", *options), tmp_path / "out.squashfs", tmp_path / "site"
    data = random.Random(1).randbytes(300_000)
    for name in ("a", "b", "c"):
        (site / "new").mkdir(parents=True, exist_ok=True)
        (site / f"new/{name}").write_bytes(data)
        (site / f"new/tail-{name}").write_bytes(data[:700])
    (site / "new/other").write_bytes(data[::-1])
    cosremaster.remaster(image, out, add=[site])
    growth = out.stat().st_size - image.stat().st_size
    assert (growth < 620_000) == is_shared
    folder = tmp_path / "unpacked"
    run(["unsquashfs", "-quiet", "-no-progress", "-d", str(folder), str(out), "new"])
    assert {path.name: path.read_bytes() for path in (folder / "new").iterdir()} == {
        path.name: path.read_bytes() for path in (site / "new").iterdir()
    }
    run(["7z", "t", str(out)])


def test_a_file_above_4_gib_goes_into_squashfs_and_not_into_cpio(tree: Path, tmp_path: Path) -> None:
    tools.require("unsquashfs")
    image, site, out = make(tree, tmp_path / "root.squashfs", "-b", "1M"), tmp_path / "site", tmp_path / "out.squashfs"
    size = (1 << 32) + 5_000_003
    (site / "opt").mkdir(parents=True)
    with (site / "opt/large").open("wb") as file:
        for at in (0, (1 << 32) - 3, size - 5):
            file.seek(at)
            file.write(b"words")
    cosremaster.remaster(image, out, add=[site])
    assert out.stat().st_size < image.stat().st_size + (1 << 20)
    (line,) = [line for line in run(["unsquashfs", "-lln", str(out), "opt/large"]).splitlines() if b"opt/large" in line]
    assert int(line.split()[2]) == size
    with cosremaster.open(out, remember=False) as opened:
        entry = opened.stat("opt/large")
    assert entry.size == size
    digest = hashlib.sha256()
    with subprocess.Popen(["unsquashfs", "-cat", str(out), "opt/large"], stdout=subprocess.PIPE) as unpacked:
        assert unpacked.stdout is not None
        while chunk := unpacked.stdout.read(1 << 20):
            digest.update(chunk)
    assert unpacked.returncode == 0
    assert run(["sha256sum", str(site / "opt/large")]).split()[0].decode() == digest.hexdigest()
    archive = tmp_path / "in.cpio"
    archive.write_bytes(run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, stdin=b"etc\n"))
    with pytest.raises(SizeError, match="opt/large"):
        cosremaster.remaster(archive, tmp_path / "out.cpio", add=[site])
