"""Boot menus as text: kernel lines found, arguments changed as each language writes them, nothing else touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.boot_config.menus.arguments import (
    ArgumentChanges,
    ArgumentReplacement,
    KernelArgument,
    change_arguments,
    collect_arguments,
)
from cosremaster.boot_config.menus.find import MAX_MENU, detect_language, find_menus, parse_menu
from cosremaster.boot_config.menus.grub import parse_grub, quote_grub_word
from cosremaster.boot_config.menus.loader import parse_loader_entry
from cosremaster.boot_config.menus.model import Menu, MenuLanguage, apply_splices
from cosremaster.boot_config.menus.retarget import VolumeRename, find_mentions
from cosremaster.boot_config.menus.syslinux import parse_syslinux
from cosremaster.errors import UsageError
from cosremaster.iso.path_text import PathText
from tests.fixtures import tools
from tests.fixtures.tools import run


def changed(
    menu: Menu, add: tuple[str, ...] = (), remove: tuple[str, ...] = (), replace: tuple[str, ...] = ()
) -> bytes:
    known = collect_arguments([menu])
    pairs = tuple(pair for one in replace if (pair := ArgumentReplacement.parse(one).resolve(known)))
    added, removed = (tuple(KernelArgument.parse(one) for one in texts) for texts in (add, remove))
    return change_arguments(menu, ArgumentChanges(remove=removed, replace=pairs, add=added))[0]


def arguments(menu: Menu) -> list[list[bytes]]:
    return [[word.text for word in line.arguments] for line in menu.lines]


GRUB = rb"""set default=0
# linux /commented out
search --set=root --label 'linux /x'
menuentry "linux /in a title" --class x {
	linux /vmlinuz root=live:CDLABEL=A\x20B "foo=a b" quiet --- splash  # linux /behind
	initrd /initrd.img
}
menuentry 'two' { linux${arch} ($root)/casper/vmlinuz \
   quiet $extra 'x y'\
 ; initrd /i }
if [ -e /m ]; then linux16 /boot/memtest86+.bin console; else linuxefi /v; fi
multiboot2 /boot/xen.gz dom0_mem=1G
module2 /boot/vmlinuz-6.1 quiet
module2 /boot/initrd.img
"""


def test_kernel_lines_of_grub() -> None:
    menu = parse_grub(GRUB)
    assert [(line.number, line.kernel) for line in menu.lines] == [
        (5, b"/vmlinuz"), (8, b"($root)/casper/vmlinuz"), (11, b"/v"), (13, b"/boot/vmlinuz-6.1"),
    ]  # fmt: skip
    assert arguments(menu) == [
        [rb"root=live:CDLABEL=A\x20B", b"foo=a b", b"quiet", b"---", b"splash"],
        [b"quiet", b"$extra", b"x y"], [], [b"quiet"],
    ]  # fmt: skip


def test_grub_gets_and_loses_arguments_and_nothing_else_moves() -> None:
    new = changed(parse_grub(GRUB), add=("console=ttyS0,115200n8", "dyndbg=file a +p", "cost=$5"), remove=("quiet",))
    added = rb' console=ttyS0,115200n8 "dyndbg=file a +p" cost=\$5'
    want = GRUB.replace(b" quiet --- splash", added + b" --- splash")
    want = want.replace(b"   quiet $extra 'x y'\\\n", b" $extra 'x y'" + added + b"\\\n")
    want = want.replace(b"linuxefi /v;", b"linuxefi /v" + added + b";")
    want = want.replace(b"vmlinuz-6.1 quiet\n", b"vmlinuz-6.1" + added + b"\n")
    assert new == want


def test_grub_itself_takes_what_was_written(tmp_path: Path) -> None:
    tools.require("grub-mkimage")  # grub-script-check comes with it
    menu = parse_grub(GRUB.replace(b"multiboot2", b"#").replace(b"module2", b"#"))
    for word in ("a b", "$x", "a;b", "{", "it's", "a#b", "#b", "back\\slash", "a|b&c<d>e", "caf\xe9", "`", "a}b"):
        (tmp_path / "grub.cfg").write_bytes(changed(menu, add=(word,)))
        run(["grub-script-check", tmp_path / "grub.cfg"])


ISOLINUX = b"""default vesamenu.c32\r
APPEND panic=1\r
label live\r
  menu label ^Live\r
  KERNEL /live/vmlinuz\r
  Append initrd=/live/initrd boot=live --- quiet\r
label text\r
  linux /live/vmlinuz nomodeset\r
