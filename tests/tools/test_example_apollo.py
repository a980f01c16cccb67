"""examples/apollo: the auto-build as a recipe, by its defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.recipe import read_recipe
from tests.support.small import write_small


def test_the_example_by_its_defaults_and_what_it_asks_for(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORKDIR", "DEBIRF_ISO", "APOLLO_ISO", "INSTALL_SCRIPT", "USERDATA", "SITE"):
        monkeypatch.delenv(name, raising=False)
    (example / "apollo-platform.iso").unlink()
    assert main(["build", str(example / "apollo.toml")]) == 2
    said = capsys.readouterr().err
    assert f"input: there is no file {example}/debirf-live.iso" in said
    assert f"add_iso[0].source: there is no file {example}/apollo-platform.iso" in said
    assert said.count(" » ") == 2
    write_small(example).rename(example / "debirf-live.iso")
    (example / "apollo-platform.iso").write_bytes(b"platform")
    recipe = read_recipe(example / "apollo.toml")
    assert recipe.output == example / "apollo-site.iso"
    assert main(["build", str(example / "apollo.toml"), "--quiet"]) == 0
    assert (example / "apollo-site.iso").exists()
