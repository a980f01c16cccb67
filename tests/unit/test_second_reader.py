"""pycdlib reads every image too: where it saw the original as we do, it must see the result as we do."""

from __future__ import annotations

import io
import sys
from array import array
from pathlib import Path

import pycdlib
import pytest

import cosremaster
from cosremaster.errors import ProofError
from cosremaster.io.source import ByteSource, open_source
from cosremaster.io.streams import CHUNK
from cosremaster.iso.ecma119.records import DirectoryRecord
from cosremaster.records import replace
from cosremaster.remastering import second_proof
from cosremaster.verification import second_reader
from cosremaster.verification.finding import Finding, Level
from cosremaster.verification.subject import Subject, read_subject
from tests.support.small import write_overlay, write_small


def findings(path: Path, **options: object) -> dict[str, Finding]:
    """The findings of `verify` that pycdlib made, by their checks."""
    report = cosremaster.verify(path, **options)  # type: ignore[arg-type]
    return {finding.check: finding for finding in report.findings if finding.check.startswith("pycdlib.")}


def write_trees(folder: Path) -> Path:
    """An image with Rock Ridge, Joliet, a file of two names, a relocated directory, and a boot catalog."""
    path, iso = folder / "trees.iso", pycdlib.PyCdlib()
    iso.new(interchange_level=3, rock_ridge="1.09", joliet=3)
    (folder / "boot").write_bytes(b"boot" * 700)
    iso.add_file(str(folder / "boot"), "/BOOT.;1", rr_name="boot", joliet_path="/boot")
    iso.add_eltorito("/BOOT.;1", bootcatfile="/CAT.;1", rr_bootcatname="cat", joliet_bootcatfile="/cat")
    where, joliet = "", ""
    for depth in range(1, 10):
        where, joliet = f"{where}/D{depth}", f"{joliet}/d{depth}"
        iso.add_directory(where, rr_name=f"d{depth}", joliet_path=joliet if depth < 8 else None)
    iso.add_file(str(folder / "boot"), f"{where}/DEEP.;1", rr_name="deep")
    iso.write(str(path))
    iso.close()
    return path


def shift_file(subject: Subject) -> Subject:
    """The subject as a reader would see it that takes a file's block for the next one."""
    tree = subject.trees[0]

    def shift(record: DirectoryRecord) -> DirectoryRecord:
        return replace(record, lba=record.lba + 1)

    at = next(at for at, record in enumerate(tree.records) if not record.flags & 2)
    records = (*tree.records[:at], shift(tree.records[at]), *tree.records[at + 1 :])
    return replace(subject, trees=(replace(tree, records=records), *subject.trees[1:]))


def rename_file(subject: Subject) -> Subject:
    """The subject as a reader would see it that gives a file another name."""
    tree = subject.trees[0]
    key = next((*record.parent, record.identifier) for record in tree.records if not record.flags & 2)
    return replace(
        subject, trees=(replace(tree, names={**tree.names, key: tree.names[key] + b"x"}), *subject.trees[1:])
    )


def lose_file(subject: Subject) -> Subject:
    """The subject as a reader would see it that does not see a record."""
    tree = subject.trees[0]
    return replace(subject, trees=(replace(tree, records=tree.records[1:]), *subject.trees[1:]))


def invent_file(subject: Subject) -> Subject:
    """The subject as a reader would see it that sees a record that is not there."""
    tree = subject.trees[0]
    made = replace(tree.records[0], parent=(), identifier=b"MADE.;1")
    names = {**tree.names, (b"MADE.;1",): b"made"}
    return replace(subject, trees=(replace(tree, records=(*tree.records, made), names=names), *subject.trees[1:]))


def lose_boot_entry(subject: Subject) -> Subject:
    """The subject as a reader would see it that does not see the last boot entry."""
    assert subject.catalog is not None
    return replace(subject, catalog=replace(subject.catalog, entries=subject.catalog.entries[:-1]))


def lose_tree(subject: Subject) -> Subject:
    """The subject as a reader would see it that does not see the last tree."""
    return replace(subject, trees=subject.trees[:-1])


MISREADINGS = {
    shift_file: "pycdlib sees it at block",
    rename_file: "pycdlib calls it",
    lose_file: "pycdlib sees a record",
    invent_file: "pycdlib does not see it",
    lose_boot_entry: "pycdlib sees the boot entries",
    lose_tree: "pycdlib sees a Joliet tree",
}


