"""Replaced entries that stay in an archive while later ones count, held against the programs that unpack it."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.overlay import run_script
from cosremaster.remastering.image import OpenedImage
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, Tree, run
from tests.support.model import Facts, described, read_tree

PLAIN = "unxz - < /rootfs.cxz | cpio -i"
LAYER = "in.cgz::rootfs.cxz"
UNPACKERS = (
    ("busybox", "cpio", "-i"), ("cpio", "-i", "--quiet"), ("cpio", "-idm", "--quiet"), ("busybox", "cpio", "-iu"),
)  # fmt: skip
POSTDATED = 0x7FFFFFFF
NO_PROGRAMS: dict[str, bytes | str] = {}


def fill(root: Tree) -> None:
    """Every sort of entry, with much that does not compress behind what is configured early."""
    numbers = random.Random(5)
    root.file("etc/hostname", b"vendor\n")
    root.file("etc/shadow", b"root:*:\n", 0o640)
    root.file("etc/empty", b"")
    root.file("etc/tool", b"old tool\n" * 50, 0o4755)
    root.symlink("etc/near", "hostname")
    root.symlink("etc/zone", "/usr/share/zone")
    root.file("etc/linked-1", b"one file\n")
    root.link("etc/linked-2", "etc/linked-1")
    root.directory("etc/conf.d", 0o750)
    root.file("etc/conf.d/a", b"a\n")
    root.directory("lib64")
    root.symlink("lib", "lib64")
    for number in range(20):
        root.file(f"usr/data/{number:02}", numbers.randbytes(12000))
    root.file("var/last", b"last\n")


def make_image(
    folder: Path, script: str = PLAIN, layer: str = "rootfs.cxz", programs: dict[str, bytes | str] = NO_PROGRAMS
) -> Path:
    """An initramfs with `script` as its `/init` that holds a root file system, by GNU cpio and xz."""
    tools.require("cpio", "busybox", "xz", "fakeroot", "gzip")
    root, outer = Tree(folder / "root"), Tree(folder / "outer")
    fill(root)
    packed = root.pack(folder / "root.cpio", dot_slash=False)
    outer.file("bin/busybox", b"busybox\n", 0o755)
    for name, program in programs.items():
        if isinstance(program, str):
            outer.symlink(name, program)
        else:
            outer.file(name, program)
    outer.file("init", f"#!/bin/sh\ncd /newroot\n{script}\nexec run-init . /sbin/init\n".encode(), 0o755)
    outer.file(layer, run(["xz", "-T1", "-0", "--check=crc32"], stdin=packed))
    image = folder / "in.cgz"
    image.write_bytes(run(["gzip", "-6", "-n"], stdin=outer.pack(folder / "outer.cpio", dot_slash=False)))
    return image


def overlay(folder: Path, files: dict[str, bytes | str], time: int = EPOCH + 1000) -> Path:
    """A folder of files, and of symlinks where the value is a text."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            path.symlink_to(data)
        else:
            path.write_bytes(data)
            path.chmod(0o644)
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time, time), follow_symlinks=False)
    return folder


def plain_layer(image: Path, folder: Path) -> bytes:
    """The archive of the root file system, by GNU cpio and xz."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run(["cpio", "-i", "--quiet", "rootfs.cxz"], cwd=folder, stdin=run(["gzip", "-dc", str(image)]))
    return run(["xz", "-dc", str(folder / "rootfs.cxz")])


def unpack(archive: bytes, folder: Path, *program: str) -> dict[bytes, Facts]:
    """What `program` makes of an archive."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run(program, cwd=folder, stdin=archive)
    return described(read_tree(folder), links=False)


def names_of(archive: bytes) -> list[str]:
    """The names in an archive, by GNU cpio."""
    return run(["cpio", "-it", "--quiet"], stdin=archive).decode().splitlines()


def shown(image: Path, layer: str) -> dict[bytes, tuple[int, int, bytes]]:
    """Kind, mode and bytes of each path, as our reader shows the layer."""
    with OpenedImage(image, remember=False) as opened:
        (found,) = (layer_ for layer_ in opened.layers().layers if layer_.parent is not None)
        assert layer.endswith("::" + found.address[-1].decode())
        return {
            path: (node.kind, node.mode, node.target if node.content is None else node.content.table().read(0))
            for path, node in found.tree().items()
        }


def without_owners(facts: dict[bytes, Facts]) -> dict[bytes, tuple[str, int, bytes, tuple[bytes, ...]]]:
    return {path: (kind, mode, data, names) for path, (kind, mode, data, _, names) in facts.items()}


NEW: dict[str, bytes | str] = {
    "etc/hostname": b"mine\n", "etc/shadow": b"root:$6$:\n", "etc/empty": b"no more\n", "etc/tool": b"new tool\n",
    "etc/near": "conf.d/a", "etc/added": b"added\n",
}  # fmt: skip


