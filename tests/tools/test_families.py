"""Every way images are made: looked at, copied to the byte, and whole again after a file changed its size."""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.cli import main
from cosremaster.errors import OverlayError, UnsupportedError
from cosremaster.iso.ecma119 import sections
from cosremaster.overlay.request import InlineFile
from cosremaster.verification.run import verify
from tests.fixtures import families, tools
from tests.fixtures.families import FAMILIES, GRUB_SAYS, PAYLOAD
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.family_images import HFS, exchanged, image, source
from tests.support.small import read_volume

SMALL = [name for name in FAMILIES if name != "data-large"]
ENDS_ARE_TOLD = ("mips", "sun")
"""Families whose firmware header tells where the image ends, and so cannot grow."""
CYLINDERS = ("debian", "fedora", "isohybrid", "ipxe")
"""Families whose images are of whole cylinders."""
NEEDS_HFS_DROPPED = "--drop-hfsplus"
PAYLOAD_SIZE = 123_456


@pytest.mark.parametrize("name", FAMILIES)
def test_is_read_and_copied_to_the_byte(name: str, tmp_path: Path) -> None:
    iso = image(name)
    result = remaster(iso, tmp_path / "out.iso")
    assert result.identical
    run(["cmp", iso, tmp_path / "out.iso"])
    assert not read_volume(iso).blockers


@pytest.mark.parametrize("at", [512 + 16, 512 + 88, 1024 + 40, 446 + 12, 34816 + 200])
def test_what_was_wrong_before_is_copied_as_it_is(at: int, tmp_path: Path) -> None:
    """GPT sums, an entry, an MBR entry, the second descriptors."""
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    raw = bytearray(image("ubuntu").read_bytes())
    raw[at] ^= 1
    iso.write_bytes(raw)
    assert remaster(iso, out).identical
    run(["cmp", iso, out])


@pytest.mark.parametrize(("name", "words"), [
    ("ubuntu", ["counted from block 16, 13 files", "GPT: primary and backup",
                "GPT partition 2: 'Appended2'", "no file at block ", "behind the volume's data"]),
    ("grub-mkrescue", ["Apple partition map: blocks of 2,048 bytes", "HFS+ over files of the tree"]),
    ("fedora", ["implanted MD5: ", "MBR: ISOLINUX hybrid MBR", "Joliet at block 18"]),
    ("udf", ["UDF: partition at block 257, 10 files"]),
    ("multi-session", ["sessions: several, the last from block "]),
    ("data-level-4", ["ISO 9660:1999 at block 17", "the same files"]),
    ("mips", ["MIPS volume header: boot file loader.b"]),
])  # fmt: skip
def test_inspect_tells_what_is_there(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(image(name))]) == 0
    said = capsys.readouterr().out
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize("grown", [-1, 5_000, 1_500_000])
@pytest.mark.parametrize("name", [name for name in SMALL if name not in ENDS_ARE_TOLD])
def test_one_file_changes_and_nothing_else(name: str, grown: int, tmp_path: Path) -> None:
    tools.require(*judges.TOOLS)
    iso, out = image(name), tmp_path / "out.iso"
    (path,) = FAMILIES[name].exchange[:1]
    data = random.Random(grown).randbytes(max(1, PAYLOAD_SIZE + grown if grown > 0 else 1))
    exchanged(iso, out, path, data, drop_hfsplus=name in HFS)
    digest = hashlib.sha256(data).hexdigest()
    before, after = judges.tree(iso), judges.tree(out)
    assert after.keys() == before.keys()
    catalogs = (
        {"boot.catalog"} if name in ("ubuntu", "memtest86+") else set()
    )  # it tells where the appended partition stands
    shown = path if path in after else PAYLOAD  # libarchive prefers the Joliet tree's names
    assert {one for one in after if after[one] != before[one]} - catalogs == {shown}
    assert after[shown] == (*before[shown][:4], digest)
    old, new = judges.joliet(iso), judges.joliet(out)
    assert new.keys() == old.keys()
    assert {one for one in new if new[one] != old[one]} - {f"/{one}" for one in catalogs} == (
        {f"/{shown}"} if old else set()
    )
    assert judges.complaints(out) <= judges.complaints(iso)
    if name in CYLINDERS:
        assert out.stat().st_size % (64 * 32 * 512) == 0
    if name not in HFS:
        assert judges.report_without_numbers(out) == judges.report_without_numbers(iso)
        report = verify(out, against=iso, changed=[path.encode()])
        assert [one for one in report.findings if one.is_counted] == []


