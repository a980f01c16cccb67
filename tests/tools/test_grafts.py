"""Names that come, go and change on the ISO's own tree, for every family of images, by other people's word."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.errors import OverlayError, UnsupportedError, UsageError
from cosremaster.verification.run import verify
from tests.fixtures import tools
from tests.fixtures.families import FAMILIES, PAYLOAD
from tests.fixtures.tools import EPOCH, run
from tests.support import judges
from tests.support.family_edits import change, image
from tests.support.small import read_volume

SMALL = [name for name in FAMILIES if name not in ("data-large", "mips", "sun")]
"""Those that can grow, but the one above 4 GiB."""
UNNAMED = ("data-bare", "data-joliet")
"""Families without Rock Ridge."""
WITH_UDF = ("udf", "udf-boot")
CATALOGS = {"boot.catalog"}
"""What changes by itself: a boot catalog tells where an appended partition stands."""


def victim(name: str) -> str:
    """A file of the image that nothing needs."""
    return "ldlinux.c32" if name == "ipxe" else FAMILIES[name].exchange[0]


def joliet(iso: Path) -> dict[str, str]:
    """The files of the Joliet tree, without its directories and the boot catalog."""
    files = judges.joliet(iso)
    return {one: value for one, value in files.items() if not any(other.startswith(f"{one}/") for other in files)
            and one.lstrip("/") not in CATALOGS}  # fmt: skip


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def overlaid(overlay: Path) -> dict[str, str]:
    files = (path for path in overlay.rglob("*") if path.is_file())
    return {str(path.relative_to(overlay)): digest(path.read_bytes()) for path in files}


def only_files(tree: Mapping[str, judges.Facts]) -> dict[str, str]:
    return {name: facts[4] for name, facts in tree.items() if facts[4]}


def known(name: str, path: bytes, plain: bytes) -> bytes:
    """What verify knows a file by: by the primary tree's name."""
    return plain if name in UNNAMED else path


def expect_sound(name: str, out: Path, changed: list[bytes]) -> None:
    iso = image(name)
    assert judges.complaints(out) <= judges.complaints(iso)
    assert [one for one in verify(out).findings if one.is_counted] == []
    if name != "grub-mkrescue":
        assert judges.report_without_numbers(out) == judges.report_without_numbers(iso)
        assert [one for one in verify(out, against=iso, changed=changed).findings if one.is_counted] == []


@pytest.mark.parametrize("name", SMALL)
def test_a_file_is_added(name: str, tmp_path: Path) -> None:
    out, data = tmp_path / "out.iso", random.Random(1).randbytes(300_001)
    (tmp_path / "platform image-7.iso").write_bytes(data)
    (tmp_path / "platform image-7.iso").chmod(0o640)
    result = change(name, out, add_iso=[f"{tmp_path}/platform image-7.iso:/data/"])
    assert result.iso_added == (b"data", b"data/platform image-7.iso")
    before, after = judges.tree(image(name)), judges.tree(out)
    shown = "DATA/PLATFORM.ISO" if name == "data-bare" else "data/platform image-7.iso"
    assert {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)} - CATALOGS == {
        shown.partition("/")[0], shown,
    }  # fmt: skip
    assert after[shown][4] == digest(data)
    if name not in UNNAMED:
        assert after[shown][1:3] == (0o640, 0) and after["data"][1:3] == (0o755, 0)
    if joliet(image(name)):
        assert joliet(out) == joliet(image(name)) | {"/data/platform image-7.iso": digest(data)}
    expect_sound(name, out, [known(name, b"data/platform image-7.iso", b"DATA/PLATFORM.ISO")])


@pytest.mark.parametrize("name", SMALL)
def test_a_directory_of_a_thousand_files_is_added(name: str, tmp_path: Path, overlay: Path) -> None:
    out = tmp_path / "out.iso"
    change(name, out, add_iso=[overlay])
    before, after = only_files(judges.tree(image(name))), only_files(judges.tree(out))
    wanted = overlaid(overlay)
    if name == "data-bare":
        came = {one: after[one] for one in after.keys() - before.keys()}
        assert sorted(came.values()) == sorted(wanted.values())
        assert all(
            re.fullmatch(r"SITE_DAT(/BELOW(/DEEPER(/STILL_DE)?)?)?/[A-Z0-9_]{1,8}(\.[A-Z0-9_]{0,3})?", one)
            for one in came
        )
    else:
        assert {one: after[one] for one in after.keys() - CATALOGS} == {
            one: before[one] for one in before.keys() - CATALOGS
        } | wanted
    if name in ("debian", "data-joliet"):
        assert joliet(out) == joliet(image(name)) | {f"/{one}": value for one, value in wanted.items()}
    if name in WITH_UDF:
        found = judges.udf(out, tmp_path / "udf")
        assert {one: found[one] for one in wanted} == wanted and len(found) == len(after)
    expect_sound(name, out, [file.path for file in read_volume(out).files if file.path.upper().startswith(b"SITE")])


