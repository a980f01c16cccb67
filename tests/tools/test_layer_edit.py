"""Edits turned into archives, judged by the programs that unpack them; and the rules those follow."""

import gzip
import itertools
import os
import random
import re
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cosremaster.demo.image import TIME, DemoEntry, build_archive, directory, outer_items, regular, root_items, symlink
from cosremaster.errors import OverlayError, Place, ProofError, SizeError
from cosremaster.io.pieces import Literal, PieceTable, Range
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.rules import CheckedEntries, FinalEntry
from cosremaster.layers.model import Layer, build_layers, index_file
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.merge import merge
from cosremaster.overlay.patterns import Pattern
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind
from tests.fixtures.tools import require, run
from tests.support.layers import RESOURCES
from tests.support.model import by_busybox, by_gnu, described

BOTH = ("busybox", "cpio")


def index(archive_bytes: bytes) -> Layer:
    """The archive as the nested layer of a debirf image, packed by gzip so that going back costs."""
    outer = build_archive(outer_items(b"rootfs.cgz", gzip.compress(archive_bytes, 1)))
    table = PieceTable([Literal(gzip.compress(outer, 1))])
    place = Place(("live.cgz",))
    indexed = index_file(b"live.cgz", table, place)
    _, nested = build_layers(indexed, table, place)
    return nested


def new(path: bytes, data: bytes = b"new bytes", mode: int = 0o644, link: object = None) -> Node:
    return Node(path=path, kind=NodeKind.FILE, mode=mode, mtime=TIME + 1, content=BytesContent(data), link=link)


def edited(archive_bytes: bytes, nodes: Sequence[Node] = (), remove: Sequence[bytes] = ()) -> bytes:
    """The archive after these nodes were laid over it, through the index, the rules and the edit."""
    layer = index(archive_bytes)
    addition = Addition(tuple(sorted(nodes, key=lambda node: node.path)), b"", False, False, "overlay")
    edits = merge(layer.tree(), [addition], [Pattern(path) for path in remove], layer.place)
    table = layer.edit(edits, RESOURCES)
    plain = b"".join(table.chunks())
    assert len(plain) == table.length
    return plain


def spans(archive_bytes: bytes) -> dict[bytes, bytes]:
    """Every entry's bytes (header, name, data, padding) by name, in order, the trailer's last."""
    found, at = {}, 0
    while b"TRAILER!!!" not in found:
        size, namesize = (int(archive_bytes[at + start : at + start + 8], 16) for start in (54, 94))
        end = at + 110 + namesize + -(110 + namesize) % 4
        end += size + -size % 4
        name = archive_bytes[at + 110 : at + 109 + namesize]
        assert name not in found
        found[name], at = archive_bytes[at:end], end
    return found


def style(items: Iterable[DemoEntry], prefix: bytes) -> list[DemoEntry]:
    return [
        DemoEntry(**{**{n: getattr(item, n) for n in item.__struct_fields__}, "path": prefix + item.path})
        for item in items
    ]


NODES = (
    new(b"bin/site", b"#!/bin/sh\n", 0o755),
    new(b"etc/hostname", b"headend\n"),
    new(b"opt/caf\xe9/data", bytes(range(256)) * 9),
    Node(path=b"etc/link", kind=NodeKind.SYMLINK, mode=0o777, target=b"../opt", mtime=TIME + 1),
    new(b"srv/one", b"linked", 0o600, link="pair"),
    new(b"srv/two", b"linked", 0o600, link="pair"),
)


@pytest.mark.parametrize("magic", [cpio.NEWC, cpio.CRC])
@pytest.mark.parametrize("prefix", [b"", b"./", b"/"])
def test_what_stays_keeps_its_bytes_and_order_and_what_is_new_follows(prefix: bytes, magic: bytes) -> None:
    before = build_archive([*([directory(b".")] if prefix == b"./" else []), *style(root_items(), prefix)], magic)
    after = edited(before, NODES, [b"var/owned"])
    old, now = spans(before), spans(after)
    trailer = old.pop(b"TRAILER!!!")
    kept = [name for name in old if name not in (prefix + b"etc/hostname", prefix + b"var/owned")]
    fresh = (b"etc/hostname", b"etc/link", b"opt", b"opt/caf\xe9", b"opt/caf\xe9/data", b"srv", b"srv/one", b"srv/two")
    assert list(now) == [*kept, *(prefix + name for name in (*fresh, b"usr/bin/site")), b"TRAILER!!!"]
    assert all(now[name] == old[name] for name in kept)
    assert now[b"TRAILER!!!"] == trailer
    assert len(after) % 512 == 0 and not after.endswith(bytes(512 + len(trailer)))
    assert {data[:6] for data in now.values()} == {magic}


