"""What the kernel makes of entries that meet each other, in one machine: the truth of tests/support/met_entries.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster.demo.image import build_archive, directory, regular
from tests.fixtures import tools
from tests.support import qemu
from tests.support.met_entries import CASES, build_case, describe

_INIT = f"""\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t devtmpfs dev /dev
exec > /dev/ttyS0 2>&1
/bin/busybox find /cases | /bin/busybox sort | while read p; do
    [ -L "$p" ] && what=$(/bin/busybox readlink "$p") || what=
    [ -f "$p" ] && [ ! -L "$p" ] && what=$(/bin/busybox cat "$p")
    echo "FACT|$p|$(/bin/busybox stat -c '%A|%a|%u|%g|%i|%t|%T' "$p")|$what|"
done
{qemu.FINISH}
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    tools.require(*qemu.TOOLS, "busybox")
    base = build_archive(
        [
            *(directory(name) for name in (b"bin", b"dev", b"cases")),
            regular(b"bin/busybox", Path("/bin/busybox").read_bytes(), 0o755),
            regular(b"init", _INIT.encode(), 0o755),
        ]
    )
    initrd = tmp_path_factory.mktemp("met") / "initrd"
    initrd.write_bytes(base + b"".join(build_case(name, b"cases") for name in CASES))
    kernel = tools.cloud_kernel(tools.default_cache())
    said = qemu.boot_kernel(kernel, initrd, "console=ttyS0 panic=-1 quiet")
    found: dict[str, list[tuple[str, str, int, tuple[int, int], str, object]]] = {name: [] for name in CASES}
    for line in said.splitlines():
        if not line.startswith("FACT|/cases/"):
            continue
        _, path, letters, mode, uid, gid, ino, major, minor, what, _ = line.split("|")
        name, _, inside = path.removeprefix("/cases/").partition("/")
        if inside:
            content = f"{int(major, 16)},{int(minor, 16)}" if letters[0] in "bc" else what
            found[name].append((inside, letters[0], int(mode, 8), (int(uid), int(gid)), content, ino))
    return {name: describe(facts) for name, facts in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_unpacks_it_so(facts: dict[str, dict[str, str]], name: str) -> None:
    assert facts[name] == CASES[name].expected
