"""Runs pytest as where no extra is installed: `python -m tests.support.without_extras ARGUMENTS`.

What some systems have no package of is missing too. So a distribution builds its package.
"""

from __future__ import annotations

import os
import sys

import pytest

EXTRAS = (
    "boto3", "distributed", "flask", "flask_cors", "fsspec", "httptools", "isal", "jsonschema", "lz4", "lzokay", "moto",
    "s3fs", "urllib3", "uvicorn", "uvloop", "vcdiff_decoder", "zensical", "zstandard",
)  # fmt: skip
"""Modules that the extras of pyproject.toml bring."""

MISSING_SOMEWHERE = ("fastcrc", "backports.zstd", "compression.zstd")
"""Modules of dependencies that Debian 13 has no packages of."""

if __name__ == "__main__":
    # An import of what stands for None there fails.
    sys.modules.update(dict.fromkeys((*EXTRAS, *MISSING_SOMEWHERE)))  # type: ignore[arg-type]
    os.environ.pop("CI", None)
    sys.exit(pytest.main(sys.argv[1:]))