@pytest.mark.parametrize("tail", [0, 4, 1000])
def test_zeros_behind_the_trailer_are_kept(tail: int) -> None:
    bare = build_archive(root_items()).rstrip(b"\0") + bytes(4)
    before = bare + bytes(tail)
    assert len(before) % 512
    after = edited(before, NODES)
    assert after == after.rstrip(b"\0") + bytes(4 + tail)


def listing(archive_bytes: bytes) -> dict[str, str]:
    """What GNU cpio says of each entry, by name."""
    said = run(["cpio", "-itvn", "--quiet"], stdin=archive_bytes).decode("latin-1").splitlines()
    return {line.split(" -> ")[0].rpartition(" ")[2]: re.sub(" +", " ", line) for line in said}


def test_gnu_cpio_lists_what_is_new_as_the_rules_say_and_the_rest_as_before() -> None:
    """Devices, owners, set-user-ID and times, for which unpacking would need root."""
    require("cpio")
    before = build_archive(root_items())
    old, now = listing(before), listing(edited(before, NODES))
    assert {name: line for name, line in now.items() if name in old and name != "etc/hostname"} == {
        name: line for name, line in old.items() if name != "etc/hostname"
    }
    day = "Nov 14 2023"
    assert [now[name] for name in now if name not in old or name == "etc/hostname"] == [
        f"-rw-r--r-- 1 0 0 8 {day} etc/hostname",
        f"lrwxrwxrwx 1 0 0 6 {day} etc/link -> ../opt",
        f"drwxr-xr-x 2 0 0 0 {day} opt",
        f"drwxr-xr-x 2 0 0 0 {day} opt/caf\xe9",
        f"-rw-r--r-- 1 0 0 2304 {day} opt/caf\xe9/data",
        f"drwxr-xr-x 2 0 0 0 {day} srv",
        f"-rw------- 2 0 0 0 {day} srv/one",
        f"-rw------- 2 0 0 6 {day} srv/two",
        f"-rwxr-xr-x 1 0 0 10 {day} usr/bin/site",
    ]
    assert "crw------- 1 0 0 5, 1" in now["dev/console"] and now["usr/bin/passwd"].startswith("-rwsr-xr-x 1 0 0")
    assert "1 1000 65534" in now["var/owned"]


@pytest.mark.parametrize("prefix", [b"", b"./", b"/"])
def test_both_unpackers_make_the_old_tree_plus_the_new(prefix: bytes, tmp_path: Path) -> None:
    require(*BOTH)
    items = [item for item in root_items() if item.mode >> 12 != NodeKind.CHAR >> 12]
    items.append(DemoEntry(b"var/pipe", NodeKind.FIFO | 0o600))
    before = build_archive(style(items, prefix))
    after = edited(before, NODES, [b"var/owned", b"root"])
    old = described(by_busybox(before, tmp_path / "old"))
    one, two = described(by_busybox(after, tmp_path / "one")), described(by_gnu(after, tmp_path / "two"))
    assert one == two
    root = (0, 0) if os.geteuid() == 0 else None
    want = {name: fact for name, fact in old.items() if name not in (b"var/owned", b"root")}
    for name in (b"opt", b"opt/caf\xe9", b"srv"):
        want[name] = ("d", 0o755, b"", root, (name,))
    pair = (b"srv/one", b"srv/two")
    for node in NODES:
        name = node.path.replace(b"bin/site", b"usr/bin/site")
        kind, mode = ("l", 0) if node.target else ("-", node.mode)
        data = node.content.head(9999) if node.content else node.target
        want[name] = (kind, mode, data, root, pair if node.link else (name,))
    assert one == want


DATA = b"shared bytes " * 30


