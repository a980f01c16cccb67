"""A process of the program ends at once, and does before what somebody waits for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.user import REPOSITORY

START = "import sys; sys.argv = ['cosremaster', '--version']; import cosremaster.cli as cli\n"
VERSION = subprocess.run(
    [sys.executable, "-m", "cosremaster", "--version"], cwd=REPOSITORY, capture_output=True, text=True, check=True
).stdout


def run(code: str, *, stdout: int = subprocess.PIPE) -> tuple[int, str, str]:
    """Return the exit code of the program in a process that ran ``code`` before, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"{START}{code}\ncli.run_process()"],
        cwd=REPOSITORY, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    return done.returncode, done.stdout or "", done.stderr


KEPT = "import os\nclass Kept:\n    def __del__(self, write=os.write): write(2, b'given up')\nsys.kept = Kept()\n"
"""A value that the interpreter gives up at its usual end."""


def test_nothing_is_given_up_value_by_value() -> None:
    assert run(KEPT) == (0, VERSION, "")


def test_functions_of_atexit_run_and_what_they_print_comes_out() -> None:
    assert run("import atexit; atexit.register(print, 'the end')") == (0, VERSION + "the end\n", "")


@pytest.mark.parametrize("code", [0, 1, 4, 141])
def test_the_exit_code_is_that_of_the_program(code: int) -> None:
    assert run(f"cli.main = lambda: {code}")[0] == code


@pytest.mark.parametrize(
    "before",
    [
        "import threading, time; threading.Timer(0.3, sys.stderr.write, ['worked, ']).start()",
        "sys.setprofile(lambda *_: None)",
        "sys.settrace(lambda *_: None)",
    ],
)
def test_the_interpreter_ends_as_usual_where_something_still_works(before: str) -> None:
    code, printed, errors = run(KEPT + before)
    assert (code, printed) == (0, VERSION)
    assert errors.endswith("given up")
    assert errors.startswith("worked") == ("Timer" in before)


def test_a_stream_that_cannot_be_written_counts_as_at_a_usual_end() -> None:
    with open("/dev/full", "wb") as full:
        code, _, errors = run("cli.main = lambda: print('lost') or 0", stdout=full.fileno())
    assert code == 120
    assert "No space left on device" in errors
