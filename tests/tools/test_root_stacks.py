"""Which file systems become the root: chains of casper, live-boot, dracut, archiso, Slax and Porteus.

The images are made by mksquashfs, cpio and genisoimage, with menus and initramfs as the scripts of those systems read
them (casper 1.498, live-boot 20230131, dracut 059, linux-live).
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import CosremasterError, LayerError, OverlayError
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.live_discs import CASPER, SLAX, SYSTEM, DiscMaker, initramfs


def site(folder: Path) -> Path:
    return write_tree(folder / "site", {"etc/site": "site\n"})


def layer_of(iso: Path, folder: Path, **options: object) -> str | None:
    result = cosremaster.remaster(iso, folder / "out.iso", add=[site(folder)], force=True, **options)  # type: ignore[arg-type]
    return result.layer


def root_of(iso: Path) -> dict[str, object]:
    with cosremaster.open(iso, remember=False) as image:
        root = image.info().values["root"]
    assert isinstance(root, dict)
    return root


LAYERS = {
    "casper/minimal.squashfs": SYSTEM, "casper/minimal.standard.squashfs": {"etc/standard": "s\n"},
    "casper/minimal.standard.live.squashfs": {"etc/live": "l\n"}, "casper/minimal.de.squashfs": {"etc/de": "d\n"},
    "casper/minimal.enhanced.squashfs": {"etc/enhanced": "e\n"},
}  # fmt: skip
GRUB = """set default=1
menuentry "Try it" { linux /casper/vmlinuz layerfs-path=minimal.enhanced.squashfs ---
initrd /casper/initrd }
menuentry "Install" { linux /casper/vmlinuz quiet ---
initrd /casper/initrd }
"""


def test_casper_reads_the_initramfs_and_the_menu(live_disc: DiscMaker, tmp_path: Path) -> None:
    early = {"kernel/x86/microcode/GenuineIntel.bin": "m" * 64}
    main_part = CASPER | {
        "conf/conf.d/default-layer.conf": "LAYERFS_PATH=minimal.enhanced.squashfs\n",
        "conf/conf.d/z-site.conf": "# site\nexport LAYERFS_PATH='minimal.standard.live.squashfs'\n",
    }
    initrd = initramfs(tmp_path, early, main_part)
    iso = live_disc({"casper/initrd": initrd, "casper/vmlinuz": "k", "boot/grub/grub.cfg": GRUB}, LAYERS)
    root = root_of(iso)
    chain = [f"casper/{name}.squashfs" for name in ("minimal", "minimal.standard", "minimal.standard.live")]
    assert root["layers"] == chain
    assert root["order"] == "LAYERFS_PATH in casper/initrd » conf/conf.d/z-site.conf"
    assert root["entry"] == "Install (boot/grub/grub.cfg)"
    assert [other["layers"] for other in root["other_entries"]] == [  # type: ignore[attr-defined]
        ["casper/minimal.squashfs", "casper/minimal.enhanced.squashfs"]
    ]
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[site(tmp_path)])
    assert result.layer == chain[-1]
    (warning,) = [text for text in result.warnings if "boot entry" in text]
    assert warning.startswith("the boot entry Try it (boot/grub/grub.cfg) does not mount casper/minimal.standard.live")
    menu = GRUB.replace("default=1", "default=0")
    iso = live_disc({"casper/initrd": initrd, "casper/vmlinuz": "k", "boot/grub/grub.cfg": menu}, LAYERS)
    assert layer_of(iso, tmp_path) == "casper/minimal.enhanced.squashfs"


def test_casper_without_a_layer_stacks_all_by_name(live_disc: DiscMaker, tmp_path: Path) -> None:
    trees = {"casper/b.squashfs": {"etc/b": "b\n"}, "casper/a.squashfs": SYSTEM, "casper/ltsp.squashfs": SYSTEM}
    iso = live_disc({"casper/initrd": initramfs(tmp_path, CASPER)}, trees)
    root = root_of(iso)
    assert root["layers"] == ["casper/a.squashfs", "casper/b.squashfs"]
    assert layer_of(iso, tmp_path) == "casper/b.squashfs"


def test_casper_in_another_directory_and_with_a_missing_layer(live_disc: DiscMaker, tmp_path: Path) -> None:
    trees = {path.replace("casper/", "sys/"): tree for path, tree in LAYERS.items()}
    del trees["sys/minimal.standard.squashfs"]
    menu = (
        "menuentry x { linux /sys/vmlinuz boot=casper live-media-path=/sys"
        " layerfs-path=/cdrom/sys/minimal.standard.live.squashfs }\n"
    )
    iso = live_disc({"boot/grub/grub.cfg": menu}, trees)
    root = root_of(iso)
    assert root["layers"] == ["sys/minimal.squashfs", "sys/minimal.standard.live.squashfs"]
    assert root["missing"] == ["sys/minimal.standard.squashfs"]
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[site(tmp_path)])
    assert [text for text in result.warnings if "sys/minimal.standard.squashfs is not on the image" in text]


def test_a_layer_that_no_boot_mounts(live_disc: DiscMaker, tmp_path: Path) -> None:
    initrd = initramfs(tmp_path, CASPER | {"conf/conf.d/l": "LAYERFS_PATH=minimal.standard.live.squashfs\n"})
    iso = live_disc({"casper/initrd": initrd}, LAYERS)
    result = cosremaster.remaster(
        iso, tmp_path / "out.iso", add=[site(tmp_path)], layer="casper/minimal.de.squashfs", remove=["/usr/bin/tool"]
    )
    assert [text for text in result.warnings if "minimal.de.squashfs is not mounted by the boot entry" in text]
    assert result.removed == (b"usr/bin/tool",), "its own lower layer is looked through"


def test_the_default_of_the_installer(live_disc: DiscMaker, tmp_path: Path) -> None:
    sources = """kernel:
  default: linux-generic