@pytest.mark.parametrize("program", UNPACKERS, ids=" ".join)
def test_unpacked_as_if_all_were_encoded_again(tmp_path: Path, program: tuple[str, ...]) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", NEW)
    trees = []
    for mode in ("auto", "never"):
        out = tmp_path / f"{mode}.cgz"
        result = cosremaster.remaster(image, out, add=[new], supersede=mode)
        trees.append(without_owners(unpack(plain_layer(out, tmp_path / "holder"), tmp_path / mode, *program)))
        assert result.layers[0].superseded == (
            () if mode == "never" else tuple(sorted(os.fsencode(n) for n in NEW))[1:]
        )
    assert trees[0] == trees[1]
    assert trees[0][b"etc/hostname"][2] == b"mine\n" and trees[0][b"etc/near"][2] == b"conf.d/a"


def test_nothing_before_the_end_is_encoded_again(tmp_path: Path) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", NEW)
    out = tmp_path / "out.cgz"
    (inner, _) = cosremaster.remaster(image, out, add=[new]).packed
    assert inner.reused > 120_000 and inner.encoded < 90_000
    old, after = (plain_layer(path, tmp_path / "holder") for path in (image, out))
    trailer = old.index(b"TRAILER!!!") - 110
    assert after[:trailer] == old[:trailer]
    late = run(["cpio", "-itv", "--quiet"], stdin=after).decode().splitlines()[len(names_of(old)) :]
    postdated = {"etc/hostname", "etc/shadow", "etc/empty", "etc/tool", "conf.d/a"}
    assert {line.split()[-1] for line in late if "2038" in line} == postdated


def test_the_odd_time_never_reaches_the_file_system(tmp_path: Path) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", NEW)
    cosremaster.remaster(image, tmp_path / "out.cgz", add=[new])
    for program in UNPACKERS[:2]:
        unpack(plain_layer(tmp_path / "out.cgz", tmp_path / "holder"), tmp_path / "tree", *program)
        for path in (tmp_path / "tree").rglob("*"):
            assert path.lstat().st_mtime < POSTDATED


def test_the_odd_time_is_not_that_of_what_is_taken_out(tmp_path: Path) -> None:
    """Listings, trees and archives have the time of the overlay's file, as without superseding."""
    image, new = make_image(tmp_path), overlay(tmp_path / "new", NEW)
    times = []
    for mode in ("auto", "never"):
        out = tmp_path / f"{mode}.cgz"
        cosremaster.remaster(image, out, add=[new], supersede=mode)
        assert (b"%08X" % POSTDATED in plain_layer(out, tmp_path / "holder")) == (mode == "auto")
        layer = f"{out}::rootfs.cxz"
        assert (
            main(["extract", layer, str(tmp_path / mode)]) == main(["extract", layer, f"{out}.tar", "--as", "tar"]) == 0
        )
        listed = run(["tar", "-tvf", f"{out}.tar", "--utc", "--full-time"]).decode().splitlines()
        files = {path for path in (tmp_path / mode).rglob("*") if path.is_file() or path.is_symlink()}
        times.append(
            ({path.relative_to(tmp_path / mode): int(path.lstat().st_mtime) for path in files}, sorted(listed))
        )
    assert times[0] == times[1]
    assert times[0][0][Path("etc/hostname")] == EPOCH + 1000
    assert main(["diff", *(f"{tmp_path / mode}.cgz::rootfs.cxz" for mode in ("auto", "never"))]) == 0


def test_our_reader_sees_what_is_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, new, out = make_image(tmp_path), overlay(tmp_path / "new", NEW), tmp_path / "out.cgz"
    assert main([str(image), str(out), "--add", f"{new}/"]) == 0
    captured = capsys.readouterr()
    assert "bytes of replaced ones stay (--supersede)" in captured.out
    assert "the old bytes of etc/shadow" in captured.err and "etc/hostname" not in captured.err
    unpacked = unpack(plain_layer(out, tmp_path / "holder"), tmp_path / "tree", "busybox", "cpio", "-i")
    ours = shown(out, LAYER)
    assert ours.keys() == unpacked.keys()
    for path, (kind, mode, data) in ours.items():
        full = tmp_path / "tree" / os.fsdecode(path)
        assert stat.S_IFMT(full.lstat().st_mode) == kind
        if kind == stat.S_IFREG:
            assert (full.read_bytes(), stat.S_IMODE(full.stat().st_mode)) == (data, mode)
    assert main(["verify", "--deep", str(out)]) == 0
    assert "5 entries that later ones supersede" in capsys.readouterr().out
    assert main(["inspect", "--deep", str(out)]) == 0
    assert "5 entries that later ones supersede" in capsys.readouterr().out


