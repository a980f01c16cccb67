"""What an edit of one initramfs does to those that the kernel unpacks before it or behind it is told, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import Tree, run
from tests.support.archives_of_trees import unpack

MENU = "menuentry x {\n linux /vmlinuz quiet\n initrd /a.gz /b.gz\n}\n"


def packed(tree: Tree, archive: Path) -> bytes:
    return run(["gzip", "-n"], stdin=tree.pack(archive, dot_slash=False))


@pytest.fixture
def archives(tmp_path: Path) -> tuple[bytes, bytes]:
    """An initramfs with two names for one file and a symlink to a directory, and a small one."""
    tools.require("cpio", "fakeroot", "gzip", "genisoimage", "isoinfo")
    first, second = Tree(tmp_path / "first"), Tree(tmp_path / "second")
    first.file("bin/busybox", b"busybox\n")
    first.link("bin/sh", "bin/busybox")
    first.file("bin/alone", b"alone\n")
    first.file("usr/lib/libc", b"libc\n")
    first.symlink("lib", "usr/lib")
    second.file("etc/late", b"late\n")
    one, two = packed(first, tmp_path / "first.cpio"), packed(second, tmp_path / "second.cpio")
    return one + bytes(-len(one) % 4), two


def site(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine\n")
    return folder


def disc(folder: Path, archives: tuple[bytes, bytes]) -> Path:
    """An ISO whose boot entry loads both archives as files of their own."""
    (folder / "disc/boot/grub").mkdir(parents=True)
    files = {
        "a.gz": archives[0],
        "b.gz": archives[1],
        "vmlinuz": b"MZ" + bytes(5000),
        "boot/grub/grub.cfg": MENU.encode(),
    }
    for name, data in files.items():
        (folder / "disc" / name).write_bytes(data)
    run(["genisoimage", "-quiet", "-R", "-o", str(folder / "in.iso"), str(folder / "disc")])
    return folder / "in.iso"


def test_a_hard_link_of_an_earlier_archive_is_not_changed_by_its_name(
    tmp_path: Path, archives: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel writes into the file: `bin/sh` would change with `bin/busybox`."""
    image, out = tmp_path / "both.gz", tmp_path / "out.gz"
    image.write_bytes(b"".join(archives))
    changed = site(tmp_path / "changed", "bin/busybox")
    assert main([str(image), str(out), "--add", f"{changed}/", "--layer", "both.gz::#2"]) == 7
    error = capsys.readouterr().err
    assert "bin/busybox: is one file with bin/sh in an archive before both.gz::#2" in error and not out.exists()
    cosremaster.remaster(image, out, add=[changed], layer="both.gz")
    after = Path(tmp_path / "out.gz").read_bytes()
    names = run(["cpio", "-it", "--quiet"], stdin=run(["gzip", "-dc"], stdin=after[: after.rindex(b"\x1f\x8b")]))
    assert names.split().count(b"bin/busybox") == 1
    other = site(tmp_path / "other", "bin/alone")
    cosremaster.remaster(image, tmp_path / "alone.gz", add=[other], layer="both.gz::#2")


def test_what_other_files_of_a_boot_entry_have(tmp_path: Path, archives: tuple[bytes, bytes]) -> None:
    image = disc(tmp_path, archives)
    new = site(tmp_path / "new", "bin/busybox", "bin/alone", "lib/firmware", "etc/new")
    result = cosremaster.remaster(image, tmp_path / "out.iso", add=[new], layer="b.gz")
    directory, linked = result.warnings
    assert directory.startswith(
        "lib is a symlink in a.gz, which boot entries load before b.gz: the kernel puts an empty"
    )
    assert linked.startswith("bin/busybox is one file with bin/sh in a.gz")
    late = site(tmp_path / "late", "etc/late", "etc/new")
    result = cosremaster.remaster(image, tmp_path / "out2.iso", add=[late], layer="a.gz")
    assert result.warnings == ("etc/late stands in b.gz too, which boot entries load later, and which counts",)
    plain = site(tmp_path / "plain", "etc/other")
    os.utime(plain)
    for layer in ("a.gz", "b.gz"):
        assert cosremaster.remaster(image, tmp_path / f"{layer}.iso", add=[plain], layer=layer).warnings == ()


