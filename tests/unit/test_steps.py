"""docs/steps.md: its program makes the image that the whole remaster makes, by the same functions in the same order."""

from __future__ import annotations

import io
import re
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType

import pytest

import cosremaster
from cosremaster import AddPath, InlineFile
from cosremaster.recipe.build import build
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


def blocks_of_page(number: str) -> list[tuple[str, str]]:
    """The Python blocks of docs/steps.md in the steps whose number matches, each with that."""
    text = (REPOSITORY / "docs" / "steps.md").read_text()
    return [
        (step, block)
        for step, section in re.findall(rf"^## ({number})\.(.*?)(?=^##? |\Z)", text, re.S | re.M)
        for block in re.findall(r"^```python\n(.*?)^```$", section, re.S | re.M)
    ]


def run_blocks(blocks: list[tuple[str, str]], names: dict[str, object]) -> None:
    for number, block in blocks:
        exec(compile(block, f"docs/steps.md, step {number}", "exec"), names)


def test_the_steps_by_hand_are_the_whole_remaster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = blocks_of_page(r"\d")
    assert [number for number, _ in blocks] == list("112345677")
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path).rename("debirf-live.iso")
    write_overlay(tmp_path).rename("site")
    Path("install.sh").write_text("#!/bin/sh\necho installing\n")
    Path("apollo-platform.iso").write_bytes(without_layer({}))
    with calls_of_steps() as by_hand:
        run_blocks(blocks, {})
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


RECIPE = """
input = "jammy-root.tar.xz"
output = "built/harmonic-installer.tar.gz"
maas_clean = true

[maas]
name = "harmonic-installer"
title = "Harmonic Installer"
base_image = "ubuntu/jammy"

[[add]]
source = "installer"

[[add]]
source = "packages"
dest = "/opt/harmonic-installer/packages"

[[add]]
file = "/curtin/CUSTOM_KERNEL"
content = "\\n"
"""


def write_root(path: Path) -> None:
    """A small root file system in a tar archive, with a host key and a machine-id."""
    with tarfile.open(path, "w:xz") as archive:
        for name in ("./", "./etc/", "./etc/ssh/", "./usr/", "./usr/bin/"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for name, data in {
            "machine-id": b"1" * 32,
            "ssh/ssh_host_rsa_key": b"secret",
            "passwd": b"root:x:0:0\n",
        }.items():
            info = tarfile.TarInfo(f"./etc/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_the_image_for_maas_takes_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = blocks_of_page(r"M\d")
    assert [number for number, _ in blocks] == [f"M{number}" for number in range(1, 8)]
    monkeypatch.chdir(tmp_path)
    write_root(Path("jammy-root.tar.xz"))
    for name in ("installer/curtin/curtin-hooks", "packages/a.deb", "built/x"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text("a hook\n")
    names: dict[str, object] = {}
    exec(
        "from contextlib import ExitStack\nfrom pathlib import Path\nfrom cosremaster import AddPath, InlineFile", names
    )
    exec("from cosremaster.remastering import steps", names)  # the first half of the page has these
    with calls_of_steps() as by_hand:
        run_blocks(blocks, names)
    *printed, imported = capsys.readouterr().out.splitlines()
    assert "opt/harmonic-installer/packages/a.deb" in printed[0]
    with calls_of_steps() as whole:
        cosremaster.remaster(
            "jammy-root.tar.xz",
            "whole.tar.gz",
            add=["installer", "packages:/opt/harmonic-installer/packages", InlineFile("/curtin/CUSTOM_KERNEL", b"\n")],
            maas_clean=True,
            remember=False,
        )
    tarball = Path("harmonic-installer.tar.gz").read_bytes()
    assert Path("whole.tar.gz").read_bytes() == tarball
    assert first_calls(by_hand) == first_calls(whole)
    with tarfile.open("whole.tar.gz") as archive:
        assert "./etc/ssh/ssh_host_rsa_key" not in archive.getnames()
        assert archive.getmember("./etc/machine-id").size == 0
    Path("harmonic.toml").write_text(RECIPE)
    result = build("harmonic.toml")
    assert Path("built/harmonic-installer.tar.gz").read_bytes() == tarball
    assert re.sub(r"content@=\S*/", "content@=", result.upload) == imported
    assert imported.startswith("maas admin boot-resources create name=custom/harmonic-installer ")
