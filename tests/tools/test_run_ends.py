"""However a run ends, nothing of it stays: no process, no mount, no file; and who may not run scripts is told why."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cosremaster.sandbox import session
from cosremaster.sandbox.model import ScriptRun
from cosremaster.tree.nodes import Node
from tests.fixtures.roots import require_root
from tests.fixtures.tools import require
from tests.support.sandboxed import Runner, busybox_tree, file_node, open_runner, run_here
from tests.support.user import REPOSITORY, User

_MARK = "4711.25"
"""Seconds that programs of these tests sleep, by which their processes are recognized."""


@pytest.fixture(scope="module")
def tree() -> dict[bytes, Node]:
    """A root of busybox alone."""
    require("/bin/busybox")
    return busybox_tree()


@pytest.fixture(scope="module")
def folder(user: User) -> Path:
    """A folder that everybody may look into."""
    require_root()
    require("/bin/busybox", "setpriv", "unshare", "newuidmap")
    return user.home.parent


def sleepers() -> list[int]:
    """The processes that sleep for these tests."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"sleep\0{_MARK}".encode() in path.read_bytes():
                pids.append(int(path.parent.name))
    return pids


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Waits until ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def worker_of(pid: int) -> int:
    """The worker process that ``pid`` started."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


SLEEP = f"trap '' TERM HUP INT; sleep {_MARK} & sleep {_MARK}"


@pytest.mark.parametrize("has_range", [True, False])
@pytest.mark.parametrize("victim", ["the program", "the worker", "the program, by Ctrl-C"])
def test_nothing_stays_after_a_kill(
    user: User, folder: Path, tree: dict[bytes, Node], victim: str, has_range: bool
) -> None:
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)
    before = ("env", f"TMPDIR={temporary}")
    with open_runner(user.python, folder, has_range=has_range, before=before) as runner:
        runner.send((tree, SLEEP, {}))
        wait_for(lambda: len(sleepers()) == 2)
        pid = runner.process.pid
        mounts = set(Path("/proc/self/mountinfo").read_text().splitlines())
        if victim == "the worker":
            os.kill(worker_of(pid), signal.SIGKILL)
            result = runner.receive()
            assert result.error == "SandboxError"
            assert "was killed" in result.message
        else:
            os.kill(pid, signal.SIGINT if "Ctrl-C" in victim else signal.SIGKILL)
        wait_for(lambda: not sleepers(), 5)
    assert set(Path("/proc/self/mountinfo").read_text().splitlines()) == mounts
    assert list(temporary.iterdir()) == []


# A program that stops the first process of the namespace, or tries to: then nothing inside can end the script.
STOPPER = r"""
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
int main(void) {
    if (ptrace(PTRACE_SEIZE, 1, 0, 0) == 0) { ptrace(PTRACE_INTERRUPT, 1, 0, 0); puts("stopped"); }
    else puts(strerror(errno));
    kill(1, SIGSTOP);
    fflush(stdout);
    for (;;) pause();
}
"""


@pytest.mark.parametrize("has_range", [True, False])
def test_a_timeout_ends_a_script_that_stops_its_first_process(
    user: User, folder: Path, tree: dict[bytes, Node], tmp_path: Path, has_range: bool
) -> None:
    if shutil.which("cc") is None:
        require("gcc")
    (tmp_path / "stop.c").write_text(STOPPER)
    subprocess.run(["cc", "-static", "-o", tmp_path / "stop", tmp_path / "stop.c"], check=True)
    data = (tmp_path / "stop").read_bytes()
    with_stopper = {**tree, b"bin/stop": file_node(b"bin/stop", data, 0o755)}
    with open_runner(user.python, folder, has_range=has_range) as runner:
        started = time.monotonic()
        result = runner.run(with_stopper, f"sleep {_MARK} & /bin/stop", timeout=1.5)
        assert (result.error, result.message) == ("ScriptError", "it took longer than 1.5 seconds and was ended")
        assert time.monotonic() - started < 30
        assert result.lines == ["Operation not permitted"]
        wait_for(lambda: not sleepers(), 5)


def refusal(runner: Runner, tree: dict[bytes, Node], **options: object) -> str:
    """The sentence by which a run is refused."""
    result = runner.run(tree, "true", **options)
    assert result.error == "SandboxError", (result, result.message)
    return result.message


def test_a_machine_without_user_namespaces(user: User, folder: Path, tree: dict[bytes, Node]) -> None:
    """The limit is that of a user namespace around, so nothing of this machine changes."""
    limit = ("unshare", "--user", "--map-current-user", "sh", "-c")
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    before = (*limit, script, "sh")
    root_like = ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")
    for start in (before, root_like):
        with open_runner(user.python, folder, has_range=False, before=start) as runner:
            message = runner.run(tree, "true").message
            if "max_user_namespaces" in message:
                break
    assert message == (
        "this system allows no more namespaces: an administrator can raise it (sysctl"
        " user.max_user_namespaces=10000), or --run-in vm runs the script in a virtual machine instead"
    )


_DENY_UNSHARE = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
code = b"".join(struct.pack("HBBI", *line) for line in (
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x00050001), (6, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
libc.prctl(38, 1, 0, 0, 0)
assert not libc.prctl(22, 2, program, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_container_whose_profile_forbids_it(user: User, folder: Path, tree: dict[bytes, Node]) -> None:
    before = (str(user.python), "-c", _DENY_UNSHARE)
    with open_runner(user.python, folder, has_range=False, before=before) as runner:
        assert refusal(runner, tree).startswith("the seccomp profile of this container forbids user namespaces: run")


def test_new_privileges_are_off(user: User, folder: Path, tree: dict[bytes, Node]) -> None:
    with open_runner(user.python, folder, has_range=True, before=("setpriv", "--no-new-privs")) as runner:
        report = runner.run(tree, "chown 5:6 /etc/passwd").check().report
        assert report.way == "single"
        assert "(no_new_privs)" in report.notes[0]
        assert "(no_new_privs), so newuidmap cannot work; --run-ids single" in refusal(runner, tree, ids="subuid")


def test_a_user_without_a_range_or_tools(user: User, folder: Path, tree: dict[bytes, Node]) -> None:
    with open_runner(user.python, folder, has_range=False) as runner:
        assert refusal(runner, tree, ids="subuid") == (
            "a script cannot run with real owners: /etc/subuid gives tester no range of 65,536 ids (usermod"
            " --add-subuids makes it); --run-ids single needs none of it"
        )
    hide = "mount --bind /dev/null /usr/bin/newuidmap"
    with open_runner(user.python, folder, has_range=True, setup=hide) as runner:
        assert "newuidmap and newgidmap are not installed" in refusal(runner, tree, ids="subuid")
        assert runner.run(tree, "true").check().report.way == "single"


def test_a_range_that_the_tool_refuses(user: User, folder: Path, tree: dict[bytes, Node]) -> None:
    """As where another program answers for /etc/subgid than the one that was read."""
    (folder / "fail").write_text("#!/bin/sh\necho 'gid range not allowed' >&2\nexit 1\n")
    (folder / "fail").chmod(0o755)
    hide = f"mount --bind {folder}/fail /usr/bin/newgidmap"
    with open_runner(user.python, folder, has_range=True, setup=hide) as runner:
        assert refusal(runner, tree, ids="subuid") == (
            "newgidmap gave no ids: gid range not allowed; --run-ids single needs none"
        )
        report = runner.run(tree, "true").check().report
        assert (report.way, report.notes) == (
            "single",
            ("owners were recorded instead of set: newgidmap gave no ids: gid range not allowed",),
        )


def test_parts_of_proc_are_hidden(user: User, folder: Path, tree: dict[bytes, Node]) -> None:
    hide = "mount -t tmpfs -o ro none /proc/scsi 2>/dev/null || mount -t tmpfs -o ro none /proc/fs"
    with open_runner(user.python, folder, has_range=True, setup=hide) as runner:
        assert refusal(runner, tree).startswith("parts of /proc are hidden here, as in a container")


_OF_MACHINE = ("bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "tmp", "usr")


def test_a_chroot(user: User, folder: Path, tree: dict[bytes, Node]) -> None:
    """A directory that is no mount point, with the machine's own files mounted in it."""
    root = folder / "chroot"
    root.mkdir()
    names = [
        name for name in ("bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "tmp", "usr") if Path("/", name).exists()
    ]
    makes = [f"mkdir -p {root}/{name} && mount --rbind /{name} {root}/{name}" for name in names]
    if not str(folder).startswith("/tmp"):
        makes.append(f"mkdir -p {root}{folder} && mount --rbind {folder} {root}{folder}")
    setup = " && ".join(makes)
    with open_runner(user.python, folder, has_range=False, setup=setup, root=root) as runner:
        assert refusal(runner, tree).startswith("this process is in a chroot, where Linux allows no user namespace")


def test_the_check_comes_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a process with several threads, where no namespace could be made in the process itself."""
    require_root()
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        session.check_run(ScriptRun(program=b"true", name="x"))
    finally:
        ended.set()
        thread.join()


def test_the_worst_of_surroundings(user: User, folder: Path, tree: dict[bytes, Node]) -> None:
    """An umask that closes everything, no home, and a folder for temporary files where nothing can be executed."""
    no_exec = folder / "noexec"
    no_exec.mkdir(exist_ok=True)
    setup = f"mount -t tmpfs -o noexec,nosuid,nodev,mode=1777 none {no_exec}"
    before = ("env", f"TMPDIR={no_exec}", "HOME=/nonexistent")
    for has_range in (True, False):
        with open_runner(user.python, folder, has_range=has_range, setup=setup, before=before, umask="077") as runner:
            result = runner.run(
                tree, "echo > /etc/new; chown 5:6 /etc/new; cp /bin/busybox /srv/; /srv/busybox true"
            ).check()
            assert result.nodes[b"etc/new"][1:4] == (0o644, 5, 6)
            assert result.nodes[b"srv/busybox"][1] == 0o755


def pythons() -> list[str]:
    """The Pythons of this machine that this program supports."""
    names = [shutil.which(f"python3.{minor}") or "" for minor in range(10, 15)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    names += map(str, pyenv.glob("3.1[0-9].*/bin/python3"))
    return sorted({os.path.realpath(name) for name in names if name and "shims" not in name})


@pytest.mark.parametrize("python", pythons() or [sys.executable])
def test_the_worker_runs_under_each_python(
    python: str, tree: dict[bytes, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs the standard library and this package alone."""
    require_root()
    monkeypatch.setattr(sys, "executable", python)
    session.probe.cache_clear()
    try:
        result = run_here(tree, "chown 5:6 /etc/passwd; mknod /srv/d b 1 2").check()
    finally:
        session.probe.cache_clear()
    assert set(result.nodes) == {b"etc/passwd", b"srv/d"}


_SHELL = """
import sys
sys.path[:0] = {path!r}
import os
from pathlib import Path
from cosremaster.io.spool import Spool
from cosremaster.progress import SilentProgress
from cosremaster.sandbox.model import ScriptRun
from cosremaster.sandbox.session import run_script
from tests.support.sandboxed import busybox_tree
with Spool(Path("/tmp")) as spool:
    run = ScriptRun(program=b"", name="shell", interactive=True)
    changes = run_script(busybox_tree(), run, spool, SilentProgress(), print)
print("CHANGED", *[node.path for node in changes.nodes], changes.report.exit_code)
"""


def test_a_shell_has_a_terminal_of_its_own() -> None:
    """Ctrl-C reaches the program in it, and the user's terminal is as it was afterwards."""
    require_root()
    require("/bin/busybox")
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", _SHELL.format(path=[str(REPOSITORY), *sys.path])])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    before, shown = termios.tcgetattr(terminal), b""

    def read_until(text: bytes) -> None:
        nonlocal shown
        end = time.monotonic() + 60
        while text not in shown:
            assert time.monotonic() < end, shown
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 4096)

    read_until(b"/ # ")
    os.write(terminal, b"tty; stty size; echo $((40+2)); sleep 4242.5\n")
    read_until(b"42\r\n")
    assert b"/dev/pts/0\r\n33 77\r\n" in shown
    time.sleep(0.3)
    os.write(terminal, b"\x03")
    os.write(terminal, b"echo > /srv/new; cat /dev/tty & exit 0\n")
    read_until(b"CHANGED b'srv/new' 0")
    assert termios.tcgetattr(terminal) == before
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


def test_what_is_piped_to_a_shell_is_a_script() -> None:
    require_root()
    require("/bin/busybox")
    code = _SHELL.format(path=[str(REPOSITORY), *sys.path])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input="echo piped; touch /srv/a", capture_output=True, text=True, check=False)
    assert done.stdout == "piped\nCHANGED b'srv/a' 0\n", done.stderr


def test_root_with_a_single_id(tree: dict[bytes, Node]) -> None:
    require_root()
    result = run_here(tree, "chown 5:6 /etc/passwd; ls -n /etc/passwd", ids="single").check()
    assert result.report.way == "single"
    assert result.nodes[b"etc/passwd"][2:4] == (5, 6)


def test_a_script_cannot_look_into_its_first_process(tree: dict[bytes, Node]) -> None:
    require_root()
    result = run_here(tree, "cat /proc/1/environ; ls /proc/1/root; ls /proc/1/fd; true").check()
    assert [line.rpartition(": ")[2] for line in result.lines] == ["Permission denied"] * 3
