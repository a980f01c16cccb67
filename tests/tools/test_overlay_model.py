"""Random images under random additions: what busybox and GNU cpio unpack is what the model says."""

import io
import os
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cosremaster.demo.image import TIME, DemoEntry, build_archive, outer_items
from cosremaster.errors import OverlayError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.model import Layer, build_layers, index_file
from cosremaster.overlay.merge import merge
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import AddPath
from cosremaster.tree.nodes import NodeKind
from tests.fixtures.tools import require
from tests.support.additions import context, read_additions
from tests.support.layers import RESOURCES
from tests.support.model import (
    Folder,
    Inode,
    OneFile,
    RefusedError,
    Tree,
    by_busybox,
    by_gnu,
    described,
    ordered,
    remastered,
    write_tree,
)

NAMES = (b"a", b"b", b"c\xff")
TARGETS = (b"a", b"b", b"a/b", b"../a", b"/b", b"/", b"..", b".", b"b/a", b"/a/b", b"none", b"../../c\xff")
PATHS = (*NAMES, *(one + b"/" + two for one in NAMES for two in NAMES), b"a/b/a")
KINDS = {"d": NodeKind.DIRECTORY, "-": NodeKind.FILE, "l": NodeKind.SYMLINK, "p": NodeKind.FIFO}
OWNERS = st.sampled_from([(0, 0), (0, 0), (1, 2)])
REMOVALS = (*PATHS, b"*", b"a/*", b"**/b", b"b/**", b"/a/**/a", b"**c*", b"none")
WHITEOUTS = (b".wh.a", b".wh.b", b"a/.wh.a", b"b/.wh.b", b"a/.wh..wh..opq", b"b/.wh..wh..opq", b".wh..wh..opq")
TRAITS = st.tuples(
    st.sampled_from("dd---llp"),
    st.sampled_from([0o644, 0o755, 0o600, 0o4755]),
    st.sampled_from([b"", b"one", b"other"]),
    st.sampled_from(TARGETS),
)


@st.composite
def trees(draw: st.DrawFn, most: int) -> Tree:
    """A tree as it may stand on a disk: directories above all, some names of one file."""
    tree: Tree = {}
    files: list[Inode] = []
    for path in sorted(draw(st.sets(st.sampled_from(PATHS), min_size=1, max_size=most))):
        above = path.rpartition(b"/")[0]
        if above and (above not in tree or tree[above].kind != "d"):
            continue
        kind, mode, data, target = draw(TRAITS)
        if kind == "-" and files and draw(st.booleans()):
            tree[path] = files[0]
            continue
        mode = (mode & 0o777 | 0o700) if kind == "d" else mode if kind == "-" else 0o644
        tree[path] = Inode(kind, mode, {"-": data, "l": target}.get(kind, b""), draw(OWNERS))
        if kind == "-":
            files.append(tree[path])
    return tree


@st.composite
def overlays(draw: st.DrawFn) -> Tree:
    """A tree with whiteouts in some of its directories."""
    tree = draw(trees(6))
    for path in draw(st.lists(st.sampled_from(WHITEOUTS), max_size=2)):
        above = path.rpartition(b"/")[0]
        if not above or (above in tree and tree[above].kind == "d"):
            tree[path] = Inode("-", 0o644)
    return tree


DESTS = st.sampled_from(["/", "/a", "/b/", "/a/b", "/b/a", "/new/deep", "/a/b/"])
ADDITIONS = st.one_of(
    st.builds(Folder, overlays(), DESTS, st.booleans(), st.sampled_from([None, None, (3, 4)]), st.booleans()),
    st.builds(
        lambda mode, data, dest: OneFile(b"note", Inode("-", mode, data), dest),
        st.sampled_from([0o644, 0o755]),
        st.sampled_from([b"", b"one"]),
        DESTS,
    ),
)


