"""docs/steps.md: its program makes the image that the whole remaster makes, by the same functions in the same order."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType

import pytest

import cosremaster
from cosremaster import AddPath, InlineFile
from cosremaster.remastering import steps
from tests.support.small import without_layer, write_overlay, write_small
from tests.support.user import REPOSITORY


@contextmanager
def calls_of_steps() -> Iterator[list[str]]:
    """The names of the step functions that are called, in order, but for calls by other steps of the same name."""
    names = {
        step.__code__: name
        for name in steps.__all__
        if isinstance(step := getattr(steps, name), FunctionType) and name not in ("parse_address", "format_address")
    }
    calls: list[str] = []

    def watch(frame: object, event: str, _: object) -> None:
        code = getattr(frame, "f_code", None)
        if event == "call" and code in names:
            calls.append(names[code])

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def first_calls(calls: list[str]) -> list[str]:
    """Each name once, where it comes first: steps call other steps, and generators go on in several calls."""
    return list(dict.fromkeys(calls))


def test_the_steps_by_hand_are_the_whole_remaster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (REPOSITORY / "docs" / "steps.md").read_text()
    sections = re.findall(r"^## (\d)\.(.*?)(?=^## |\Z)", text, re.S | re.M)
    blocks = [
        (number, block)
        for number, section in sections
        for block in re.findall(r"^```python\n(.*?)^```$", section, re.S | re.M)
    ]
    assert [number for number, _ in blocks] == list("112345677")
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path).rename("debirf-live.iso")
    write_overlay(tmp_path).rename("site")
    Path("install.sh").write_text("#!/bin/sh\necho installing\n")
    Path("apollo-platform.iso").write_bytes(without_layer({}))
    names: dict[str, object] = {}
    with calls_of_steps() as by_hand:
        for number, block in blocks:
            exec(compile(block, f"docs/steps.md, step {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "debirf-live-demo.cgz::rootfs.cxz" in printed
    assert "'data/apollo-platform.iso'" in printed
    assert "new bytes read back" in printed
    with calls_of_steps() as whole:
        cosremaster.remaster(
            "debirf-live.iso",
            "whole.iso",
            add=[
                "site",
                "install.sh:/root/",
                InlineFile("/etc/hostname", b"headend-7\n"),
            ],
            remove=["/etc/motd"],
            add_iso=[AddPath("apollo-platform.iso", "/data/", unpack=False)],
            allow_missing=True,
            remember=False,
        )
    assert Path("whole.iso").read_bytes() == Path("apollo-site.iso").read_bytes()
    assert Path("apollo-site.iso.md5").exists()
    assert first_calls(by_hand) == first_calls(whole)
