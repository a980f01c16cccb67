"""A script that installs a package and does what administrators do leaves the tree that it leaves in a real chroot."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosremaster.tree.nodes import Node
from tests.fixtures import live, roots
from tests.fixtures.tools import require
from tests.support.sandboxed import Entry, Runner, ScriptResult, entry_of, open_runner, read_tree, run_here
from tests.support.user import REPOSITORY, User, open_folder

SCRIPT = r"""
set -e
apt-get install -y -q /run/cosremaster/site.deb
dpkg -s site | grep -q 'Status: install ok installed'
useradd -m -s /bin/sh mechanic
useradd -r -d /nonexistent daemonic
usermod -aG mail mechanic
passwd -d mechanic
systemctl enable site.service
systemctl set-default multi-user.target
install -d -o www-data -g www-data -m 2750 /srv/www
install -o mechanic -g mail -m 4710 /bin/true /usr/local/bin/special
echo hello > /srv/www/index; chown www-data: /srv/www/index
cp -p /etc/shadow /root/shadow.copy
cp -a /srv/www /srv/copy
tar -C /srv -cf /tmp/x.tar www && mkdir /srv/unpacked && tar -C /srv/unpacked -xpf /tmp/x.tar
mkdir /srv/www/inherits; touch /srv/www/inherits/file /var/mail/box
mknod /srv/null c 1 3; mknod -m 660 /srv/disk b 8 300; chgrp disk /srv/disk; mkfifo -m 640 /srv/fifo
ln /srv/www/index /srv/hard; ln -s nowhere /srv/dangling
mv /usr/share/perl5 /usr/share/perl5.moved; mv /usr/share/perl5.moved /usr/share/perl5
mv /etc/skel /etc/skeleton
rm -r /usr/share/doc; mkdir /usr/share/doc; echo new > /usr/share/doc/only
chmod u+s /bin/date; chmod 1777 /opt; chown 5:6 /bin/date; chown -h 7:8 /srv/dangling
chown -R mechanic /srv/unpacked
perl -e '
    my ($set, $lset) = `uname -m` =~ /x86_64/ ? (188, 189) : (5, 6);
    my $capability = pack("V5", 0x02000001, 1 << 13, 0, 0, 0);
    my ($n, $f) = ("security.capability", "/bin/ping.copy");
    system("cp /bin/true $f");
    syscall($set, $f, $n, $capability, 20, 0) and die "capability: $!";
    my $acl = pack("V", 2) . pack("(vvV)*", 1, 6, -1, 2, 4, 33, 4, 4, -1, 8, 7, 65534, 16, 7, -1, 32, 0, -1);
    ($n, $f) = ("system.posix_acl_access", "/srv/hard");
    syscall($set, $f, $n, $acl, length $acl, 0) and die "ACL: $!";
    my $text = "text";
    ($n, $f) = ("user.note", "/srv/hard");
    syscall($set, $f, $n, $text, 4, 0) and die "note: $!";
