"""Images that lie about their directories: edits of their trees end well, or with a sentence, soon."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cosremaster.errors import CosremasterError, ImageError, UnsupportedError
from cosremaster.io.output import Written
from cosremaster.io.source import open_source
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan, plan_image
from cosremaster.iso.model import IsoImage
from cosremaster.iso.prove import prove_image
from cosremaster.iso.read import read_image
from cosremaster.iso.tree_edit.patches import find_path_tables
from cosremaster.iso.tree_edit.read_editable import read_editable_trees
from cosremaster.iso.tree_edit.serialize import TreePlacement, TreeSerializer
from cosremaster.iso.udf.patch import seal_descriptor
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import ancestors
from tests.fixtures import families, tools
from tests.fixtures.families import FAMILIES
from tests.fixtures.tools import run

BLOCK = 2048
RICH = ("debian", "ubuntu", "udf", "udf-boot", "data-deep", "data-level-4", "multi-session", "data-joliet", "fedora")
ROUNDS = 25


def file(path: bytes, data: bytes = b"new\n") -> Node:
    return Node(path=path, kind=NodeKind.FILE, mode=0o644, content=BytesContent(data))


def folder(path: bytes) -> Node:
    return Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755)


def planned(path: Path, edits: IsoEdits) -> ImagePlan:
    with open_source(path) as source:
        return plan_image(read_image(source), source, edits)


def written(path: Path, edits: IsoEdits, target: Path) -> IsoImage:
    """Plans, writes and proves."""
    with open_source(path) as source:
        image = read_image(source)
        plan = plan_image(image, source, edits)
        target.write_bytes(b"".join(plan.table.chunks()))
        with open_source(target) as result:
            prove_image(image, plan, Written(target, ()), result)
            return read_image(result)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "data-large"])
def test_path_tables_made_of_directories_are_the_makers(name: str) -> None:
    """genisoimage's and xorriso's own, byte for byte."""
    tools.require(*families.TOOLS)
    with open_source(families.build(name)) as source:
        for tree in read_editable_trees(source, read_image(source).trees):
            serializer = TreeSerializer(tree, source, source.read, TreePlacement.of_image(tree), {}, iter(()))
            path_tables = find_path_tables(tree)
            assert path_tables
            expected = serializer.serialize_path_tables(["little", "big"])
            for path_table in path_tables:
                size = int.from_bytes(tree.descriptors[0].raw[132:136], "little")
                assert source.read(path_table.lba * BLOCK, size) == expected[path_table.order]


def edits_of(image: IsoImage, chance: random.Random) -> Iterator[IsoEdits]:
    """A few of each kind."""
    paths = [one.path for one in image.files]
    folders = sorted({above for path in paths for above in ancestors(path)})
    yield IsoEdits(added=(folder(b"new-folder"), file(b"new-folder/new-file"), *(file(b"f%d" % n) for n in range(70))))
    if paths:
        yield IsoEdits(removed=(chance.choice(paths),))
        yield IsoEdits(renamed={chance.choice(paths): b"renamed to something long." + b"x" * 180})
    if folders:
        one = chance.choice(folders)
        yield IsoEdits(removed=(one,))
        yield IsoEdits(renamed={one: b"moved"}, added=(file(b"moved/" + b"n" * 200),))


@pytest.mark.parametrize("name", RICH)
def test_changed_bytes_of_directories(name: str, tmp_path: Path) -> None:
    tools.require(*families.TOOLS)
    sound = families.build(name).read_bytes()
    with open_source(families.build(name)) as source:
        image = read_image(source)
        spans = [one for one in image.fixed_spans if one.label.startswith(("directory", "path table", "UDF", "volume"))]
    places = [one.start * BLOCK + at for one in spans for at in range(0, one.blocks * BLOCK, 7)]
    places = [at for at in places if any(sound[at : at + 7])]
    chance, path, good = random.Random(name), tmp_path / "mutated.iso", 0
    for _ in range(ROUNDS):
        raw = bytearray(sound)
        for place in chance.sample(places, chance.choice([1, 1, 3, 20])):
            at = place + chance.randrange(7)
            raw[at] = chance.choice([0, 0xFF, raw[at] ^ 1 << chance.randrange(8), chance.randrange(256)])
        path.write_bytes(raw)
        good += works(path, chance)
    assert good, "some bytes do not matter"


@pytest.mark.parametrize("name", RICH)
def test_images_cut_off(name: str, tmp_path: Path) -> None:
    tools.require(*families.TOOLS)
    sound = families.build(name).read_bytes()
    chance, path = random.Random(name), tmp_path / "cut.iso"
    for _ in range(8):
        path.write_bytes(sound[: chance.randrange(len(sound))])
        works(path, chance)


def works(path: Path, chance: random.Random) -> bool:
    """Plans edits; True where all could be."""
    done = True
    with open_source(path) as source:
        try:
            image = read_image(source)
        except CosremasterError as error:
            assert str(error)
            return False
        for edits in edits_of(image, chance):
            try:
                assert plan_image(image, source, edits).table.length > 0
            except CosremasterError as error:
                assert str(error)
                done = False
    return done


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A tree with Rock Ridge and Joliet, two directories and a relocated one."""
    tools.require("genisoimage")
    tree = tools.Tree(tmp_path / "tree")
    tree.file("one/a", b"a" * 3000)
    tree.file("two/b", b"b" * 3000)
    tree.file("/".join(f"l{n}" for n in range(9)) + "/deep", b"deep")
    run(["genisoimage", "-quiet", "-R", "-J", "-o", tmp_path / "in.iso", tree.root])
    return tmp_path / "in.iso"


