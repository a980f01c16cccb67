"""``--as-layer``: a new squashfs over the root; Linux' overlayfs, unsquashfs, 7-Zip and cpio judge."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import LayerError, OverlayError, UnsupportedError, UsageError
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.live_discs import CASPER, SLAX, SYSTEM, DiscMaker, initramfs
from tests.support.mounted_trees import Description, mounted, on_disk

LAYERS = ("minimal", "minimal.standard", "minimal.standard.live")


def extract(iso: Path, path: str) -> bytes:
    tools.require("bsdtar")
    return run(["bsdtar", "-xOf", str(iso), path])


@contextmanager
def overlaid(iso: Path, paths: list[str], folder: Path) -> Iterator[Path]:
    """The file systems ``paths`` of an ISO, the lowest first, as the kernel's overlayfs shows them."""
    if os.geteuid() != 0 or "\toverlay\n" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        tools.leave_out("This test needs root and a kernel with overlayfs.")
    folder.mkdir()
    with ExitStack() as stack:
        lower = list[str]()
        for number, path in enumerate(paths):
            image = folder / f"{number}.squashfs"
            image.write_bytes(extract(iso, path))
            lower.insert(0, str(stack.enter_context(mounted(image, folder / str(number)))))
        upper, work, whole = folder / "upper", folder / "work", folder / "all"
        for directory in (upper, work, whole):
            directory.mkdir()
        options = f"lowerdir={':'.join(lower)}"
        run(["mount", "-t", "overlay", "overlay", "-o", options, str(whole)])
        try:
            yield whole
        finally:
            run(["umount", str(whole)])


def casper_chain(iso: Path, folder: Path) -> list[str]:
    """The layers that casper's script mounts, by the LAYERFS_PATH in the image's initramfs, the lowest first."""
    folder.mkdir()
    initrd = extract(iso, "casper/initrd")
    run(["cpio", "-id", "--quiet"], stdin=run(["gzip", "-dc"], stdin=initrd), cwd=folder)
    script = (
        ". ./conf/conf.d/default-layer.conf; name=${LAYERFS_PATH%.*}; while :; do echo casper/$name.squashfs;"
        " parent=${name%.*}; [ $parent = $name ] && break; name=$parent; done"
    )
    return run(["sh", "-c", script], cwd=folder).decode().split()[::-1]


@pytest.fixture
def casper(tmp_path: Path) -> Path:
    """An image of casper with three layers, by xorriso: a whiteout and an opaque directory are in the middle."""
    tools.require("xorriso", "mksquashfs", "setfattr", "cpio", "gzip")
    if os.geteuid() != 0:
        tools.leave_out("This test makes device nodes and trusted attributes, which needs root.")
    base = write_tree(
        tmp_path / "base",
        SYSTEM | {"usr/share/doc/a": "a\n", "usr/share/old/x": "x\n", "srv/x": "x\n", "root/keep": "k\n",
                  "var/lib/d/e": "e\n", "etc/conf.d/one": "1\n", "etc/hosts": "h\n"},
    )  # fmt: skip
    os.symlink("usr/bin", base / "bin")
    os.link(base / "etc/hosts", base / "etc/hosts-2")
    (base / "root").chmod(0o700)
    (base / "var/lib").chmod(0o2775)
    os.chown(base / "var/lib", 7, 8)
    middle = write_tree(tmp_path / "middle", {"usr/share/old/y": "y\n", "etc/middle": "m\n"})
    os.mknod(middle / "srv", stat.S_IFCHR, 0)
    run(["setfattr", "-n", "trusted.overlay.opaque", "-v", "y", str(middle / "usr/share/old")])
    top = write_tree(tmp_path / "top", {"etc/live": "live\n"})
    top.chmod(0o711)
    folder = tmp_path / "tree"
    (folder / "casper").mkdir(parents=True)
    for name, tree in zip(LAYERS, (base, middle, top), strict=True):
        for path in [tree, *tree.rglob("*")]:
            os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
        options = ["-comp", "xz", "-b", "64K", "-Xdict-size", "32K"] if tree is top else []
        run(["mksquashfs", str(tree), str(folder / f"casper/{name}.squashfs"), "-quiet", "-no-progress", *options])
    main_part = CASPER | {"conf/conf.d/default-layer.conf": "LAYERFS_PATH=minimal.standard.live.squashfs\n"}
    (folder / "casper/initrd").write_bytes(initramfs(tmp_path, main_part))
    (folder / "casper/vmlinuz").write_bytes(b"k")
    (folder / "boot/grub").mkdir(parents=True)
    (folder / "boot/grub/grub.cfg").write_text(
        'menuentry "a" { linux /casper/vmlinuz ---\ninitrd /casper/initrd }\n'
        'menuentry "b" { linux /casper/vmlinuz layerfs-path=minimal.standard.live.squashfs ---\n'
        "initrd /casper/initrd }\n"
        'menuentry "c" { linux /casper/vmlinuz layerfs-path=minimal.standard.squashfs ---\ninitrd /casper/initrd }\n'
    )
    return make_iso(folder, tmp_path / "in.iso")


