"""An image's tree as nodes: what libarchive says of every family and of what Rock Ridge can hold is what we say."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.cli import main
from cosremaster.errors import CorruptError, CosremasterError, ImageError
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso.ecma119.dates import parse_long_date, parse_short_date
from cosremaster.iso.nodes import read_nodes
from cosremaster.iso.read import read_image
from cosremaster.iso.rockridge.read import PosixAttributes, read_attributes
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import Lba
from tests.fixtures import families, tools
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.susp import both, field, record

_TYPES = {
    "file": NodeKind.FILE, "dir": NodeKind.DIRECTORY, "link": NodeKind.SYMLINK, "char": NodeKind.CHAR,
    "block": NodeKind.BLOCK, "fifo": NodeKind.FIFO, "socket": NodeKind.SOCKET,
}  # fmt: skip
Facts = tuple[NodeKind, int, int, int, int, int, bytes, str]


def nodes_of(iso: Path) -> dict[bytes, Node]:
    with open_source(iso) as source:
        return read_nodes(read_image(source), source)


def facts(node: Node, *, ridge: bool) -> Facts:
    size = node.content.size if node.content is not None else 0
    device = ",".join(map(str, node.rdev)) if node.kind in (NodeKind.CHAR, NodeKind.BLOCK) else ""
    owner = (node.mode, node.uid, node.gid) if ridge else (0, 0, 0)
    return (node.kind, *owner, node.mtime, size, node.target, device)


def _bytes(text: str) -> bytes:
    """mtree's escapes are \\ and three octal digits."""
    plain = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
    return plain.encode("latin-1")


def theirs(iso: Path, ours: dict[bytes, Facts], *, ridge: bool) -> dict[bytes, Facts]:
    """Every path as libarchive reads the image; of linked names it tells one's size alone, the others' is as ours."""
    wanted = "!all,type,mode,uid,gid,time,link,size,device,nlink"
    listed = run(["bsdtar", "-cf", "-", "--format=mtree", f"--options={wanted}", f"@{iso}"])
    found: dict[bytes, Facts] = {}
    for line in listed.decode().splitlines():
        name, *words = line.split(" ")
        if not name.startswith("./"):
            continue  # the signature, the root
        said: dict[str, str] = dict(word.split("=", 1) for word in words)
        kind = _TYPES[said["type"]]
        device = said.get("device", "").removeprefix("native,")
        owner = (int(said["mode"], 8), int(said["uid"]), int(said["gid"])) if ridge else (0, 0, 0)
        size = int(said.get("size", 0)) if kind is NodeKind.FILE else 0
        path = _bytes(name[2:])
        if not size and kind is NodeKind.FILE and "nlink" in said:
            size = ours[path][5]
        mtime = int(float(said["time"]))
        found[path] = (kind, *owner, mtime, size, _bytes(said.get("link", "")), device)
    return found


@pytest.mark.parametrize("name", sorted({*families.FAMILIES} - {"data-joliet"}))  # libarchive takes Joliet's names
def test_every_family_is_what_libarchive_says(name: str) -> None:
    tools.require(*families.TOOLS)
    iso = families.build(name)
    with open_source(iso) as source:
        ridge = read_image(source).has_rock_ridge
    ours = {path: facts(node, ridge=ridge) for path, node in nodes_of(iso).items() if path != b"rr_moved"}
    assert ours == theirs(iso, ours, ridge=ridge)  # libarchive hides rr_moved


@pytest.mark.parametrize("name", ["data-zisofs", "data-deep", "data-shared"])
def test_bytes_are_what_libarchive_says(name: str) -> None:
    tools.require(*families.TOOLS)
    iso = families.build(name)
    said = {path.removeprefix("./").rstrip("/").encode(): told[4] for path, told in judges.tree(iso).items() if told[4]}
    with open_source(iso) as source:
        nodes = read_nodes(read_image(source), source)
        assert {p: n.content.digest().hex() for p, n in nodes.items() if n.content is not None} == said