@contextmanager
def changed(path: Path) -> Iterator[tuple[bytearray, Callable[[str, bytes], int]]]:
    """The image's bytes to be changed, and a function that finds the record of an identifier in a tree."""
    raw = bytearray(path.read_bytes())
    with open_source(path) as source:
        trees = read_editable_trees(source, read_image(source).trees)
        assert all(list(tree.entries()) for tree in trees)  # which are read when they are first asked for

    def record(kind: str, identifier: bytes) -> int:
        return next(
            entry.records[0].offset
            for tree in trees
            if tree.kind == kind
            for one in tree.directories()
            for entry in one.entries
            if entry.identifier == identifier and entry.records
        )

    yield raw, record
    path.write_bytes(raw)


ADD = IsoEdits(added=(file(b"new"),))


def both(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)


def test_a_directory_that_two_names_lead_to(bare: Path) -> None:
    with changed(bare) as (raw, record):
        one, two = record("ISO 9660", b"ONE"), record("ISO 9660", b"TWO")
        raw[two + 2 : two + 10] = raw[one + 2 : one + 10]
    with pytest.raises(ImageError, match="leads into itself"):
        planned(bare, ADD)


def test_a_directory_that_two_trees_share(bare: Path) -> None:
    with changed(bare) as (raw, record):
        one, two = record("ISO 9660", b"ONE"), record("Joliet", "two".encode("utf-16-be"))
        raw[two + 2 : two + 18] = raw[one + 2 : one + 18]
    for edits in (ADD, IsoEdits(removed=(b"one",)), IsoEdits(renamed={b"one": b"three"})):
        with pytest.raises(ImageError, match="shares blocks with another"):
            planned(bare, edits)


def test_directories_that_overlap(bare: Path) -> None:
    with changed(bare) as (raw, record):
        at = record("ISO 9660", b"ONE")
        raw[at + 10 : at + 18] = both(2 * BLOCK)
    with pytest.raises(CosremasterError):
        planned(bare, ADD)


def test_a_directory_that_is_a_file_too(bare: Path, tmp_path: Path) -> None:
    with changed(bare) as (raw, record):
        at, other = record("ISO 9660", b"A.;1"), record("ISO 9660", b"TWO")
        raw[at + 2 : at + 10] = raw[other + 2 : other + 10]
        raw[at + 10 : at + 18] = both(BLOCK)
    outcome(bare, IsoEdits(added=(file(b"two/new"),)), tmp_path)
    outcome(bare, IsoEdits(removed=(b"two",)), tmp_path)


def outcome(path: Path, edits: IsoEdits, tmp_path: Path) -> None:
    """An image that holds all that it should, or a sentence."""
    try:
        written(path, edits, tmp_path / "out.iso")
    except CosremasterError as error:
        assert str(error)


@pytest.mark.parametrize("where", ["above", "itself", "root", "file", "outside"])
def test_relocations_that_lead_astray(where: str, bare: Path, tmp_path: Path) -> None:
    with open_source(bare) as source:
        tree = read_editable_trees(source, read_image(source).trees)[0]
        holder, entry = next(
            (one, entry) for one in tree.directories() for entry in one.entries if entry.is_placeholder
        )
        below = entry.directory
        assert below and below.extent and holder.extent and holder.parent and holder.parent.extent and tree.root.extent
        lba = {
            "above": holder.parent.extent.lba,
            "itself": holder.extent.lba,
            "root": tree.root.extent.lba,
            "file": 40,
            "outside": 10**6,
        }[where]
    with changed(bare) as (raw, _):
        at = raw.index(b"CL\x0c\x01", entry.records[0].offset)
        raw[at + 4 : at + 12] = both(lba)
    with pytest.raises(ImageError):
        planned(bare, ADD)


