"""What other people's programs say about an image, as values that can be compared."""

import hashlib
import io
import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.fixtures.tools import run

TOOLS: Sequence[str] = ("bsdtar", "isoinfo", "7z", "sgdisk", "sfdisk", "xorriso")

Facts = tuple[bytes, int, int, str, str]


def tree(iso: Path) -> dict[str, Facts]:
    """The tree as libarchive sees it: type, mode, owner, link target and digest of each path."""
    found: dict[str, Facts] = {}
    with tarfile.open(fileobj=io.BytesIO(run(["bsdtar", "-cf", "-", f"@{iso}"]))) as archive:
        for member in archive:
            data = archive.extractfile(member) if member.isreg() or member.islnk() else None
            digest = hashlib.sha256(data.read()).hexdigest() if data else ""
            target = member.linkname if member.issym() else ""
            found[member.name] = (b"0" if data else member.type, member.mode, member.uid, target, digest)
    return found


def joliet(iso: Path) -> dict[str, str]:
    """Digests of the files of the Joliet tree as isoinfo sees them; empty where there is none."""
    done = subprocess.run(["isoinfo", "-J", "-f", "-i", iso], capture_output=True, text=True, check=False)
    names = [line for line in done.stdout.splitlines() if line.startswith("/")]
    return {name: hashlib.sha256(run(["isoinfo", "-J", "-i", iso, "-x", name])).hexdigest() for name in names}


def udf(iso: Path, folder: Path) -> dict[str, str]:
    """Digests of the files of the UDF file system as 7-Zip unpacks them."""
    run(["7z", "x", "-tudf", f"-o{folder}", iso])
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def complaints(iso: Path) -> set[str]:
    """What partition tools and 7-Zip find wrong, numbers left out.

    Not so sgdisk's word on ends that are not aligned: it takes the largest power of two that divides all starts for
    the alignment wanted, so whether a 300 KiB filler displeases it is chance.
    """
    said = ""
    for argv in (["sgdisk", "-v", str(iso)], ["sfdisk", "--verify", str(iso)], ["7z", "t", str(iso)]):
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
        said += done.stdout + done.stderr
    lines = (re.sub(r"[\d.,]+", "N", line.replace(str(iso), "IMAGE")) for line in said.splitlines())
    lines = (line for line in lines if not line.startswith("Caution: Partition N doesn't end on a N-sector boundary"))
    return {line for line in lines if re.search("roblem:|arning|rror|aution|overlap|nvalid|orrupt|not match", line)}


def boot_report(iso: Path) -> list[str]:
    """xorriso's report of boot records and partition tables."""
    report = ["-report_el_torito", "plain", "-report_system_area", "plain"]
    return run(["xorriso", "-indev", iso, *report]).decode(errors="replace").splitlines()


def report_without_numbers(iso: Path) -> list[str]:
    """The same with places and sizes left out: what is there, of what kind, with which GUIDs and paths."""
    return [re.sub(r"(?<=\s)\d+(?!\S)", "N", re.sub(r" +", " ", line)) for line in boot_report(iso)]