SCRIPT = """
mkdir d d/sub; echo hi > d/a; ln d/a d/b; ln d/a d/sub/c; chown 1234:567 d/a; chmod 4755 d/a
ln -s /proc/mounts d/absolute; ln -s ../.././x d/dots; ln -s . d/dot; ln -s / d/root
ln -s {long} d/long; : > d/{name}; touch -d 1999-12-31T23:59:59Z d/a
"""
ODD = "mknod d/null c 1 3; mknod d/sda b 8 300; mkfifo d/pipe"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Where a folder ``d`` with all that Rock Ridge can hold is made by the script it is written to."""
    long = "/".join(f"component-{number}" * 9 for number in range(7))
    (tmp_path / "make").write_text(SCRIPT.format(long=long, name="n" * 250) + ODD)
    return tmp_path


@pytest.mark.parametrize("version", ["old_rr", "new_rr"])
def test_what_rock_ridge_can_hold(odd: Path, version: str) -> None:
    tools.require("xorriso", "fakeroot", "bsdtar")
    making = ["xorriso", "-compliance", version, "-outdev", "x.iso", "-hardlinks", "on", "-map", "d", "/", "-commit"]
    run(["fakeroot", "sh", "-e", "-c", f". ./make; {shlex.join([*making, '-end'])}"], cwd=odd)
    nodes = nodes_of(odd / "x.iso")
    ours = {path: facts(node, ridge=True) for path, node in nodes.items()}
    said = theirs(odd / "x.iso", ours, ridge=True)
    for path, node in nodes.items():
        if node.kind in (NodeKind.CHAR, NodeKind.BLOCK):
            assert node.rdev == {b"null": (1, 3), b"sda": (8, 300)}[path]  # mtree's native number is another question
            said[path] = (*said[path][:7], ours[path][7])
    long = os.readlink(odd / "d" / "long").encode()
    said[b"long"] = (*said[b"long"][:6], long, "")  # libarchive loses the slash between two SL fields; xorriso does not
    assert ours == said
    linked = {path for path, node in nodes.items() if node.link is not None}
    assert linked == {b"a", b"b", b"sub/c"}
    assert len({nodes[path].link for path in linked}) == 1


def test_genisoimage_says_the_same(tmp_path: Path) -> None:
    tools.require("genisoimage", "fakeroot", "bsdtar")
    (tmp_path / "make").write_text(SCRIPT.format(long="usr/share/doc/a/b", name="n" * 250))
    run(["fakeroot", "sh", "-e", "-c", ". ./make; genisoimage -quiet -R -o g.iso d"], cwd=tmp_path)
    ours = {path: facts(node, ridge=True) for path, node in nodes_of(tmp_path / "g.iso").items()}
    assert ours == theirs(tmp_path / "g.iso", ours, ridge=True)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[ByteSource]:
    path = tmp_path / "image"
    path.write_bytes(bytes(100_000))
    with open_source(path) as opened:
        yield opened


def said_of(source: ByteSource, fields: bytes) -> PosixAttributes:
    return read_attributes(source, record(fields), 1000, 0, Lba(0))


def component(flags: int, text: bytes = b"") -> bytes:
    return bytes((flags, len(text))) + text


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ([component(8), component(0, b"proc"), component(0, b"mounts")], b"/proc/mounts"),
        ([component(4), component(4), component(2), component(0, b"x")], b"../.././x"),
        ([component(8)], b"/"),
        ([component(0, b"one") + component(1, b"tw"), component(0, b"o") + component(0, b"three")], b"one/two/three"),
    ],
)
def test_symlinks_in_pieces(source: ByteSource, fields: list[bytes], target: bytes) -> None:
    parts = [field(b"SL", b"\1" + part) for part in fields[:-1]] + [field(b"SL", b"\0" + fields[-1])]
    assert said_of(source, b"".join(parts)).target == target


def test_px_of_both_versions(source: ByteSource) -> None:
    numbers = [both(value) for value in (0o100640, 2, 1000, 100)]
    expected = PosixAttributes(mode=0o100640, links=2, uid=1000, gid=100)
    assert said_of(source, field(b"PX", b"".join(numbers))) == expected
    assert said_of(source, field(b"PX", b"".join(numbers) + both(77))).serial == 77


SHORT = {name: bytes((99, 1, day, 3, 4, 5, 0)) for day, name in enumerate("cmaxbef", 1)}
"""A time for each kind a TF field can hold, by its bit from the lowest on; the second is that of modification."""


@pytest.mark.parametrize("flags", range(128))
@pytest.mark.parametrize("long", [False, True])
def test_times_of_any_kinds(source: ByteSource, flags: int, long: bool) -> None:
    stamps = [stamp for bit, stamp in enumerate(SHORT.values()) if flags >> bit & 1]
    if long:
        stamps = [b"1999%02d%02d03040500\0" % (stamp[1], stamp[2]) for stamp in stamps]
    said = said_of(source, field(b"TF", bytes((flags | long << 7,)) + b"".join(stamps)))
    assert said.mtime == (915246245 if flags & 2 else None)  # date -u -d '1999-01-02 03:04:05' +%s


def test_dates() -> None:
    assert parse_short_date(bytes((123, 11, 14, 22, 13, 20, 0))) == 1700000000
    assert parse_short_date(bytes((123, 11, 15, 0, 13, 20, 8))) == 1700000000, "two hours east"
    assert parse_short_date(bytes((123, 11, 14, 17, 13, 20, 256 - 20))) == 1700000000, "five hours west"
    assert parse_long_date(b"2023111500132099\x08") == 1700000000
    for nonsense in ((0,) * 7, (123, 13, 1, 0, 0, 0, 0), (255, 2, 30, 99, 0, 0, 0), (0, 1, 1, 0, 0, 0, 0)):
        assert parse_short_date(bytes(nonsense)) == 0
    assert parse_long_date(b"0" * 16 + b"\0") == parse_long_date(b"not a date......\0") == 0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (field(b"PX", bytes(8)), "PX of 12 bytes"),
        (field(b"PN", bytes(8)), "PN of 12 bytes"),
        (field(b"TF", b"\2" + bytes(3)), "TF of 8 bytes"),
        (field(b"TF", b""), "TF of 4 bytes"),
        (b"NM\x03\x01", "malformed Rock Ridge field"),
    ],
)
def test_malformed_fields_are_told_with_their_place(source: ByteSource, bad: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said) as told:
        said_of(source, bad)
    assert told.value.place is not None and told.value.place.offset is not None


@pytest.mark.parametrize(
    ("bad", "target"),
    [
        (field(b"SL", b"\0" + component(0, b"one") + component(0, b"abc")[:-1]), b"one"),
        (field(b"SL", b"\0\0"), b""),
        (field(b"SL", b"\0" + component(0, b"one")) + b"bc\xf0def", b"one"),
        (field(b"SL", b"\0" + component(0, b"one")) + b"bc\x02def", b"one"),
    ],
)
def test_of_a_broken_symlink_there_is_what_can_be_read(source: ByteSource, bad: bytes, target: bytes) -> None:
    assert said_of(source, bad).target == target


def test_genisoimage_breaks_long_symlinks_and_the_image_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("genisoimage", "bsdtar")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("here")
    for count in (20, 24, 30, 40, 60, 100):  # an SL field has one byte for its length
        (tree / f"link{count}").symlink_to("/".join(["abcdefghi"] * count))
    run(["genisoimage", "-quiet", "-R", "-o", "g.iso", "tree"], cwd=tmp_path)
    iso = str(tmp_path / "g.iso")
    assert main(["ls", "--json", iso]) == 0
    ours = {one["path"]: one["target"] for one in json.loads(capsys.readouterr().out)["nodes"]}
    listed = run(["bsdtar", "-tvf", iso]).decode().splitlines()
    theirs = dict(line.split()[-3::2] for line in listed if " -> " in line)
    assert ours.pop("file") is None
    # libarchive leaves out the slash between the components of two fields (the kernel's get_symlink_chunk does not)
    letters = {name: target.replace("/", "") for name, target in theirs.items()}
    assert {name: target.replace("/", "") for name, target in ours.items()} == letters
    assert len(ours["link20"]) == 199 and len(ours["link100"]) < 999
    assert main(["verify", iso]) == 1
    told = capsys.readouterr().out
    assert "rockridge.symlink" in told or "rockridge.malformed" in told


@given(st.binary(max_size=200))
def test_any_fields_are_read_or_told(fields: bytes) -> None:
    with open_source(Path(__file__)) as opened:
        try:
            said_of(opened, fields)
        except CosremasterError as error:
            assert error.place is not None


def _packed(folder: Path, plain: bytes, options: list[str]) -> Path:
    """An image with ``plain`` as its only file, under zisofs."""
    (folder / "tree").mkdir()
    (folder / "tree" / "file").write_bytes(plain)
    run(["mkzftree", *options, "tree", "packed"], cwd=folder)
    run(["genisoimage", "-quiet", "-R", "-z", "-o", "z.iso", "packed"], cwd=folder)
    return folder / "z.iso"


PLAIN = b"the first line\n" * 10_000 + bytes(200_000) + random.Random(2).randbytes(60_000) + b"last"


@pytest.fixture
def zisofs(tmp_path: Path) -> Path:
    tools.require("mkzftree", "genisoimage", "bsdtar")
    return _packed(tmp_path, PLAIN, [])


def test_a_compressed_file_from_any_byte(zisofs: Path) -> None:
    assert run(["bsdtar", "-xOf", zisofs, "file"]) == PLAIN
    with open_source(zisofs) as source:
        content = read_nodes(read_image(source), source)[b"file"].content
        assert content is not None
        table = content.table()
        assert b"".join(table.chunks()) == PLAIN
        assert content.head(20) == PLAIN[:20]
        assert content.head(1 << 20) == PLAIN
        for start, end in ((0, 1), (32767, 32769), (149_999, 150_010), (len(PLAIN) - 4, len(PLAIN)), (7, 7)):
            assert b"".join(table.cut(start, end).chunks()) == PLAIN[start:end]


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_compressed_file_is_told(zisofs: Path, seed: int) -> None:
    """Deflate with an Adler-32 over each block: what is read is right, or the damage is told with its place."""
    chance, raw = random.Random(seed), bytearray(zisofs.read_bytes())
    start = raw.index(bytes.fromhex("37E45396C9DBD607"))
    with open_source(zisofs) as source:
        length = read_image(source).files[0].size
    at = start + chance.choice((chance.randrange(16), chance.randrange(16, 80), chance.randrange(length)))
    raw[at] ^= 1 << chance.randrange(8)
    zisofs.write_bytes(raw)
    with open_source(zisofs) as source:
        content = read_nodes(read_image(source), source)[b"file"].content
        assert content is not None
        try:
            read = b"".join(content.table().chunks())
        except CorruptError as error:
            assert error.place is not None and error.place.offset is not None
            assert error.place.parts == (str(zisofs), "file")
        else:
            assert read == PLAIN, "the header's reserved bytes, or padding"