def test_a_parent_link_that_lies_is_made_true(bare: Path, tmp_path: Path) -> None:
    with changed(bare) as (raw, _):
        at = raw.index(b"PL\x0c\x01")
        raw[at + 4 : at + 12] = both(1)
    written(bare, IsoEdits(renamed={b"l0": b"elsewhere"}), tmp_path / "out.iso")


def test_continuations_that_lead_to_themselves(bare: Path) -> None:
    with changed(bare) as (raw, _):
        at = raw.index(b"CE\x1c\x01")
        block, offset = divmod(at, BLOCK)
        raw[at + 4 : at + 28] = both(block) + both(offset) + both(28)
    with pytest.raises(ImageError, match="continue without an end"):
        planned(bare, ADD)


@pytest.mark.parametrize("size", [0, 9, 10**6, 0xFFFFFFFF])
def test_path_tables_that_lie(size: int, bare: Path, tmp_path: Path) -> None:
    """They are written anew, or are not where they could be."""
    with changed(bare) as (raw, _):
        raw[16 * BLOCK + 132 : 16 * BLOCK + 140] = both(size)
        table = int.from_bytes(raw[16 * BLOCK + 140 : 16 * BLOCK + 144], "little") * BLOCK
        raw[table : table + 40] = bytes(40)
    if size > 10:
        with pytest.raises(CosremasterError):
            planned(bare, ADD)
    else:
        written(bare, ADD, tmp_path / "out.iso")


@pytest.mark.parametrize("at", [0, 32, 33])
def test_directories_without_their_first_records(at: int, bare: Path) -> None:
    with changed(bare) as (raw, record):
        lba = int.from_bytes(raw[record("ISO 9660", b"ONE") + 2 :][:4], "little") * BLOCK
        raw[lba + at] ^= 0x40 if at else raw[lba]
    with pytest.raises(ImageError):
        planned(bare, ADD)


def test_the_directory_of_relocated_ones_stays_while_it_is_needed(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="rr_moved: cannot be removed: deep directories are recorded in it"):
        planned(bare, IsoEdits(removed=(b"rr_moved",)))
    image = written(bare, IsoEdits(removed=(b"rr_moved", b"l0")), tmp_path / "out.iso")
    assert sorted(one.path for one in image.files) == [b"one/a", b"two/b"]


@pytest.mark.parametrize("edits", [
    IsoEdits(removed=(b"no/such",)), IsoEdits(renamed={b"no": b"such"}), IsoEdits(added=(file(b"no/such"),)),
    IsoEdits(renamed={b"one": b"no/such"}), IsoEdits(added=(file(b"one"),)), IsoEdits(renamed={b"one": b"two"}),
    IsoEdits(added=(file(b"new"), file(b"new"))), IsoEdits(renamed={b"one": b"one/below"}),
])  # fmt: skip
def test_edits_that_do_not_fit_are_refused(edits: IsoEdits, bare: Path) -> None:
    with pytest.raises(CosremasterError, match=r"is not there|is there already"):
        planned(bare, edits)


def test_edits_happen_at_once(bare: Path, tmp_path: Path) -> None:
    """Names that change places, and things that leave a directory that goes or moves."""
    swapped = {b"one": b"two", b"two": b"one", b"one/a": b"two/z", b"l0/l1": b"one/l1"}
    image = written(bare, IsoEdits(renamed=swapped), tmp_path / "out.iso")
    deep = b"one/l1/" + b"/".join(b"l%d" % n for n in range(2, 9)) + b"/deep"
    assert sorted(one.path for one in image.files) == sorted([b"two/z", b"one/b", deep])
    image = written(bare, IsoEdits(removed=(b"one",), renamed={b"one/a": b"kept"}), tmp_path / "other.iso")
    assert b"kept" in [one.path for one in image.files]
    back = IsoEdits(renamed=dict(reversed(swapped.items())))
    assert (
        written(bare, back, tmp_path / "again.iso")
        and (tmp_path / "again.iso").read_bytes() == (tmp_path / "out.iso").read_bytes()
    )


