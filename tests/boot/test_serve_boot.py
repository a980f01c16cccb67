"""A machine boots an image that was never written: iPXE reads it over HTTP from `cosremaster serve`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures import debirf
from tests.fixtures.tools import require, require_module
from tests.support import qemu
from tests.support.debirf_site import SITE_LINE, write_overlay
from tests.support.serving import serve


@pytest.mark.parametrize("command", ["sanboot", pytest.param("chain", marks=pytest.mark.slow)])
def test_ipxe_boots_a_served_site(tmp_path: Path, command: str) -> None:
    require(*debirf.TOOLS, *qemu.NETBOOT_TOOLS)
    require_module("uvicorn")
    write_overlay(tmp_path / "overlay")
    recipe = tmp_path / "site.toml"
    recipe.write_text(f'input = "{debirf.build().iso}"\noutput = "site.iso"\n[[add]]\nsource = "overlay"\n')
    with serve([recipe]) as server:
        url = f"http://10.0.2.2:{server.port}/"
        script = f"sanboot --no-describe {url}site.iso" if command == "sanboot" else f"chain {url}site/boot.ipxe"
        (tmp_path / "tftp").mkdir()
        (tmp_path / "tftp/start.ipxe").write_text(f"#!ipxe\ndhcp\n{script}\n")
        said = qemu.netboot(tmp_path / "tftp", "start.ipxe", reaches_host=True)
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert debirf.MARKER in said
    assert SITE_LINE in said
    agents = {line["agent"].partition("/")[0] for line in lines}
    assert agents == {"iPXE"}
    if command == "sanboot":
        assert len(lines) > 100 and {line["status"] for line in lines} == {200, 206}
    else:
        assert lines[0]["path"] == "/site/boot.ipxe" and {line["status"] for line in lines} == {200}
    assert not (tmp_path / "site.iso").exists()
