"""What a script set up in a live system is there when it boots: a package, a user, a unit; by an ordinary user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import live, roots, tools
from tests.fixtures.tools import run
from tests.support import qemu
from tests.support.archives_of_trees import write_tree
from tests.support.qemu import END, FINISH
from tests.support.user import User

pytestmark = pytest.mark.timeout(1800)  # the first test of an image builds it

CONTROL = "Package: site-tool\nVersion: 1.5\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
POSTINST = """#!/bin/sh
set -e
useradd --system --user-group --home-dir /var/lib/site --create-home site
chown root:site /etc/site.key
chmod 0640 /etc/site.key
"""
REPORT = f"""#!/bin/sh
exec > /dev/ttyS0
echo PACKAGE $(dpkg-query -W -f '${{Status}} ${{Version}}' site-tool)
echo HOME $(stat -c '%U:%G %a' /var/lib/site)
echo KEY $(stat -c '%U:%G %a' /etc/site.key) $(runuser -u site -- cat /etc/site.key)
echo SCRIPT $(cat /etc/site.conf)
{FINISH}
"""
UNIT = """[Unit]
Before=serial-getty@ttyS0.service
[Service]
Type=oneshot
ExecStart=/usr/bin/site-report
[Install]
WantedBy=basic.target
"""
CUSTOMIZE = """#!/bin/sh
set -e
dpkg -i /run/cosremaster/site.deb
systemctl enable site-report.service
echo "site $SITE" > /etc/site.conf
"""


def make_package(folder: Path) -> Path:
    """Make the package ``site.deb`` in the new ``folder``, which is returned."""
    files = {
        "DEBIAN/control": CONTROL, "DEBIAN/postinst": POSTINST, "usr/bin/site-report": REPORT,
        "lib/systemd/system/site-report.service": UNIT, "etc/site.key": "secret\n",
    }  # fmt: skip
    package = write_tree(folder.parent / "package", files)
    for name in ("DEBIAN/postinst", "usr/bin/site-report"):
        (package / name).chmod(0o755)
    folder.mkdir()
    run(["dpkg-deb", "--root-owner-group", "-b", str(package), f"{folder}/site.deb"])
    return folder


def test_a_live_system_boots_with_what_a_script_installed(user: User) -> None:
    tools.require(*live.TOOLS, *qemu.TOOLS, "dpkg-deb")
    roots.require_root()
    home = user.home / "run"
    home.mkdir()
    make_package(home / "debs")
    (home / "customize.sh").write_text(CUSTOMIZE)
    user.own(home)
    options = ("--run", home / "customize.sh", "--run-files", home / "debs", "--run-env", "SITE=north", "--clean")
    done = user.run(live.build("zstd").iso, home / "out.iso", *options)
    assert done.returncode == 0, done.stderr
    assert "customize.sh | Setting up site-tool (1.5) ..." in done.stderr
    said = qemu.boot(home / "out.iso", firmware="bios", medium="scsi-disc", timeout=900)
    kinds = ("PACKAGE ", "HOME ", "KEY ", "SCRIPT ", END)
    assert [line for line in said.splitlines() if line.startswith(kinds)][:4] == [
        "PACKAGE install ok installed 1.5", "HOME site:site 755", "KEY root:site 640 secret", "SCRIPT site north",
    ]  # fmt: skip
