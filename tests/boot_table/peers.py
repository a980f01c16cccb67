"""What other tools keep when one file is exchanged, each used as its users use it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pycdlib

from cosremaster.cli import main
from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from cosremaster.verification.finding import Level, VerificationReport
from cosremaster.verification.run import verify
from tests.boot_table.measure import heard
from tests.fixtures import families
from tests.fixtures.families import PAYLOAD, WORDS
from tests.fixtures.tools import run

FAMILIES = ("debian", "ubuntu", "grub-mkrescue", "fedora", "plain", "udf-boot")
NEW = random.Random(12).randbytes(200_000)


@dataclass(frozen=True)
class Structure:
    """Something an image may have. It is there if `holds` hold; it survives if they hold still (as often, where `each`
    counts) and nothing that begins with one of `fails` fails."""

    name: str
    holds: tuple[str, ...]
    fails: tuple[str, ...]
    each: bool = False


STRUCTURES = (
    Structure(
        "El Torito entries lead to the same boot images", ("eltorito.entry",), ("eltorito.", "against.boot"), each=True
    ),
    Structure("boot-info-table", ("bootinfo.sum",), ("bootinfo.",)),
    Structure("grub2-boot-info", ("grub2.image",), ("grub2.",)),
    Structure("hybrid MBR: code and pointer", ("mbr.pointer",), ("mbr.pointer", "against.code")),
    Structure("MBR partitions", ("mbr.bounds",), ("mbr.", "against.mbr"), each=True),
    Structure("GPT: both copies, one saying", ("gpt.copies",), ("gpt.",)),
    Structure("GPT: partitions and GUIDs", ("gpt.bounds",), ("gpt.bounds", "against.gpt"), each=True),
    Structure("EFI system partition leads to its FAT", ("partition.fat",), ("partition.",)),
    Structure("Apple partition map", ("apm.bounds",), ("apm.",), each=True),
    Structure("HFS+", ("apm.hfs-copy",), ("apm.hfs",)),
    Structure("second tree (partition offset)", ("tree.second",), ("tree.second",)),
    Structure("Joliet tree", ("tree.joliet",), ("tree.joliet",)),
    Structure("Rock Ridge", ("rockridge.sound",), ("rockridge.",)),
    Structure("UDF", ("udf.tags", "udf.file"), ("udf.",)),
    Structure("implanted MD5", ("md5.implanted",), ("md5.",)),
    Structure("identifiers and dates of the volume", ("against.volume",), ("against.volume",)),
    Structure("all other files", ("against.file",), ("against.file", "against.missing", "against.extra")),
)


def ours(image: Path, out: Path, new: Path, scratch: Path) -> None:
    """`cosremaster --add-iso`."""
    arguments = ["--quiet", str(image), str(out), "--add-iso", f"{new}:/{PAYLOAD}"]
    if main(arguments) and main([*arguments, "--drop-hfsplus"]):
        raise AssertionError("cosremaster refused")


def xorriso(image: Path, out: Path, new: Path, scratch: Path) -> None:
    """xorriso with its boot records replayed."""
    argv = ["xorriso", "-indev", image, "-outdev", out, "-boot_image", "any", "replay", "-map", new, f"/{PAYLOAD}"]
    run([str(word) for word in argv])


def cdlib(image: Path, out: Path, new: Path, scratch: Path) -> None:
    """pycdlib: opened, the file removed and added, written."""
    iso = pycdlib.PyCdlib()
    iso.open(str(image))
    data = new.read_bytes()
    path = iso.full_path_from_dirrecord(iso.get_record(rr_path=f"/{PAYLOAD}"))
    iso.rm_file(iso_path=path)
    iso.add_fp(
        BytesIO(data),
        len(data),
        iso_path=path,
        rr_name=Path(PAYLOAD).name,
        joliet_path=f"/{PAYLOAD}" if iso.has_joliet() else None,
        udf_path=f"/{PAYLOAD}" if iso.has_udf() else None,
    )
    iso.write(str(out))
    iso.close()


def genisoimage(image: Path, out: Path, new: Path, scratch: Path) -> None:
    """The files copied out, and the boot options typed again: what can be typed."""
    tree = scratch / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    run(["xorriso", "-osirrox", "on", "-indev", str(image), "-extract", "/", str(tree)])
    run(["chmod", "-R", "u+w", str(tree)])
    shutil.copyfile(new, tree / PAYLOAD)
    options = ["-R", "-J", "-joliet-long", "-V", "FAMILY", *(["-udf"] if "udf" in image.name else [])]
    with open_source(image) as source:
        opened = read_image(source)
        paths = (file.path for file in opened.files if opened.catalog and file.records[0].lba == opened.catalog.lba)
        catalog = next((path.decode() for path in paths if path.endswith((b".cat", b".catalog"))), "boot.cat")
        for number, boot in enumerate(one for one in opened.boot_images if one.path is not None):
            assert boot.path is not None
            kind = "-e" if boot.entry.platform == 0xEF else "-b"
            options += ["-eltorito-alt-boot"] * bool(number) + [kind, boot.path.decode(), "-no-emul-boot"]
            if kind == "-b":
                options += ["-boot-load-size", "4", "-boot-info-table", "-c", catalog]
    run(["genisoimage", "-quiet", *options, "-o", str(out), str(tree)])


TOOLS: Mapping[str, Callable[[Path, Path, Path, Path], None]] = {
    "cosremaster": ours,
    "xorriso": xorriso,
    "pycdlib": cdlib,
    "genisoimage": genisoimage,
}


def measure(name: str, folder: Path) -> dict[str, dict[str, str]]:
    """Structure -> tool -> `kept` or `lost`, for those that the family's image has; boots too."""
    family, image = families.FAMILIES[name], families.build(name)
    before = verify(image, against=image)
    rows: dict[str, dict[str, str]] = {one.name: {} for one in STRUCTURES if _count(before, one.holds)}
    ways = {f"boots: {' '.join(way)}": way for way in family.boots if heard(image, way, WORDS)}
    rows |= {title: {} for title in ways}
    new = folder / "new"
    new.write_bytes(NEW)
    for tool, exchange in TOOLS.items():
        out = folder / f"{tool}.iso"
        try:
            exchange(image, out, new, folder)
        except Exception as error:  # whatever a tool fails with, it made no image
            print(f"{name}: {tool} made no image: {type(error).__name__}: {str(error)[:200]}")
            for row in rows.values():
                row[tool] = "no image"
            continue
        after = verify(out, against=image, changed=[PAYLOAD.encode()])
        for structure in STRUCTURES:
            if structure.name in rows:
                rows[structure.name][tool] = "kept" if survives(structure, before, after) else "lost"
        for title, way in ways.items():
            rows[title][tool] = "yes" if heard(out, way, WORDS) else "no"
    return rows


def _count(report: VerificationReport, checks: Iterable[str]) -> list[int]:
    """How often each of the checks holds; nothing where none does."""
    held = [one.check for one in report.at_level(Level.HOLDS)]
    counts = [held.count(check) for check in checks]
    return counts if any(counts) else []


def survives(structure: Structure, before: VerificationReport, after: VerificationReport) -> bool:
    """True when the structure is still there and nothing about it fails."""
    held = zip(_count(after, structure.holds), _count(before, structure.holds), strict=False)
    found = [now >= (was if structure.each else min(was, 1)) for now, was in held]
    return (
        bool(found)
        and all(found)
        and not any(one.is_counted and one.check.startswith(structure.fails) for one in after.findings)
    )
