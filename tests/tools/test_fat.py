"""FAT file systems made by mkfs.fat and mformat: files exchanged, nothing else changed; fsck.fat and mtools judge."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosremaster.boot.fat import Fat
from cosremaster.boot.fat_edit import FatEdits, FatEntry, Patch, edit_fat
from cosremaster.errors import CosremasterError, ImageError, Place, SizeError, UnsupportedError
from cosremaster.io.pieces import Literal, PieceTable
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run

TOOLS = ("mkfs.fat", "mformat", "mcopy", "mmd")  # fsck.fat, mtype and mdir come with them
MENU = b"linux /vmlinuz quiet\n" * 30
LONG = "EFI/BOOT/a rather long näme.conf".encode()
PROGRAM = random.Random(3).randbytes(9_001)
SHAPES = {
    "mkfs.fat 12 floppy": ["mkfs.fat", "-F12", "-i", "12345678", "--invariant", "-C", "FAT", "1440"],
    "mkfs.fat 12": ["mkfs.fat", "-F12", "-i", "12345678", "--invariant", "-C", "FAT", "4096"],
    "mkfs.fat 16": ["mkfs.fat", "-F16", "-i", "12345678", "--invariant", "-C", "FAT", "16384"],
    "mkfs.fat 32": ["mkfs.fat", "-F32", "-i", "12345678", "--invariant", "-C", "FAT", "65536"],
    "mkfs.fat 16, 2,048-byte sectors": ["mkfs.fat", "-F16", "-S2048", "-i", "1", "--invariant", "-C", "FAT", "32768"],
    "mformat 12": ["mformat", "-i", "FAT", "-C", "-T", "5760", "-N", "20231114", "::"],
    "mformat 16": ["mformat", "-i", "FAT", "-C", "-T", "65536", "-h", "16", "-s", "63", "-N", "20231114", "::"],
    "mformat 32": ["mformat", "-i", "FAT", "-C", "-F", "-T", "131072", "-h", "16", "-s", "63", "-N", "20231114", "::"],
}


@pytest.fixture(scope="module", params=SHAPES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system with a menu, a program and a file with a long name."""
    tools.require(*TOOLS)
    folder = tmp_path_factory.mktemp("fat")
    fat = folder / "fat.img"
    run([word.replace("FAT", str(fat)) if word == "FAT" else word for word in SHAPES[request.param]])
    for name, data in (("menu", MENU), ("program", PROGRAM)):
        (folder / name).write_bytes(data)
        os.utime(folder / name, (EPOCH, EPOCH))
    i, env = ["-i", str(fat)], {"SOURCE_DATE_EPOCH": str(EPOCH)}
    run(["mmd", *i, "::/EFI", "::/EFI/BOOT", "::/boot", "::/boot/grub"], env=env)
    run(["mcopy", "-m", *i, folder / "menu", "::/boot/grub/grub.cfg"], env=env)
    run(["mcopy", "-m", *i, folder / "program", "::/EFI/BOOT/BOOTX64.EFI"], env=env)
    run(["mcopy", "-m", *i, folder / "menu", "::/EFI/BOOT/a rather long näme.conf"], env={**env, "LC_ALL": "C.UTF-8"})
    run(["fsck.fat", "-n", fat])
    return fat


def opened(raw: bytes, place: Place | None = None) -> Fat:
    fat = Fat.open(lambda at, length: raw[at : at + length], len(raw), place or Place(("fat.img",)))
    assert fat is not None
    return fat


def replace_files(fat: Fat, new: dict[bytes, bytes]) -> tuple[Patch, ...]:
    return edit_fat(fat, FatEdits(replaced={path: PieceTable([Literal(data)]) for path, data in new.items()}))


def exchanged(raw: bytes, new: dict[bytes, bytes]) -> bytes:
    return PieceTable([Literal(raw)]).patched(replace_files(opened(raw), new)).read()


def test_files_are_found_as_mtools_wrote_them(made: Path) -> None:
    fat = opened(made.read_bytes())
    files = {file.path: fat.read_file(file) for file in fat.walk() if not file.is_directory}
    assert files == {
        b"boot/grub/grub.cfg": MENU, b"EFI/BOOT/BOOTX64.EFI": PROGRAM,
        LONG: MENU,
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 511, 630, 2048, 7_001, 60_000])
def test_an_exchanged_file_is_what_other_programs_read(made: Path, size: int, tmp_path: Path) -> None:
    raw, new = made.read_bytes(), random.Random(size).randbytes(size)
    out = tmp_path / "out.img"
    out.write_bytes(exchanged(raw, {b"boot/grub/grub.cfg": new}))
    run(["fsck.fat", "-n", out])  # a wrong free count, a lost cluster or FATs that differ would fail
    assert run(["mtype", "-i", out, "::/boot/grub/grub.cfg"]) == new
    assert run(["mtype", "-i", out, "::/EFI/BOOT/BOOTX64.EFI"]) == PROGRAM
    listings = [run(["mdir", "-i", one, "-a", "::/boot/grub"]).decode() for one in (made, out)]
    names = [[line.split() for line in text.splitlines() if "cfg" in line] for text in listings]
    (before,), (after,) = ([[*line[:2], *line[3:]] for line in lines] for lines in names)
    assert before == after  # the same name and time


