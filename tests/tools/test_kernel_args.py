"""Kernel arguments changed in every boot menu of an image: on its tree, and in each copy of its EFI image's FAT."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.cli import main
from cosremaster.errors import CosremasterError, OverlayError, UsageError
from cosremaster.verification.run import verify
from tests.fixtures import debirf, families, tools
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.kernel_args import ARGS, FAT_MENU, FAT_PATH, OPTIONS, Made, extracted
from tests.support.small import packed_root, read_volume, write_small


def fat_copies(iso: Path, folder: Path) -> list[Path]:
    """Every copy of the EFI image: the file on the tree, and the appended partition as sfdisk tells of it."""
    copies = [folder / f"{iso.stem}-tree.img", folder / f"{iso.stem}-partition.img"]
    copies[0].write_bytes(extracted(iso, "EFI/efiboot.img", folder / "one"))
    table = json.loads(run(["sfdisk", "--json", iso]))["partitiontable"]["partitions"]
    (one,) = [each for each in table if each["type"] == "ef"]
    with iso.open("rb") as file:
        file.seek(one["start"] * 512)
        copies[1].write_bytes(file.read(one["size"] * 512))
    return copies


def test_the_menu_says_what_was_asked_for(plain: Made, tmp_path: Path) -> None:
    before, after = (extracted(iso, "boot/grub/grub.cfg", tmp_path / "one") for iso in (plain.old, plain.new))
    assert after == before.replace(b"panic=-1 quiet", b'panic=30 site=7 "dyndbg=file a +p"')
    report = verify(plain.new, against=plain.old, changed=[b"boot/grub/grub.cfg", debirf.CGZ.encode()])
    assert [one.message for one in report.findings if one.is_counted] == []


def test_a_menu_in_the_fat_changes_in_both_copies(with_fat_menu: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    assert main([str(with_fat_menu), str(out), *OPTIONS]) == 0
    wanted = FAT_MENU.replace("panic=-1 quiet", 'panic=30 site=7 "dyndbg=file a +p"').encode()
    copies = fat_copies(out, tmp_path)
    for copy in copies:
        assert run(["mtype", "-i", copy, f"::/{FAT_PATH}"]) == wanted
        assert run(["mtype", "-i", copy, "::/EFI/BOOT/only-here"]) == FAT_MENU.encode()
        run(["fsck.fat", "-n", copy])
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert verify(out, against=with_fat_menu, changed=[b"boot/grub/grub.cfg", FAT_PATH.encode()]).ok
    report = verify(out, against=with_fat_menu, changed=[b"boot/grub/grub.cfg"])
    assert [one.check for one in report.findings if one.is_counted] == ["against.boot", "against.partition"]
    assert judges.complaints(out) <= judges.complaints(with_fat_menu)
    assert judges.report_without_numbers(out) == judges.report_without_numbers(with_fat_menu)


def test_a_copy_that_moves_changes_where_it_comes_to_stand(with_fat_menu: Path, tmp_path: Path) -> None:
    """A longer file pushes the appended partition back, in the run that changes the menu in it."""
    kernel, out = tmp_path / "kernel", tmp_path / "out.iso"
    kernel.write_bytes(bytes(30_000_000))
    remaster(with_fat_menu, out, add_iso=[f"{kernel}:/vmlinuz"], **ARGS)  # type: ignore[arg-type]
    tree, partition = fat_copies(out, tmp_path)
    assert tree.read_bytes() == partition.read_bytes()
    assert b"panic=30" in run(["mtype", "-i", partition, f"::/{FAT_PATH}"])
    changed = [b"vmlinuz", b"boot/grub/grub.cfg", FAT_PATH.encode()]
    report = verify(out, against=with_fat_menu, changed=changed)
    assert [(one.check, one.message) for one in report.findings if one.is_counted] == []


def test_the_same_twice_is_left_alone_and_said(plain: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = tmp_path / "again.iso"
    assert main([str(plain.new), str(again), "--kernel-arg", "site=7"]) == 0
    assert "boot menu boot/grub/grub.cfg: 0 of 1 kernel lines changed, 1 had what was to be added" in (
        capsys.readouterr().out
    )
    run(["cmp", plain.new, again])


def test_an_argument_that_is_nowhere(plain: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.iso"
    words = [str(plain.old), str(out), "--remove-kernel-arg", "quite", "--replace-kernel-arg", "a=b=c"]
    assert main(words) == 7
    assert "no boot menu has the kernel argument quite or a=b" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, "--allow-missing"]) == 0
    run(["cmp", plain.old, out])


def test_inspect_and_plan_tell(with_fat_menu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(with_fat_menu)]) == 0
    said = capsys.readouterr().out
    assert "boot menu boot/grub/grub.cfg: GRUB\n  line 8: /vmlinuz: console=ttyS0 panic=-1 quiet\n" in said
    for name in ("EFI/efiboot.img", "MBR partition 2"):
        assert f"boot menu {name} » {FAT_PATH}: GRUB\n  line 3: /vmlinuz: console=ttyS0 panic=-1 quiet\n" in said
    assert main(["inspect", "--json", str(with_fat_menu)]) == 0
    menus = json.loads(capsys.readouterr().out)["menus"]
    kernel = {"line": 3, "kernel": "/vmlinuz", "arguments": ["console=ttyS0", "panic=-1", "quiet"]}
    assert menus[1:] == [
        {"path": FAT_PATH, "fat": fat, "kind": "grub", "kernels": [kernel], "unread": []}
        for fat in ("EFI/efiboot.img", "MBR partition 2")
    ]
    assert main(["plan", "--json", str(with_fat_menu), *OPTIONS]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [one["where"] for one in plan["menus"]] == [
        "boot/grub/grub.cfg", f"EFI/efiboot.img » {FAT_PATH}", f"MBR partition 2 » {FAT_PATH}"
    ]  # fmt: skip
    assert plan["menus"][0]["lines"] == [
        {"line": 8, "added": ["site=7", "dyndbg=file a +p"], "removed": ["quiet"],
         "replaced": [["panic=-1", "panic=30"]], "kept": []}
    ]  # fmt: skip
    assert plan["overwritten"]
    assert main(["plan", str(with_fat_menu), *OPTIONS]) == 0
    assert f"boot menu MBR partition 2 » {FAT_PATH}: 1 of 1 kernel lines changed" in capsys.readouterr().out


# --- the families --------------------------------------------------------------------------------------------------

GRUB_MENU = b"menuentry x {\r\n  linux /vmlinuz quiet \\\r\n  panic=-1\r\n}\r\n"
SYSLINUX_MENU = b"DEFAULT a\r\nLABEL a\r\n  KERNEL /vmlinuz\r\n  APPEND panic=-1 quiet --- vga=1\r\n"
MENUS: dict[str, dict[str, bytes]] = {
    "debian": {"boot/says.cfg": GRUB_MENU, "isolinux/says.cfg": SYSLINUX_MENU},
    "ubuntu": {"boot/says.cfg": GRUB_MENU},
    "fedora": {"isolinux/says.cfg": SYSLINUX_MENU, "boot/says.cfg": GRUB_MENU},
    "isohybrid": {"isolinux/says.cfg": SYSLINUX_MENU},
    "grub-mkrescue": {"boot/says.cfg": GRUB_MENU},
}
CHANGED = {
    GRUB_MENU: b'menuentry x {\r\n  linux /vmlinuz \\\r\n  panic=30 site=7 "dyndbg=file a +p"\r\n}\r\n',
    SYSLINUX_MENU: SYSLINUX_MENU.replace(b"panic=-1 quiet", b'panic=30 site=7 dyndbg="file a +p"'),
}


@pytest.mark.parametrize("name", MENUS)
def test_menus_of_every_family(name: str, tmp_path: Path) -> None:
    tools.require(*families.TOOLS, *judges.TOOLS)
    iso, old, out, once = families.build(name), tmp_path / "old.iso", tmp_path / "out.iso", tmp_path / "once.iso"
    adds = []
    for number, (path, data) in enumerate(MENUS[name].items()):
        (tmp_path / str(number)).write_bytes(data)
        adds.append(f"{tmp_path / str(number)}:/{path}")
    drop = name == "grub-mkrescue"
    remaster(iso, old, add_iso=adds, drop_hfsplus=drop)
    result = remaster(old, out, **ARGS)  # type: ignore[arg-type]
    assert {one.label for one in result.menus if one.changed_count} == MENUS[name].keys()
    # In one run with the exchange: the same menus, because they are changed as they come.
    remaster(iso, once, add_iso=adds, drop_hfsplus=drop, **ARGS)  # type: ignore[arg-type]
    for path, data in MENUS[name].items():
        assert extracted(out, path, tmp_path / "one") == CHANGED[data]
        assert extracted(once, path, tmp_path / "one") == CHANGED[data]
    report = verify(out, against=old, changed=[path.encode() for path in MENUS[name]])
    assert [(one.check, one.message) for one in report.findings if one.is_counted] == []
    assert judges.complaints(out) <= judges.complaints(old)


@pytest.mark.parametrize("name", ["debian", "fedora", "ubuntu"])
def test_the_fat_of_every_family(name: str, tmp_path: Path) -> None:
    """The EFI image is a file that a partition and an El Torito entry name too, or an appended partition alone."""
    tools.require(*families.TOOLS, *judges.TOOLS, "mcopy", "mkfs.fat")
    iso, out, fat = tmp_path / "in.iso", tmp_path / "out.iso", tmp_path / "efi.img"
    raw = bytearray(families.build(name).read_bytes())
    boot = next(one for one in read_volume(families.build(name)).boot_images if one.entry.platform == 0xEF)
    start, length = boot.entry.lba * 2048, 5760 * 512
    fat.write_bytes(raw[start : start + length])
    (tmp_path / "menu").write_bytes(GRUB_MENU)
    (tmp_path / "entry").write_bytes(b"title x\nlinux /vmlinuz\noptions panic=-1 quiet\n")
    run(["mmd", "-i", fat, "::/loader", "::/loader/entries", "::/EFI/Linux"])
    for source, path in (
        ("menu", "EFI/BOOT/grub.cfg"),
        ("entry", "loader/entries/x.conf"),
        ("menu", "EFI/Linux/u.efi"),
    ):
        run(["mcopy", "-i", fat, tmp_path / source, f"::/{path}"])
    raw[start : start + length] = fat.read_bytes()
    iso.write_bytes(raw)
    if name == "fedora":
        run(["implantisomd5", "-f", iso])
    result = remaster(iso, out, **ARGS)  # type: ignore[arg-type]
    assert sum("EFI/Linux/u.efi is a kernel with arguments of its own" in one for one in result.warnings) == 1
    with out.open("rb") as file:
        file.seek(start)
        fat.write_bytes(file.read(length))
    run(["fsck.fat", "-n", fat])
    assert run(["mtype", "-i", fat, "::/EFI/BOOT/grub.cfg"]) == CHANGED[GRUB_MENU]
    entry = run(["mtype", "-i", fat, "::/loader/entries/x.conf"])
    assert entry == b'title x\nlinux /vmlinuz\noptions panic=30 site=7 dyndbg="file a +p"\n'
    report = verify(out, against=iso, changed=[b"EFI/BOOT/grub.cfg", b"loader/entries/x.conf"])
    assert [(one.check, one.message) for one in report.findings if one.is_counted] == []
    assert judges.complaints(out) <= judges.complaints(iso)


def test_what_cannot_be(tmp_path: Path) -> None:
    small = write_small(tmp_path, extra={"note.txt": b"x"})
    bare = tmp_path / "bare.cgz"
    bare.write_bytes(packed_root())
    with pytest.raises(UsageError, match="is no ISO: it has no boot menus"):
        remaster(bare, tmp_path / "out", kernel_args=["a"])
    tools.require(*families.TOOLS)
    with pytest.raises(OverlayError, match="has no boot menu that names a kernel"):
        remaster(families.build("data-both"), tmp_path / "out", kernel_args=["a"])
    with pytest.raises(UsageError, match="follows --volume-id or --volume-date"):
        remaster(small, tmp_path / "out", retarget=True)
    assert not (tmp_path / "out").exists()


def test_the_same_bytes_whatever_is_around(with_fat_menu: Path, tmp_path: Path) -> None:
    outs = []
    for number, zone in enumerate(("UTC", "Pacific/Auckland")):
        out = tmp_path / f"{number}.iso"
        environment = {**os.environ, "TZ": zone, "LC_ALL": "C"}
        argv = [
            "cosremaster",
            str(with_fat_menu),
            str(out),
            *OPTIONS,
            "--volume-date",
            "2026-11-26T12:00:00Z",
            "--quiet",
        ]
        code = f"import sys; from cosremaster.cli import main; sys.exit(main({argv[1:]!r}))"
        subprocess.run([os.sys.executable, "-c", code], env=environment, check=True)  # type: ignore[attr-defined]
        outs.append(out.read_bytes())
    assert outs[0] == outs[1]


def test_a_damaged_fat_is_told_and_the_rest_changes(
    with_fat_menu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The directory EFI of the copy on the tree leads to itself."""
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    raw = bytearray(with_fat_menu.read_bytes())
    tree = fat_copies(with_fat_menu, tmp_path)[0].read_bytes()
    start, entry = raw.index(tree), tree.index(b"BOOT       \x10")
    raw[start + entry + 26 : start + entry + 28] = tree[entry - 2 * 32 + 26 : entry - 2 * 32 + 28]
    iso.write_bytes(raw)
    warning = "EFI/efiboot.img: boot menus in it, if there are any, stay as they are"
    assert main(["inspect", str(iso)]) == 0
    assert warning in capsys.readouterr().out
    assert main([str(iso), str(out), *OPTIONS]) == 0
    said = capsys.readouterr()
    assert warning in said.err
    assert f"boot menu MBR partition 2 » {FAT_PATH}: 1 of 1" in said.out


