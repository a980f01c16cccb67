"""Spliced layers in a boot: under busybox, through a remembered index, and under the kernel's own decoder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cosremaster
from tests.fixtures import debirf, tools
from tests.fixtures.debirf import Recipe
from tests.support import qemu

LINE = "SPLICED-OVERLAY-LINE"

SHAPES = {
    # One block: its front stays. Many blocks: those without a change stay. Not nested: the kernel unpacks it.
    "one block": (Recipe(), 0.8),
    "many blocks": (Recipe(layer_codec=("xz", "-T2", "-6", "--block-size=1MiB")), 0.5),
    "xz under the kernel": (Recipe(layer=None, outer_codec=("xz", "-T1", "-6", "--check=crc32")), 0.8),
}


def test_a_prepared_base_boots_with_an_early_file_removed(tmp_path: Path) -> None:
    """Under the kernel's own decoder, which gets many small blocks."""
    tools.require(*debirf.TOOLS, *qemu.TOOLS)
    source = debirf.build(recipe=SHAPES["xz under the kernel"][0]).iso
    base, out = tmp_path / "base.iso", tmp_path / "out.iso"
    with cosremaster.open(source, remember=False) as image:
        prepared = image.write_base(base, block_size="256K")
    assert max(layer.parts[1] for layer in prepared.layers) > 10
    result = cosremaster.remaster(base, out, remove=["/usr/share/doc/package-100/changelog"], remember=False)
    assert result.packed[0].encoded < 1 << 18
    assert debirf.MARKER in qemu.boot(out, firmware="bios", medium="disc")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_spliced_image_boots(tmp_path: Path, shape: str) -> None:
    tools.require(*debirf.TOOLS, *qemu.TOOLS)
    recipe, least = SHAPES[shape]
    source = debirf.build(recipe=recipe).iso
    overlay = tmp_path / "overlay"
    (overlay / "root").mkdir(parents=True)
    script = overlay / "root" / "site.sh"
    script.write_text(f"#!/bin/sh\necho {LINE}\nwc -c < /data/noise\n")
    script.chmod(0o755)
    (overlay / "data").mkdir()
    (overlay / "data" / "noise").write_bytes(os.urandom(2_000_000))
    # A file in the middle of the archive, so that blocks before and behind it are clean.
    middle = overlay / "usr/share/doc/package-100" / "changelog"
    middle.parent.mkdir(parents=True)
    middle.write_text("replaced\n")
    add = [overlay] if shape == "many blocks" else [f"{overlay}/root:/root", f"{overlay}/data:/data"]
    with cosremaster.open(source) as image:
        image.layers()
    with cosremaster.open(source) as image:  # the second one has nothing but the remembered index
        result = image.remaster(tmp_path / "out.iso", cosremaster.Request(add=add))
    assert result.replaced == ((b"usr/share/doc/package-100/changelog",) if shape == "many blocks" else ())
    inner = result.packed[0]
    assert inner.reused > least * (inner.size - inner.stored)
    assert inner.stored > 1_900_000
    said = qemu.boot(tmp_path / "out.iso", firmware="bios", medium="disc")
    assert debirf.MARKER in said
    assert LINE in said
    assert "\n2000000\n" in said