def test_again_replaces_what_supersedes_and_never_cleans(tmp_path: Path) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", NEW)
    again = overlay(tmp_path / "again", {"etc/hostname": b"again\n", "usr/data/01": b"other\n"})
    first, second, clean, direct = (tmp_path / f"{name}.cgz" for name in ("first", "second", "clean", "direct"))
    cosremaster.remaster(image, first, add=[new])
    assert cosremaster.remaster(first, second, add=[new]).identical
    second.unlink()
    result = cosremaster.remaster(first, second, add=[again])
    assert result.layers[0].superseded == (b"etc/hostname", b"usr/data/01")
    names = names_of(plain_layer(second, tmp_path / "holder"))
    assert names.count("etc/hostname") == 2 and names.count("etc/tool") == 2
    trees = []
    cosremaster.remaster(second, clean, supersede="never", layer="second.cgz::rootfs.cxz")
    cosremaster.remaster(image, tmp_path / "half.cgz", add=[new], supersede="never")
    cosremaster.remaster(tmp_path / "half.cgz", direct, add=[again], supersede="never")
    for path in (second, clean, direct):
        archive = plain_layer(path, tmp_path / "holder")
        trees.append(without_owners(unpack(archive, tmp_path / "tree", "busybox", "cpio", "-i")))
        assert len(set(names_of(archive))) == len(names_of(archive)) or path is second
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize("name", ["etc/linked-1", "etc/zone", "lib"])
def test_what_an_unpacker_would_get_wrong_is_not_superseded(tmp_path: Path, name: str) -> None:
    """The kernel writes into hard links, busybox makes some symlinks at the end, and entries pass through others."""
    image = make_image(tmp_path)
    new = overlay(tmp_path / "new", {name: "etc" if name == "lib" else b"new\n"})
    for mode in ("auto", "never"):
        result = cosremaster.remaster(image, tmp_path / f"{mode}.cgz", add=[new], supersede=mode, force_type=True)
        assert result.layers[0].superseded == ()
    assert (tmp_path / "auto.cgz").read_bytes() == (tmp_path / "never.cgz").read_bytes()


def test_never_alone_cleans_the_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the hint in the plan and in `verify` says, without an edit or a layer's name."""
    image, new = make_image(tmp_path), overlay(tmp_path / "new", NEW)
    first, clean = tmp_path / "first.cgz", tmp_path / "clean.cgz"
    cosremaster.remaster(image, first, add=[new])
    assert main([str(first), str(clean), "--supersede", "never"]) == 0
    assert "rootfs.cxz: its files stay as they are\n" in capsys.readouterr().out
    old, archive = (plain_layer(path, tmp_path / "holder") for path in (first, clean))
    assert b"root:*:" in old and b"root:*:" not in archive
    assert len(set(names_of(archive))) == len(names_of(archive)) < len(names_of(old))
    assert shown(clean, LAYER) == shown(first, LAYER)


def test_a_removal_takes_both_entries(tmp_path: Path) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", NEW)
    cosremaster.remaster(image, tmp_path / "a.cgz", add=[new])
    cosremaster.remaster(tmp_path / "a.cgz", tmp_path / "b.cgz", remove=["/etc/shadow"])
    archive = plain_layer(tmp_path / "b.cgz", tmp_path / "holder")
    assert "etc/shadow" not in names_of(archive) and b"root:" not in archive
    assert unpack(archive, tmp_path / "tree", "busybox", "cpio", "-i")[b"etc/hostname"][2] == b"mine\n"


def test_beside_a_removal_what_stands_before_it_is_superseded(tmp_path: Path) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", {"etc/hostname": b"mine\n", "var/last": b"new\n"})
    result = cosremaster.remaster(image, tmp_path / "out.cgz", add=[new], remove=["/usr/data/15"])
    assert result.layers[0].superseded == (b"etc/hostname",)
    assert result.packed[0].reused > 100_000
    tree = unpack(plain_layer(tmp_path / "out.cgz", tmp_path / "holder"), tmp_path / "tree", "busybox", "cpio", "-i")
    assert tree[b"var/last"][2] == b"new\n" and b"usr/data/15" not in tree and tree[b"etc/hostname"][2] == b"mine\n"


@pytest.mark.parametrize(
    ("script", "time", "superseded", "postdated"),
    [
        ("unxz - < /rootfs.cxz | cpio -iu", EPOCH - 1000, True, False),
        ("unxz - < /rootfs.cxz | cpio -im", EPOCH + 1000, True, False),
        ("unxz - < /rootfs.cxz | cpio -im", EPOCH - 1000, False, False),
        ("unxz - < /rootfs.cxz | cpio -id", EPOCH - 1000, True, True),
        ("unxz - < /rootfs.cxz | tar x", EPOCH + 1000, False, False),
    ],
)
def test_the_holder_says_how(tmp_path: Path, script: str, time: int, *, superseded: bool, postdated: bool) -> None:
    image, new = make_image(tmp_path, script), overlay(tmp_path / "new", {"etc/hostname": b"mine\n"}, time)
    out = tmp_path / "out.cgz"
    assert bool(cosremaster.remaster(image, out, add=[new]).layers[0].superseded) == superseded
    archive = plain_layer(out, tmp_path / "holder")
    assert (b"%08X" % POSTDATED in archive) == postdated
    if "cpio" in script:
        program = ["busybox", "cpio", script.rsplit(maxsplit=1)[-1]]
        tree = unpack(archive, tmp_path / "tree", *program)
        assert tree[b"etc/hostname"][2] == b"mine\n" == shown(out, LAYER)[b"etc/hostname"][2]
        when = int((tmp_path / "tree/etc/hostname").stat().st_mtime)
        assert when < POSTDATED and (when == time) == ("m" in script.rsplit(maxsplit=1)[-1])


