"""Programs in C of this directory, compiled for scripts that run them."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.fixtures.tools import require

_I386 = ("-m32", "-nostdlib", "-fno-pic", "-fno-stack-protector", "-mno-sse")


def compile_program(name: str, *, is_i386: bool = False) -> bytes:
    """The static program of ``name``.c, for this machine or for i386, which has no C library here."""
    require("gcc")
    source = Path(__file__).with_name(f"{name}.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, name)
        options = _I386 if is_i386 else ()
        subprocess.run(["gcc", "-O1", "-static", *options, "-o", program, source], check=True)
        return program.read_bytes()
