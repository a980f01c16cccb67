"""Where no extra is installed tests are left out by name, and none fails: a distribution runs them while it builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.support.user import REPOSITORY

ASKS = re.compile(r"\b(load_module|require_module|require_zstd|serve_file|squashfs_faults)\b")
"""What a test uses that needs an extra."""


def run_without_extras(*words: str) -> str:
    """Run pytest with ``words`` and without extras. Return its output; whatever fails fails the running test."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.without_extras", "-q", "-p", "no:cacheprovider", *words],
        cwd=REPOSITORY, env={**os.environ, "COSREMASTER_QUICK_TESTS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout


def test_every_test_can_be_read() -> None:
    assert re.search(r"^\d+/?\d* tests collected", run_without_extras("--collect-only", "tests"), re.MULTILINE)


def test_unit_tests_that_need_an_extra_are_left_out() -> None:
    files = [path for path in sorted(REPOSITORY.glob("tests/unit/test_*.py")) if ASKS.search(path.read_text())]
    output = run_without_extras(*map(str, files))
    for name in ("isal", "jsonschema", "urllib3", "zstandard"):
        assert f"This test needs the Python module {name}, which is not installed." in output
