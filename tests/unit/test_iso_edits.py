"""New paths of what edits remove and rename, as the rule says it: the longest path counts."""

from __future__ import annotations

import random

from cosremaster.iso.edits import IsoEdits
from cosremaster.tree.paths import ancestors


def new_path(edits: IsoEdits, old: bytes) -> bytes | None:
    """The rule, path by path."""
    for path in (old, *reversed(list(ancestors(old)))):
        if path in edits.removed:
            return None
        if path in edits.renamed:
            return edits.renamed[path] + old[len(path) :]
    return old


def test_new_paths() -> None:
    chance = random.Random(3)

    def path() -> bytes:
        return b"/".join(chance.choice([b"a", b"b", b"aa", b"a b"]) for _ in range(chance.randrange(1, 5)))

    kinds = set[str]()
    for _ in range(3000):
        removed = tuple(path() for _ in range(chance.randrange(4)))
        renamed = {old: path() for old in (path() for _ in range(chance.randrange(4))) if old not in removed}
        edits, old = IsoEdits(removed=removed, renamed=renamed), path()
        new = edits.new_path(old)
        assert new == new_path(edits, old)
        kinds.add("removed" if new is None else "same" if new == old else "renamed")
    assert kinds == {"removed", "same", "renamed"}


def test_where_new_paths_may_be_others() -> None:
    """No path that gets another one is in a directory of which that is not said; and few other directories are."""
    chance = random.Random(4)
    names = [b"a", b"b", b"aa", b"a b", b"c"]
    refused = 0
    for _ in range(3000):
        paths = [b"/".join(chance.choice(names) for _ in range(chance.randrange(1, 5))) for _ in range(8)]
        removed = tuple(paths[: chance.randrange(3)])
        edits = IsoEdits(removed=removed, renamed=dict([(paths[3], b"x")] if chance.random() < 0.4 else []))
        for path in paths[4:]:
            for end in {0, *(at + 1 for at, letter in enumerate(path) if letter == ord("/"))}:
                may_change = edits.may_change_in(path[:end])  # a name may hold a slash
                assert may_change or edits.new_path(path) == path
                refused += not may_change
    assert refused > 3000
    assert not IsoEdits().may_change_in(b"") and not IsoEdits().may_change_in(b"a/")
