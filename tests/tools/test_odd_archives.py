"""Archives as they come: without a trailer, with junk behind, in U-Boot's header, with damage inside; others judge."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import zlib
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, directory, initramfs, regular, root_items, symlink
from cosremaster.errors import CorruptError, LayerError
from cosremaster.layers.cpio import newc as cpio
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import pack_tree, unpack, write_tree
from tests.support.small import write_small

FILES = {"init": "#!/bin/sh\n", "bin/busybox": "busybox\n", "etc/motd": "motd\n"}
UNPACKERS = {"plain": ["cat"], "gzip": ["gzip", "-dc"], "xz": ["xz", "-dc"], "zstd": ["zstd", "-dcq"]}
ADDED = {**FILES, "etc/site": "7\n"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "site", {"etc/site": "7\n"})


def _archive(tmp_path: Path) -> bytes:
    return pack_tree(write_tree(tmp_path / "tree", FILES), "plain")


# No trailer


def _without_trailer(archive: bytes) -> bytes:
    return archive[: archive.rindex(b"TRAILER!!!") - cpio.HEADER_SIZE]


@pytest.mark.parametrize("zeros", [0, 4, 300, 5000])
@pytest.mark.parametrize("packer", ["plain", "gzip"])
def test_no_trailer(
    tmp_path: Path, site: Path, zeros: int, packer: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """As u-root's initramfs are; GNU cpio lists all of it, and fails only then. The kernel needs no trailer."""
    plain = _without_trailer(_archive(tmp_path)) + bytes(zeros)
    source, out = tmp_path / "initramfs", tmp_path / "out"
    source.write_bytes(plain if packer == "plain" else gzip.compress(plain, mtime=0))
    assert main(["ls", str(source)]) == 0
    assert capsys.readouterr().out.split() == ["bin", "etc", "init"]
    assert main(["inspect", "--deep", str(source)]) == 0
    assert "has no TRAILER!!! entry" in capsys.readouterr().out
    for _ in range(2):  # the second time the index could have been remembered
        assert main([str(source), str(out), "--force"]) == 0
        assert out.read_bytes() == source.read_bytes()
    result = cosremaster.remaster(source, out, add=[site], force=True)
    assert any("no TRAILER!!!" in warning for warning in result.warnings)
    made = out.read_bytes() if packer == "plain" else gzip.decompress(out.read_bytes())
    assert unpack(made, tmp_path / "unpacked") == ADDED  # cpio would fail without a trailer
    assert made.count(b"TRAILER!!!") == 1
    cosremaster.remaster(source, out, remove=["/etc/motd"], force=True)
    made = out.read_bytes() if packer == "plain" else gzip.decompress(out.read_bytes())
    assert "etc/motd" not in unpack(made, tmp_path / "removed")


def test_another_archive_behind_one_without_trailer(tmp_path: Path, site: Path) -> None:
    later = pack_tree(write_tree(tmp_path / "later", {"lib/x": "x\n"}), "plain")
    (tmp_path / "row").write_bytes(_without_trailer(_archive(tmp_path)) + bytes(8) + later)
    result = cosremaster.remaster(tmp_path / "row", tmp_path / "out", add=[site], layer="#1")
    assert result.layer == "row::#1"
    made = (tmp_path / "out").read_bytes()
    assert unpack(made[: -len(later)], tmp_path / "unpacked") == ADDED
    assert made.endswith(later)


def test_a_cut_in_an_entry_is_damage(tmp_path: Path, site: Path) -> None:
    archive = _archive(tmp_path)
    (tmp_path / "cut").write_bytes(archive[: archive.index(b"busybox\n") + 3])
    with pytest.raises(CorruptError):
        cosremaster.remaster(tmp_path / "cut", tmp_path / "out", add=[site])
    (tmp_path / "zeroed").write_bytes(archive[:-400].replace(b"070701", b"\0" * 6, 3))
    with pytest.raises((CorruptError, cosremaster.ImageError)):
        cosremaster.remaster(tmp_path / "zeroed", tmp_path / "out", add=[site])


