"""Names of outputs that say another kind than the input stays, or a codec of what is under none."""

import os
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures.tools import require, run

REFUSED = {
    "out.cpio": "the name says cpio", "out.cgz": "the name says cpio", "out.zip": "the name says zip",
    "out.cpio.gz": "the name says cpio", "out.erofs": "the name says erofs", "out.qcow2": "the name says qcow2",
    "out.gz": "the name says gzip, under which no", "out.xz": "the name says xz, under which no",
    "out.lz": "the name says lzip, under which no", "out.vcdiff": "the name says a delta, which --delta writes",
}  # fmt: skip
MINE = {"squashfs": ["out.squashfs", "out.SFS", "out.img", "out"], "iso": ["out.iso", "out.ISO", "out.img", "out"]}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the names of a squashfs and of an ISO with it, in the working directory."""
    require("mksquashfs", "genisoimage")
    monkeypatch.chdir(tmp_path)
    for name in ("bin", "etc", "sbin", "usr", "lib"):
        Path("root", name).mkdir(parents=True)
    Path("root/etc/motd").write_text("old\n")
    Path("disc/live").mkdir(parents=True)
    run(["mksquashfs", "root", "root.squashfs", "-quiet", "-no-progress", "-all-root"])
    os.link("root.squashfs", "disc/live/filesystem.squashfs")
    run(["genisoimage", "-quiet", "-R", "-o", "vendor.iso", "disc"])
    Path("motd").write_text("new\n")
    return {"squashfs": "root.squashfs", "iso": "vendor.iso"}


@pytest.mark.parametrize("kind", ["squashfs", "iso"])
def test_a_name_that_says_another_kind_is_refused(
    images: dict[str, str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ISO or a squashfs was written under each of these names, with exit code 0, or called a cpio."""
    image = images[kind]
    stays = {"squashfs": "root.squashfs stays squashfs", "iso": "vendor.iso stays an ISO image"}[kind]
    other = {"squashfs": {"out.iso": "the name says iso"}, "iso": {"out.sqfs": "the name says squashfs"}}[kind]
    before = sorted(Path().iterdir())
    for name, message in {**REFUSED, **other}.items():
        for command in ([image, name, "--add", "motd:/etc/motd"], [image, name], ["prepare", image, name]):
            assert main(command) == 2, command
            told = capsys.readouterr().err
            assert f"{name}: {message}" in told
            assert message.endswith(("under which no", "--delta writes")) or stays in told
    assert sorted(Path().iterdir()) == before
    with pytest.raises(cosremaster.UsageError, match="the name says cpio"):
        cosremaster.remaster(image, "out.cpio", add=[("motd:/etc/motd")])


@pytest.mark.parametrize("kind", ["squashfs", "iso"])
def test_a_name_that_says_the_same_or_nothing_is_written(images: dict[str, str], kind: str) -> None:
    for name in MINE[kind]:
        assert main([images[kind], name, "--add", "motd:/etc/motd", "--quiet"]) == 0
        assert Path(name).read_bytes()[:4] == Path(images[kind]).read_bytes()[:4]
        Path(name).unlink()
    lie = f"lies.{'cpio.gz' if kind == 'iso' else 'iso'}"  # and one that stays, whatever it says
    Path(images[kind]).rename(lie)
    assert main([lie, f"more-{lie}", "--add", "motd:/etc/motd", "--quiet"]) == 0


def test_archives_get_no_name_of_an_iso(images: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    require("cpio", "tar")
    run(["sh", "-ec", "cd root; find . | cpio -o -H newc --quiet > ../a.cpio; tar -cf ../a.tar ."])
    for name in ("a.cpio", "a.tar"):
        assert main([name, "out.iso", "--add", "motd:/etc/motd"]) == 2
        assert f"out.iso: the name says iso, and {name} stays {name[2:]}" in capsys.readouterr().err