@pytest.mark.parametrize("misread", MISREADINGS, ids=lambda misread: misread.__name__)
def test_each_difference_is_found(tmp_path: Path, misread: object) -> None:
    assert callable(misread)
    with open_source(write_trees(tmp_path)) as source:
        subject, reading = read_subject(source), second_reader.read_with_pycdlib(source)
    assert list(second_reader.list_differences(subject, reading)) == []
    (message, place), *_ = second_reader.list_differences(misread(subject), reading)
    assert message.startswith(MISREADINGS[misread])
    assert str(place).startswith(str(tmp_path / "trees.iso"))


def test_both_readers_see_the_same_of_several_trees(tmp_path: Path) -> None:
    (finding,) = findings(write_trees(tmp_path)).values()
    assert (finding.check, finding.level) == ("pycdlib.same", Level.HOLDS)
    assert finding.message == "pycdlib sees the same 23 directory records and 1 boot entries"


def test_a_difference_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = write_small(tmp_path), second_reader.read_with_pycdlib

    def misread(source: ByteSource) -> second_reader.SecondReading:
        reading = seen(source)
        return replace(reading, boot_entries=reading.boot_entries[1:])

    monkeypatch.setattr(second_reader, "read_with_pycdlib", misread)
    assert findings(path)["pycdlib.differs"].level is Level.FAILS
    assert not cosremaster.verify(path).ok


def damage_block_number(path: Path) -> None:
    """Make the two byte orders of a file's block differ, which pycdlib refuses to read."""
    with open_source(path) as source:
        record = next(record for record in read_subject(source).trees[0].records if not record.flags & 2)
    raw = bytearray(path.read_bytes())
    raw[record.offset + 9] ^= 1  # the last byte of the big-endian block number (ECMA-119, 9.1.3)
    path.write_bytes(raw)


def test_an_image_that_only_pycdlib_refuses_is_noted_unless_it_reads_the_original(tmp_path: Path) -> None:
    path, original = write_small(tmp_path), tmp_path / "original.iso"
    original.write_bytes(path.read_bytes())
    damage_block_number(path)
    assert {check: finding.level for check, finding in findings(path).items()} == {"pycdlib.unreadable": Level.NOTE}
    against = findings(path, against=original)
    assert against["pycdlib.against"].level is Level.FAILS
    assert "extent location disagree; it reads the original" in against["pycdlib.against"].message
    damage_block_number(original)  # back to what it was in neither: both are damaged now
    assert set(findings(path, against=original)) == {"pycdlib.unreadable"}


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_name_that_pycdlib_reads_otherwise_counts_where_it_reads_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_damaged: bool
) -> None:
    """An edit may mend what kept pycdlib from the original, which may have had the difference all along."""
    path, original, seen = write_small(tmp_path), tmp_path / "original.iso", second_reader.read_with_pycdlib
    original.write_bytes(path.read_bytes())
    if is_damaged:
        damage_block_number(original)

    def misread(source: ByteSource) -> second_reader.SecondReading:
        reading = seen(source)
        return reading if source.name == str(original) else replace(reading, boot_entries=reading.boot_entries[1:])

    monkeypatch.setattr(second_reader, "read_with_pycdlib", misread)
    finding = findings(path, against=original)["pycdlib.differs"]
    assert (finding.level, finding.is_preexisting) == (Level.FAILS, is_damaged)


def test_an_original_that_pycdlib_was_not_asked_for_is_not_said_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, original, is_slow = write_small(tmp_path), tmp_path / "original.iso", second_reader.is_too_slow
    original.write_bytes(path.read_bytes())
    damage_block_number(path)
    monkeypatch.setattr(
        second_reader, "is_too_slow", lambda subject: subject.source.name == str(original) or is_slow(subject)
    )
    assert set(findings(path, against=original)) == {"pycdlib.unreadable"}


def test_a_run_says_what_pycdlib_saw(tmp_path: Path) -> None:
    result = cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[write_overlay(tmp_path)])
    assert "pycdlib sees the same 9 directory records and 2 boot entries" in result.proof


def test_a_result_that_pycdlib_sees_otherwise_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_small(tmp_path), tmp_path / "out.iso"

    def misread(read: ByteSource) -> Subject:
        subject = read_subject(read)
        return subject if read.place.parts == (str(source),) else shift_file(subject)

    monkeypatch.setattr(second_proof, "read_subject", misread)
    with pytest.raises(ProofError, match=r"pycdlib sees it at block"):
        cosremaster.remaster(source, out, add=[write_overlay(tmp_path)])
    assert not out.exists()