@pytest.mark.parametrize(
    ("program", "superseded"),
    [("/usr/bin/cpio", True), ("/usr/bin/bsdcpio", True), ("/usr/lib/klibc/bin/cpio", True), ("/bin/busybox", True),
     ("toybox", False), ("toybox always", False), ("script", False)],
)  # fmt: skip
def test_the_cpio_of_the_holder(tmp_path: Path, program: str, *, superseded: bool) -> None:
    """Toybox' keeps the first of two entries, whatever their times; those that take a postdated one are known."""
    data = {"toybox": b"\x7fELF Toybox %s multicall binary%s", "script": b"#!/bin/sh\nexec bsdtar -xkf -\n"}.get(
        program.split(maxsplit=1)[0]
    )
    if data is None:
        tools.require(program)
        data = Path(program).read_bytes()
    image = make_image(tmp_path, programs={"usr/bin/cpio": "../lib/cpio", "usr/lib/cpio": data})
    new, out = overlay(tmp_path / "new", {"etc/hostname": b"mine\n"}), tmp_path / "out.cgz"
    mode = "always" if "always" in program else "auto"
    assert bool(cosremaster.remaster(image, out, add=[new], supersede=mode).layers[0].superseded) == superseded
    if superseded and "busybox" not in program:
        tree = unpack(plain_layer(out, tmp_path / "holder"), tmp_path / "tree", program, "-i")
        assert tree[b"etc/hostname"][2] == b"mine\n"


def test_another_cpio_in_the_holder_brings_nothing_old_back(tmp_path: Path) -> None:
    """The `/init` is the same, but what it calls is not."""
    image = make_image(tmp_path, programs={"bin/cpio": "busybox"})
    new = overlay(tmp_path / "new", {"etc/hostname": b"mine\n"})
    first, out = tmp_path / "first.cgz", tmp_path / "out.cgz"
    assert cosremaster.remaster(image, first, add=[new]).layers[0].superseded == (b"etc/hostname",)
    other = overlay(tmp_path / "other", {"bin/cpio": b"\x7fELF Toybox %s"})
    result = cosremaster.remaster(first, out, add=[other], layer="first.cgz")
    assert any("are dropped" in warning for warning in result.warnings)
    assert names_of(plain_layer(out, tmp_path / "holder")).count("etc/hostname") == 1


def test_always_where_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, new = make_image(tmp_path, "/bin/unpack"), overlay(tmp_path / "new", {"etc/hostname": b"mine\n"})
    out = tmp_path / "out.cgz"
    assert main([str(image), str(out), "--add", f"{new}/", "--supersede", "always"]) == 0
    assert "it is not known what unpacks it" in capsys.readouterr().err
    for program in UNPACKERS:
        tree = unpack(plain_layer(out, tmp_path / "holder"), tmp_path / "tree", *program)
        assert tree[b"etc/hostname"][2] == b"mine\n" == shown(out, LAYER)[b"etc/hostname"][2]


def test_plan_and_report_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", {"etc/hostname": b"mine\n"})
    report = tmp_path / "report.json"
    assert main(["plan", str(image), "--add", f"{new}/", "--json", "--report", str(report)]) == 0
    said = {"paths": ["etc/hostname"], "bytes": 132, "unpacker": "cpio -i in /init"}
    assert json.loads(capsys.readouterr().out)["superseded"] == [{"layer": LAYER, **said}]
    assert json.loads(report.read_text())["superseded"] == said
    assert main(["plan", str(image), "--add", f"{new}/"]) == 0
    line = f"{LAYER}: 1 replaced entry stays superseded, 132 bytes; --supersede never takes them out"
    assert line in capsys.readouterr().out


def test_bytes_in_a_closed_directory_are_named(tmp_path: Path) -> None:
    """`etc/conf.d` is closed to others, though a file in it is open to all."""
    image, new = make_image(tmp_path), overlay(tmp_path / "new", {"etc/conf.d/a": b"b\n", "etc/hostname": b"mine\n"})
    result = cosremaster.remaster(image, tmp_path / "out.cgz", add=[new])
    assert result.layers[0].superseded == (b"etc/conf.d/a", b"etc/hostname")
    (warning,) = result.warnings
    assert "the old bytes of etc/conf.d/a, which not everybody might read" in warning