sources:
- description: {en: x}
  id: first
  path: minimal.squashfs
  variations:
    one: {path: other.squashfs}
- default: true
  id: second
  preinstalled_langs:
  - de
  - ''
  path: minimal.standard.squashfs
version: 2
"""
    initrd = initramfs(tmp_path, CASPER | {"conf/conf.d/l": "LAYERFS_PATH=minimal.standard.live.squashfs\n"})
    files: dict[str, str | bytes] = {"casper/initrd": initrd, "casper/install-sources.yaml": sources}
    assert root_of(live_disc(files, LAYERS))["default"] == "casper/minimal.standard.squashfs"
    files["casper/install-sources.yaml"] = sources.replace("default: true", "default: false")
    root = root_of(live_disc(files, LAYERS))
    assert (root["default"], root["reason"]) == (
        "casper/minimal.squashfs", "the installer copies it (casper/install-sources.yaml)",
    )  # fmt: skip


LIVE = {"live/filesystem.squashfs": SYSTEM, "live/a.squashfs": {"etc/a": "a\n"}, "live/z.squashfs": {"etc/z": "z\n"}}


@pytest.mark.parametrize(
    ("arguments", "lists", "chain"),
    [
        ("", {}, ["a", "filesystem", "z"]),
        ("", {"filesystem.module": "z.squashfs filesystem.squashfs gone.squashfs\n"}, ["z", "filesystem"]),
        ("module=kiosk", {"kiosk.module": "filesystem.squashfs\na.squashfs\n"}, ["filesystem", "a"]),
        ("module=kiosk", {"filesystem.kiosk.module": "a.squashfs", "kiosk.module": "z.squashfs"}, ["a"]),
        ("toram=filesystem.squashfs", {}, ["filesystem"]),
    ],
)
def test_live_boot(
    arguments: str, lists: dict[str, str], chain: list[str], live_disc: DiscMaker, tmp_path: Path
) -> None:
    menu = f"default live\nlabel live\n kernel /live/vmlinuz\n append initrd=/live/initrd boot=live {arguments}\n"
    files = {"isolinux/isolinux.cfg": menu} | {f"live/{name}": text for name, text in lists.items()}
    iso = live_disc(files, LIVE)
    root = root_of(iso)
    assert root["scheme"] == "live-boot"
    assert root["layers"] == [f"live/{name}.squashfs" for name in chain]
    assert layer_of(iso, tmp_path) == f"live/{chain[-1]}.squashfs"


def test_the_layer_that_calamares_copies(live_disc: DiscMaker, tmp_path: Path) -> None:
    conf = 'unpack:\n    -   source: "/run/live/medium/live/filesystem.squashfs"\n        sourcefs: "squashfs"\n'
    trees = LIVE | {"live/z.squashfs": {"etc/calamares/modules/unpackfs.conf": conf}}
    iso = live_disc({}, trees)
    root = root_of(iso)
    assert root["default"] == "live/filesystem.squashfs"
    assert root["reason"] == "the installer Calamares copies it (etc/calamares/modules/unpackfs.conf)"
    assert layer_of(iso, tmp_path) == "live/filesystem.squashfs"
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[site(tmp_path)], as_layer="zz", force=True)
    (warning,) = [text for text in result.warnings if "Calamares" in text]
    assert "copies live/filesystem.squashfs; without --as-layer" in warning


def test_a_damaged_initramfs_is_no_hindrance(live_disc: DiscMaker, tmp_path: Path) -> None:
    initrd = initramfs(tmp_path, CASPER)
    iso = live_disc({"casper/initrd": initrd[: len(initrd) // 2] + bytes(64)}, LAYERS)
    assert layer_of(iso, tmp_path, layer="casper/minimal.squashfs") == "casper/minimal.squashfs"


def test_live_boot_in_another_directory(live_disc: DiscMaker, tmp_path: Path) -> None:
    menu = "menuentry x { linux /v boot=live live-media-path=sfs }\n"
    trees = {"sfs/filesystem.squashfs": SYSTEM, "sfs/z.squashfs": {"etc/z": "z\n"}, "extra/x.squashfs": SYSTEM}
    iso = live_disc({"boot/grub/grub.cfg": menu}, trees)
    assert layer_of(iso, tmp_path) == "sfs/z.squashfs"


def test_a_layer_over_one_that_cannot_be_read(
    live_disc: DiscMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"live/b.xfs": b"XFSB".ljust(256 << 10, b"\0")}
    iso = live_disc(files, {"live/a.squashfs": SYSTEM, "live/c.squashfs": SYSTEM})
    assert root_of(iso)["layers"] == ["live/a.squashfs", "live/b.xfs", "live/c.squashfs"]
    with pytest.raises(CosremasterError, match=r"lies over live/b\.xfs, which cannot be read"):
        layer_of(iso, tmp_path, layer="live/c.squashfs")
    assert layer_of(iso, tmp_path, layer="live/a.squashfs") == "live/a.squashfs"
    capsys.readouterr()
    assert main(["ls", f"{iso}::@root"]) == 0  # of the uppermost alone, for which none below is read
    names = "live/a.squashfs, live/b.xfs, live/c.squashfs"
    assert f"the root is {names}, the last on top: @root is the last alone" in capsys.readouterr().err


def test_dracut(live_disc: DiscMaker, tmp_path: Path) -> None:
    menu = "menuentry x { linux /v root=live:CDLABEL=x rd.live.dir=os rd.live.squashimg=root.img }\n"
    trees = {"os/root.img": SYSTEM, "LiveOS/squashfs.img": SYSTEM}
    iso = live_disc({"boot/grub/grub.cfg": menu}, trees)
    assert layer_of(iso, tmp_path) == "os/root.img"
    iso = live_disc({"EFI/BOOT/grub.cfg": "menuentry x { linux /v root=live:CDLABEL=x rd.live.image }\n"}, trees)
    assert layer_of(iso, tmp_path) == "LiveOS/squashfs.img"


@pytest.mark.parametrize("name", ["rootfs.img", "ext3fs.img"])
def test_dracut_with_ext4_inside(
    name: str, live_disc: DiscMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("mke2fs")
    inner = tmp_path / "holder/LiveOS"
    inner.mkdir(parents=True)
    run(["mke2fs", "-q", "-F", "-t", "ext4", str(inner / name), "1M"])
    holder = tmp_path / "squashfs.img"
    run(["mksquashfs", str(tmp_path / "holder"), str(holder), "-quiet", "-no-progress"])
    menu = "menuentry x { linux /v root=live:CDLABEL=x }\n"
    iso = live_disc({"LiveOS/squashfs.img": holder.read_bytes(), "boot/grub/grub.cfg": menu}, {})
    shown = f"LiveOS/squashfs.img::LiveOS/{name} (an ext4 file system)"
    assert root_of(iso)["nested"] == shown
    assert main(["inspect", str(iso)]) == 0
    assert f"in it {shown} is mounted instead" in capsys.readouterr().out
    with pytest.raises(LayerError, match="the root file system of the running system is LiveOS/squashfs"):
        layer_of(iso, tmp_path)
    assert layer_of(iso, tmp_path, layer="LiveOS/squashfs.img") == "LiveOS/squashfs.img"
    # dracut's own initramfs looks more like a system than the squashfs around the root does.
    looks_whole = initramfs(tmp_path, {"init": "#!/bin/sh\n", **SYSTEM, "usr/lib/os-release": "ID=debian\n"})
    iso = live_disc({"LiveOS/squashfs.img": holder.read_bytes(), "i.img": looks_whole, "boot/grub/grub.cfg": menu}, {})
    with pytest.raises(LayerError, match=r"is LiveOS/squashfs.*; --layer i\.img changes the initramfs instead"):
        layer_of(iso, tmp_path)
    assert layer_of(iso, tmp_path, layer="i.img") == "i.img"


def test_archiso(live_disc: DiscMaker, tmp_path: Path) -> None:
    menu = """menuentry x { linux /site/boot/i686/vmlinuz archisobasedir=site
initrd /site/boot/i686/initramfs.img }
"""
    files = {"boot/grub/grub.cfg": menu, "site/boot/i686/initramfs.img": "x", "site/boot/i686/vmlinuz": "k"}
    trees = {"site/x86_64/airootfs.sfs": SYSTEM, "site/i686/airootfs.sfs": SYSTEM, "other/x.squashfs": SYSTEM}
    iso = live_disc(files, trees)
    assert root_of(iso)["scheme"] == "archiso"
    assert layer_of(iso, tmp_path) == "site/i686/airootfs.sfs"


def test_kernel_modules_of_alpine_are_no_root(live_disc: DiscMaker, tmp_path: Path) -> None:
    iso = live_disc({"apks/x86_64/APKINDEX.tar.gz": "x"}, {"boot/modloop-lts": {"modules/x.ko": "x\n"}})
    with cosremaster.open(iso, remember=False) as image:
        (found,) = image.info().filesystems
        assert (found.path, found.purpose) == ("boot/modloop-lts", "kernel modules")
        assert image.info().values["root"] is None
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[site(tmp_path)], layer="boot/modloop-lts")
    assert result.layer == "boot/modloop-lts"


def test_bundles_of_slax_by_number(live_disc: DiscMaker, tmp_path: Path) -> None:
    iso = live_disc({}, SLAX)
    names = ["01-core", "02-xorg", "10-apps", "modules/9-late"]
    assert root_of(iso)["layers"] == [f"slax/{name}.sb" for name in names]
    assert layer_of(iso, tmp_path) == "slax/modules/9-late.sb"
    files = write_tree(tmp_path / "more", {"etc/hostname": "low\n", "usr/bin/new": "n\n"})
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[files], layer="slax/02-xorg.sb", force=True)
    (hidden,) = [text for text in result.warnings if "stays hidden" in text]
    assert "slax/10-apps.sb" in hidden


@pytest.mark.parametrize("pattern", ["/usr/bin/tool", "/usr/bin"])
def test_nothing_hides_a_file_of_a_lower_bundle(pattern: str, live_disc: DiscMaker, tmp_path: Path) -> None:
    iso = live_disc({}, SLAX)
    with pytest.raises(
        OverlayError, match=r"it is in slax/01-core\.sb( and slax/02-xorg\.sb)?, and .* no whiteouts"
    ) as caught:
        cosremaster.remaster(iso, tmp_path / "out.iso", remove=[pattern], layer="slax/10-apps.sb")
    assert "; --layer slax/01-core.sb " in str(caught.value)
    assert not (tmp_path / "out.iso").exists()
    result = cosremaster.remaster(iso, tmp_path / "out.iso", remove=["/usr/bin/tool"], layer="slax/01-core.sb")
    assert result.removed == (b"usr/bin/tool",)


def test_a_bundle_may_replace_a_file_of_a_lower(live_disc: DiscMaker, tmp_path: Path) -> None:
    iso = live_disc({}, SLAX)
    files = write_tree(tmp_path / "more", {"etc/hostname": "new\n"})
    cosremaster.remaster(iso, tmp_path / "out.iso", add=[files], layer="slax/02-xorg.sb")
    folder = write_tree(tmp_path / "folder", {"usr/bin/tool/x": "x\n"})
    cosremaster.remaster(iso, tmp_path / "out.iso", add=[folder], layer="slax/02-xorg.sb", force_type=True, force=True)


def test_modules_of_porteus(live_disc: DiscMaker, tmp_path: Path) -> None:
    trees = {
        "porteus/base/000-kernel.xzm": {"lib/modules/x": "x\n"}, "porteus/base/001-core.xzm": SYSTEM,
        "porteus/modules/site.xzm": {"etc/site-module": "s\n"}, "porteus/optional/later.xzm": {"etc/later": "l\n"},
    }  # fmt: skip
    iso = live_disc({}, trees)
    assert root_of(iso)["layers"] == [
        "porteus/base/000-kernel.xzm", "porteus/base/001-core.xzm", "porteus/modules/site.xzm",
    ]  # fmt: skip
    assert layer_of(iso, tmp_path) == "porteus/modules/site.xzm"


@pytest.mark.parametrize(
    ("trees", "home", "layer"),
    [(SLAX, "slax", "slax/10-apps.sb"), ({"porteus/base/1-core.xzm": SYSTEM}, "porteus", "porteus/base/1-core.xzm")],
)
def test_what_is_copied_over_the_root(
    live_disc: DiscMaker, tmp_path: Path, trees: dict[str, dict[str, str]], home: str, layer: str
) -> None:
    """Slax and Porteus copy ``rootcopy/`` over the union (livekitlib, copy_rootcopy_content)."""
    iso = live_disc({f"{home}/rootcopy/etc/hostname": "copied\n"}, trees)
    files = write_tree(tmp_path / "more", {"etc/hostname": "mine\n", "etc/mine": "m\n"})
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[files], layer=layer)
    copied = [text for text in result.warnings if "copies" in text]
    assert copied == [
        f"etc/hostname: the boot copies {home}/rootcopy/etc/hostname over it (--add-iso, --remove-iso change that)"
    ]
    if home == "porteus":
        result = cosremaster.remaster(iso, tmp_path / "out.iso", remove=["/etc"], layer=layer, force=True)
        assert any(text.startswith("etc: the boot copies porteus/rootcopy/etc over it") for text in result.warnings)
        result = cosremaster.remaster(iso, tmp_path / "new.iso", add=[files], as_layer="site")
        assert any(text.startswith("etc/hostname: the boot copies ") for text in result.warnings)


@pytest.mark.parametrize(
    ("arguments", "settings", "mounted"),
    [
        ("loadsrm", "", True),
        ("loadsrm=y", "", True),
        ("loadsrm=n", "global:\n    loadsrm: true\n", False),
        ("", "---\nglobal:\n    copytoram: false\n    loadsrm: true\n", True),
        ("", "global:\n    loadsrm: false\n", False),
    ],
)
def test_modules_of_systemrescue(
    live_disc: DiscMaker, tmp_path: Path, arguments: str, settings: str, *, mounted: bool
) -> None:
    """They lie over the root (system-rescue.org/Modules), which the edit goes to all the same."""
    menu = f"menuentry x {{ linux /vmlinuz archisobasedir=sysresccd {arguments}\ninitrd /i }}\n"
    trees = {"sysresccd/x86_64/airootfs.sfs": SYSTEM, "sysresccd/site.srm": {"etc/site": "old\n"}}
    iso = live_disc({"boot/grub/grub.cfg": menu, "sysrescue.d/500.yaml": settings or "global:\n"}, trees)
    root = root_of(iso)
    assert root["layers"] == ["sysresccd/x86_64/airootfs.sfs", *(["sysresccd/site.srm"] if mounted else [])]
    assert root["default"] == "sysresccd/x86_64/airootfs.sfs"
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[site(tmp_path)])
    hidden = [text for text in result.warnings if "stays hidden" in text]
    assert result.layer == "sysresccd/x86_64/airootfs.sfs"
    assert [text.startswith("etc/site stays hidden") for text in hidden] == [True] * mounted


def test_live_boot_mounts_erofs(live_disc: DiscMaker, tmp_path: Path) -> None:
    """Since 2024 (9990-overlay.sh): by name among the others."""
    tools.require("mkfs.erofs")
    write_tree(tmp_path / "erofs", {"etc/site": "upper\n"})
    run(["mkfs.erofs", str(tmp_path / "upper.erofs"), str(tmp_path / "erofs")])
    files = {
        "live/upper.erofs": (tmp_path / "upper.erofs").read_bytes(), "live/initrd.img": b"",
        "boot/grub/grub.cfg": "menuentry x { linux /live/vmlinuz boot=live\ninitrd /live/initrd.img }\n",
    }  # fmt: skip
    iso = live_disc(files, {"live/filesystem.squashfs": SYSTEM})
    assert root_of(iso)["layers"] == ["live/filesystem.squashfs", "live/upper.erofs"]
    result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[site(tmp_path)], layer="live/filesystem.squashfs")
    assert any("etc/site stays hidden in the running system: live/upper.erofs" in text for text in result.warnings)


def test_inspect_draws_the_chain(live_disc: DiscMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    initrd = initramfs(tmp_path, CASPER | {"conf/conf.d/l": "LAYERFS_PATH=minimal.standard.live.squashfs\n"})
    sources = "- default: true\n  path: minimal.standard.squashfs\n"
    iso = live_disc({"casper/initrd": initrd, "casper/install-sources.yaml": sources}, LAYERS)
    for deep in ([], ["--deep"]):
        assert main(["inspect", str(iso), *deep]) == 0
        lines = capsys.readouterr().out.splitlines()
        at = lines.index("root of the running system: casper; LAYERFS_PATH in casper/initrd » conf/conf.d/l")
        assert lines[at + 1 : at + 4] == [
            "  3 casper/minimal.standard.live.squashfs",
            "  2 casper/minimal.standard.squashfs; --add goes here: the installer copies it"
            " (casper/install-sources.yaml)",
            "  1 casper/minimal.squashfs",
        ]
    assert main(["inspect", str(iso), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["root"]["default"] == "casper/minimal.standard.squashfs"
    page = tmp_path / "page.html"
    assert main(["inspect", str(iso), "--html", str(page)]) == 0
    assert "the installer copies it (casper/install-sources.yaml)" in page.read_text(encoding="utf-8")


def make_squashfs(path: Path, entries: dict[str, tuple[str, str]], opaque: tuple[str, ...] = ()) -> None:
    """Make a squashfs of ``entries``: a kind and data, the target of a link, or nothing, by the path."""
    kinds = {
        "f": tarfile.REGTYPE,
        "d": tarfile.DIRTYPE,
        "l": tarfile.SYMTYPE,
        "h": tarfile.LNKTYPE,
        "w": tarfile.CHRTYPE,
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (kind, text) in entries.items():
            member = tarfile.TarInfo(name)
            member.type, member.mode = kinds[kind], 0o755 if kind == "d" else 0o644
            member.linkname = text if kind in "lh" else ""
            member.size = len(text) if kind == "f" else 0
            if name in opaque:
                member.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
            archive.addfile(member, io.BytesIO(text.encode()) if kind == "f" else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    run(["sqfstar", "-quiet", "-no-progress", "-xattrs", str(path)], stdin=packed.getvalue())


@pytest.fixture
def stacked_disc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an ISO of live-boot with a root of three file systems, in the working directory."""
    tools.require("sqfstar", "genisoimage", "tar")
    monkeypatch.chdir(tmp_path)
    live = tmp_path / "disc/live"
    make_squashfs(live / "filesystem.squashfs", {
        "bin": ("d", ""), "bin/sh": ("f", "shell"), "bin/dash": ("h", "bin/sh"),
        "etc": ("d", ""), "etc/a": ("f", "low"),
        "etc/gone": ("f", "x"), "etc/d": ("d", ""), "etc/d/under": ("f", "x"), "opt": ("d", ""), "opt/old": ("f", "x"),
        "usr": ("d", ""), "usr/f": ("f", "x"), "sbin": ("d", ""), "lib": ("d", ""),
    })  # fmt: skip
    make_squashfs(live / "middle.squashfs", {
        "bin": ("d", ""), "bin/one": ("f", "other"), "bin/two": ("h", "bin/one"), "etc": ("d", ""),
        "etc/gone": ("w", ""), "etc/a": ("f", "middle"), "opt": ("d", ""), "opt/new": ("f", "new"),
    }, opaque=("opt",))  # fmt: skip
    make_squashfs(live / "upper.squashfs", {
        "etc": ("d", ""), "etc/d": ("l", "a"), "etc/b": ("f", "up"), "usr": ("d", ""), "usr/f": ("d", ""),
        "usr/f/inside": ("f", "in"),
    })  # fmt: skip
    (live / "vmlinuz").write_bytes(b"k")
    (live / "initrd.img").write_bytes(initramfs(tmp_path, {"init": "#!/bin/sh\n", "scripts/live": "#!/bin/sh\n"}))
    (tmp_path / "disc/boot/grub").mkdir(parents=True)
    menu = 'menuentry "x" { linux /live/vmlinuz boot=live; initrd /live/initrd.img }\n'
    (tmp_path / "disc/boot/grub/grub.cfg").write_text(menu)
    run(["genisoimage", "-quiet", "-R", "-o", "in.iso", "disc"])
    return tmp_path / "in.iso"


