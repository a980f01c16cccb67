"""Fields of a request that are lists take no text, which in Python is a list of its letters."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster import InlineFile, MaasResource, Request, UsageError
from tests.support.small import write_small


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel_args", "quiet"),
        ("remove_kernel_args", "quiet"),
        ("replace_kernel_args", "a=b=c"),
        ("add", "site/"),
        ("add", Path("site")),
        ("add", InlineFile("/etc/x", b"")),
        ("add_iso", "site/:/data"),
        ("remove", b"*.log"),
        ("remove_iso", "*.log"),
        ("rename_iso", "/vmlinuz:/x"),
        ("run", "ldconfig"),
    ],
)
def test_a_text_is_no_list(name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel argument was one for each of its letters, in every menu."""
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path)
    for remaster in (cosremaster.remaster, partial(_plan, cosremaster.plan)):
        with pytest.raises(UsageError, match=rf"^{name} is a list, and .* is none: {name}=\[.*\] is one$"):
            remaster("in.iso", "out.iso", **{name: value})
    assert not Path("out.iso").exists()
    with pytest.raises(UsageError, match=r"^exclude is a list"):
        cosremaster.export("in.iso", "out.tar.gz", archive=MaasResource(name="site", exclude="*.log"))  # type: ignore[arg-type]


def _plan(plan: Any, source: str, _: str, **fields: Any) -> None:
    """Plan what ``remaster`` with the same ``fields`` would do."""
    plan(source, Request(**fields))