@pytest.mark.parametrize("packer", [["zstd", "-q"], ["lz4", "-q", "-c"], ["bzip2"]], ids=lambda packer: packer[0])
def test_nothing_stays_where_all_is_packed_again(tmp_path: Path, packer: list[str]) -> None:
    """A single frame is packed as a whole; a base that `prepare` made has several."""
    tools.require(packer[0])
    image, new = make_image(tmp_path), overlay(tmp_path / "new", {"etc/hostname": b"mine\n"})
    holder = Tree(tmp_path / "holder")
    holder.file("init", f"#!/bin/sh\n{packer[0]} -dc /rootfs.cxz | cpio -i\n".encode(), 0o755)
    holder.file("rootfs.cxz", run(packer, stdin=plain_layer(image, tmp_path / "plain")))
    image.write_bytes(run(["gzip", "-n"], stdin=holder.pack(tmp_path / "holder.cpio", dot_slash=False)))
    base = tmp_path / "base.cgz"
    assert main(["prepare", str(image), str(base), "--block-size", "64K"]) == 0
    for source, is_cut in ((image, False), (base, True)):
        result = cosremaster.remaster(source, tmp_path / f"of-{source.name}", add=[new])
        assert result.layers[0].superseded == ((b"etc/hostname",) if is_cut else ())
        assert (result.packed[0].reused > 0) == is_cut


def test_a_large_file_is_not_left_for_little(tmp_path: Path) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", {"usr/data/18": b"short\n", "var/last": b"new\n"})
    assert cosremaster.remaster(image, tmp_path / "out.cgz", add=[new]).layers[0].superseded == ()


@pytest.mark.parametrize("seed", range(6))
def test_random_edits(tmp_path: Path, seed: int) -> None:
    """Three runs on one another, in every mode, unpack to the same tree."""
    numbers = random.Random(seed)
    image = make_image(tmp_path)
    every = [name for name in NEW if name != "etc/near"] + ["etc/linked-1", "etc/conf.d/a", "usr/data/02", "var/last"]
    latest = dict.fromkeys(("auto", "never", "always"), image)
    for step in range(3):
        chosen = numbers.sample(every, 4)
        files: dict[str, bytes | str] = {name: numbers.randbytes(numbers.randrange(60)) for name in chosen}
        new = overlay(tmp_path / f"new{step}", files, EPOCH + numbers.randrange(-9, 9))
        remove = [f"/usr/data/{numbers.randrange(4, 20):02}"] if numbers.random() < 0.4 else []
        trees = []
        for mode in latest:
            out = tmp_path / f"{mode}{step}.cgz"
            cosremaster.remaster(latest[mode], out, add=[new], remove=remove, allow_missing=True, supersede=mode)
            latest[mode] = out
            archive = plain_layer(out, tmp_path / "holder")
            program = numbers.choice(UNPACKERS)
            trees.append(without_owners(unpack(archive, tmp_path / "tree", *program)))
            most = max(names_of(archive).count(name) for name in set(names_of(archive)))
            assert most <= (1 if mode == "never" else 2)
            ours = {path: data for path, (_, _, data) in shown(out, LAYER).items()}
            assert ours == {path: data for path, (_, _, data, _) in trees[-1].items()}
        assert trees[0] == trees[1] == trees[2]


MENU = "menuentry x {{\n linux /vmlinuz {arguments}\n initrd {initrds}\n}}\n"


def master(folder: Path, files: dict[str, Path], *menus: tuple[str, str]) -> Path:
    """An ISO with `files` and boot entries of GRUB: kernel arguments, and what is loaded."""
    tools.require("genisoimage")
    disc = folder / "disc"
    (disc / "boot/grub").mkdir(parents=True)
    for name, file in files.items():
        shutil.copy(file, disc / name)
    (disc / "vmlinuz").write_bytes(b"MZ" + bytes(5000))
    text = "".join(MENU.format(arguments=arguments, initrds=initrds) for arguments, initrds in menus)
    (disc / "boot/grub/grub.cfg").write_text(text)
    run(["genisoimage", "-quiet", "-R", "-o", str(folder / "in.iso"), str(disc)])
    return folder / "in.iso"


