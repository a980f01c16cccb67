"""Kernels that a menu starts by a program or a hypervisor get their arguments too, or the change is refused by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.boot_config.menus.arguments import (
    ArgumentChanges,
    KernelArgument,
    change_arguments,
    find_lost_argument,
)
from cosremaster.boot_config.menus.find import detect_language, find_menus, parse_menu
from cosremaster.boot_config.menus.model import Menu, MenuLanguage
from cosremaster.cli import main
from cosremaster.errors import UnsupportedError
from cosremaster.iso.path_text import PathText
from tests.fixtures import tools
from tests.fixtures.tools import run

ISOLINUX_BIN = Path("/usr/lib/ISOLINUX/isolinux.bin")


def read(path: bytes, data: bytes) -> Menu:
    menu = parse_menu(path, data)
    assert menu is not None
    return menu


def changed(path: bytes, data: bytes, add: tuple[str, ...] = ("new",), remove: tuple[str, ...] = ()) -> bytes:
    added, removed = (tuple(KernelArgument.parse(one) for one in texts) for texts in (add, remove))
    return change_arguments(read(path, data), ArgumentChanges(add=added, remove=removed))[0]


@pytest.mark.parametrize(("data", "want"), [
    (b"label x\n kernel mboot.c32\n append /xen.gz dom0_mem=2G --- /vmlinuz a --- /install.img\n",
     b"label x\n kernel mboot.c32\n append /xen.gz dom0_mem=2G --- /vmlinuz a new --- /install.img\n"),
    (b"DEFAULT mboot.c32 xen.gz noacpi --- linux.gz console=tty0 root=/dev/hda1 --- initrd.img\n",  # doc/mboot.txt
     b"DEFAULT mboot.c32 xen.gz noacpi --- linux.gz console=tty0 root=/dev/hda1 new --- initrd.img\n"),
    (b"LABEL x\r\n KERNEL /boot/MBOOT.C32 -aout tboot.gz --- xen.gz --- dom0 a --- initrd\r\n",
     b"LABEL x\r\n KERNEL /boot/MBOOT.C32 -aout tboot.gz --- xen.gz --- dom0 a new --- initrd\r\n"),
    (b"label x\n com32 linux.c32\n append /vmlinuz initrd=/i quiet\n",
     b"label x\n com32 linux.c32\n append /vmlinuz initrd=/i quiet new\n"),
    (b"label x\n kernel linux.c32 -dhcpinfo /vmlinuz\n", b"label x\n kernel linux.c32 -dhcpinfo /vmlinuz new\n"),
    (b"append xen.gz --- vmlinuz --- i\nlabel x\n kernel mboot.c32\n",
     b"append xen.gz --- vmlinuz new --- i\nlabel x\n kernel mboot.c32\n"),
    (b"append xen.gz --- vmlinuz --- i\ndefault mboot.c32\n",
     b"append xen.gz --- vmlinuz new --- i\ndefault mboot.c32\n"),
    # Programs that load no Linux, or choose a label, get nothing.
    (b"label x\n kernel mboot.c32\n append /gnumach --- /ext2fs\n", None),
    (b"label x\n kernel chain.c32\n append isolinux=/dev/isolinux.bin\n", None),
    (b"label x\n kernel ifcpu64.c32\n append linux64 -- linux32\nlabel linux64\nlabel linux32\n", None),
])  # fmt: skip
def test_programs_of_syslinux(data: bytes, want: bytes | None) -> None:
    assert read(b"isolinux.cfg", data).unread == ()
    assert changed(b"isolinux.cfg", data) == (want or data)
    assert changed(b"isolinux.cfg", want or data) == (want or data)


def test_modules_of_grub(tmp_path: Path) -> None:
    tools.require("grub-mkimage")  # grub-script-check comes with it
    data = b"""menuentry xcp {
  multiboot2 /boot/xen.gz dom0_mem=2G
  module2 --nounzip /boot/vmlinuz console=tty0
  module2 /install.img
}
menuentry arch { multiboot2 /xen.gz; module2 /vmlinuz-linux a; module2 --nounzip /initramfs-linux.img; }
menuentry arm {
  xen_hypervisor /boot/xen
  xen_module --nounzip /boot/dom0 root=/dev/vda
  xen_module /boot/initrd
}
menuentry hurd {
  multiboot /boot/gnumach root=hd0
  module /hurd/ext2fs.static a
}
menuentry tboot {
  multiboot2 /tboot.gz logging=serial
  module2 /xen.gz
  module2 /kernel b
  module2 /initrd
}
"""
    want = data.replace(b"console=tty0", b"console=tty0 new").replace(b"vmlinuz-linux a", b"vmlinuz-linux a new")
    want = want.replace(b"root=/dev/vda", b"root=/dev/vda new").replace(b"/kernel b", b"/kernel b new")
    assert changed(b"grub.cfg", data) == want
    (tmp_path / "grub.cfg").write_bytes(want)
    run(["grub-script-check", tmp_path / "grub.cfg"])


@pytest.mark.parametrize(("data", "want"), [
    (b"bootstate=0\ntitle=Loading ESXi installer\nkernel=/b.b00\nkernelopt=cdromBoot runweasel\nmodules=/a --- /b\n",
     b"bootstate=0\ntitle=Loading ESXi installer\nkernel=/b.b00\nkernelopt=runweasel new\nmodules=/a --- /b\n"),
    (b"kernel=/b.b00\r\nkernelopt=cdromBoot \r\nmodules=/a\r\n", b"kernel=/b.b00\r\nkernelopt=new \r\nmodules=/a\r\n"),
    (b"kernel=/b.b00\r\nkernelopt=\r\n", b"kernel=/b.b00\r\nkernelopt=new\r\n"),
    (b"kernel=b.b00\nmodules=/a\n", b"kernel=b.b00\nkernelopt=new\nmodules=/a\n"),
    (b"prefix=/x\nkernel=b\nkernelopt = a  cdromBoot b\n", b"prefix=/x\nkernel=b\nkernelopt = a b new\n"),
])  # fmt: skip
def test_esxi(data: bytes, want: bytes) -> None:
    assert detect_language(b"BOOT.CFG", data) is MenuLanguage.ESXI
    assert changed(b"BOOT.CFG", data, remove=("cdromBoot",)) == want
    assert changed(b"BOOT.CFG", want) == want


def test_xen_of_the_firmware() -> None:
    data = b"[global]\ndefault=qubes\nchain=more.cfg\n[qubes]\noptions=console=vga\nkernel=vmlinuz quiet a\nramdisk=i\n"
    menus = find_menus(PathText([b"EFI/BOOT/xen.cfg", b"EFI/BOOT/more.cfg"]), {
        b"EFI/BOOT/xen.cfg": data, b"EFI/BOOT/more.cfg": b"[global]\n[b]\nkernel=b\n"
    }.__getitem__)  # fmt: skip
    assert {menu.language for menu in menus.values()} == {MenuLanguage.XEN}
    assert changed(b"x/xen.cfg", data, remove=("quiet",)) == data.replace(b"quiet a", b"a new")


@pytest.mark.parametrize(("path", "data", "line", "label"), [
    (b"isolinux.cfg", b"label a\n kernel /k\nlabel b\n kernel other.c32\n append /vmlinuz x\n", 4, b"b"),
    (b"isolinux.cfg", b'label a\n kernel /k x="y\n append z\n', 2, b"a"),
    (b"grub.cfg", b"menuentry a {\n linux /k a\n linux /k 'b\n}\n", 3, b""),
    (b"boot.cfg", b'kernel=k\nkernelopt=a "b\n', 2, b""),
])  # fmt: skip
def test_lines_that_are_not_understood(path: bytes, data: bytes, line: int, label: bytes) -> None:
    (unread,) = read(path, data).unread
    assert (unread.number, unread.label) == (line, label)


def test_an_open_quote_in_a_file_without_kernels_stops_nothing() -> None:
    assert read(b"boot/theme.conf", b"set theme=x\nsource it's\n").unread == ()
    assert read(b"boot/theme.conf", b"set theme=x\nsource it's\n linux /k\n").unread != ()


@pytest.mark.parametrize(("path", "data", "want"), [
    (b"isolinux.cfg", b'label a\n kernel /k\n append a b="c d\n', b'label a\n kernel /k\n append a new b="c d\n'),
    (b"isolinux.cfg", b'label a\n kernel /k\n append "c --- d\n', b'label a\n kernel /k\n append new "c --- d\n'),
    (b"loader/entries/a.conf", b'linux /k\noptions a "b\noptions c\n', b'linux /k\noptions a new "b\noptions c\n'),
    (b"grub.cfg", b'linux /k a\\"b c\n', b'linux /k new a\\"b c\n'),
])  # fmt: skip
def test_an_open_quote_swallows_no_argument(path: bytes, data: bytes, want: bytes) -> None:
    """What goes behind a quote that does not end belongs to it (lib/cmdline.c, next_arg), so it goes before it."""
    assert changed(path, data) == want
    assert changed(path, want) == want, "again: nothing changes"


@pytest.mark.parametrize(("path", "data"), [
    (b"isolinux.cfg", b'label a\n kernel linux.c32 /k"\n'), (b"grub.cfg", b"linux /k a\\"),
    (b"xen.cfg", b'[global]\n[a]\nkernel=k"\n'), (b"loader/entries/a.conf", b"linux /k\noptions a\noptions b\n"),
    (b"isolinux.cfg", b"label a\n kernel /k a -- b\n append c\n"),  # init would get it
])  # fmt: skip
def test_an_argument_that_would_be_lost_is_noticed(path: bytes, data: bytes) -> None:
    menu, changes = read(path, data), ArgumentChanges(add=(KernelArgument.parse("new"),))
    again = read(path, change_arguments(menu, changes)[0])
    assert find_lost_argument(menu, again, changes) == (None if path.endswith(b".conf") else again.lines[0].number)


def make_iso(folder: Path, files: dict[str, bytes]) -> Path:
    tools.require("genisoimage", "isoinfo")
    for name, data in files.items():
        path = folder / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    run(["genisoimage", "-quiet", "-R", "-o", folder / "in.iso", folder / "tree"])
    return folder / "in.iso"


def taken_out(iso: Path, name: str) -> bytes:
    return run(["isoinfo", "-R", "-i", iso, "-x", f"/{name}"])


def test_xen_and_esxi_media(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boot = b"title=ESXi\r\nkernel=/b.b00\r\nkernelopt=runweasel\r\nmodules=/jumpstrt.gz\r\n"
    iso = make_iso(tmp_path, {
        "vmlinuz": bytes(9000),
        "isolinux/isolinux.cfg": b"LABEL x\n  KERNEL mboot.c32\n  APPEND /xen.gz --- /vmlinuz a --- /install.img\n"
        b"LABEL esxi\n  KERNEL mboot.c32\n  APPEND -c boot.cfg\n",
        "EFI/grub.cfg": b"menuentry i {\n multiboot2 /xen.gz\n module2 /vmlinuz a\n module2 /install.img\n}\n",
        "BOOT.CFG": boot, "EFI/BOOT/BOOT.CFG": boot,
    })  # fmt: skip
    out = tmp_path / "out.iso"
    assert main([str(iso), str(out), "--kernel-arg", "install"]) == 0
    said = capsys.readouterr().out
    for name in ("BOOT.CFG", "EFI/BOOT/BOOT.CFG", "EFI/grub.cfg", "isolinux/isolinux.cfg"):
        assert f"boot menu {name}: 1 of 1 kernel lines changed" in said
    assert b"/vmlinuz a install --- /install.img\n" in taken_out(out, "isolinux/isolinux.cfg")
    assert b" module2 /vmlinuz a install\n" in taken_out(out, "EFI/grub.cfg")
    assert taken_out(out, "EFI/BOOT/BOOT.CFG") == taken_out(out, "BOOT.CFG")
    assert b"kernelopt=runweasel install\r\n" in taken_out(out, "BOOT.CFG")


def test_a_menu_that_is_not_understood_stops_the_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso = make_iso(tmp_path, {
        "isolinux/isolinux.cfg": b"LABEL a\n KERNEL /vmlinuz\nLABEL odd\n COM32 other.c32\n APPEND /vmlinuz a\n",
        "boot/grub/menu.lst": b"title a\nkernel /vmlinuz\n",
    })  # fmt: skip
    out = tmp_path / "out.iso"
    with pytest.raises(UnsupportedError, match=r"isolinux/isolinux.cfg line 4 \(odd\) starts a kernel by other.c32"):
        remaster(iso, out, kernel_args=["x"])
    assert not out.exists()
    assert main(["inspect", str(iso)]) == 0
    assert "  line 4 (odd): starts a kernel by other.c32" in capsys.readouterr().out
    (tmp_path / "menu").write_bytes(b"LABEL a\n KERNEL /vmlinuz\n")
    result = remaster(iso, out, kernel_args=["x"], add_iso=[f"{tmp_path / 'menu'}:/isolinux/isolinux.cfg"])
    assert taken_out(out, "isolinux/isolinux.cfg") == b"LABEL a\n KERNEL /vmlinuz\n APPEND x\n"
    assert any("boot/grub/menu.lst is a menu of GRUB Legacy" in warning for warning in result.warnings)