def test_names_of_one_udf_file(tmp_path: Path) -> None:
    """Two file identifiers that lead to one file entry: it stays until both are gone, and counts them."""
    tools.require("genisoimage", "7z")
    tree = tools.Tree(tmp_path / "tree")
    tree.file("first", b"shared" * 1000)
    tree.link("second", "first")
    tree.file("third", b"third")
    run(["genisoimage", "-quiet", "-R", "-udf", "-cache-inodes", "-o", tmp_path / "in.iso", tree.root])
    with open_source(tmp_path / "in.iso") as source:
        udf = read_image(source).udf
        assert udf
        (home,) = udf.directories
        target = next(one.icb_block for one in home.identifiers if one.name == "first")
        other = next(one for one in home.identifiers if one.name == "second")
        raw = bytearray((tmp_path / "in.iso").read_bytes())
        at = raw.index(other.raw)
        identifier = bytearray(other.raw)
        identifier[24:28] = struct.pack("<I", target)
        raw[at : at + len(identifier)] = seal_descriptor(identifier, len(identifier) - 16)
        entry = (udf.partition.start + target) * BLOCK
        file_entry = bytearray(raw[entry : entry + BLOCK])
        file_entry[48:50] = b"\2\0"
        raw[entry : entry + BLOCK] = seal_descriptor(file_entry, int.from_bytes(file_entry[10:12], "little"))
    (tmp_path / "in.iso").write_bytes(raw)
    image = written(tmp_path / "in.iso", IsoEdits(removed=(b"second",)), tmp_path / "one.iso")
    assert image.udf and sorted("/".join(path) for path, _ in image.udf.named_files()) == ["first", "third"]
    assert (tmp_path / "one.iso").read_bytes()[entry + 48 : entry + 50] == b"\1\0"
    assert all(tag.is_sound for tag in image.udf.tags)
    run(["7z", "x", "-tudf", f"-o{tmp_path}/udf", tmp_path / "one.iso"])
    assert (tmp_path / "udf/first").read_bytes() == b"shared" * 1000
    image = written(tmp_path / "one.iso", IsoEdits(removed=(b"first",)), tmp_path / "none.iso")
    assert image.udf and [path for path, _ in image.udf.named_files()] == [("third",)]


