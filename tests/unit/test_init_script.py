"""With which options an initramfs' `/init` calls cpio for the root file system that it holds."""

import pytest

from cosremaster.layers.cpio.init_script import find_cpio_options

DEBIRF = r"""
mkdir /proc; mount -t proc proc /proc
if (grep -q break=top /proc/cmdline); then
    /bin/sh # it's a shell
fi
MEM=$(free | sed -e 's/^[[:space:]]*//;/^Mem/!d')
mount -t tmpfs -o size="${MEM}k" tmpfs /newroot
cd /newroot
if ! unxz - < /rootfs.cxz | \
    cpio -i; then echo "can't"; fi
rm /rootfs.cxz
exec run-init . /sbin/init < ./dev/console > ./dev/console 2>&1
"""

READ = {
    "unxz - < /rootfs.cxz | cpio -i": "",
    "unxz - </rootfs.cxz|cpio -i 2>/dev/null &": "",
    "xz -dc /rootfs.cxz | (cd /root; cpio -id)": "d",
    "xz -dc /rootfs.cxz | { cd /root && cpio -idm; }": "dm",
    "mkdir /r && cd /r && xzcat /rootfs.cxz | cpio -i -d -m": "dm",
    "( cd /r && unxz < /rootfs.cxz | cpio -iduv )": "du",
    "R=/rootfs.cxz\nunxz - < $R | busybox cpio -i -u": "u",
    'export R="/rootfs.cxz"\n[ -f "$R" ] && /bin/busybox unxz -c "${R}" | /bin/busybox cpio -i -d -H newc': "d",
    "D=/; N='rootfs.cxz'; unxz < ${D}${N} | LC_ALL=C /usr/bin/cpio --extract --make-directories --quiet": "d",
    "cat /rootfs.cxz | unxz | cpio -i --preserve-modification-time --unconditional": "mu",
    "cpio -iu < /rootfs.cxz": "u",
    "alias ll='ls -l'; say() { echo $1; }; R=/rootfs.cxz; export R; readonly R; unxz < $R | cpio -iu": "u",
    "R=/rootfs.cxz; LC_ALL=C read -r name < /etc/hostname; printf '%s' $name; unxz < $R | exec cpio -iu": "u",
    "declare -r R=/rootfs.cxz; unxz < $R | cpio -i": "",
    "zcat /other.cgz | cpio -idum\nunxz < /rootfs.cxz | cpio -i": "",
    "if a; then unxz < /rootfs.cxz | cpio -i; else cat /rootfs.cxz | unxz | cpio -iv; fi": "",
    DEBIRF: "",
    "unxz < /rootfs.cxz | # what follows\n\n cpio -i": "",
    "O=u; if a; then b=1; fi; f() { c=2; }; D=d; unxz 0< /rootfs.cxz | cpio -i$O${D}": "du",
    "case $1 in a) b=1 ;; (c) d=2 ;; esac; for x in a; do :; done; (e=3); O=u; unxz < /rootfs.cxz | cpio -i$O": "u",
    'export O=-u; unxz < /rootfs.cx\\\nz | /usr/bin/cpio -i \\\n "$O"': "u",
    "echo ${x#(}; O=u; unxz < /rootfs.cxz | cpio -i$O": "u",
    "echo a \\\n# b\nunxz < /rootfs.cxz | cpio -iu": "u",
}

SET_AT_TIMES = [
    '[ -n "$FORCE" ] && O=u; {}',
    '[ -n "$FORCE" ] || O=u; {}',
    "[ $FORCE ] && export O=u; {}",
    "if a; then O=u; fi; {}",
    "if a; then :; else O=u\nfi; {}",
    "while a; do O=u; done; {}",
    "until a\ndo O=u; done; {}",
    "for x in $y; do O=u; done; {}",
    "case $y in z) O=u ;; esac; {}",
    "case $y in (z) O=u; esac; {}",
    "f() { O=u; }; {}",
    "f()\n{\nO=u\n}\n{}",
    "function f { O=u; }; {}",
    "f() (O=u); {}",
    "f() O=u; {}",
    "(O=u); {}",
    "x=$(O=u; echo); {}",
    "(case a in b) O=u;; esac); {}",
    "echo | O=u; {}",
    "O=u | cat; {}",
    "O=u & {}",
    "O=u true; {}",
    "(: ${x%)}; O=u); {}",
    "{}; O=u",
]
"""Ways to set a variable that need not hold where `{}` stands."""

