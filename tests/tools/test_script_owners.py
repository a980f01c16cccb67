"""What tools see in a namespace with a single id: a supervisor answers for the owners, as a kernel does for root.

Each script runs twice, as real root and confined, and must print the same and leave the same.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from tests.fixtures.tools import leave_out, require
from tests.support.confined import run_confined
from tests.support.user import REPOSITORY, open_folder

# A second on a loaded machine is long: the times of files are cut out of what scripts print.
_TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d\.\d+ [+]0000)?|\w{3} +\d+ \d\d:\d\d")

LIST = r"""
find . -mindepth 1 -printf '%p %y %m %U %G %n %s %l\n' | sort
find . -type c -o -type b | sort | xargs -r ls -ln
"""


def _split(text: str) -> dict[str, str]:
    """Returns the scripts of ``text`` by name; a line with the name stands before each."""
    scripts = {}
    for part in text.split("== ")[1:]:
        name, _, script = part.partition("\n")
        scripts[name] = script
    return scripts


SCRIPTS = _split(r"""
== chown
touch a; chown 33:44 a; ls -ln a; chown 7 a; ls -ln a; chown :8 a; ls -ln a; chown 0:0 a; ls -ln a
== symlinks
touch a; ln -s a l; ln -s nowhere n; chown 5:6 l; chown -h 7:8 l n; ls -ln; stat -L -c %u:%g l;
chown 1 n || true
== absolute
mkdir -p x/y; touch x/y/f; ln -s /mnt/x/y z; chown 5 /mnt/z/f; chown 6 z/../y/../../x; ls -lnR
== hard links
touch a; ln a b; chown 9:10 b; mv a c; ls -ln; cp -a . ../mnt/d 2>&1 | sed s/.*cannot/cannot/
== setuid
touch a b c d; chmod 4755 a; chmod 2755 b; chmod 2644 c; chmod 6777 d; chown 1 a; chown :1 b c; chown 0:0 d;
mkdir e; chmod 6755 e; chown 3:4 e
== install
install -d -o 33 -g 33 -m 2750 var; echo x > s; install -o 1 -g 2 -m 4711 s var/t; install -D s p/q/r
== tar
mkdir s; echo 1 > s/a; chown 12:13 s/a; chown 14:15 s; ln s/a s/b; ln -s a s/c; mknod s/n c 5 1; chown 3:4 s/n;
tar -cf t.tar s; mkdir o; tar -C o --numeric-owner -xpf t.tar; tar --numeric-owner -tvf t.tar; rm t.tar
== cp
mkdir s; touch s/a s/b; chown 12:13 s/a; chmod 4755 s/a; chown 14 s/b; cp -p s/a c; cp -a s o; cp s/a plain
== mv
mkdir s; touch s/a; chown 5:6 s/a s; mv s t; mkdir u; mv t u; stat -c %u:%g u/t u/t/a
== removed
for i in 1 2 3 4 5 6 7 8; do touch a; chown $i a; rm a; done; touch b c d; ls -ln
== recursive
mkdir -p a/b/c; touch a/x a/b/y; ln -s x a/l; chown -R 100:200 a; chown -R --from=100 300 a/b; chmod -R u+s a
== find
touch a b c; chown 33 a; chgrp 44 b; find . -uid 33; find . -gid 44; find . -nouser -o -user root | sort
== test
touch a; chown 33 a; test -O a || echo not ours; test -G a && echo our group
== devices
mknod null c 1 3; mknod -m 600 sda b 8 0; mknod big b 259 1048575; mkfifo p; mknod q p; umask 077;
mknod z c 1 5; chown 0:6 sda; cp -a sda sdb; mv null nul; test -c nul; test -b sdb; ln sda hard;
stat -c '%F %t %T %a %u %g' *; mknod sda b 8 1 || true; mknod no/where c 1 1 || true; rm z
== no device
mknod w c 0 0; stat -c '%F %t %T' w
== full paths
mkdir -p /mnt/d; cd d; touch f; chown 4 ../d/f; ls -ln /mnt/d/./f; cd /; stat -c %u mnt/d/f; chown 5 mnt/d;
ls -lnd mnt/d; cd /mnt
== chroot
mkdir -p r/bin r/lib r/lib64 r/d; cp /bin/busybox r/bin/; ln -s busybox r/bin/sh; ln -s /d/f r/l;
chroot r /bin/sh -c 'busybox touch /d/f; busybox chown 5:6 /l; busybox stat -c %u:%g /d/f; cd /d;
busybox chown 7 f'; stat -c %u:%g r/d/f; chown 8 r/d; rm -r r/bin r/lib*
== mount
mkdir m; mount -t tmpfs tmpfs m; touch m/a; chown 5:6 m/a; ls -ln m/a; cp -a m/a .; umount m; ls -ln m
== own descriptors
touch a; chown 5 a; stat -L -c %u /dev/fd/3 /proc/self/fd/3 3< a; chown 6 /proc/self/fd/3 3< a;
stat -L -c %u /proc/$$/cwd/a; stat -L -c %u /dev/stdin < a
== acl
touch f; chmod 640 f; setfacl -m u:33:r,g:44:rwx f; stat -c %a f; getfacl -n f; chmod 600 f; getfacl -n f;
cp -a f g; getfacl -n g; setfacl -x u:33 g; getfacl -n g; setfacl -b g; getfacl -n g; setfacl -m u:0:r g;
getfacl -n g; ls -l f g | cut -c1-11; mkdir d; setfacl -d -m u:5:rwx d; getfacl -n d; setfacl -k d;
getfacl -n d; setfacl -d -m u:5:r f || true; getfattr -d -m - f d; setfattr -x system.posix_acl_access f;
getfacl -n f; setfacl -m u:33:r f; setfacl -m u:0:w f; getfacl -n f; setfacl -b f; setfacl -b f; getfacl -n f
== set-group-ID directories
mkdir d; touch d/old; chgrp 50 d; chmod g+s d; touch d/new; mkdir d/sub; touch d/sub/x; ls -lnR d
chgrp 60 d; touch d/newer d/sub/y; chown 5 d/newer; install -o 7 -m 600 /dev/null d/installed
touch plain d/out; mv plain d/moved; mv d/out .; mkdir -m 2775 m; chgrp 8 m; touch m/f; chmod 2755 m; touch m/g
mkdir n; chmod 2755 n; touch n/before; chgrp 9 n; touch n/after; ln -s x n/link; mkfifo n/fifo; mknod n/null c 1 3
cp -a d e; cp -r d f; tar -cf t.tar d; mkdir t; tar -C t -xf t.tar; rm t.tar; touch t/d/z; chmod g-s d; touch d/later
ln d/new hard; mv d/sub .; touch sub/z; rm -r m; mkdir m; touch m/f
== capability
cp /bin/true t; setcap cap_net_raw+ep t; getcap t; chown 5 t; getcap t; setcap cap_net_raw+ep t; getcap t
""")

CALLS = _split(r"""
== fchown of a directory and a file
open(D, "<", "d"); open(F, "<", "f"); say(93, fileno(D), 5, 6); say(93, fileno(F), 7, 8);
== only one id
say(92, "f", 5, -1); say(92, "f", -1, 6); say(92, "f", -1, -1);
== relative to a directory
open(D, "<", "d"); say(260, fileno(D), "g", 5, 6, 0); say(260, fileno(D), "../f", 7, 8, 0);
== the descriptor itself
open(F, "<", "f"); say(260, fileno(F), "", 5, 6, 0x1000); say(260, -100, "", 7, 8, 0x1000);
== the link itself
say(260, -100, "l", 5, 6, 0x100); say(260, -100, "l", 7, 8, 0);
== a descriptor for the path only
my $p = say(2, "f", 010000000, 0); say(93, $p, 5, 6); say(260, $p, "", 7, 8, 0x1000);
== errors
say(92, "none", 5, 6); say(92, "", 5, 6); say(92, "f/x", 5, 6); say(93, 99, 5, 6); say(260, 99, "f", 5, 6, 0);
say(260, -100, "f", 5, 6, 0x8000); say(92, 0, 5, 6); say(92, "x" x 300, 5, 6); say(92, "d/" x 2100 . "f", 5, 6);
say(92, ("./" x 1950) . "f", 5, 6);
== stat in all ways
say(92, "f", 33, 44); open(F, "<", "f"); my $b;
for my $n (4, 6) { $b = "\0" x 256; print syscall($n, "f", $b), " ", join(",", unpack("x16 Q L3", $b)), "\n"; }
$b = "\0" x 256; print syscall(5, fileno(F), $b), " ", join(",", unpack("x16 Q L3", $b)), "\n";
$b = "\0" x 256; print syscall(262, -100, "f", $b, 0), " ", join(",", unpack("x16 Q L3", $b)), "\n";
$b = "\0" x 256; print syscall(262, fileno(F), "", $b, 0x1000), " ", join(",", unpack("x16 Q L3", $b)), "\n";
for my $m (0xfff, 0x7ff, 8) { $b = "\0" x 256;
print syscall(332, -100, "f", 0, $m, $b), " ", join(",", unpack("x16 L3 S", $b)), "\n"; }
$b = "\0" x 256;
print syscall(332, fileno(F), "", 0x1000, 0xfff, $b), " ", join(",", unpack("x16 L3 S", $b)), "\n";
say(4, "f", 0); say(4, "f", 4096);
== ids of the process
say(105, 0); say(106, 0); say(117, 0, 0, 0); say(116, 0, 0); say(122, 0);
== a device without the right