def group(prefix: bytes, ino: int, carriers: Iterable[int], data: bytes = DATA) -> list[DemoEntry]:
    """Three names of one hard-linked file; `carriers` say which of them hold the data."""
    names, mode = (b"a", b"b", b"c"), NodeKind.FILE | 0o644
    return [
        DemoEntry(prefix + name, mode, data if number in carriers else b"", nlink=3, ino=ino)
        for number, name in enumerate(names)
    ]


def links(folder: Path) -> dict[int, set[str]]:
    """The names in a folder by inode."""
    found: dict[int, set[str]] = {}
    for path in sorted(folder.iterdir()):
        found.setdefault(path.stat().st_ino, set()).add(path.name)
    return found


@pytest.mark.parametrize("victim", range(3))
@pytest.mark.parametrize("replaced", [True, False], ids=["replace", "remove"])
@pytest.mark.parametrize("carrier", range(3))
@pytest.mark.parametrize("magic", [cpio.NEWC, cpio.CRC])
def test_changing_one_name_of_a_group_changes_only_that(
    carrier: int, replaced: bool, victim: int, magic: bytes, tmp_path: Path
) -> None:
    require(*BOTH)
    before = build_archive([regular(b"0", b"first"), *group(b"", 5, [carrier]), regular(b"z", b"last")], magic)
    name = "abc"[victim]
    others = set("abc") - {name}
    after = edited(before, [new(name.encode())], ()) if replaced else edited(before, (), [name.encode()])
    by_busybox(after, tmp_path / "one")
    by_gnu(after, tmp_path / "two")
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert sorted(map(sorted, links(folder).values())) == sorted(
            [["0"], ["z"], sorted(others), *([[name]] if replaced else [])]
        )
        assert all((folder / other).read_bytes() == DATA for other in others)
        assert (folder / "0").read_bytes() + (folder / "z").read_bytes() == b"firstlast"
        if replaced:
            assert (folder / name).read_bytes() == b"new bytes"
    kept = {one: int(data[54:62], 16) for one, data in spans(after).items() if one.decode() in others}
    heir = max(others) if name == "abc"[carrier] else "abc"[carrier]
    assert kept == {one.encode(): len(DATA) if one == heir else 0 for one in others}, (
        "the last that stays gets the data"
    )
    if replaced:
        ours = [line for line in listing(after).values() if line.endswith(f" {name}")]
        assert [line.split()[1] for line in ours] == ["1"]
    if magic == cpio.CRC:
        verified(after)


def verified(archive_bytes: bytes) -> None:
    """GNU cpio finds every crc right, and would have found one wrong."""
    run(["cpio", "-i", "--only-verify-crc", "--quiet"], stdin=archive_bytes)
    said = run(["sh", "-c", "cpio -i --only-verify-crc --quiet 2>&1"], stdin=archive_bytes)
    assert b"checksum error" not in said
    at = archive_bytes.rindex(b"shared")
    broken = archive_bytes[:at] + b"S" + archive_bytes[at + 1 :]
    said = run(["sh", "-c", "cpio -i --only-verify-crc --quiet 2>&1; true"], stdin=broken)
    assert b"checksum error" in said


@pytest.mark.parametrize("gone", [gone for n in (1, 2, 3) for gone in itertools.combinations("abc", n)])
@pytest.mark.parametrize("carriers", [(0, 1, 2), (0, 1), (1,), ()])
def test_any_part_of_a_group_may_leave(carriers: tuple[int, ...], gone: tuple[str, ...], tmp_path: Path) -> None:
    """Data on all members: GNU cpio links them, busybox makes separate files; none at all: an empty file."""
    require(*BOTH)
    after = edited(
        build_archive([*group(b"", 5, carriers), regular(b"z", b"last")]), (), [name.encode() for name in gone]
    )
    by_busybox(after, tmp_path / "one")
    by_gnu(after, tmp_path / "two")
    left = set("abc") - set(gone)
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert {path.name for path in folder.iterdir()} == {"z", *left}
        assert {(folder / name).read_bytes() for name in left} == ({DATA if carriers else b""} if left else set())
    if len(carriers) < 2:
        assert links(tmp_path / "one").keys() and left in [*links(tmp_path / "one").values(), set()]
    assert left in [*links(tmp_path / "two").values(), set()]