NOT_READ = [
    "unxz < /rootfs.cxz | tar x",
    "unxz < /rootfs.cxz | cpio -i etc",
    "unxz < /rootfs.cxz | cpio -t",
    "unxz < /rootfs.cxz | cpio $OPTIONS",
    "unxz < /rootfs.cxz | cpio -i -E list",
    "unxz < /rootfs.cxz | bsdcpio -i",
    "unxz < /boot/rootfs.cxz | cpio -i",
    "unxz < $1 | cpio -i",
    "unpack() { unxz < $1 | cpio -i; }; unpack /rootfs.cxz",
    "for f in /*.cxz; do unxz < $f | cpio -i; done",
    "R=/rootfs.cxz; R=/other; unxz < $R | cpio -i",
    "read R; R=/rootfs.cxz; unxz < $R | cpio -i",
    "R=/rootfs.cxz; : ${R:=/b}; unxz < $R | cpio -i",
    ". /conf; R=/rootfs.cxz; unxz < $R | cpio -i",
    "X=1 . /conf; R=/rootfs.cxz; unxz < $R | cpio -i",
    "builtin source /conf; R=/rootfs.cxz; unxz < $R | cpio -i",
    "R=/rootfs.cxz; IFS= read -r R < /conf; unxz < $R | cpio -i",
    "R=/rootfs.cxz; while IFS= read -r R; do unxz < $R | cpio -i; done < /list",
    "R=/rootfs.cxz; builtin read R; unxz < $R | cpio -i",
    "R=/rootfs.cxz; mapfile R < /conf; unxz < $R | cpio -i",
    "R=/rootfs.cxz; select R in a b; do unxz < $R | cpio -i; done",
    "R=/rootfs.cxz; printf -v R /b; unxz < $R | cpio -i",
    "R=/rootfs.cxz; R+=.b; unxz < $R | cpio -i",
    "R=/rootfs.cxz; R[0]=/b; unxz < $R | cpio -i",
    "R=/rootfs.cxz; declare -g R=/b; unxz < $R | cpio -i",
    "R=/rootfs.cxz; f() { local R; unxz < $R | cpio -i; }; f",
    "R=/rootfs.cxz; let R=1; unxz < $R | cpio -i",
    "alias cpio='cpio -u'; unxz < /rootfs.cxz | cpio -i",
    "unxz() { cat /b; }; unxz < /rootfs.cxz | cpio -i",
    "function unxz { cat /b; }; unxz < /rootfs.cxz | cpio -i",
    "cd() { echo no; }; unxz < /rootfs.cxz | (cd /r; cpio -i)",
    "cat > x <<E\nunxz < /rootfs.cxz | cpio -i\nE",
    "if a; then unxz < /rootfs.cxz | cpio -i; else unxz < /rootfs.cxz | cpio -iu; fi",
    "if a; then unxz < /rootfs.cxz | cpio -i; else unxz < /rootfs.cxz | gnucpio -iu; fi",
    "unxz < /rootfs.cxz | cpio -i; sh -c 'unxz < /rootfs.cxz | cpio -iu'",
    "unxz < /rootfs.cxz | cpio -i; unxz < $OTHER | cpio -iu",
    "# unxz < /rootfs.cxz | cpio -i",
    "echo 'unxz < /rootfs.cxz | cpio -i'",
    "echo 'open\nunxz < /rootfs.cxz | cpio -i",
    "pv /rootfs.cxz | unxz | cpio -i",
    "cat /head /rootfs.cxz | cpio -i",
    "",
    *(way.replace("{}", "unxz < /rootfs.cxz | cpio -i$O") for way in SET_AT_TIMES),
    "trap 'R=/b' USR1; R=/rootfs.cxz; unxz < $R | cpio -i",
    "if a; then unxz < /rootfs.cxz | cpio -iu; else # the old way \\\nunxz < /rootfs.cxz | cpio -i; fi",
    'echo "$(unxz < /rootfs.cxz | tar x)"; unxz < /rootfs.cxz | cpio -iu',
    'test "`unxz < /rootfs.cxz | tar x`"; unxz < /rootfs.cxz | cpio -iu',
    "zcat /other.cgz | cat - /rootfs.cxz | cpio -iu",
    "exec 3< /other; unxz < /rootfs.cxz | cpio -iu <&3",
    "exec 3<> /other; unxz < /rootfs.cxz | cpio -iu 0<&3",
    "unxz < /rootfs.cxz | /opt/other/cpio -i",
    "unxz < /rootfs.cxz | cpio -i{u,d}",
]

NO_SHELLS = [
    "/bin/csh",
    "/usr/bin/fish",
    "/bin/rbash-or-sh-like",
    "/usr/bin/python3",
    "/usr/bin/env fish",
    "/bin/toybox sh",
]


@pytest.mark.parametrize("shell", NO_SHELLS)
def test_what_is_no_shell_of_the_usual_kind(shell: str) -> None:
    assert find_cpio_options(f"#!{shell}\n{next(iter(READ))}\n".encode(), b"rootfs.cxz") is None


@pytest.mark.parametrize("script", READ)
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/busybox sh", " /usr/bin/env bash"])
def test_ways_that_are_read(script: str, shell: str) -> None:
    found = find_cpio_options(f"#!{shell}\n{script}\n".encode(), b"rootfs.cxz")
    assert found == frozenset(READ[script])


@pytest.mark.parametrize("script", NOT_READ)
def test_ways_that_are_not_read_for_sure(script: str) -> None:
    assert find_cpio_options(f"#!/bin/sh\n{script}\n".encode(), b"rootfs.cxz") is None


@pytest.mark.parametrize("program", [b"\x7fELF\1\1", b"#!/usr/bin/python3\nunxz < /rootfs.cxz | cpio -i\n", b""])
def test_other_programs_are_not_read(program: bytes) -> None:
    assert find_cpio_options(program, b"rootfs.cxz") is None


def test_a_script_cannot_make_words_grow() -> None:
    doubled = "A0=aaaaaaaaaaaaaaaa\n" + "".join(f"A{n}=$A{n - 1}$A{n - 1}\n" for n in range(1, 60))
    script = f"#!/bin/sh\n{doubled}R=/rootfs.cxz\nunxz < $R | cpio -i\necho $A59 {'$A7' * 9000}\n"
    assert find_cpio_options(script.encode(), b"rootfs.cxz") == frozenset()