system(q(setpriv --bounding-set -mknod --inh-caps -all \
    perl -e "print syscall(133, q(x), 020644, 259), q( ), 0+\$!, qq(\n)"));
""")
"""Perl, which calls by number."""

_PERL = r"""
mkdir d
touch f d/g
ln -s f l
ln -s none n
perl -e '
$| = 1;
sub say { my $r = syscall(shift, @_); print "$r ", $r < 0 ? 0+$! : 0, "\n"; $r }
"""


def _run_as_root(script: str) -> tuple[int, str]:
    """Runs ``script`` as real root, in a tmpfs at /mnt of its own mount namespace."""
    mounts = "mount -t tmpfs -o mode=755 tmpfs /mnt; mount -t proc proc /proc; cd /mnt; exec sh -ec"
    done = subprocess.run(
        ["unshare", "-mpf", "sh", "-c", f'{mounts} "$1"', "sh", script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        umask=0o022,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def _compare(script: str, ids: Literal["single", "subuid"] = "single") -> None:
    """Compares what ``script`` prints, its exit code and what it leaves, as root and confined."""
    if os.geteuid() != 0:
        leave_out("the judge is real root")
    confined = run_confined(script, ids)
    code, output = _run_as_root(script)
    assert _TIMES.sub("TIME", confined.output) == _TIMES.sub("TIME", output)
    assert confined.returncode == code


@pytest.mark.parametrize("name", SCRIPTS)
def test_tools_see_what_they_said(name: str) -> None:
    require("setfacl", "setcap", "busybox", "unshare", "tar", "setfattr")
    _compare(SCRIPTS[name] + LIST)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="its numbers are those of x86-64")
@pytest.mark.parametrize("name", CALLS)
def test_calls_answer_what_the_kernel_answers(name: str) -> None:
    require("perl", "unshare")
    _compare(f"{_PERL}{CALLS[name]}'\n{LIST}")


@pytest.mark.parametrize("name", ["mv", "chown", "cp", "hard links", "mount", "chroot", "recursive"])
def test_with_real_ids_the_kernel_itself_answers(name: str) -> None:
    _compare(SCRIPTS[name] + LIST, "subuid")


def test_with_real_ids_a_device_cannot_be_copied_without_its_numbers() -> None:
    """There, tools see that a place-holder is a character device, but not its numbers: a copy would be wrong."""
    confined = run_confined("mknod w c 0 0; mknod null c 1 3; test -c null; cp -a null other", "subuid")
    assert confined.returncode == 1
    assert "Operation not permitted" in confined.output
    assert sorted(confined.entries) == ["null", "w"]


@pytest.mark.parametrize("ids", ["single", "subuid"])
def test_devices_are_recorded(ids: Literal["single", "subuid"]) -> None:
    script = "umask 027; mknod w c 0 0; mknod null c 1 3; mknod -m 600 sda b 8 300; mkfifo p; mv null n; ln sda h"
    confined = run_confined(f"{script}; mknod x b 9 9; rm x", ids)
    assert (confined.returncode, confined.output) == (0, "")
    facts = {name: (entry.device, entry.mode, entry.owner) for name, entry in confined.entries.items()}
    assert facts == {
        "n": (("character device", 1, 3), 0o640, (0, 0)),
        "sda": (("block device", 8, 300), 0o600, (0, 0)),
        "h": (("block device", 8, 300), 0o600, (0, 0)),
        "w": (("character device", 0, 0), 0o640, (0, 0)),
        "p": (None, 0o640, (0, 0)),
    }


@pytest.mark.parametrize("ids", ["single", "subuid"])
def test_nobody_can_open_a_place_holder(ids: Literal["single", "subuid"]) -> None:
    confined = run_confined("mknod d c 1 1; head -c1 d || echo no; echo x > d || echo no", ids)
    assert confined.output.splitlines().count("no") == 2, confined.output


def test_acls_are_recorded_as_they_were_given() -> None:
    require("setfacl")
    confined = run_confined("touch f g; setfacl -m u:33:r f; setfacl -m u:0:r g; mkdir d; setfacl -d -m g:70000:rx d")
    assert confined.output == ""
    acls = {name: sorted(entry.acls) for name, entry in confined.entries.items()}
    assert acls == {"f": ["system.posix_acl_access"], "g": [], "d": ["system.posix_acl_default"]}
    assert (33).to_bytes(4, "little").hex() in confined.entries["f"].acls["system.posix_acl_access"]


def test_privileged_attributes_are_refused() -> None:
    require("setfattr")
    confined = run_confined("touch f; setfattr -n trusted.x -v y f")
    assert confined.returncode == 1
    assert "Operation not permitted" in confined.output


def test_a_process_that_dies_or_is_interrupted_while_it_waits() -> None:
    """The call of a killed process goes nowhere; one that a signal interrupts is done once."""
    script = r"""
