"""What an edit of one initramfs does to those that the kernel unpacks before it or behind it is told, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import Tree, run

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