@pytest.mark.parametrize("name", ENDS_ARE_TOLD)
def test_a_header_that_tells_the_end_is_named_and_what_fits_is_exchanged(name: str, tmp_path: Path) -> None:
    iso, out = image(name), tmp_path / "out.iso"
    header = {"mips": "MIPS volume header", "sun": "Sun disk label"}[name]
    with pytest.raises(UnsupportedError, match=f"{header}'s .* would have to change"):
        exchanged(iso, out, PAYLOAD, bytes(PAYLOAD_SIZE + 5000))
    assert not out.exists()
    exchanged(iso, out, PAYLOAD, bytes(PAYLOAD_SIZE - 5))
    assert judges.boot_report(out) == judges.boot_report(iso)


@pytest.mark.parametrize(("name", "path"), [("mips", "boot/loader.bin"), ("mipsel", "boot/loader.bin"),
                                            ("alpha", "boot/loader.bin"), ("hppa", "boot/second.bin")])  # fmt: skip
def test_what_other_firmware_points_at_keeps_its_size(name: str, path: str, tmp_path: Path) -> None:
    iso, out = image(name), tmp_path / "out.iso"
    with pytest.raises(UnsupportedError, match=f"{path}: the .* points at it"):
        exchanged(iso, out, path, b"another loader")
    size = judges.tree(iso)
    assert path in size
    length = len(run(["isoinfo", "-R", "-i", iso, "-x", f"/{path}"]))
    exchanged(iso, out, path, bytes(length))
    assert judges.boot_report(out) == judges.boot_report(iso)


def test_hfsplus_is_kept_or_given_up_but_never_made_wrong(tmp_path: Path) -> None:
    tools.require(*judges.TOOLS)
    iso, out = image("grub-mkrescue"), tmp_path / "out.iso"
    with pytest.raises(UnsupportedError, match=NEEDS_HFS_DROPPED):
        exchanged(iso, out, PAYLOAD, bytes(PAYLOAD_SIZE + 1))
    with pytest.raises(UnsupportedError, match=NEEDS_HFS_DROPPED):
        exchanged(iso, out, "empty", b"no longer")
    exchanged(iso, out, PAYLOAD, random.Random(2).randbytes(PAYLOAD_SIZE))
    assert judges.boot_report(out) == judges.boot_report(iso)
    changed = [
        at for at, (one, other) in enumerate(zip(iso.read_bytes(), out.read_bytes(), strict=True)) if one != other
    ]
    assert changed[-1] - changed[0] < PAYLOAD_SIZE, "and its bytes are all that changed"
    out.unlink()
    exchanged(iso, out, PAYLOAD, bytes(PAYLOAD_SIZE + 1), drop_hfsplus=True)
    said = "\n".join(judges.boot_report(out))
    assert "HFSPLUS" not in said and "Apple_HFS" not in said and "Apple_HFS" in "\n".join(judges.boot_report(iso))
    assert "No problems found" in run(["sgdisk", "-v", out]).decode()


def test_an_implanted_md5_is_made_anew(tmp_path: Path) -> None:
    tools.require("checkisomd5")
    iso, out = image("fedora"), tmp_path / "out.iso"
    for data in (b"short", random.Random(5).randbytes(3_000_000)):
        exchanged(iso, out, PAYLOAD, data)
        run(["checkisomd5", out])
        out.unlink()


@pytest.mark.parametrize("name", ["udf", "udf-boot"])
@pytest.mark.parametrize("size", [10, PAYLOAD_SIZE + 70_000])
def test_udf_tells_the_same_as_iso_9660(name: str, size: int, tmp_path: Path) -> None:
    tools.require(*judges.TOOLS)
    iso, out = image(name), tmp_path / "out.iso"
    data = random.Random(6).randbytes(size)
    exchanged(iso, out, PAYLOAD, data)
    before, after = judges.udf(iso, tmp_path / "before"), judges.udf(out, tmp_path / "after")
    assert {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)} == {PAYLOAD}
    assert after[PAYLOAD] == hashlib.sha256(data).hexdigest()