touch a
for i in 1 2 3 4 5 6 7 8; do
    (set +e; while :; do chown 5 a; mknod b c 1 3; rm -f b; done) 2>/dev/null & p=$!
    sleep 0.05
    kill -9 $p
    wait $p 2>/dev/null || true
done
sleep 0.2
rm -f b
perl -e '
    use Time::HiRes "setitimer";
    $SIG{ALRM} = sub { $n++ };
    setitimer(0, 0.0005, 0.0005);
    for (1 .. 500) {
        my $r;
        do { $r = syscall(133, "x$_", 020644, 259) } while $r && $!{EINTR};
        print "$_: $!\n" if $r;
        do { $r = syscall(87, "x$_") } while $r && $!{EINTR};
    }
    setitimer(0, 0);  # or it fires when perl has put the handler away'
"""
    confined = run_confined(script)
    assert (confined.returncode, confined.output.replace("Killed\n", "")) == (0, "")
    assert sorted(confined.entries) == ["a"]


def test_programs_of_i386_are_answered_too(tmp_path: Path) -> None:
    """Its structures and its short ids are others; its sockets come by one call, which no filter can look into."""
    if os.uname().machine != "x86_64":
        pytest.skip("only x86-64 runs programs of i386")
    require("gcc")
    source = REPOSITORY / "tests" / "support" / "i386.c"
    options = ["-m32", "-O1", "-static", "-nostdlib", "-fno-pic", "-fno-stack-protector"]
    with open_folder() as folder:
        subprocess.run(["gcc", *options, "-o", folder / "steps", source], check=True)
        try:
            subprocess.run([folder / "steps"], cwd=tmp_path, check=False)
        except OSError:
            leave_out("this kernel runs no programs of i386")
        confined = run_confined(f"{folder}/steps")
    assert confined.returncode == 0, "the number of the step that went otherwise"
    assert confined.entries["f"].owner == (70000, 45)
    assert confined.entries["d"].device == ("character device", 1, 3)
