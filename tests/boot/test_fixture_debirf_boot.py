"""The fixture's debirf image boots in all four ways, and its listing shows its tree."""

import hashlib
import stat
from pathlib import Path
from typing import Literal

import pytest

from tests.fixtures import debirf, tools
from tests.support import qemu


@pytest.mark.parametrize("medium", ["disc", "disk"])
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_original_boots(
    debirf_image: debirf.DebirfImage, firmware: Literal["bios", "uefi"], medium: Literal["disc", "disk"]
) -> None:
    tools.require(*qemu.TOOLS)
    said = qemu.boot(debirf_image.iso, firmware=firmware, medium=medium)
    assert debirf.MARKER in said.splitlines()
    assert "TREE-BEGIN" not in said


@pytest.mark.parametrize(("firmware", "lost"), [("bios", slice(0, 512)), ("uefi", slice(462, 478))])
def test_disk_boots_by_its_own_records(
    debirf_image: debirf.DebirfImage, tmp_path: Path, firmware: Literal["bios", "uefi"], lost: slice
) -> None:
    """Without the MBR (BIOS) or its entry for the appended partition (UEFI) the image no longer boots as a
    disk, so a disk boot proves these records; El Torito alone does not carry it."""
    tools.require(*qemu.TOOLS)
    image = bytearray(debirf_image.iso.read_bytes())
    image[lost] = bytes(lost.stop - lost.start)
    broken = tmp_path / "no-records.iso"
    broken.write_bytes(image)
    with pytest.raises(AssertionError, match=rf"no-records\.iso \({firmware}, disk\) did not say"):
        qemu.boot(broken, firmware=firmware, medium="disk", timeout=60)


@pytest.mark.parametrize(
    "recipe",
    [
        debirf.Recipe(list_tree=True),
        debirf.Recipe("roots.cxz", dot_slash=True, list_tree=True, layer_codec=debirf.FAST_LAYER),
        debirf.Recipe("rootfs.cgz", list_tree=True),
        debirf.Recipe(None, list_tree=True),
        debirf.Recipe(None, list_tree=True, dot_slash=True, outer_codec=("xz", "-0", "--check=crc32")),
    ],
    ids=["nested", "dot-slash", "gzip", "un-nested", "un-nested-dot-slash-xz"],
)
def test_variants_boot_and_unpack_all_that_was_packed(recipe: debirf.Recipe) -> None:
    """Busybox and the kernel, which do the unpacking, make what the archive says."""
    tools.require(*debirf.TOOLS, *qemu.TOOLS)
    image = debirf.build(recipe=recipe)
    tree = debirf.listed_tree(qemu.boot(image.iso, firmware="bios", medium="disc"))

    packed = tools.run(["cpio", "-it", "--quiet"], stdin=image.rootfs_cpio.read_bytes()).splitlines()
    front = b"./" if recipe.dot_slash else b""
    assert all(name.startswith(front) for name in packed if name != b".")
    assert sorted(tree) == sorted(name[len(front) :] for name in packed if name != b".")
    assert (b"init" in tree) == (recipe.layer is None)
    console = tree[b"dev/console"]
    assert stat.filemode(console.mode) == "crw-------" and console.rdev == (5, 1)
    assert stat.filemode(tree[b"usr/lib/suid-helper"].mode) == "-rwsr-xr-x"
    assert stat.filemode(tree[b"tmp"].mode) == "drwxrwxrwt"
    assert stat.filemode(tree[b"root"].mode) == "drwx------"
    assert (tree[b"home/operator"].uid, tree[b"home/operator"].gid) == (1000, 1000)
    assert tree[b"etc/mtab"].target == b"/proc/mounts" and tree[b"bin"].target == b"usr/bin"
    assert tree[debirf.NOT_UTF8].md5 == hashlib.md5(b"a name in Latin-1\n").hexdigest()
    names = [b"usr/share/zoneinfo/" + n for n in (b"UTC", b"Zulu", b"Etc/UTC")]
    assert [tree[n].nlink for n in names] == [3, 3, 3] and len({tree[n].md5 for n in names}) == 1
