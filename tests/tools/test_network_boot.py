"""export --pxe writes what an entry of the image's own boot menu loads, with its arguments, or says why it cannot."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.demo.image import build_archive, initramfs, regular
from tests.fixtures import tools
from tests.fixtures.tools import run

KERNEL = b"MZ" + bytes(0x200) + b"HdrS" + bytes(3000)
XEN = b"\x7fELF" + bytes(96) + (0x1BADB002).to_bytes(4, "little") + bytes(500)
UCODE = build_archive([regular(b"kernel/x86/microcode/GenuineIntel.bin", b"u" * 100)])


def make(folder: Path, menus: dict[str, str], files: dict[str, bytes] | None = None) -> Path:
    tools.require("genisoimage")
    data = {"vmlinuz": KERNEL, "initrd.img": initramfs(), **(files or {})}
    for name, content in {**data, **{name: text.encode() for name, text in menus.items()}}.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(content)
    run(["genisoimage", "-quiet", "-R", "-o", folder / "in.iso", folder / "tree"])
    return folder / "in.iso"


def exported(iso: Path, *words: str) -> list[str]:
    """The lines of the script."""
    folder = iso.parent / f"tftp{len(list(iso.parent.iterdir()))}"
    assert main(["export", str(iso), "--pxe", str(folder), "--quiet", *words]) == 0
    lines = (folder / "boot.ipxe").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("#!ipxe", "boot")
    assert {line.split()[1] for line in lines[1:-1]} == {
        path.name for path in folder.iterdir() if path.name != "boot.ipxe"
    }
    return lines[1:-1]


GRUB = """set default="live"
set extra="a=1 b=2"
menuentry 'Text' { linux /vmlinuz text; initrd /initrd.img; }
menuentry "Live" --id live {
  linux ($root)/vmlinuz coreos.liveiso=x ignition.firstboot $extra $unset "dyndbg=file a +p" --- quiet
  initrd /ucode.img /initrd.img
}
menuentry "Memory" { linux16 /memtest86+.bin; }
"""
LIVE = ["kernel vmlinuz initrd=ucode.img initrd=initrd.img coreos.liveiso=x ignition.firstboot a=1 b=2"
        ' "dyndbg=file a +p" --- quiet', "initrd ucode.img", "initrd initrd.img"]  # fmt: skip
TEXT = ["kernel vmlinuz initrd=initrd.img text", "initrd initrd.img"]


def test_entries_of_grub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso = make(tmp_path, {"boot/grub/grub.cfg": GRUB}, {"ucode.img": UCODE, "other/vmlinuz": KERNEL})
    assert exported(iso) == LIVE
    assert "boot entry: Live, live (boot/grub/grub.cfg)" in capsys.readouterr().out
    assert exported(iso, "--entry", "live") == exported(iso, "--entry", "2") == LIVE
    assert exported(iso, "--entry", "TEXT") == exported(iso, "--entry", "1") == TEXT
    assert main(["export", str(iso), "--pxe", "no", "--entry", "nothing"]) == 2
    said = capsys.readouterr().err
    assert "no boot entry is called 'nothing'" in said
    assert "1 Text (boot/grub/grub.cfg); 2 Live, live (boot/grub/grub.cfg)" in said
    assert main(["export", str(iso), "--maas", "x", "--entry", "1"]) == 2


def test_variables_of_several_words_in_grub(tmp_path: Path) -> None:
    """SliTaz loads its parts so; GRUB takes an unquoted variable apart, and knows assignments without ``set``."""
    menu = (
        'set images=/ucode.img\nif true; then\nimages="${images} /initrd.img"\nfi\n'
        "menuentry x { linux /vmlinuz quiet; initrd $images $unset; }\n"
    )
    iso = make(tmp_path, {"boot/grub/grub.cfg": menu}, {"ucode.img": UCODE})
    assert exported(iso) == [
        "kernel vmlinuz initrd=ucode.img initrd=initrd.img quiet", "initrd ucode.img", "initrd initrd.img"
    ]  # fmt: skip


def test_entries_of_syslinux(tmp_path: Path) -> None:
    main_menu = "DEFAULT vesamenu.c32\nINCLUDE menu.cfg\n"
    menu = (
        "label text\n  menu label ^Text mode\n  kernel /vmlinuz\n  append initrd=/initrd.img text\n"
        'label live\n  menu default\n  linux ../vmlinuz a\n  initrd /ucode.img,/initrd.img\n  append b="c d" quiet\n'
        "label disk\n  localboot 0x80\n  text help\n   Kernel and\n   initrd of no menu\n  endtext\n"
        "label more\n  linux /vmlinuz\n  initrd /initrd.img\n  text help\n\tInitrd /lost\n  endtext\n"
    )
    iso = make(tmp_path, {"isolinux/isolinux.cfg": main_menu, "isolinux/menu.cfg": menu}, {"ucode.img": UCODE})
    live = [
        'kernel vmlinuz initrd=ucode.img initrd=initrd.img a b="c d" quiet',
        "initrd ucode.img",
        "initrd initrd.img",
    ]
    assert exported(iso) == live
    assert exported(iso, "--entry", "Text mode") == TEXT
    assert exported(iso, "--entry", "more") == ["kernel vmlinuz initrd=initrd.img", "initrd initrd.img"]


def test_the_default_label_of_a_menu_that_includes_it(tmp_path: Path) -> None:
    menus = {
        "isolinux/isolinux.cfg": "include live.cfg\ndefault second\n",
        "isolinux/live.cfg": "label first\nkernel /vmlinuz\nappend initrd=/initrd.img 1\n"
        "label second\nkernel /vmlinuz\nappend initrd=/gtk/initrd.img 2\n",
    }
    iso = make(tmp_path, menus, {"gtk/initrd.img": initramfs()})
    assert exported(iso) == ["kernel vmlinuz initrd=initrd.img 2", "initrd initrd.img"]


def test_loader_entries(tmp_path: Path) -> None:
    entry = "title Arch\nlinux\t/vmlinuz\ninitrd \t /gtk/initrd.img\ninitrd /initrd.img\noptions\tquiet\noptions x=1\n"
    iso = make(tmp_path, {"loader/entries/a.conf": entry}, {"gtk/initrd.img": initramfs()})
    assert exported(iso) == [
        "kernel vmlinuz initrd=initrd.img initrd=other_initrd.img quiet x=1", "initrd initrd.img",
        "initrd other_initrd.img",
    ]  # fmt: skip


@pytest.mark.parametrize("menu", [
    ("isolinux/isolinux.cfg", "LABEL i\n KERNEL mboot.c32\n APPEND /xen.gz dom0_mem=2G --- /vmlinuz console=tty0 ---"
     " /initrd.img\n"),
    ("boot/grub/grub.cfg", "menuentry i {\n multiboot2 /xen.gz dom0_mem=2G\n module2 --nounzip /vmlinuz console=tty0\n"
     " module2 /initrd.img\n}\n"),
])  # fmt: skip
def test_hypervisors(tmp_path: Path, menu: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Xen unpacked, because not every iPXE unpacks it, and by Multiboot 1, which it knows alone."""
    iso = make(tmp_path, dict([menu]), {"xen.gz": gzip.compress(XEN)})
    lines = exported(iso)
    assert lines == ["kernel xen dom0_mem=2G", "module vmlinuz console=tty0", "module initrd.img"]
    assert next(tmp_path.glob("tftp*/xen")).read_bytes() == XEN
    iso = make(tmp_path, {}, {"xen.gz": gzip.compress(bytes(5000))})
    assert main(["export", str(iso), "--pxe", str(tmp_path / "no")]) == 5
    assert "xen.gz has no Multiboot 1 header, so iPXE cannot start it" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_esxi_is_no_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    menu = "LABEL install\n  KERNEL mboot.c32\n  APPEND -c boot.cfg\n"
    iso = make(tmp_path, {"isolinux.cfg": menu, "boot.cfg": "kernel=/b\nmodules=/c\n"}, {"vmlinuz": b"none"})
    assert main(["export", str(iso), "--pxe", str(tmp_path / "no")]) == 6
    assert "has no Linux kernel" in capsys.readouterr().err