def test_nothing_changes_but_what_must(made: Path) -> None:
    raw = made.read_bytes()
    assert replace_files(opened(raw), {}) == ()
    assert exchanged(raw, {b"boot/grub/grub.cfg": MENU}) == raw
    new = MENU.replace(b"quiet", b"noisy")
    out = exchanged(raw, {b"boot/grub/grub.cfg": new})
    differing = {at for at in range(len(raw)) if raw[at] != out[at]}
    fat = opened(raw)
    file = next(one for one in fat.walk() if one.path == b"boot/grub/grub.cfg")
    clusters = [fat.cluster_offset(one) for one in fat.read_chain(file.first_cluster, Place())]
    inside = {at for start in clusters for at in range(start, start + fat.bpb.cluster_size)}
    assert differing
    assert differing <= inside
    assert exchanged(out, {b"boot/grub/grub.cfg": MENU}) == raw


def test_several_files_at_once(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.img"
    new = {
        b"boot/grub/grub.cfg": b"",
        b"EFI/BOOT/BOOTX64.EFI": PROGRAM * 5,
        LONG: b"x",
    }
    out.write_bytes(exchanged(made.read_bytes(), new))
    run(["fsck.fat", "-n", out])
    assert run(["mtype", "-i", out, "::/EFI/BOOT/BOOTX64.EFI"]) == PROGRAM * 5
    again = opened(out.read_bytes())
    assert {file.path: again.read_file(file) for file in again.walk() if not file.is_directory} == new


def test_what_does_not_fit_is_told(made: Path) -> None:
    raw = made.read_bytes()
    with pytest.raises(SizeError, match=r"boot/grub/grub.cfg: does not fit: it needs [\d,]+ more bytes, and .* has"):
        replace_files(opened(raw), {b"boot/grub/grub.cfg": bytes(len(raw))})
    with pytest.raises(ImageError, match="nothing: is not there"):
        replace_files(opened(raw), {b"nothing": b""})


def test_a_file_system_that_is_not_sound_is_refused(made: Path) -> None:
    raw = made.read_bytes()
    fat = opened(raw)
    other = bytearray(raw)
    other[fat.bpb.fat_offset + fat.bpb.fat_size + 7] ^= 1  # the second copy
    with pytest.raises(UnsupportedError, match="copies of its FAT differ"):
        replace_files(opened(bytes(other)), {b"boot/grub/grub.cfg": b"x"})
    with pytest.raises(UnsupportedError, match="larger than what holds it"):
        replace_files(opened(raw[: len(raw) * 3 // 4]), {b"boot/grub/grub.cfg": b"x"})
    files = {file.path: file for file in fat.walk()}
    shared = bytearray(raw)  # the menu begins where the program does
    at = files[b"boot/grub/grub.cfg"].entry_offset + 26
    shared[at : at + 2] = files[b"EFI/BOOT/BOOTX64.EFI"].first_cluster.to_bytes(2, "little")
    with pytest.raises(UnsupportedError, match="share clusters"):
        replace_files(opened(bytes(shared)), {b"boot/grub/grub.cfg": b"x"})


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_told_and_never_a_crash(made: Path, data: st.DataObject) -> None:
    raw = bytearray(made.read_bytes())
    fat = opened(bytes(raw))
    known = [0, *range(11, 64), fat.bpb.fat_offset + 3, fat.bpb.fat_offset + 9]
    known += [file.entry_offset + at for file in fat.walk() for at in (0, 11, 20, 26, 27, 28, 31)]
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.sampled_from(known))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.sampled_from([len(raw), len(raw) // 2, 40_000, 513]))
    held = bytes(raw[:keep])
    one = Fat.open(lambda at, length: held[at : at + length], len(held), Place())
    if one is None:
        return
    try:
        for file in one.walk():
            if not file.is_directory:
                one.read_file(file)
        replace_files(one, {b"boot/grub/grub.cfg": b"x" * 5000})
    except CosremasterError as error:
        assert error.message


def test_random_exchanges_stay_sound(made: Path, tmp_path: Path) -> None:
    chance, raw = random.Random(5), made.read_bytes()
    names = [file.path for file in opened(raw).walk() if not file.is_directory]
    out = tmp_path / "out.img"
    for _ in range(12):
        new = {name: chance.randbytes(chance.choice([0, 3, 600, 5_000, 40_000])) for name in chance.sample(names, 2)}
        raw = exchanged(raw, new)
        fat = opened(raw)
        files = {file.path: fat.read_file(file) for file in fat.walk() if not file.is_directory}
        assert {name: files[name] for name in new} == new
    out.write_bytes(raw)
    done = subprocess.run(["fsck.fat", "-n", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def edited(raw: bytes, edits: FatEdits) -> bytes:
    return PieceTable([Literal(raw)]).patched(edit_fat(opened(raw), edits)).read()


def entry(path: str, data: bytes | None) -> FatEntry:
    return FatEntry(path.encode(), None if data is None else PieceTable([Literal(data)]), EPOCH)


def listed(fat: Path) -> list[str]:
    """All names, as mtools lists them."""
    names = run(["mdir", "-/", "-b", "-a", "-i", fat, "::/"], env={"LC_ALL": "C.UTF-8"}).decode().splitlines()
    return sorted(name.removeprefix("::/") for name in names)


def test_added_files_are_what_other_programs_read(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.img"
    files = {
        "EFI/BOOT/NEW.CFG": MENU,
        "new file.txt": PROGRAM,
        "EFI/ünïcode ☃.conf": b"x",
        "EFI/.dot": b"",
        "a.b.c": b"2",
    }
    names = [entry("EFI/fonts", None), *(entry(path, data) for path, data in files.items())]
    names += [entry("EFI/fonts/unicode.pf2", PROGRAM)]
    out.write_bytes(edited(made.read_bytes(), FatEdits(added=tuple(names))))
    run(["fsck.fat", "-n", out])
    assert set(listed(out)) - set(listed(made)) == {"EFI/fonts/", "EFI/fonts/unicode.pf2", *files}
    for path, data in files.items():
        assert run(["mtype", "-i", out, f"::/{path}"], env={"LC_ALL": "C.UTF-8"}) == data
    (line,) = [line for line in run(["mdir", "-i", out, "::/EFI/BOOT"]).decode().splitlines() if line.startswith("NEW")]
    assert line.split()[2:5] == [str(len(MENU)), "2023-11-14", "22:13"]


def test_removed_files_are_gone_and_their_bytes_are_zeros(made: Path, tmp_path: Path) -> None:
    out, raw = tmp_path / "out.img", made.read_bytes()
    out.write_bytes(edited(raw, FatEdits(removed=(b"EFI/BOOT", b"boot/grub/grub.cfg"))))
    run(["fsck.fat", "-n", out])
    assert listed(out) == ["EFI/", "boot/", "boot/grub/"]
    assert PROGRAM[:600] not in out.read_bytes()
    assert b"linux /vmlinuz" not in out.read_bytes()
    before, after = (run(["mdir", "-i", fat, "::/"]).splitlines()[-2] for fat in (made, out))
    assert int(re.sub(rb"\D", b"", after)) > int(re.sub(rb"\D", b"", before))


def test_a_new_file_shows_nothing_of_a_removed_one_whose_clusters_it_takes(made: Path, tmp_path: Path) -> None:
    """Behind its end the removed file's bytes stood to the end of the cluster."""
    out, path = tmp_path / "out.img", "EFI/BOOT/BOOTX64.EFI"
    for name, size in ((path, 3), ("EFI/BOOT/new.cfg", 600), ("EFI/BOOT/other", 0)):
        added = (entry(name, b"n" * size),)
        out.write_bytes(edited(made.read_bytes(), FatEdits(removed=(path.encode(),), added=added)))
        run(["fsck.fat", "-n", out])
        assert run(["mtype", "-i", out, f"::/{name}"]) == b"n" * size
        data = out.read_bytes()[: 4 << 20]  # files stand at its start
        assert not [at for at in range(0, len(PROGRAM) - 16, 16) if PROGRAM[at : at + 16] in data]


def test_names_that_are_one_in_a_fat_file_system_are_refused(made: Path, tmp_path: Path) -> None:
    """Both were written, and no system finds the second one: fsck.fat says that it is there twice."""
    raw, out = made.read_bytes(), tmp_path / "out.img"
    folder = (entry("one", None), entry("one/a", b"1"), entry("ONE", None), entry("ONE/b", b"2"))
    for added in ((entry("Näme.txt", b"1"), entry("NÄME.TXT", b"2")), folder):
        with pytest.raises(UnsupportedError, match="is the same name as"):
            edited(raw, FatEdits(added=added))
    with pytest.raises(UnsupportedError, match=r"GRUB\.CFG: is the same name as boot/grub/grub\.cfg in a FAT file"):
        edited(raw, FatEdits(added=(entry("boot/grub/GRUB.CFG", b"1"),)))
    removed = (b"boot/grub/grub.cfg", b"EFI/BOOT")
    again = (entry("boot/grub/GRUB.CFG", b"1"), entry("EFI/boot", None), entry("EFI/boot/bootx64.efi", b"2"))
    out.write_bytes(edited(raw, FatEdits(removed=removed, added=again)))
    run(["fsck.fat", "-n", out])
    assert listed(out) == ["EFI/", "EFI/boot/", "EFI/boot/bootx64.efi", "boot/", "boot/grub/", "boot/grub/GRUB.CFG"]


def test_a_directory_grows_by_clusters(made: Path, tmp_path: Path) -> None:
    out, count = tmp_path / "out.img", 150
    names = [f"EFI/BOOT/a name of some length, number {number}.conf" for number in range(count)]
    added = tuple(entry(name, b"%d" % number) for number, name in enumerate(names))
    out.write_bytes(edited(made.read_bytes(), FatEdits(added=added)))
    run(["fsck.fat", "-n", out])
    assert set(names) < set(listed(out))
    again = opened(out.read_bytes())
    files = {file.path.decode(): again.read_file(file) for file in again.walk() if not file.is_directory}
    assert all(files[name] == b"%d" % number for number, name in enumerate(names))


def test_a_root_directory_that_is_full_is_told(tmp_path: Path) -> None:
    tools.require(*TOOLS)
    fat = tmp_path / "fat.img"
    run(["mkfs.fat", "-F12", "-r16", "-i", "12345678", "--invariant", "-C", fat, "1440"])
    names = tuple(entry(f"FILE{number}", b"") for number in range(16))
    fat.write_bytes(edited(fat.read_bytes(), FatEdits(added=names)))
    run(["fsck.fat", "-n", fat])
    with pytest.raises(SizeError, match="X: does not fit: its directory can hold no more names"):
        edited(fat.read_bytes(), FatEdits(added=(entry("X", b""),)))
    without = edited(fat.read_bytes(), FatEdits(removed=(b"FILE3", b"FILE4"), added=(entry("lower", b"x"),)))
    fat.write_bytes(without)
    run(["fsck.fat", "-n", fat])
    assert "lower" in listed(fat)


def test_short_names_do_not_collide(tmp_path: Path) -> None:
    tools.require(*TOOLS)
    fat = tmp_path / "fat.img"
    run(["mkfs.fat", "-i", "12345678", "--invariant", "-C", fat, "1440"])
    names = tuple(entry(f"archiso-x86_64-{number}.conf", b"%d" % number) for number in range(12))
    fat.write_bytes(edited(fat.read_bytes(), FatEdits(added=names)))
    run(["fsck.fat", "-n", fat])
    assert listed(fat) == sorted(name.path.decode() for name in names)


def test_random_edits_stay_sound(made: Path, tmp_path: Path) -> None:
    chance, raw = random.Random(6), made.read_bytes()
    expected = {LONG.decode(): MENU, "boot/grub/grub.cfg": MENU, "EFI/BOOT/BOOTX64.EFI": PROGRAM}
    out = tmp_path / "out.img"
    for number in range(12):
        data = chance.randbytes(chance.choice([0, 3, 600, 5_000, 40_000]))
        gone = chance.choice(sorted(expected))
        changed = chance.choice(sorted(set(expected) - {gone}) or [gone])
        names = (f"EFI/directory {number}", f"EFI/directory {number}/file {chance.random()}.bin")
        edits = FatEdits(
            removed=(gone.encode(),), added=(entry(names[0], None), entry(names[1], data)),
            replaced={} if changed == gone else {changed.encode(): PieceTable([Literal(data[::-1])])},
        )  # fmt: skip
        raw = edited(raw, edits)
        expected = {**expected, names[1]: data} | ({} if changed == gone else {changed: data[::-1]})
        del expected[gone]
        fat = opened(raw)
        assert {f.path.decode(): fat.read_file(f) for f in fat.walk() if not f.is_directory} == expected
    out.write_bytes(raw)
    run(["fsck.fat", "-n", out])
    assert [name for name in listed(out) if not name.endswith("/")] == sorted(expected)
