"""CoreOS images: areas for kernel arguments stay as they are described, and headers lead to them wherever files move.

The areas are read as coreos-installer does (src/live/embed.rs): bytes of the image, by isoinfo's addresses.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.errors import SizeError, UnsupportedError
from cosremaster.verification.run import verify
from tests.fixtures import tools
from tests.fixtures.tools import run

DEFAULT = "mitigations=auto,nosmt coreos.liveiso=COS ignition.firstboot quiet"
SIZE = 200
KARGS_HEADER, IGNITION_HEADER = 32_672, 32_744


def with_area(before: str, arguments: str = DEFAULT, *, behind: str = "") -> tuple[bytes, int]:
    """A menu with an area, and the area's first byte."""
    area = (arguments + "\n").ljust(SIZE, "#")
    return f"{before}{area} COREOS_KARG_EMBED_AREA\n{behind}".encode(), len(before.encode())


def make(folder: Path, *, header: bool = False, description: bool = True, arguments: str = DEFAULT) -> Path:
    """An image as coreos-assembler makes it."""
    tools.require("genisoimage", "isoinfo")
    grub, grub_at = with_area("menuentry 'x' {\n\tlinux /k ", arguments, behind="\tinitrd /i\n}\n")
    isolinux, isolinux_at = with_area("label l\n  kernel /k\n  append initrd=/i ", arguments)
    zipl = (arguments.encode() + b"\0").ljust(SIZE, b"\0")
    files = {
        "EFI/fedora/grub.cfg": grub, "isolinux/isolinux.cfg": isolinux,
        "images/cdboot.img": b"\x01" * 5000 + zipl + b"z", "images/ignition.img": bytes(10_000), "k": b"k" * 3000,
    }  # fmt: skip
    places = [("EFI/fedora/grub.cfg", grub_at), ("isolinux/isolinux.cfg", isolinux_at)]
    if description:
        locations = [{"offset": at, "path": path} for path, at in places]
        locations.append({"offset": 5000, "path": "images/cdboot.img", "pad": "\0", "end": "\0"})
        text = json.dumps({"default": DEFAULT, "files": locations, "size": SIZE}, indent=4)
        files["coreos/kargs.json"] = text.encode()
    for name, data in files.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(data)
    iso = folder / "in.iso"
    run(["genisoimage", "-quiet", "-R", "-V", "COS", "-o", iso, folder / "tree"])
    if header:
        raw = bytearray(iso.read_bytes())
        starts = [start_of(iso, path) + at for path, at in places]
        struct.pack_into("<8sQQ6Q", raw, KARGS_HEADER, b"coreKarg", SIZE, starts[0], *starts, 0, 0, 0, 0)
        struct.pack_into("<8sQQ", raw, IGNITION_HEADER, b"coreiso+", start_of(iso, "images/ignition.img"), 10_000)
        iso.write_bytes(raw)
    return iso


def start_of(iso: Path, path: str) -> int:
    """The first byte of a file, as isoinfo tells its block."""
    folder, _, name = f"/{path}".rpartition("/")
    listed = run(["isoinfo", "-R", "-l", "-i", iso]).decode()
    part = listed.split(f"Directory listing of {folder or '/'}/\n", 1)[1].split("Directory listing", 1)[0]
    match = re.search(rf"\[ *(\d+) \d+\] +{re.escape(name)} *$", part, re.MULTILINE)
    assert match is not None, (path, part)
    return int(match[1]) * 2048


def arguments_of(region: bytes, pad: str = "#", end: str = "\n") -> str:
    """What coreos-installer takes the region for."""
    assert len(region) == SIZE
    text = region.decode().rstrip(pad)
    return text.removesuffix(end).strip()


def read_described(iso: Path) -> set[str]:
    """The arguments in all areas of kargs.json."""
    raw = iso.read_bytes()
    text = run(["isoinfo", "-R", "-i", iso, "-x", "/coreos/kargs.json"])
    description = json.loads(text)
    assert description["size"] == SIZE
    found = set()
    for place in description["files"]:
        start = start_of(iso, place["path"]) + place["offset"]
        found.add(arguments_of(raw[start : start + SIZE], place.get("pad", "#"), place.get("end", "\n")))
        assert b"EMBED_ARE" not in raw[start : start + SIZE]
    return found


def read_header(iso: Path) -> set[str]:
    """The arguments in all areas of the header."""
    raw = iso.read_bytes()
    magic, size, _, *starts = struct.unpack_from("<8sQQ6Q", raw, KARGS_HEADER)
    assert (magic, size) == (b"coreKarg", SIZE)
    return {arguments_of(raw[start : start + SIZE]) for start in starts if start}


