"""Random trees and random edits of them, several images in a row, held against a plain mapping of paths to bytes."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from cosremaster.io.output import Written
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan, plan_image
from cosremaster.iso.model import IsoImage
from cosremaster.iso.nodes import read_nodes
from cosremaster.iso.prove import prove_image
from cosremaster.iso.read import read_image
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.patterns import Pattern
from cosremaster.records import replace
from cosremaster.remastering.iso_tree import IsoTreeRequest, Rename, plan_iso_tree
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import ancestors
from cosremaster.verification.run import verify
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run
from tests.support import judges

GENISOIMAGE, XORRISO = ("genisoimage", "-quiet", "-input-charset", "utf-8"), ("xorriso", "-as", "mkisofs")
MAKERS: dict[str, tuple[str, ...]] = {
    "genisoimage-R-J": (*GENISOIMAGE, "-R", "-J"),
    "genisoimage-R": (*GENISOIMAGE, "-R"),
    "genisoimage-J": (*GENISOIMAGE, "-J"),
    "genisoimage": (*GENISOIMAGE,),
    "genisoimage-level-4": ("genisoimage", "-quiet", "-R", "-J", "-iso-level", "4"),
    "genisoimage-udf": (*GENISOIMAGE, "-R", "-J", "-udf"),
    "genisoimage-deep": (*GENISOIMAGE, "-R", "-J"),
    "xorriso": (*XORRISO, "-R", "-J"),
    "xorriso-relaxed": (*XORRISO, "-R", "-l", "-allow-lowercase", "-allow-multidot"),
    "xorriso-deep": (*XORRISO, "-R", "-rr_reloc_dir", "/rr_moved"),
    "xorriso-offset": (*XORRISO, "-R", "-J", "-partition_offset", "16"),
    "xorriso-hard-links": (*XORRISO, "-R", "--hardlinks"),
}
DEEP = ("genisoimage-deep", "xorriso-deep")
SHORT, JOLIET_ALONE = "genisoimage", "genisoimage-J"
RELOCATED = 7
"""Directories above an entry from which on its directory is relocated (ECMA-119, 6.8.2.1)."""
ROUNDS = 4
MOVED = (b"rr_moved", b".rr_moved")

Tree = dict[bytes, "bytes | tuple[bytes] | None"]
"""A file's bytes, a symlink's text in a tuple, None for a directory."""


@dataclass
class Maker:
    """Random names, contents and edits. ``links``: symlinks too."""

    chance: random.Random
    links: bool = True
    deep: bool = False
    short: bool = False
    ascii: bool = False
    numbered: bool = False
    numbers: count[int] = field(default_factory=count)

    def name(self, suffix: bool) -> bytes:
        chance = self.chance
        if self.short:
            return f"F{next(self.numbers)}{chance.choice(['.TXT', '.IMG', '']) if suffix else ''}".encode()
        stem = chance.choice(
            ["f", "a name", "some-longer-name_", "Ünï", "n" * chance.randrange(20, 30), ".dot", "X.y.z"]
        )
        stem = stem.replace("Ünï", "Uni") if self.ascii else stem
        stem = f"{next(self.numbers)}-{stem}" if self.numbered else stem  # unlike within eight characters
        return f"{stem}{next(self.numbers)}{chance.choice(['', '.txt', '.img']) if suffix else ''}".encode()

    def content(self) -> bytes:
        size = self.chance.choice([0, 1, 100, 2047, 2048, 2049, 5000])
        return self.chance.randbytes(size)

    def tree(self, directories: int, files: int) -> Tree:
        tree: Tree = {}
        folders = [b""]
        for _ in range(directories):
            above = folders[-1] if self.deep and self.chance.randrange(3) else self.chance.choice(folders)
            if self.deep or above.count(b"/") < 5:
                folders.append(self.below(above, suffix=False))
                tree[folders[-1]] = None
        for _ in range(files):
            path = self.below(self.chance.choice(folders), suffix=True)
            tree[path] = (self.chance.choice([b"a/b", b"/usr", b".."]),) if self.link() else self.content()
        crowded = self.chance.choice(folders)
        for _ in range(self.chance.choice([0, 0, 12, 13, 14, 15, 30])):
            tree[self.below(crowded, suffix=True)] = b"crowd"
        return dict(sorted(tree.items()))

    def link(self) -> bool:
        return self.links and not self.chance.randrange(8)

    def below(self, folder: bytes, *, suffix: bool) -> bytes:
        return folder + b"/" * bool(folder) + self.name(suffix)

    def edits(self, tree: Tree) -> tuple[list[bytes], list[tuple[bytes, bytes]], Tree]:
        """What is removed, renamed one after another, and added; changes ``tree``."""
        chance = self.chance
        removed = [path for path in chance.sample(sorted(tree), min(len(tree), chance.randrange(4)))
                   if tree[path] is not None or not chance.randrange(3)]  # fmt: skip
        removed = [path for path in removed if not set(removed) & set(ancestors(path))]
        for path in removed:
            for one in [one for one in tree if one == path or one.startswith(path + b"/")]:
                del tree[one]
        renamed = []
        for _ in range(chance.randrange(4)):
            if not tree:
                break
            old = chance.choice(sorted(tree))
            homes = [b"", *(one for one in sorted(tree) if tree[one] is None)]
            homes = [one for one in homes if one != old and not one.startswith(old + b"/")]
            home = chance.choice(homes)
            new = self.below(home, suffix=tree[old] is not None)
            if self.deep and (home + b"/" + new).count(b"/") > 20:
                continue
            renamed.append((old, new))
            for one in [one for one in tree if one == old or one.startswith(old + b"/")]:
                tree[new + one[len(old) :]] = tree.pop(one)
        added: Tree = {}
        for _ in range(chance.choice([0, 1, 3, 40])):
            homes = [b"", *(one for one in sorted({**tree, **added}) if {**tree, **added}[one] is None)]
            kind = chance.randrange(6)
            path = self.below(chance.choice(homes), suffix=kind > 0)
            added[path] = None if kind == 0 else (b"some/../target" * chance.randrange(1, 40),) if (
                kind == 1 and self.links
            ) else self.content()  # fmt: skip
        files = [one for one in sorted(tree) if isinstance(tree[one], bytes) and len(tree[one] or b"") > 100]
        if files and chance.randrange(2):
            added[chance.choice(files)] = self.content() + b"changed"
        tree |= added
        return removed, renamed, dict(sorted(added.items()))


def node(path: bytes, what: bytes | tuple[bytes] | None) -> Node:
    if what is None:
        return Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755, mtime=EPOCH)
    if isinstance(what, tuple):
        return Node(path=path, kind=NodeKind.SYMLINK, mode=0o777, mtime=EPOCH, target=what[0])
    return Node(path=path, kind=NodeKind.FILE, mode=0o644, mtime=EPOCH, content=BytesContent(what))


def written(path: Path, tree: Tree, maker: str) -> None:
    root = path.parent / "tree"
    disc = tools.Tree(root)
    for name, what in tree.items():
        if what is None:
            disc.directory(name.decode())
        elif isinstance(what, tuple):
            disc.symlink(name.decode(), what[0].decode())
        else:
            disc.file(name.decode(), what)
    run([*MAKERS[maker], "-o", path, root], env={"LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(EPOCH)})


def grafted(
    image: IsoImage, source: ByteSource, removed: list[bytes], renamed: list[tuple[bytes, bytes]], added: Tree
) -> IsoEdits:
    nodes = tuple(node(path, what) for path, what in added.items())
    return plan_iso_tree(image, source, IsoTreeRequest(
        remove=[Pattern(path) for path in removed],
        rename=[Rename(old, new) for old, new in renamed],
        add=[Addition(nodes, b"", is_single_file=False, into_directory=False, source="model")],
    ))  # fmt: skip


def output(plan: ImagePlan, path: Path) -> bytes:
    path.write_bytes(b"".join(plan.table.chunks()))
    return path.read_bytes()


def told(image: IsoImage, source: ByteSource) -> Tree:
    """The primary tree by Rock Ridge. Relocated directories' own parent is a maker's."""
    found: Tree = {}
    for path, one in read_nodes(image, source).items():
        if one.kind is NodeKind.DIRECTORY:
            found[path] = None
        elif one.kind is NodeKind.SYMLINK:
            found[path] = (one.target,)
        else:
            found[path] = b"" if one.content is None else b"".join(one.content.table().chunks())
    return {path: what for path, what in found.items() if path not in MOVED}


def files_only(tree: Tree) -> dict[bytes, bytes]:
    return {path: what for path, what in tree.items() if isinstance(what, bytes)}


def joliet(image: IsoImage) -> dict[bytes, bytes] | None:
    tree = next((one for one in image.trees if one.kind == "Joliet"), None)
    return None if tree is None else {file.path: b"".join(image.bytes_of(file).chunks()) for file in tree.files}


def udf(image: IsoImage) -> dict[bytes, bytes] | None:
    if image.udf is None:
        return None
    return {
        "/".join(path).encode(): b"".join(
            chunk
            for lba, length in file.extents
            for chunk in image.source.cut(lba * 2048, lba * 2048 + length).chunks()
        )
        for path, file in image.udf.named_files()
    }


def places(image: IsoImage) -> dict[bytes, list[int]]:
    return {file.path: [one.lba for one in file.records] for file in image.files if file.size}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", MAKERS)
def test_edits_in_a_row(name: str, seed: int, tmp_path: Path) -> None:
    tools.require(*judges.TOOLS, "genisoimage")
    links = name not in (SHORT, JOLIET_ALONE, "genisoimage-udf")
    maker = Maker(
        random.Random(f"{name} {seed}"),
        links,
        name in DEEP,
        name == SHORT,
        name.endswith("level-4"),
        name == JOLIET_ALONE,
    )
    tree = maker.tree(14 if maker.deep else 8, 20)
    path = tmp_path / "0.iso"
    written(path, tree, name)
    for number in range(1, ROUNDS + 1):
        with open_source(path) as source:
            image = read_image(source)
            expect(name, tree, image, source)
            removed, renamed, added = maker.edits(tree)
            edits = grafted(image, source, removed, renamed, added)
            plan = plan_image(image, source, edits)
            path = tmp_path / f"{number}.iso"
            data = output(plan, path)
            assert output(plan_image(image, source, shuffled(edits, maker.chance)), tmp_path / "again") == data
            with open_source(path) as again:
                if not edits.is_empty:
                    prove_image(image, plan, Written(path, ()), again)
                after = read_image(again)
                expect(name, tree, after, again)
                if name not in (SHORT, JOLIET_ALONE) and not edits.replaced:
                    expect_kept(edits, image, after)
    assert [one for one in verify(path).findings if one.is_counted] == []
    if name not in (SHORT, JOLIET_ALONE):
        by_others(name, path, tree, tmp_path)


def shuffled(edits: IsoEdits, chance: random.Random) -> IsoEdits:
    """The same, written down in another order."""
    renamed, exchanged = list(edits.renamed.items()), list(edits.replaced.items())
    chance.shuffle(renamed)
    chance.shuffle(exchanged)
    return replace(edits, renamed=dict(renamed), replaced=dict(exchanged))


def expect(name: str, tree: Tree, image: IsoImage, source: ByteSource) -> None:
    if name == JOLIET_ALONE:
        assert sorted(files_only(told(image, source)).values()) == sorted(files_only(tree).values())
    else:
        assert told(image, source) == tree
    for found in (joliet(image), udf(image)):
        # genisoimage has symlinks there as empty files
        shown = found and {path: data for path, data in found.items() if not isinstance(tree.get(path), tuple)}
        assert shown is None or shown == files_only(tree)
    for other in image.trees[1:]:
        if other.has_rock_ridge:
            assert {file.path for file in other.files} == {file.path for file in image.files}


def expect_kept(edits: IsoEdits, before: IsoImage, after: IsoImage) -> None:
    """Data that nobody asked to change stand where they stood, or come behind the relocated directory that names them.

    Only entries below the seventh level are relocated (cosremaster/iso/layout/continued.py says why their data move).
    """
    found, old = places(after), places(before)
    relocated = {tuple(blocks) for path, blocks in old.items() if path.count(b"/") >= RELOCATED}
    end = max((max(blocks) for blocks in old.values() if blocks), default=0)
    for path, blocks in old.items():
        new = edits.new_path(path)
        if new is not None:
            is_late = tuple(blocks) in relocated and all(block > end for block in found[new])
            assert found[new] == blocks or is_late


def by_others(name: str, path: Path, tree: Tree, folder: Path) -> None:
    """What others unpack is what the model has: libarchive, but for deep trees, where it names what is in a relocated
    directory that stands behind its files' data by the place of that; and xorriso."""
    unpack: dict[str, list[str | Path]] = {
        "xorriso": ["xorriso", "-osirrox", "on", "-indev", path, "-extract", "/", folder / "xorriso"]
    }
    if name not in DEEP:
        unpack["bsdtar"] = ["bsdtar", "-xf", path, "-C", folder / "bsdtar"]
    for tool, argv in unpack.items():
        out = folder / tool
        out.mkdir()
        run(argv, env={"LC_ALL": "C.UTF-8"})
        found: Tree = {}
        for one in sorted(out.rglob("*")):
            at = os.fsencode(one.relative_to(out))
            found[at] = (
                (os.fsencode(one.readlink()),) if one.is_symlink() else None if one.is_dir() else one.read_bytes()
            )
        assert {at: what for at, what in found.items() if at.partition(b"/")[0] not in MOVED} == tree
