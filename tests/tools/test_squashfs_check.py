"""What breaks a rule of squashfs' readers: those readers refuse it, ``verify`` names it, an edit never makes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.squashfs_faults import BROKEN, SOUND


def judges_refuse(image: Path, folder: Path) -> str:
    """Who refuses ``image``: K for Linux, U for unsquashfs, Z for 7-Zip."""
    refusing = ""
    target = folder / "mounted"
    target.mkdir(exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "squashfs", "-o", "loop,ro", image, target], check=False, capture_output=True
    ).returncode:
        refusing += "K"
    else:
        try:
            for name in ("big", "hole", "small", "link"):
                path = target / name
                path.lstat()
                _ = path.read_bytes() if path.is_file() else b""
        except OSError:
            refusing += "K"
        finally:
            run(["umount", str(target)])
    unpack = ["unsquashfs", "-q", "-n", "-f", "-d", str(folder / "tree")]
    for name, command in {"U": unpack, "Z": ["7z", "t"]}.items():
        if subprocess.run([*command, str(image)], check=False, capture_output=True).returncode:
            refusing += name
    return refusing


def test_readers_refuse_what_the_check_names(tmp_path: Path) -> None:
    tools.require("unsquashfs", "7z")
    if os.geteuid() != 0 or "\tsquashfs" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        tools.leave_out("This test needs root and a kernel with squashfs.")
    image = tmp_path / "x.squashfs"
    drafts = {name: ("", draft) for name, draft in SOUND.items()}
    drafts |= {name: (refusing, draft) for name, (_, refusing, draft) in BROKEN.items()}
    for name, (refusing, draft) in drafts.items():
        image.write_bytes(draft.build())
        assert set(refusing) <= set(judges_refuse(image, tmp_path)), name
        assert refusing or name not in SOUND or not judges_refuse(image, tmp_path), name


def test_verify_names_the_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "x.squashfs"
    image.write_bytes(BROKEN["more fragments than inodes"][2].build())
    assert main(["verify", str(image)]) == 1
    shown = capsys.readouterr().out
    assert "FAIL layer.rule" in shown
    assert "has 6 fragments and 5 inodes" in shown
    image.write_bytes(BROKEN["xz with CRC64"][2].build())
    assert main(["verify", str(image)]) == 0, "data are read with --deep"
    capsys.readouterr()
    assert main(["verify", str(image), "--deep"]) == 1
    assert "has check 4 of xz, and kernels know CRC32 and none" in capsys.readouterr().out
    image.write_bytes(SOUND["plain"].build())
    assert main(["verify", str(image), "--deep"]) == 0
    assert main(["verify", str(image), "--against", str(image)]) == 5


def test_verify_looks_into_the_squashfs_of_an_iso(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("genisoimage")
    disc = tmp_path / "disc"
    (disc / "live").mkdir(parents=True)
    (disc / "live/filesystem.squashfs").write_bytes(BROKEN["gap before owners"][2].build())
    iso = tmp_path / "x.iso"
    run(["genisoimage", "-quiet", "-R", "-o", str(iso), str(disc)])
    assert main(["verify", "--deep", str(iso)]) == 1
    assert "layer.rule: " in (shown := capsys.readouterr().out)
    assert "filesystem.squashfs @0x" in shown
    assert "bytes between its inode references and its owners" in shown


@pytest.mark.parametrize("options", [("-b", "4096"), ("-comp", "xz", "-always-use-fragments")])
def test_a_small_image_keeps_fewer_fragments_than_inodes(options: tuple[str, ...], tmp_path: Path) -> None:
    """unsquashfs refuses more fragments than inodes: 8 edits of 5 inodes make 9 fragments."""
    tools.require("mksquashfs", "unsquashfs", "7z")
    root = write_tree(tmp_path / "root", {"a": "a\n", "b": "b\n", "c": "c\n", "d": "d\n"})
    image, out = tmp_path / "a.sqfs", tmp_path / "b.sqfs"
    run(["mksquashfs", str(root), str(image), "-quiet", "-no-progress", *options])
    for number in range(12):
        (tmp_path / "a").write_text(f"{number}\n")
        cosremaster.remaster(image, out, add=[f"{tmp_path}/a:/a"], force=True, remember=False, sync=False)
        out.replace(image)
        assert cosremaster.verify(image, deep=True).ok
        assert run(["unsquashfs", "-cat", str(image), "a"]) == b"%d\n" % number
    run(["7z", "t", str(image)])