def make_iso(folder: Path, iso: Path) -> Path:
    run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-joliet-long", "-o", str(iso), str(folder)])
    return iso


def without_times(tree: Description, *paths: str) -> Description:
    """``tree`` with the types, modes, devices and contents alone of ``paths``."""
    return {path: (entry[0], *entry[3:]) if path in paths else entry for path, entry in tree.items()}


def test_a_layer_over_casper_in_the_kernel(casper: Path, tmp_path: Path) -> None:
    paths = [f"casper/{name}.squashfs" for name in LAYERS]
    site = write_tree(
        tmp_path / "site",
        {"bin/new": "new\n", "etc/hostname": "site\n", "var/lib/d/f/g": "g\n", "srv/back": "b\n",
         "usr/share/old/z": "z\n", "etc/hosts": "other\n"},
    )  # fmt: skip
    out = tmp_path / "out.iso"
    removals = ["/usr/share/doc", "/etc/middle", "/etc/live", "/root/keep"]
    result = cosremaster.remaster(casper, out, add=[site], remove=removals, as_layer="site")
    assert result.layer == "casper/minimal.standard.live.site.squashfs"
    assert result.removed == (b"etc/live", b"etc/middle", b"root/keep", b"usr/share/doc")
    chain = casper_chain(out, tmp_path / "initramfs")
    assert chain == [*paths, "casper/minimal.standard.live.site.squashfs"]
    for path in paths:
        assert extract(out, path) == extract(casper, path), "the base stays byte for byte"
    with overlaid(casper, paths, tmp_path / "before") as root:
        before = on_disk(root)
    with overlaid(out, chain, tmp_path / "after") as root:
        after = on_disk(root)
        assert (root / "usr/bin/new").read_text() == "new\n"
        assert (root / "srv/back").read_text() == "b\n"
        assert sorted(path.name for path in (root / "srv").iterdir()) == ["back"]
        assert sorted(path.name for path in (root / "usr/share/old").iterdir()) == ["y", "z"]
        assert (root / "var/lib").stat().st_uid == 7
    gone = ("usr/share/doc", "etc/middle", "etc/live", "root/keep")
    kept = {path: entry for path, entry in before.items() if not path.startswith(gone)}
    new = {"usr/bin/new", "var/lib/d/f", "var/lib/d/f/g", "srv", "srv/back", "usr/share/old/z"}
    replaced = ("etc/hostname", "etc/hosts")
    assert after.keys() == kept.keys() | new
    same = {path: entry for path, entry in after.items() if path not in new and path not in replaced}
    assert same == {path: entry for path, entry in kept.items() if path not in replaced}
    layer = on_disk_of(out, chain[-1], tmp_path / "alone")
    assert "etc/passwd" not in layer
    assert set(layer) < {*after, *gone, "."}, "it has nothing but what changes, and the directories on the way"
    menu = extract(out, "boot/grub/grub.cfg").decode()
    assert re.findall(r"layerfs-path=(\S+)", menu) == [
        "minimal.standard.live.site.squashfs", "minimal.standard.squashfs",
    ]  # fmt: skip
    (warning,) = [text for text in result.warnings if "boot entry" in text]
    assert warning.startswith("the boot entry c (boot/grub/grub.cfg) does not mount casper/minimal.standard.live.site")
    again = tmp_path / "again.iso"
    cosremaster.remaster(casper, again, add=[site], remove=removals, as_layer="site")
    assert again.read_bytes() == out.read_bytes()


