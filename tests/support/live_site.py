"""What a site adds to a live system so that it reports over the serial line, and what the report has to say."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from tests.support.qemu import END, FINISH
from tests.support.user import User

HOST = "headend-7"
PAYLOAD = random.Random(16).randbytes(3_000_000) + b"text that packs well\n" * 50_000
"""Some blocks of data that do not pack, some that do, and a tail."""

_REPORT = """\
#!/bin/sh
exec > /dev/ttyS0
echo PAYLOAD $(sha256sum < /opt/site/payload)
{mount}
echo HOST $(hostname) $(cat {root}/etc/hostname)
for path in {removed}; do
    if [ -e $path ]; then echo "PRESENT $path"; else echo "ABSENT $path"; fi
done
{finish}
"""
_UNIT = """\
[Unit]
Description=Report of the site
# A login on the serial line hangs up on whoever writes there.
Before=serial-getty@ttyS0.service
[Service]
Type=oneshot
ExecStart=/opt/site/report
[Install]
WantedBy=basic.target
"""


def write_site(folder: Path, *looked_for: str, layer: str = "") -> Path:
    """Make a folder for ``--add`` with a payload, a host name, and a service that reports both.

    The report says of each path in ``looked_for`` whether it is there. It says the machine's host name and that of the
    file: of the running system's or, since casper writes that one anew, of the squashfs file ``layer`` on the medium.
    """
    root = "/mnt" if layer else ""
    mount = f"mount -t squashfs -o loop,ro {layer} {root}" if layer else ""
    report = _REPORT.format(mount=mount, root=root, removed=" ".join(looked_for), finish=FINISH)
    units = folder / "etc/systemd/system"
    (units / "basic.target.wants").mkdir(parents=True)
    (units / "site-report.service").write_text(_UNIT)
    (units / "basic.target.wants/site-report.service").symlink_to("../site-report.service")
    (folder / "etc/hostname").write_text(f"{HOST}\n")
    (folder / "opt/site").mkdir(parents=True)
    (folder / "opt/site/payload").write_bytes(PAYLOAD)
    (folder / "opt/site/report").write_text(report)
    (folder / "opt/site/report").chmod(0o755)
    return folder


def edit_image(user: User, image: Path, folder: str, removed: str, *options: str, layer: str = "") -> Path:
    """Add the site to an image and remove a directory, as the user does it; return the new image.

    It lies in the new ``folder`` of the user's. ``layer`` is that of :func:`write_site`.
    """
    home = user.home / folder
    home.mkdir()
    site = write_site(home / "site", f"/{removed}", "/usr/share", layer=layer)
    user.own(home)
    target = home / "out.iso"
    done = user.run(image, target, "--add", site, "--remove", removed, *options)
    assert done.returncode == 0, done.stderr
    assert f"- {removed}" in done.stdout
    return target


def assert_report(serial: str, removed: str, host: str = HOST) -> None:
    """Compare what a machine said over its serial line with what the service has to find in the running system."""
    kinds = ("PAYLOAD ", "HOST ", "PRESENT ", "ABSENT ", END)
    assert [line for line in serial.splitlines() if line.startswith(kinds)] == [
        f"PAYLOAD {hashlib.sha256(PAYLOAD).hexdigest()} -",
        f"HOST {host} {HOST}",
        f"ABSENT /{removed}",
        "PRESENT /usr/share",
        END,
    ]
