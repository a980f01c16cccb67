"""Which entry of a GRUB menu starts by itself, and what it loads: as GRUB 2.06 does it (tried under QEMU)."""

from __future__ import annotations

import pytest

from cosremaster.boot_config.menus.entries import read_entries
from cosremaster.boot_config.menus.model import Menu, MenuLanguage

MENU = b"""
%b
menuentry 'First' --id one { linux /vmlinuz a=1 ; initrd /initrd }
submenu 'More > options' --id more {
  set flavour=rt
  menuentry 'Rescue' --id=rescue { linux /vmlinuz a=$flavour }
  menuentry 'Old' { linux /vmlinuz a=3 }
  submenu 'Deep' { menuentry 'Deepest' { linux /vmlinuz a=4 } }
}
menuentry 'Last' { linux /vmlinuz a=5 }
%b
"""


def started(head: bytes, tail: bytes = b"") -> list[bytes]:
    """The titles of the entries that start by themselves."""
    menu = Menu(language=MenuLanguage.GRUB, data=MENU % (head, tail), lines=())
    entries = read_entries(menu)
    assert [entry.names[0] for entry in entries] == [b"First", b"Rescue", b"Old", b"Deepest", b"Last"]
    return [entry.names[0] for entry in entries if entry.is_default]


@pytest.mark.parametrize(
    ("default", "title"),
    [
        (b"", b"First"), (b"0", b"First"), (b"1", b"Rescue"), (b"2", b"Last"), (b"3", b"First"), (b"7", b"First"),
        (b"1>1", b"Old"), (b"1>2", b"Deepest"), (b"1>2>0", b"Deepest"), (b"1>9", b"Rescue"), (b"more>Old", b"Old"),
        (b"More >> options>rescue", b"Rescue"), (b"rescue", b"First"), (b"Last", b"Last"), (b"one", b"First"),
        (b"${saved_entry}", b"First"), (b"2 and more", b"Last"),
    ],
)  # fmt: skip
def test_the_default_is_a_number_of_the_menu_itself_a_title_or_an_id(default: bytes, title: bytes) -> None:
    assert started(b'set default="%b"' % default) == [title]
    assert started(b'set default="Old"', b'set default="%b"' % default) == [title], "the last value counts"


def test_a_title_that_begins_with_a_digit_is_a_number() -> None:
    menu = b"set default='9 lives'\nmenuentry 'A' { linux /vmlinuz a=1 }\nmenuentry '9 lives' { linux /vmlinuz b=1 }\n"
    entries = read_entries(Menu(language=MenuLanguage.GRUB, data=menu, lines=()))
    assert [entry.is_default for entry in entries] == [True, False]


def test_braces_in_an_entry_end_no_submenu() -> None:
    menu = b"""set default=1
submenu 'S' { menuentry 'A' { if true; then { linux /vmlinuz a=1 } fi } menuentry 'B' { linux /vmlinuz b=1 } }
menuentry 'C' { linux /vmlinuz c=1 }
"""
    entries = read_entries(Menu(language=MenuLanguage.GRUB, data=menu, lines=()))
    assert [(entry.names, entry.is_default) for entry in entries] == [
        ((b"A",), False),
        ((b"B",), False),
        ((b"C",), True),
    ]


def test_variables_of_a_submenu_and_of_the_end_count() -> None:
    menu = b"""
menuentry 'A' { linux /vmlinuz $args }
submenu 'S' { menuentry 'B' { linux /vmlinuz $args $own } ; set own=ro }
set args=quiet
"""
    entries = read_entries(Menu(language=MenuLanguage.GRUB, data=menu, lines=()))
    assert [entry.files[0].arguments for entry in entries] == [(b"quiet",), (b"quiet", b"ro")]


def test_the_last_initrd_command_counts() -> None:
    menu = b"menuentry 'A' { linux /vmlinuz\n initrd /first /second\n initrd /third /fourth\n }\n"
    (entry,) = read_entries(Menu(language=MenuLanguage.GRUB, data=menu, lines=()))
    assert [file.path for file in entry.files] == [b"/vmlinuz", b"/third", b"/fourth"]


def test_submenus_have_a_deepest_level_and_entries_no_number_that_is_too_large() -> None:
    deep = b"set default=0\n" + b"submenu s { set x=1\n" * 2_000 + b"menuentry m { linux /vmlinuz }\n" + b"}" * 2_000
    assert not read_entries(Menu(language=MenuLanguage.GRUB, data=deep, lines=()))
    many = b"set default=2999\n" + b"menuentry m { linux /vmlinuz\n}\n" * 3_000
    entries = read_entries(Menu(language=MenuLanguage.GRUB, data=many, lines=()))
    assert [number for number, entry in enumerate(entries) if entry.is_default] == [2_999]
