"""The rules by which additions are laid over an image: what goes where, what stays, what is refused."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from cosremaster.errors import OverlayError, SizeError, UsageError
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.request import AddPath
from cosremaster.overlay.scan import SourceScan, scan_source
from cosremaster.records import replace
from cosremaster.tree.nodes import Action, Node, NodeKind
from tests.support.additions import context, read_addition, read_additions
from tests.support.overlays import (
    ADDED,
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
from tests.support.user import open_folder, without_root


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        (b"etc/new", b"etc/new"),
        (b"bin/tool", b"usr/bin/tool"),
        (b"sbin/tool", b"usr/bin/tool"),  # absolute, then relative to where the second link stands
        (b"var/up/x", b"etc/x"),  # .. at the root stays inside
        (b"var/up/../usr/x", b"usr/x"),
        (b"usr/sbin/tool", b"usr/bin/tool"),
    ],
)
def test_symlinks_in_parents_are_followed_as_in_a_chroot(asked: bytes, written: bytes) -> None:
    edits = merged(folder_of(file(asked)))
    assert reasons(edits) == {written: ADDED}
    assert not edits.removed_paths and not edits.unchanged


def test_dot_dot_after_a_symlink_counts_from_where_it_leads() -> None:
    image = (directory(b"a"), directory(b"a/b"), directory(b"c"), symlink(b"c/l", b"/a/b"), symlink(b"m", b"c/l/../"))
    assert reasons(merged(folder_of(file(b"m/x")), image=image)) == {b"a/x": ADDED}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (b"loop1/x", r"^in\.iso » rootfs\.cxz » loop1: symlinks lead in a loop$"),
        (
            b"dangling/x",
            r"» dangling: overlay » dangling/x cannot be added as dangling/x: the symlink leads to gone,",
        ),
        (
            b"etc/motd/x",
            r"^in\.iso » rootfs\.cxz » etc/motd: overlay » etc/motd/x cannot be added as etc/motd/x: this is a file",
        ),
        (b"tofile/x", r"» etc/motd: overlay » tofile/x cannot be added as tofile/x: this is a file"),
    ],
)
def test_a_parent_that_leads_nowhere_is_refused_by_name(asked: bytes, message: str) -> None:
    for node in (file(asked), directory(asked), symlink(asked, b"x")):
        with pytest.raises(OverlayError, match=message):
            merged(folder_of(node))


def test_a_directory_over_a_symlink_merges_through_it_or_is_refused() -> None:
    edits = merged(folder_of(directory(b"bin"), file(b"bin/tool")))
    assert reasons(edits) == {b"usr/bin/tool": ADDED}
    for bad in (b"dangling", b"loop2", b"tofile"):
        with pytest.raises(OverlayError, match=rf"^in\.iso » rootfs\.cxz » \S*({bad.decode()}|motd): "):
            merged(folder_of(directory(bad)))


def test_a_missing_parent_is_made_once_with_the_mtime_of_who_first_needs_it() -> None:
    edits = merged(folder_of(file(b"opt/a/one", mtime=70), file(b"opt/b", mtime=60)))
    assert reasons(edits) == {b"opt": PARENT, b"opt/a": PARENT, b"opt/a/one": ADDED, b"opt/b": ADDED}
    made = {node.path: node for node, why in edits.additions if why is Action.PARENT}
    for node in made.values():
        assert (node.kind, node.mode, node.uid, node.gid, node.mtime) == (NodeKind.DIRECTORY, 0o755, 0, 0, 70)


def test_a_missing_parent_below_a_symlink_is_made_where_that_leads() -> None:
    assert reasons(merged(folder_of(file(b"bin/new/tool")))) == {b"usr/bin/new": PARENT, b"usr/bin/new/tool": ADDED}


def test_an_existing_directory_keeps_its_header() -> None:
    edits = merged(folder_of(directory(b"usr", 0o700, 99), directory(b"usr/bin", 0o700, 99)))
    assert edits.is_empty and not edits.unchanged


def test_a_new_directory_keeps_the_mode_of_its_source() -> None:
    edits = merged(folder_of(directory(b"spool", 0o1777)))
    assert [(node.path, node.mode) for node, _ in edits.additions] == [(b"spool", 0o1777)]


@pytest.mark.parametrize(
    "new", [file(b"dangling"), symlink(b"dangling", b"/other"), file(b"bin"), symlink(b"tofile", b"x")]
)
def test_a_symlink_is_replaced_by_a_non_directory_of_just_its_name(new: Node) -> None:
    edits = merged(folder_of(new))
    assert reasons(edits) == {new.path: REPLACED}
    assert edits.removed_paths == {new.path}


def test_types_that_do_not_agree_are_refused() -> None:
    with pytest.raises(
        OverlayError, match=r"» etc/motd: the directory overlay » etc/motd cannot go over this file \(--force-type"
    ):
        merged(folder_of(directory(b"etc/motd")))
    with pytest.raises(
        OverlayError, match=r"» var: the file overlay » var cannot go over this directory, which is not empty \("
    ):
        merged(folder_of(file(b"var")))
    with pytest.raises(
        OverlayError, match=r"» usr/bin: the symlink overlay » sbin/../bin cannot go over this directory"
    ):
        merged(folder_of(symlink(b"sbin/../bin", b"x")))
    with pytest.raises(
        OverlayError, match=r"» new: the file overlay » new cannot go over this directory, which is not empty \("
    ):
        merged(folder_of(file(b"new/x")), folder_of(file(b"new")))


@pytest.mark.parametrize("new", [file(b"empty"), symlink(b"empty", b"etc")])
def test_an_empty_directory_is_replaced(new: Node) -> None:
    edits = merged(folder_of(new))
    assert reasons(edits) == {b"empty": REPLACED}
    assert edits.removed_paths == {b"empty"}


def test_a_directory_emptied_by_removal_may_be_replaced() -> None:
    edits = merged(folder_of(file(b"var")), remove=[b"var/log", b"var/up"])
    assert reasons(edits) == {b"var": REPLACED}
    assert edits.removed_paths == {b"var", b"var/log", b"var/up"}


@pytest.mark.parametrize(
    ("new", "same"),
    [
        (file(b"etc/motd", b"hello\n", mtime=999), True),
        (file(b"etc/motd", b"hello!", mtime=50), False),
        (file(b"etc/motd", b"hallo\n"), False),
        (file(b"etc/motd", b"hello\n", 0o600), False),
        (symlink(b"etc/motd", b"hello\n"), False),
        (symlink(b"bin", b"usr/bin"), True),
        (symlink(b"bin", b"usr/sbin"), False),
        (file(b"bin/sh", b"\x7fELF", 0o755), True),  # the image's set-user-ID bit is no permission bit, and stays
    ],
)
def test_what_is_identical_is_left_alone(new: Node, same: bool) -> None:
    edits = merged(folder_of(new))
    path = b"usr/bin/sh" if new.path == b"bin/sh" else new.path
    assert edits.unchanged == ((path,) if same else ())
    assert reasons(edits) == ({} if same else {path: REPLACED})
    assert edits.is_empty is same and edits.removed_paths == (frozenset() if same else {path})


def test_devices_are_identical_by_number() -> None:
    node = Node(path=b"dev", kind=NodeKind.CHAR, mode=0o600, rdev=(5, 1))
    assert merged(folder_of(node), image=[node]).unchanged == (b"dev",)
    assert reasons(merged(folder_of(replace(node, rdev=(5, 2))), image=[node])) == {b"dev": REPLACED}


def test_a_later_addition_wins() -> None:
    edits = merged(folder_of(file(b"etc/x", b"1"), file(b"etc/motd", b"1")), folder_of(file(b"x", b"2"), dest=b"etc"))
    assert reasons(edits) == {b"etc/x": ADDED, b"etc/motd": REPLACED}
    assert {node.path: node.content.head(9) for node, _ in edits.additions if node.content}[b"etc/x"] == b"2"
    back = merged(folder_of(file(b"etc/motd", b"1")), folder_of(file(b"etc/motd", b"hello\n")))
    assert back.is_empty and back.unchanged == (b"etc/motd",)


def test_a_later_addition_goes_through_a_symlink_of_an_earlier_one() -> None:
    edits = merged(folder_of(symlink(b"link", b"etc")), folder_of(file(b"link/x")))
    assert reasons(edits) == {b"etc/x": ADDED, b"link": ADDED}


@pytest.mark.parametrize(
    ("dest", "into", "written"),
    [
        (b"etc", False, b"etc/note"),  # a directory of the image
        (b"sbin", False, b"usr/bin/note"),  # the same through symlinks
        (b"sbin", True, b"usr/bin/note"),
        (b"", True, b"note"),
        (b"etc/name", False, b"etc/name"),
        (b"bin/name", False, b"usr/bin/name"),
        (b"opt/sub", True, b"opt/sub/note"),
        (b"opt/sub", False, b"opt/sub"),
        (b"dangling", False, b"dangling"),
    ],
)
def test_a_file_goes_into_a_directory_or_is_called_dest(dest: bytes, into: bool, written: bytes) -> None:
    edits = merged(single_node(file(b"note"), dest, into=into))
    assert {path for path, why in reasons(edits).items() if why != PARENT} == {written}


def test_a_missing_dest_with_a_slash_is_made() -> None:
    edits = merged(single_node(file(b"note", mtime=33), b"opt/sub", into=True))
    assert reasons(edits) == {b"opt": PARENT, b"opt/sub": PARENT, b"opt/sub/note": ADDED}
    assert {node.mtime for node, _ in edits.additions} == {33}
    with pytest.raises(OverlayError, match="this is a file, no directory"):
        merged(single_node(file(b"note"), b"etc/motd", into=True))


def test_dest_may_be_a_directory_that_an_earlier_addition_brought() -> None:
    edits = merged(folder_of(directory(b"opt")), single_node(file(b"note"), b"opt"))
    assert reasons(edits) == {b"opt": ADDED, b"opt/note": ADDED}


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o755, False), (0o611, False)])
def test_a_script_that_cannot_run_is_warned_about(mode: int, warned: bool) -> None:
    edits = merged(folder_of(file(b"etc/run", b"#!/bin/sh\n", mode), file(b"etc/data", b"# !")))
    assert edits.warnings == (("etc/run begins with #! but is not executable",) if warned else ())
    assert not merged(folder_of(file(b"script", b"#!/bin/sh\n"))).warnings, "it was so before"


def test_removal() -> None:
    edits = merged(remove=[b"etc/motd", b"var", b"loop1"])
    assert edits.removed_paths == {b"etc/motd", b"var", b"var/log", b"var/up", b"loop1"}
    assert edits.removed == (b"etc/motd", b"loop1", b"var") and not edits.additions
    assert merged(remove=[b"bin/sh"]).removed_paths == {b"usr/bin/sh"}
    assert merged(remove=[b"bin"]).removed_paths == {b"bin"}, "the symlink, not what it leads to"


@pytest.mark.parametrize("missing", [b"nothing", b"etc/nothing", b"gone/x", b"dangling/x", b""])
def test_removing_what_is_not_there_is_refused(missing: bytes) -> None:
    with pytest.raises(OverlayError, match="cannot be removed: it is not there"):
        merged(remove=[missing])
    with pytest.raises(OverlayError, match=r"» etc/motd: cannot be removed: it is not there"):
        merged(remove=[b"etc/motd", b"etc/motd"])


def test_what_was_removed_may_come_back() -> None:
    edits = merged(folder_of(file(b"etc/motd", b"other")), remove=[b"etc/motd"])
    assert reasons(edits) == {b"etc/motd": REPLACED} and edits.removed == ()
    edits = merged(folder_of(directory(b"etc/motd"), file(b"etc/motd/x")), remove=[b"etc/motd"])
    assert reasons(edits) == {b"etc/motd": REPLACED, b"etc/motd/x": ADDED}


def test_a_removed_directory_that_comes_back_brings_its_files_anew() -> None:
    """The file is identical, but its entry would stand before that of its new directory."""
    edits = merged(folder_of(file(b"etc/motd", b"hello\n")), remove=[b"etc"])
    assert reasons(edits) == {b"etc": REPLACED, b"etc/motd": REPLACED}
    assert edits.removed_paths == {b"etc", b"etc/motd"}


def test_names_are_bytes() -> None:
    edits = merged(folder_of(file(b"caf\xe9/\xff\n", b"#!")))
    assert reasons(edits) == {b"caf\xe9": PARENT, b"caf\xe9/\xff\n": ADDED}
    assert edits.warnings == (r"caf\xe9/\xff\n begins with #! but is not executable",)


@pytest.mark.parametrize(
    ("text", "source", "dest"),
    [
        ("site/", "site/", None),
        ("install.sh:/root/", "install.sh", "/root/"),
        ("/a/b:/etc/motd", "/a/b", "/etc/motd"),
        ("odd:/name:/etc/x:y", "odd:/name", "/etc/x:y"),
        ("site:/", "site", "/"),
        ("C::/x", "C:", "/x"),
    ],
)
def test_add_is_split_at_the_last_colon_slash(text: str, source: str, dest: str | None) -> None:
    assert AddPath.parse(text) == AddPath(source, dest)


def test_a_colon_is_part_of_a_name_where_such_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="DEST begins with /, as in a:/b"):
        AddPath.parse("a:b")
    (tmp_path / "a:b").touch()
    assert AddPath.parse("a:b") == AddPath("a:b", None)


def test_a_colon_without_a_slash_belongs_to_a_name_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="DEST begins with /, as in a:/b"):
        AddPath.parse("a:b")
    (tmp_path / "a:b").write_bytes(b"")
    assert AddPath.parse("a:b") == AddPath("a:b", None)


@pytest.mark.parametrize("text", ["", ":/", ":/etc"])
def test_add_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="what should be added"):
        AddPath.parse(text)


def addition(source: Path, dest: str | None = None) -> Addition:
    return read_addition(AddPath(source, dest), context())[0]


def test_dest_of_a_file_and_of_a_directory(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text("x")
    for dest, path, into in (("/root/", b"root", True), ("//etc/./motd", b"etc/motd", False), ("/", b"", True)):
        read = addition(note, dest)
        assert (read.dest, read.is_single_file, read.into_directory, read.nodes[0].path) == (path, True, into, b"note")
    for dest in ("/opt/x", "/opt/x///"):
        read = addition(tmp_path, dest)
        assert (read.dest, read.is_single_file, read.into_directory) == (b"opt/x", False, False)
    assert reasons(merged(read)) == {b"opt": PARENT, b"opt/x": PARENT, b"opt/x/note": ADDED}
    assert addition(tmp_path).dest == b""
    with pytest.raises(UsageError, match=r"note: say where the file goes, as in .*note:/etc/"):
        addition(note)
    for bad in ("/../etc", "/etc/..", "etc/", "etc"):
        with pytest.raises(UsageError, match=r"DEST must be an absolute path without \.\."):
            addition(note, bad)
    with pytest.raises(SizeError, match=r"^/.*/note: 1 bytes do not fit a cpio archive"):
        read_addition(AddPath(note, "/etc/"), context(largest=0))


def test_additions_keep_their_order_and_bring_all_warnings(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("x")
    (tmp_path / "a").write_text("x")
    for name in ("a", "b"):
        (tmp_path / name).chmod(0o6755)
    found, warnings = read_additions([AddPath(tmp_path / name, "/") for name in ("b", "a")], context())
    assert [one.nodes[0].path for one in found] == [b"b", b"a"]
    said = "its set-user-ID or set-group-ID bit is not taken over"
    assert warnings == (f"{tmp_path}/b: {said}", f"{tmp_path}/a: {said}")
    assert [one.nodes[0].mode for one in found] == [0o755, 0o755]


def scanned(source: Path, newest: int | None = None) -> SourceScan:
    return scan_source(os.fsencode(source), newest)


def test_a_folder_is_scanned_sorted(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)
    os.mkdir(top + b"/b", 0o755)
    os.mkdir(top + b"/tmp")
    os.chmod(top + b"/tmp", 0o3777)
    os.mkfifo(top + b"/pipe", 0o600)
    os.symlink(b"/nowhere/\xff", top + b"/b/link")
    for name in (b"/b/x", b"/b.c", b"/b/caf\xe9"):
        with open(top + name, "wb") as file:
            file.write(b"text" + name)
        os.chmod(top + name, 0o640)
    found = scanned(tmp_path)
    assert not found.is_single_file
    me = (os.geteuid(), os.getegid())
    listed = [(node.path, node.kind, node.mode, node.uid, node.gid) for node in found.nodes]
    assert listed == [
        (b"b", NodeKind.DIRECTORY, 0o755, *me),
        (b"b.c", NodeKind.FILE, 0o640, *me),
        (b"b/caf\xe9", NodeKind.FILE, 0o640, *me),
        (b"b/link", NodeKind.SYMLINK, 0o777, *me),
        (b"b/x", NodeKind.FILE, 0o640, *me),
        (b"pipe", NodeKind.FIFO, 0o600, *me),
        (b"tmp", NodeKind.DIRECTORY, 0o3777, *me),
    ]
    by_path = {node.path: node for node in found.nodes}
    assert by_path[b"b/link"].target == b"/nowhere/\xff"
    content = by_path[b"b/caf\xe9"].content
    assert content is not None and b"".join(content.table().chunks()) == b"text/b/caf\xe9"
    assert content.digest() == hashlib.sha256(b"text/b/caf\xe9").digest() and content.head(3) == b"tex"


@pytest.mark.parametrize(
    ("mtime", "newest", "kept"),
    [(1000, None, 1000), (1000, 999, 999), (1000, 1001, 1000), (-5, None, 0), (1 << 33, None, 0xFFFFFFFF), (-5, 9, 0)],
)
def test_times_are_bounded(tmp_path: Path, mtime: int, newest: int | None, kept: int) -> None:
    (tmp_path / "x").write_text("x")
    os.symlink("x", tmp_path / "y")
    for name in ("x", "y"):
        os.utime(tmp_path / name, (0, mtime), follow_symlinks=False)
    assert [node.mtime for node in scanned(tmp_path, newest).nodes] == [kept, kept]


@pytest.mark.parametrize("newest", [1 << 33, -1])
def test_a_bound_outside_of_cpio_times_gives_a_time_that_fits(tmp_path: Path, newest: int) -> None:
    (tmp_path / "x").write_text("x")
    os.utime(tmp_path / "x", (0, 1 << 33))
    assert 0 <= scanned(tmp_path / "x", newest).nodes[0].mtime <= 0xFFFFFFFF


def test_source_may_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    os.symlink("folder", tmp_path / "to-folder")
    os.symlink("folder/file", tmp_path / "to-file")
    assert [node.path for node in scanned(tmp_path / "to-folder").nodes] == [b"file"]
    found = scanned(tmp_path / "to-file")
    assert found.is_single_file and [(node.path, node.kind) for node in found.nodes] == [(b"to-file", NodeKind.FILE)]
    assert found.nodes[0].content is not None and found.nodes[0].content.head(5) == b"x"


def test_hard_links_of_a_source_are_known(tmp_path: Path) -> None:
    for name in ("a", "c"):
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "a", tmp_path / "b")
    a, b, c = scanned(tmp_path).nodes
    assert a.link is not None and a.link == b.link and c.link is None


def test_what_cannot_be_added_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("site/talk")
        with pytest.raises(OverlayError, match=r"^site/talk: cannot be added: it is a socket$"):
            scan_source(b"site", None)
    with pytest.raises(OverlayError, match=r"^site/none: cannot be added: No such file or directory$"):
        scan_source(b"site/none", None)
    with pytest.raises(OverlayError, match=r"^/dev/null: cannot be added: it is neither a file nor a directory$"):
        scan_source(b"/dev/null", None)


def test_an_odd_name_is_shown_on_one_line(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9\n"
    os.mkfifo(name)
    with pytest.raises(OverlayError) as caught:
        scan_source(name, None)
    assert str(caught.value).isprintable() and r"/caf\xe9\n: cannot be added" in str(caught.value)


@pytest.mark.parametrize(("name", "said"), [("file", "cannot be added"), ("folder", "cannot be listed")])
def test_what_cannot_be_read_is_refused_by_name(name: str, said: str) -> None:
    with open_folder() as folder:
        (folder / "file").write_text("x")
        (folder / "folder").mkdir()
        (folder / name).chmod(0)
        with without_root(), pytest.raises(OverlayError, match=rf"/{name}: {said}: Permission denied$"):
            scanned(folder)
        (folder / name).chmod(0o700)


@pytest.mark.parametrize("change", ["grew", "shrank", "touched", "vanished", "became a folder"])
def test_a_source_that_changes_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x"
    path.write_text("first")
    os.utime(path, (5, 5))
    content = scanned(path).nodes[0].content
    assert content is not None and b"".join(content.table().chunks()) == b"first"
    if change in ("grew", "shrank"):
        path.write_text("first and last" if change == "grew" else "fir")
        os.utime(path, (5, 5))
    elif change == "touched":
        os.utime(path, (6, 6))
    else:
        path.unlink()
        if change == "became a folder":
            path.mkdir()
    with pytest.raises(OverlayError, match=r"/x: (changed while it was being read|cannot be (opened|read): )"):
        list(content.table().chunks())


def test_what_an_earlier_addition_put_into_an_old_directory_leaves_with_it() -> None:
    image = [directory(b"var"), directory(b"var/log"), file(b"var/log/old")]
    emptying = Addition((), b"", False, False, "second", opaque_directories=(b"var",))
    edits = merged(folder_of(file(b"var/log/new")), emptying, image=image)
    assert not edits.additions and edits.removed == (b"var/log",)


IMPLIED = (symlink(b"lib", b"usr/lib"), file(b"usr/lib/d/x"), file(b"usr/lib/y"), directory(b"etc"))
"""An archive without entries for usr, usr/lib and usr/lib/d."""


def test_a_directory_without_an_entry_is_one() -> None:
    under = {b"usr/lib/d/x", b"usr/lib/y"}
    parents = {b"usr": PARENT, b"usr/lib": PARENT}
    for dest in (b"usr/lib", b"lib"):
        assert reasons(merged(single_node(file(b"note"), dest), image=IMPLIED)) == {**parents, b"usr/lib/note": ADDED}
    assert reasons(merged(folder_of(file(b"lib/note")), image=IMPLIED)) == {**parents, b"usr/lib/note": ADDED}
    for new in (file(b"usr/lib"), symlink(b"usr/lib", b"../etc"), file(b"usr"), file(b"lib/d")):
        with pytest.raises(OverlayError, match="cannot go over this directory, which is not empty"):
            merged(folder_of(new), image=IMPLIED)
        edits = merged(folder_of(new), image=IMPLIED, force_type=True)
        assert edits.removed_paths == ({b"usr/lib/d/x"} if new.path == b"lib/d" else under)
    assert reasons(merged(folder_of(directory(b"usr/lib/d", 0o700)), image=IMPLIED))[b"usr/lib/d"] == ADDED


@pytest.mark.parametrize("pattern", [b"usr/lib", b"lib/", b"usr", b"usr/*", b"u*", b"**/lib", b"lib/*", b"lib/**"])
def test_a_directory_without_an_entry_is_removed(pattern: bytes) -> None:
    gone = {b"lib"} if pattern == b"lib/" else {b"usr/lib/d/x", b"usr/lib/y"}
    edits = merged(remove=[pattern], image=IMPLIED)
    assert edits.removed_paths - {b"lib"} == gone - {b"lib"}
    with pytest.raises(OverlayError, match="cannot be removed"):
        merged(remove=[b"usr/lib", b"usr/lib"], image=IMPLIED)


def test_a_directory_without_an_entry_is_hidden() -> None:
    for hidden in (b"usr", b"usr/lib", b"usr/lib/d"):
        whiteout = Addition((), b"", False, False, "upper", hidden_paths=(hidden,))
        expected = {path for path in (b"usr/lib/d/x", b"usr/lib/y") if path.startswith(hidden + b"/")}
        assert merged(whiteout, image=IMPLIED).removed_paths == expected
        assert merged(exactly(hidden=(hidden,)), image=IMPLIED).removed_paths == expected
    assert merged(exactly(file(b"usr")), image=IMPLIED).removed_paths == {b"usr/lib/d/x", b"usr/lib/y"}


def exactly(*nodes: Node, hidden: tuple[bytes, ...] = ()) -> Addition:
    return Addition(nodes, b"", False, False, "script", hidden_paths=hidden, is_archive=True, is_exact=True)


def test_exact_nodes_go_to_their_real_paths_and_replace_any_type() -> None:
    nodes = (file(b"etc", b"no directory"), directory(b"script"), file(b"script/x"), symlink(b"usr", b"/var"))
    edits = merged(exactly(*nodes, hidden=(b"var/log", b"tofile")))
    assert reasons(edits) == {b"etc": REPLACED, b"script": REPLACED, b"script/x": ADDED, b"usr": REPLACED}
    assert edits.removed == (b"etc/motd", b"tofile", b"usr/bin", b"usr/sbin", b"var/log")
    assert reasons(merged(exactly(file(b"bin/tool")), image=(directory(b"bin"),))) == {b"bin/tool": ADDED}


def test_exact_directories_get_their_attributes_and_keep_their_content() -> None:
    edits = merged(exactly(directory(b"var", 0o700), directory(b"etc", mtime=99), file(b"etc/motd", b"hello\n")))
    assert reasons(edits) == {b"var": REPLACED}
    assert edits.removed_paths == {b"var"} and not edits.removed and not edits.unchanged


def test_exact_nodes_lose_what_they_lack() -> None:
    image = (replace(file(b"tool", mode=0o4755), xattrs=((b"user.a", b"1"),)), directory(b"d", 0o1777))
    plain = replace(file(b"tool", mode=0o4755), mtime=99)
    edits = merged(exactly(plain), image=image)
    assert [node.xattrs for node, _ in edits.additions] == [()]
    assert reasons(merged(exactly(replace(image[0], mode=0o755)), image=image)) == {b"tool": REPLACED}
    assert reasons(merged(exactly(directory(b"d", 0o777)), image=image)) == {b"d": REPLACED}
    assert merged(exactly(replace(image[0], mtime=99)), image=image).is_empty


def test_exact_directories_keep_what_overlayfs_notes_in_them() -> None:
    opaque = replace(directory(b"d"), xattrs=((b"trusted.overlay.opaque", b"y"), (b"user.a", b"1")), is_opaque=True)
    edits = merged(exactly(directory(b"d", 0o700)), image=(opaque,))
    assert [(node.xattrs, node.is_opaque) for node, _ in edits.additions] == [(opaque.xattrs[:1], True)]


def test_exact_files_are_linked_as_they_say() -> None:
    a, b, c = (replace(file(name), link=1) for name in (b"a", b"b", b"c"))
    alone = file(b"d")
    image = (a, b, c, alone)

    def linked(*names: bytes) -> list[Node]:
        return [replace(file(name), link="new") for name in names]

    assert merged(exactly(*linked(b"a", b"b", b"c")), image=image).is_empty
    assert merged(exactly(*linked(b"a", b"b"), hidden=(b"c",)), image=image).removed_paths == {b"c"}
    # one of the names got a file of its own
    edits = merged(exactly(file(b"a", b"other"), *linked(b"b", b"c")), image=image)
    assert reasons(edits) == {b"a": REPLACED}
    edits = merged(exactly(file(b"a"), *linked(b"b", b"c")), image=image)
    assert reasons(edits) == {b"a": REPLACED}
    # names that had nothing in common become one file
    edits = merged(exactly(*linked(b"a", b"b", b"c", b"d")), image=image)
    assert reasons(edits) == dict.fromkeys((b"a", b"b", b"c", b"d"), REPLACED)
    edits = merged(exactly(*linked(b"d", b"e")), image=image)
    assert reasons(edits) == {b"d": REPLACED, b"e": ADDED}


def test_exact_nodes_of_the_root_and_of_unnamed_directories() -> None:
    image = (directory(b""), file(b"a/b/c"))
    edits = merged(exactly(directory(b"", 0o700), file(b"a/b/d")), image=image)
    assert reasons(edits) == {b"": REPLACED, b"a": PARENT, b"a/b": PARENT, b"a/b/d": ADDED}
    assert edits.removed_paths == {b""}