@pytest.mark.parametrize(
    ("menus", "superseded"),
    [
        ([("quiet", "/in.cgz")], True),
        ([], True),
        ([("quiet", "/in.cgz"), ("rdinit=/other", "/in.cgz")], False),
        ([("quiet", "/in.cgz /other.cgz")], False),
        ([("quiet", "/other.cgz /in.cgz")], True),
        ([("quiet", "/in.cgz /firmware.cgz")], True),
        ([("quiet", "/in.cgz /tools.cgz")], False),
        ([("quiet", "/in.cgz /lost.cgz")], False),
        ([("quiet", "/in.cgz newc:init:/boot/grub/grub.cfg")], False),
        ([('quiet "rdinit=/other program"', "/in.cgz")], False),
    ],
)
def test_what_the_menus_start(tmp_path: Path, menus: list[tuple[str, str]], *, superseded: bool) -> None:
    image, new = make_image(tmp_path), overlay(tmp_path / "new", {"etc/hostname": b"mine\n"})
    (tmp_path / "b").mkdir()
    other, firmware = make_image(tmp_path / "b", "echo"), Tree(tmp_path / "firmware")
    firmware.file("lib/firmware/x", b"x")
    packed = tmp_path / "firmware.cgz"
    packed.write_bytes(run(["gzip", "-n"], stdin=firmware.pack(tmp_path / "firmware.cpio", dot_slash=False)))
    programs = packed_folder(tmp_path / "tools", {"usr/bin/cpio": b"Toybox"})
    files = {"in.cgz": image, "other.cgz": other, "firmware.cgz": packed, "tools.cgz": programs}
    iso = master(tmp_path, files, *menus)
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[new], layer=LAYER)
    assert bool(result.layers[0].superseded) == superseded


@pytest.mark.parametrize(("initrd", "superseded"), [("/in.gz", True), ("/other.gz", False)])
def test_what_the_kernel_unpacks(tmp_path: Path, initrd: str, *, superseded: bool) -> None:
    """The new entries have their own time there; links and what is small go as before."""
    tools.require("cpio", "fakeroot", "gzip", "isoinfo")
    root, new = Tree(tmp_path / "root"), overlay(tmp_path / "new", {**NEW, "usr/linked": b"alone\n"}, EPOCH - 1000)
    fill(root)
    root.file("usr/late", random.Random(1).randbytes(1 << 20))
    root.file("usr/link", b"one file\n")
    root.link("usr/linked", "usr/link")
    root.file("init", b"#!/bin/sh\n", 0o755)
    (tmp_path / "in.gz").write_bytes(run(["gzip", "-1n"], stdin=root.pack(tmp_path / "root.cpio", dot_slash=False)))
    iso = master(tmp_path, {"in.gz": tmp_path / "in.gz"}, ("quiet", initrd))
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[new], layer="in.gz")
    packed = run(["isoinfo", "-R", "-i", str(tmp_path / "out.iso"), "-x", "/in.gz"])
    archive = run(["gzip", "-dc"], stdin=packed)
    assert b"%08X" % POSTDATED not in archive
    assert (names_of(archive).count("etc/hostname") == 2) == superseded == bool(result.layers[0].superseded)
    assert names_of(archive).count("usr/linked") == 1
    tree = unpack(archive, tmp_path / "tree", "busybox", "cpio", "-iu")  # as the kernel, the later one
    assert {name: tree[name.encode()][2] for name in NEW} == {
        name: data.encode() if isinstance(data, str) else data for name, data in NEW.items()
    }
    assert tree[b"usr/link"][2] == b"one file\n" and tree[b"usr/linked"][2] == b"alone\n"


def test_another_init_in_the_same_run(tmp_path: Path) -> None:
    """What the old `/init` says does not hold then."""
    image, new = make_image(tmp_path), overlay(tmp_path / "new", {"etc/hostname": b"mine\n", "init": b"#!/bin/sh\n"})
    result = cosremaster.remaster(image, tmp_path / "out.cgz", add=[new], layer=["in.cgz", LAYER])
    assert all(layer.superseded == () for layer in result.layers)


def test_always_in_an_initramfs_of_its_own(tmp_path: Path) -> None:
    """Whether a kernel unpacks it is not known: the new entries win under every unpacker."""
    image, new = make_image(tmp_path), overlay(tmp_path / "new", {"bin/busybox": b"other\n"})
    cosremaster.remaster(image, tmp_path / "auto.cgz", add=[new], layer="in.cgz")
    result = cosremaster.remaster(image, tmp_path / "out.cgz", add=[new], layer="in.cgz", supersede="always")
    assert result.layers[0].superseded == (b"bin/busybox",) and "is not known" in result.warnings[0]
    for name, count in (("auto", 1), ("out", 2)):
        archive = run(["gzip", "-dc", str(tmp_path / f"{name}.cgz")])
        assert names_of(archive).count("bin/busybox") == count
        for program in UNPACKERS:
            assert unpack(archive, tmp_path / "tree", *program)[b"bin/busybox"][2] == b"other\n"
    with OpenedImage(tmp_path / "out.cgz", remember=False) as opened:
        content = opened.layers().layers[0].tree()[b"bin/busybox"].content
        assert content is not None and content.table().read(0) == b"other\n"


