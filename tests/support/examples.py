"""How many examples a property test takes: all of them in `make test`, a share of them in `make check`."""

import os

QUICK = os.environ.get("COSREMASTER_QUICK_TESTS") == "1"


def examples(count: int) -> int:
    """Return ``count``, or an eighth of it, but at least 20, where the environment asks for quick tests."""
    return max(20, count // 8) if QUICK else count
