"""Squashfs files without the bytes of removed files; the kernel and the other readers of squashfs judge."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import struct
import zlib
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, Request
from cosremaster.cli import main
from cosremaster.errors import UsageError
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.small import write_small
from tests.support.squashfs_judges import Seen, check_with_readers, look_at_squashfs

PLAIN = ("-noI", "-noD", "-noF", "-noX")
MODES = ({"repack_metadata": True}, {"repack": True})
SECRETS = (b"SECRET-BLOCKS", b"SECRET-TAIL", b"SECRET-NAME", b"SECRET-TARGET", b"SECRET-VALUE", b"SECRET-FOLDER")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with secrets of every kind beside files that stay, all kinds of nodes, and marks of overlayfs."""
    tools.require("mksquashfs", "setfattr")
    if os.geteuid() != 0:
        tools.leave_out("This test makes device nodes and trusted attributes, which needs root.")
    root = tmp_path_factory.mktemp("repack") / "root"
    text = "".join(f"{number}\n" for number in range(40_000))
    files = {f"etc/file-{number}": f"live {number}\n" for number in range(300)} | {"sbin/init": "i\n"}
    files |= {"etc/SECRET-NAME": "SECRET-TAIL\n", "SECRET-FOLDER/x": "x\n"}
    files |= {"usr/secret": "SECRET-BLOCKS\n" * 30_000, "usr/text": text, "usr/copy": text, "usr/gone": text}
    write_tree(root, files)
    (root / "usr/noise").write_bytes(hashlib.shake_256(b"noise").digest(300_000))
    os.truncate(root / "etc/file-1", 400_000)
    for name in ("etc/link-1", "etc/link-2", "usr/link-3"):
        os.link(root / "usr/noise", root / name)
    os.symlink("SECRET-TARGET", root / "usr/symlink")
    os.symlink("stays", root / "usr/symlink-2")
    os.mkfifo(root / "fifo")
    os.mknod(root / "whiteout", stat.S_IFCHR, 0)
    os.mknod(root / "disk", stat.S_IFBLK, os.makedev(259, 70_000))
    for path, name, value in (
        ("etc", "trusted.overlay.opaque", "y"), ("usr", "trusted.overlay.impure", "y"),
        ("usr/text", "user.long", "v" * 900),
        ("usr/copy", "user.long", "v" * 900), ("usr/noise", "user.long", "v" * 900), ("usr/noise", "user.short", "s"),
        ("usr/secret", "user.note", "SECRET-VALUE"), (".", "security.mark", "root"),
    ):  # fmt: skip
        run(["setfattr", "-n", name, "-v", value, str(root / path)])
    os.chown(root / "usr/secret", 1234, 1235)
    os.chown(root / "usr/text", 77, 88)
    return root


REMOVED = ("/usr/secret", "/usr/gone", "/etc/SECRET-NAME", "/SECRET-FOLDER", "/usr/symlink", "/etc/link-1")
OPTIONS = {
    "gzip": ("-b", "4096"), "xz": ("-comp", "xz", "-b", "1M", "-Xdict-size", "32K"), "zstd": ("-comp", "zstd"),
    "lz4": ("-comp", "lz4", "-always-use-fragments"), "lzo": ("-comp", "lzo"), "stored": PLAIN,
    "no fragments": ("-no-fragments", "-no-exports"), "tails": ("-always-use-fragments", "-no-duplicates"),
}  # fmt: skip


def make(tree: Path, image: Path, *options: str) -> Path:
    run(["mksquashfs", str(tree), str(image), "-quiet", "-no-progress", *options])
    return image