def test_a_directory_that_changes_with_all_that_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run_script._RUNNERS, "namespace", ("tests.support.fake_session", "run_script", "check_run"))
    image, out = make_image(tmp_path), tmp_path / "out.cgz"
    lines = "chmod 0700 /etc/conf.d\nwrite /etc/conf.d/a mine\nwrite /etc/hostname mine"
    result = cosremaster.remaster(image, out, run=[lines], supersede="always")
    assert result.layers[0].superseded == (b"etc/hostname",)
    archive = plain_layer(out, tmp_path / "plain")
    assert names_of(archive).count("etc/conf.d/a") == 1
    for program in UNPACKERS:
        facts = unpack(archive, tmp_path / "unpacked", *program)
        assert facts[b"etc/conf.d"][1] & 0o777 == 0o700
        assert facts[b"etc/conf.d/a"][2] == facts[b"etc/hostname"][2] == b"mine\n"


def superseded_image(folder: Path, script: str, *, link: str = "init") -> Path:
    """An image of ours, from an earlier run, in which later entries with their own time count by the `/init`."""
    has_links = "-iu" in script  # cpio -im gives them no time
    files = {name: data for name, data in NEW.items() if isinstance(data, bytes) or has_links}
    image, new = make_image(folder, script), overlay(folder / "new", files)
    out = folder / "first.cgz"
    result = cosremaster.remaster(image, out, add=[new])
    archive = plain_layer(out, folder / "holder")
    assert b"etc/hostname" in result.layers[0].superseded and b"%08X" % POSTDATED not in archive
    if link == "init":
        return out
    moved = overlay(folder / "moved", {"init": link, link: f"#!/bin/sh\n{script}\n".encode()})
    cosremaster.remaster(out, folder / "second.cgz", add=[moved], layer="first.cgz", force_type=True)
    return folder / "second.cgz"


@pytest.mark.parametrize("link", ["init", "sbin/start"])
@pytest.mark.parametrize(
    ("script", "after"), [("cpio -iu", "cpio -i"), ("cpio -im", "cpio -i"), ("cpio -iu", "tar x"), ("cpio -iu", "")]
)
def test_a_later_init_brings_nothing_old_back(tmp_path: Path, script: str, after: str, link: str) -> None:
    """Only the `/init` around the layer changes: to one under which the earlier entries would count."""
    start = "unxz - < /rootfs.cxz | "
    image = superseded_image(tmp_path, start + script, link=link)
    before = unpack(plain_layer(image, tmp_path / "holder"), tmp_path / "before", "busybox", *script.split())
    changed = overlay(tmp_path / "changed", {link: f"#!/bin/sh\n{start + after if after else ''}\n".encode()})
    out = tmp_path / "out.cgz"
    result = cosremaster.remaster(image, out, add=[changed], layer=image.name)
    assert any("are dropped" in warning for warning in result.warnings)
    for program in UNPACKERS:
        tree = unpack(plain_layer(out, tmp_path / "holder"), tmp_path / "tree", *program)
        assert without_owners(tree) == without_owners(before)
    assert {path: data for path, (_, _, data) in shown(out, LAYER).items()} == {
        path: data for path, (_, _, data, *_) in before.items()
    }


def test_another_init_with_the_same_cpio_leaves_the_layer(tmp_path: Path) -> None:
    start = "unxz - < /rootfs.cxz | cpio -iu"
    image = superseded_image(tmp_path, start)
    changed = overlay(tmp_path / "changed", {"init": f"#!/bin/sh\necho hello\n{start}\n".encode()})
    cosremaster.remaster(image, tmp_path / "out.cgz", add=[changed], layer=image.name)
    layers = [plain_layer(path, tmp_path / "holder") for path in (image, tmp_path / "out.cgz")]
    assert layers[0] == layers[1]


def test_init_and_layer_change_at_once(tmp_path: Path) -> None:
    """What an earlier run superseded goes, in the run that changes other files of the layer too."""
    image = superseded_image(tmp_path, "unxz - < /rootfs.cxz | cpio -iu")
    files: dict[str, bytes | str] = {"init": f"#!/bin/sh\n{PLAIN}\n".encode(), "usr/data/03": b"mine\n"}
    changed = overlay(tmp_path / "changed", files)
    out = tmp_path / "out.cgz"
    cosremaster.remaster(image, out, add=[changed], layer=[image.name, f"{image.name}::rootfs.cxz"])
    tree = unpack(plain_layer(out, tmp_path / "holder"), tmp_path / "tree", "busybox", "cpio", "-i")
    assert tree[b"etc/hostname"][2] == b"mine\n" == tree[b"usr/data/03"][2]
    assert tree[b"etc/near"][2] == b"conf.d/a"


def foreign_image(folder: Path, script: str) -> Path:
    """Somebody else's image, whose layer has a directory and a name of a hard-linked file a second time, as others."""
    image = make_image(folder, script)
    holder, more = Tree(folder / "holder"), Tree(folder / "more")
    more.directory("etc/conf.d", 0o711)
    more.file("etc/linked-1", b"alone\n")
    first, second = (
        run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder / name, stdin=b"\n".join([*listed, b""]))
        for name, listed in (
            ("root", [b"etc", b"etc/conf.d", b"etc/conf.d/a", b"etc/linked-1", b"etc/linked-2"]),
            ("more", [b"etc/conf.d", b"etc/linked-1"]),
        )
    )
    holder.file("init", f"#!/bin/sh\n{script}\n".encode(), 0o755)
    plain = first[: first.index(b"TRAILER!!!") - 110] + second
    holder.file("rootfs.cxz", run(["xz", "--check=crc32"], stdin=plain))
    image.write_bytes(run(["gzip", "-n"], stdin=holder.pack(folder / "holder.cpio", dot_slash=False)))
    return image


