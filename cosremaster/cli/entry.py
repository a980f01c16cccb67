"""The program: which command is asked for, how it ends, exit codes (docs/exit-codes.md).

A command's module is loaded when it is asked for: listing an initramfs takes no longer than reading it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from types import FrameType

from cosremaster.__about__ import __version__
from cosremaster.cli.pause import uncollected
from cosremaster.cli.plain import FLAGS, run_plainly
from cosremaster.cli.settings import Settings
from cosremaster.cli.standard_streams import PipeClosedError, StandardOutputError, prepare_streams
from cosremaster.errors import CosremasterError, UnsupportedError

INTERRUPTED = 128

INTERNAL_FAULT = 70
"""EX_SOFTWARE of sysexits(3)."""

REQUIRED = frozenset(("click", "platformdirs", "pycdlib", "rich", "tomli"))
"""Packages that an installation by hand (``pip install --no-deps``) may lack; for all others there is a way round."""


_READ_FILES = frozenset(("build", "fleet", "serve"))
"""Commands whose files may name an image by URL."""


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
    if any(word in _READ_FILES or "://" in word for word in words):
        from cosremaster.cli.remote_warnings import show_warnings  # noqa: PLC0415 - most images are on this machine

        show_warnings()
    before = {
        number: signal.signal(number, _stop)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup(1) lets it be ignored
    }
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt, _Stopped) as error:
        explained = explain_failure(error, words)
        with suppress(StandardOutputError):  # or the interpreter meets it at its end
            sys.stdout.flush()
        return explained
    finally:
        Settings.reset()
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(words: list[str]) -> int:
    """Run the command that ``words`` name and return its exit code."""
    Settings.reset()
    if words in (["--version"], ["-V"]):
        sys.stdout.write(f"cosremaster {__version__}\n")
        return 0
    if words and words[0] in FLAGS:
        with uncollected():  # an index is many small values that stay, and no garbage
            if run_plainly(words[0], words[1:]):
                return 0
    from cosremaster.cli.group import run_group  # noqa: PLC0415 - loads click

    code = run_group(words)
    return code if isinstance(code, int) else 0


def explain_failure(error: BaseException, words: Sequence[str]) -> int:
    """Print on standard error why the program, with the arguments ``words``, ends and return its exit code."""
    error = _name_missing_package(error)
    if isinstance(error, PipeClosedError):
        return error.exit_code
    if isinstance(error, CosremasterError):
        _report(error, error.exit_code, words)
        return error.exit_code
    if isinstance(error, _Stopped):
        _report("stopped", INTERRUPTED + error.number, words, "Stopped")
        return INTERRUPTED + error.number
    import click  # noqa: PLC0415 - what is left are its errors, so it is loaded already

    if isinstance(error, click.ClickException):
        if not _report(error.format_message(), error.exit_code, words, "UsageError", show=False):
            from cosremaster.cli.messages import show_usage_error  # noqa: PLC0415 - the same

            show_usage_error(error)
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        _report("interrupted", INTERRUPTED + signal.SIGINT, words, "Interrupted")
        return INTERRUPTED + signal.SIGINT
    from cosremaster.cli.fault_report import describe_fault  # noqa: PLC0415 - nobody expects it

    _report(describe_fault(error, words), INTERNAL_FAULT, words, "InternalFault")
    return INTERNAL_FAULT


def _name_missing_package(error: BaseException) -> BaseException:
    """Return ``error``, or a refusal that names the required package which is not installed."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in REQUIRED:
        return error
    return UnsupportedError(f"{name} is needed for this, and not installed here (pip install {name})")


def _has_option(words: Sequence[str], name: str, value: str) -> bool:
    """Return whether ``words`` have the option ``name`` with ``value``."""
    return f"{name}={value}" in words or (name, value) in pairwise(words)


def _report(
    error: CosremasterError | str, code: int, words: Sequence[str], kind: str = "", *, show: bool = True
) -> bool:
    """Tell why the program ends with the exit ``code``: on standard error, and on standard output where JSON is wanted.

    ``show``: also where standard error gets text. Return whether anything was written there.
    """
    from cosremaster.cli.messages import describe_error, describe_event, explain_error  # noqa: PLC0415 - few runs fail

    own = list(words[: words.index("--")] if "--" in words else words)
    if _has_option(own, "--progress", "json"):
        Settings.progress = "json"  # click may not have come so far
    for choice in ("always", "never"):
        if _has_option(own, "--color", choice):
            Settings.color = choice
    if "--json" in own:
        from cosremaster.cli.standard_streams import write_json  # noqa: PLC0415 - the same

        with suppress(StandardOutputError):
            values = describe_event(describe_error(error, code, kind))
            del values["event"]
            write_json({"schema": 1, "error": values})
    if not show and Settings.progress != "json":
        return False
    explain_error(error, code, kind)
    return True
