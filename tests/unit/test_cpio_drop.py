"""Entries that go without a look at the others, against an edit that looks at each entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.demo.image import DemoEntry, build_archive, directory, regular, symlink
from cosremaster.errors import CosremasterError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.layers.cpio import edit
from cosremaster.layers.cpio.edit import apply_edits
from cosremaster.layers.model import Layer, build_layers, index_file
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind
from cosremaster.tree.superseding import Superseding

PLACE = Place(("x",))
NAMES = (b"a", b"a/b", b"a/b/c", b"l", b"l/x", b"b", b"b/c", b"d", b"a/x", b"a/z")


@st.composite
def entries(draw: st.DrawFn) -> DemoEntry:
    name = draw(st.sampled_from(NAMES))
    kind = draw(st.sampled_from(("directory", "file", "file", "file", "symlink", "link")))
    ino = draw(st.sampled_from((0, 0, 1, 2, 1 << 25)))
    if kind == "directory":
        return DemoEntry(name, NodeKind.DIRECTORY | 0o755, nlink=2, ino=ino)
    if kind == "symlink":
        return DemoEntry(name, NodeKind.SYMLINK | 0o777, draw(st.sampled_from((b"a", b"/a", b"../a"))), ino=ino)
    data = draw(st.sampled_from((b"", b"1", b"22" * 5000)))
    return DemoEntry(name, NodeKind.FILE | 0o644, data, nlink=1 if kind == "file" else 2, ino=ino)


TAME = st.builds(
    regular, st.sampled_from((b"a/x", b"a/z", b"b/c", b"d", b"l/x")), st.sampled_from((b"1", b"22" * 5000))
)
"""Files that break no rule unless they are there twice: ``l/x`` is ``a/x``."""


def read_layer(items: list[DemoEntry]) -> Layer:
    table = PieceTable([Literal(build_archive(items))])
    return build_layers(index_file(b"live", table, PLACE), table, PLACE)[0]


def make_edits(removed: set[bytes], added: list[bytes], superseding: Superseding) -> Edits:
    nodes = [
        Node(path=path, kind=NodeKind.FILE, mode=0o644, mtime=5, content=BytesContent(path * 3))
        for path in sorted(set(added))
    ]
    replaced = {node.path for node in nodes} & removed
    additions = tuple((node, Action.REPLACED if node.path in replaced else Action.ADDED) for node in nodes)
    return Edits(
        removed_paths=frozenset(removed), additions=additions, removed=tuple(sorted(removed - replaced)),
        unchanged=(), warnings=(), superseding=superseding,
    )  # fmt: skip


def outcome(layer: Layer, edits: Edits) -> bytes | str:
    try:
        return apply_edits(layer, edits).read()
    except CosremasterError as error:
        return f"{type(error).__name__}: {error}"


@settings(max_examples=120, deadline=None)
@given(
    items=st.one_of(st.lists(TAME, max_size=6), st.lists(st.one_of(TAME, TAME, entries()), max_size=8)),
    removed=st.sets(st.sampled_from(NAMES), max_size=3), added=st.lists(st.sampled_from(NAMES), max_size=3),
    stays=st.sets(st.sampled_from(NAMES), max_size=2), drops_dead=st.sampled_from((False, False, False, True)),
)  # fmt: skip
def test_an_edit_that_looks_at_every_entry_gives_the_same(
    items: list[DemoEntry], removed: set[bytes], added: list[bytes], stays: set[bytes], *, drops_dead: bool
) -> None:
    base = [directory(b"a"), directory(b"b"), regular(b"a/z", b"1"), symlink(b"l", b"a")]
    layer = read_layer([*base, *items])
    removed = {path for path in removed if path in layer.tree()}
    superseding = Superseding(paths=frozenset(stays & removed & set(added)), drops_dead=drops_dead)
    edits = make_edits(removed, added, superseding)
    quick = outcome(layer, edits)
    with patch.object(edit, "find_dropped", lambda *_: None):
        assert quick == outcome(read_layer([*base, *items]), edits)
    going = layer.removed_inodes(removed)
    if going is not None:
        assert Counter(layer.inodes()) - Counter(going) == Counter(layer.inodes(removed))


@pytest.mark.parametrize("names", [(b"l/x",), (b"a/x", b"l/x"), (b"l/x", b"a/x")], ids=["through", "both", "again"])
def test_a_file_under_two_names_is_replaced_under_both(names: tuple[bytes, ...]) -> None:
    """A symlink makes ``l/x`` and ``a/x`` one file."""
    layer = read_layer([directory(b"a"), symlink(b"l", b"a"), *(regular(name, b"1") for name in names)])
    assert set(layer.paths) == {b"a", b"l", b"a/x"}
    result = outcome(layer, make_edits({b"a/x"}, [b"a/x"], Superseding()))
    assert isinstance(result, bytes), result
    assert b"l/x\0" not in result and result.count(b"a/xa/xa/x") == 1


@pytest.mark.parametrize("is_again", [False, True], ids=["first", "again"])
def test_a_replaced_file_needs_no_look_at_the_entries(monkeypatch: pytest.MonkeyPatch, *, is_again: bool) -> None:
    """Neither the first time, when the old entry stays or goes, nor where a superseding entry goes."""
    items = [directory(b"etc"), regular(b"etc/hostname", b"old"), regular(b"etc/other", b"other")]
    items += [regular(b"etc/hostname", b"later")] * is_again
    layer = read_layer(items)
    expected = read_layer(items)
    monkeypatch.setattr(edit, "select_kept", None)
    for superseding in (Superseding(), Superseding(paths=frozenset([b"etc/hostname"]))):
        edits = make_edits({b"etc/hostname"}, [b"etc/hostname"], superseding)
        quick = outcome(layer, edits)
        monkeypatch.undo()
        with patch.object(edit, "find_dropped", lambda *_: None):
            assert quick == outcome(expected, edits)
        monkeypatch.setattr(edit, "select_kept", None)
    assert not list(_walked(layer, {b"etc/hostname"})), "nor for the memory that it takes"


def _walked(layer: Layer, removed: set[bytes]) -> Iterator[bytes]:
    if layer.removed_inodes(removed) is None:
        yield from layer.paths
