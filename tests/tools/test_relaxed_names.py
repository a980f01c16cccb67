"""Names that identifiers hold without Rock Ridge: only the last ;N is a version. Names that Joliet cuts are told."""

from __future__ import annotations

from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, remaster
from cosremaster.iso.ecma119.records import decode_joliet, decode_plain
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges


@pytest.fixture
def relaxed(tmp_path: Path) -> Path:
    tools.require("genisoimage", *judges.TOOLS)
    folder, iso = tmp_path / "tree", tmp_path / "in.iso"
    folder.mkdir()
    for name in ("FOO", "FOO;1", "BAR;2", "DOTS..", "A;B;1", "PLAIN.TXT"):
        (folder / name).write_text(name)
    run(["genisoimage", "-quiet", "-relaxed-filenames", "-allow-multidot", "-o", iso, folder])
    return iso


def listed(iso: Path) -> dict[str, str]:
    """Names and contents as libarchive reads them."""
    names = set(run(["bsdtar", "-tf", iso]).decode().split()) - {"."}
    return {name: run(["bsdtar", "-xOf", iso, name]).decode() for name in names}


def test_only_the_last_version_is_one(relaxed: Path, tmp_path: Path) -> None:
    before = listed(relaxed)
    assert {"FOO", "FOO;1", "A;B;1"} <= before.keys()
    names = [entry.path.decode() for entry in cosremaster.ls(relaxed)]
    shown = {name: cosremaster.read(f"{relaxed}::{name}").decode() for name in names}
    assert shown == before
    out = tmp_path / "out.iso"
    remaster(relaxed, out, remove_iso=["/FOO"], add_iso=[InlineFile("/FOO;1", b"other"), InlineFile("/NEW", b"new")])
    after = listed(out)
    assert after.pop("NEW") == "new" and after.pop("FOO;1") == "other"
    assert after == {name: data for name, data in before.items() if name not in ("FOO", "FOO;1")}
    assert cosremaster.verify(out).ok


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        (b"FOO.;1", b"FOO"), (b"FOO;1.;1", b"FOO;1"), (b"FOO;1", b"FOO"), (b"FOO", b"FOO"), (b"FOO.", b"FOO"),
        (b"FOO.TXT;12", b"FOO.TXT"), (b"FOO..;1", b"FOO."), (b"A;B", b"A;B"), (b".;1", b".;1"), (b";1", b";1"),
    ],
)  # fmt: skip
def test_names_of_identifiers(identifier: bytes, name: bytes) -> None:
    assert decode_plain(identifier) == name


def test_names_of_joliet_identifiers() -> None:
    for text, name in (("a;1", "a"), ("a;b;1", "a;b"), ("a.", "a."), ("a;b", "a;b"), ("ä.;1", "ä.")):
        assert decode_joliet(text.encode("utf-16-be")) == name.encode()


@pytest.mark.parametrize(("option", "kind"), [("-J", "Joliet"), ("-udf", "UDF")])
def test_names_that_another_tree_cannot_hold_are_told(option: str, kind: str, tmp_path: Path) -> None:
    tools.require("genisoimage")
    folder, iso, out = tmp_path / "tree", tmp_path / "in.iso", tmp_path / "out.iso"
    folder.mkdir()
    (folder / "a").write_text("a")
    run(["genisoimage", "-quiet", "-R", option, "-o", iso, folder])
    length = 65 if kind == "Joliet" else 255
    fits = remaster(iso, out, add_iso=[InlineFile("/" + "f" * (length - 1), b"f")])
    assert fits.warnings == ()
    items = [InlineFile("/" + letter * length, letter.encode()) for letter in "xy"]
    (warning,) = remaster(iso, out, add_iso=items, force=True).warnings
    shown = "x" * (length - 1)
    expected = (
        f"{'x' * length} is called {shown} in the {kind} tree, which cannot hold that name, and 1 more have other"
    )
    assert warning == f"{expected} names there"
    renamed = remaster(iso, out, rename_iso=[f"/a:/{'r' * length}"], force=True)
    assert f"in the {kind} tree" in renamed.warnings[0]


@pytest.mark.parametrize("extension", ["-R", "-J", "-l"])
def test_a_name_ends_at_its_first_nul(extension: str, tmp_path: Path) -> None:
    """So isoinfo says, and so it is unpacked; edits find the file by that name, and its bytes stay."""
    tools.require("genisoimage", *judges.TOOLS)
    folder, iso, out = tmp_path / "tree", tmp_path / "in.iso", tmp_path / "out.iso"
    folder.mkdir()
    (folder / "nulQx").write_text("nul")
    (folder / "plain").write_text("plain")
    if extension == "-R":
        (folder / "link").symlink_to("nulQx")
    run(["genisoimage", "-quiet", extension, "-o", iso, folder])
    raw = iso.read_bytes()
    for text in (b"nulQx", b"NULQX", "nulQx".encode("utf-16-be")):
        raw = raw.replace(text, text.replace(b"Q", b"\0"))
    iso.write_bytes(raw)
    name = "NUL" if extension != "-R" else "nul"
    # isoinfo writes _ for it where the name is Joliet's
    assert (
        extension == "-J" or f"/{name}".lower() in run(["isoinfo", extension, "-f", "-i", iso]).decode().lower().split()
    )
    assert name in [entry.path.decode() for entry in cosremaster.ls(iso)]
    cosremaster.extract(iso, tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / name).read_text() == "nul"
    if extension == "-R":
        assert (tmp_path / "unpacked" / "link").readlink() == Path("nul")
    remaster(iso, out, add_iso=[InlineFile("/new", b"new"), *(InlineFile(f"/n{n}", b"") for n in range(50))])
    assert cosremaster.read(f"{out}::{name}") == b"nul"
    remaster(iso, out, remove_iso=[name], force=True)
    assert name not in [entry.path.decode() for entry in cosremaster.ls(out)]