@pytest.mark.parametrize(("changes", "want"), [
    ({"remove_kernel_args": ["quiet"]}, DEFAULT.removesuffix(" quiet")),
    ({"remove_kernel_args": ["mitigations=auto,nosmt"]}, DEFAULT.removeprefix("mitigations=auto,nosmt ")),
    ({"kernel_args": ["site=7", "dyndbg=file a +p"], "remove_kernel_args": ["quiet"]}, None),
    ({"remove_kernel_args": DEFAULT.split(" ")}, ""),
    ({"remove_kernel_args": DEFAULT.split(" "), "kernel_args": ["x"]}, "x"),
    ({"replace_kernel_args": ["coreos.liveiso=COS=" + "N" * 60]}, DEFAULT.replace("=COS", "=" + "N" * 60)),
    ({"volume_id": "OTHER", "retarget": True}, DEFAULT.replace("=COS", "=OTHER")),
])  # fmt: skip
def test_areas_stay_as_described(tmp_path: Path, changes: dict[str, list[str]], want: str | None) -> None:
    iso, out = make(tmp_path), tmp_path / "out.iso"
    assert read_described(iso) == {DEFAULT}
    remaster(iso, out, **changes)  # type: ignore[arg-type]
    found = read_described(out)
    if want is None:  # GRUB quotes in its own way
        base = DEFAULT.removesuffix(" quiet") + " site=7 "
        assert found == {base + 'dyndbg="file a +p"', base + '"dyndbg=file a +p"'}
    else:
        assert found == {want}
    grub = run(["isoinfo", "-R", "-i", out, "-x", "/EFI/fedora/grub.cfg"])
    assert grub.endswith(b"# COREOS_KARG_EMBED_AREA\n\tinitrd /i\n}\n")
    assert len(grub) == len(run(["isoinfo", "-R", "-i", iso, "-x", "/EFI/fedora/grub.cfg"]))
    image = run(["isoinfo", "-R", "-i", out, "-x", "/images/cdboot.img"])
    assert (image[:5000], image[-1:]) == (b"\x01" * 5000, b"z")


def test_arguments_for_an_empty_area(tmp_path: Path) -> None:
    iso, out = make(tmp_path, arguments=""), tmp_path / "out.iso"
    remaster(iso, out, kernel_args=["a", "b"])
    assert read_described(out) == {"a b"}


def test_an_area_without_room_is_told(tmp_path: Path) -> None:
    iso, out = make(tmp_path), tmp_path / "out.iso"
    room = SIZE - len(DEFAULT) - 1
    with pytest.raises(SizeError, match=rf"grub.cfg: .* has room for {room} more bytes, and {room + 1} are needed"):
        remaster(iso, out, kernel_args=["x" * room])
    remaster(iso, out, kernel_args=["x" * (room - 1)])
    assert read_described(out) == {DEFAULT + " " + "x" * (room - 1)}


def test_an_area_that_moves_is_described_anew(tmp_path: Path) -> None:
    """A label in front of it gets an argument too."""
    make(tmp_path, header=True)
    old = tmp_path / "tree/isolinux/isolinux.cfg"
    before = b"label first\n  kernel /k\n  append quiet\n"
    old.write_bytes(before + old.read_bytes())
    kargs = tmp_path / "tree/coreos/kargs.json"
    description = json.loads(kargs.read_bytes())
    description["files"][1]["offset"] += len(before)
    kargs.write_text(json.dumps(description, indent=4))
    iso, out = tmp_path / "moved.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-R", "-V", "COS", "-o", iso, tmp_path / "tree"])
    remaster(iso, out, kernel_args=["site=7"])
    assert read_described(out) == {DEFAULT + " site=7"}


@pytest.mark.parametrize("description", [True, False])
def test_headers_follow_their_files(tmp_path: Path, description: bool) -> None:
    iso, out = make(tmp_path, header=True, description=description), tmp_path / "out.iso"
    (tmp_path / "big").write_bytes(bytes(500_000))
    result = remaster(iso, out, kernel_args=["site=7"], add_iso=[f"{tmp_path / 'big'}:/k"])
    assert any(line.startswith("CoreOS header: 4 areas") for line in result.proof)
    assert read_header(out) == {DEFAULT + " site=7"}
    if description:
        assert read_described(out) == {DEFAULT + " site=7"}
    raw = out.read_bytes()
    _, start, length = struct.unpack_from("<8sQQ", raw, IGNITION_HEADER)
    assert (start, length) == (start_of(out, "images/ignition.img"), 10_000)
    changed = [b"k", b"EFI/fedora/grub.cfg", b"isolinux/isolinux.cfg", b"images/cdboot.img"]
    assert verify(out, against=iso, changed=changed).ok
    report = verify(out)
    assert sum(one.check == "coreos.area" for one in report.findings) == 4
    struct.pack_into("<Q", damaged := bytearray(raw), IGNITION_HEADER + 8, 16)
    out.write_bytes(damaged)
    assert [one.check for one in verify(out).findings if one.is_counted] == ["coreos.area"]


def test_files_that_a_header_needs(tmp_path: Path) -> None:
    iso, out = make(tmp_path, header=True), tmp_path / "out.iso"
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(UnsupportedError, match="CoreOS header names an area in it"):
        remaster(iso, out, remove_iso=["/images/ignition.img"])
    with pytest.raises(UnsupportedError, match="is too short now: the area for the Ignition configuration"):
        remaster(iso, out, add_iso=[f"{tmp_path / 'short'}:/images/ignition.img"])


def test_a_description_that_is_wrong_is_told(tmp_path: Path) -> None:
    make(tmp_path)
    iso, out = tmp_path / "wrong.iso", tmp_path / "out.iso"
    for text, warning in (
        ('{"files": [{"offset": 1, "path": "k"}], "size": 100}', "k: has no area for 100 bytes"),
        ('{"files": [{"offset": 2990, "path": "k"}], "size": 100}', "of kernel arguments at byte 2,990"),
        ("[]", "coreos/kargs.json: cannot be read"),
    ):
        (tmp_path / "tree/coreos/kargs.json").write_text(text)
        run(["genisoimage", "-quiet", "-R", "-V", "COS", "-o", iso, tmp_path / "tree"])
        result = remaster(iso, out, kernel_args=["a"], force=True)
        assert sum(warning in line for line in result.warnings) == 1
