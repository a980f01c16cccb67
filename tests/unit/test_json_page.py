"""What commands print with ``--json`` is what docs/json.md says, and nothing else stands on standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosremaster.cli import main
from tests.fixtures.tools import load_module
from tests.support.json_page import DOCUMENTS, PAGE, make_schema, page_text
from tests.support.small import CGZ, write_overlay, write_small

jsonschema = load_module("jsonschema")

ROOTFS = f"{CGZ}::rootfs.cxz"


def test_the_schemas_are_up_to_date() -> None:
    assert PAGE.read_text() == page_text(), "python -m tests.support.json_page writes it anew"


@pytest.mark.parametrize("title", sorted(DOCUMENTS))
def test_a_schema_is_one_and_is_strict(title: str) -> None:
    schema = make_schema(DOCUMENTS[title])
    jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 1, "nonsense": 1}, schema)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image, an overlay, a recipe, and a fleet."""
    write_small(tmp_path, extra={"md5sum.txt": b"0" * 32 + b"  " + CGZ.encode()}).rename(tmp_path / "in.iso")
    (write_overlay(tmp_path) / "site.sh").chmod(0o644)
    (tmp_path / "recipe.toml").write_text('input = "in.iso"\noutput = "built.iso"\n[[add]]\nsource = "overlay"\n')
    (tmp_path / "sites").mkdir()
    (tmp_path / "fleet.toml").write_text(
        'base = "in.iso"\noutput = "sites/${NAME}.iso"\n[[site]]\nname = "a"\n[[add]]\nsource = "overlay"\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(words: list[str], code: int, capsys: pytest.CaptureFixture[str], title: str) -> Any:
    """Run the command ``words``, and return what it prints, which is held against the schema ``title``."""
    assert main(words) == code
    values = json.loads(capsys.readouterr().out)
    jsonschema.validate(values, make_schema(DOCUMENTS[title]))
    return values


_NODES, _RESULT, _PLAN = "ls, stat, find, tree", "remaster, build, pack", "plan, build --plan"
_REMASTER = ["in.iso", "out.iso", "--add", "overlay", "--remove", "etc/hostname", "--volume-id", "NEW"]


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (["ls", f"in.iso::{ROOTFS}", "-R"], _NODES),
        (["stat", "in.iso::vmlinuz"], _NODES),
        (["find", "in.iso", "**/hostname"], _NODES),
        (["tree", "in.iso::EFI"], _NODES),
        (["inspect", "in.iso"], "inspect"),
        (["inspect", "in.iso", "--deep"], "inspect"),
        (["inspect", "overlay.cpio"], "inspect"),
        (["verify", "in.iso"], "verify"),
        (["plan", "in.iso"], _PLAN),
        (["plan", *_REMASTER[:1], *_REMASTER[2:], "--kernel-arg", "quiet"], _PLAN),
        (["build", "recipe.toml", "--plan"], _PLAN),
        (["build", "recipe.toml"], _RESULT),
        (_REMASTER, _RESULT),
        ([*_REMASTER, "--delta"], _RESULT),
        (["in.iso", "out.iso", "--add-iso", "overlay:/site", "--rename-iso", "vmlinuz:/boot/"], _RESULT),
        (["pack", "overlay", "new.tar.gz"], _RESULT),
        (["prepare", "in.iso", "base.iso"], "prepare"),
        (["extract", f"in.iso::{ROOTFS}", "taken"], "extract"),
        (["extract", f"in.iso::{ROOTFS}", "taken.tar", "--as", "tar"], "extract"),
        (["export", "in.iso", "--maas", "site"], "export"),
        (["index", "in.iso"], "index"),
        (["cache", "list"], "cache"),
        (["cache", "clear"], "cache"),
        (["fleet", "fleet.toml", "--plan"], "fleet --plan"),
        (["fleet", "fleet.toml"], "fleet"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60],
)  # fmt: skip
@pytest.mark.parametrize("more", [[], ["-q"]], ids=["", "quiet"])
def test_what_a_command_prints_is_its_schemas(
    site: Path, capsys: pytest.CaptureFixture[str], words: list[str], title: str, more: list[str]
) -> None:
    if "overlay.cpio" in words:
        assert main(["pack", "overlay", "overlay.cpio", "-q"]) == 0
    _run([*words, "--json", *more], 0, capsys, title)


def test_the_result_says_what_was_done(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = _run([*_REMASTER, "--json", "-q"], 0, capsys, _RESULT)
    (layer,) = values["layers"]
    assert (layer["layer"], layer["edits"]["removed"]) == (ROOTFS, ["etc/hostname"])
    assert values["output"] == "out.iso" and values["size"]["after"] == (site / "out.iso").stat().st_size
    assert [packed["address"] for packed in values["packed"]] == [ROOTFS, CGZ]
    assert any("new bytes read back" in line for line in values["proof"])


def test_no_number_stands_for_what_is_not_there(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = _run(["pack", "overlay", "new.cpio", "--json"], 0, capsys, _RESULT)
    assert packed["size"] == {"before": None, "after": (site / "new.cpio").stat().st_size}


def test_a_base_says_where_it_is(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = _run(["prepare", "in.iso", "base.iso", "--json", "-q"], 0, capsys, "prepare")
    assert (base["output"], base["size"]["after"]) == ("base.iso", (site / "base.iso").stat().st_size)


def test_a_difference_and_a_delta(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_REMASTER, "-q"]) == 0
    assert main(["in.iso", "out.vcdiff", "--add", "overlay", "--delta", "-q"]) == 0
    capsys.readouterr()
    assert _run(["diff", "in.iso", "out.iso", "--text", "--json"], 1, capsys, "diff")["different"]
    applied = _run(["apply", "in.iso", "out.vcdiff", "made.iso", "--json"], 0, capsys, "apply")
    assert applied["size"] == (site / "made.iso").stat().st_size


@pytest.mark.parametrize("words", [["in.iso", "-"], ["extract", f"in.iso::{ROOTFS}", "-", "--as", "tar"]])
def test_json_and_an_output_on_standard_output_exclude_each_other(
    site: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    values = _run([*words, "--json"], 2, capsys, "a command that fails")
    assert "exclude each other" in values["error"]["message"]


def test_events_are_their_schemas(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_REMASTER, "--progress", "json"]) == 0
    assert main(["ls", "in.iso::none", "--progress", "json"]) == 6
    validator = jsonschema.Draft202012Validator(make_schema(DOCUMENTS["--progress json, each line"]))
    lines = capsys.readouterr().err.splitlines()
    for line in lines:
        validator.validate(json.loads(line))
    assert json.loads(lines[-1])["event"] == "error"