# Something behind the last archive


@pytest.mark.parametrize("packer", ["plain", "gzip", "xz", "zstd"])
def test_junk_behind_the_last_archive(
    tmp_path: Path, site: Path, packer: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """The kernel's boot config stands so: its bytes stay, at the end, at a multiple of 4."""
    archive = pack_tree(write_tree(tmp_path / "tree", FILES), packer)
    rest = bytes(-len(archive) % 4) + b"kernel.x = y\n\0\0\0" + bytes((16, 0, 0, 0, 9, 0, 0, 0)) + b"#BOOTCONFIG\n"
    source, out = tmp_path / "initramfs", tmp_path / "out"
    source.write_bytes(archive + rest)
    assert main(["ls", str(source)]) == 0
    assert capsys.readouterr().out.split() == ["bin", "etc", "init"]
    assert main([str(source), str(out)]) == 0
    assert out.read_bytes() == source.read_bytes()
    result = cosremaster.remaster(source, out, add=[site], force=True)
    assert result.layer == "initramfs"
    assert any("bytes that are no archive; they stay" in warning for warning in result.warnings)
    made = out.read_bytes()
    assert made.endswith(rest.lstrip(b"\0"))
    assert (len(made) - len(rest.lstrip(b"\0"))) % 4 == 0
    packed = made[: -len(rest.lstrip(b"\0"))]
    if packer in ("gzip", "zstd"):  # these tools complain of zeros behind a stream
        gap = next(gap for gap in range(4) if _is_stream(UNPACKERS[packer], packed[: len(packed) - gap]))
        packed = packed[: len(packed) - gap]
    assert unpack(run(UNPACKERS[packer], stdin=packed), tmp_path / "unpacked") == ADDED


def _is_stream(unpacker: list[str], packed: bytes) -> bool:
    return subprocess.run(unpacker, input=packed, capture_output=True, check=False).returncode == 0


def test_junk_in_the_stream(tmp_path: Path, site: Path) -> None:
    plain = _archive(tmp_path) + b"junk of somebody"
    (tmp_path / "initramfs").write_bytes(gzip.compress(plain, mtime=0))
    result = cosremaster.remaster(tmp_path / "initramfs", tmp_path / "out", add=[site])
    assert any("16 plain bytes that are no archive" in warning for warning in result.warnings)
    made = gzip.decompress((tmp_path / "out").read_bytes())
    assert made.endswith(b"junk of somebody")
    assert unpack(made, tmp_path / "unpacked") == ADDED


# Damage inside


def _with_files(*files: tuple[bytes, bytes]) -> bytes:
    return gzip.compress(build_archive([*root_items(), *(regular(path, data) for path, data in files)]), mtime=0)


@pytest.mark.parametrize("damaged", ["cut off", "flipped", "cut cpio"])
def test_a_damaged_archive_inside_is_a_plain_file(
    tmp_path: Path, site: Path, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = build_archive([directory(b"bin"), directory(b"etc"), regular(b"etc/x", random.Random(1).randbytes(9000))])
    packed = bytearray(gzip.compress(inner, mtime=0))
    packed[3000] ^= 1
    data = {"cut off": gzip.compress(inner)[:-3000], "flipped": bytes(packed), "cut cpio": inner[:7000]}[damaged]
    source, out = tmp_path / "in.cgz", tmp_path / "out.cgz"
    source.write_bytes(_with_files((b"initramfs.cpio", data)))
    for _ in range(2):
        result = cosremaster.remaster(source, out, add=[site], force=True)
    assert any("holds initramfs.cpio, which begins like an archive and is damaged" in text for text in result.warnings)
    assert cosremaster.read(f"{out}::etc/site") == b"7\n"
    plain = gzip.decompress(out.read_bytes())
    assert run(["cpio", "-i", "--quiet", "--to-stdout", "initramfs.cpio"], stdin=plain) == data
    assert cosremaster.verify(write_small(tmp_path, cgz=source.read_bytes()), deep=True).ok
    assert main([str(source), str(out), "--force", "--add", str(site), "--layer", "in.cgz::initramfs.cpio"]) == 4
    assert "initramfs.cpio" in capsys.readouterr().err
    with pytest.raises(LayerError, match="has no layer"):
        cosremaster.remaster(source, out, add=[site], layer="in.cgz::other.cpio", force=True)


def test_a_damaged_root_is_no_plain_file(tmp_path: Path, site: Path) -> None:
    """What makes up most of an initramfs is what it unpacks: nothing goes around it."""
    packed = bytearray(gzip.compress(build_archive(root_items()), mtime=0))
    packed[len(packed) // 2] ^= 1
    outer = build_archive([directory(b"bin"), regular(b"init", b"#!/bin/sh\n"), regular(b"rootfs.cgz", bytes(packed))])
    source = tmp_path / "live.cgz"
    source.write_bytes(gzip.compress(outer, mtime=0))
    with pytest.raises(CorruptError, match=r"rootfs\.cgz"):
        cosremaster.remaster(source, tmp_path / "out", add=[site])
    cosremaster.remaster(source, tmp_path / "out", add=[site], layer="live.cgz")  # asked for
    assert not cosremaster.verify(write_small(tmp_path, cgz=source.read_bytes()), deep=True).ok


def test_damage_of_the_outer_archive_is_its_own(tmp_path: Path, site: Path) -> None:
    inner = gzip.compress(build_archive([regular(b"x", random.Random(1).randbytes(50_000))]), mtime=0)
    outer = bytearray(_stored(build_archive([*root_items(), regular(b"inner.cgz", inner)])))
    outer[outer.index(inner[20:60]) + 20_000] ^= 1  # found by the outer stream's CRC alone, at its end
    (tmp_path / "in.cgz").write_bytes(bytes(outer))
    with pytest.raises(CorruptError):
        cosremaster.remaster(tmp_path / "in.cgz", tmp_path / "out", add=[site])
    (tmp_path / "cut.cgz").write_bytes(bytes(outer[: outer.index(inner[20:60]) + 20_000]))
    with pytest.raises(CorruptError):
        cosremaster.remaster(tmp_path / "cut.cgz", tmp_path / "out", add=[site])


def _stored(plain: bytes) -> bytes:
    """``plain`` as gzip that stores it."""
    packer = zlib.compressobj(0, wbits=31)
    return packer.compress(plain) + packer.flush()


# A file of its own


@pytest.mark.parametrize("packer", ["plain", "gzip", "xz"])
def test_an_archive_of_its_own_needs_no_layer(tmp_path: Path, site: Path, packer: str) -> None:
    source = tmp_path / "one.img"
    source.write_bytes(pack_tree(write_tree(tmp_path / "tree", {"readme": "one\n"}), packer))
    result = cosremaster.remaster(source, tmp_path / "out", add=[site])
    assert (result.layer, result.added) == ("one.img", (b"etc", b"etc/site"))
    assert cosremaster.read(f"{tmp_path}/out::@root::etc/site") == b"7\n"
    assert cosremaster.inspect(source, deep=True).root_layer == "one.img"
    twice = source.read_bytes() + bytes(-source.stat().st_size % 4) + source.read_bytes()
    (tmp_path / "two.img").write_bytes(twice)
    result = cosremaster.remaster(tmp_path / "two.img", tmp_path / "out", add=[site], force=True)
    assert result.layer == "two.img::#2"
    with pytest.raises(LayerError, match="no layer looks like a root filesystem"):
        image = write_small(tmp_path, cgz=source.read_bytes())
        cosremaster.remaster(image, tmp_path / "out.iso", add=[site])


def test_names_stand_once_in_messages(tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "live.cgz"
    source.write_bytes(initramfs()[:-3000])
    assert main([str(source), str(tmp_path / "out"), "--add", str(site)]) == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"cosremaster: {source} @0x")
    image = write_small(tmp_path, extra={"live/root.xfs": b"XFSB" + bytes(6000)})
    assert main([str(image), str(tmp_path / "out"), "--layer", "live/root.xfs"]) == 6
    assert capsys.readouterr().err.count("live/root.xfs") == 1


# Targets that end in NUL, as the kernel's gen_init_cpio writes them


def test_symlink_targets_end_at_a_nul(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("cpio", "bsdtar")
    items = [directory(b"usr"), directory(b"usr/bin"), regular(b"usr/bin/busybox", b"b\n", 0o755)]
    links = {b"bin": b"usr/bin\0", b"usr/bin/sh": b"busybox\0", b"usr/bin/odd": b"busybox\0junk"}
    plain = build_archive([*items, *(symlink(path, target) for path, target in links.items())])
    source, out = tmp_path / "initramfs.cpio", tmp_path / "out.cpio"
    source.write_bytes(plain)
    site = write_tree(tmp_path / "site", {"bin/site-check": "#!/bin/sh\n"})
    for _ in range(2):
        result = cosremaster.remaster(source, out, add=[site], force=True)
    assert result.added == (b"usr/bin/site-check",)
    made = out.read_bytes()
    for path, target in links.items():
        assert path + b"\0" in made
        assert target in made  # byte for byte as it was
    assert unpack(made, tmp_path / "unpacked") == {"usr/bin/busybox": "b\n", "usr/bin/site-check": "#!/bin/sh\n"}
    assert (tmp_path / "unpacked/bin").readlink() == Path("usr/bin")
    assert main(["ls", "-l", f"{source}::usr/bin"]) == 0
    assert "\\x00" not in capsys.readouterr().out
    assert main(["extract", str(source), str(tmp_path / "taken")]) == 0
    assert (tmp_path / "taken/usr/bin/sh").readlink() == Path("busybox")
    assert main(["extract", str(source), str(tmp_path / "taken.tar"), "--as", "tar"]) == 0
    assert b"usr/bin/sh -> busybox\n" in run(["bsdtar", "-tvf", str(tmp_path / "taken.tar")])
    again = cosremaster.remaster(out, tmp_path / "again.cpio", add=[write_tree(tmp_path / "more", {"bin/more": "m\n"})])
    assert again.added == (b"usr/bin/more",)


def test_a_symlink_without_a_target_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.cpio").write_bytes(build_archive([directory(b"etc"), symlink(b"etc/odd", b"\0")]))
    assert main(["extract", str(tmp_path / "a.cpio"), str(tmp_path / "x")]) == 5
    assert "etc/odd: is a symlink without a target" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


# U-Boot


@pytest.mark.parametrize("packer", ["plain", "gzip", "xz", "zstd"])
def test_a_ramdisk_of_u_boot(
    tmp_path: Path, site: Path, packer: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    tools.require("mkimage", "gzip")
    packed = pack_tree(write_tree(tmp_path / "tree", FILES), packer)
    (tmp_path / "data").write_bytes(packed)
    source, out = tmp_path / "uInitrd", tmp_path / "out"
    options = ["-A", "arm", "-O", "linux", "-T", "ramdisk", "-C", "none", "-n", "initramfs of a board"]
    run(["mkimage", *options, "-d", str(tmp_path / "data"), str(source)])
    assert main(["ls", str(source)]) == 0
    assert capsys.readouterr().out.split() == ["bin", "etc", "init"]
    assert main(["inspect", str(source)]) == 0
    assert "uimage" in capsys.readouterr().out
    assert main([str(source), str(out)]) == 0
    assert out.read_bytes() == source.read_bytes()
    result = cosremaster.remaster(source, out, add=[site], force=True)
    assert result.layer == "uInitrd"
    made = out.read_bytes()
    run(["mkimage", "-l", str(out)])  # fails on a wrong checksum of the header
    facts = run(["mkimage", "-l", str(out)]).decode()
    assert "initramfs of a board" in facts
    assert f"Data Size:    {len(made) - 64} Bytes" in facts
    assert zlib.crc32(made[64:]) == int.from_bytes(made[24:28], "big")
    assert unpack(run(UNPACKERS[packer], stdin=made[64:]), tmp_path / "unpacked") == ADDED
    again = cosremaster.remaster(out, tmp_path / "again", remove=["/etc/motd"])
    assert again.removed == (b"etc/motd",)
    image = write_small(tmp_path, extra={"boot/uInitrd": source.read_bytes()})
    cosremaster.remaster(image, tmp_path / "out.iso", add=[site], layer="boot/uInitrd")
    assert cosremaster.read(f"{tmp_path}/out.iso::boot/uInitrd") == made


def test_a_ramdisk_of_u_boot_with_wrong_sums(tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("mkimage")
    (tmp_path / "data").write_bytes(pack_tree(write_tree(tmp_path / "tree", FILES)))
    source = tmp_path / "uInitrd"
    options = ["-A", "arm", "-O", "linux", "-C", "none", "-d", str(tmp_path / "data")]
    run(["mkimage", *options, "-T", "ramdisk", str(source)])
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    source.write_bytes(data)
    assert main([str(source), str(tmp_path / "out"), "--add", str(site)]) == 4
    assert "another CRC" in capsys.readouterr().err
    source.write_bytes(data[:-20])
    assert main([str(source), str(tmp_path / "out"), "--add", str(site)]) == 4
    assert "is cut off" in capsys.readouterr().err
    run(["mkimage", *options, "-T", "kernel", str(source)])
    for command in (["ls", str(source)], ["inspect", str(source)], [str(source), str(tmp_path / "out")]):
        assert main(command) == 5
        assert "is a U-Boot image (uImage)" in capsys.readouterr().err


# What kernels do not read, and what nobody here does


def test_lz4_frames_are_warned_of(tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require_module("lz4")
    tools.require("lz4")
    tree = write_tree(tmp_path / "tree", FILES)
    for packer, is_warned in (("lz4", True), ("lz4-legacy", False)):
        source = tmp_path / packer
        source.write_bytes(pack_tree(tree, packer))
        result = cosremaster.remaster(source, tmp_path / f"{packer}.out", add=[site])
        assert any("legacy format alone" in warning for warning in result.warnings) == is_warned
        (layer,) = cosremaster.inspect(source, deep=True).layers or ()
        assert bool(layer.oddities) == is_warned
        assert json.loads(json.dumps(cosremaster.inspect(source, deep=True).values))["layers"][0]["oddities"] == list(
            layer.oddities
        )


FOREIGN = {
    "lzip": (b"LZIP\1", "lzip"),
    "lrzip": (b"LRZI\0", "lrzip"),
    "compress": (b"\x1f\x9d\x90", "compress"),
    "XFS": (b"XFSB", "XFS"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_every_command_names_what_it_cannot_open(
    tmp_path: Path, site: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    magic, noun = FOREIGN[kind]
    source = tmp_path / "file"
    source.write_bytes(magic + random.Random(1).randbytes(40_000))
    sentences = set()
    for command in (
        ["ls", str(source)],
        ["inspect", str(source)],
        [str(source), str(tmp_path / "out"), "--add", str(site)],
    ):
        assert main(command) == 5
        sentences.add(capsys.readouterr().err.splitlines()[-1])
    (sentence,) = sentences
    assert noun in sentence
    assert sentence.endswith("which cannot be looked into")


# Names that lead through symlinks


def _through_links(tmp_path: Path, *, is_single: bool) -> Path:
    """An initramfs with a merged `lib`, and entries behind it that go there by its old name, by GNU cpio."""
    tools.require("cpio")
    first = write_tree(tmp_path / "first", {"usr/lib/x": "1", "usr/lib/y": "y"})
    (first / "lib").symlink_to("usr/lib")
    second = write_tree(tmp_path / "second", {"lib/x": "2", "lib/z": "z"})
    archives = [
        run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, stdin=names)
        for folder, names in ((first, b"usr\nusr/lib\nlib\nusr/lib/x\nusr/lib/y\n"), (second, b"lib/x\nlib/z\n"))
    ]
    image = tmp_path / "initramfs"
    image.write_bytes((_without_trailer(archives[0]) if is_single else archives[0]) + archives[1])
    return image


def _unpack_all(archive: bytes, folder: Path) -> dict[str, str]:
    """The files of all archives of a file, unpacked one over the other by GNU cpio, the later ones last."""
    folder.mkdir()
    end = b"TRAILER!!!\0"
    for part in archive.split(end)[:-1]:
        run(["cpio", "-iud", "--quiet"], cwd=folder, stdin=part.lstrip(b"\0") + end + bytes(512))
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("is_single", [True, False])
@pytest.mark.parametrize("folder", ["lib", "usr/lib"])
def test_names_that_lead_through_a_symlink(tmp_path: Path, folder: str, *, is_single: bool) -> None:
    image, out = _through_links(tmp_path, is_single=is_single), tmp_path / "out"
    before = {"usr/lib/x": "2", "usr/lib/y": "y", "usr/lib/z": "z"}
    assert _unpack_all(image.read_bytes(), tmp_path / "before") == before
    with cosremaster.open(image, remember=False) as opened:
        assert opened.read(f"{folder}/x") == b"2"
        names = [entry.path for entry in opened.ls("usr/lib")]
    assert names == [b"usr/lib/x", b"usr/lib/y", b"usr/lib/z"]
    new = [cosremaster.InlineFile(f"/{folder}/x", b"new")]
    cosremaster.remaster(image, out, add=new, remove=[f"/{folder}/z"], remember=False)
    assert _unpack_all(out.read_bytes(), tmp_path / "after") == {"usr/lib/x": "new", "usr/lib/y": "y"}
    out.unlink()
    cosremaster.remaster(image, out, remove=[f"/{folder}/x"], remember=False)
    assert _unpack_all(out.read_bytes(), tmp_path / "removed") == {"usr/lib/y": "y", "usr/lib/z": "z"}


def test_a_layer_whose_name_leads_through_a_symlink(tmp_path: Path) -> None:
    """The root file system stands at its old name, and is changed beside the archive around it."""
    tools.require("cpio", "gzip")
    root = write_tree(tmp_path / "root", FILES)
    holder = write_tree(tmp_path / "holder", {"init": "#!/bin/sh\n", "usr/lib/y": "y"})
    (holder / "lib").symlink_to("usr/lib")
    (holder / "usr/lib/root.gz").write_bytes(gzip.compress(pack_tree(root, "plain"), mtime=0))
    names = b"init\nusr\nusr/lib\nlib\nlib/root.gz\n"
    image, out = tmp_path / "initramfs", tmp_path / "out"
    image.write_bytes(run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=holder, stdin=names))
    new = cosremaster.InlineFile("/etc/motd", b"new")
    cosremaster.remaster(image, out, add=[new], layer=["initramfs", "initramfs::lib/root.gz"], remember=False)
    (tmp_path / "after").mkdir()
    run(["cpio", "-iud", "--quiet"], cwd=tmp_path / "after", stdin=out.read_bytes())
    inner = gzip.decompress((tmp_path / "after/usr/lib/root.gz").read_bytes())
    assert _unpack_all(inner, tmp_path / "inner")["etc/motd"] == "new"
