"""The command line: arguments, terminal progress, exit codes. The only place that prints or exits."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
"""As in typing, which is not loaded here."""

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main", "run_process"]


def run_process() -> NoReturn:
    """Run the program in a process of its own, and end the process with its exit code.

    An interpreter gives every value and module back before it ends, which takes a tenth of the time of a small
    remaster, and as much of one of 100,000 files. The system takes them all at once. What somebody waits for happens
    before: functions of ``atexit``, and bytes that wait in standard streams. Where a thread, a debugger or a profiler
    still works, or a stream cannot be written, the interpreter ends as usual.
    """
    code = main()
    threading = sys.modules.get("threading")
    is_alone = threading is None or threading.active_count() == 1
    if is_alone and sys.getprofile() is None and sys.gettrace() is None and not sys.flags.inspect:
        import atexit  # noqa: PLC0415 - main meets an interruption from the first moment on
        import os  # noqa: PLC0415 - the same

        from cosremaster.errors import CosremasterError  # noqa: PLC0415 - the same

        atexit._run_exitfuncs()
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError, CosremasterError):
            sys.exit(code)
        os._exit(code)
    sys.exit(code)


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
