"""A script that wants out: what it tries is refused by the kernel, or hits nothing but its own namespaces.

The program of ``tests/support/attacks.c`` tries one thing after the other and prints what the kernel said.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind
from tests.fixtures.roots import require_root
from tests.fixtures.tools import require
from tests.support.sandboxed import USER, ScriptResult, busybox_tree, open_runner, run_here
from tests.support.user import REPOSITORY, User

WAYS = ("root", "subuid", "single")

REFUSED: Mapping[str, str] = {
    "core_pattern": "EACCES",
    "modprobe": "EACCES|ENOENT",
    "drop_caches": "EACCES",
    "sysrq": "EACCES|ENOENT",
    "uevent_helper": "EACCES|ENOENT|EROFS",
    # A mask over /proc would be no wall: it can be taken away, as these two show. What refuses is the check of the id.
    "proc remounted": "WENT",
    "fresh proc": "WENT",
    "core_pattern of a fresh proc": "EACCES",
    "core_pattern below": "ENOENT",
    "kmsg": "ENOENT",
    "syslog": "EPERM",
    "block device": "EACCES|ENXIO",
    "memory device": "EACCES|ENXIO",
    "devtmpfs": "EPERM",
    "ext4": "EPERM|ENOTBLK|EACCES|ENODEV",
    "kexec": "EPERM",
    "kexec_file": "EPERM",
    "init_module": "EPERM",
    "finit_module": "EPERM",
    "delete_module": "EPERM",
    "reboot": "EPERM",
    "swapon": "EPERM",
    "acct": "EPERM",
    "settimeofday": "EPERM",
    "nice": "EACCES|EPERM",
    "limits": "EPERM",
    "size limit": "EPERM",
    "big file": "EFBIG",
    "kill outside": "ESRCH",
    "home": "ENOENT",
    "escape": "ENOENT",
    "init memory": "EACCES|EPERM",
    "init environment": "EACCES|EPERM",
    "init maps": "EACCES|EPERM",
    "init root": "EACCES|EPERM",
    "init directory": "EACCES|EPERM",
    "init descriptors": "EACCES|EPERM",
    "init program": "EACCES|EPERM",
    "init namespace": "EACCES|EPERM",
    "init traced": "EPERM",
    "init seized": "EPERM",
    "init read": "EPERM",
    "init descriptor taken": "EPERM",
    **dict.fromkeys(("keyctl", "request_key", "add_key", "io_uring", "bpf", "perf", "userfaultfd", "clone3"), "ENOSYS"),
    "unshare user": "EPERM",
    "clone user": "EPERM",
    "handle": "EPERM",
    **dict.fromkeys(("vsock", "crypto socket", "packet socket", "bluetooth socket"), "EAFNOSUPPORT"),
    "abstract socket": "ECONNREFUSED",
    "local port": "ECONNREFUSED|ENETUNREACH",
    "terminal": "ENXIO",
    "terminal input": "EPERM",
    "console input": "EPERM",
    # The first process takes no signals from inside.
    "kill init": "WENT",
    "stop init": "WENT",
}
"""What the kernel says to each try."""


@pytest.fixture(scope="module")
def attacks() -> Iterator[Path]:
    """The program, where everybody can start it."""
    require("gcc", "/usr/lib/x86_64-linux-gnu/libc.a" if os.uname().machine == "x86_64" else "gcc")
    program = Path(f"/tmp/cosremaster-attacks-{os.getpid()}")
    source = REPOSITORY / "tests" / "support" / "attacks.c"
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    try:
        yield program
    finally:
        program.unlink()


@pytest.fixture(scope="module")
def tree(attacks: Path) -> dict[bytes, Node]:
    """Busybox and the program."""
    require("/bin/busybox")
    program = Node(
        path=b"bin/attacks", kind=NodeKind.FILE, mode=0o755, mtime=1, content=BytesContent(attacks.read_bytes())
    )
    return busybox_tree(attacks=program)


class Target:
    """What the user has that a script must not get at."""

    def __init__(self, folder: Path) -> None:
        """Writes a file that everybody may read, and listens where no namespace of files is asked."""
        self.marker = folder / "secret-of-the-user"
        self.marker.write_text("secret")
        self.name = f"cosremaster-test-{os.getpid()}"
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{self.name}")
        self.abstract.listen()
        self.port = socket.socket()
        self.port.bind(("127.0.0.1", 0))
        self.port.listen()

    def command(self, attack: str = "") -> str:
        """The program's command line."""
        port = self.port.getsockname()[1]
        return f"/bin/attacks {self.marker} {self.name} {port} {os.getpid()} {attack}"


@pytest.fixture(scope="module")
def target(user: User) -> Target:
    """What must not be reached."""
    return Target(user.home.parent)


