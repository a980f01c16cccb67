"""Archives, mtree files, whiteouts and removes by somebody without root, as the booted system lists them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.fixtures import debirf, tools
from tests.fixtures.debirf import ListedFile, Recipe, listed_tree
from tests.fixtures.tools import EPOCH, run
from tests.support import qemu
from tests.support.user import ordinary_user

TREE = """
mkdir -p opt/site/dev bin; echo tool > bin/site-tool; chmod 755 bin/site-tool
echo shared > opt/site/one; ln opt/site/one opt/site/two; chown 1000:1001 opt/site/one; chmod 4711 opt/site/one
mknod -m 640 opt/site/dev/tape c 9 1; mknod -m 600 opt/site/dev/disk b 259 1000; mkfifo -m 622 opt/site/pipe
ln -s ../site/one opt/site/link; touch etc-release
tar --format=pax --sort=name -cJf "$OUT" .
"""

MTREE = """
/set uid=0 gid=0
./etc/secret mode=0640 gid=42
./srv/console type=char device=native,5,1 mode=0600 gid=5
./srv/spool type=dir mode=1777
./srv/alias type=link link=/opt/site
"""


def facts(one: ListedFile) -> tuple[int, int, int, tuple[int, int], str | None, bytes | None]:
    return one.mode, one.uid, one.gid, one.rdev, one.md5, one.target


def test_what_an_ordinary_user_could_not_make_on_disk_is_there_when_booted(tmp_path: Path) -> None:
    tools.require(*debirf.TOOLS, *qemu.TOOLS, "fakeroot", "tar", "cpio")
    base = debirf.build(recipe=Recipe(list_tree=True))
    before = set(run(["cpio", "-t", "--quiet"], stdin=base.rootfs_cpio.read_bytes()).splitlines())
    with ordinary_user() as user:
        site, target = user.home / "site", user.home / "out.iso"
        (user.home / "packed").mkdir()
        run(["fakeroot", "sh", "-euc", TREE], cwd=user.home / "packed", env={"OUT": os.fspath(user.home / "a.tar.xz")})
        (site / "etc").mkdir(parents=True)
        (site / "usr/share/zoneinfo").mkdir(parents=True)
        (site / "etc/secret").write_text("x\n")
        for whiteout in ("etc/.wh.hostname", "usr/share/zoneinfo/.wh..wh..opq"):
            (site / whiteout).write_text("")
        (site / "usr/share/zoneinfo/local").write_text("mine\n")
        (user.home / "site.mtree").write_text(MTREE)
        (user.home / "in.iso").write_bytes(base.iso.read_bytes())
        user.own(user.home)
        words = ("--add", "a.tar.xz", "--add", "site", "--mtree", "site.mtree", "--setuid")
        removes = ("--remove", "usr/share/doc/package-1*", "--remove", "/none", "--allow-missing")
        epoch = {"SOURCE_DATE_EPOCH": str(EPOCH)}
        done = user.run("in.iso", "out.iso", *words, *removes, env=epoch)
        assert done.returncode == 0, done.stderr
        # A second run has nothing left to do.
        again = user.run("out.iso", "again.iso", *words, *removes, env=epoch)
        assert again.returncode == 0, again.stderr
        assert "identical to the input" in again.stdout
        found = listed_tree(qemu.boot(target, firmware="bios", medium="disc"))
    removed = {
        name
        for name in before
        if name == b"etc/hostname" or name.startswith((b"usr/share/zoneinfo/", b"usr/share/doc/package-1"))
    }
    assert len(removed) > 5
    added = {
        *(b"etc-release", b"etc/secret", b"usr/bin/site-tool", b"usr/share/zoneinfo/local"),
        *(
            b"opt/site" + name
            for name in (b"", b"/dev", b"/dev/tape", b"/dev/disk", b"/link", b"/one", b"/pipe", b"/two")
        ),
        *(b"srv" + name for name in (b"", b"/alias", b"/console", b"/spool")),
    }
    booted = {name for name in found if name.startswith((b"opt/", b"srv", b"usr/", b"etc"))}
    wanted = {name for name in (before - removed) | added if name.startswith((b"opt/", b"srv", b"usr/", b"etc"))}
    assert booted == wanted
    shared, tool, secret = (hashlib.md5(text).hexdigest() for text in (b"shared\n", b"tool\n", b"x\n"))
    none = (0, 0)
    assert {name: facts(found[name]) for name in added - {b"etc-release", b"usr/share/zoneinfo/local"}} == {
        b"etc/secret": (0o100640, 0, 42, none, secret, None),
        b"opt/site": (0o040755, 0, 0, none, None, None),
        b"opt/site/dev": (0o040755, 0, 0, none, None, None),
        b"opt/site/dev/disk": (0o060600, 0, 0, (259, 1000), None, None),
        b"opt/site/dev/tape": (0o020640, 0, 0, (9, 1), None, None),
        b"opt/site/link": (0o120777, 0, 0, none, None, b"../site/one"),
        b"opt/site/one": (0o104711, 1000, 1001, none, shared, None),
        b"opt/site/pipe": (0o010622, 0, 0, none, None, None),
        b"opt/site/two": (0o104711, 1000, 1001, none, shared, None),
        b"srv": (0o040755, 0, 0, none, None, None),
        b"srv/alias": (0o120777, 0, 0, none, None, b"/opt/site"),
        b"srv/console": (0o020600, 0, 5, (5, 1), None, None),
        b"srv/spool": (0o041777, 0, 0, none, None, None),
        b"usr/bin/site-tool": (0o100755, 0, 0, none, tool, None),
    }
    assert found[b"opt/site/one"].nlink == found[b"opt/site/two"].nlink == 2
