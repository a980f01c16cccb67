"""docs/steps.md: its program runs, and comes to what the whole remaster comes to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cosremaster
from cosremaster import AddPath, InlineFile
from tests.support.small import without_layer, write_overlay, write_small
from tests.support.user import REPOSITORY


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
    assert [number for number, _ in blocks] == list("12345667")
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path).rename("debirf-live.iso")
    write_overlay(tmp_path).rename("site")
    Path("install.sh").write_text("#!/bin/sh\necho installing\n")
    Path("apollo-platform.iso").write_bytes(without_layer({}))
    names: dict[str, object] = {}
    for number, block in blocks:
        exec(compile(block, f"docs/steps.md, step {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "debirf-live-demo.cgz::rootfs.cxz" in said
    assert "'data/apollo-platform.iso'" in said
    assert "new bytes read back" in said
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
    )
    assert Path("whole.iso").read_bytes() == Path("apollo-site.iso").read_bytes()
    assert Path("apollo-site.iso.md5").exists()