def test_what_later_files_of_a_boot_entry_need(tmp_path: Path) -> None:
    """A directory in the place of a symlink that comes later, and one that goes though files come into it."""
    tools.require("cpio", "fakeroot", "gzip", "genisoimage", "isoinfo")
    first, second = Tree(tmp_path / "first"), Tree(tmp_path / "second")
    first.file("etc/early", b"early\n")
    first.file("opt/early", b"early\n")
    second.file("usr/lib/libc", b"libc\n")
    second.symlink("lib", "usr/lib")
    second.file("opt/late", b"late\n")
    names = b"usr\nusr/lib\nusr/lib/libc\nlib\nopt/late\n"
    later = run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tmp_path / "second", stdin=names)
    image = disc(tmp_path, (packed(first, tmp_path / "first.cpio"), run(["gzip", "-n"], stdin=later)))
    new = site(tmp_path / "new", "lib/firmware")
    (directory,) = cosremaster.remaster(image, tmp_path / "out.iso", add=[new], layer="a.gz").warnings
    assert directory.startswith("lib is a symlink in b.gz, which boot entries load later: the kernel leaves the")
    (gone,) = cosremaster.remaster(image, tmp_path / "out2.iso", remove=["/opt"], layer="a.gz").warnings
    assert gone.startswith("opt is removed or replaced in a.gz, and b.gz, which boot entries load later, has files")
    assert cosremaster.remaster(image, tmp_path / "out3.iso", remove=["/etc"], layer="a.gz").warnings == ()


def plain(folder: Path, *names: str) -> bytes:
    """An initramfs with files that have their names in them, and with /tmp."""
    tools.require("cpio", "fakeroot")
    tree = Tree(folder)
    tree.directory("tmp", 0o1777)
    for name in names:
        tree.file(name, f"{folder.name} {name}\n".encode())
    archive = tree.pack(folder.with_suffix(".cpio"), dot_slash=False)
    return archive + bytes(-len(archive) % 4)


def zipped(archive: bytes) -> bytes:
    packed = run(["gzip", "-n"], stdin=archive)
    return packed + bytes(-len(packed) % 4)


def two_files(folder: Path, first: list[str], second: list[str]) -> Path:
    """An ISO whose boot entry loads an initramfs with the first files and one with the second."""
    tools.require("genisoimage", "gzip")
    return disc(folder, (zipped(plain(folder / "one", *first)), zipped(plain(folder / "two", *second))))


def unpacked(iso: Path, folder: Path) -> dict[str, str]:
    """What both files unpack to one behind the other, by GNU cpio."""
    tools.require("bsdtar")
    result = dict[str, str]()
    for name in ("a.gz", "b.gz"):
        result = unpack(run(["gzip", "-dc"], stdin=run(["bsdtar", "-xOf", str(iso), name])), folder)
    return result


@pytest.mark.parametrize(("layer", "other"), [("a.gz", "b.gz"), ("b.gz", "a.gz")])
def test_what_is_removed_from_one_file_and_stays_in_another(tmp_path: Path, layer: str, other: str) -> None:
    image = two_files(tmp_path, ["etc/both", "etc/first", "opt/x/1", "init"], ["etc/both", "etc/second", "opt/x/2"])
    out = tmp_path / "out.iso"
    result = cosremaster.remaster(image, out, remove=["/etc/both", "/opt/x"], layer=layer)
    assert result.warnings == (
        f"etc/both and 1 more: as far as {other} has it, which boot entries load too, it stays in the running system"
        f" (--layer {other} removes it there)",
    )
    assert {"etc/both", "opt/x/1" if other == "a.gz" else "opt/x/2"} <= unpacked(out, tmp_path / "tree").keys()
    own = "/etc/first" if layer == "a.gz" else "/etc/second"
    assert cosremaster.remaster(image, out, remove=[own], layer=layer, force=True).warnings == ()


def late(folder: Path) -> bytes:
    """An initramfs without directories."""
    tree = Tree(folder / "late")
    tree.file("late", b"late\n")
    return zipped(tree.pack(folder / "late.cpio", dot_slash=False))


