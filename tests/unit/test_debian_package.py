"""packaging/debian says what pyproject.toml says. `make deb` builds it (tried on trixie and sid; docs/install.md)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cosremaster.__about__ import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
DEBIAN = REPOSITORY / "packaging/debian"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


UNPACKAGED = {"fastcrc", "backports.zstd"}
"""Dependencies that Debian 13 has no package of, without which the program works (tests/tools/test_plain_python.py)."""


def read_fields(paragraph: str) -> dict[str, str]:
    """The fields of a paragraph of debian/control."""
    fields = re.split(r"^([A-Z][\w-]*):", paragraph, flags=re.MULTILINE)[1:]
    return dict(zip(fields[::2], (" ".join(value.split()) for value in fields[1::2]), strict=True))


def test_the_version_is_that_of_the_program() -> None:
    first, *_ = (DEBIAN / "changelog").read_text().splitlines()
    assert re.match(rf"cosremaster \({re.escape(__version__)}-\d+\) unstable; urgency=\w+$", first)


def test_every_dependency_is_there_when_tests_run_in_the_build() -> None:
    """dh_python3 makes the package's own dependencies from the wheel's."""
    source, package = (read_fields(text) for text in (DEBIAN / "control").read_text().split("\n\n", 1))
    lines = [line for line in PROJECT["dependencies"] if not line.endswith("python_version < '3.11'")]
    names = {re.split(r"[^\w.-]", line)[0] for line in lines}
    missing = {name for name in names if f"python3-{name.replace('.', '-')} " not in source["Build-Depends"] + " "}
    assert missing == UNPACKAGED & names
    assert "${python3:Depends}" in package["Depends"]
    assert "python3-pydantic" in package["Depends"], "dh_python3 passes over dependencies with a marker"
    assert package["Description"].startswith("remaster bootable ISO images")


def test_rules_can_be_run() -> None:
    assert (DEBIAN / "rules").stat().st_mode & 0o111 == 0o111
    assert (DEBIAN / "source/format").read_text() == "3.0 (quilt)\n"