def on_disk_of(iso: Path, path: str, folder: Path) -> Description:
    image = folder.with_suffix(".squashfs")
    image.write_bytes(extract(iso, path))
    run(["unsquashfs", "-quiet", "-no-progress", "-f", "-d", str(folder), str(image)])
    return on_disk(folder)


def test_types_change_in_a_new_layer(casper: Path, tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"usr/share/doc": "now a file\n", "etc/hostname/inside": "i\n"})
    out = tmp_path / "out.iso"
    cosremaster.remaster(casper, out, add=[site], as_layer="types", force_type=True)
    with overlaid(out, casper_chain(out, tmp_path / "initramfs"), tmp_path / "after") as root:
        assert (root / "usr/share/doc").read_text() == "now a file\n"
        assert [path.name for path in (root / "etc/hostname").iterdir()] == ["inside"]


def test_a_directory_that_is_removed_and_added_again(casper: Path, tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"etc/conf.d/two": "2\n"})
    out = tmp_path / "out.iso"
    cosremaster.remaster(casper, out, add=[site], remove=["/etc/conf.d"], as_layer="again")
    with overlaid(out, casper_chain(out, tmp_path / "initramfs"), tmp_path / "after") as root:
        assert [path.name for path in (root / "etc/conf.d").iterdir()] == ["two"]


