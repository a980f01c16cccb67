"""Directories that nobody touches are not read into values; what is wrong in them is noticed still."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster import InlineFile, Request
from cosremaster.boot_config.stale_names import find_stale_names
from cosremaster.browse.container import open_container
from cosremaster.errors import ImageError, ProofError
from cosremaster.io.output import Written
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso import encode
from cosremaster.iso.edited_files import EditedFiles
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import plan_image
from cosremaster.iso.layout import hard_links
from cosremaster.iso.layout.extents import join_runs
from cosremaster.iso.lazy_nodes import LazyNodes
from cosremaster.iso.merged import read_merged_trees
from cosremaster.iso.model import IsoFile, IsoImage, IsoTree
from cosremaster.iso.nodes import read_nodes
from cosremaster.iso.prove import prove_image
from cosremaster.iso.read import read_image
from cosremaster.iso.read_trees import JOLIET
from cosremaster.iso.tree_edit import restructure
from cosremaster.iso.tree_edit.apply import apply_edits
from cosremaster.iso.tree_edit.read_editable import _TreeReader
from cosremaster.iso.tree_edit.verify import prove_directories
from cosremaster.iso.tree_files import FileColumns
from cosremaster.iso.walk import walk_records
from cosremaster.records import replace
from cosremaster.remastering import iso_tree
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind, RootedTree
from cosremaster.units import Lba, lba_offset
from tests.fixtures import families, tools
from tests.fixtures.families import FAMILIES
from tests.fixtures.tools import run

ADDED = IsoEdits(added=(Node(path=b"d03/new", kind=NodeKind.FILE, mode=0o644, content=BytesContent(b"new\n")),))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty directories of five files, one of them with a symlink."""
    tools.require("genisoimage")
    tree = tools.Tree(tmp_path / "tree")
    for number in range(200):
        tree.file(f"d{number % 40:02}/a name in small letters {number}", b"%d" % number)
    os.symlink("elsewhere", tree.root / "d07" / "link")
    run(["genisoimage", "-quiet", "-R", "-J", "-o", tmp_path / "in.iso", tree.root])
    return tmp_path / "in.iso"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The prefixes of the directories of whose files values are made, while the test runs."""
    prefixes: list[bytes] = []
    make_files = FileColumns._make_files

    def make_noticed(columns: FileColumns) -> list[IsoFile]:
        prefixes.append(columns.prefix)
        return make_files(columns)

    monkeypatch.setattr(FileColumns, "_make_files", make_noticed)
    return prefixes


def test_names_of_files_are_found_few_by_few_and_all_at_once(many: Path) -> None:
    with open_source(many) as source:
        image = read_image(source)
        tree_files = EditedFiles(image, IsoEdits())
        paths = [file.path for file in image.files if file.size]
        assert [tree_files.names_of(path) for path in paths] == [(path,) for path in paths]
        assert len(paths) == 200


def test_a_file_is_added_without_making_values_of_all_files(many: Path, tmp_path: Path, made: list[bytes]) -> None:
    with cosremaster.open(many) as image:
        image.remaster(tmp_path / "out.iso", Request(add_iso=[InlineFile("/d03/new", b"new\n")]))
    assert set(made) <= {b"d03/", b"d07/"}  # that of the new file, and that with a symlink
    assert b"/d03/new" in run(["isoinfo", "-R", "-f", "-i", tmp_path / "out.iso"]).split(b"\n")


def test_a_directory_that_begins_with_other_records_is_not_edited(many: Path) -> None:
    with open_source(many) as source:
        directory = next(each for each in read_image(source).trees[0].index if each.path == b"d11")
    start = lba_offset(directory.extent.lba)
    data = bytearray(many.read_bytes())
    dot_dot = start + data[start]
    assert directory.begins_with_dots and data[dot_dot + 33] == 1
    data[dot_dot + 33] = 0  # a second . in the place of ..
    many.write_bytes(data)
    with open_source(many) as source:
        image = read_image(source)
        assert [each.path for each in image.trees[0].index if each.is_plain and not each.begins_with_dots] == [b"d11"]
        with pytest.raises(ImageError, match=r"begin with \. and \.\."):
            plan_image(image, source, ADDED)


def test_runs_of_blocks_are_those_of_each_file(many: Path) -> None:
    with open_source(many) as source:
        tree = read_image(source).trees[0]
    runs = [run for file in tree.files for run in file.block_runs]
    assert tree.block_runs == runs and tree.data_end == max(end for _, end in runs)
    blocks = {block for start, end in runs for block in range(start, end)}
    assert blocks == {block for start, end in tree.joined_runs for block in range(start, end)}
    assert all(end < start for (_, end), (start, _) in pairwise(tree.joined_runs))
    first, last = (Lba(sorted(blocks)[number]) for number in (50, 60))
    inside = [run for run in runs if run[0] < last and first < run[1]]
    assert list(tree.list_runs_in(first, last)) == inside and len(inside) == 10
    assert tree.find_starts({first, Lba(1)}) == {first} == {file.start for file in tree.find_files_at({first})}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "data-large"])
def test_files_are_those_that_records_tell_one_by_one(name: str) -> None:
    tools.require(*families.TOOLS)
    with open_source(families.build(name)) as source:
        image = read_image(source)
        for tree in (tree for tree in image.trees if tree.directories):
            records = list(walk_records(source, tree.directories[0], tree.base, tree.skip, tree.kind == JOLIET))
            names = [(named.path, named.record.offset) for named in records if named.directory is None]
            assert {(file.path, file.records[-1].offset) for file in tree.files} <= set(names)
            assert {named.path for named in records if named.directory} | {b""} == set(tree.directory_paths)
            assert len(tree.index) == len(tree.directories)
            for directory in tree.index:
                parents = {file.path.rpartition(b"/")[0] for file in tree.files[directory.files]}
                assert parents <= {directory.path}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "data-large"])
def test_nodes_read_one_by_one_are_those_read_together(name: str) -> None:
    tools.require(*families.TOOLS)
    with open_source(families.build(name)) as source:
        image = read_image(source)
        nodes = {path: node for path, node in read_nodes(image, source).items() if path}
        lazy = LazyNodes(image, source)
        for path in random.Random(name).sample(sorted(nodes), min(40, len(nodes))):
            assert describe(lazy[path]) == describe(nodes[path])
        assert b"no/such/path" not in lazy and b"" not in lazy
        assert LazyNodes(image, source).list_paths() == nodes.keys() == lazy.list_paths()
        assert list(map(describe, lazy.values())) == list(map(describe, nodes.values()))


def test_a_walk_keeps_few_nodes(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of what is asked for again. There is room for the nodes of six directories."""
    monkeypatch.setattr("cosremaster.iso.lazy_nodes._KEPT_NODES", 30)
    kept = 0
    with open_source(many) as source:
        image = read_image(source)
        nodes = {path: node for path, node in read_nodes(image, source).items() if path}
        lazy = LazyNodes(image, source)
        for path in (*sorted(nodes), *sorted(nodes, reverse=True)):
            assert describe(lazy[path]) == describe(nodes[path])
            kept = max(kept, sum(map(len, lazy._read.values())))
    assert 0 < kept <= max(30, len({path for path in nodes if b"/" not in path})) < len(nodes)