def test_a_fat_without_room_is_told(with_fat_menu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso, fat = tmp_path / "in.iso", tmp_path / "fat.img"
    raw = bytearray(with_fat_menu.read_bytes())
    fat.write_bytes(fat_copies(with_fat_menu, tmp_path)[0].read_bytes())
    start = raw.index(fat.read_bytes())
    (tmp_path / "menu").write_bytes(FAT_MENU.encode().ljust(1 << 15, b"\n"))  # whole clusters
    run(["mcopy", "-o", "-i", fat, tmp_path / "menu", f"::/{FAT_PATH}"])
    free = re.search(rb"([\d ]+) bytes free", run(["mdir", "-i", fat, "::/"]))
    assert free is not None
    (tmp_path / "fill").write_bytes(bytes(int(free[1].replace(b" ", b""))))
    run(["mcopy", "-i", fat, tmp_path / "fill", "::/fill"])
    raw[start : start + fat.stat().st_size] = fat.read_bytes()
    iso.write_bytes(raw)
    assert main([str(iso), str(tmp_path / "out.iso"), *OPTIONS]) == 9
    assert f"EFI/efiboot.img » {FAT_PATH}: does not fit: it needs 4,096 more bytes, and its" in capsys.readouterr().err
    assert not (tmp_path / "out.iso").exists()


def test_damage_is_told_and_never_a_crash(tmp_path: Path) -> None:
    """Bytes turned in the FAT's boot sector, its tables and directories, in the volume descriptors and menus."""
    tools.require(*families.TOOLS)
    iso, out, chance = tmp_path / "in.iso", tmp_path / "out.iso", random.Random(11)
    sound = families.build("ubuntu").read_bytes()
    volume = read_volume(families.build("ubuntu"))
    fat = next(one for one in volume.boot_images if one.path is None).entry.lba * 2048
    menu = next(one for one in volume.files if one.path == b"boot/says.cfg").records[0]
    says = menu.lba * 2048
    places = [*range(fat, fat + 64), *range(fat + 510, fat + 540), *range(says, says + menu.length)]
    places += [*range(fat + 512 * 9, fat + 512 * 25), *range(16 * 2048 + 800, 16 * 2048 + 880)]
    done = 0
    for _ in range(40):
        raw = bytearray(sound)
        raw[says : says + menu.length] = b"linux /k quiet\n".ljust(menu.length)
        for at in chance.sample(places, chance.randint(1, 30)):
            raw[at] = chance.randrange(256)
        iso.write_bytes(raw)
        try:
            remaster(iso, out, force=True, kernel_args=["a"], volume_id="NEW", volume_date="@0", retarget=True)
            done += 1
        except CosremasterError as error:
            assert error.message
    assert done > 5


def test_a_renamed_menu_whose_name_is_taken_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its kernel lines would be passed over in silence; without the new file they change."""
    (tmp_path / "grub.cfg").write_text("source /boot/grub/vendor.cfg\n")
    iso, out = str(write_small(tmp_path)), str(tmp_path / "out.iso")
    rename = ["--rename-iso", "/boot/grub/grub.cfg:/boot/grub/vendor.cfg", "--kernel-arg", "site=7"]
    taken = ["--add-iso", f"{tmp_path}/grub.cfg:/boot/grub/grub.cfg"]
    assert main([iso, out, *rename, *taken]) == 5
    said = capsys.readouterr().err
    assert "boot/grub/grub.cfg becomes boot/grub/vendor.cfg and another file takes its name" in said
    assert not Path(out).exists()
    assert main([iso, out, *rename]) == 0
    assert b"site=7" in run(["isoinfo", "-R", "-i", out, "-x", "/boot/grub/vendor.cfg"])