@pytest.fixture(scope="module", params=WAYS)
def tried(
    request: pytest.FixtureRequest, user: User, tree: dict[bytes, Node], attacks: Path, target: Target
) -> ScriptResult:
    """What came of all tries, in each of the ways."""
    require_root()
    require("setpriv", "unshare", "newuidmap")
    if request.param == "root":
        return run_here(tree, target.command())
    holder = (str(attacks), "hold-key")
    with open_runner(user.python, user.home.parent, has_range=request.param == "subuid", before=holder) as runner:
        return runner.run(tree, target.command())


def test_every_try_is_refused_or_stays_inside(tried: ScriptResult) -> None:
    assert not tried.error, (tried.message, tried.lines)
    answers = dict(line.split(": ", 1) for line in tried.lines)
    wrong = {name: answers.get(name) for name, code in REFUSED.items() if not re.fullmatch(code, answers.get(name, ""))}
    assert wrong == {}
    assert set(answers) == set(REFUSED)


def test_nothing_of_it_comes_into_the_image_but_its_files(tried: ScriptResult) -> None:
    kinds = {path: entry[0] for path, entry in tried.nodes.items()}
    assert kinds == {
        b"big": NodeKind.FILE, b"disk": NodeKind.BLOCK, b"mem": NodeKind.CHAR,
        b"escape": NodeKind.DIRECTORY, b"fresh": NodeKind.DIRECTORY,
    }  # fmt: skip


@pytest.fixture(scope="module")
def few(user: User, tree: dict[bytes, Node]) -> Iterator[dict[str, Any]]:
    """Who runs scripts with 150 processes at most."""
    require_root()
    require("setpriv", "unshare", "newuidmap", "prlimit")
    bound = ("prlimit", "--nproc=150:150")
    folder = user.home.parent
    with (
        open_runner(user.python, folder, has_range=True, before=bound) as with_range,
        open_runner(user.python, folder, has_range=False, before=bound) as without_range,
    ):
        yield {"subuid": with_range.run, "single": without_range.run}


@pytest.mark.parametrize("way", ["subuid", "single"])
def test_a_fork_bomb_is_bounded(few: dict[str, Any], tree: dict[bytes, Node], target: Target, way: str) -> None:
    result = few[way](tree, f"{target.command('processes')}; echo still here")
    (answer, end) = result.check().lines
    assert re.fullmatch(r"processes: EAGAIN \d+", answer)
    assert 50 < int(answer.split()[-1]) < 150
    assert end == "still here"


def test_the_bound_counts_all_users_inside(few: dict[str, Any], tree: dict[bytes, Node], target: Target) -> None:
    (answer,) = few["subuid"](tree, target.command("users")).check().lines
    assert re.fullmatch(r"users: EAGAIN \d+", answer)
    assert int(answer.split()[-1]) < 150


@pytest.mark.parametrize("way", ["subuid", "single"])
def test_a_kill_of_all_ends_the_script_and_nothing_else(
    few: dict[str, Any], tree: dict[bytes, Node], target: Target, way: str
) -> None:
    with subprocess.Popen(["sleep", "60"], user=USER) as bystander:
        result = few[way](tree, target.command("kill-all"))
        assert result.error == "ScriptError"
        assert "signal 9" in result.message
        assert bystander.poll() is None
        bystander.kill()
    few[way](tree, "true").check()


@pytest.mark.parametrize("way", ["subuid", "single"])
def test_no_process_inside_holds_up_the_watchdog(few: dict[str, Any], tree: dict[bytes, Node], way: str) -> None:
    script = "trap '' TERM HUP; (trap '' TERM; while :; do sleep 1; done) & kill -STOP 1; kill -STOP $$; sleep 99"
    started = time.monotonic()
    result = few[way](tree, script, timeout=1)
    assert result.error == "ScriptError"
    assert "longer than 1 seconds" in result.message
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("way", ["subuid", "single"])
def test_a_script_sees_nothing_of_the_program_that_runs_it(
    few: dict[str, Any], tree: dict[bytes, Node], user: User, way: str
) -> None:
    """Neither descriptors nor processes, and no path of the user's in the arguments of the first one."""
    script = "ls -l /proc/self/fd; ls -d /proc/[0-9]*; cat /proc/1/cmdline; echo; cat /proc/self/mountinfo; env"
    result = few[way](tree, script)
    text = "\n".join(result.check().lines)
    assert str(user.home.parent) not in text
    assert len(re.findall(r"^/proc/\d+$", text, re.MULTILINE)) <= 3
    descriptors = {line.split()[-3] for line in result.lines if " -> " in line}
    assert descriptors <= {"0", "1", "2", "3"}, "the last is that of ls itself"


def test_keys_of_the_user_are_not_even_named_with_real_ids(user: User, tree: dict[bytes, Node], attacks: Path) -> None:
    require_root()
    holder = (str(attacks), "hold-key")
    for way in ("subuid", "single"):
        with open_runner(user.python, user.home.parent, has_range=way == "subuid", before=holder) as runner:
            text = "\n".join(runner.run(tree, "cat /proc/keys").check().lines)
        assert "payload" not in text
        assert ("cosremaster-secret" in text) == (way == "single"), "docs/run.md says so"