def remaster(image: Path, out: Path, **request: object) -> cosremaster.Result:
    return cosremaster.remaster(image, out, force=True, remember=False, sync=False, **request)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_repacked_image_is_the_same_tree(name: str, tree: Path, tmp_path: Path) -> None:
    image, plain, out = make(tree, tmp_path / "in.sqfs", *OPTIONS[name]), tmp_path / "plain.sqfs", tmp_path / "out.sqfs"
    site = write_tree(tmp_path / "site", {"etc/file-2": "new\n", "opt/new": "n\n" * 5000})
    remaster(image, plain, add=[site], remove=REMOVED)
    want = look_at_squashfs(plain, tmp_path / "m")
    assert [seen[3] for path, seen in want.items() if path in (b"usr/noise", b"etc/link-2", b"usr/link-3")] == [3] * 3
    assert stat.S_ISCHR(int(str(want[b"whiteout"][0]))) and want[b"whiteout"][5] == 0
    for mode in MODES:
        result = remaster(image, out, add=[site], remove=REMOVED, **mode)
        assert look_at_squashfs(out, tmp_path / "m") == want
        check_with_readers(out, tmp_path / "unpacked")
        assert cosremaster.verify(out, deep=True).ok
        assert result.layers[0].repacked == ("data" if "repack" in mode else "metadata")
        again = tmp_path / "again.sqfs"
        remaster(image, again, add=[site], remove=REMOVED, threads=1, **mode)
        assert again.read_bytes() == out.read_bytes(), "the number of threads does not count"
        remaster(plain, again, **mode)
        assert look_at_squashfs(again, tmp_path / "m") == want, "it works alone"
        assert remaster(again, tmp_path / "same.sqfs", **mode).identical, "there is nothing more to do"
        assert not any(word in out.read_bytes() for word in (b"SECRET-NAME", b"SECRET-FOLDER", b"SECRET-TARGET"))


@pytest.mark.parametrize("holder", ["file", "iso", "initramfs"])
def test_no_byte_of_a_removed_file_stays(holder: str, tree: Path, tmp_path: Path) -> None:
    tools.require("genisoimage", "cpio")
    folder = tmp_path / "folder"
    folder.mkdir()
    image, layer = make(tree, folder / "root.squashfs", *PLAIN), "root.squashfs" if holder == "iso" else None
    if holder == "iso":
        (folder / "zz").write_bytes(b"stays behind it" * 9999)
        image = tmp_path / "in.iso"
        run(["genisoimage", "-quiet", "-R", "-o", str(image), str(folder)])
    elif holder == "initramfs":
        (folder / "init").write_text("i")
        image, layer = tmp_path / "a/initrd", "initrd::root.squashfs"
        image.parent.mkdir()
        image.write_bytes(run(["cpio", "-o", "-H", "newc", "--quiet"], stdin=b"init\nroot.squashfs\n", cwd=folder))
    out, data = tmp_path / "out", image.read_bytes()
    assert all(secret in data for secret in SECRETS)
    shared = (tree / "usr/text").read_bytes()
    result = remaster(image, out, remove=REMOVED, layer=layer)
    assert all(secret in out.read_bytes() for secret in SECRETS[:2])
    (warning,) = [text for text in result.warnings if "can still be read" in text]
    assert "--repack" in warning
    result = remaster(image, out, remove=REMOVED, layer=layer, repack_metadata=True)
    assert [secret for secret in SECRETS if secret in out.read_bytes()] == list(SECRETS[:2])
    result = remaster(image, out, remove=REMOVED, layer=layer, repack=True)
    assert [secret for secret in SECRETS if secret in out.read_bytes()] == []
    assert not [text for text in result.warnings if "can still be read" in text]
    assert shared[:100_000] in out.read_bytes(), "data that a file that stays has too stay"
    assert all(b"live %d\n" % number in out.read_bytes() for number in range(3, 300))
    edited, repacked = tmp_path / image.name, tmp_path / "repacked"
    edited = edited if edited != image else tmp_path / "edited"
    remaster(image, edited, remove=REMOVED, layer=layer)
    remaster(edited, repacked, layer=layer, repack=True)
    assert [secret for secret in SECRETS if secret in repacked.read_bytes()] == []


def test_a_tail_without_which_its_block_is_as_long_goes_too(tmp_path: Path) -> None:
    """Nothing else was dead, and the new block had as many bytes: so all stayed as it was."""
    tools.require("mksquashfs", "unsquashfs")
    root = write_tree(tmp_path / "root", {"a": "a" * 3000, "b": "a" * 30, "c": "a" * 3100})
    image, first, out = make(root, tmp_path / "in.sqfs"), tmp_path / "first.sqfs", tmp_path / "out.sqfs"
    assert len(zlib.compress(b"a" * 6130, 9)) == len(zlib.compress(b"a" * 6100, 9))
    for source, target, size, mode in ((image, first, 6130, "repack_metadata"), (first, out, 6100, "repack")):
        remaster(source, target, remove=["/b"] if source == image else [], **{mode: True})
        assert zlib.decompressobj().decompress(target.read_bytes()[96:]) == b"a" * size
    assert [seen[6] for seen in look_at_squashfs(out, tmp_path / "m").values() if isinstance(seen[6], bytes)] == [
        hashlib.sha256(b"a" * size).digest() for size in (3000, 3100)
    ]