@pytest.mark.parametrize("words", [["in.iso", "out.tar"], ["export", "in.iso", "--maas", "out"]], ids=["tar", "maas"])
def test_an_archive_of_the_root_has_what_its_layers_show(
    stacked_disc: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It had what the uppermost has alone: no shell, and devices in place of what is hidden."""
    assert main(words) == 0
    names = ", ".join(f"live/{name}.squashfs" for name in ("filesystem", "middle", "upper"))
    assert f"warning: the root is {names}, the last on top: the archive has what they show" in capsys.readouterr().err
    (made,) = (path for path in (Path("out.tar"), Path("out.tar.gz")) if path.exists())
    Path("x").mkdir()
    run(["tar", "--xattrs", "--xattrs-include=*", "--no-same-owner", "-xf", made, "-C", "x"])
    files = {str(path.relative_to("x")): path.read_text() for path in Path("x").rglob("*") if path.is_file()}
    assert files == {
        "bin/sh": "shell", "bin/dash": "shell", "bin/one": "other", "bin/two": "other", "etc/a": "middle",
        "etc/b": "up", "etc/d": "middle", "opt/new": "new", "usr/f/inside": "in",
    }  # fmt: skip
    assert os.path.samefile("x/bin/sh", "x/bin/dash") and os.path.samefile("x/bin/one", "x/bin/two")
    assert not os.path.samefile("x/bin/sh", "x/bin/one")
    assert os.readlink("x/etc/d") == "a"
    assert b"overlay" not in run(["tar", "--xattrs", "-tvvf", made])


def test_the_address_of_the_root_is_that_of_the_uppermost_layer_and_that_is_told(
    stacked_disc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ", ".join(f"live/{name}.squashfs" for name in ("filesystem", "middle", "upper"))
    warning = f"warning: the root is {names}, the last on top: @root is the last alone\n"
    root = "in.iso::@root"
    for words in (["ls", root], ["stat", f"{root}::etc"], ["diff", root, root]):
        assert main(words) == 0
        assert capsys.readouterr().err == warning * (2 if words[0] == "diff" else 1)
    assert main(["ls", "in.iso::live/upper.squashfs"]) == 0
    assert not capsys.readouterr().err


def test_an_archive_of_one_layer_has_that_alone(stacked_disc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["in.iso", "out.tar", "--layer", "live/upper.squashfs", "--add", "disc/live/vmlinuz:/etc/"]) == 0
    assert b"etc/vmlinuz" in run(["tar", "-tf", "out.tar"])
    assert b"sh" not in run(["tar", "-tf", "out.tar"])
    assert "the root is" not in capsys.readouterr().err
    assert main(["in.iso", "all.tar", "--add", "disc/live/vmlinuz:/etc/", "--remove", "/bin/sh"]) == 0
    assert {b"etc/vmlinuz", b"bin/dash"} <= set(run(["tar", "-tf", "all.tar"]).split())
    assert b"bin/sh" not in run(["tar", "-tf", "all.tar"])


@pytest.mark.parametrize("place", ["in a squashfs", "on the disc"])
def test_a_root_that_cannot_be_changed_is_read(
    place: str,
    live_disc: DiscMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of an ext4 that dracut mounts, an archive was refused, as if it were to be changed, and @root was nowhere."""
    tools.require("mke2fs", "tar")
    monkeypatch.chdir(tmp_path)
    inner = tmp_path / "holder/LiveOS/rootfs.img"
    inner.parent.mkdir(parents=True)
    root = write_tree(tmp_path / "root", SYSTEM | {"bin/sh": "sh\n"})
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(inner), "2M"])
    run(["mksquashfs", "holder", "squashfs.img", "-quiet", "-no-progress"])
    image = tmp_path / "squashfs.img" if place == "in a squashfs" else inner
    menu = "menuentry x { linux /v root=live:CDLABEL=x\ninitrd /i.img }\n"
    initrd = initramfs(tmp_path, {"init": "#!/bin/sh\n", **SYSTEM, "usr/lib/os-release": "ID=debian\n"})
    live_disc({f"LiveOS/{image.name}": image.read_bytes(), "i.img": initrd, "boot/grub/grub.cfg": menu}, {})
    assert main(["in.iso", "out.tar", "--add", "root/bin/sh:/bin/more"]) == 0
    assert main(["export", "in.iso", "--maas", "out"]) == 0
    names = {name.rstrip("/") for name in run(["tar", "-tf", "out.tar.gz"]).decode().splitlines()} - {".", "lost+found"}
    assert names == {str(path.relative_to(root)) for path in root.rglob("*")}
    assert set(run(["tar", "-tf", "out.tar"]).decode().splitlines()) >= names - {"bin", "etc", "sbin", "usr", "usr/bin"}
    capsys.readouterr()
    assert main(["cat", "in.iso::@root::etc/hostname"]) == 0
    assert capsys.readouterr().out == "base\n"
    assert main(["in.iso", "out.iso", "--add", "root"]) == 6
    assert "(an ext4 file system), which cannot be changed; --layer i.img changes" in capsys.readouterr().err