label none\r
  linux /live/vmlinuz\r
  append -\r
label hdt\r
  com32 hdt.c32\r
  append quiet\r
label memtest\r
  linux /live/memtest\r
label chain\r
  kernel chain.c32\r
  append hd0\r
text help\r
label nothing
  append quiet\r
endtext\r
"""


def test_isolinux_gets_and_loses_arguments_and_nothing_else_moves() -> None:
    menu = parse_syslinux(ISOLINUX)
    assert arguments(menu) == [
        [b"panic=1"], [b"initrd=/live/initrd", b"boot=live", b"---", b"quiet"], [b"nomodeset"], [],
    ]  # fmt: skip
    new = changed(menu, add=("a=b c",), remove=("quiet", "nomodeset"))
    want = ISOLINUX.replace(b"panic=1", b'panic=1 a="b c"').replace(b" --- quiet", b' a="b c" ---')
    assert new == want.replace(b"append -", b'append a="b c"').replace(b"vmlinuz nomodeset", b"vmlinuz")


@pytest.mark.parametrize(("data", "want"), [
    (b"label x\n  kernel /k\n  initrd /i\n", b"label x\n  kernel /k\n  append new\n  initrd /i\n"),
    (b"LABEL x\r\n\tKERNEL /k \r\n", b"LABEL x\r\n\tKERNEL /k\r\n\tAPPEND new \r\n"),
    (b"LABEL x\nLINUX /k", b"LABEL x\nLINUX /k\nAPPEND new"),
    (b"label x\n kernel /k\n append\n", b"label x\n kernel /k\n append new\n"),
    (b"label x\n kernel /k\n append --- a\n", b"label x\n kernel /k\n append new --- a\n"),
    (b"default vmlinuz initrd=/i\nprompt 0\n", b"default vmlinuz initrd=/i new\nprompt 0\n"),
    (b"label x\n kernel reboot.c32\n", b"label x\n kernel reboot.c32\n"),
])  # fmt: skip
def test_where_isolinux_has_no_arguments_yet(data: bytes, want: bytes) -> None:
    assert changed(parse_syslinux(data), add=("new",)) == want


def test_loader_entries() -> None:
    data = b"title quiet\nlinux /vmlinuz\noptions quiet a\noptions b\t\ninitrd /i\n"
    new = changed(parse_loader_entry(data), add=("c d",), remove=("quiet",))
    assert new == b'title quiet\nlinux /vmlinuz\noptions a\noptions b "c d"\t\ninitrd /i\n'
    assert changed(parse_loader_entry(b"linux /k\r\n"), add=("x",)) == b"linux /k\r\noptions x\r\n"
    assert parse_loader_entry(b"title shell\nefi /shellx64.efi\n").lines == ()
    assert arguments(parse_loader_entry(b"efi /EFI/Linux/uki.efi\noptions a\n")) == [[b"a"]]


def test_adding_what_is_there_changes_nothing() -> None:
    menu = parse_grub(b'linux /k "a=b c" quiet -- init=x\n')
    new, lines = change_arguments(
        menu, ArgumentChanges(add=(KernelArgument.parse('a="b c"'), KernelArgument.parse("quiet")))
    )
    assert new == menu.data
    assert lines[0].already_present == (b"a=b c", b"quiet")
    assert not lines[0].has_changed
    assert changed(menu, add=("init=x",)) == b'linux /k "a=b c" quiet init=x -- init=x\n'


def test_every_match_is_replaced_and_removal_comes_before_adding() -> None:
    menu = parse_grub(b"linux /k console=a console=a root=live:CDLABEL=A quiet\n")
    assert changed(menu, replace=("console=a=b",)) == b"linux /k console=b console=b root=live:CDLABEL=A quiet\n"
    assert changed(menu, remove=("quiet",), add=("quiet",)) == menu.data
    new = changed(menu, replace=("root=live:CDLABEL=A=live:CDLABEL=B=C",))
    assert new == menu.data.replace(b"CDLABEL=A", b"CDLABEL=B=C")
    with pytest.raises(UsageError, match="x=a=b=c fits x=a and x=a=b"):
        changed(parse_grub(b"linux /k x=a x=a=b\n"), replace=("x=a=b=c",))


@pytest.mark.parametrize("text", ["", " ", " a", "a\n", "a\0b", "a\x7f", "--", "---", 'a="b', 'a="b" c="d"', "a\tb"])
def test_what_is_no_argument(text: str) -> None:
    with pytest.raises(UsageError):
        KernelArgument.parse(text)


@pytest.mark.parametrize("text", ["a", "a=b", "=b=c"])
def test_what_is_no_replacement(text: str) -> None:
    with pytest.raises(UsageError):
        ArgumentReplacement.parse(text)


@pytest.mark.parametrize(("path", "data", "kind"), [
    (b"boot/grub/grub.cfg", b"", MenuLanguage.GRUB), (b"EFI/debian/GRUB.CFG", b"x", MenuLanguage.GRUB),
    (b"isolinux/isolinux.cfg", b"", MenuLanguage.SYSLINUX), (b"isolinux/txt.cfg", b"LABEL a\n", MenuLanguage.SYSLINUX),
    (b"boot/grub/loopback.cfg", b"menuentry 'x' {\n}\n", MenuLanguage.GRUB), (b"boot/x.cfg", b"nothing", None),
    (b"boot/x.cfg", b"label a\nlinux /vmlinuz\n", MenuLanguage.SYSLINUX),
    (b"loader/entries/a.conf", b"", MenuLanguage.LOADER_ENTRY),
])  # fmt: skip
def test_what_a_file_is(path: bytes, data: bytes, kind: MenuLanguage | None) -> None:
    assert detect_language(path, data) is kind


def test_menus_are_found_with_what_they_include() -> None:
    files = {
        b"isolinux/isolinux.cfg": b"APPEND all\nINCLUDE menu.txt\n", b"isolinux/menu.txt": b"LABEL a\nKERNEL /k\n",
        b"boot/grub/grub.cfg": b"source $prefix/more\nconfigfile (hd0)/odd/place\nsource $unknown/x\n",
        b"boot/grub/more": b"linux /k a\n", b"odd/place": b"linux /k b\n", b"etc/x.cfg": b"linux /k\n",
    }  # fmt: skip
    menus = find_menus(PathText(files), files.__getitem__)
    assert set(menus) == set(files) - {b"etc/x.cfg"}
    assert menus[b"isolinux/menu.txt"].lines == ()  # the arguments are those of the file that includes it
    assert changed(menus[b"isolinux/isolinux.cfg"], add=("b",)) == b"APPEND all b\nINCLUDE menu.txt\n"
    loop = {b"grub.cfg": b"source /a\n", b"a": b"source /grub.cfg\n"}
    assert set(find_menus(PathText(loop), loop.__getitem__)) == set(loop)


RETARGETED = rb"""# search --label OLD NAME
search --set=root --label 'OLD NAME'
search -l OLD\ NAME
search --file /.disk/2023-11-14-22-13-20-00.uuid
search --fs-uuid 2023-11-14-22-13-20-00
menuentry "OLD NAME" {
  linux /v root=live:CDLABEL=OLD\x20NAME inst.stage2=hd:LABEL=OLD\x20NAME:/x live-media-path="OLD NAME" x=OLD\x20NAMES
}
"""


def test_what_looks_for_the_volume() -> None:
    targets = (
        VolumeRename("volume id", b"OLD NAME", b"NEW $1", is_unique=False),
        VolumeRename("volume date", b"2023-11-14-22-13-20-00", b"2026-01-02-03-04-05-00", is_unique=True),
    )
    menu = parse_grub(RETARGETED)
    mentions = find_mentions(menu, targets)
    assert [one.line for one in mentions] == [2, 3, 5, 7, 7]
    assert mentions[0].text == b"search --set=root --label 'OLD NAME'"
    new = apply_splices(menu.data, (splice for one in mentions for splice in one.splices)).splitlines()
    old = RETARGETED.splitlines()
    assert new[1:3] == [b"search --set=root --label 'NEW $1'", rb"search -l NEW\ \$1"]
    assert new[4] == b"search --fs-uuid 2026-01-02-03-04-05-00"
    assert rb'CDLABEL=NEW\x20\x241 inst.stage2=hd:LABEL=NEW\x20\x241:/x live-media-path="OLD NAME" x=OLD\x20N' in new[6]
    assert [new[n] for n in (0, 3, 5, 7)] == [old[n] for n in (0, 3, 5, 7)]


def test_a_name_with_a_space_is_escaped_for_the_kernel_and_quoted_for_grub() -> None:
    target = [VolumeRename("volume id", b"ARCH", b"MY ARCH", is_unique=False)]
    menu = parse_syslinux(b"label ARCH\n kernel /arch/k\n append archisobasedir=ARCH archisolabel=ARCH\n")
    (one,) = find_mentions(menu, target)
    assert apply_splices(menu.data, one.splices).endswith(b" append archisobasedir=ARCH archisolabel=MY\\x20ARCH\n")
    menu = parse_grub(b"search --label ARCH\nsearch --label ARCHIVE\nsearch --label X-ARCH\n")
    (one,) = find_mentions(menu, target)
    assert apply_splices(menu.data, one.splices).startswith(b"search --label MY\\ ARCH\nsearch --label ARCHIVE")


# --- whatever there is in a file -----------------------------------------------------------------------------------

PIECES = (
    b"linux /k", b"linuxefi /v a=b", b"menuentry 'x' {", b"}", b"\n", b"\r\n", b"\\\n", b"'", b'"', b"\\", b" ", b"\t",
    b"label x\n", b"kernel /k\n", b"append a b\n", b"APPEND -\n", b"options q\n", b"---", b"# c", b"\0", b"\xff\xfe",
    b"quiet", b"$x", b"${y}", b";", b"include z\n", b"text\n", b"endtext\n", b"\\x20", b"efi /e\n",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=40).map(b"".join)
PARSERS = (parse_grub, parse_syslinux, parse_loader_entry)
WORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x17F, exclude_characters='"\x7f'), min_size=1)


@given(TEXTS, st.sampled_from(PARSERS))
def test_without_changes_a_menu_stays_as_it_is(data: bytes, parse: object) -> None:
    assert callable(parse)
    menu = parse(data)
    assert change_arguments(menu, ArgumentChanges())[0] == data
    for line in menu.lines:
        assert 1 <= line.number <= data.count(b"\n") + 1
        assert all(0 <= word.start < word.end <= len(data) for word in line.arguments)


@given(TEXTS, st.sampled_from(PARSERS), WORDS.filter(lambda text: text.strip() == text and text not in ("--", "---")))
def test_edits_touch_kernel_lines_alone_and_do_what_was_asked(data: bytes, parse: object, word: str) -> None:
    assert callable(parse)
    menu, wanted = parse(data), KernelArgument.parse(word)
    new = changed(menu, add=(word,), remove=("quiet",))
    again = parse(new)
    assert len(again.lines) == len(menu.lines)
    for before, after in zip(menu.lines, again.lines, strict=True):
        texts = [one.text for one in after.arguments]
        assert b"quiet" not in texts or word == "quiet"
        kept = [one.text for one in before.arguments if one.text != b"quiet"]
        assert [one for one in texts if one != wanted.text] == [one for one in kept if one != wanted.text]
        if before.insert is not None:
            assert wanted.text in texts
    assert changed(again, add=(word,)) == new  # a second time changes nothing
    rest = re.sub(rb"[ \t\r\n]+", b"", data)
    if not menu.lines:
        assert new == data
    elif word != "quiet" and b"quiet" not in rest:
        assert len(new) >= len(data) - 1  # at most the dash of "append -" went


@given(st.binary(max_size=300))
def test_any_bytes_are_read(data: bytes) -> None:
    for path in (b"grub.cfg", b"isolinux.cfg", b"loader/entries/x.conf", b"boot/x.cfg"):
        menu = parse_menu(path, data)
        if menu is not None:
            target = [VolumeRename("volume id", b"a", b"b c", is_unique=False)]
            apply_splices(data, (splice for one in find_mentions(menu, target) for splice in one.splices))


@given(st.binary(min_size=1, max_size=30).filter(lambda text: not set(text) & set(b"\0\n\r\t")))
def test_words_for_grub_say_what_they_should(text: bytes) -> None:
    menu = parse_grub(b"linux /k " + quote_grub_word(text) + b" end\n")
    (line,) = menu.lines
    said = [word.text for word in line.arguments]
    # GRUB would expand $x; our reading shows the name, so a dollar must have come through its escape
    assert said == [text, b"end"] or (b"\\" in text and len(said) == 2)


def test_huge_lines_and_deep_files_take_no_time() -> None:
    for data in (b"linux /k" + b" a" * 50_000, b"'" * 50_001, b"{" * 50_000, b"\\\n" * 50_000,
                 b"append " + b'"' * 50_001, b"label x\nkernel /k\n" * 10_000):  # fmt: skip
        for path in (b"grub.cfg", b"isolinux.cfg", b"loader/entries/x.conf"):
            menu = parse_menu(path, data)
            assert menu is not None
            changed(menu, add=("x",), remove=("a",))
    assert parse_menu(b"grub.cfg", b"x" * (MAX_MENU + 1)) is None
    assert parse_menu(b"grub.cfg", b"linux /k\0") is None
