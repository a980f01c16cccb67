"""The volume's id and date: in every descriptor, judged by isoinfo, blkid, xorriso, udfinfo; and who looks for them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.cli import main
from cosremaster.errors import UsageError
from cosremaster.iso.volume_id import encode_volume_id, parse_volume_date
from cosremaster.verification.run import verify
from tests.fixtures import families, tools
from tests.fixtures.families import FAMILIES
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.volume_ids import DATE, ID, UUID, blkid, menu_by_name

SMALL = [name for name in FAMILIES if name not in ("data-large", "grub-rescue-pc", "ipxe", "memtest86+")]


def isoinfo(iso: Path) -> str:
    """The volume id as isoinfo prints it."""
    found = re.search(r"^Volume id: (.*)$", run(["isoinfo", "-d", "-i", iso]).decode(), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", SMALL)
def test_every_descriptor_says_the_new_name(name: str, tmp_path: Path) -> None:
    tools.require(*families.TOOLS, *judges.TOOLS, "udfinfo", "checkisomd5")
    iso, out = families.build(name), tmp_path / "out.iso"
    result = remaster(iso, out, volume_id=ID, volume_date=DATE)
    assert result.proof[0].startswith(f"volume {ID!r}")
    assert isoinfo(out) == ID
    told = blkid(out)
    assert told["LABEL"] == ID
    before, after = iso.read_bytes(), out.read_bytes()
    assert len(before) == len(after)
    pvd = run(["xorriso", "-indev", out, "-pvd_info"]).decode()
    assert re.search(rf"^Volume Id    : {ID}$", pvd, re.MULTILINE)
    assert re.search(r"^Modif. Time  : 2026112611000025$", pvd, re.MULTILINE)
    if "udf" in name:
        said = run(["udfinfo", out]).decode()
        for field in ("label", "vid", "lvid", "fsid"):
            assert f"{field}={ID}\n" in said
        assert b"\x08FAMILY" not in after
    else:
        assert told["UUID"] == UUID
    wide = [after[at + 40 : at + 72] for at in range(16 * 2048, 32 * 2048, 2048) if after[at : at + 6] == b"\2CD001"
            and after[at + 88 : at + 90] == b"%/"]  # fmt: skip
    assert len(wide) == bool(judges.joliet(iso))
    assert all(one == ID[:16].encode("utf-16-be") for one in wide)
    if name == "fedora":
        run(["checkisomd5", out])
    assert judges.tree(out) == judges.tree(iso)
    assert judges.complaints(out) <= judges.complaints(iso)
    if name != "multi-session":  # the first session keeps its name
        assert b"FAMILY".ljust(32) not in after
    report = verify(out, against=iso, changed_volume=True)
    assert [(one.check, one.message) for one in report.findings if one.is_counted] == []
    assert not verify(out, against=iso).ok


def test_a_partitions_own_descriptors_follow(tmp_path: Path) -> None:
    tools.require(*families.TOOLS)
    out, inner = tmp_path / "out.iso", tmp_path / "inner.iso"
    remaster(families.build("ubuntu"), out, volume_id=ID, volume_date=DATE)
    inner.write_bytes(out.read_bytes()[16 * 2048 :])
    assert (blkid(inner)["LABEL"], blkid(inner)["UUID"]) == (ID, UUID)


def test_a_volume_id_and_a_longer_file_in_one_run(tmp_path: Path) -> None:
    """What is overwritten stands in what moves: the EFI image behind the volume."""
    tools.require(*families.TOOLS, *judges.TOOLS)
    iso, out, new = families.build("ubuntu"), tmp_path / "out.iso", tmp_path / "new"
    new.write_bytes(b"x" * 2_000_000)
    remaster(iso, out, add_iso=[f"{new}:/{families.PAYLOAD}"], volume_id=ID, volume_date=DATE)
    assert (blkid(out)["LABEL"], blkid(out)["UUID"]) == (ID, UUID)
    report = verify(out, against=iso, changed=[families.PAYLOAD.encode()], changed_volume=True)
    assert [(one.check, one.message) for one in report.findings if one.is_counted] == []


@pytest.mark.parametrize(("text", "digits"), [
    ("2026-11-26T12:00:00Z", b"2026112612000000"), ("2026-11-26 12:00-0530", b"2026112617300000"),
    ("2026-01-01T00:30:00+01:00", b"2025123123300000"), ("@1700000000", b"2023111422132000"),
    ("@0", b"1970010100000000"),
    ("2026-11-26T12:00:00.999999Z", b"2026112612000099"),
])  # fmt: skip
def test_dates(text: str, digits: bytes) -> None:
    assert parse_volume_date(text) == digits + b"\0"


@pytest.mark.parametrize("text", [
    "", "now", "2026-11-26", "2026-11-26T12:00:00", "2026-13-01T00:00:00Z", "@-1", "@1.5", "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00", "@999999999999", "2026-11-26T12:00:00+25:00", "٢٠٢٦-11-26T12:00:00Z",
])  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(UsageError, match="is no date"):
        parse_volume_date(text)


@pytest.mark.parametrize("text", ["", "x" * 33, "é", "a\n", " a", "a "])
def test_what_is_no_volume_id(text: str) -> None:
    with pytest.raises(UsageError, match="volume id"):
        encode_volume_id(text)


def test_who_looks_for_the_old_name_is_told(by_name: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.iso"
    assert main([str(by_name), str(out), "--volume-id", ID, "--volume-date", DATE]) == 0
    said = capsys.readouterr().err
    for words in (
        "boot/grub/grub.cfg line 5: search --no-floppy --set=one --label DEBIAN_LIVE: looks for the old volume id",
        "boot/grub/grub.cfg line 6: search --no-floppy --set=two --fs-uuid 2023-11-14-22-13-20-00: looks for the old",
        "boot/grub/grub.cfg line 8: root=live:CDLABEL=DEBIAN_LIVE: looks for the old volume id DEBIAN_LIVE",
    ):
        assert words in said
    assert said.count("looks for") == 3
    run(["xorriso", "-osirrox", "on", "-indev", out, "-extract", "/boot/grub/grub.cfg", tmp_path / "menu"])
    assert (tmp_path / "menu").read_bytes() == menu_by_name("2023-11-14-22-13-20-00")


def test_what_is_built_into_a_program_is_told(tmp_path: Path) -> None:
    """An EFI program that looks for the old date by itself, in the FAT and its copy."""
    tools.require(*families.TOOLS, "mcopy")
    iso, fat = tmp_path / "in.iso", tmp_path / "fat"
    raw = families.build("debian").read_bytes()
    (tmp_path / "program").write_bytes(
        b"MZ" + bytes(3000) + b"search.fs_uuid 2023-11-14-22-13-20-00 root\n" + bytes(99)
    )
    run(["xorriso", "-osirrox", "on", "-indev", families.build("debian"), "-extract", "/boot/grub/efi.img", fat])
    start = raw.index(fat.read_bytes())
    fat.chmod(0o644)
    run(["mcopy", "-i", fat, tmp_path / "program", "::/EFI/BOOT/GRUBX64.EFI"])
    iso.write_bytes(raw[:start] + fat.read_bytes() + raw[start + fat.stat().st_size :])
    result = remaster(iso, tmp_path / "out.iso", volume_date="@0", retarget=True)
    assert [one for one in result.warnings if "built in" in one] == [
        "boot/grub/efi.img » EFI/BOOT/GRUBX64.EFI has the old volume date 2023-11-14-22-13-20-00 built in, which cannot"
        " be changed there"
    ]


def test_the_same_name_again_changes_nothing(tmp_path: Path) -> None:
    tools.require(*families.TOOLS)
    iso = families.build("debian")
    result = remaster(iso, tmp_path / "out.iso", volume_id="FAMILY", volume_date="@1700000000")
    assert result.identical
    assert subprocess.run(["cmp", iso, tmp_path / "out.iso"], check=False).returncode == 0
