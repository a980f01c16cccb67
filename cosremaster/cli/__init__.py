"""The command line: arguments, terminal progress, exit codes. The only place that prints or exits."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
"""As in typing, which is not loaded here."""

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code. ``arguments`` are those of the process when None.

    Nothing else is loaded before, so that Ctrl-C has its message from the first moment on. When all is done it has no
    effect any more: the process ends anyway, with a code that tells what happened.
    """
    try:
        if arguments is None:
            import gc  # noqa: PLC0415 - an interruption while it loads is met here

            gc.disable()  # what is loaded stays, and what a command makes that only looks; others enable it again
        from cosremaster.cli.entry import run_program  # noqa: PLC0415 - the same

        return run_program(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("cosremaster: interrupted\n")
        return 130
    finally:
        if arguments is None:
            import signal  # noqa: PLC0415 - the same

            signal.signal(signal.SIGINT, signal.SIG_IGN)
            gc.freeze()  # the end of the interpreter does not look for cycles in what is given up anyway