def test_directories_of_an_earlier_file(tmp_path: Path) -> None:
    """The kernel gives a directory that is there the attributes of the entry, and leaves one that is not empty."""
    image = disc(tmp_path, (zipped(plain(tmp_path / "one", "etc/conf/x", "etc/plain", "init")), late(tmp_path)))
    new = site(tmp_path / "new", "tmp/mine", "etc/conf", "etc/plain/mine")
    result = cosremaster.remaster(image, tmp_path / "out.iso", add=[new], layer="b.gz")
    conf, file, directory = result.warnings
    assert conf.startswith("etc/conf is a directory in a.gz, which boot entries load before b.gz: the kernel leaves")
    assert file.startswith("etc/plain is a file in a.gz, which boot entries load before b.gz: the kernel puts a dir")
    assert directory == (
        "tmp has the mode 1777 and the owner 0:0 in a.gz, which boot entries load before b.gz: the kernel gives it the"
        " mode 0755 and the owner 0:0 (--layer a.gz leaves it as it is)"
    )
    inside = site(tmp_path / "inside", "etc/plain", "init")
    assert cosremaster.remaster(image, tmp_path / "out2.iso", add=[inside], layer="a.gz").warnings == ()


MICROCODE = "kernel/x86/microcode/GenuineIntel.bin"


TABLE = "kernel/firmware/acpi/dsdt.aml"


@pytest.mark.parametrize(
    ("name", "later", "earlier"),
    [
        (MICROCODE, (), "that, the first"),
        (TABLE, (f"{TABLE} stands in b.gz too, which boot entries load later: the kernel takes both",), "both"),
    ],
)
def test_of_microcode_the_first_counts_and_all_tables(
    tmp_path: Path, name: str, later: tuple[str, ...], earlier: str
) -> None:
    image = disc(tmp_path, (plain(tmp_path / "one", name, "init"), plain(tmp_path / "two", name)))
    new = site(tmp_path / "new", name)
    assert cosremaster.remaster(image, tmp_path / "out.iso", add=[new], layer="a.gz").warnings == later
    result = cosremaster.remaster(image, tmp_path / "out.iso", add=[new], layer="b.gz", force=True)
    assert result.warnings == (
        f"{name} stands in a.gz too, which boot entries load before b.gz: the kernel takes {earlier}",
    )


def test_microcode_where_the_kernel_looks_for_none(tmp_path: Path) -> None:
    tools.require("gzip")
    early, other = plain(tmp_path / "early", MICROCODE), plain(tmp_path / "other", "early_cpio")
    last = zipped(plain(tmp_path / "main", "init"))
    new = site(tmp_path / "new", MICROCODE)

    def warnings(archive: bytes, layer: str = "in.img") -> tuple[str, ...]:
        (tmp_path / "in.img").write_bytes(archive)
        out = tmp_path / "out.img"
        return cosremaster.remaster(tmp_path / "in.img", out, add=[new], layer=layer, force=True).warnings

    compressed = (
        f"{MICROCODE}: the kernel looks for it before it decompresses anything, and {{}} is compressed; an archive that"
        " is not has to stand before it (cat early.cpio initrd > new)"
    )
    assert warnings(last) == (compressed.format("in.img"),)
    assert warnings(last + last) == (compressed.format("in.img::#1"),)
    assert warnings(early) == warnings(early + last) == warnings(other + early + last, "in.img::#2") == ()
    assert warnings(early + last, "in.img::#2") == (
        f"{MICROCODE}: the kernel looks for it in the first archive alone (--layer in.img::#1)",
    )
    assert warnings(early + other + last, "in.img::#2") == (
        f"{MICROCODE} stands in in.img::#1 too: the kernel takes that, the first",
    )


def test_microcode_has_the_name_that_the_kernel_looks_for(tmp_path: Path) -> None:
    """In an archive whose names begin with ./ too: the kernel compares the first bytes of a name (lib/earlycpio.c)."""
    tools.require("cpio", "fakeroot")
    tree = Tree(tmp_path / "tree")
    tree.file("init", b"i\n")
    (tmp_path / "in.cpio").write_bytes(tree.pack(tmp_path / "tree.cpio", dot_slash=True))
    new = site(tmp_path / "new", MICROCODE, "etc/site")
    cosremaster.remaster(tmp_path / "in.cpio", tmp_path / "out.cpio", add=[new])
    out = (tmp_path / "out.cpio").read_bytes()
    assert b"\0" + MICROCODE.encode() + b"\0" not in out and b"/" + MICROCODE.encode() not in out
    assert MICROCODE.encode() + b"\0" in out and b"./etc/site\0" in out