def test_files_that_only_udf_names_stay(tmp_path: Path) -> None:
    """As on discs for Windows, whose ISO 9660 tree holds nothing but a note."""
    tools.require("genisoimage", *judges.TOOLS)
    folder, iso, out = tmp_path / "disc", tmp_path / "in.iso", tmp_path / "out.iso"
    folder.mkdir()
    files = {
        "a-named": b"named by both" * 4000,
        "m-hidden": random.Random(1).randbytes(6000) + bytes(60_000) + b"end" + bytes(30_000),
        "z-named": random.Random(2).randbytes(50_000),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    run(["genisoimage", "-quiet", "-udf", "-R", "-hide", "m-hidden", "-o", iso, folder])
    exchanged(iso, out, "a-named", b"longer than before" * 9000)
    files["a-named"] = b"longer than before" * 9000
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert judges.udf(out, tmp_path / "after") == digests
    assert judges.tree(out).keys() == judges.tree(iso).keys() and "m-hidden" not in judges.tree(out)


def test_earlier_sessions_keep_what_they_held(tmp_path: Path) -> None:
    tools.require("xorriso")
    iso, out = image("multi-session"), tmp_path / "out.iso"
    exchanged(iso, out, PAYLOAD, b"another payload")
    for session, found in (("1", run(["isoinfo", "-R", "-i", iso, "-x", f"/{PAYLOAD}"])), ("2", b"another payload")):
        target = tmp_path / f"of-session-{session}"
        load = ["-load", "session", session, "-indev", f"stdio:{out}"]
        run(["xorriso", *load, "-osirrox", "on", "-extract", f"/{PAYLOAD}", target])
        assert target.read_bytes() == found
    assert len(run(["xorriso", "-indev", out, "-toc"]).splitlines()) == len(
        run(["xorriso", "-indev", iso, "-toc"]).splitlines()
    )


@pytest.mark.parametrize("size", [1, PAYLOAD_SIZE + 900_000])
def test_the_second_tree_says_the_same_from_its_partition(size: int, tmp_path: Path) -> None:
    """A partition offset's tree is what the image is to whoever looks at the partition alone."""
    tools.require(*judges.TOOLS)
    iso, out, partition = image("ubuntu"), tmp_path / "out.iso", tmp_path / "partition"
    exchanged(iso, out, PAYLOAD, random.Random(size).randbytes(size))
    partition.write_bytes(out.read_bytes()[16 * 2048 :])
    assert judges.tree(partition) == judges.tree(out) != judges.tree(iso)
    assert judges.joliet(partition) == judges.joliet(out)
    target = tmp_path / "payload"
    run(["xorriso", "-indev", partition, "-osirrox", "on", "-extract", f"/{PAYLOAD}", target])
    assert target.read_bytes() == random.Random(size).randbytes(size)


@pytest.mark.parametrize("name", ["data-shared", "data-hard-links"])
def test_only_the_name_that_was_given_changes(name: str, tmp_path: Path) -> None:
    tools.require("bsdtar")
    iso, out = image(name), tmp_path / "out.iso"
    exchanged(iso, out, "another-name", b"mine alone")
    before, after = judges.tree(iso), judges.tree(out)
    assert {one for one in after if after[one] != before[one]} == {"another-name"}
    assert after[PAYLOAD] == before[PAYLOAD]


def test_a_zisofs_file_is_exchanged_for_a_plain_one(tmp_path: Path) -> None:
    tools.require("xorriso")
    iso, out, target = image("data-zisofs"), tmp_path / "out.iso", tmp_path / "text"
    exchanged(iso, out, "pool/text", b"plain and not compressed\n" * 999)
    run(["xorriso", "-indev", out, "-osirrox", "on", "-extract", "/pool/text", target])
    assert target.read_bytes() == b"plain and not compressed\n" * 999


def test_relocated_directories_are_where_people_see_them(tmp_path: Path) -> None:
    iso, out = image("data-deep"), tmp_path / "out.iso"
    path = "/".join(f"level-10-{n}" for n in range(10)) + "/deep.txt"
    exchanged(iso, out, path, b"deeper\n" * 5000)
    assert judges.tree(out)[path][4] == hashlib.sha256(b"deeper\n" * 5000).hexdigest()


def test_an_emulated_drive_keeps_its_size(tmp_path: Path) -> None:
    iso, out = image("floppy"), tmp_path / "out.iso"
    with pytest.raises(UnsupportedError, match=r"boot/floppy\.img: is the image of an emulated drive and has to keep"):
        exchanged(iso, out, "boot/floppy.img", b"too small")
    exchanged(iso, out, "boot/floppy.img", bytes(2_949_120))
    assert judges.boot_report(out) == judges.boot_report(iso)


def test_a_file_of_several_extents(tmp_path: Path) -> None:
    iso, out = image("data-large"), tmp_path / "out.iso"
    exchanged(iso, out, PAYLOAD, bytes(PAYLOAD_SIZE * 2))
    again = tmp_path / "again.iso"
    exchanged(out, again, "large.img", b"not large any more" * 5000)
    out.unlink()
    assert run(["isoinfo", "-R", "-i", again, "-x", "/zz-last.bin"]) == run(
        ["isoinfo", "-R", "-i", iso, "-x", "/zz-last.bin"]
    )
    target = tmp_path / "large.img"
    run(["xorriso", "-indev", again, "-osirrox", "on", "-extract", "/large.img", target])
    assert target.read_bytes() == b"not large any more" * 5000


@pytest.mark.parametrize("name", ["debian", "ubuntu", "udf", "data-both"])
def test_more_sections_get_more_records(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file above 4 GiB does, with smaller numbers."""
    iso, out = image(name), tmp_path / "out.iso"
    monkeypatch.setattr(sections, "MAX_EXTENT", 1 << 20)
    monkeypatch.setattr(sections, "MAX_SECTION", 1 << 20)
    data = random.Random(11).randbytes((5 << 19) + 77)
    exchanged(iso, out, PAYLOAD, data)
    before, after = judges.tree(iso), judges.tree(out)
    catalogs = {"boot.catalog"} if name == "ubuntu" else set()
    assert {one for one in after if after[one] != before[one]} - catalogs == {PAYLOAD}
    assert after[PAYLOAD][4] == hashlib.sha256(data).hexdigest()
    target = tmp_path / "payload"
    run(["xorriso", "-indev", out, "-osirrox", "on", "-extract", f"/{PAYLOAD}", target])
    assert target.read_bytes() == data
    assert [one for one in verify(out, against=iso, changed=[PAYLOAD.encode()]).findings if one.is_counted] == []
    again = tmp_path / "again.iso"
    exchanged(out, again, PAYLOAD, b"small again" * 400)
    assert judges.tree(again)[PAYLOAD][4] == hashlib.sha256(b"small again" * 400).hexdigest()


def test_a_directory_without_room_for_more_records_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "MAX_EXTENT", 2048)
    monkeypatch.setattr(sections, "MAX_SECTION", 2048)
    iso, out, data = image("debian"), tmp_path / "out.iso", random.Random(4).randbytes(100_000)
    exchanged(iso, out, PAYLOAD, data)
    before, after = judges.tree(iso), judges.tree(out)
    assert {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)} == {PAYLOAD}
    assert after[PAYLOAD][4] == hashlib.sha256(data).hexdigest()
    assert judges.complaints(out) <= judges.complaints(iso)


def test_a_file_above_4_gib_comes_in_place_of_a_small_one(tmp_path: Path) -> None:
    iso, out, new = image("debian"), tmp_path / "out.iso", tmp_path / "new"
    size, words = (1 << 32) + 3_000_001, b"words at the end"
    with new.open("wb") as file:
        file.seek(size - len(words))
        file.write(words)
    result = remaster(iso, out, add_iso=[f"{new}:/{PAYLOAD}"])
    assert result.output_size > 1 << 32
    shown = run(["xorriso", "-indev", out, "-lsl", f"/{PAYLOAD}", "--"]).decode()
    assert f" {size} " in shown
    script = f"bsdtar -xOf {out} {PAYLOAD} | cmp - {new}"
    run(["bash", "-o", "pipefail", "-c", script])
    whole = next(line for line in judges.boot_report(out) if line.startswith("MBR partition      :   1"))
    start, count = map(int, whole.split()[-2:])
    assert (start + count) * 512 == out.stat().st_size, "the partition over the image covers it"


@pytest.mark.parametrize(
    ("name", "path"),
    [("debian", "boot/grub/efi.img"), ("fedora", "images/efiboot.img"), ("grub-mkrescue", "efi.img")],
)
def test_a_partition_follows_the_boot_image_it_covers(name: str, path: str, tmp_path: Path) -> None:
    tools.require("mcopy", "sfdisk", *judges.TOOLS)
    iso, out = image(name), tmp_path / "out.iso"
    fat = run(["isoinfo", "-R", "-i", iso, "-x", f"/{path}"])
    exchanged(iso, out, path, fat + bytes(1_000_000), drop_hfsplus=name in HFS)
    tables = [line for line in judges.boot_report(out) if f" /{path}" in line]
    assert tables == [line for line in judges.boot_report(iso) if f" /{path}" in line], "each still leads to the file"
    (start,) = {
        one.start
        for one in read_volume(out).partitions
        if one.end - one.start == -(-(len(fat) + 1_000_000) // 2048) * 4
    }
    listed = run(["mdir", "-b", "-i", f"{out}@@{start * 512}", "::/EFI/BOOT"]).decode()
    assert "::/EFI/BOOT/BOOTX64.EFI" in listed.upper()
    assert judges.complaints(out) <= judges.complaints(iso)


def test_the_command_exchanges_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso, out = image("debian"), tmp_path / "out.iso"
    new = source(tmp_path, families.grub_says("other words"))
    assert main(["plan", str(iso), "--add-iso", f"{new}:/{GRUB_SAYS}"]) == 0
    assert f"the ISO's own tree\n  ~ {GRUB_SAYS}\n" in capsys.readouterr().out
    assert main([str(iso), str(out), "--add-iso", f"{new}:/{GRUB_SAYS}"]) == 0
    assert f"on the ISO: 1 exchanged\n  ~ {GRUB_SAYS}\n" in capsys.readouterr().out
    assert main([str(out), str(tmp_path / "again.iso"), "--add-iso", f"{new}:/{GRUB_SAYS}"]) == 0
    assert "on the ISO: 1 unchanged" in capsys.readouterr().out
    run(["cmp", out, tmp_path / "again.iso"])


def test_the_command_tells_what_came_went_and_got_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    iso, out, many = image("debian"), tmp_path / "out.iso", tmp_path / "many"
    many.mkdir()
    for number in range(1000):
        (many / f"{number:04}").write_bytes(b"x")
    words = [
        "--add-iso", f"{many}:/many", "--remove-iso", "README.txt", "--rename-iso", f"{PAYLOAD}:/pool/first.bin",
    ]  # fmt: skip
    told = (
        ": 1,001 added, 1 removed, 1 renamed\n  + many\n  + many/0000\n",
        f"  + ... and 961 more\n  - README.txt\n  > {PAYLOAD} -> pool/first.bin\n",
    )
    assert main(["plan", str(iso), *words]) == 0
    said = capsys.readouterr().out
    assert "the ISO's own tree\n  + many\n  + many/0000\n" in said and told[1] in said
    assert re.search(r"^  new file \(1,000\): new blocks [\d,]+ to [\d,]+$", said, re.M)
    assert len(said.splitlines()) < 80
    assert main(["plan", str(iso), *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["iso"]
    assert (len(found["added"]), found["removed"], found["exchanged"]) == (1001, ["README.txt"], [])
    assert found["renamed"] == [{"before": PAYLOAD, "after": "pool/first.bin"}]
    assert main([str(iso), str(out), *words]) == 0
    said = capsys.readouterr().out
    assert f"on the ISO{told[0]}" in said and told[1] in said
    changed = [word for path in ("many", "README.txt", PAYLOAD, "pool/first.bin") for word in ("--changed", path)]
    assert main(["verify", str(out), "--against", str(iso), *changed]) == 0
    assert main(["verify", str(out), "--against", str(iso), *changed[2:]]) == 1
    assert "many/0999: is not in the original" in capsys.readouterr().out


def test_what_cannot_be_exchanged_is_named(tmp_path: Path) -> None:
    iso, out = image("debian"), tmp_path / "out.iso"
    with pytest.raises(UnsupportedError, match="is the boot catalog"):
        exchanged(iso, out, "isolinux/boot.cat", b"x")
    with pytest.raises(UnsupportedError, match="is a boot image and cannot be shorter than 64 bytes"):
        exchanged(iso, out, "isolinux/isolinux.bin", b"x")
    with pytest.raises(OverlayError, match=r"boot: the file .* cannot go over this directory, which is not empty"):
        remaster(iso, out, add_iso=[InlineFile("/boot", b"x")])
    assert not out.exists()