'
chmod o+r /srv/hard
stat -c '%n %a %u:%g %F' /etc/shadow /srv/www /srv/copy /srv/hard /srv/dangling /home/mechanic /var/log/journal
ls -l /usr/local/bin /usr/lib/site | sed 's/... .. ..:../TIME/'
"""

_CONTROL = """Package: site
Version: 1
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: a package whose scripts do what those of packages do
"""
_POSTINST = """#!/bin/sh
set -e
getent passwd site > /dev/null || useradd -r -M -d /var/lib/site -s /usr/sbin/nologin site
chown -R site:adm /var/lib/site
chmod 2750 /var/lib/site
install -o site -m 600 /dev/null /var/lib/site/key
update-alternatives --install /usr/bin/editor editor /usr/lib/site/tool 10
dpkg-statoverride --update --add site adm 4750 /usr/lib/site/tool
"""
_UNIT = "[Unit]\nDescription=site\n[Service]\nExecStart=/usr/lib/site/tool\n[Install]\nWantedBy=multi-user.target\n"

VARIABLE = (b"var/log/", b"var/cache/apt/", b"var/cache/ldconfig/aux-cache")
"""Files with times in them, that no two runs have in common."""


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """A .deb with scripts, in a folder of its own that everybody may read."""
    require("dpkg-deb")
    with open_folder() as folder:
        yield _make_package(folder)


def _make_package(folder: Path) -> Path:
    """Makes the package, and returns the folder where it is alone."""
    files = {
        "DEBIAN/control": _CONTROL, "DEBIAN/postinst": _POSTINST, "usr/lib/site/tool": "#!/bin/sh\n",
        "lib/systemd/system/site.service": _UNIT, "var/lib/site/data": "1\n",
    }  # fmt: skip
    for name, text in files.items():
        path = folder / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name.endswith(("postinst", "tool")) else 0o644)
    (folder / "debs").mkdir()
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", "tree", "debs/site.deb"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "debs"


_CHROOT = r"""
set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
cp -a "$1/." /mnt
mount -t proc proc /mnt/proc
mount -t tmpfs -o mode=1777 tmpfs /mnt/tmp
mount -t tmpfs -o mode=755 tmpfs /mnt/run
mkdir -p /mnt/run/cosremaster /mnt/run/lock
cp "$2"/* /mnt/run/cosremaster/
mount -t tmpfs -o mode=755 tmpfs /mnt/dev
for name in null zero full random urandom tty; do touch /mnt/dev/$name; mount --bind /dev/$name /mnt/dev/$name; done
ln -s /proc/self/fd /mnt/dev/fd
ln -s pts/ptmx /mnt/dev/ptmx
mkdir /mnt/dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /mnt/dev/pts
echo "$3" > /mnt/run/script
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root \
    SHELL=/bin/sh LANG=C.UTF-8 LC_ALL=C.UTF-8 TZ=UTC TERM=dumb DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 \
    chroot /mnt /bin/sh /run/script < /dev/null > "$4" 2>&1 || { cat "$4" >&2; exit 1; }
umount -R /mnt/proc /mnt/tmp /mnt/run /mnt/dev
exec "$5" -c "$6" "$7"
"""
"""A real chroot in a tmpfs that nobody else sees: $1 a root, $2 the user's files, $3 the script, $4 what it printed."""


@pytest.fixture(scope="module")
def root() -> dict[bytes, Node]:
    """Debian with systemd."""
    roots.require_root()
    require(*roots.TOOLS, "chroot")
    return read_tree(roots.debian_root(live.PACKAGES))


@pytest.fixture(scope="module")
def expected(package: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[bytes, Entry], list[str]]:
    """The tree that a real chroot leaves, and what the script printed there."""
    folder = tmp_path_factory.mktemp("chroot")
    command = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _CHROOT, "sh"]
    dump = "import sys; from tests.tools.test_script_packages import dump_tree; dump_tree(sys.argv[1])"
    arguments = [
        str(roots.debian_root(live.PACKAGES)),
        str(package),
        SCRIPT,
        str(folder / "printed"),
        sys.executable,
        dump,
    ]
    subprocess.run([*command, *arguments, str(folder / "tree")], check=True, cwd=REPOSITORY)
    with (folder / "tree").open("rb") as file:
        # A line that a program writes over, as one that counts on, is what it is at last.
        return pickle.load(file), re.sub(r"[^\n]*\r(?!\n)", "", (folder / "printed").read_bytes().decode()).splitlines()


def dump_tree(path: str) -> None:
    """Writes what a test compares of the tree at /mnt."""
    tree = {name: entry_of(node) for name, node in read_tree("/mnt").items() if not name.startswith(VARIABLE)}
    with Path(path).open("wb") as file:
        pickle.dump(tree, file)


@pytest.fixture(scope="module")
def runners(user: User) -> Iterator[dict[str, Runner]]:
    """Ordinary users with and without a range of ids."""
    require("setpriv", "unshare", "newuidmap")
    folder = user.home.parent
    with (
        open_runner(user.python, folder, has_range=True) as with_range,
        open_runner(user.python, folder, has_range=False) as without_range,
    ):
        yield {"subuid": with_range, "single": without_range}


def _apply(tree: dict[bytes, Entry], result: ScriptResult) -> dict[bytes, Entry]:
    """Returns the tree with what a script changed, without the files that no two runs have in common."""
    removed = tuple(path + b"/" for path in result.removed)
    changed = {path: entry for path, entry in tree.items() if not (path + b"/").startswith(removed)}
    changed |= result.nodes
    return {path: entry for path, entry in changed.items() if path and not path.startswith(VARIABLE)}


@pytest.mark.parametrize("way", ["root", "subuid", "single"])
def test_the_tree_is_that_of_a_real_chroot(
    runners: dict[str, Runner],
    root: dict[bytes, Node],
    package: Path,
    expected: tuple[dict[bytes, Entry], list[str]],
    way: str,
) -> None:
    run = run_here if way == "root" else runners[way].run
    result = run(root, SCRIPT, files=package)
    result.check()
    changed = _apply({path: entry_of(node) for path, node in root.items()}, result)
    tree, printed = expected
    paths = {*tree, *changed}
    if way == "single":
        paths.discard(b"var/lib/apt/lists/auxfiles")  # apt gives it to its own user, whom it does not become there
    assert {path: (tree.get(path), changed.get(path)) for path in paths if tree.get(path) != changed.get(path)} == {}
    assert result.lines == printed
