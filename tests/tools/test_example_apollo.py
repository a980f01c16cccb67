"""examples/apollo: the auto-build as a recipe, by its defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.recipe import read_recipe
from tests.fixtures import debirf, tools
from tests.support.small import write_small


def test_the_example_by_its_defaults_and_what_it_asks_for(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORKDIR", "DEBIRF_ISO", "APOLLO_ISO", "INSTALL_SCRIPT", "USERDATA", "SITE", "CUSTOMIZE_SCRIPT"):
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


CUSTOMIZE = """#!/bin/sh -e
[ -x /root/install.sh ] && [ "$(cat /etc/hostname)" = "$SITE" ]
cat /run/cosremaster/motd > /etc/motd
chown 33:33 /srv
echo customized for $SITE
"""


def test_the_customize_script_runs_when_all_is_added(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require(*debirf.TOOLS)
    (example / "my.sh").write_text(CUSTOMIZE)
    (example / "mine").mkdir()
    (example / "mine/motd").write_text("welcome\n")
    (example / "apollo.toml").write_text((example / "apollo.toml").read_text() + "\n[xz]\npreset = 0\n")
    settings = {"DEBIRF_ISO": str(debirf.build().iso), "CUSTOMIZE_SCRIPT": "my.sh", "CUSTOMIZE_FILES": "mine"}
    arguments = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert main(["build", str(example / "apollo.toml"), *arguments, "--set", "SITE=headend-7"]) == 0
    printed = capsys.readouterr()
    assert "my.sh | customized for headend-7\n" in printed.err
    assert "run my.sh: 2 changed (" in printed.out
    with cosremaster.open(example / "apollo-site.iso") as image:
        assert image.read("@root::etc/motd") == b"welcome\n"
        assert (image.stat("@root::srv").uid, image.stat("@root::srv").gid) == (33, 33)
    (example / "my.sh").write_text("#!/bin/sh\nexit 9\n")
    assert main(["build", str(example / "apollo.toml"), *arguments, "--force"]) == 11
    assert "my.sh: it ended with exit code 9, so nothing is written\n" in capsys.readouterr().err