def test_a_layer_over_a_layer(casper: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.iso", tmp_path / "second.iso"
    for source, out, name in ((casper, first, "site"), (first, second, "more")):
        site = write_tree(tmp_path / name, {f"etc/{name}": f"{name}\n", "etc/hostname": f"{name}\n"})
        cosremaster.remaster(source, out, add=[site], as_layer=name)
    chain = casper_chain(second, tmp_path / "initramfs")
    assert chain[-1] == "casper/minimal.standard.live.site.more.squashfs"
    with overlaid(second, chain, tmp_path / "after") as root:
        assert (root / "etc/hostname").read_text() == "more\n"
        assert (root / "etc/site").read_text() == "site\n"
    with cosremaster.open(second, remember=False) as image:
        assert not [finding for finding in image.verify(deep=True).findings if finding.is_counted]


def test_the_installer_is_told(casper: Path, tmp_path: Path) -> None:
    (tmp_path / "tree/casper/install-sources.yaml").write_text("- default: true\n  path: minimal.standard.squashfs\n")
    make_iso(tmp_path / "tree", casper)
    site = write_tree(tmp_path / "site", {"etc/site": "s\n"})
    result = cosremaster.remaster(casper, tmp_path / "out.iso", add=[site], as_layer="site")
    (warning,) = [text for text in result.warnings if "installer" in text]
    assert "the installer copies casper/minimal.standard.squashfs and the layers below it" in warning


CODECS = {
    "gzip": ("-comp", "gzip"),
    "gzip level 3, 4K": ("-comp", "gzip", "-Xcompression-level", "3", "-b", "4096"),
    "xz x86 1M": ("-comp", "xz", "-Xbcj", "x86", "-b", "1M"),
    "zstd 19": ("-comp", "zstd", "-Xcompression-level", "19"),
    "lz4": ("-comp", "lz4", "-Xhc"),
    "lzo": ("-comp", "lzo"),
    "stored": ("-noI", "-noD", "-noF", "-noX"),
    "no fragments, no exports": ("-no-fragments", "-no-exports"),
    "no xattrs": ("-no-xattrs",),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_new_file_system_is_read_by_all(name: str, tmp_path: Path) -> None:
    tools.require("genisoimage", "mksquashfs", "unsquashfs", "sqfs2tar", "7z")
    folder = tmp_path / "tree/live"
    folder.mkdir(parents=True)
    base = write_tree(tmp_path / "base", SYSTEM)
    run(["mksquashfs", str(base), str(folder / "filesystem.squashfs"), "-quiet", "-no-progress", *CODECS[name]])
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-R", "-o", str(iso), str(tmp_path / "tree")])
    site = write_tree(
        tmp_path / "site",
        {f"many/a-rather-long-name-{number}": "x" * number for number in range(600)}
        | {"text": "".join(f"{number}\n" for number in range(30_000)), "empty": "", "etc/hostname": "new\n"},
    )
    (site / "noise").write_bytes(os.urandom(200_000))
    (site / "hole").touch()
    os.truncate(site / "hole", 400_000)
    os.symlink("text", site / "link")
    os.link(site / "text", site / "text-2")
    result = cosremaster.remaster(iso, out, add=[site], as_layer="site")
    assert result.layer == "live/site.squashfs"
    image = tmp_path / "new.squashfs"
    image.write_bytes(extract(out, "live/site.squashfs"))
    new = on_disk_of(out, "live/site.squashfs", tmp_path / "unpacked")
    want = on_disk(site)
    assert {path: (entry[0], entry[1], entry[4]) for path, entry in new.items() if path != "."} == {
        path: (entry[0], entry[1], entry[4]) for path, entry in want.items() if path != "."
    }
    if name != "lz4":  # which 7-Zip does not read
        run(["7z", "t", str(image)])
    run(["sqfs2tar", str(image)])
    facts = [run(["unsquashfs", "-s", str(file)]).decode() for file in (folder / "filesystem.squashfs", image)]
    for line in ("Compression ", "Block size ", "Filesystem is "):
        sides = [[text for text in fact.splitlines() if text.startswith(line)] for fact in facts]
        assert sides[0] == sides[1]
    inodes = int(re.search(r"Number of inodes (\d+)", facts[1])[1])  # type: ignore[index]
    assert inodes == len(new) - 1, "no inode is dead; two names are one inode"
    with cosremaster.open(image, remember=False) as opened:
        assert not [finding for finding in opened.verify(deep=True).findings if finding.is_counted]


def files_on(iso: Path) -> list[str]:
    tools.require("isoinfo")
    listed = run(["isoinfo", "-R", "-f", "-i", str(iso)]).decode().split()
    return sorted(path.lstrip("/") for path in listed)


@pytest.mark.parametrize(
    ("files", "trees", "name", "path"),
    [
        ({}, {"live/filesystem.squashfs": SYSTEM}, "site", "live/site.squashfs"),
        ({}, {"live/filesystem.squashfs": SYSTEM}, "custom", "live/z-custom.squashfs"),
        ({}, {"live/zz.squashfs": SYSTEM}, "site", "live/zzz-site.squashfs"),
        ({"casper/initrd": b""}, {"casper/filesystem.squashfs": SYSTEM}, "a", "casper/z-a.squashfs"),
        ({}, SLAX, "site", "slax/modules/10-site.sb"),
        ({}, {"slax/01-core.sb": SYSTEM, "slax/09-x.sb": {"etc/x": "x\n"}}, "site", "slax/10-site.sb"),
        ({}, {"slax/01-core.sb": SYSTEM}, "20-site", "slax/20-site.sb"),
        ({}, {"porteus/base/001-core.xzm": SYSTEM}, "site", "porteus/modules/site.xzm"),
        ({}, {"porteus/base/001-core.xzm": SYSTEM, "porteus/modules/x.xzm": {"etc/x": "x\n"}}, "site",
         "porteus/modules/z-site.xzm"),
    ],
)  # fmt: skip
def test_where_a_new_layer_goes(
    files: Mapping[str, bytes],
    trees: Mapping[str, Mapping[str, str]],
    name: str,
    path: str,
    live_disc: DiscMaker,
    tmp_path: Path,
) -> None:
    files = {place: initramfs(tmp_path, CASPER) for place in files}
    iso, out = live_disc(files, trees), tmp_path / "out.iso"
    before = files_on(iso)
    site = write_tree(tmp_path / "site", {"etc/site": "s\n", "etc/hostname": "new\n"})
    assert cosremaster.remaster(iso, out, add=[site], as_layer=name).layer == path
    parents = [path.rpartition("/")[0]] if path.startswith("porteus") else []
    assert files_on(out) == sorted({*before, *parents, path})
    for tree in trees:
        assert extract(out, tree) == extract(iso, tree)
    with cosremaster.open(out, remember=False) as image:
        root = image.info().values["root"]
    assert root["layers"][-1] == path


def test_a_layer_over_ext4(live_disc: DiscMaker, tmp_path: Path) -> None:
    tools.require("mke2fs")
    run(["mke2fs", "-q", "-F", "-t", "ext4", str(tmp_path / "ext"), "1M"])
    files = {"live/zz.ext4": (tmp_path / "ext").read_bytes()}
    iso, out = live_disc(files, {"live/filesystem.squashfs": SYSTEM}), tmp_path / "out.iso"
    site = write_tree(tmp_path / "site", {"etc/site": "s\n"})
    assert cosremaster.remaster(iso, out, add=[site], as_layer="site").layer == "live/zzz-site.squashfs"


def test_directories_of_an_ext4_below_are_copied_without_their_lists(live_disc: DiscMaker, tmp_path: Path) -> None:
    """systemd gives /var/log/journal such a list, which squashfs cannot hold: that ended in an internal error."""
    tools.require("mke2fs", "setfacl", "unsquashfs")
    tree = write_tree(tmp_path / "ext4", {"var/log/below": "b\n"})
    run(["setfacl", "-m", "g:4:rx", str(tree / "var/log")])
    os.utime(tree / "var", (-5, -5))
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-I", "256", "-d", str(tree), str(tmp_path / "ext"), "1M"])
    iso = live_disc({"live/a.ext4": (tmp_path / "ext").read_bytes()}, {"live/b.squashfs": SYSTEM})
    out, site = tmp_path / "out.iso", write_tree(tmp_path / "site", {"var/log/new": "n\n"})
    for request, path in (({}, "live/b.squashfs"), ({"as_layer": "c"}, "live/c.squashfs")):
        result = cosremaster.remaster(iso, out, add=[site], force=True, **request)  # type: ignore[arg-type]
        (warning,) = [text for text in result.warnings if "ACLs of directories of lower layers" in text]
        assert warning.endswith("are not taken over: a squashfs file system holds none: var/log")
        layer = on_disk_of(out, path, tmp_path / path.rpartition("/")[2].removesuffix(".squashfs"))
        assert {name for name in layer if name.startswith("var")} == {"var", "var/log", "var/log/new"}


def test_live_boot_lists_the_new_layer(live_disc: DiscMaker, tmp_path: Path) -> None:
    trees = {"live/filesystem.squashfs": SYSTEM, "live/extra.squashfs": {"etc/extra": "e\n"}}
    menu = "label a\n kernel /live/vmlinuz\n append boot=live module=kiosk\n"
    listed = "filesystem.squashfs\nextra.squashfs"
    iso = live_disc({"isolinux/isolinux.cfg": menu, "live/kiosk.module": listed}, trees)
    out, site = tmp_path / "out.iso", write_tree(tmp_path / "site", {"etc/site": "s\n"})
    assert cosremaster.remaster(iso, out, add=[site], as_layer="a").layer == "live/a.squashfs"
    assert extract(out, "live/kiosk.module").decode() == f"{listed}\na.squashfs\n"


@pytest.mark.parametrize(
    ("menu", "tree", "words"),
    [
        ("linux /v archisobasedir=arch", "arch/x86_64/airootfs.sfs", "archiso mounts arch/x86_64/airootfs.sfs"),
        ("linux /v root=live:CDLABEL=x", "LiveOS/squashfs.img", "dracut .* mounts LiveOS/squashfs.img"),
        ("linux /v boot=live toram=filesystem.squashfs", "live/filesystem.squashfs", "toram=filesystem.squashfs"),
        ("linux /v boot=casper", "casper/minimal.live.squashfs", "casper mounts casper/minimal.live.squashfs"),
    ],
)
def test_a_single_root_takes_no_layer(
    menu: str,
    tree: str,
    words: str,
    live_disc: DiscMaker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    iso = live_disc({"boot/grub/grub.cfg": f"menuentry x {{ {menu} }}\n"}, {tree: SYSTEM})
    site, out = write_tree(tmp_path / "site", {"etc/site": "s\n"}), tmp_path / "out.iso"
    with pytest.raises(UnsupportedError, match=f"no layer can be laid over the root.*{words}"):
        cosremaster.remaster(iso, out, add=[site], as_layer="site")
    assert main([str(iso), str(out), "--add", str(site), "--as-layer", "site"]) == 5
    assert not out.exists()


def test_what_is_refused(live_disc: DiscMaker, tmp_path: Path) -> None:
    iso = live_disc({}, {"live/filesystem.squashfs": SYSTEM, "live/site.squashfs": {"etc/x": "x\n"}})
    site, out = write_tree(tmp_path / "site", {"etc/site": "s\n"}), tmp_path / "out.iso"
    with pytest.raises(UsageError, match="--layer cannot choose another"):
        cosremaster.remaster(iso, out, add=[site], as_layer="site", layer="live/site.squashfs")
    for name in ("a.b", "", "a/b", "../x", "-x", "x" * 65):
        with pytest.raises(UsageError, match="is no name of a layer"):
            cosremaster.remaster(iso, out, add=[site], as_layer=name)
    with pytest.raises(UsageError, match="cannot lie under a new layer"):
        cosremaster.remaster(iso, out, add=[site], as_layer="x", remove_iso=["/live/filesystem.squashfs"])
    with pytest.raises(OverlayError, match="no whiteouts"):
        cosremaster.remaster(live_disc({}, SLAX), out, remove=["/usr/bin/tool"], as_layer="site")
    with pytest.raises(LayerError, match="nothing says which file systems the boot mounts"):
        cosremaster.remaster(live_disc({}, {"a.squashfs": SYSTEM}), out, add=[site], as_layer="site")
    assert not out.exists()


def test_nothing_to_change_makes_no_layer(live_disc: DiscMaker, tmp_path: Path) -> None:
    iso, out = live_disc({}, {"live/filesystem.squashfs": SYSTEM}), tmp_path / "out.iso"
    site = write_tree(tmp_path / "site", {"etc/hostname": "base\n"})
    result = cosremaster.remaster(iso, out, add=[site], as_layer="site")
    assert result.unchanged == (b"etc/hostname",)
    assert files_on(out) == files_on(iso)


def test_a_recipe_makes_a_layer(live_disc: DiscMaker, tmp_path: Path) -> None:
    iso = live_disc({}, {"live/filesystem.squashfs": SYSTEM})
    recipe = tmp_path / "site.toml"
    recipe.write_text(
        f'input = "{iso}"\noutput = "{tmp_path}/out.iso"\nas_layer = "site"\n'
        '[[add]]\nfile = "/etc/site"\ncontent = "s\\n"\n'
    )
    assert main(["build", str(recipe), "--quiet"]) == 0
    assert "live/site.squashfs" in files_on(tmp_path / "out.iso")
    recipe.write_text(recipe.read_text().replace('"site"', '"a.b"', 1))
    assert main(["build", str(recipe), "--quiet"]) == 2


def test_plan_and_report_name_the_new_layer(casper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = write_tree(tmp_path / "site", {"etc/site": "s\n"})
    report = tmp_path / "report.json"
    out = tmp_path / "out.iso"
    assert main([str(casper), str(out), "--add", str(site), "--as-layer", "site", "--report", str(report)]) == 0
    assert "casper/minimal.standard.live.site.squashfs: " in capsys.readouterr().out
    text = report.read_text(encoding="utf-8")
    assert '"layer": "casper/minimal.standard.live.site.squashfs"' in text
    assert "conf/conf.d/default-layer.conf" in text
    assert main(["plan", str(casper), "--add", str(site)]) == 0  # an edit of the uppermost one is planned as well
    capsys.readouterr()
    assert main(["plan", str(casper), "--add", str(site), "--as-layer", "site"]) == 0
    assert "casper/minimal.standard.live.site.squashfs" in capsys.readouterr().out