def packed(tree: Tree, carrier: int, prefix: bytes, magic: bytes) -> bytes:
    """The tree as an archive; of the names of one file the first, the last or all carry the data."""
    names: dict[int, list[bytes]] = {}
    for path, inode in sorted(tree.items()):
        names.setdefault(id(inode), []).append(path)
    items = []
    for path, inode in sorted(tree.items()):
        mates = names[id(inode)]
        bare = len(mates) > 1 and path != mates[carrier]
        nlink = len(mates) if inode.kind == "-" else 1
        ino = 100 + list(names).index(id(inode))
        mode = KINDS[inode.kind] | inode.mode
        items.append(DemoEntry(prefix + path, mode, b"" if bare else inode.data, *inode.owner, nlink, ino))
    return build_archive(items, magic)


def nested(plain: bytes) -> Layer:
    """The archive as the root filesystem inside a debirf archive."""
    table = PieceTable([Literal(build_archive(outer_items(b"rootfs.c", plain)))])
    place = Place(("live",))
    return build_layers(index_file(b"live", table, place), table, place)[1]


def on_disk(folder: Path, addition: Folder | OneFile) -> AddPath:
    """The addition as files of this machine."""
    if isinstance(addition, Folder):
        owner = None if addition.owner is None else "{}:{}".format(*addition.owner)
        if addition.packed:
            path = folder.with_suffix(".tar")
            write_tar(path, addition)
            return AddPath(path, addition.dest, owner)
        folder.mkdir()
        write_tree(folder, addition.tree)
        return AddPath(folder, addition.dest, owner, keep_modes=True)
    folder.mkdir()
    path = folder / os.fsdecode(addition.name)
    path.write_bytes(addition.file.data)
    path.chmod(addition.file.mode)
    return AddPath(path, addition.dest, keep_modes=True)


TYPES = {"d": tarfile.DIRTYPE, "-": tarfile.REGTYPE, "l": tarfile.SYMTYPE, "p": tarfile.FIFOTYPE}


def write_tar(path: Path, folder: Folder) -> None:
    """The folder as Python's tarfile packs it."""
    names: dict[int, str] = {}
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, inode in ordered(folder):
            info = tarfile.TarInfo("./" + os.fsdecode(name))
            info.mode, (info.uid, info.gid), info.type, info.mtime = inode.mode, inode.owner, TYPES[inode.kind], TIME
            if inode.kind == "-" and id(inode) in names:
                info.type, info.linkname = tarfile.LNKTYPE, names[id(inode)]
            elif inode.kind == "-":
                names[id(inode)], info.size = info.name, len(inode.data)
            elif inode.kind == "l":
                info.linkname = os.fsdecode(inode.data)
            tar.addfile(info, io.BytesIO(inode.data))


@settings(max_examples=200, deadline=None)
@given(
    image=trees(9),
    removals=st.lists(st.sampled_from(REMOVALS), max_size=2),
    additions=st.lists(ADDITIONS, min_size=1, max_size=3),
    allow_missing=st.booleans(),
    force=st.booleans(),
    carrier=st.sampled_from([0, -1]),
    prefix=st.sampled_from([b"", b"./"]),
    magic=st.sampled_from(cpio.MAGICS),
)
def test_unpackers_make_what_the_model_says(
    image: Tree, removals: list[bytes], additions: list[Folder | OneFile], allow_missing: bool, force: bool,
    carrier: int, prefix: bytes, magic: bytes,
) -> None:  # fmt: skip
    require("busybox", "cpio")
    before = packed(image, carrier, prefix, magic)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        adds = [on_disk(folder / str(number), addition) for number, addition in enumerate(additions)]
        found, _ = read_additions(adds, context(TIME))
        layer = nested(before)
        tree = layer.tree()
        patterns = [Pattern(path) for path in removals]
        options = {"allow_missing": allow_missing, "force_type": force}
        try:
            want = remastered(image, removals, additions, allow_missing=allow_missing, force=force)
        except RefusedError as refused:
            event("refused")
            with pytest.raises(OverlayError):
                merge(tree, found, patterns, layer.place, **options)
            assert str(refused)
            return
        edits = merge(tree, found, patterns, layer.place, **options)
        after = b"".join(layer.edit(edits, RESOURCES).chunks())
        if edits.is_empty:
            event("nothing to do")
            assert after == before
        busybox = by_busybox(after, folder / "busybox")
        assert described(busybox, links=False) == described(want, links=False)
        assert described(by_gnu(after, folder / "gnu")) == described(want)
        event("unpacked")
