"""FAT file systems made by mkfs.fat and mformat: files exchanged, nothing else changed; fsck.fat and mtools judge."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosremaster.boot.fat import Fat
from cosremaster.boot.fat_edit import FatEdits, Patch, edit_fat
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
