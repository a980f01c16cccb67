"""Completion as it is typed: real shells in a terminal, with TAB keys in the line."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from shlex import quote

import pytest

from cosremaster.cli import main
from cosremaster.cli.shell_completion import SHELLS
from tests.fixtures.tools import require, run
from tests.support.small import write_small
from tests.support.user import REPOSITORY

SECONDS = 120
"""How long a shell may take; each TAB key starts the program."""
START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source ./completion.bash"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -D -u; source ./completion.zsh"),
    "fish": (["fish", "--no-config", "-i"], "source ./completion.fish"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with an image, and with a program that writes down how it is called."""
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path).rename(tmp_path / "my image.iso")
    for shell in SHELLS.values():
        (tmp_path / f"completion.{shell.name}").write_text(shell.script)
    program = tmp_path / "bin" / "cosremaster"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nif [ -n "$_COSREMASTER_COMPLETE" ]; then\n'
        f"    PYTHONPATH={quote(str(REPOSITORY))} exec {quote(sys.executable)} -m cosremaster\n"
        'fi\nprintf "%s\\n" "$@" > words\n'
    )
    program.chmod(0o755)
    return tmp_path


def typed(shell: str, keys: str, folder: Path) -> list[str]:
    """Return the words that the program gets when ``keys`` are typed into a terminal with ``shell``."""
    argv, setup = START[shell]
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(
            PATH=f"{folder}/bin:{os.environ['PATH']}", HOME=str(folder), TERM="xterm", XDG_CACHE_HOME=str(folder)
        )
        os.execvp(argv[0], argv)
    os.write(terminal, f"{setup}\n{keys}\nexit\n".encode())
    shown, end = b"", time.monotonic() + SECONDS
    with suppress(OSError):  # EIO: the shell is gone
        while select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            shown += os.read(terminal, 4096)
    if time.monotonic() >= end:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(terminal)
    words = folder / "words"
    assert words.exists(), shown.decode(errors="replace")
    return words.read_text().splitlines()


@pytest.mark.parametrize("shell", list(START))
def test_a_shell_completes_commands_options_and_names_in_layers(shell: str, folder: Path) -> None:
    require(shell)
    keys = "cosremaster cat my\t::deb\t::rootfs.cxz::etc/hostn\t"
    if shell != "bash":  # each key costs a start
        keys = keys.replace("deb\t", "debirf-live-demo.cgz")
    assert typed(shell, keys, folder) == [
        "cat", "my image.iso::debirf-live-demo.cgz::rootfs.cxz::etc/hostname"
    ]  # fmt: skip


def test_bash_completes_options_and_behind_an_equals_sign(folder: Path) -> None:
    require("bash")
    line = "cosremaster plan 'my image.iso' --layer=deb\t --remove-is\t /vmlinuz"
    assert typed("bash", line, folder) == [
        "plan", "my image.iso", "--layer=debirf-live-demo.cgz", "--remove-iso", "/vmlinuz"
    ]  # fmt: skip


def test_bash_completes_behind_an_at_sign(folder: Path) -> None:
    require("bash")
    (folder / "my image.iso").rename(folder / "it's @home.iso")
    assert typed("bash", "cosremaster cat it\t::@r\tetc/hostn\t", folder) == [
        "cat", "it's @home.iso::@root::etc/hostname"
    ]  # fmt: skip


def test_a_script_is_written_where_the_shell_looks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    places = {
        "bash": ".local/share/bash-completion/completions/cosremaster",
        "zsh": ".zfunc/_cosremaster",
        "fish": ".config/fish/completions/cosremaster.fish",
    }
    for shell, place in places.items():
        capsys.readouterr()
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert main(["completion", shell, "--install"]) == 0
        assert (folder / place).read_text() == script
        assert str(folder / place) in capsys.readouterr().out
        assert main(["completion", shell, "--install"]) == 0
    (folder / places["fish"]).write_text("another's\n")
    assert main(["completion", "fish", "--install"]) == 8
    monkeypatch.setenv("SHELL", "/bin/zsh")
    capsys.readouterr()
    assert main(["completion"]) == 0
    assert capsys.readouterr().out.startswith("#compdef cosremaster")
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main(["completion"]) == 2


def test_the_line_for_a_bash_without_bash_completion_loads_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small system lacks that package, and then bash looks nowhere."""
    require("bash")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "a folder"))
    monkeypatch.delenv("BASH_COMPLETION_USER_DIR", raising=False)
    assert main(["completion", "bash", "--install"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert run(["bash", "--norc", "-c", f"{line}; complete -p cosremaster"]) == (
        b"complete -o nospace -F _cosremaster_completion cosremaster\n"
    )