def test_udf_names_in_several_extents_across_blocks(tmp_path: Path) -> None:
    """File identifiers stand across the ends of blocks and extents; names change in place and outgrow them."""
    tools.require("genisoimage", "7z")
    tree = tools.Tree(tmp_path / "tree")
    for number in range(60):
        tree.file(f"d/file-with-a-name-{number:03}", b"%d" % number)
    tree.file("room", b"R" * 9 * BLOCK)
    path, out = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-R", "-udf", "-o", path, tree.root])
    with open_source(path) as source:
        image = read_image(source)
        room = next(one for one in image.files if one.path == b"room")
        assert image.udf
        udf, entry = image.udf, image.udf.directories[1].file_entry
        (lba, length), start = entry.extents[0], room.records[0].lba + 4
    written(path, IsoEdits(removed=(b"room",)), out)  # its blocks are free now
    raw = bytearray(out.read_bytes())
    raw += bytes(max(0, (start + 2) * BLOCK - len(raw)))
    raw[start * BLOCK : (start + 1) * BLOCK] = raw[(lba + 1) * BLOCK : lba * BLOCK + length].ljust(BLOCK, b"\0")
    places, at = {}, lba * BLOCK
    while at < lba * BLOCK + length:  # the tags name the block that they stand in
        size = -(-(38 + int.from_bytes(raw[at + 36 : at + 38], "little") + raw[at + 19]) // 4) * 4
        places[at - lba * BLOCK] = size
        at += size
    joined = raw[lba * BLOCK : lba * BLOCK + length]
    for inside, size in places.items():
        block = lba if inside < BLOCK else start
        one = joined[inside : inside + size]
        one[12:16] = struct.pack("<I", block - udf.partition.start)
        joined[inside : inside + size] = seal_descriptor(one, size - 16)
    raw[lba * BLOCK : (lba + 1) * BLOCK] = joined[:BLOCK]
    raw[start * BLOCK : (start + 1) * BLOCK] = joined[BLOCK:].ljust(BLOCK, b"\0")
    listed = struct.pack("<IIII", BLOCK, lba - udf.partition.start, length - BLOCK, start - udf.partition.start)
    fe = bytearray(raw[entry.entry_offset : entry.entry_offset + BLOCK])
    fe[172:176] = struct.pack("<I", len(listed))
    fe[entry.allocation_offset : entry.allocation_offset + len(listed)] = listed
    raw[entry.entry_offset : entry.entry_offset + BLOCK] = seal_descriptor(
        fe, entry.allocation_offset + len(listed) - 16
    )
    path.write_bytes(raw)
    renamed = {b"d/file-with-a-name-%03d" % number: b"d/name-%03d" % number for number in range(0, 60, 3)}
    for edits, count in (
        (IsoEdits(renamed=renamed), 60),
        (IsoEdits(added=tuple(file(b"d/%d" % n) for n in range(90))), 150),
    ):
        image = written(path, edits, out)
        assert image.udf and len(list(image.udf.named_files())) == count
        assert all(tag.is_sound for tag in image.udf.tags)
        run(["7z", "x", "-y", "-tudf", f"-o{tmp_path}/udf-{count}", out])
        assert len(list((tmp_path / f"udf-{count}/d").iterdir())) == count


def test_no_depth_is_too_deep(tmp_path: Path) -> None:
    """5,000 levels: nothing recurses, and what each level holds is not kept for all above it."""
    levels = 5000
    path = tmp_path / "deep.iso"
    path.write_bytes(chain(levels))
    top = b"/".join([b"D"] * 3)
    names = b"MOVED" + b"/D" * (levels - 3)
    image = written(path, IsoEdits(added=(file(names + b"/NEW"),), renamed={top: b"MOVED"}), tmp_path / "out.iso")
    assert max(one.path.count(b"/") for one in image.files) == levels - 2


def chain(levels: int) -> bytes:
    """An image with a directory in each directory, and a file in each."""
    base, count = 24, levels + 1
    end = base + count + 1
    tables = b"\x01\0" + struct.pack("<IH", base, 1) + b"\0\0"
    tables += b"".join(b"\x01\0" + struct.pack("<IH", base + n, n) + b"D\0" for n in range(1, count))
    big = b"\x01\0" + struct.pack(">IH", base, 1) + b"\0\0"
    big += b"".join(b"\x01\0" + struct.pack(">IH", base + n, n) + b"D\0" for n in range(1, count))
    blocks = -(-len(tables) // BLOCK)
    raw = bytearray((end + 2 * blocks) * BLOCK)

    def record(lba: int, length: int, flags: int, name: bytes) -> bytes:
        body = both(lba) + both(length) + bytes((123, 1, 1, 0, 0, 0, 0, flags, 0, 0)) + b"\x01\0\0\x01"
        body += bytes((len(name),)) + name + bytes(1 - len(name) % 2)
        return bytes((len(body) + 2, 0)) + body

    for n in range(count):
        records = record(base + n, BLOCK, 2, b"\0") + record(base + max(0, n - 1), BLOCK, 2, b"\1")
        records += record(base + n + 1, BLOCK, 2, b"D") if n < levels else b""
        records += record(base + count, 1, 0, b"F.;1")
        raw[(base + n) * BLOCK : (base + n) * BLOCK + len(records)] = records
    raw[end * BLOCK : end * BLOCK + len(tables)] = tables
    raw[(end + blocks) * BLOCK : (end + blocks) * BLOCK + len(big)] = big
    head = bytearray(BLOCK)
    head[:8] = b"\x01CD001\x01\0"
    head[80:88], head[120:132] = both(len(raw) // BLOCK), b"\x01\0\0\x01\x01\0\0\x01\0\x08\x08\0"
    head[132:140] = both(len(tables))
    head[140:144], head[148:152] = struct.pack("<I", end), struct.pack(">I", end + blocks)
    head[156:190] = record(base, BLOCK, 2, b"\0")
    raw[16 * BLOCK : 17 * BLOCK] = head
    raw[17 * BLOCK : 17 * BLOCK + 7] = b"\xffCD001\x01"
    return bytes(raw)


def test_many_directories_that_all_move(tmp_path: Path) -> None:
    """The root outgrows its blocks, so all directories move, and other trees with it."""
    tools.require("genisoimage")
    tree = tools.Tree(tmp_path / "tree")
    for number in range(1500):
        tree.file(f"dir-{number:04}/file", b"x%d" % number)
    run(["genisoimage", "-quiet", "-R", "-J", "-o", tmp_path / "in.iso", tree.root])
    new = tuple(file(b"new-%03d" % number) for number in range(40))
    image = written(tmp_path / "in.iso", IsoEdits(added=new), tmp_path / "out.iso")
    assert len(image.files) == 1540 and len(image.trees[1].files) == 1540
    gone = tuple(b"dir-%04d" % number for number in range(0, 1500, 2))
    image = written(tmp_path / "out.iso", IsoEdits(removed=gone), tmp_path / "less.iso")
    assert len(image.files) == 790