@pytest.mark.parametrize("gone", list(itertools.product((b"xa", b"xb", b"xc"), (b"ya", b"yb", b"yc"))))
def test_two_groups_at_once_with_interleaved_names(gone: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Both hand their data on, one behind the other: what is decoded later in the layer is asked for first."""
    require(*BOTH)
    big = [random.Random(n).randbytes(300_000) for n in (1, 2)]
    x, y = group(b"x", 5, [0], big[0]), group(b"y", 6, [1], big[1])
    order = [x[0], y[0], y[1], x[1], regular(b"m", b"between" * 50_000), y[2], x[2]]
    after = edited(build_archive(order), [new(gone[0])], [gone[1]])
    by_busybox(after, tmp_path / "one")
    by_gnu(after, tmp_path / "two")
    for folder in (tmp_path / "one", tmp_path / "two"):
        lefts = [{f"{n}{c}" for c in "abc"} - {gone[i].decode()} for i, n in enumerate("xy")]
        for left, data in zip(lefts, big, strict=True):
            assert left in links(folder).values()
            assert all((folder / name).read_bytes() == data for name in left)
        assert (folder / "m").read_bytes() == b"between" * 50_000
        assert (folder / gone[0].decode()).read_bytes() == b"new bytes" and not (folder / gone[1].decode()).exists()


def test_inode_numbers_of_new_entries_are_unused_whatever_the_device(tmp_path: Path) -> None:
    """Busybox would link a new empty-looking name to whatever has its number."""
    require(*BOTH)
    top = 0xFFFFFFFF
    base = [
        DemoEntry(b"a", 0o100644, b"a", ino=1),
        DemoEntry(b"b", 0o100644, b"b", nlink=2, ino=top, dev=3),
        directory(b"d"),
    ]
    base += [DemoEntry(b"c", 0o100644, b"", nlink=2, ino=top, dev=3), DemoEntry(b"e", 0o100644, b"e", ino=3, dev=9)]
    pair = [new(name, b"pair", link="pair") for name in (b"n1", b"n2", b"n3")]
    after = edited(
        build_archive(base), [*pair, new(b"n4"), Node(path=b"n5", kind=NodeKind.DIRECTORY, mode=0o755)], [b"a"]
    )
    inodes = {name: int(data[6:14], 16) for name, data in spans(after).items() if name != b"TRAILER!!!"}
    ours = {inodes.pop(name) for name in (b"n1", b"n2", b"n3", b"n4", b"n5")}
    assert len(ours) == 3 and not ours & {1, *inodes.values()} and 0 not in ours
    assert described(by_busybox(after, tmp_path / "one")) == described(by_gnu(after, tmp_path / "two"))
    assert {"n1", "n2", "n3"} in links(tmp_path / "one").values() and {"b", "c"} in links(tmp_path / "one").values()


@pytest.mark.parametrize("data", [b"", b"x", b"much longer than before" * 1000])
@pytest.mark.parametrize("magic", [cpio.NEWC, cpio.CRC])
def test_exchanging_a_member_changes_only_its_data_and_size(data: bytes, magic: bytes, tmp_path: Path) -> None:
    require(*BOTH)
    before = build_archive([directory(b"d"), regular(b"d/held", DATA, 0o600), regular(b"z", DATA)], magic)
    layer = index(before)
    entry = layer.index.container_entry(list(layer.paths).index(b"d/held"))
    table = layer.replace(entry, PieceTable([Literal(data)]))
    after = b"".join(table.chunks())
    assert len(after) == table.length and len(after) % 512 == 0
    old, now = spans(before), spans(after)
    assert list(now) == list(old) and all(now[name] == old[name] for name in old if name != b"d/held")
    assert now[b"d/held"][:54] == old[b"d/held"][:54] and now[b"d/held"][62:102] == old[b"d/held"][62:102]
    for unpack, name in ((by_busybox, "one"), (by_gnu, "two")):
        assert unpack(after, tmp_path / name)[b"d/held"].data == data
    if magic == cpio.CRC:
        verified(after)
    with pytest.raises(SizeError, match=r"rootfs\.cgz » d/held: 4,294,967,296 bytes do not fit"):
        layer.replace(entry, PieceTable([Range(layer.decoded, 0, 1 << 32)]))


@pytest.mark.parametrize("carrier", range(3))
@pytest.mark.parametrize("name", [b"a", b"b", b"c"])
def test_a_name_of_a_group_is_compared_by_the_data_that_another_carries(carrier: int, name: bytes) -> None:
    before = build_archive([*group(b"", 5, [carrier]), regular(b"z", b"last")])
    assert edited(before, [new(name, DATA)]) == before
    assert edited(before, [new(name, b"")]) != before


def test_decoded_bytes_can_be_had_again_and_out_of_order() -> None:
    plain = build_archive([regular(b"a", random.Random(1).randbytes(5000))])
    decoded = index(plain).decoded
    for offset, length in ((10, 5), (14, 3), (16, 1), (0, 200), (4000, 9), (3999, 1), (200, 10), (0, len(plain))):
        assert b"".join(decoded.chunks(offset, length)) == plain[offset : offset + length]


def test_a_file_called_trailer_is_refused() -> None:
    """At the root it would end the archive; below a folder it is a file like any other."""
    with pytest.raises((OverlayError, ProofError), match="TRAILER!!!"):
        edited(build_archive(root_items()), [new(b"TRAILER!!!")])
    assert b"etc/TRAILER!!!" in spans(edited(build_archive(root_items()), [new(b"etc/TRAILER!!!")]))


def finals(items: Iterable[DemoEntry], new: bool = False) -> list[FinalEntry]:
    """The same entries that `archive` writes."""
    heads = [(item, cpio.Header(build_archive([item])[:110])) for item in items]
    return [
        FinalEntry(item.path, head.fields, item.data if item.mode >> 12 == 0o12 else b"", new) for item, head in heads
    ]


def rules(items: Iterable[DemoEntry], new: bool = False) -> set[str]:
    return {problem.rule for problem in CheckedEntries(finals(items, new)).broken_rules}


def faults(items: Sequence[DemoEntry]) -> list[str]:
    """What busybox does not make of these entries."""
    with TemporaryDirectory() as folder:
        unpack = ["busybox", "cpio", "-i"]
        done = subprocess.run(unpack, cwd=folder, input=build_archive(items), capture_output=True, check=False)
        here = os.open(folder, os.O_RDONLY)
        try:
            found = [fault for item in items for fault in _fault(item, items, here)]
        finally:
            os.close(here)
    return [done.stderr.decode(), *found] if done.returncode else found


def _fault(item: DemoEntry, items: Sequence[DemoEntry], here: int) -> Iterable[str]:
    try:
        status = os.lstat(item.path, dir_fd=here)
    except OSError as error:
        yield f"{item.path!r}: {error.strerror}"
        return
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(item.mode):
        yield f"{item.path!r} has another type"
    elif item.mode >> 12 == 0o12 and os.readlink(item.path, dir_fd=here) != item.data:
        yield f"{item.path!r} leads elsewhere"
    elif item.mode >> 12 == 0o10:
        mates = [one for one in items if (one.nlink, one.ino, one.dev) == (2, item.ino, item.dev)]
        want = item.data or b"".join({one.data for one in mates})
        with os.fdopen(os.open(item.path, os.O_RDONLY, dir_fd=here), "rb") as file:
            if file.read() != want:
                yield f"{item.path!r} holds something else"


def linked(path: bytes, data: bytes = b"", ino: int = 5, dev: int = 0) -> DemoEntry:
    return DemoEntry(path, NodeKind.FILE | 0o644, data, nlink=2, ino=ino, dev=dev)


LAST = regular(b"zz", b"last")
DEEP = [directory(b"/".join([b"p" * 200] * count)) for count in range(1, 21)]


@pytest.mark.parametrize(
    ("rule", "sound", "broken"),
    [
        ("ends the archive", [directory(b"d"), regular(b"d/TRAILER!!!", b"")], [regular(b"TRAILER!!!", b"")]),
        (
            "longer than 4095 bytes",
            [*DEEP, regular(DEEP[-1].path + b"/" + b"x" * 75, b"")],
            [*DEEP, regular(DEEP[-1].path + b"/" + b"x" * 76, b"")],
        ),
        (
            "of this name stands before",
            [regular(b"a", b"1"), regular(b"b", b"2")],
            [regular(b"a", b"1"), regular(b"a", b"2")],
        ),
        (
            "parent directory",
            [directory(b"d"), regular(b"d/x", b"")],
            [regular(b"d/x", b""), directory(b"d")],
        ),
        ("parent directory", [directory(b"d"), directory(b"d/x")], [regular(b"d", b""), directory(b"d/x")]),
        ("parent directory", [directory(b"d"), symlink(b"d/x", b"y")], [symlink(b"d/x", b"y"), directory(b"d")]),
        (
            "made only at the end",
            [directory(b"d"), symlink(b"l", b"d"), regular(b"l/x", b"")],
            [directory(b"d"), symlink(b"l", b"/d"), regular(b"l/x", b"")],
        ),
        (
            "made only at the end",
            [directory(b"d"), symlink(b"l", b"./d"), directory(b"l/x"), regular(b"l/x/y", b"")],
            [directory(b"d"), symlink(b"l", b"d/../d"), directory(b"l/x"), regular(b"l/x/y", b"")],
        ),
        (
            "two hard-linked files on different devices",
            [linked(b"a", b"1", 5, 0), linked(b"b", b"", 5, 0), linked(b"c", b"2", 6, 1), linked(b"e", b"", 6, 1)],
            [linked(b"a", b"1", 5, 0), linked(b"b", b"", 5, 0), linked(b"c", b"2", 5, 1), linked(b"e", b"", 5, 1)],
        ),
        (
            "data of different sizes",
            [linked(b"a", b"1"), linked(b"b", b"1"), linked(b"c")],
            [linked(b"a", b"1"), linked(b"b", b"22"), linked(b"c")],
        ),
    ],
)
def test_each_rule_is_reported_and_is_busyboxs_own(rule: str, sound: list[DemoEntry], broken: list[DemoEntry]) -> None:
    require("busybox")
    assert not rules([*sound, LAST]) and not faults([*sound, LAST])
    assert any(rule in said for said in rules([*broken, LAST])) and len(rules([*broken, LAST])) == 1
    assert faults([*broken, LAST]), "busybox does not mind"


STOPPERS = {
    "symlink to nothing": [symlink(b"l", b"none"), regular(b"l/x", b"")],
    "symlink to a file": [regular(b"f", b""), symlink(b"l", b"f"), regular(b"l/x", b"")],
    "symlink to itself": [symlink(b"l", b"l"), regular(b"l/x", b"")],
    "symlink to a late one": [directory(b"d"), symlink(b"l", b"m"), symlink(b"m", b"/d"), regular(b"l/x", b"")],
    "symlink with two dots": [directory(b"x..y"), symlink(b"l", b"x..y"), regular(b"l/x", b"")],
    "one file under two names": [directory(b"d"), symlink(b"l", b"d"), regular(b"d/x", b"1"), regular(b"l/x", b"2")],
    "256 bytes between slashes": [regular(b"x" * 256, b"")],
    "symlink without text": [symlink(b"l", b"")],
    "symlink of 4096 bytes": [symlink(b"l", b"x" * 4096)],
}


@pytest.mark.parametrize("name", STOPPERS)
def test_busybox_stops_or_loses_something(name: str) -> None:
    """So that the next test is about our rules alone."""
    require("busybox")
    assert faults([*STOPPERS[name], LAST])


@pytest.mark.parametrize("name", STOPPERS)
def test_what_busybox_stops_at_is_reported(name: str) -> None:
    assert rules([*STOPPERS[name], LAST])


def test_what_could_not_be_unpacked_is_refused() -> None:
    with pytest.raises(OverlayError):
        edited(build_archive([directory(b"d"), LAST]), [new(b"d/" + b"x" * 256)])


@pytest.mark.parametrize(
    ("nodes", "remove", "names"),
    [
        ([], [b"d"], [b"l"]),
        ([new(b"l/x")], [], [b"d", b"l", b"d/x"]),
        ([new(b"d/x")], [], [b"d", b"l", b"d/x"]),
        ([new(b"d/y")], [b"l/x"], [b"d", b"l", b"d/y"]),
        ([new(b"d/y")], [], [b"d", b"l", b"l/x", b"d/y"]),
    ],
)
def test_a_file_under_the_name_of_a_symlink(nodes: list[Node], remove: list[bytes], names: list[bytes]) -> None:
    """It is one of the directory to which the symlink leads, and goes with it or alone."""
    items = [directory(b"d"), symlink(b"l", b"d"), regular(b"l/x", b"old")]
    after = spans(edited(build_archive([*items, LAST]), nodes, remove))
    assert after.keys() == {*names, LAST.path, b"TRAILER!!!"}


def test_a_new_entry_must_not_have_an_inode_number_of_another() -> None:
    """Whatever device that one is on, for busybox goes by the number alone."""
    old = [linked(b"a", b"old", 5, 3), linked(b"b", b"", 5, 3)]
    for ours in (linked(b"c", b"", 5), regular(b"c", b"")):
        entries = [*finals(old), *finals([DemoEntry(ours.path, ours.mode, nlink=ours.nlink, ino=5)], new=True)]
        assert {one.rule for one in CheckedEntries(entries).broken_rules} >= {"another entry has its inode number"}
    pair = finals([linked(b"c", b"", 6), linked(b"d", b"new", 6)], new=True)
    assert not CheckedEntries([*finals(old), *pair]).broken_rules
    same = finals([regular(b"a", b"1"), DemoEntry(b"b", NodeKind.FILE | 0o644, ino=1001)])
    assert not CheckedEntries(same).broken_rules, "ours alone count"


TARGETS = (b"a", b"b", b"a/x", b"../a", b"/a", b"x..y", b".", b"none", b"a/../b", b"./b", b"l", b"m", b"x")
CONTENT = st.one_of(
    st.just(directory),
    st.just(directory),
    st.builds(lambda data: lambda path: regular(path, data), st.sampled_from([b"", b"data"])),
    st.builds(lambda target: lambda path: symlink(path, target), st.sampled_from(TARGETS)),
    st.builds(
        lambda data, ino, dev: lambda path: linked(path, data, ino, dev),
        *(st.sampled_from(values) for values in ([b"", b"", b"1", b"22"], [5, 6], [0, 0, 1])),
    ),
)


@st.composite
def lists(draw: st.DrawFn) -> list[DemoEntry]:
    """Entries in the order of their paths, of which some may then change places; mostly below directories."""
    names = draw(st.sets(st.sampled_from([b"a/x", b"a/y", b"a/x/y", b"b/x", b"b/x/y", b"c"]), min_size=2, max_size=5))
    parents = {name[:end] for name in names for end in (1, 3) if len(name) > end}
    makers = {path: directory if path in parents else draw(CONTENT) for path in names | parents}
    if parents and draw(st.integers(0, 4)) == 0:
        makers[draw(st.sampled_from(sorted(parents)))] = draw(CONTENT)
    return _shuffled(draw, [makers[path](path) for path in sorted(makers)])


@st.composite
def lists_with_links(draw: st.DrawFn) -> list[DemoEntry]:
    """Directories, symlinks that may lead to them, and entries below these."""
    fixed = [directory(b"a"), directory(b"a/x"), directory(b"b"), directory(b"x..y")]
    links = [symlink(path, draw(st.sampled_from([b"a", b"b", b"./a/x", *TARGETS]))) for path in (b"l", b"m", b"a/n")]
    below = sorted(
        draw(st.sets(st.sampled_from([b"l/f", b"l/x/g", b"m/f", b"m/h/i", b"m/h", b"l/m"]), min_size=1, max_size=3))
    )
    return _shuffled(draw, [*fixed, *draw(st.permutations(links)), *(draw(CONTENT)(path) for path in below)])


def _shuffled(draw: st.DrawFn, items: list[DemoEntry]) -> list[DemoEntry]:
    if draw(st.integers(0, 2)) == 0:
        items.insert(draw(st.integers(0, len(items) - 1)), items.pop(draw(st.integers(0, len(items) - 1))))
    return items


@settings(max_examples=250, deadline=None)
@given(lists())
def test_busybox_makes_everything_of_a_list_that_is_called_sound(items: list[DemoEntry]) -> None:
    require("busybox")
    links = [item.path + b"/" for item in items if item.mode >> 12 == 0o12]
    assume(not any(item.path.startswith(link) for item in items for link in links))
    assume(not rules(items))
    assert not faults([*items, LAST])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(lists_with_links())
def test_busybox_makes_everything_below_symlinks_of_a_list_that_is_called_sound(items: list[DemoEntry]) -> None:
    require("busybox")
    assume(not rules(items))
    assert not faults([*items, LAST])
