"""What a script changes in a file system, and what it finds there: as root, as a user with a range of ids, without."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind
from tests.fixtures.roots import require_root
from tests.fixtures.tools import require
from tests.support.c_programs import compile_program
from tests.support.sandboxed import (
    ScriptResult,
    busybox_tree,
    entry_of,
    file_node,
    open_runner,
    run_here,
    symlink_node,
)
from tests.support.user import User

WAYS = ("root", "subuid", "single")
SETFCAP_V2 = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw+ep as version 2 of vfs_cap_data (linux/capability.h)."""


ACL_OF_USER = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 7, 0xFFFFFFFF, 2, 7, 33, 4, 5, 0xFFFFFFFF, 16, 7, 0xFFFFFFFF, 32, 5, 0xFFFFFFFF
)
"""An ACL that names user 33 (linux/posix_acl_xattr.h)."""


class Run(Protocol):
    """Runs a script in a tree."""

    def __call__(self, tree: Mapping[bytes, Node], script: str | bytes, **options: Any) -> ScriptResult:
        """The result."""


@pytest.fixture(scope="module")
def runs(user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """For each way of ids who runs a script by it."""
    require_root()
    require("/bin/busybox", "setpriv", "unshare", "newuidmap")
    folder = user.home.parent
    with (
        open_runner(user.python, folder, has_range=True) as with_range,
        open_runner(user.python, folder, has_range=False) as without_range,
    ):
        yield {"root": run_here, "subuid": with_range.run, "single": without_range.run}


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Run:
    """Runs a script, in each of the ways."""
    return runs[request.param]


@pytest.fixture(scope="module")
def tree() -> dict[bytes, Node]:
    """A small root with something of each kind."""
    require("/bin/busybox")
    names = (b"a", b"b")
    return busybox_tree(
        shadow=file_node(b"etc/shadow", b"root:*:1::::::\n", 0o640, gid=42),
        capable=file_node(b"bin/ping", b"x" * 100_000, 0o755, xattrs=((b"security.capability", SETFCAP_V2),)),
        raw=file_node(b"srv/\xff\xfe", b"not UTF-8\n"),
        device=Node(path=b"srv/disk", kind=NodeKind.BLOCK, mode=0o660, gid=6, rdev=(7, 300)),
        fifo=Node(path=b"srv/fifo", kind=NodeKind.FIFO, mode=0o600),
        folder=Node(path=b"srv/folder", kind=NodeKind.DIRECTORY, mode=0o2775, gid=50, mtime=1),
        inside=file_node(b"srv/folder/inside", b"1\n"),
        pair=Node(path=b"srv/pair", kind=NodeKind.DIRECTORY, mode=0o755, mtime=1),
        **{
            name.decode(): file_node(b"srv/pair/" + name, b"linked" * 20_000, link="pair", uid=33, gid=33)
            for name in names
        },
        implied=file_node(b"opt/implied/file", b"its directories have no nodes\n"),
    )


def test_a_script_that_does_nothing_changes_nothing(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "true").check()
    assert (result.nodes, result.removed, result.lines) == ({}, (), [])


@pytest.mark.parametrize("way", WAYS)
def test_the_report_says_how_owners_were_kept(runs: dict[str, Run], tree: dict[bytes, Node], way: str) -> None:
    report = runs[way](tree, "true").check().report
    assert report.way == way
    note = "owners were recorded instead of set, as /etc/subuid gives tester no range of 65,536 ids"
    assert [text.partition(" (")[0] for text in report.notes] == ([note] if way == "single" else [])


def test_changes_of_each_kind_come_out_as_they_were_made(run: Run, tree: dict[bytes, Node]) -> None:
    script = """
        set -e
        printf 'new\\n' > /etc/new; chown 5:6 /etc/new; chmod 4750 /etc/new
        dd if=/dev/zero of=/srv/large bs=1M count=3 2>/dev/null; echo end >> /srv/large
        dd if=/dev/zero of=/srv/sparse bs=1 count=1 seek=50M 2>/dev/null
        mkdir -m 2750 /srv/made; chgrp 33 /srv/made; mkfifo -m 622 /srv/made/pipe
        mknod -m 600 /srv/made/null c 1 3; mknod /srv/made/loop b 7 259
        ln -s ../nowhere /srv/dangling
        rm /srv/fifo
        chmod 700 /srv/folder/inside
        touch -d '2001-02-03 04:05:06' /srv/folder
    """
    result = run(tree, script).check()
    assert result.nodes.pop(b"srv/sparse")[6] == bytes((50 << 20) + 1)
    assert result.nodes == {
        b"etc/new": (NodeKind.FILE, 0o4750, 5, 6, b"", (0, 0), b"new\n", ()),
        b"srv/large": (NodeKind.FILE, 0o644, 0, 0, b"", (0, 0), bytes(3 << 20) + b"end\n", ()),
        b"srv/made": (NodeKind.DIRECTORY, 0o2750, 0, 33, b"", (0, 0), b"", ()),
        b"srv/made/pipe": (NodeKind.FIFO, 0o622, 0, 33, b"", (0, 0), b"", ()),
        b"srv/made/null": (NodeKind.CHAR, 0o600, 0, 33, b"", (1, 3), b"", ()),
        b"srv/made/loop": (NodeKind.BLOCK, 0o644, 0, 33, b"", (7, 259), b"", ()),
        b"srv/dangling": (NodeKind.SYMLINK, 0o777, 0, 0, b"../nowhere", (0, 0), b"", ()),
        b"srv/folder": (NodeKind.DIRECTORY, 0o2775, 0, 50, b"", (0, 0), b"", ()),
        b"srv/folder/inside": (NodeKind.FILE, 0o700, 0, 0, b"", (0, 0), b"1\n", ()),
    }
    assert result.mtimes[b"srv/folder"] == 981173106
    assert result.removed == (b"srv/fifo",)


def test_names_in_new_directories_come_after_them(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "mkdir -p /srv/x/y/z; echo > /srv/x/y/z/f; echo > /srv/x.f").check()
    assert list(result.nodes) == [b"srv/x", b"srv/x.f", b"srv/x/y", b"srv/x/y/z", b"srv/x/y/z/f"]


def test_what_is_written_again_with_its_old_bytes_is_no_change(run: Run, tree: dict[bytes, Node]) -> None:
    script = """
        cp -p /etc/passwd /tmp/x; rm /etc/passwd; cp -p /tmp/x /etc/passwd
        echo > /srv/folder/short-lived; rm /srv/folder/short-lived
        mkdir /srv/pair2; rmdir /srv/pair2
        chmod 600 /etc/group; chmod 644 /etc/group
        mv /srv/disk /srv/disk2; mv /srv/disk2 /srv/disk
    """
    result = run(tree, script).check()
    assert (result.nodes, result.removed) == ({}, ())


@pytest.mark.parametrize("is_i386", [False, True], ids=["own", "i386"])
def test_what_is_written_as_memory_is_a_change(run: Run, tree: dict[bytes, Node], is_i386: bool) -> None:
    """tmpfs sets no time of a file whose memory was read before it is written to."""
    if is_i386 and os.uname().machine != "x86_64":
        pytest.skip("only x86-64 runs programs of i386")
    files = {path: file_node(path, b"old" + bytes(5000)) for path in (b"srv/mapped", b"srv/protected")}
    program = file_node(b"bin/mapped", compile_program("mapped", is_i386=is_i386), 0o755)
    result = run({**tree, **files, program.path: program}, "mapped").check()
    assert {path: entry[6] for path, entry in result.nodes.items()} == dict.fromkeys(files, b"ood" + bytes(5000))


def test_directories_that_are_moved_or_made_again(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "mv /srv/folder /opt/moved; rm -r /srv/pair; mkdir /srv/pair; echo 2 > /srv/pair/c").check()
    assert result.removed == (b"srv/folder", b"srv/pair/a", b"srv/pair/b")
    assert set(result.nodes) == {b"opt/moved", b"opt/moved/inside", b"srv/pair/c"}
    assert result.nodes[b"opt/moved"] == entry_of(tree[b"srv/folder"])
    assert result.nodes[b"opt/moved/inside"] == entry_of(tree[b"srv/folder/inside"])


@pytest.mark.parametrize("has_directory", [False, True])
def test_a_directory_made_again_has_nothing_of_the_old(run: Run, user: User, has_directory: bool) -> None:
    """What is recorded in place of the kernel is of a directory that is gone: owner, ACLs, other attributes."""
    store = user.home.parent / "store"
    store.mkdir(exist_ok=True)
    store.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    acls = tuple((b"system.posix_acl_" + kind, ACL_OF_USER) for kind in (b"access", b"default"))
    parent = Node(path=b"srv/parent", kind=NodeKind.DIRECTORY, mode=0o2755, gid=50)
    made: dict[bytes, dict[str, Any]] = {
        b"srv/owned": {"uid": 5, "gid": 6},
        b"srv/acl": {"mode": 0o775, "xattrs": acls},
        b"srv/trusted": {"xattrs": ((b"trusted.name", b"value"),)},
        b"srv/parent/group": {"mode": 0o2755},
        b"srv/same": {"uid": 7},
    }
    nodes = [Node(path=path, kind=NodeKind.DIRECTORY, **{"mode": 0o755, **more}) for path, more in made.items()]
    tree = busybox_tree(**{node.path.decode(): node for node in (parent, *nodes)})
    script = """
        cd /srv
        for name in owned trusted parent/group same; do rmdir $name; mkdir $name; done
        rmdir acl; mkdir -m 775 acl; chown 7 same
    """
    options = {"directory": store} if has_directory else {}
    result = run(tree, script, **options).check()
    plain = (NodeKind.DIRECTORY, 0o755, 0, 0, b"", (0, 0), b"", ())
    assert result.nodes == {
        b"srv/acl": (NodeKind.DIRECTORY, 0o775, *plain[2:]),
        b"srv/owned": plain,
        b"srv/parent/group": (NodeKind.DIRECTORY, 0o2755, 0, 50, *plain[4:]),
        b"srv/trusted": plain,
    }


def test_a_path_that_changes_its_type_is_removed_first(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "rm -r /srv/pair /etc/group; echo > /srv/pair; mkdir /etc/group; echo > /etc/group/x").check()
    assert result.removed == (b"etc/group", b"srv/pair", b"srv/pair/a", b"srv/pair/b")
    assert result.nodes[b"srv/pair"][0] is NodeKind.FILE
    assert result.nodes[b"etc/group"][0] is NodeKind.DIRECTORY


def test_hard_links_that_are_made_changed_and_parted(run: Run, tree: dict[bytes, Node]) -> None:
    made = run(tree, "ln /etc/passwd /etc/passwd2").check()
    assert set(made.nodes) == {b"etc/passwd", b"etc/passwd2"}
    assert made.links[b"etc/passwd"] == made.links[b"etc/passwd2"]
    changed = run(tree, "echo more >> /srv/pair/a").check()
    assert set(changed.nodes) == {b"srv/pair/a", b"srv/pair/b"}
    assert len(set(changed.links.values())) == 1
    assert changed.nodes[b"srv/pair/b"][2:7] == (33, 33, b"", (0, 0), b"linked" * 20_000 + b"more\n")
    parted = run(tree, "cp -p /srv/pair/a /srv/x; mv /srv/x /srv/pair/a").check()
    assert set(parted.nodes) == {b"srv/pair/a", b"srv/pair/b"}
    assert parted.links == {}
    fewer = run(tree, "rm /srv/pair/a").check()
    assert (fewer.nodes, fewer.removed) == ({}, (b"srv/pair/a",))


def test_capabilities_and_names_that_are_no_text_stay(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "mv /bin/ping /bin/ping2; chown 0:6 /srv/$(printf '\\377\\376')").check()
    assert result.nodes[b"bin/ping2"] == entry_of(tree[b"bin/ping"])
    assert result.nodes[b"srv/\xff\xfe"][2:4] == (0, 6)


def test_a_new_file_in_a_set_group_id_directory_gets_its_group(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "cd /srv/folder; echo > f; mkdir -p d/e; echo > d/e/g; echo > h; chown 0:0 h").check()
    groups = {path: entry[1:4] for path, entry in result.nodes.items()}
    assert groups == {
        b"srv/folder/f": (0o644, 0, 50),
        b"srv/folder/h": (0o644, 0, 0),
        b"srv/folder/d": (0o2755, 0, 50),
        b"srv/folder/d/e": (0o2755, 0, 50),
        b"srv/folder/d/e/g": (0o644, 0, 50),
    }


@pytest.mark.parametrize("path", ["srv/white", "etc/group"])
def test_a_whiteout_is_no_removal(run: Run, tree: dict[bytes, Node], path: str) -> None:
    without_devices = {name: node for name, node in tree.items() if name != b"srv/disk"}
    result = run(without_devices, f"rm -f /{path}; mknod /{path} c 0 0").check()
    assert (result.nodes, result.removed) == ({}, ())
    assert result.report.notes[-1] == (
        f"character devices 0:0 are not taken over, as stacked file systems take them for removals: /{path}"
    )


def test_devices_of_the_image_can_be_moved_and_removed(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "mv /srv/disk /srv/disk2; chmod 600 /srv/disk2").check()
    assert result.nodes == {b"srv/disk2": (NodeKind.BLOCK, 0o600, 0, 6, b"", (7, 300), b"", ())}
    assert result.removed == (b"srv/disk",)
    assert run(tree, "rm /srv/disk").check().removed == (b"srv/disk",)


MOUNTED = (b"dev", b"proc", b"sys", b"run", b"tmp")
PROOF = "set -e; test -c /dev/null; test -d /proc/1; echo > /tmp/x; echo > /run/x; echo > /dev/shm/x; ls /sys > /srv/y"


@pytest.mark.parametrize("kind", ["symlinks", "missing", "files", "directories with files"])
def test_mount_points_of_any_kind_stay_as_they_are(run: Run, tree: dict[bytes, Node], kind: str) -> None:
    """A symlink that leads to a place of this machine leads nowhere."""
    odd = {path: node for path, node in tree.items() if path not in MOUNTED}
    for path in MOUNTED:
        if kind == "symlinks":
            odd[path] = symlink_node(path, b"/etc" if path == b"dev" else b"/usr/nowhere")
        elif kind == "files":
            odd[path] = file_node(path, b"x" * (100_000 if path == b"run" else 1))
        elif kind == "directories with files":
            odd |= {path: tree[path], path + b"/own": file_node(path + b"/own", b"own\n", 0o600, uid=7)}
    result = run(odd, PROOF).check()
    assert set(result.nodes) == {b"srv/y"}
    assert result.removed == ()
    told = [note for note in result.report.notes if "was an empty directory meanwhile" in note]
    assert len(told) == (5 if kind in ("symlinks", "files") else 0)


def test_a_script_finds_the_files_of_its_user_read_only(user: User, run: Run, tree: dict[bytes, Node]) -> None:
    """They are readable even where no other user could read them on this machine."""
    files = user.home.parent / "files"
    if not files.exists():
        (files / "debs").mkdir(parents=True)
        (files / "debs" / "large").write_bytes(os.urandom(70_000))
        (files / "tool").write_text("#!/bin/sh\necho it runs\n")
        (files / "link").symlink_to("tool")
        (files / "tool").chmod(0o700)
        (files / "debs").chmod(0o700)
        for path in (files, *files.rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)
    script = "cd /run/cosremaster; ls; ./link; wc -c < debs/large; echo x > new; rm tool; cp tool /srv/"
    result = run(tree, script, files=files).check()
    assert result.lines[:5] == ["debs", "link", "tool", "it runs", "70000"]
    assert "Read-only file system" in result.lines[5]
    assert "Read-only file system" in result.lines[6]
    assert set(result.nodes) == {b"srv/tool"}
    assert run(tree, "cat /run/cosremaster/tool", files=files / "tool").check().lines[1] == "echo it runs"


def test_a_script_gets_a_clean_environment(run: Run, tree: dict[bytes, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    result = run(tree, "env; pwd; umask; cat; id -u", environment=(("SITE", "a b"),), max_mtime=99).check()
    assert sorted(result.lines[:-3]) == [
        "DEBIAN_FRONTEND=noninteractive", "HOME=/root", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "LOGNAME=root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PWD=/", "SHELL=/bin/sh",
        "SHLVL=1", "SITE=a b", "SOURCE_DATE_EPOCH=99", "SYSTEMD_OFFLINE=1", "TERM=dumb", "TZ=UTC", "USER=root",
    ]  # fmt: skip
    assert result.lines[-3:] == ["/", "0022", "0"]


def test_a_script_with_an_interpreter_is_executed(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, b"#!/bin/sed -f\n", name="/somewhere/edit.sed")
    assert (result.error, result.report.exit_code) == ("", 0)
    result = run(tree, "#!/bin/sh -e\necho $0; false; echo not reached\n", name="/somewhere/site.sh")
    assert (result.report.exit_code, result.lines) == (1, ["/run/cosremaster.script/site.sh"])
    result = run(tree, "#!/usr/bin/perl\n")
    assert (result.error, result.message) == (
        "ScriptError",
        "it cannot be started: the image has no such interpreter (or lacks its libraries)",
    )


def test_what_a_script_prints_is_cleaned(run: Run, tree: dict[bytes, Node]) -> None:
    script = r"""
        printf '\033[31mred\033[0m \033]0;title\007plain\r\n10%%\r100%%\ntab\tbell\007\n'
        printf 'error\n' >&2; printf '\377 \342\202\254\302\233\n'; printf 'no end'
    """
    assert run(tree, script).check().lines == ["red plain", "100%", "tab\tbell", "error", "\\xff €", "no end"]


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("exit 130", 130)])
def test_a_failing_script_changes_nothing(run: Run, tree: dict[bytes, Node], script: str, code: int) -> None:
    result = run(tree, f"echo > /etc/new; {script}")
    assert (result.error, result.report.exit_code, result.nodes) == ("", code, {})


def test_a_script_that_closes_its_output_is_watched_all_the_same(run: Run, tree: dict[bytes, Node]) -> None:
    assert "took longer" in run(tree, "exec >&- 2>&-; sleep 60", timeout=0.7).message
    assert run(tree, "exec >&- 2>&-; sleep 0.2; exit 3").report.exit_code == 3


def test_a_script_that_a_signal_ends(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "kill -9 $$")
    assert (result.error, result.message, result.exit_status) == (
        "ScriptError",
        "it was ended by signal 9",
        137,
    )


def test_times_are_clamped_and_two_runs_are_equal(run: Run, tree: dict[bytes, Node]) -> None:
    script = "echo > /etc/new; mkdir /srv/d; touch -d @500 /srv/old; chmod 600 /etc/passwd; ln -s x /srv/l"
    first, second = (run(tree, script, max_mtime=1000).check() for _ in range(2))
    assert first.mtimes == {
        b"etc/new": 1000, b"etc/passwd": 1, b"srv/d": 1000, b"srv/l": 1000, b"srv/old": 500,
    }  # fmt: skip
    assert (first.nodes, first.mtimes) == (second.nodes, second.mtimes)


@pytest.mark.parametrize(
    ("script", "options", "reason"),
    [
        ("set -e; dd if=/dev/zero of=/srv/x bs=1M count=50", {"size_limit": 20 << 20}, "the 20.0 MiB that its file"),
        ("set -e; for i in $(seq 900); do echo > /srv/$i; done", {"inode_limit": 999}, "the 999 files that its file"),
    ],
)  # fmt: skip
def test_a_full_file_system_is_named(
    run: Run, tree: dict[bytes, Node], script: str, options: dict[str, Any], reason: str
) -> None:
    result = run(tree, script, **options)
    assert result.error == "ScriptError"
    assert f"ended with exit code {result.exit_status}; {reason} system may" in result.message
    assert any("No space left on device" in line for line in result.lines)


def test_a_tree_that_does_not_fit_is_named_at_once(run: Run, tree: dict[bytes, Node]) -> None:
    result = run(tree, "true", size_limit=1 << 20)
    assert result.error == "SizeError"
    assert "more than the 1.0 MiB in" in result.message


def test_a_directory_holds_the_file_system_and_is_empty_after(run: Run, user: User, tree: dict[bytes, Node]) -> None:
    store = user.home.parent / "store"
    store.mkdir(exist_ok=True)
    store.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    script = "chown -R 33:6 /srv/folder; mknod /srv/m b 8 1; chmod 0 /srv/pair; mv /etc/shadow /etc/shadow2"
    result = run(tree, script, directory=store).check()
    assert result.nodes[b"srv/folder/inside"][2:4] == (33, 6)
    assert result.nodes[b"srv/m"][0::5] == (NodeKind.BLOCK, (8, 1)) or result.nodes[b"srv/m"][5] == (8, 1)
    assert result.nodes[b"etc/shadow2"][1:4] == (0o640, 0, 42)
    assert list(store.iterdir()) == []
    assert run(tree, "exit 3", directory=store).report.exit_code == 3
    assert run(tree, "sleep 60", directory=store, timeout=0.5).error == "ScriptError"
    assert list(store.iterdir()) == []


def test_a_number_that_is_given_again_brings_nothing_along(run: Run, user: User, tree: dict[bytes, Node]) -> None:
    """ext4 gives the number of a removed file to the next one, often within a tick of its clock."""
    store = user.home.parent / "store"
    store.mkdir(exist_ok=True)
    store.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    files = [file_node(b"srv/owned", b"", uid=33, gid=33), file_node(b"srv/x", b"", xattrs=((b"trusted.x", b"v"),))]
    script = """
        rm /srv/disk /srv/owned /srv/x
        echo 1 > /srv/1; echo 2 > /srv/2; echo 3 > /srv/3
        mknod /srv/q c 1 3; rm /srv/q; echo 4 > /srv/4
        mknod /srv/q c 1 3; rm /srv/q; mkdir /srv/made; echo 5 > /srv/made/5
        echo > /srv/q; chown 5:5 /srv/q; rm /srv/q; echo 6 > /srv/6
    """
    result = run({**tree, **{node.path: node for node in files}}, script, directory=store).check()
    names = (b"1", b"2", b"3", b"4", b"made/5", b"6")
    plain = {b"srv/" + n: (NodeKind.FILE, 0o644, 0, 0, b"", (0, 0), n[-1:] + b"\n", ()) for n in names}
    assert result.nodes == {**plain, b"srv/made": (NodeKind.DIRECTORY, 0o755, 0, 0, b"", (0, 0), b"", ())}


def test_an_image_without_a_shell_or_of_another_architecture(run: Run, tree: dict[bytes, Node]) -> None:
    without = {path: node for path, node in tree.items() if path != b"bin/sh"}
    assert run(without, "true").message == "the image has no /bin/sh, so no script can run in it"
    head = bytearray(tree[b"bin/busybox"].content.head(1 << 12))  # type: ignore[union-attr]
    head[18:20] = b"\xb7\x00" if os.uname().machine != "aarch64" else b"\x3e\x00"
    other = {**tree, b"bin/sh": file_node(b"bin/sh", bytes(head), 0o755)}
    result = run(other, "true")
    assert result.error == "SandboxError"
    assert result.message.startswith("the image is for ")
    assert "qemu-user-static" in result.message


def test_content_that_is_equal_is_the_old_one(tree: dict[bytes, Node]) -> None:
    require_root()
    result = run_here(tree, "chmod 600 /bin/ping; chown 1:1 /etc/passwd").check()
    assert result.nodes[b"bin/ping"][6] == b"x" * 100_000
    assert isinstance(tree[b"bin/ping"].content, BytesContent)


@pytest.mark.parametrize(
    ("path", "reason"),
    [(b"bin/ash/x", "File exists (bin/ash)"), (b"srv/" + b"x" * 256, f"File name too long (srv/{'x' * 256})")],
)
def test_a_tree_that_no_system_can_have_is_named(run: Run, tree: dict[bytes, Node], path: bytes, reason: str) -> None:
    result = run({**tree, path: file_node(path, b"")}, "true")
    assert (result.error, result.message) == (
        "UnsupportedError",
        f"the image's files cannot be laid out for a script: {reason}",
    )


def test_a_path_that_no_layer_holds_is_named(run: Run, tree: dict[bytes, Node]) -> None:
    long, longer = ("/".join(["d" * 200] * count) for count in (12, 15))
    result = run(tree, f"mkdir -p /srv/{long} /opt/{longer} && mv /opt/{'d' * 200} /srv/{long}")
    assert (result.error, result.message) == (
        "ScriptError",
        "it made a path of more than 4,095 bytes, which no layer holds",
    )


def test_a_hundred_thousand_files(tree: dict[bytes, Node]) -> None:
    require_root()
    script = """
        awk 'BEGIN { for (i = 0; i < 100; i++) { d = sprintf("/srv/many/%d", i); system("mkdir -p " d);
            for (j = 0; j < 1000; j++) { f = d "/" j; print j > f; close(f) } } }'
    """
    result = run_here(tree, script).check()
    assert len(result.nodes) == 100_101
    assert result.nodes[b"srv/many/99/998"] == (NodeKind.FILE, 0o644, 0, 0, b"", (0, 0), b"998\n", ())


def test_no_program_of_the_image_is_started_as_a_service(run: Run, tree: dict[bytes, Node]) -> None:
    """Debian's way to say so, for as long as the script runs."""
    debian = {**tree, b"usr/sbin/invoke-rc.d": file_node(b"usr/sbin/invoke-rc.d", b"#!/bin/sh\n", 0o755)}
    result = run(debian, "/usr/sbin/policy-rc.d; echo $?; rm /usr/sbin/policy-rc.d").check()
    assert (result.lines, result.nodes, result.removed) == (["101"], {}, ())
    result = run(debian, "touch -h /usr/sbin/*; chmod -R go-w /usr; chown -R 0:0 /usr/sbin").check()
    assert b"usr/sbin/policy-rc.d" not in result.nodes
    own = {**debian, b"usr/sbin/policy-rc.d": file_node(b"usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 3\n", 0o755)}
    assert run(own, "/usr/sbin/policy-rc.d; echo $?").check().lines == ["3"]
    assert set(run(debian, "echo x > /usr/sbin/policy-rc.d").check().nodes) == {b"usr/sbin/policy-rc.d"}


def test_programs_that_a_script_leaves_running_end_with_it(run: Run, tree: dict[bytes, Node], tmp_path: Path) -> None:
    result = run(tree, "(trap '' TERM HUP; setsid sleep 4242) > /dev/null 2>&1 &").check()
    assert result.report.seconds < 20
    names = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"4242" in _read_or_nothing(path)]
    assert names == []


def _read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