@pytest.mark.parametrize("name", [*SMALL, "mips", "sun"])
def test_a_file_is_removed(name: str, tmp_path: Path) -> None:
    out, path = tmp_path / "out.iso", victim(name)
    result = change(name, out, remove_iso=[path])
    assert result.iso_removed == (path.encode(),)
    before, after = judges.tree(image(name)), judges.tree(out)
    shown = path if path in before else PAYLOAD
    assert {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)} - CATALOGS == {shown}
    assert shown not in after
    assert f"/{shown}" not in judges.joliet(out)
    if name in WITH_UDF:
        old, new = judges.udf(image(name), tmp_path / "old"), judges.udf(out, tmp_path / "new")
        assert new == {one: old[one] for one in old if one != path}
    if name not in ("data-shared", "data-hard-links", "multi-session", "memtest86+"):  # there it stands elsewhere too
        data = run(
            ["isoinfo", *(["-R"] if name not in UNNAMED else []), "-i", image(name), "-x", f"/{isoname(name, path)}"]
        )
        assert len(data) < 1000 or data[:1000] not in out.read_bytes(), "its bytes are gone"
    expect_sound(name, out, [path.encode()])


def isoname(name: str, path: str) -> str:
    return f"{path};1" if name in UNNAMED else path


@pytest.mark.parametrize("name", [*SMALL, "mips", "sun"])
def test_a_file_is_renamed(name: str, tmp_path: Path) -> None:
    out, path = tmp_path / "out.iso", victim(name)
    folder = path.rpartition("/")[0]
    new = f"{folder}/Renamed to this.bin" if folder else "Renamed to this.bin"
    result = change(name, out, rename_iso=[f"{path}:/{new}"])
    assert result.iso_renamed == ((path.encode(), new.encode()),)
    before, after = judges.tree(image(name)), judges.tree(out)
    shown = path if path in before else PAYLOAD
    now = {"data-bare": "POOL/MAIN/RENAMED_.BIN", "data-joliet": "pool/main/Renamed to this.bin"}.get(name, new)
    assert after.pop(now) == before.pop(shown), "all that is said of it is as it was"
    assert {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)} <= CATALOGS
    if name in WITH_UDF:
        assert new in judges.udf(out, tmp_path / "new")
    expect_sound(name, out, [path.encode(), known(name, new.encode(), b"POOL/MAIN/RENAMED_.BIN")])