@pytest.mark.parametrize("size", [1, 300_000])
def test_the_plan_counts_beside_new_files(tree: Path, tmp_path: Path, size: int) -> None:
    squashfs = make(tree, tmp_path / "in.sqfs", *PLAIN, "-no-fragments")
    iso = write_small(tmp_path, extra={"root.squashfs": squashfs.read_bytes()})
    added = InlineFile("/opt/new", random.Random(5).randbytes(size))
    for image, layer in ((squashfs, "in.sqfs"), (iso, "root.squashfs")):
        with cosremaster.open(image) as opened:
            plan = opened.plan(Request(add=[added], remove=["/usr/secret"], layer=layer))
        (dead,) = plan.values["dead"]
        assert dead["layer"] == layer
        assert dead["data"] == (tree / "usr/secret").stat().st_size


def test_the_plan_says_what_each_saves(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = make(tree, tmp_path / "in.sqfs", *PLAIN, "-no-fragments")
    arguments = [word for path in REMOVED for word in ("--remove", path)]
    assert main(["plan", str(image), *arguments, "--json"]) == 0
    (dead,) = json.loads(capsys.readouterr().out)["dead"]
    assert dead["layer"] == "in.sqfs"
    assert dead["repacked"] is None
    secrets = sum((tree / path).stat().st_size for path in ("usr/secret", "etc/SECRET-NAME", "SECRET-FOLDER/x"))
    assert dead["data"] == secrets
    assert main(["plan", str(image), *arguments]) == 0
    lines = capsys.readouterr().out
    assert f"in.sqfs: {secrets:,} bytes of data are of removed files; --repack saves them" in lines
    assert f"about {dead['metadata']:,} bytes of metadata are of removed files; --repack-metadata saves them" in lines
    out, sizes = tmp_path / "out.sqfs", []
    for mode in ({}, *MODES):
        remaster(image, out, remove=REMOVED, **mode)
        sizes.append(struct.unpack_from("<Q", out.read_bytes(), 40)[0])
    assert abs(sizes[0] - sizes[1] - dead["metadata"]) < 2000
    assert sizes[1] - sizes[2] == dead["data"]
    assert main(["plan", str(image), *arguments, "--repack"]) == 0
    assert "in.sqfs: data repacked" in (lines := capsys.readouterr().out)
    assert "removed files" not in lines
    assert main([str(image), str(out), "--repack", "--force", *arguments]) == 0
    assert "6 removed" not in (lines := capsys.readouterr().out) or "data and metadata repacked" in lines
    assert "data and metadata repacked" in lines


def test_fifty_edits_and_a_repack(tmp_path: Path) -> None:
    """Random edits one upon the other; all rules hold after each, and the repacked image is the same tree."""
    tools.require("mksquashfs", "unsquashfs")
    choice = random.Random(7)
    root = write_tree(tmp_path / "root", {f"d{number % 3}/f{number}": f"{number}\n" * 40 for number in range(9)})
    image, out = make(root, tmp_path / "a.sqfs", "-b", "4096"), tmp_path / "b.sqfs"
    names = [f"d{number % 3}/f{number}" for number in range(9)]
    for number in range(50):
        name = f"d{choice.randrange(3)}/n{number}" if choice.random() < 0.5 else choice.choice(names)
        gone = [choice.choice(names)] if len(names) > 4 and choice.random() < 0.4 else []
        site = write_tree(tmp_path / f"site{number}", {name: f"{number}\n" * choice.choice([1, 700, 3000])})
        remaster(image, out, add=[site], remove=[f"/{path}" for path in gone if path != name])
        names = sorted({*names, name} - ({*gone} - {name}))
        out.replace(image)
        assert cosremaster.verify(image).ok
    with_dead = image.read_bytes()
    want = look_at_squashfs(image, tmp_path / "m")
    assert {os.fsdecode(path) for path in want if b"/" in path} == set(names)
    inodes = []
    for mode in MODES:
        remaster(image, out, **mode)
        assert look_at_squashfs(out, tmp_path / "m") == want
        check_with_readers(out, tmp_path / "unpacked")
        assert cosremaster.verify(out, deep=True).ok
        count, _, _, fragments = struct.unpack_from("<IIII", out.read_bytes(), 4)
        assert fragments <= count
        inodes.append(count)
        assert out.stat().st_size < len(with_dead)
    assert inodes == [len(want)] * 2
    more = write_tree(tmp_path / "more", {"later": "later\n"})
    run(["mksquashfs", str(more), str(out), "-quiet", "-no-progress"])
    assert b"later" in look_at_squashfs(out, tmp_path / "m")


def without_directory_links(seen: Seen) -> Seen:
    """``seen`` without the link counts of directories, in which gensquashfs counts files too."""
    return {path: entry[:3] + entry[4:] if stat.S_ISDIR(int(str(entry[0]))) else entry for path, entry in seen.items()}


def test_images_of_other_makers_are_repacked(tree: Path, tmp_path: Path) -> None:
    tools.require("tar2sqfs", "gensquashfs")
    packed = run(["tar", "-C", str(tree), "--xattrs", "--xattrs-include=*", "-cf", "-", "."])
    run(["tar2sqfs", "-q", str(tmp_path / "tar.sqfs")], stdin=packed)
    run(["gensquashfs", "-q", "--pack-dir", str(tree), str(tmp_path / "gen.sqfs")])
    for name in ("tar.sqfs", "gen.sqfs"):
        remaster(tmp_path / name, tmp_path / "plain.sqfs", remove=REMOVED)
        want = without_directory_links(look_at_squashfs(tmp_path / "plain.sqfs", tmp_path / "m"))
        for mode in MODES:
            remaster(tmp_path / name, tmp_path / "out.sqfs", remove=REMOVED, **mode)
            assert without_directory_links(look_at_squashfs(tmp_path / "out.sqfs", tmp_path / "m")) == want
            check_with_readers(tmp_path / "out.sqfs", tmp_path / "unpacked")


def test_what_has_nothing_to_repack(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("cpio")
    image, out = make(tree, tmp_path / "in.sqfs"), tmp_path / "out"
    for mode in MODES:
        result = remaster(image, out, **mode)
        assert result.identical
        assert result.layers[0].repacked == ""
        assert out.read_bytes() == image.read_bytes()
    write_tree(tmp_path / "initramfs", {"init": "i\n"})
    archive = tmp_path / "initrd"
    archive.write_bytes(run(["cpio", "-o", "-H", "newc", "--quiet"], stdin=b"init\n", cwd=tmp_path / "initramfs"))
    with pytest.raises(UsageError, match=r"--repack is for squashfs.*initrd is cpio"):
        remaster(archive, out, repack=True)
    assert main([str(archive), str(tmp_path / "none"), "--repack-metadata"]) == 2
    assert "--repack-metadata is for squashfs" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_recipe_repacks(tree: Path, tmp_path: Path) -> None:
    make(tree, tmp_path / "in.sqfs", *PLAIN)
    recipe = 'input = "in.sqfs"\noutput = "out.sqfs"\nremove = ["/usr/secret"]\nrepack = true\n'
    (tmp_path / "site.toml").write_text(recipe)
    assert main(["build", str(tmp_path / "site.toml")]) == 0
    assert b"SECRET-BLOCKS" not in (tmp_path / "out.sqfs").read_bytes()


def test_a_damaged_image_is_not_repacked(tree: Path, tmp_path: Path) -> None:
    """Bytes that are changed anywhere end in a sentence, or in an image that passes its check."""
    root = write_tree(tmp_path / "root", {"etc/hostname": "x\n", "d/e/f": "f" * 5000, "d/g": "g" * 9000})
    data = make(root, tmp_path / "in.sqfs", "-b", "4096").read_bytes()
    used = struct.unpack_from("<Q", data, 40)[0]
    bad, out = tmp_path / "bad.sqfs", tmp_path / "out.sqfs"
    for number in range(0, used, 7):
        bad.write_bytes(data[:number] + bytes([data[number] ^ 0x21]) + data[number + 1 :])
        try:
            remaster(bad, out, remove=["/d/g"], allow_missing=True, repack=True)
        except cosremaster.CosremasterError as error:
            assert "\n" not in str(error)
