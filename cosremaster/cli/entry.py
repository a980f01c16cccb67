"""The program: which command is asked for, how it ends, exit codes (docs/exit-codes.md).

A command's module is loaded when it is asked for: listing an initramfs takes no longer than reading it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from cosremaster.__about__ import __version__
from cosremaster.cli.plain import FLAGS, run_plainly
from cosremaster.cli.standard_streams import PipeClosedError, StandardOutputError, prepare_streams
from cosremaster.errors import CosremasterError, UsageError

if TYPE_CHECKING:
    import click

INTERRUPTED = 128

INTERNAL_FAULT = 70
"""EX_SOFTWARE of sysexits(3)."""

MUCH_NEW = 50_000
"""Values that were made and not given up when the garbage collector looks for cycles among them: an index is several
small ones for each entry, and no garbage."""

COMMANDS = {
    "inspect": ("inspect", "inspect_command"),
    "verify": ("verify", "verify_command"),
    "plan": ("commands", "plan_command"),
    "index": ("commands", "index_command"),
    "cache": ("cache", "cache_command"),
    "demo": ("commands", "demo_command"),
    "build": ("build", "build_command"),
    "fleet": ("fleet", "fleet_command"),
    "diff": ("diff", "diff_command"),
    "pack": ("pack", "pack_command"),
    "prepare": ("prepare", "prepare_command"),
    "apply": ("apply", "apply_command"),
    "shell": ("shell", "shell_command"),
    "serve": ("serve", "serve_command"),
    "export": ("export", "export_command"),
    "ls": ("look", "ls_command"),
    "cat": ("look", "cat_command"),
    "stat": ("look", "stat_command"),
    "tree": ("look", "tree_command"),
    "find": ("look", "find_command"),
    "extract": ("look", "extract_command"),
}
"""Each command's module and function; anything else is the image that is to be remastered."""


class _Stopped(BaseException):
    """A signal asked us to end; unwinding removes what is unfinished."""

    def __init__(self, number: int) -> None:
        """Remember the signal's number."""
        super().__init__(number)
        self.number = number


def _stop(number: int, _: FrameType | None) -> None:
    """Raise the signal as an exception, so that unwinding removes unfinished files."""
    raise _Stopped(number)


def run_program(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code. ``arguments`` are those of the process when None."""
    if arguments is None:
        prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["build"] or any("://" in word for word in words):
        from cosremaster.cli.remote_warnings import show_warnings  # noqa: PLC0415 - most images are on this machine

        show_warnings()
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt, _Stopped) as error:
        explained = _explain(error, words)
        with suppress(StandardOutputError):  # or the interpreter meets it at its end
            sys.stdout.flush()
        return explained
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(words: list[str]) -> int:
    """Run the command that ``words`` name and return its exit code."""
    if words == ["--version"]:
        sys.stdout.write(f"cosremaster {__version__}\n")
        return 0
    if words and words[0] in FLAGS:
        with _uncollected():  # an index is many small values that stay, and no garbage
            if run_plainly(words[0], words[1:]):
                return 0
    module, function, name = "commands", "remaster_command", "cosremaster"
    if words and words[0] not in COMMANDS:
        _refuse_mistyped(words[0])
    if words and words[0] in COMMANDS:
        module, function = COMMANDS[words[0]]
        name = f"cosremaster {words[0]}"
        words = words[1:]
    code = _loaded(module, function).main(words, prog_name=name, standalone_mode=False)
    return code if isinstance(code, int) else 0


def _refuse_mistyped(word: str) -> None:
    """Check that ``word``, where a command or IN stands, is not a command with a slip in it.

    :raises UsageError: it is no file, and nearly a command.
    """
    if word.startswith("-") or not word.isalpha() or os.path.lexists(word):
        return
    from difflib import get_close_matches  # noqa: PLC0415 - most words are right

    matches = get_close_matches(word.lower(), COMMANDS, n=1, cutoff=0.6)
    if matches:
        raise UsageError(f"{word} is neither a command nor a file; did you mean {matches[0]}?")


def _loaded(module: str, function: str) -> click.Command:
    """Load a command. Modules that come with it stay, so the garbage collector need not look at them, now or later."""
    with _uncollected():
        command: click.Command = getattr(importlib.import_module(f"cosremaster.cli.{module}"), function)
        gc.freeze()
        gc.set_threshold(MUCH_NEW)
    return command


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the garbage collector for the context."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _explain(error: BaseException, words: Sequence[str]) -> int:
    """Print on standard error why the program, with the arguments ``words``, ends and return its exit code."""
    if isinstance(error, PipeClosedError):
        return error.exit_code
    if isinstance(error, CosremasterError):
        sys.stderr.write(f"cosremaster: {error}\n")
        return error.exit_code
    if isinstance(error, _Stopped):
        sys.stderr.write("cosremaster: stopped\n")
        return INTERRUPTED + error.number
    import click  # noqa: PLC0415 - what is left are its errors, so it is loaded already

    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        sys.stderr.write("cosremaster: interrupted\n")
        return INTERRUPTED + signal.SIGINT
    from cosremaster.cli.fault_report import describe_fault  # noqa: PLC0415 - nobody expects it

    sys.stderr.write(f"cosremaster: {describe_fault(error, words)}\n")
    return INTERNAL_FAULT
