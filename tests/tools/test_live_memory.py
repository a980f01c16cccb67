"""The memory that live systems take whose root stays in squashfs files; mksquashfs and genisoimage make them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import cosremaster
from cosremaster.boot_memory.estimate import round_need
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree

MIB, PAGE, KERNEL, RESERVED = 1 << 20, 4096, 72 << 20, 48 << 20


def make_live(
    folder: Path, *, root: str, menu: list[str], initramfs: dict[str, str], kernel_folder: str, noise: int = 1
) -> Path:  # fmt: skip
    """An ISO with a squashfs of ``noise`` MiB at ``root``, and a boot entry for each of ``menu``."""
    tools.require("mksquashfs", "genisoimage", "cpio", "gzip")
    disc = folder / "disc"
    tree = write_tree(folder / "root", {"etc/os-release": "ID=x\n", "sbin/init": "i\n", "proc/.keep": ""})
    (tree / "noise").write_bytes(random.Random(7).randbytes(noise * MIB))
    (disc / root).parent.mkdir(parents=True, exist_ok=True)
    run(["mksquashfs", str(tree), str(disc / root), "-quiet", "-no-progress", "-noD", "-noF"])
    inner = write_tree(folder / "initramfs", {"init": "#!/bin/sh\n", "bin/sh": "s", "etc/x": "x"} | initramfs)
    names = "\n".join(str(path.relative_to(inner)) for path in sorted(inner.rglob("*"))) + "\n"
    packed = run(["cpio", "-o", "-H", "newc", "--quiet"], stdin=names.encode(), cwd=inner)
    entries = "".join(
        f"menuentry 'Entry {number}' {{\n  linux /{kernel_folder}/vmlinuz {arguments}\n"
        f"  initrd /{kernel_folder}/initrd\n}}\n"
        for number, arguments in enumerate(menu, 1)
    )
    write_tree(disc, {"boot/grub/grub.cfg": entries, f"{kernel_folder}/vmlinuz": "k" * 5000, "pool/x": "x" * 70_000})
    (disc / kernel_folder / "initrd").write_bytes(run(["gzip", "-9n"], stdin=packed))
    iso = folder / "live.iso"
    run(["genisoimage", "-quiet", "-R", "-o", str(iso), str(disc)])
    return iso


def pages(path: Path) -> int:
    return -(-path.stat().st_size // PAGE) * PAGE


def medium(folder: Path) -> int:
    return sum(pages(path) for path in (folder / "disc").rglob("*") if path.is_file())


def need(initramfs: cosremaster.MemoryEstimate, copied: int, room: int) -> int:
    assert initramfs.need is not None
    assert initramfs.unpacked is not None
    return max(initramfs.need, round_need(initramfs.unpacked + copied + KERNEL), round_need(room + RESERVED))


def test_live_boot(tmp_path: Path) -> None:
    root, menu = (
        "live/filesystem.squashfs",
        [
            "boot=live quiet",
            "boot=live toram",
            "boot=live toram=filesystem.squashfs overlay-size=80%",
            "boot=live nomodeset",
        ],
    )
    iso = make_live(tmp_path, root=root, menu=menu, initramfs={"scripts/live": "x"}, kernel_folder="live")
    info = cosremaster.inspect(iso, deep=True)
    initramfs = info.memory["live/initrd"]
    plain, toram, module = info.live_memory
    whole, image = medium(tmp_path), pages(tmp_path / "disc" / root)
    assert [len(system.entries) for system in (plain, toram, module)] == [2, 1, 1]
    assert (plain.argument, plain.copied, plain.need) == ("", 0, initramfs.need)
    assert (plain.option, plain.option_copied) == ("toram", whole)
    assert (toram.argument, toram.copied) == ("toram", whole)
    assert toram.need == plain.option_need == need(initramfs, whole, whole + whole // 20)
    assert (module.argument, module.copied) == ("toram=filesystem.squashfs", image)
    assert module.need == need(initramfs, image, image + (5000 << 10))
    assert "50% of the memory" in plain.writes
    assert module.writes == "a tmpfs of 80% of the memory (overlay-size=)"


def test_casper(tmp_path: Path) -> None:
    iso = make_live(
        tmp_path, root="casper/minimal.squashfs", menu=["quiet ---", "toram ---"], kernel_folder="casper",
        initramfs={"scripts/casper": "x", "conf/conf.d/default-layer.conf": "LAYERFS_PATH=minimal.squashfs\n"},
    )  # fmt: skip
    info = cosremaster.inspect(iso, deep=True)
    plain, toram = info.live_memory
    whole = medium(tmp_path)
    assert (plain.scheme, plain.argument, plain.option_copied) == ("casper", "", whole)
    assert toram.need == need(info.memory["casper/initrd"], whole, whole + whole // 20)


def test_archiso(tmp_path: Path) -> None:
    root = "arch/x86_64/airootfs.sfs"
    menu = [
        "archisobasedir=arch", "archisobasedir=arch copytoram=y", "archisobasedir=arch copytoram=y copytoram_size=50%",
        "archisobasedir=arch copytoram=n cow_spacesize=4G",
    ]  # fmt: skip
    iso = make_live(
        tmp_path, root=root, menu=menu, initramfs={"hooks/archiso": "x"}, kernel_folder="arch/boot/x86_64", noise=30
    )
    info = cosremaster.inspect(iso, deep=True)
    initramfs = info.memory["arch/boot/x86_64/initrd"]
    plain, copied, half, no = info.live_memory
    image = pages(tmp_path / "disc" / root)
    assert (plain.argument, plain.writes) == ("", "a tmpfs of 256M (cow_spacesize=)")
    assert (copied.argument, copied.copied, copied.need) == (
        "copytoram=y",
        image,
        need(initramfs, image, int(image / 0.75)),
    )
    assert half.need == need(initramfs, image, image * 2)
    assert (no.argument, no.writes) == ("", "a tmpfs of 4G (cow_spacesize=)")


@pytest.mark.parametrize(
    ("script", "systemd", "room"),
    [
        ("check_live_ram $imgsize", True, lambda image: image + 1024 * MIB),
        ("dd if=$SQUASHED of=/run/initramfs/squashed.img", True, lambda image: int(image / 0.2)),
        ("dd if=$SQUASHED of=/run/initramfs/squashed.img", False, lambda image: image * 2),
    ],
)
def test_dracut(script: str, systemd: bool, room, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root, menu = (
        "LiveOS/squashfs.img",
        [
            "root=live:CDLABEL=x rd.live.image",
            "root=live:CDLABEL=x rd.live.image rd.live.ram=1",
            "root=live:CDLABEL=x rd.live.image rd.live.ram=0",
        ],
    )
    initramfs = {"sbin/dmsquash-live-root": f"#!/bin/sh\n{script}\n"}
    initramfs |= {"usr/lib/systemd/systemd": "s"} if systemd else {}
    iso = make_live(tmp_path, root=root, menu=menu, initramfs=initramfs, kernel_folder="images/pxeboot", noise=30)
    info = cosremaster.inspect(iso, deep=True)
    plain, copied = info.live_memory
    image = pages(tmp_path / "disc" / root)
    assert len(plain.entries) == 2, "rd.live.ram=0 copies nothing"
    assert plain.option == "rd.live.ram=1"
    assert (copied.copied, copied.need) == (image, need(info.memory["images/pxeboot/initrd"], image, room(image)))


def test_what_a_change_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso = make_live(
        tmp_path, root="live/filesystem.squashfs", menu=["boot=live quiet"], initramfs={"scripts/live": "x"},
        kernel_folder="live",
    )  # fmt: skip
    before = cosremaster.inspect(iso, deep=True).live_memory[0]
    (tmp_path / "site").mkdir()
    (tmp_path / "site/noise").write_bytes(b"".join(n.to_bytes(4, "big") for n in range(100_000)))
    out = tmp_path / "out.iso"
    result = cosremaster.remaster(iso, out, add=[tmp_path / "site"], kernel_args=["toram"])
    (planned,) = result.live_memory
    (after,) = cosremaster.inspect(out, deep=True).live_memory
    assert planned == after
    assert after.argument == "toram"
    assert after.copied > before.option_copied
    assert main(["plan", str(iso), "--add", str(tmp_path / "site")]) == 0
    assert "memory to boot Entry 1 (boot/grub/grub.cfg), the running system apart: about" in capsys.readouterr().out


def test_without_reading_the_initramfs_no_need_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, menu = "live/filesystem.squashfs", ["boot=live toram"]
    iso = make_live(tmp_path, root=root, menu=menu, initramfs={"scripts/live": "x"}, kernel_folder="live")
    assert main(["inspect", str(iso), "--json"]) == 0
    (system,) = json.loads(capsys.readouterr().out)["live_memory"]
    assert system["need"] is None
    assert (system["argument"], system["copied"]) == ("toram", medium(tmp_path))
    assert main(["inspect", str(iso)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "memory to boot Entry 1" in line)
    assert "--deep tells how much; toram copies" in line
