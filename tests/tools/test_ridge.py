"""Rock Ridge fields that we write, as our own reader and xorriso, libarchive and isoinfo take them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.errors import UnsupportedError
from cosremaster.io.source import open_source
from cosremaster.iso.ecma119.dates import pack_long_date, pack_short_date, parse_long_date, parse_short_date
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import plan_image
from cosremaster.iso.nodes import read_nodes
from cosremaster.iso.read import read_image
from cosremaster.iso.rockridge.read import read_attributes, read_rock_ridge
from cosremaster.iso.rockridge.write import ContinuationAreas, RockRidgeProfile
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import BLOCK, Lba
from tests.fixtures import families, tools
from tests.fixtures.tools import run
from tests.support import judges

FIRST = Lba(5)
PART = st.one_of(
    st.sampled_from([b".", b"..", b"...", b"a", b"x" * 255, b"y" * 248, b"z" * 249]),
    st.binary(min_size=1, max_size=255).map(lambda part: part.replace(b"/", b"_").replace(b"\0", b"_")),
)
TARGETS = st.tuples(st.booleans(), st.lists(PART, min_size=1, max_size=60)).map(
    lambda drawn: (b"/" * drawn[0] + b"/".join(drawn[1]))[:4095].rstrip(b"/") or b"/"
)
DIALECTS = st.builds(
    RockRidgeProfile, st.sampled_from([0, 0, 14]), st.sampled_from([36, 44]),
    st.sampled_from([0x02, 0x0E, 0x8E, 0x7F, 0x82]), st.booleans(),
)  # fmt: skip
NAMES = st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
TIMES = st.integers(0, 4102444800)


def laid(
    dialect: RockRidgeProfile, node: Node, name: bytes, used: int, identifier: bytes
) -> tuple[bytes, ContinuationAreas]:
    """A record, and what continues it in an area of which ``used`` bytes are taken."""
    area = ContinuationAreas(FIRST)
    area.data += bytes(used)
    told = dialect.with_name(dialect.encode_node(node, 1, 77), name)
    head = bytearray(33) + identifier + bytes(1 - len(identifier) % 2) + bytes(dialect.skip)
    head[32] = len(identifier)
    raw = head + area.split_fields(told, 254 - len(head))
    raw[0] = len(raw)
    return bytes(raw), area


@settings(max_examples=150, deadline=None)
@given(
    DIALECTS,
    NAMES,
    TARGETS,
    TIMES,
    st.sampled_from(list(NodeKind)),
    st.integers(0, 4095),
    st.integers(1, 193),
    st.data(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, dialect: RockRidgeProfile, name: bytes, target: bytes, when: int,
    kind: NodeKind, used: int, length: int, data: st.DataObject,
) -> None:  # fmt: skip
    uid, gid, mode = (data.draw(st.integers(0, top)) for top in (2**32 - 1, 2**32 - 1, 0o7777))
    device = (data.draw(st.integers(1, 2**12 - 1)), data.draw(st.integers(0, 2**20 - 1)))
    node = Node(path=name, kind=kind, mode=mode, uid=uid, gid=gid, mtime=when, rdev=device,
                target=target if kind is NodeKind.SYMLINK else b"")  # fmt: skip
    length = min(length, 193 - dialect.skip)
    raw, area = laid(dialect, node, name, used, b"I" * length)
    path = tmp_path_factory.getbasetemp() / "area"
    path.write_bytes(bytes(FIRST * BLOCK) + area.data + bytes(-len(area.data) % BLOCK))
    assert len(raw) <= 254
    areas_stay_inside_blocks(raw, dialect, area)
    with open_source(path) as source:
        names = read_rock_ridge(source, raw, 0, dialect.skip, Lba(0))
        said = read_attributes(source, raw, 0, dialect.skip, Lba(0))
    assert names.name == name
    assert (said.mode, said.uid, said.gid, said.links) == (kind | mode, uid, gid, 1)
    assert said.mtime == when and said.serial == (77 if dialect.px_size == 44 else 0)
    assert said.target == (single_slashes(target) if kind is NodeKind.SYMLINK else None)
    assert said.rdev == (device if kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0))


def single_slashes(target: bytes) -> bytes:
    return (b"/" if target.startswith(b"/") else b"") + b"/".join(part for part in target.split(b"/") if part)


def areas_stay_inside_blocks(raw: bytes, dialect: RockRidgeProfile, area: ContinuationAreas) -> None:
    """Follows every CE by its own reading of SUSP 5.1."""
    start = 33 + raw[32] + (1 - raw[32] % 2) + dialect.skip
    fields, seen = raw[start:], 0
    while fields:
        at, following = 0, b""
        while at + 4 <= len(fields):
            sign, size = fields[at : at + 2], fields[at + 2]
            assert size >= 4 and at + size <= len(fields), "each field is whole"
            if sign == b"CE":
                block, offset, length = (int.from_bytes(fields[at + i : at + i + 4], "little") for i in (4, 12, 20))
                assert offset + length <= BLOCK
                begin = (block - FIRST) * BLOCK + offset
                following = bytes(area.data[begin : begin + length])
                assert len(following) == length > 0
            at += size
        fields, seen = following, seen + 1
        assert seen < 32


@given(st.integers(-(2**70), 2**70))
def test_dates_are_the_nearest_that_can_be_told(seconds: int) -> None:
    assert len(pack_short_date(seconds)) == 7 and len(pack_long_date(seconds)) == 17
    assert pack_long_date(seconds)[:16].isdigit()
    assert parse_long_date(pack_long_date(seconds)) == min(max(seconds, 0), 253402300799)
    assert parse_short_date(pack_short_date(seconds)) == min(max(seconds, 0), 5869583999)


def grafted(tmp_path: Path, name: str, *nodes: Node) -> Path:
    tools.require(*families.TOOLS, *judges.TOOLS)
    out = tmp_path / "out.iso"
    with open_source(families.build(name)) as source:
        plan = plan_image(read_image(source), source, IsoEdits(added=nodes))
        out.write_bytes(b"".join(plan.table.chunks()))
    return out


def link(path: bytes, target: bytes) -> Node:
    return Node(path=path, kind=NodeKind.SYMLINK, mode=0o777, target=target, mtime=10**9)


LINKS = {
    b"short": b"a/b",
    b"root": b"/",
    b"absolute": b"/usr/share",
    b"up": b"../" * 300 + b"end",
    b"up-alone": b"/".join([b".."] * 200),
    b"here": b"/".join([b"."] * 400),
    b"single": b"/".join([b"x"] * 500),
    b"parts": b"/".join([b"part"] * 180),
    b"long-part": b"p" * 255 + b"/" + b"q" * 249 + b"/" + b"r" * 248 + b"/../" + b"s" * 200,
    b"odd": b"-> 'x'\xff\xfe",
}


@pytest.mark.parametrize("name", ["data-both", "ubuntu", "data-level-4"])
def test_symlinks_lead_where_they_should_for_others(name: str, tmp_path: Path) -> None:
    out = grafted(tmp_path, name, *(link(path, target) for path, target in LINKS.items()))
    (tmp_path / "tree").mkdir()
    run(["bsdtar", "-xf", out, "-C", tmp_path / "tree"])
    by_xorriso = run(["xorriso", "-indev", out, "-lsl", "/", "--"])
    for path, target in LINKS.items():
        assert os.readlink(os.fsencode(tmp_path / "tree") + b"/" + path) == target
        if path not in (b"here", b"up-alone", b"odd"):  # quoted otherwise; a dot at a field's end is text to others
            assert b"'%s' -> '%s'" % (path, target) in by_xorriso


def test_the_longest_target_is_kept_and_told_of(tmp_path: Path) -> None:
    target = b"/".join([b"w" * 100] * 41)[:4095].rstrip(b"/")
    tools.require(*families.TOOLS, *judges.TOOLS)
    with open_source(families.build("data-both")) as source:
        plan = plan_image(read_image(source), source, IsoEdits(added=(link(b"far", target),)))
        assert any("more than 1,024 bytes: xorriso" in line for line in plan.warnings)
    out = grafted(tmp_path, "data-both", link(b"far", target))
    (tmp_path / "tree").mkdir()
    run(["bsdtar", "-xf", out, "-C", tmp_path / "tree"])
    assert os.readlink(os.fsencode(tmp_path / "tree/far")) == target
    with open_source(out) as source:
        assert read_nodes(read_image(source), source)[b"far"].target == target


@pytest.mark.parametrize("node", [link(b"far", b"w" * 4096), Node(path=b"n" * 256, kind=NodeKind.FILE, mode=0o644)])
def test_what_no_system_takes_is_refused(node: Node, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"cannot be added: it.* has more than"):
        grafted(tmp_path, "data-both", node)


def test_special_files_and_times_for_others(tmp_path: Path) -> None:
    nodes = [
        Node(path=b"dev", kind=NodeKind.DIRECTORY, mode=0o1777, mtime=10**9),
        Node(path=b"dev/null", kind=NodeKind.CHAR, mode=0o666, rdev=(1, 3), mtime=10**9, uid=7, gid=9),
        Node(path=b"dev/disk", kind=NodeKind.BLOCK, mode=0o660, rdev=(8, 17), mtime=10**9),
        Node(path=b"dev/pipe", kind=NodeKind.FIFO, mode=0o600, mtime=-5),
        Node(path=b"dev/file", kind=NodeKind.FILE, mode=0o4755, mtime=2**63,
             content=BytesContent(b"x")),
    ]  # fmt: skip
    out = grafted(tmp_path, "data-both", *nodes)
    said = run(["bsdtar", "-tvf", out]).decode().splitlines()
    lines = {line.split()[-1]: line.split()[:5] for line in said}
    assert lines["dev"][0] == "drwxrwxrwt"
    assert lines["dev/null"][0] == "crw-rw-rw-" and lines["dev/null"][2:5] == ["7", "9", "1,3"]
    assert lines["dev/disk"][0] == "brw-rw----" and lines["dev/disk"][4] == "8,17"
    assert lines["dev/pipe"][0] == "prw-------" and lines["dev/file"][0] == "-rwsr-xr-x"
