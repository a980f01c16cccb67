"""gzip by isal where that is asked for: real tools read it, and nobody gets it by chance."""

import io
import random
import tarfile
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs.gzip import inflate
from cosremaster.errors import UnsupportedError, UsageError
from tests.fixtures import tools
from tests.fixtures.tools import run

WORDS = [f"word{number}" for number in range(700)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an archive of several deflate blocks, and a file to add."""
    tools.require_module("isal")
    chance = random.Random(1)
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for number in range(6):
            data = " ".join(chance.choices(WORDS, k=90_000)).encode()
            info = tarfile.TarInfo(f"etc/words-{number}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "motd").write_text("site\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _judge(packed: Path, plain: bytes) -> None:
    """Real tools find ``plain`` in ``packed``."""
    tools.require("gzip", "busybox", "bsdtar", "tar")
    run(["gzip", "-t", packed])
    assert run(["gzip", "-dc", packed]) == plain
    assert run(["busybox", "gunzip", "-c"], stdin=packed.read_bytes()) == plain
    names = run(["tar", "-tzf", packed])
    assert run(["bsdtar", "-tf", packed]) == names
    with tarfile.open(packed) as tar:
        assert tar.getnames() == [name.rstrip("/") for name in names.decode().splitlines()]


def test_real_tools_read_what_isal_packs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add = ["--add", "motd:/etc/"]
    assert main(["in.tar", "plain.tar", *add]) == 0
    assert main(["in.tar", "zlib.tar.gz", *add]) == 0
    capsys.readouterr()
    assert main(["in.tar", "isal.tar.gz", *add, "--gzip", "isal", "--threads", "1"]) == 0
    assert "gzip by isal in.tar" in capsys.readouterr().out
    assert main(["in.tar", "again.tar.gz", *add, "--gzip", "isal", "--threads", "3"]) == 0
    plain = (here / "plain.tar").read_bytes()
    for name in ("zlib.tar.gz", "isal.tar.gz"):
        _judge(here / name, plain)
    assert (here / "isal.tar.gz").read_bytes() == (here / "again.tar.gz").read_bytes()
    assert (here / "isal.tar.gz").read_bytes() != (here / "zlib.tar.gz").read_bytes()


@pytest.mark.parametrize("later", ["zlib", "isal"])
def test_a_later_run_keeps_the_front_that_isal_packed(here: Path, later: str) -> None:
    cosremaster.remaster("in.tar", "first.tar.gz", gzip="isal")
    result = cosremaster.remaster("first.tar.gz", "second.tar.gz", add=["motd:/etc/"], gzip=later)
    (packed,) = result.packed
    assert packed.codec == ("gzip" if later == "zlib" else "gzip by isal")
    assert packed.reused > 0.6 * packed.size
    cosremaster.remaster("in.tar", "plain.tar", add=["motd:/etc/"])
    _judge(here / "second.tar.gz", (here / "plain.tar").read_bytes())


def test_an_opened_image_mixes_no_blocks_of_both(here: Path) -> None:
    """Deflated blocks are kept for the next remaster of an opened image."""
    run(["gzip", "-kn", "in.tar"], cwd=here)
    kinds = {"zlib": "zlib", "isal": "isal", "default": "zlib"}
    with cosremaster.open("in.tar.gz", remember=False) as image:
        for name, coder in kinds.items():
            image.remaster(f"{name}.tar.gz", cosremaster.Request(add=["motd:/etc/"], gzip=coder))
    for name, coder in kinds.items():
        cosremaster.remaster("in.tar.gz", f"alone-{name}.tar.gz", add=["motd:/etc/"], gzip=coder)
        assert (here / f"{name}.tar.gz").read_bytes() == (here / f"alone-{name}.tar.gz").read_bytes()


def test_an_export_and_a_pack_by_isal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "in.tar", "--maas", "words", "--gzip", "isal", "--output", "isal.tgz"]) == 0
    assert "gzip by isal" in capsys.readouterr().out
    assert main(["export", "in.tar", "--maas", "words", "--output", "zlib.tgz"]) == 0
    assert "isal" not in capsys.readouterr().out
    _judge(here / "isal.tgz", run(["gzip", "-dc", "zlib.tgz"], cwd=here))
    assert main(["pack", "in.tar", "packed.tar.gz", "--gzip", "isal"]) == 0
    assert "gzip by isal" in capsys.readouterr().out
    run(["gzip", "-t", "packed.tar.gz"], cwd=here)


def test_a_recipe_says_it_too(here: Path) -> None:
    (here / "site.toml").write_text('input = "in.tar"\noutput = "recipe.tar.gz"\ngzip = "isal"\n')
    assert main(["build", "site.toml"]) == 0
    cosremaster.remaster("in.tar", "isal.tar.gz", gzip="isal")
    assert (here / "recipe.tar.gz").read_bytes() == (here / "isal.tar.gz").read_bytes()


def test_isal_is_never_taken_by_chance(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cosremaster.remaster("in.tar", "with.tar.gz")
    monkeypatch.setattr(inflate, "HAS_ISAL", False)
    cosremaster.remaster("in.tar", "without.tar.gz")
    assert (here / "with.tar.gz").read_bytes() == (here / "without.tar.gz").read_bytes()
    before = sorted(here.iterdir())
    for words in (["in.tar", "no.tar.gz"], ["export", "in.tar", "--maas", "no"], ["pack", "in.tar", "no.tar.gz"]):
        assert main([*words, "--gzip", "isal"]) == UnsupportedError.exit_code
        assert "isal, which is not installed here" in capsys.readouterr().err
    with pytest.raises(UsageError, match="packed by zlib or isal, not by 'pigz'"):
        cosremaster.remaster("in.tar", "no.tar.gz", gzip="pigz")
    assert sorted(here.iterdir()) == before