def test_a_result_that_pycdlib_cannot_read_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, seen = write_small(tmp_path), tmp_path / "out.iso", second_reader.read_with_pycdlib

    def refuse(read: ByteSource) -> second_reader.SecondReading:
        if read.place.parts == (str(source),):
            return seen(read)
        raise second_reader.SecondReaderError("bad luck")

    monkeypatch.setattr(second_proof, "read_with_pycdlib", refuse)
    with pytest.raises(ProofError, match=r"out\.iso.*pycdlib reads the input, and not the result: bad luck"):
        cosremaster.remaster(source, out, add=[write_overlay(tmp_path)])
    assert not out.exists()


def test_pycdlib_is_no_witness_where_it_sees_the_input_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_small(tmp_path)
    damage_block_number(source)
    overlay = write_overlay(tmp_path)
    result = cosremaster.remaster(source, tmp_path / "out.iso", add=[overlay])
    assert any(line.startswith("not read with pycdlib: it cannot read the input") for line in result.proof)
    monkeypatch.setattr(second_proof, "MAX_FILES", 1)
    many = cosremaster.remaster(source, tmp_path / "many.iso", add=[overlay])
    assert not any("pycdlib" in line for line in many.proof)
    assert (tmp_path / "out.iso").read_bytes() == (tmp_path / "many.iso").read_bytes()


def test_directories_that_pycdlib_would_sort_for_long_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_small(tmp_path)
    with open_source(path) as source:
        subject = read_subject(source)
    tree = subject.trees[0]
    backwards = replace(subject, trees=(replace(tree, records=tree.records[::-1]),))
    monkeypatch.setattr(second_reader, "MAX_INSERTIONS", 0)
    assert not second_reader.is_too_slow(subject), "its records are sorted"
    assert second_reader.is_too_slow(backwards)
    monkeypatch.setattr(second_reader, "is_too_slow", lambda subject: True)
    assert findings(path)["pycdlib.slow"].level is Level.NOTE


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 67, 68, 2047, 2048, 2049, 9999])
def test_the_checksum_of_a_boot_info_table_is_that_of_pycdlib(size: int) -> None:
    data, iso = bytes(number * 7 % 256 for number in range(size)) + b"behind it" * 300, pycdlib.PyCdlib()
    iso.logical_block_size = 2048
    expected = iso._calculate_eltorito_boot_info_table_csum(io.BytesIO(data), size)
    assert second_reader.sum_words(io.BytesIO(data), size) == expected


def test_a_large_boot_image_is_summed_in_parts() -> None:
    sizes = list[int]()

    class Noted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            sizes.append(len(data))
            return data

    data = bytes(range(256)) * 20_000
    words = array("I", data[64:])
    if sys.byteorder == "big":
        words.byteswap()
    assert second_reader.sum_words(Noted(data), len(data)) == sum(words) & 0xFFFFFFFF
    assert max(sizes) <= CHUNK and sum(sizes) == len(data)


def test_udf_is_read_by_this_program_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of pycdlib walk UDF directories that lead into themselves for ever."""
    path, iso = tmp_path / "bridge.iso", pycdlib.PyCdlib()
    iso.new(interchange_level=3, udf="2.60")
    iso.add_directory("/DIR", udf_path="/dir")
    iso.write(str(path))
    iso.close()

    def walk(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(pycdlib.PyCdlib, "_walk_udf_directories", walk)
    (finding,) = findings(path).values()
    assert (finding.check, finding.message) == ("pycdlib.same", "pycdlib sees the same 1 directory records")


def test_a_fault_beside_the_run_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_small(tmp_path), tmp_path / "out.iso"

    def fail(read: ByteSource) -> Subject:
        if read.place.parts == (str(source),):
            raise RuntimeError("a fault of ours")
        return read_subject(read)

    monkeypatch.setattr(second_proof, "read_subject", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        cosremaster.remaster(source, out, add=[write_overlay(tmp_path)])
    assert not out.exists()


def test_an_image_is_read_once_for_many_that_are_made_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, read = list[str](), second_reader.read_with_pycdlib

    def note(source: ByteSource) -> second_reader.SecondReading:
        names.append(Path(source.name).name)
        return read(source)

    monkeypatch.setattr(second_proof, "read_with_pycdlib", note)
    with cosremaster.open(write_small(tmp_path)) as image:
        for number in range(3):
            result = image.remaster(tmp_path / f"{number}.iso", sync=False)
            assert any(line.startswith("pycdlib sees the same") for line in result.proof)
    assert names.count("in.iso") == 1
    assert len(names) == 4