@pytest.mark.parametrize("name", ["debian", "ubuntu", "data-deep", "udf", "multi-session", "data-level-4", "fedora"])
def test_a_directory_moves_with_all_that_is_in_it(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    change(name, out, rename_iso=["pool/main:/new-place/for it"])
    before, after = judges.tree(image(name)), judges.tree(out)
    assert {one: facts for one, facts in after.items() if one not in ("new-place", "new-place/for it", *CATALOGS)} == {
        one.replace("pool/main/", "new-place/for it/"): facts
        for one, facts in before.items()
        if one not in ("pool/main", *CATALOGS)
    }
    assert after["new-place/for it"] == before["pool/main"]
    inside = [b"/".join((b"pool/main", os.fsencode(one.rpartition("/")[2]))) for one in before if "pool/main/" in one]
    expect_sound(
        name,
        out,
        [b"pool/main", b"new-place", *inside, *(one.replace(b"pool/main", b"new-place/for it") for one in inside)],
    )


@pytest.mark.parametrize("name", ["debian", "ubuntu", "data-both", "data-deep", "udf", "fedora"])
def test_xorriso_makes_the_same_tree(name: str, tmp_path: Path, overlay: Path) -> None:
    """The same edits by xorriso: same names, types, modes, owners, times, sizes, targets; it keeps nothing better."""
    out, theirs = tmp_path / "out.iso", tmp_path / "theirs.iso"
    os.symlink("below/deeper", overlay / "site-data/to-it")
    for path in (*overlay.rglob("*"), overlay):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    change(name, out, add_iso=[overlay], remove_iso=["README.txt"], rename_iso=["zz-last.bin:/pool/aa first.bin"])
    options: list[str | Path] = ["-joliet", "on"] if joliet(image(name)) else []
    edits: list[str | Path] = [
        *("-rm", "/README.txt", "--", "-mv", "/zz-last.bin", "/pool/aa first.bin", "--"),
        *("-uid", "0", "-gid", "0", "-map", overlay / "site-data", "/site-data"),
    ]
    run(["xorriso", *options, "-indev", image(name), "-outdev", theirs, "-boot_image", "any", "replay", *edits])
    assert listed(out) == listed(theirs)
    assert judges.tree(out).keys() == judges.tree(theirs).keys()
    # xorriso relocates no directory, and has none so deep in a Joliet tree.
    if name != "data-deep":
        assert names_by_isoinfo(out) == names_by_isoinfo(theirs)
    if options and name != "data-deep":
        ours, other = joliet(out), joliet(theirs)
        assert ours.keys() == other.keys()
        booting = ("isolinux.bin", "boot.cat", "eltorito.img")  # they say where they stand
        assert [one for one in ours if ours[one] != other[one] and not one.endswith(booting)] == []
    lines = set(judges.report_without_numbers(image(name)))
    assert len(lines - set(judges.report_without_numbers(out))) <= len(
        lines - set(judges.report_without_numbers(theirs))
    )


def names_by_isoinfo(iso: Path) -> set[str]:
    """What isoinfo finds in the Rock Ridge tree."""
    return {line for line in run(["isoinfo", "-R", "-f", "-i", iso]).decode().splitlines() if line.startswith("/")}


def listed(iso: Path) -> list[str]:
    """xorriso's listing. Link counts of directories and the sizes of symlinks are as their makers have them."""
    lines = run(["xorriso", "-indev", iso, "-find", "/", "-exec", "lsdl"], env={"TZ": "UTC"}).decode().splitlines()
    return sorted(re.sub(r"^(\S+)\s+\d+\s", r"\1 ", line) for line in lines if "boot.cat" not in line)


@pytest.mark.parametrize("name", ["data-both", "debian"])
def test_nothing_else_moves(name: str, tmp_path: Path, overlay: Path) -> None:
    out = tmp_path / "out.iso"
    change(
        name, out, add_iso=[overlay], rename_iso=["zz-last.bin:/pool/first.bin"], remove_iso=["pool/main/file-4.bin"]
    )
    places = extents(image(name))
    del places["/pool/main/file-4.bin"]
    places["/pool/first.bin"] = places.pop("/zz-last.bin")
    found = extents(out)
    assert {one: found[one] for one in places} == places


def extents(iso: Path) -> dict[str, str]:
    """The data of each file as xorriso reports them."""
    lines = run(["xorriso", "-indev", iso, "-find", "/", "-type", "f", "-exec", "report_lba"]).decode().splitlines()
    rows = (line.partition(":")[2].split(",", 4) for line in lines if line.startswith("File data lba"))
    return {row[4].strip().strip("'"): " ".join(row[1:3]) for row in rows if int(row[3])}


def test_what_ends_the_image_goes_and_the_image_gets_shorter(tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    places = {path: int(place.split()[0]) for path, place in extents(image("data-both")).items()}
    assert max(places, key=lambda path: places[path]) == f"/{PAYLOAD}"
    result = change("data-both", out, remove_iso=[PAYLOAD])
    assert result.input_size - result.output_size == -(-123_456 // 2048) * 2048


def test_deep_directories_are_relocated_where_the_volume_does_so(tmp_path: Path) -> None:
    tree = tools.Tree(tmp_path / "overlay")
    path = "/".join(f"down-{level}" for level in range(12))
    tree.file(f"{path}/bottom.txt", b"bottom\n")
    out = tmp_path / "out.iso"
    change("data-deep", out, add_iso=[tree.root])
    assert judges.tree(out)[f"{path}/bottom.txt"][4] == digest(b"bottom\n")
    levels = [
        line.count("/") for line in run(["isoinfo", "-f", "-i", out]).decode().splitlines() if line.startswith("/")
    ]
    assert max(levels) <= 8 + 1, "no directory below the eighth level"
    assert judges.joliet(out)[f"/{path}/bottom.txt"] == digest(b"bottom\n")
    again = tmp_path / "again.iso"
    remaster(
        out,
        again,
        remove_iso=["down-0", "level-10-0"],
        rename_iso=["/".join(f"level-12-{n}" for n in range(8)) + ":/up"],
    )
    left = judges.tree(again)
    assert not [one for one in left if "down-" in one or "level-10-" in one]
    assert left["up/level-12-8/level-12-9/level-12-10/level-12-11/deep.txt"][4]
    assert judges.complaints(again) <= judges.complaints(out)


@pytest.mark.parametrize("name", ["data-both", "ubuntu"])
def test_long_names_and_targets_are_continued(name: str, tmp_path: Path) -> None:
    tree = tools.Tree(tmp_path / "overlay")
    longest, target = "n" * 255, "/".join(["part"] * 100 + ["x" * 250, "..", ".", "end"])
    tree.file(longest, b"long\n")
    tree.symlink("link", target)
    tree.symlink("absolute", "/usr/lib")
    out = tmp_path / "out.iso"
    change(name, out, add_iso=[tree.root])
    found = judges.tree(out)
    assert found[longest][4] == digest(b"long\n")
    said = run(["xorriso", "-indev", out, "-lsl", "/", "--"]).decode()
    assert f"'link' -> '{target}'" in said and "'absolute' -> '/usr/lib'" in said


@pytest.mark.parametrize("name", ["data-both", "data-joliet", "udf", "debian"])
def test_names_beyond_ascii(name: str, tmp_path: Path) -> None:
    tree, names = tools.Tree(tmp_path / "overlay"), ["Ünïcode-ß.txt", "日本語.img", "grin-😀.bin"]
    for one in names:
        tree.file(one, one.encode())
    out = tmp_path / "out.iso"
    change(name, out, add_iso=[tree.root])
    for options in ([], ["--options", "iso9660:!rockridge"] if joliet(image(name)) else []):
        listed_there = run(["bsdtar", "-tf", out, *options], env={"LC_ALL": "C.UTF-8"}).decode().splitlines()
        assert [one for one in names if one not in listed_there] == []
    if name == "udf":
        assert set(names) <= set(os.listdir(unpacked_udf(out, tmp_path / "udf")))


def unpacked_udf(iso: Path, folder: Path) -> Path:
    run(["7z", "x", "-tudf", f"-o{folder}", iso], env={"LC_ALL": "C.UTF-8"})
    return folder


def test_hard_links_share_their_data(tmp_path: Path) -> None:
    tree = tools.Tree(tmp_path / "overlay")
    tree.file("one", random.Random(5).randbytes(1_000_000))
    tree.link("two", "one")
    for name in ("data-both", "data-hard-links"):
        out = tmp_path / f"{name}.iso"
        result = change(name, out, add_iso=[tree.root])
        assert result.output_size - result.input_size < 1_100_000
        found = extents(out)
        assert found["/one"] == found["/two"]


def test_each_of_several_extents_has_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file above 4 GiB has, with smaller numbers."""
    from cosremaster.iso.ecma119 import sections  # noqa: PLC0415

    monkeypatch.setattr(sections, "MAX_EXTENT", 1 << 20)
    monkeypatch.setattr(sections, "MAX_SECTION", 1 << 20)
    data = random.Random(11).randbytes((5 << 19) + 77)
    (tmp_path / "large.img").write_bytes(data)
    out, again = tmp_path / "out.iso", tmp_path / "again.iso"
    change("udf", out, add_iso=[f"{tmp_path}/large.img:/pool/large.img"])
    assert judges.tree(out)["pool/large.img"][4] == judges.udf(out, tmp_path / "udf")["pool/large.img"] == digest(data)
    remaster(out, again, rename_iso=["pool/large.img:/other.img"])
    target = tmp_path / "other.img"
    run(["xorriso", "-indev", again, "-osirrox", "on", "-extract", "/other.img", target])
    assert target.read_bytes() == data


def test_removes_come_before_renames_and_these_before_adds(tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    (tmp_path / "new").write_bytes(b"new")
    result = change(
        "data-both", out, remove_iso=["README.txt"], rename_iso=["zz-last.bin:/README.txt"],
        add_iso=[f"{tmp_path}/new:/zz-last.bin"],
    )  # fmt: skip
    before, after = judges.tree(image("data-both")), judges.tree(out)
    assert after["README.txt"] == before["zz-last.bin"] and after["zz-last.bin"][4] == digest(b"new")
    assert (result.iso_removed, result.iso_added) == ((b"README.txt",), (b"zz-last.bin",))


def test_a_file_may_be_renamed_and_exchanged(tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    (tmp_path / "new").write_bytes(b"other bytes" * 5000)
    change("data-zisofs", out, rename_iso=["pool/text:/words"], add_iso=[f"{tmp_path}/new:/words"])
    target = tmp_path / "words"
    run(["xorriso", "-indev", out, "-osirrox", "on", "-extract", "/words", target])
    assert target.read_bytes() == b"other bytes" * 5000


def test_what_was_done_can_be_undone(tmp_path: Path, overlay: Path) -> None:
    out, back, again = tmp_path / "out.iso", tmp_path / "back.iso", tmp_path / "again.iso"
    change("ubuntu", out, add_iso=[overlay], rename_iso=["zz-last.bin:/other"])
    remaster(out, back, remove_iso=["site-data"], rename_iso=["other:/zz-last.bin"])
    assert judges.tree(back) == judges.tree(image("ubuntu")) | {one: judges.tree(back)[one] for one in CATALOGS}
    change("ubuntu", again, add_iso=[overlay], rename_iso=["zz-last.bin:/other"])
    assert again.read_bytes() == out.read_bytes(), "the same input, the same output"


def test_names_are_found_as_people_know_them_without_rock_ridge(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new\n")
    for name, folder, shown in (
        ("data-joliet", "pool/main", "pool/main/new"),
        ("data-bare", "Pool/MAIN", "POOL/MAIN/NEW."),
    ):
        out = tmp_path / f"{name}.iso"
        result = change(name, out, add_iso=[f"{tmp_path}/new:/{folder}/"], remove_iso=["readme.TXT"])
        found = judges.tree(out)
        assert shown.rstrip(".") in found or shown in found
        assert not [one for one in found if one.upper() == "README.TXT"]
        assert result.iso_added == (b"POOL/MAIN/new",)


@pytest.mark.parametrize(("name", "asked", "error", "words"), [
    ("debian", {"remove_iso": ["isolinux/isolinux.bin"]}, UnsupportedError, r"isolinux/isolinux\.bin: is a boot image"),
    ("debian", {"remove_iso": ["isolinux"]}, UnsupportedError, r"boot\.cat: is the boot catalog|is a boot image"),
    ("debian", {"remove_iso": ["boot/grub/efi.img"]}, UnsupportedError, r"efi\.img: is a boot image"),
    ("mipsel", {"remove_iso": ["boot/loader.bin"]}, UnsupportedError, r"loader\.bin: the .* points at it"),
    ("debian", {"remove_iso": ["no/such"]}, OverlayError, r"no/such: cannot be removed: it is not there"),
    ("debian", {"rename_iso": ["no/such:/x"]}, OverlayError, r"no/such: cannot be renamed: it is not there"),
    ("debian", {"rename_iso": ["pool:/pool/main/x"]}, OverlayError, r"pool: cannot be moved into itself"),
    ("debian", {"rename_iso": ["zz-last.bin:/README.txt"]}, OverlayError, r"cannot become README\.txt, which is there"),
    ("debian", {"rename_iso": ["zz-last.bin"]}, UsageError, "OLD:NEW is wanted"),
    ("debian", {"rename_iso": ["/:/x"]}, UsageError, "the root directory cannot be renamed"),
    ("debian", {"rename_iso": ["zz-last.bin:/a/../b"]}, UsageError, r"absolute path without \.\."),
    ("data-bare", {"add_iso": ["LINK"]}, UnsupportedError, r"a-link: a symlink cannot be added: the image has no Rock"),
])  # fmt: skip
def test_what_cannot_be_is_named(
    name: str, asked: dict[str, list[str]], error: type[Exception], words: str, tmp_path: Path
) -> None:
    (tmp_path / "link").mkdir()
    os.symlink("x", tmp_path / "link/a-link")
    asked = {key: [one.replace("LINK", f"{tmp_path}/link") for one in value] for key, value in asked.items()}
    with pytest.raises(error, match=words):
        change(name, tmp_path / "out.iso", **asked)
    assert not (tmp_path / "out.iso").exists()