def test_an_init_that_brings_a_hard_link_back_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = foreign_image(tmp_path, "unxz - < /rootfs.cxz | cpio -iu")
    changed, out = overlay(tmp_path / "changed", {"init": f"#!/bin/sh\n{PLAIN}\n".encode()}), tmp_path / "out.cgz"
    assert main([str(image), str(out), "--add", f"{changed}/", "--layer", "in.cgz"]) == 5
    said = "etc/linked-1: has several entries, of which the changed /init takes an older one that cannot be dropped"
    assert said in capsys.readouterr().err and not out.exists()
    new = overlay(tmp_path / "new", {"init": f"#!/bin/sh\n{PLAIN}\n".encode(), "etc/linked-1": b"third\n"})
    cosremaster.remaster(image, out, add=[new], layer=["in.cgz", LAYER])
    tree = unpack(plain_layer(out, tmp_path / "outer"), tmp_path / "tree", "busybox", "cpio", "-i")
    assert tree[b"etc/linked-1"][2] == b"third\n" and tree[b"etc/linked-2"][2] == b"one file\n"


def test_a_directory_keeps_what_it_has_under_another_init(tmp_path: Path) -> None:
    image = foreign_image(tmp_path, "unxz - < /rootfs.cxz | cpio -iu")
    cosremaster.remaster(image, tmp_path / "less.cgz", remove=["/etc/linked-1"], layer=LAYER)
    assert shown(tmp_path / "less.cgz", LAYER)[b"etc/conf.d"][1] == 0o711
    changed, out = overlay(tmp_path / "changed", {"init": f"#!/bin/sh\n{PLAIN}\n".encode()}), tmp_path / "out.cgz"
    cosremaster.remaster(tmp_path / "less.cgz", out, add=[changed], layer="less.cgz")
    assert shown(out, LAYER)[b"etc/conf.d"][1] == 0o711
    for program in UNPACKERS:
        unpack(plain_layer(out, tmp_path / "outer"), tmp_path / "tree", *program)
        assert stat.S_IMODE((tmp_path / "tree/etc/conf.d").stat().st_mode) == 0o711


def packed_folder(folder: Path, files: dict[str, bytes | str]) -> Path:
    """A gzip initramfs of files."""
    names = "".join(
        f"{path}\n" for path in sorted(str(p.relative_to(folder)) for p in overlay(folder, files).rglob("*"))
    )
    packed = folder.with_suffix(".cgz")
    plain = run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, stdin=names.encode())
    packed.write_bytes(run(["gzip", "-n"], stdin=plain))
    return packed


@pytest.mark.parametrize("way", ["rdinit", "menu", "added", "replaced", "edited", "harmless"])
def test_a_boot_entry_that_starts_another_init_is_refused(
    tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layer was superseded as its `/init` says, and now a boot entry starts another one."""
    image = superseded_image(tmp_path, "unxz - < /rootfs.cxz | cpio -iu")
    plain = packed_folder(tmp_path / "firmware", {"lib/x": b"x"})
    other = packed_folder(tmp_path / "other", {"init": b"#!/bin/sh\n"})
    files = {"in.cgz": image, "firmware.cgz": plain, "other.cgz": other}
    iso = master(tmp_path, files, ("quiet", "/in.cgz /firmware.cgz"))
    menu = tmp_path / "grub.cfg"
    last = "/new.cgz" if way == "added" else "/other.cgz"
    menu.write_text(MENU.format(arguments="quiet", initrds=f"/in.cgz {last}"))
    menu_option = ["--add-iso", f"{menu}:/boot/grub/grub.cfg"]
    options = {
        "rdinit": ["--kernel-arg", "rdinit=/other"],
        "menu": menu_option,
        "added": [*menu_option, "--add-iso", f"{other}:/new.cgz"],
        "replaced": ["--add-iso", f"{other}:/firmware.cgz"],
        "edited": ["--add", f"{tmp_path / 'other'}/", "--layer", "firmware.cgz"],
        "harmless": ["--kernel-arg", "debug", "--add", f"{tmp_path / 'firmware'}/", "--layer", "other.cgz"],
    }[way]
    out = tmp_path / "out.iso"
    code = main([str(iso), str(out), *options])
    error = capsys.readouterr().err
    if way == "harmless":
        assert code == 0, error
        return
    assert (code, out.exists()) == (5, False), error
    assert "in.cgz » rootfs.cxz: has superseded entries, and would be unpacked by another program" in error
