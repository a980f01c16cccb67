"""What is told about a path, a name or a file that was typed and is not there: the one that may be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.suggestions import suggest_file
from cosremaster.tree.similar import suggest_path
from tests.support.small import CGZ, packed_root, write_small

FLEET = """base = "in.iso"
output = "${NAME}.iso"
[variables]
HOST = "x"
[[site]]
name = "north"
[[site]]
name = "south"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an image, a fleet and files to add."""
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path)
    (tmp_path / "root.cpio.gz").write_bytes(packed_root())
    (tmp_path / "fleet.toml").write_text(FLEET)
    (tmp_path / "setup.sh").write_text("true\n")
    (tmp_path / "site" / "etc").mkdir(parents=True)
    (tmp_path / "site" / "etc" / "motd").write_text("hello\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("in.iso out.iso --rename-iso /boot/grub/grub.cgf:/x", "/boot/grub/grub.cfg"),
        ("in.iso out.iso --remove-iso /vmlinux", "/vmlinuz"),
        ("in.iso out.iso --remove-iso /BOOT/GRUB", "/boot/grub"),
        ("in.iso out.iso --remove /etc/hostnam", "/etc/hostname"),
        ("in.iso out.iso --remove /hostname", "/etc/hostname"),
        ("plan root.cpio.gz --remove /ect/hostname", "/etc/hostname"),
        (f"in.iso out.iso --layer {CGZ}::rootfs.xz --add site", f"{CGZ}::rootfs.cxz"),
        ("in.iso out.iso --add sites/", "site"),
        ("in.iso out.iso --run ./setpu.sh", "./setup.sh"),
        ("im.iso out.iso --add site", "in.iso"),
        ("verify im.iso", "in.iso"),
        ("fleet fleet.tml", "fleet.toml"),
        ("fleet fleet.toml --only nort --only south", "north"),
        ("fleet fleet.toml --set HOTS=y", "HOST"),
    ],
)
def test_what_may_be_meant_ends_the_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, meant: str
) -> None:
    assert main(words.split()) not in (0, 70)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"; did you mean {meant}?")
    assert not list(folder.glob("out.iso*"))


@pytest.mark.parametrize(
    "words",
    [
        "in.iso out.iso --remove-iso /qqqq",
        "in.iso out.iso --remove /etc/qqqq",
        "in.iso out.iso --remove /etc/hostnam* --remove /etc/h*",
        "in.iso out.iso --rename-iso /qqqq:/x",
        "in.iso out.iso --add qqqq",
        "fleet fleet.toml --only qqqq",
    ],
)
def test_nothing_is_meant_where_nothing_is_like_it(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert main(words.split()) not in (0, 70)
    assert "did you mean" not in capsys.readouterr().err


def test_a_directory_on_the_way_may_be_mistyped_too() -> None:
    paths = [b"", b"etc", b"etc/ssh", b"etc/ssh/sshd_config", b"usr", b"usr/lib", b"usr/lib/x\xff"]
    assert suggest_path(b"ETC/sshd/sshd_confg", paths) == "; did you mean /etc/ssh/sshd_config?"
    assert suggest_path(b"usr/libs", paths) == "; did you mean /usr/lib?"
    assert suggest_path(b"opt/sshd_config", paths) == "; did you mean /etc/ssh/sshd_config?"
    assert suggest_path(b"usr/lib/y", paths) == ""
    assert suggest_path(b"etc", []) == ""


@pytest.mark.parametrize("words", ["ls in.iso/boot/grub/", "cat in.iso/boot/grub", "extract in.iso/boot/grub out"])
def test_an_image_is_no_directory(folder: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert main(words.split()) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("; in.iso is a file, and what is in an image stands behind :: (in.iso::boot/grub)")
    assert main(["ls", "in.iso::boot/grub"]) == 0


def test_a_file_that_is_there_is_not_meant(tmp_path: Path) -> None:
    (tmp_path / "vendor.iso").touch()
    (tmp_path / "vend\x1br.iso").touch()
    assert suggest_file(tmp_path / "vendor.iso") == ""
    assert suggest_file(tmp_path / "vender.iso", PermissionError()) == ""
    assert suggest_file(tmp_path / "none" / "vender.iso") == ""
    assert suggest_file(tmp_path / "ven\0der.iso") != "; did you mean vend\x1br.iso?"
    assert suggest_file(f"{tmp_path}/vender.iso/", FileNotFoundError()) == f"; did you mean {tmp_path}/vendor.iso?"
