"""Unified kernel images, made with objcopy and systemd's stub as systemd-stub(7) says: named, never changed unsaid."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from cosremaster import InlineFile, remaster
from cosremaster.boot.uki import read_unified_kernel
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.esp import APPENDED, KERNEL, make_fat, pack_initramfs, write_tree

STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
TOOLS = ("xorriso", "mkfs.fat", "mcopy", "cpio", "objcopy", "objdump", STUB)
RELEASE = b'NAME="Site"\nPRETTY_NAME="Site Linux 7"\n'
ARGUMENTS = "root=live:CDLABEL=A quiet"


def make_unified(folder: Path, initramfs: bytes | None) -> bytes:
    """A unified kernel image, with sections one behind the other as the manual page has them."""
    folder.mkdir()
    parts = {".osrel": RELEASE, ".cmdline": ARGUMENTS.encode() + b"\0", ".linux": KERNEL}
    parts |= {} if initramfs is None else {".initrd": initramfs}
    argv, address = ["objcopy"], 0x2000000
    for name, data in parts.items():
        (folder / name[1:]).write_bytes(data)
        argv += ["--add-section", f"{name}={folder / name[1:]}", "--change-section-vma", f"{name}={address:#x}"]
        address += -(-len(data) // 0x10000) * 0x10000
    run([*argv, STUB, folder / "unified.efi"])
    return (folder / "unified.efi").read_bytes()


def make_image(folder: Path, *, on_tree: dict[str, bytes], in_fat: dict[str, bytes]) -> Path:
    esp = make_fat(folder / "esp.img", write_tree(folder / "esp", in_fat))
    tree = write_tree(folder / "tree", {"readme": b"readme\n", **on_tree})
    words = [str(esp) if word == "ESP" else word for word in APPENDED]
    run(["xorriso", "-as", "mkisofs", "-r", "-V", "A", *words, "-o", folder / "made.iso", tree])
    return folder / "made.iso"


@pytest.fixture
def unified(tmp_path: Path) -> bytes:
    tools.require(*TOOLS)
    return make_unified(tmp_path / "unified", pack_initramfs(tmp_path / "root"))


def test_sections_are_where_objdump_sees_them(unified: bytes, tmp_path: Path) -> None:
    found = read_unified_kernel(lambda at, length: unified[at : at + length])
    assert found is not None
    (tmp_path / "it.efi").write_bytes(unified)
    lines = [line.split() for line in run(["objdump", "-h", tmp_path / "it.efi"]).decode().splitlines()]
    listed = {words[1]: (int(words[5], 16), int(words[2], 16)) for words in lines if words and words[0].isdigit()}
    for name in (".linux", ".initrd", ".cmdline", ".osrel"):
        assert found.sections[name][0] == listed[name][0]
        start, size = found.sections[name]
        assert unified[start : start + size] == (tmp_path / "unified" / name[1:]).read_bytes()
    assert (found.arguments, found.system) == (ARGUMENTS, "Site Linux 7")
    stub = Path(STUB).read_bytes()
    assert read_unified_kernel(lambda at, length: stub[at : at + length]) is None


def test_inspect_names_them(unified: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only_kernel = make_unified(tmp_path / "without", None)
    iso = make_image(tmp_path, on_tree={"EFI/a.efi": only_kernel}, in_fat={"EFI/Linux/arch.efi": unified})
    assert main(["inspect", str(iso), "--json"]) == 0
    kernels = json.loads(capsys.readouterr().out)["unified_kernels"]
    initramfs = (tmp_path / "unified" / "initrd").stat().st_size
    same = {"system": "Site Linux 7", "kernel": len(KERNEL), "arguments": ARGUMENTS}
    assert kernels == [
        {"name": "EFI/a.efi", "initramfs": 0, **same},
        {"name": "MBR partition 2 » EFI/Linux/arch.efi", "initramfs": initramfs, **same},
    ]
    assert main(["inspect", str(iso)]) == 0
    line = f"kernel 19.5 KiB, initramfs {initramfs} B, arguments {ARGUMENTS} (Site Linux 7)"
    assert f"unified kernel image MBR partition 2 » EFI/Linux/arch.efi: {line}" in capsys.readouterr().out


def test_refusals_name_them(unified: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso, out = make_image(tmp_path, on_tree={}, in_fat={"EFI/Linux/arch.efi": unified}), tmp_path / "out.iso"
    write_tree(tmp_path / "add", {"etc/site": b"7"})
    assert main([str(iso), str(out), "--add", str(tmp_path / "add")]) == 6
    name = "MBR partition 2 » EFI/Linux/arch.efi"
    assert f"{name}: a unified kernel image with its initramfs inside, which is not supported yet" in (
        capsys.readouterr().err
    )
    assert main([str(iso), str(out), "--kernel-arg", "site=7"]) == 7
    assert f"no kernel argument can change ({name}: kernel and arguments in one program)" in capsys.readouterr().err
    assert not out.exists()


def test_an_initramfs_in_a_file_system_alone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require(*TOOLS)
    files = {"boot/initramfs.img": pack_initramfs(tmp_path / "root"), "boot/vmlinuz": KERNEL}
    iso = make_image(tmp_path, on_tree={}, in_fat=files)
    write_tree(tmp_path / "add", {"etc/site": b"7"})
    assert main([str(iso), str(tmp_path / "out.iso"), "--add", str(tmp_path / "add")]) == 6
    message = "@mbr2::boot/initramfs.img: in a FAT file system (--add-iso can exchange it as a whole), which is not"
    assert message in capsys.readouterr().err


def test_old_parts_inside_are_told(unified: bytes, tmp_path: Path) -> None:
    initramfs = (tmp_path / "unified" / "initrd").read_bytes()
    files = {"boot/vmlinuz": KERNEL, "boot/initramfs.img": initramfs}
    iso = make_image(tmp_path, on_tree={**files, "EFI/Linux/arch.efi": unified}, in_fat={"other.efi": unified})
    names = ("EFI/Linux/arch.efi", "MBR partition 2 » other.efi")
    result = remaster(iso, tmp_path / "1.iso", add=[InlineFile("/etc/site", b"7")], layer="boot/initramfs.img")
    wanted = [f"{name}, a unified kernel image, keeps the old boot/initramfs.img inside" for name in names]
    assert [warning for warning in result.warnings if "unified" in warning] == wanted
    result = remaster(iso, tmp_path / "2.iso", add_iso=[InlineFile("/boot/vmlinuz", b"new")])
    wanted = [f"{name}, a unified kernel image, keeps the old boot/vmlinuz inside" for name in names]
    assert [warning for warning in result.warnings if "unified" in warning] == wanted
    (tmp_path / "menu").mkdir()
    assert remaster(iso, tmp_path / "3.iso", add_iso=[InlineFile("/readme", b"new")]).warnings == ()


def test_damage_is_no_crash() -> None:
    chance = random.Random(9)
    whole = bytearray(chance.randbytes(700))
    whole[:2], whole[0x3C:0x40], whole[128:132] = b"MZ", (128).to_bytes(4, "little"), b"PE\0\0"
    whole[134:136], whole[148:150] = (3).to_bytes(2, "little"), bytes(2)
    for number, name in enumerate((b".linux", b".cmdline", b".osrel")):
        whole[152 + 40 * number : 160 + 40 * number] = name.ljust(8, b"\0")
    assert read_unified_kernel(lambda at, length: bytes(whole[at : at + length])) is not None
    for _ in range(500):
        raw = bytearray(whole[: chance.choice([700, 700, chance.randrange(700)])])
        for _ in range(chance.randrange(6) if raw else 0):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        found = read_unified_kernel(lambda at, length, raw=raw: bytes(raw[at : at + length]))  # type: ignore[misc]
        assert found is None or ".linux" in found.sections