@pytest.mark.parametrize("argument", [
    "|| chain http://evil/", "a && b", "${net0/mac}", "x=${y}", "a ; b", "a #b", 'a="b  c"', 'a="b || c"', "a=\x01b",
])  # fmt: skip
def test_arguments_that_are_commands_to_ipxe(tmp_path: Path, argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    menu = f"label x\nkernel /vmlinuz\nappend initrd=/initrd.img {argument}\n"
    menu += "label y\nkernel /vmlinuz\ninitrd /initrd.img\n"
    iso = make(tmp_path, {"isolinux/isolinux.cfg": menu})
    assert main(["export", str(iso), "--pxe", str(tmp_path / "no")]) == 5
    assert "which iPXE would take for something else" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert exported(iso, "--entry", "y") == ["kernel vmlinuz initrd=initrd.img", "initrd initrd.img"]


@pytest.mark.parametrize(
    "argument", ["a|b", "x=#1", "$y", "a;b", "x&&y", "it's", 'a="b c"', "root=live:CDLABEL=A\\x20B"]
)
def test_arguments_that_are_none(tmp_path: Path, argument: str) -> None:
    menu = f"label x\nkernel /vmlinuz\nappend initrd=/initrd.img {argument}\n"
    lines = exported(make(tmp_path, {"isolinux/isolinux.cfg": menu}))
    assert lines[0] == f"kernel vmlinuz initrd=initrd.img {argument}"


def test_without_a_menu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The only kernel, the only initramfs; an archive of microcode is none, and comes before it."""
    iso = make(tmp_path, {}, {"early.img": UCODE})
    assert exported(iso) == [
        "kernel vmlinuz initrd=early.img initrd=initrd.img", "initrd early.img",
        "initrd initrd.img",
    ]  # fmt: skip
    assert "its arguments are to be added to boot.ipxe" in capsys.readouterr().out
    assert main(["export", str(iso), "--pxe", str(tmp_path / "no"), "--entry", "x"]) == 2
    iso = make(tmp_path, {}, {"second.img": initramfs()})
    assert main(["export", str(iso), "--pxe", str(tmp_path / "no")]) == 6
    assert "has several files that may be the initramfs: " in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso = make(tmp_path, {"boot/grub/grub.cfg": "menuentry x { linux /vmlinuz; initrd /lost.img; }\n"})
    assert main(["export", str(iso), "--pxe", str(tmp_path / "no")]) == 6
    assert "the boot entry x (boot/grub/grub.cfg) loads /lost.img, which is not there" in capsys.readouterr().err