def test_names_are_listed_without_nodes(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sorted(line[1:] for line in run(["isoinfo", "-R", "-f", "-i", many]).splitlines())
    with monkeypatch.context() as patched, open_source(many) as source:
        patched.setattr("cosremaster.iso.lazy_nodes.read_nodes", None)
        container, _ = open_container(source)
        assert sorted(container.walk_below(b"")) == expected
        assert container.nodes[b"d03/a name in small letters 43"].content is not None


def describe(node: Node) -> tuple[Node, bytes | None]:
    """What it is, and its bytes, which zisofs unpacks."""
    return replace(node, content=None), None if node.content is None else node.content.table().read(0, 1 << 16)


def test_an_addition_reads_the_directories_that_change(many: Path) -> None:
    with open_source(many) as source:
        image = read_image(source)
        for tree in read_merged_trees(image, source).trees:
            apply_edits(tree, ADDED, image.place)
            paths = {path for path, directory in tree.directories_by_path() if directory.unread is None}
            assert paths == {b"", b"d03"}  # the root's . has a continuation area, so that it is read whole


def test_files_of_both_trees_match_whichever_is_read_first(many: Path) -> None:
    with open_source(many) as source:
        image = read_image(source)
        expected = {(file.path, file.start) for file in image.files if file.size}
        assert len(expected) == 200
        for first in (0, 1):
            trees = read_merged_trees(image, source).trees
            assert list(trees[first].entries())
            for tree in trees:
                entries = (pair for pair in tree.named_entries() if pair[1].has_data)
                assert {(path, entry.records[0].lba) for path, entry in entries} == expected


@pytest.mark.parametrize(
    ("at", "is_proved"), [(2, True), (10, True), (25, True), (33, False), (40, False), (60, False)]
)
def test_a_byte_changed_where_nobody_touched_anything(many: Path, tmp_path: Path, at: int, is_proved: bool) -> None:
    """Block, length or flags of a record make the proof fail; and never says the old image what the new one says."""
    target = tmp_path / "out.iso"
    with open_source(many) as source:
        image = read_image(source)
        plan = plan_image(image, source, ADDED)
        raw = b"".join(plan.table.chunks())
        for tree in image.trees:
            changed = bytearray(raw)
            changed[next(file for file in tree.files if file.path.startswith(b"d11/")).records[0].offset + at] ^= 2
            target.write_bytes(changed)
            with open_source(target) as result:
                assert files_of(result, image) == files_of(result, None)
                if is_proved:
                    with pytest.raises((ProofError, ImageError)):
                        prove_image(image, plan, Written(target, ()), result)


@pytest.mark.parametrize(("at", "is_proved"), [(2, True), (10, True), (33, False)])
def test_a_byte_changed_beside_a_file_that_was_replaced(many: Path, tmp_path: Path, at: int, is_proved: bool) -> None:
    """In its own directory and in another one."""
    target = tmp_path / "out.iso"
    with open_source(many) as source:
        image = read_image(source)
        old = next(file for file in image.files if file.path.startswith(b"d03/"))
        plan = plan_image(image, source, IsoEdits(replaced={old.path: PieceTable([Literal(b"other")])}))
        raw = b"".join(plan.table.chunks())
        for tree in image.trees:
            for directory in (b"d03/", b"d11/"):
                files = [file for file in tree.files if file.path.startswith(directory) and file.path != old.path]
                changed = bytearray(raw)
                changed[files[-1].records[0].offset + at] ^= 2
                for data, is_refused in ((raw, False), (changed, is_proved)):
                    target.write_bytes(data)
                    with open_source(target) as result:
                        if is_refused:
                            with pytest.raises((ProofError, ImageError)):
                                list(prove_image(image, plan, Written(target, ()), result))
                        elif data is raw:
                            assert prove_image(image, plan, Written(target, ()), result)


def files_of(source: ByteSource, earlier: IsoImage | None) -> object:
    """The files of all trees; a sentence where they cannot be read."""
    try:
        return [tree.files for tree in read_image(source, earlier).trees]
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("name", ["many", "relocated"])
def test_a_directory_that_leads_elsewhere_is_no_proved_one(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A ., a .., a root's record, a path table and its size, each changed alone; in either tree, relocated or not."""
    source_path = request.getfixturevalue(name)
    target = tmp_path / "out.iso"
    with open_source(source_path) as source:
        image = read_image(source)
        added = replace(ADDED.added[0], path=b"new")
        raw = b"".join(plan_image(image, source, IsoEdits(added=(added,))).table.chunks())
        target.write_bytes(raw)
        with open_source(target) as result:
            new = read_image(result, image)
            prove_directories(result, new)
            for tree in new.trees:
                directory = next(each for each in tree.index if each.path.endswith((b"d11", b"d1/d2")))
                dot = lba_offset(directory.extent.lba)
                descriptor = lba_offset(tree.descriptor_lba)
                changes = (
                    dot + 2, dot + 17, dot + raw[dot] + 2, dot + raw[dot] + 17, descriptor + 156 + 6, descriptor + 136,
                    *(lba_offset(table.lba) + 30 for table in tree.path_tables),
                )  # fmt: skip
                for at in changes:
                    changed = bytearray(raw)
                    changed[at] ^= 1
                    target.write_bytes(changed)
                    with pytest.raises(ProofError, match=r"path table|a \. or \.\."):
                        prove_directories(result, read_image(result, image))


@pytest.fixture
def relocated(tmp_path: Path) -> Path:
    """Ten levels of directories, of which genisoimage relocates some."""
    tools.require("genisoimage")
    tree = tools.Tree(tmp_path / "tree")
    tree.file("/".join(f"d{level}" for level in range(1, 11)) + "/file", b"deep\n")
    tree.file("d1/d2/file", b"high\n")
    run(["genisoimage", "-quiet", "-R", "-J", "-o", tmp_path / "in.iso", tree.root])
    return tmp_path / "in.iso"


def test_a_file_is_added_without_a_digest_of_anything(many: Path, tmp_path: Path) -> None:
    """Start-up: OpenSSL, which takes as long to load as the directories to read, is for runs with digests."""
    program = "import sys\nfrom cosremaster.cli import main\nmain(sys.argv[1:])\nprint('_hashlib' in sys.modules)\n"
    (tmp_path / "new").write_bytes(b"new\n")
    words = [str(many), f"{tmp_path}/out.iso", "--quiet", "--add-iso", f"{tmp_path}/new:/"]
    for more in ([], ["--force", "--digest", "sha256"]):
        assert run([sys.executable, "-c", program, *words, *more]).split() == [b"%a" % bool(more)]


def test_little_is_kept_of_a_small_directory(many: Path) -> None:
    with open_source(many) as source:
        for tree in read_image(source).trees:
            for directory in (directory for directory in tree.index if directory.is_plain):
                whole = source.read(lba_offset(directory.extent.lba), directory.extent.length)
                assert whole == directory.data.ljust(len(whole), b"\0")
                assert len(directory.data) == len(whole) if whole[1024:].strip(b"\0") else len(directory.data) <= 1024
                dot_dot = whole[0]
                assert directory.dot_extents == whole[2:18] + whole[dot_dot + 2 : dot_dot + 18]


def test_an_original_that_changed_meanwhile_says_nothing(many: Path, tmp_path: Path) -> None:
    """The bytes of both are the same, and others than those that were read."""
    copy = tmp_path / "copy.iso"
    raw = bytearray(many.read_bytes())
    with open_source(many) as source:
        image = read_image(source)
        offset = next(file for file in image.files if file.path.startswith(b"d11/")).records[0].offset
        raw[offset + 10] ^= 1
        with open(many, "r+b") as file:
            file.seek(offset + 10)
            file.write(raw[offset + 10 : offset + 11])
        copy.write_bytes(raw)
        with open_source(copy) as result:
            new = read_image(result, image)
    size = next(file.size for file in new.files if file.records[0].offset == offset)
    assert size == raw[offset + 10]
    assert new.files != image.files


def test_files_of_one_tree_alone_are_among_the_joined_runs(tmp_path: Path) -> None:
    tools.require("genisoimage")
    (tmp_path / "tree").mkdir()
    for number, name in enumerate(("a", "joliet", "z")):
        (tmp_path / "tree" / name).write_bytes(bytes(9000 + number))
    run(["genisoimage", "-quiet", "-R", "-J", "-hide", "joliet", "-o", f"{tmp_path}/o.iso", f"{tmp_path}/tree"])
    with open_source(tmp_path / "o.iso") as source:
        trees = read_image(source).trees
    blocks = {block for tree in trees for start, end in tree.block_runs for block in range(start, end)}
    assert len(blocks) == 15
    assert {block for span in join_runs(trees) for block in range(span.start, span.end)} == blocks


def test_a_directory_is_removed_without_reading_others(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    names = LazyNodes._read_all, _TreeReader._read_plain_entries

    def read_all_noticed(nodes: LazyNodes) -> object:
        read.append("all nodes")
        return names[0](nodes)

    def read_noticed(reader: _TreeReader, *arguments: Any) -> object:
        read.append("Joliet" if reader.joliet else "primary")
        return names[1](reader, *arguments)

    monkeypatch.setattr(LazyNodes, "_read_all", read_all_noticed)
    monkeypatch.setattr(_TreeReader, "_read_plain_entries", read_noticed)
    with cosremaster.open(many) as image:
        image.remaster(tmp_path / "out.iso", Request(remove_iso=["/d03"], add_iso=[InlineFile("/d05/new", b"new\n")]))
    assert "all nodes" not in read
    assert max(read.count("primary"), read.count("Joliet")) <= 4  # the root, d03 and d05 of 40, d07 with its symlink
    listed = run(["isoinfo", "-R", "-f", "-i", tmp_path / "out.iso"]).split(b"\n")
    assert b"/d05/new" in listed
    assert not [path for path in listed if path.startswith(b"/d03")]
    assert len([path for path in listed if b"a name in small" in path]) == 195


def test_blocks_of_removed_files_are_those_that_no_record_names_any_more(tmp_path: Path) -> None:
    """By hard links, equal files, empty ones and several sections: as all entries of all directories tell."""
    tools.require("genisoimage", "xorriso")
    tree, chance = tools.Tree(tmp_path / "tree"), random.Random(7)
    for number in range(60):
        tree.file(f"d{number % 12:02}/sub{number % 3}/file {number}", b"%d" % (number % 40) * chance.randrange(300))
    for number in range(12):
        tree.link(f"d{number:02}/linked", f"d{(number + 5) % 12:02}/sub{(number + 5) % 3}/file {(number + 5) % 12}")
        tree.file(f"d{number:02}/empty", b"")
    makers = {
        "genisoimage": ["genisoimage", "-quiet", "-R", "-J", "-cache-inodes"],
        "xorriso": ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "--hardlinks"],
    }
    for name, command in makers.items():
        iso = tmp_path / f"{name}.iso"
        run([*command, "-o", iso, tree.root])
        removed_something = 0
        for _ in range(25):
            with open_source(iso) as source:
                image = read_image(source)
                paths = [directory.path for directory in image.trees[0].index if directory.path]
                paths += [file.path for file in image.trees[0].files]
                edits = IsoEdits(removed=tuple(chance.sample(paths, chance.randrange(1, 5))))
                trees = read_merged_trees(image, source).trees
                changes = [(tree, apply_edits(tree, edits, image.place)) for tree in trees]
                freed = restructure._find_removed_data(image, changes)
                named = {record.lba for tree, _ in changes for entry in tree.entries() for record in entry.records}
                removed = {
                    entry.records[0].lba for _, each in changes for entry in each.removed_entries if entry.has_data
                }
                assert freed == removed - named
                removed_something += bool(freed)
        assert removed_something > 5


def test_a_directory_is_removed_without_making_values_of_all_files(
    many: Path, tmp_path: Path, made: list[bytes]
) -> None:
    with cosremaster.open(many) as image:
        image.remaster(tmp_path / "out.iso", Request(remove_iso=["/d03", "/d05/a name in small letters 45"]))
    assert set(made) <= {b"d03/", b"d05/", b"d07/"}  # what is removed, and a directory with a symlink


LINKED_MAKERS = {
    "genisoimage": ["genisoimage", "-quiet", "-R", "-J", "-cache-inodes"],
    "without Rock Ridge": ["genisoimage", "-quiet", "-J", "-cache-inodes"],
    "xorriso": ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "--hardlinks"],
}


def make_linked(folder: Path, name: str) -> Path:
    """An ISO with hard links, equal files, empty ones, and a boot image, by one of :data:`LINKED_MAKERS`."""
    tools.require("genisoimage", "xorriso")
    tree, chance = tools.Tree(folder / "tree"), random.Random(7)
    for number in range(60):
        tree.file(f"d{number % 12:02}/sub{number % 3}/file-{number}", b"%d" % (number % 40) * chance.randrange(1, 3000))
    for number in range(12):
        tree.link(f"d{number:02}/linked", f"d{(number + 5) % 12:02}/sub{(number + 5) % 3}/file-{(number + 5) % 12}")
        tree.file(f"d{number:02}/empty", b"")
    tree.link("d03/also-empty", "d04/empty")
    tree.file("boot/boot.img", b"boot" * 1024)
    boot = ["-b", "boot/boot.img", "-c", "boot/boot.cat", "-no-emul-boot", "-boot-load-size", "4"]
    run([*LINKED_MAKERS[name], *boot, "-o", folder / "linked.iso", tree.root])
    return folder / "linked.iso"


def choose_edits(image: IsoImage, chance: random.Random) -> IsoEdits:
    """Removals, and contents of other files; no boot file goes."""
    files = [file for file in image.files if not file.path.lower().startswith(b"boot/")]
    directories = [each.path for each in image.trees[0].index if each.path not in (b"", b"boot", b"BOOT")]
    removed = chance.sample([*directories, *(file.path for file in files)], chance.randrange(4))
    edits = IsoEdits(removed=tuple(removed))
    chosen = [file for file in chance.sample(files, chance.randrange(4)) if edits.new_path(file.path) is not None]
    sizes = [max(0, file.size + chance.choice([0, 1, -1, 5000])) for file in chosen]
    tables = [PieceTable([Literal(b"n" * size)]) for size in sizes]
    return IsoEdits(removed=tuple(removed), replaced={file.path: new for file, new in zip(chosen, tables, strict=True)})


@pytest.mark.parametrize("name", LINKED_MAKERS)
def test_files_that_stay_are_placed_and_held_as_each_alone_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan with runs of files that touch is that with each file; and what it would lose is noticed in both."""
    chance = random.Random(name)
    outcomes = {"joined": 0, "single": 0, "lost": 0, "refused": 0}
    joining, holding = encode._join_unmoved, encode._holds_kept
    joined: list[bool] = []

    def join_noticed(*arguments: Any) -> Any:
        spans = joining(*arguments)
        joined.append(spans is not None)
        return spans

    with open_source(make_linked(tmp_path, name)) as source:
        image = read_image(source)
        for _ in range(60):
            edits = choose_edits(image, chance)
            joined.clear()
            with monkeypatch.context() as patched:
                patched.setattr(encode, "_join_unmoved", join_noticed)
                first = plan_or_refuse(image, source, edits)
                patched.setattr(encode, "_join_unmoved", lambda *_: None)
                patched.setattr(IsoTree, "find_files", lambda tree, paths: (f for f in tree.files if f.path in paths))
                patched.setattr(IsoTree, "find_files_at", lambda tree, at: (f for f in tree.files if f.start in at))
                patched.setattr(IsoTree, "find_files_in", lambda tree, _: iter(tree.files))
                patched.setattr(encode, "_holds_kept", lambda *_: False)
                second = plan_or_refuse(image, source, edits)
            if isinstance(first, str) or isinstance(second, str):
                assert first == second
                outcomes["refused"] += 1
                continue
            assert first.table.pieces == second.table.pieces
            assert [(new.path, new.start, new.files) for new in first.replacements] == [
                (new.path, new.start, new.files) for new in second.replacements
            ]
            assert first.layout.moved_starts == second.layout.moved_starts
            assert (first.layout.tail, first.layout.data_ends) == (second.layout.tail, second.layout.data_ends)
            outcomes["joined" if joined[0] else "single"] += 1
            if not (edits.removed or edits.replaced):
                continue
            replaced = {record.offset for new in first.replacements for _, file in new.files for record in file.records}
            removed = find_removed_starts(image, edits)
            catalog = {image.catalog.lba} if image.catalog else set()
            kept = [
                record
                for tree in image.trees for file in tree.files if not (file.size and file.start in removed)
                for record in file.records
                if record.length and record.offset not in replaced and record.lba not in catalog
            ]  # fmt: skip
            assert holding(image, first.table, first.layout, replaced, removed)
            record = chance.choice(kept)
            at = lba_offset(first.layout.map_block(record.lba)) + chance.randrange(record.length)
            assert not holding(image, first.table.patched([(at, b"x")]), first.layout, replaced, removed)
            outcomes["lost"] += 1
    assert min(outcomes[what] for what in ("joined", "single", "lost")) > 5, outcomes


def plan_or_refuse(image: IsoImage, source: ByteSource, edits: IsoEdits) -> encode.ImagePlan | str:
    """The plan, or why there is none."""
    try:
        return plan_image(image, source, edits)
    except cosremaster.CosremasterError as error:
        return str(error)


def find_removed_starts(image: IsoImage, edits: IsoEdits) -> frozenset[Any]:
    """The first blocks of data that only removed files of the primary tree name, as all its files tell."""
    files = [file for file in image.files if file.size]
    kept = {file.start for file in files if edits.new_path(file.path) is not None}
    return frozenset(file.start for file in files) - kept


@pytest.mark.parametrize("name", LINKED_MAKERS)
def test_records_of_hard_links_change_as_all_files_of_a_tree_tell(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, changed = random.Random(name), 0
    with open_source(make_linked(tmp_path, name)) as source:
        image = read_image(source)
        for _ in range(80):
            edits = choose_edits(image, chance)
            plan = hard_links.plan_link_changes(image, source, (), edits)
            with monkeypatch.context() as patched:
                patched.setattr(IsoTree, "find_files_in", lambda tree, _: iter(tree.files))
                patched.setattr(
                    hard_links, "_list_sharing",
                    lambda tree, keys: (file for file in tree.files if hard_links._find_key(file) in keys),
                )  # fmt: skip
                assert hard_links.plan_link_changes(image, source, (), edits) == plan
            changed += bool(plan.patches)
    assert changed > 10 or name == "without Rock Ridge"


@pytest.mark.parametrize("name", LINKED_MAKERS)
def test_files_after_removals_and_renames_are_those_that_each_path_tells(name: str, tmp_path: Path) -> None:
    chance, stale = random.Random(name), 0
    with open_source(make_linked(tmp_path, name)) as source:
        image = read_image(source)
        paths = [file.path for file in image.files]
        directories = [each.path for each in image.trees[0].index if each.path]
        for _ in range(80):
            edits = choose_edits(image, chance)
            renamed = {path: path + b"x" for path in chance.sample(directories, chance.randrange(3))}
            edits = replace(edits, renamed={old: new for old, new in renamed.items() if old not in edits.removed})
            menu = b"".join(b"label %b\nkernel /%b\n" % (path[-3:], path) for path in chance.sample(paths, 9))
            new = Node(path=b"isolinux.cfg", kind=NodeKind.FILE, mode=0o644, content=BytesContent(menu))
            edits = replace(edits, added=(new,))
            edited = EditedFiles(image, edits)
            kept = {file.path: file for file in image.files if edits.new_path(file.path) is not None}
            assert dict(edited.files) == kept
            assert {path: edited.files.get(path) for path in paths} == {path: kept.get(path) for path in paths}
            few = EditedFiles(image, edits)
            for path in chance.sample(paths, 5):
                assert few.files.get(path) == kept.get(path) and (path in few.files) == (path in kept)
            assert all(edited.names_of(path) == tuple(edited._sharing[edited._content_key(path)]) for path in kept)
            in_text = {path for path in kept if b"file" in path.lower()}
            assert set(edited.text.find_containing(b"file")) == in_text
            gone = {path for path in paths if edits.new_path(path) != path and b"/" + path + b"\n" in menu}
            assert len(list(find_stale_names(image, edits))) == len(gone)
            stale += len(gone)
    assert stale > 40


class DictionaryNodes(RootedTree):
    """All nodes in a dictionary, which each change copies."""

    def __init__(self, nodes: Mapping[bytes, Node]) -> None:
        self.by_path = dict(nodes)

    @classmethod
    def of(
        cls, nodes: Mapping[bytes, Node], leaving: Collection[bytes], coming: Mapping[bytes, Node]
    ) -> DictionaryNodes:
        return cls({**{path: node for path, node in nodes.items() if path not in leaving}, **coming})

    def __getitem__(self, path: bytes) -> Node:
        return self.by_path[path]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.by_path)

    def __len__(self) -> int:
        return len(self.by_path)

    def read_root(self) -> Node:
        raise NotImplementedError


@pytest.mark.parametrize("name", LINKED_MAKERS)
def test_renames_do_what_they_do_to_a_dictionary_of_all_nodes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, outcomes = random.Random(name), {"written": 0, "refused": 0}
    iso = make_linked(tmp_path, "genisoimage" if name == "without Rock Ridge" else name)
    with cosremaster.open(iso) as image:
        paths = [f"/d{number:02}" for number in range(12)]
        paths += [f"/d{number:02}/sub{number % 3}" for number in range(12)] + [
            "/d05/linked",
            "/d06/empty",
            "/new",
            "/x/y",
        ]
        for number in range(25):
            renames = [
                f"{chance.choice(paths)}:{chance.choice(paths)}{chance.choice(['', '/', '/z'])}" for _ in range(3)
            ]
            request = Request(
                remove_iso=chance.sample(paths[:24], chance.randrange(3)), rename_iso=renames[: chance.randrange(1, 4)],
                add_iso=[InlineFile("/new", b"new\n")] if chance.random() < 0.3 else [], allow_missing=True,
            )  # fmt: skip
            first = remaster_or_refuse(image, tmp_path / f"{number}-first.iso", request)
            with monkeypatch.context() as patched:
                patched.setattr(iso_tree, "_ChangedNodes", DictionaryNodes)
                second = remaster_or_refuse(image, tmp_path / f"{number}-second.iso", request)
            assert first == second
            outcomes["refused" if isinstance(first, str) else "written"] += 1
    assert min(outcomes.values()) > 3, outcomes


@pytest.mark.parametrize(
    ("renames", "expected"),
    [
        (["/d03:/x", "/x:/y"], {b"/y": 5}),
        (["/d03:/x", "/d04:/d03", "/x:/d04"], {b"/d03": 5, b"/d04": 5}),
        (["/d03:/x", "/x:/d03"], {b"/d03": 5}),
        (["/d03:/x", "/x:/y", "/d04:/x"], {b"/x": 5, b"/y": 5}),
        (["/d03:/d04/", "/d04/d03:/x", "/d04:/x/"], {b"/x": 5, b"/x/d04": 5}),
    ],
)
def test_what_was_renamed_is_renamed_again(
    many: Path, tmp_path: Path, renames: list[str], expected: dict[bytes, int]
) -> None:
    with cosremaster.open(many) as image:
        image.remaster(tmp_path / "out.iso", Request(rename_iso=renames))
    listed = run(["isoinfo", "-R", "-f", "-i", tmp_path / "out.iso"]).split(b"\n")
    files = [path.rpartition(b"/")[0] for path in listed if b"a name in small letters" in path]
    gone = {rename.partition(":")[0].encode() for rename in renames} - {*expected}
    for path in {*expected, *gone, b"/x", b"/y"}:
        assert (files.count(path), path in listed) == (expected.get(path, 0), path in expected), path
    assert len(files) == 200


def remaster_or_refuse(image: cosremaster.Image, target: Path, request: Request) -> bytes | str:
    """The new image, or why there is none."""
    try:
        image.remaster(target, request)
    except cosremaster.CosremasterError as error:
        return str(error)
    data = target.read_bytes()
    target.unlink()
    return data


def test_a_file_is_replaced_without_making_values_of_all_files(many: Path, tmp_path: Path, made: list[bytes]) -> None:
    with cosremaster.open(many) as image:
        new = InlineFile("/d03/a name in small letters 43", b"other")
        image.remaster(tmp_path / "out.iso", Request(add_iso=[new]))
    assert set(made) <= {b"d03/", b"d07/"}  # that of the file, and that with a symlink
    assert b"other" in (tmp_path / "out.iso").read_bytes()


def test_a_directory_is_renamed_without_reading_all_nodes(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosremaster.iso.lazy_nodes.read_nodes", None)
    with cosremaster.open(many) as image:
        image.remaster(tmp_path / "out.iso", Request(rename_iso=["/d03:/d05/", "/d06:/other"]))
    listed = run(["isoinfo", "-R", "-f", "-i", tmp_path / "out.iso"]).split(b"\n")
    assert len([path for path in listed if path.startswith((b"/d05/d03/a name", b"/other/a name"))]) == 10
