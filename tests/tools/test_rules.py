"""What leaves, whose things are, what may replace what: patterns, whiteouts, owners, modes, made things."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.errors import OverlayError, Place, UsageError
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.ownership import Mode, Owner, parse_owner
from cosremaster.overlay.patterns import Pattern, join_patterns
from cosremaster.overlay.request import (
    DEFAULT_MTIME,
    AddPath,
    Directory,
    InlineFile,
    OverlayItem,
    OwnershipRule,
    Symlink,
)
from cosremaster.overlay.whiteouts import split_whiteouts
from cosremaster.tree.nodes import Action, Node, NodeKind
from tests.fixtures.tools import require, run
from tests.support.additions import context, read_addition
from tests.support.overlays import (
    ADDED,
    IMAGE,
    PARENT,
    REPLACED,
    directory,
    file,
    folder_of,
    merged,
    reasons,
    single_node,
    symlink,
)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"etc/motd", [b"etc/motd"], [b"etc/motd2", b"etc", b"x/etc/motd"]),
        (b"/etc/./motd/", [b"etc/motd"], []),
        (b"etc/*", [b"etc/motd", b"etc/.x", b"etc/"], [b"etc", b"etc/a/b"]),
        (b"usr/**/x", [b"usr/x", b"usr/a/x", b"usr/a/b/x"], [b"usr/ax", b"usr/a/xx"]),
        (b"usr/**", [b"usr/x", b"usr/x/y"], [b"usr", b"usr2/x"]),
        (b"**.pyc", [b"a.pyc", b"x/y.pyc"], [b"a.py"]),
        (b"**/x", [b"x", b"a/x"], [b"ax"]),
        (b"a?c", [b"abc", b"a\xffc", b"a\nc"], [b"a/c", b"ac"]),
        (rb"a\*\?\\", [rb"a*?" + b"\\"], [b"abc"]),
        (b"usr/bin/[", [b"usr/bin/["], []),
        (b"a.b+", [b"a.b+"], [b"axb", b"a.bb"]),
    ],
)
def test_patterns(pattern: bytes, matching: Sequence[bytes], others: Sequence[bytes]) -> None:
    made = Pattern(pattern)
    assert [path for path in matching if not made.matches(path)] == []
    assert [path for path in others if made.matches(path)] == []


def test_joined_patterns_match_what_one_of_them_does() -> None:
    patterns = [Pattern(text) for text in (b"var/*", b"**/*.old", b"etc/[a]|b", b"x|y")]
    is_matched = join_patterns(patterns)
    for path in (
        b"",
        b"var",
        b"var/a",
        b"var/a/b",
        b"a.old",
        b"b/c/a.old",
        b"etc/[a]|b",
        b"etc/[a]",
        b"b",
        b"x",
        b"x|y",
    ):
        assert bool(is_matched(path)) == any(pattern.matches(path) for pattern in patterns), path


@pytest.mark.parametrize("text", [b"../x", b"a/..", b"a\\", b"a\0b", b"a\\\\\\"])
def test_patterns_that_make_no_sense_are_refused(text: bytes) -> None:
    with pytest.raises(UsageError, match=r"^pattern a?"):
        Pattern(text)


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        (b"/usr/bin/*", {b"usr/bin/sh"}),
        (b"bin/s*", {b"usr/bin/sh"}),  # the part before the first wildcard is followed as in a chroot
        (b"sbin/**", {b"usr/bin/sh"}),
        (b"*in", {b"bin", b"sbin"}),  # a symlink that fits leaves, not what it leads to
        (b"v*", {b"var", b"var/log", b"var/up"}),
        (b"**/log", {b"var/log"}),
        (b"var/**", {b"var/log", b"var/up"}),
        (b"loop?", {b"loop1", b"loop2"}),
    ],
)
def test_what_fits_leaves_with_what_is_in_it(pattern: bytes, gone: set[bytes]) -> None:
    edits = merged(remove=[pattern])
    assert edits.removed_paths == gone and not edits.additions
    assert set(edits.removed) == {path for path in gone if path.rpartition(b"/")[0] not in gone}


def test_a_pattern_that_fits_nothing() -> None:
    with pytest.raises(
        OverlayError, match=r"» etc/x\*: cannot be removed: nothing fits this pattern \(--allow-missing"
    ):
        merged(remove=[b"etc/x*"])
    with pytest.raises(OverlayError, match=r"nothing fits this pattern"):
        merged(remove=[b"gone/**"])
    edits = merged(folder_of(file(b"etc/x1")), remove=[b"etc/x*", b"nothing"], allow_missing=True)
    assert reasons(edits) == {b"etc/x1": ADDED} and not edits.removed


def test_everything_may_leave() -> None:
    root = Node(path=b"", kind=NodeKind.DIRECTORY, mode=0o755)
    edits = merged(remove=[b"**"], image=(root, *IMAGE))
    assert edits.removed_paths == {node.path for node in IMAGE}, "the root stays"


def test_a_removed_directory_that_comes_back_as_it_was_stays() -> None:
    image = (directory(b"etc"), file(b"etc/motd", b"hello\n"), file(b"etc/other"))
    same = Node(path=b"etc", kind=NodeKind.DIRECTORY, mode=0o755, uid=7)
    edits = merged(folder_of(same, file(b"etc/motd", b"hello\n")), image=image, remove=[b"etc"])
    assert edits.removed_paths == {b"etc/other"} and not edits.additions
    assert edits.removed == (b"etc/other",) and edits.unchanged == (b"etc/motd",)


def whited(*names: bytes, dest: bytes = b"", more: Sequence[Node] = ()) -> Addition:
    warnings: list[str] = []
    split = split_whiteouts([*(file(name, b"") for name in names), *more], Place(("overlay",)), warnings.append)
    assert not warnings
    return Addition(split.nodes, dest, False, False, "overlay", split.hidden_paths, split.opaque_directories)


@pytest.mark.parametrize(
    ("whiteout", "dest", "gone"),
    [
        (b"etc/.wh.motd", b"", {b"etc/motd"}),
        (b".wh.var", b"", {b"var", b"var/log", b"var/up"}),
        (b"bin/.wh.sh", b"", {b"usr/bin/sh"}),
        (b".wh.bin", b"", {b"bin"}),
        (b".wh.sh", b"sbin", {b"usr/bin/sh"}),
        (b"etc/.wh.nothing", b"", set()),
        (b"none/.wh.x", b"", set()),
        (b"dangling/.wh.x", b"", set()),
        (b"var/.wh..wh..opq", b"", {b"var/log", b"var/up"}),
        (b"usr/sbin/.wh..wh..opq", b"", {b"usr/bin/sh"}),
        (b"etc/motd/.wh..wh..opq", b"", set()),
    ],
)
def test_whiteouts_hide_what_lies_below(whiteout: bytes, dest: bytes, gone: set[bytes]) -> None:
    edits = merged(whited(whiteout, dest=dest))
    assert edits.removed_paths == gone and not edits.additions


def test_whiteouts_do_not_hide_what_their_own_overlay_brings() -> None:
    edits = merged(whited(b"etc/.wh.motd", more=[file(b"etc/motd", b"mine")]))
    assert reasons(edits) == {b"etc/motd": REPLACED} and not edits.removed
    edits = merged(whited(b"var/.wh..wh..opq", more=[directory(b"var"), file(b"var/new")]))
    assert reasons(edits) == {b"var/new": ADDED} and edits.removed == (b"var/log", b"var/up")


def test_whiteouts_hide_what_earlier_overlays_brought() -> None:
    edits = merged(folder_of(file(b"opt/a"), file(b"opt/b"), file(b"etc/x")), whited(b"opt/.wh..wh..opq", b"etc/.wh.x"))
    assert reasons(edits) == {b"opt": PARENT}
    edits = merged(
        folder_of(directory(b"opt"), file(b"opt/a")), whited(b".wh.opt"), folder_of(file(b"opt", b"now a file"))
    )
    assert reasons(edits) == {b"opt": ADDED}


def test_an_opaque_directory_that_brings_the_same_changes_nothing() -> None:
    image = (directory(b"conf"), directory(b"conf/sub"), file(b"conf/sub/x", b"same"), file(b"conf/y", b"same"))
    again = whited(
        b"conf/.wh..wh..opq", more=[directory(b"conf/sub"), file(b"conf/sub/x", b"same"), file(b"conf/y", b"same")]
    )
    edits = merged(again, image=image)
    assert edits.is_empty and edits.unchanged == (b"conf/sub/x", b"conf/y")


@pytest.mark.parametrize("name", [b".wh.b/c", b"a/.wh.b/c", b"a/.wh.b/d/.wh.c"])
def test_what_is_in_a_whiteout_is_refused(name: bytes) -> None:
    """An archive need not have an entry for the directory."""
    with pytest.raises(OverlayError, match=r"cannot be added: it is in a whiteout, which is an empty file$"):
        whited(name)
    assert whited(b"a/x.wh.b/c")


@pytest.mark.parametrize("name", [b".wh.", b"a/.wh..", b".wh..."])
def test_a_whiteout_of_no_name_is_refused(name: bytes) -> None:
    with pytest.raises(OverlayError, match=r"^overlay » \S*\.wh\S*: cannot be added: a whiteout that hides no name$"):
        whited(name)
    with pytest.raises(OverlayError, match=r"a whiteout is an empty file, and this is a directory$"):
        split_whiteouts([directory(b".wh.x")], Place(("overlay",)), print)


def test_names_reserved_for_other_whiteouts_are_left_out_and_told() -> None:
    warnings: list[str] = []
    split = split_whiteouts([file(b".wh..wh.plnk"), file(b"x")], Place(("overlay",)), warnings.append)
    assert [node.path for node in split.nodes] == [b"x"]
    assert warnings == [
        "overlay » .wh..wh.plnk: this name is reserved for whiteouts that are not known; it is left out"
    ]


def test_whiteouts_of_a_folder_on_disk(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("etc/.wh.motd", "etc/.wh..wh..opq", "etc/keep"):
        (tmp_path / name).write_text("")
    read, _ = read_addition(AddPath(tmp_path), context())
    assert (read.hidden_paths, read.opaque_directories) == ((b"etc/motd",), (b"etc",))
    assert [node.path for node in read.nodes] == [b"etc", b"etc/keep"]
    (tmp_path / ".wh.single").write_text("")
    single, _ = read_addition(AddPath(tmp_path / ".wh.single", "/etc/"), context())
    assert single.nodes[0].path == b".wh.single", "a file that is named by the user is that file"


def test_force_type() -> None:
    edits = merged(folder_of(directory(b"etc/motd"), file(b"etc/motd/x")), force_type=True)
    assert reasons(edits) == {b"etc/motd": REPLACED, b"etc/motd/x": ADDED}
    edits = merged(folder_of(file(b"var")), force_type=True)
    assert reasons(edits) == {b"var": REPLACED} and edits.removed_paths == {b"var", b"var/log", b"var/up"}
    edits = merged(single_node(file(b"note"), b"etc/motd", into=True), force_type=True)
    assert reasons(edits) == {b"etc/motd": REPLACED, b"etc/motd/note": ADDED}
    assert {node.path: node.kind for node, _ in edits.additions}[b"etc/motd"] is NodeKind.DIRECTORY
    edits = merged(folder_of(symlink(b"usr/bin", b"x")), force_type=True)
    assert reasons(edits) == {b"usr/bin": REPLACED} and b"usr/bin/sh" in edits.removed_paths
    for bad in (b"loop1/x", b"dangling/x"):
        with pytest.raises(OverlayError):
            merged(folder_of(file(bad)), force_type=True)


def test_a_directory_of_its_own_counts_more_than_one_made_for_what_is_below_it() -> None:
    """An archive may name a directory after what is in it."""
    edits = merged(folder_of(file(b"opt/x"), directory(b"opt", 0o700)))
    assert [(node.path, node.mode, why) for node, why in edits.additions] == [
        (b"opt", 0o700, Action.ADDED),
        (b"opt/x", 0o644, Action.ADDED),
    ]


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("root", Owner(0, 0)),
        ("source", None),
        ("SOURCE", None),
        ("0:0", Owner(0, 0)),
        ("1000:4294967295", Owner(1000, 4294967295)),
    ],
)
def test_owners(text: str, owner: Owner | None) -> None:
    assert parse_owner(text) == owner


@pytest.mark.parametrize("text", ["", "joe", "1000", "1000:", ":1", "1:2:3", "-1:0", "1:4294967296", "²:1", "1 :2"])
def test_owners_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^owner '.*: root, source or two numbers as in 1000:1000 are wanted$"):
        parse_owner(text)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        (0o640, 0o4755, 0o640),
        ("0640", 0o777, 0o640),
        ("4755", 0, 0o4755),
        ("u+x", 0o644, 0o744),
        ("+x", 0o644, 0o755),
        ("go-rwx", 0o4755, 0o4700),
        ("u=rw,go=r", 0o7777, 0o644),
        ("a=rX", 0o600, 0o444),
        ("a=rX", 0o700, 0o555),
        ("u+s,+t", 0o755, 0o5755),
        ("g=u", 0o640, 0o660),
        ("u=rwx-x", 0o0, 0o600),
        ("ug+w,o=", 0o445, 0o660),
    ],
)
def test_modes(text: str | int, before: int, after: int) -> None:
    assert Mode(text).apply(before, directory=False) == after


CLAUSES = st.builds(
    lambda who, steps: who + "".join(sign + what for sign, what in steps),
    st.sampled_from(["", "u", "g", "o", "a", "ug", "go", "uo", "ao"]),
    st.lists(
        st.tuples(
            st.sampled_from("+-="), st.sampled_from(["", "r", "w", "x", "X", "rw", "rwX", "s", "t", "st", *"ugo"])
        ),
        min_size=1,
        max_size=3,
    ),
)


@settings(max_examples=150, deadline=None)
@given(clauses=st.lists(CLAUSES, min_size=1, max_size=3), before=st.integers(0, 0o7777))
def test_modes_are_what_chmod_makes_of_them(clauses: list[str], before: int) -> None:
    require("chmod")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_text("")
        path.chmod(before)
        text = ",".join(clauses)
        run(["sh", "-c", 'umask 0; exec chmod -- "$1" "$2"', "sh", text, path])
        assert Mode(text).apply(before, directory=False) == path.stat().st_mode & 0o7777


def test_modes_of_directories() -> None:
    assert Mode("a=rX").apply(0o700, directory=True) == 0o555
    assert Mode("go-w,+X").apply(0o666, directory=True) == 0o755


@pytest.mark.parametrize("text", ["", "9", "12345", "77777", "u", "u+q", "x+u", ",", "u+x,", -1, 0o10000])
def test_modes_that_make_no_sense_are_refused(text: str | int) -> None:
    with pytest.raises(UsageError, match=r"^mode "):
        Mode(text)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/su").write_text("#!\n")
    (tmp_path / "bin/su").chmod(0o4755)
    (tmp_path / "keys").write_text("x")
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o3777)
    (tmp_path / "link").symlink_to("keys")
    return tmp_path


def styled(item: OverlayItem) -> tuple[dict[bytes, tuple[int, int, int]], tuple[str, ...]]:
    read, warnings = read_addition(item, context())
    return {node.path: (node.mode, node.uid, node.gid) for node in read.nodes}, warnings


def test_root_owns_what_is_added_and_set_id_bits_are_dropped(site: Path) -> None:
    found, warnings = styled(AddPath(site))
    assert found == {
        b"bin": (0o755, 0, 0),
        b"bin/su": (0o755, 0, 0),
        b"keys": (0o644, 0, 0),
        b"link": (0o777, 0, 0),
        b"spool": (0o1777, 0, 0),
    }
    said = "its set-user-ID or set-group-ID bit is not taken over"
    assert warnings == (f"{site} » bin/su: {said}", f"{site} » spool: {said}")


def test_owner_mode_and_setuid_when_asked(site: Path) -> None:
    me = (os.geteuid(), os.getegid())
    found, warnings = styled(AddPath(site, owner="source", setuid=True))
    assert found[b"bin/su"] == (0o4755, *me) and found[b"spool"] == (0o3777, *me) and not warnings
    found, _ = styled(AddPath(site, owner="5:6", mode="go-rwx"))
    assert found[b"bin/su"] == (0o700, 5, 6) and found[b"link"] == (0o777, 5, 6)
    assert found[b"bin"] == (0o755, 5, 6), "the mode is for regular files"
    if os.geteuid() == 0:
        os.chown(site / "keys", 1234, 5678)
        assert styled(AddPath(site / "keys", "/etc/", owner="source"))[0] == {b"keys": (0o644, 1234, 5678)}


@pytest.mark.parametrize(
    "item", [AddPath("x", owner=""), AddPath("x", mode=""), AddPath("x", rules=(OwnershipRule("/x", owner=""),))]
)
def test_nothing_is_no_owner_and_no_mode(site: Path, item: AddPath) -> None:
    with pytest.raises(UsageError, match=r"^(owner|mode) ''"):
        styled(replace(item, source=site))


def test_of_rules_the_last_that_matches_wins(site: Path) -> None:
    rules = (
        OwnershipRule("/opt/**", owner="1:1", mode=0o600, directory_mode=0o700),
        OwnershipRule("/opt/bin/*", mode="u=rwxs,go=rx"),
        OwnershipRule("/opt/keys", owner="source"),
        OwnershipRule("/keys", owner="9:9"),
    )
    found, warnings = styled(AddPath(site, "/opt", rules=rules))
    assert found == {
        b"bin": (0o700, 1, 1),
        b"bin/su": (0o4755, 1, 1),
        b"keys": (0o600, os.geteuid(), os.getegid()),
        b"link": (0o777, 1, 1),
        b"spool": (0o700, 1, 1),
    }
    assert warnings[-1] == f"--add {site}: no path fits the rule /keys"
    for dest in ("/etc", "/etc/", "/etc/keys"):
        found, warnings = styled(AddPath(site / "keys", dest, rules=(OwnershipRule("/etc/keys", mode=0o400),)))
        assert found == {b"keys": (0o400, 0, 0)} and not warnings


PACKERS = {
    "sqfs": "mksquashfs image image.sqfs -quiet -no-progress",
    "tar": "tar -C image -cf image.tar .",
    "cpio": "cd image && find . | cpio -o -H newc --quiet > ../image.cpio",
}
LISTERS = {
    "sqfs": "unsquashfs -lln out.sqfs",
    "tar": "tar -tv --numeric-owner -f out.tar",
    "cpio": "cpio -itvn --quiet < out.cpio",
}


@pytest.mark.parametrize("form", PACKERS)
def test_names_of_a_file_that_get_other_owners_or_modes_are_files_of_their_own(form: str, tmp_path: Path) -> None:
    require("mksquashfs", "unsquashfs", "tar", "cpio", "sh")
    for name in ("image", "site"):
        (tmp_path / name).mkdir()
    (tmp_path / "image/init").write_text("init")
    (tmp_path / "site/a").write_text("data")
    for name in ("b", "c"):
        os.link(tmp_path / "site/a", tmp_path / f"site/{name}")
    run(["sh", "-c", PACKERS[form]], cwd=tmp_path)
    rule = OwnershipRule("/one/b", owner="5:6", mode=0o640)
    items = [
        AddPath(tmp_path / "site", "/one", owner="1:2", rules=(rule,)),
        AddPath(tmp_path / "site", "/two", owner="3:4", mode=0o600),
    ]
    cosremaster.remaster(tmp_path / f"image.{form}", tmp_path / f"out.{form}", add=items)
    lines = os.fsdecode(run(["sh", "-c", LISTERS[form]], cwd=tmp_path)).splitlines()
    pattern = re.compile(r"[-h](\S{9})(?: +\d)? +(\d+)[ /]+(\d+) .*?((?:one|two)/[abc])\b")
    files = {match[4]: (match[1], f"{match[2]}:{match[3]}") for line in lines if (match := pattern.match(line))}
    assert files == {
        "one/a": ("rw-r--r--", "1:2"), "one/b": ("rw-r-----", "5:6"), "one/c": ("rw-r--r--", "1:2"),
        "two/a": ("rw-------", "3:4"), "two/b": ("rw-------", "3:4"), "two/c": ("rw-------", "3:4"),
    }  # fmt: skip
    with cosremaster.open(tmp_path / f"out.{form}") as image:
        image.extract("", tmp_path / "unpacked")
    links = [(tmp_path / "unpacked" / path).stat().st_nlink for path in sorted(files)]
    assert links == [2, 1, 2, 3, 3, 3]


def test_a_directory_that_is_there_keeps_its_owner_and_mode(site: Path) -> None:
    read, _ = read_addition(AddPath(site, owner="5:6", rules=(OwnershipRule("/usr", directory_mode=0o700),)), context())
    image = (directory(b"bin"), directory(b"spool"))
    assert set(reasons(merged(read, image=image))) == {b"bin/su", b"keys", b"link"}


@pytest.mark.parametrize(
    ("mode", "owner", "same"),
    [(0o755, (0, 0), True), (0o4755, (0, 0), False), (0o755, (0, 1), False), (0o711, (0, 0), False)],
)
def test_owner_and_mode_make_a_difference(mode: int, owner: tuple[int, int], same: bool) -> None:
    old = file(b"su", b"same", 0o755)
    new = Node(path=b"su", kind=NodeKind.FILE, mode=mode, uid=owner[0], gid=owner[1], content=old.content)
    assert merged(folder_of(new), image=[old]).is_empty is same


def test_things_made_from_nothing() -> None:
    items = (
        InlineFile("/etc/motd", b"hello\n"),
        InlineFile("/root/.ssh/keys", b"key", mode="0600", owner="0:5", mtime=77),
        Symlink("/etc/systemd/system/x.wants/y", "../y"),
        Directory("/var/spool/x/", mode=0o1777, owner="9:9"),
    )
    found = [read_addition(item, context())[0].nodes[0] for item in items]
    facts = [(node.path, node.kind, node.mode, node.uid, node.gid, node.mtime, node.target) for node in found]
    assert facts == [
        (b"etc/motd", NodeKind.FILE, 0o644, 0, 0, DEFAULT_MTIME, b""),
        (b"root/.ssh/keys", NodeKind.FILE, 0o600, 0, 5, 77, b""),
        (b"etc/systemd/system/x.wants/y", NodeKind.SYMLINK, 0o777, 0, 0, DEFAULT_MTIME, b"../y"),
        (b"var/spool/x", NodeKind.DIRECTORY, 0o1777, 9, 9, DEFAULT_MTIME, b""),
    ]
    assert found[0].content is not None and b"".join(found[0].content.table().chunks()) == b"hello\n"
    assert read_addition(InlineFile("/x", b""), context(newest=123))[0].nodes[0].mtime == 123
    edits = merged(*(read_addition(item, context())[0] for item in items))
    assert reasons(edits)[b"var/spool"] == PARENT and edits.unchanged == (b"etc/motd",)


def test_a_directory_that_was_asked_for_with_another_mode_is_warned_about() -> None:
    def asked(item: Directory) -> tuple[str, ...]:
        edits = merged(read_addition(item, context())[0])
        assert edits.is_empty
        return edits.warnings

    assert asked(Directory("/bin", mode=0o711, owner="7:0")) == ()
    told = ("usr/bin is there already: it keeps its mode 0711 and owner 7:0",)
    assert asked(Directory("/usr/bin", mode=0o711)) == asked(Directory("/usr/bin", 0o700, "7:0")) == told


def test_things_made_from_nothing_are_named_by_where_they_go() -> None:
    read, _ = read_addition(InlineFile("/var", b"x"), context())
    with pytest.raises(OverlayError, match=r"» var: the file /var cannot go over this directory, which is not empty"):
        merged(read)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (InlineFile("etc/x", b""), r"^the file etc/x: DEST must be an absolute path without \.\.$"),
        (Symlink("/../x", "y"), r"DEST must be an absolute path"),
        (Symlink("/x", "a\0b"), r"^/x: no symlink can lead to a\\x00b$"),
        (InlineFile("/x/", b""), r"^the file /x/: only the path of a directory ends in a slash$"),
        (Symlink("/x/.", "y"), r"^the symlink /x/\.: only the path of a directory ends in a slash$"),
        (Directory("/"), r"^/: the root directory cannot be made$"),
        (InlineFile("/x", b"", owner="source"), r"^/x: it has no source that could tell its owner$"),
        (InlineFile("/x", b"", mode="rw"), r"^mode 'rw'"),
    ],
)
def test_things_that_cannot_be_made_are_refused(item: OverlayItem, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_addition(item, context())
