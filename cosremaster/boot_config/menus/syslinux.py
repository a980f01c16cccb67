"""Configurations of SYSLINUX, ISOLINUX and their kin, as far as finding kernel arguments needs (syslinux.txt in its
doc directory): one keyword a line, in any case; what follows APPEND is taken as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct, field

from cosremaster.boot_config.menus.model import (
    KernelLine,
    Menu,
    MenuLanguage,
    Word,
    detect_line_end,
    find_insertion_point,
    is_linux,
    split_arguments,
)

_LINE = re.compile(rb"[ \t]*(\S*)[ \t]*")
_OTHER_KINDS = (b".c32", b".com", b".cbt", b".bin", b".bs", b".bss", b".0", b".img", b".32")
"""Endings by which KERNEL tells something else than a Linux kernel (syslinux.txt, "KERNEL image")."""
_STARTS = frozenset((b"kernel", b"linux"))
_NO_KERNEL = frozenset((b"com32", b"boot", b"bss", b"pxe", b"fdimage", b"comboot", b"localboot", b"config"))
_DEFAULTS = frozenset((b"default", b"ontimeout", b"onerror"))
_MESSAGES = frozenset(
    (b"menu", b"say", b"label", b"text", b"f1", b"f2", b"f3", b"f4", b"f5", b"f6", b"f7", b"f8", b"f9")
)


class _Line(Struct, frozen=True):
    """A line: its number from 1, where its keyword (in small letters) begins, where what follows begins and ends."""

    number: int
    start: int
    keyword: bytes
    value: int
    end: int

    @property
    def behind(self) -> int:
        """The byte behind the keyword."""
        return self.start + len(self.keyword)


class _Label(Struct):
    """What is between two LABELs; ``name`` is None for what stands before the first."""

    name: bytes | None
    kernel: _Line | None = None
    append: _Line | None = None
    defaults: list[_Line] = field(default_factory=list)


def parse_syslinux(data: bytes, *, inherited: bool = False) -> Menu:
    """The menu in ``data``. ``inherited``: a file that includes it gives arguments to all labels without their own."""
    labels, includes, sought = [_Label(None)], list[bytes](), list[tuple[bytes, Word]]()
    in_text = False
    for line in _lines(data):
        value = data[line.value : line.end]
        if line.keyword == b"text" or in_text:
            in_text = line.keyword != b"endtext"
            continue
        if line.keyword == b"label":
            labels.append(_Label(value))
        elif line.keyword in (b"include", b"config") or (
            line.keyword == b"menu" and value.lower().startswith(b"include")
        ):
            words = value.split()[line.keyword == b"menu" :]
            includes += words[:1]
        elif line.keyword in _STARTS or line.keyword in _NO_KERNEL:
            labels[-1].kernel = line
        elif line.keyword == b"append":
            labels[-1].append = line
        elif line.keyword in _DEFAULTS:
            labels[0].defaults.append(line)
        if line.keyword not in _MESSAGES and not line.keyword.startswith(b"#"):
            sought += [(line.keyword, word) for word in split_arguments(data, line.value, line.end)]
    head = labels[0]
    lines = sorted(_kernel_lines(data, labels, bool(includes), inherited), key=lambda one: one.number)
    return Menu(
        language=MenuLanguage.SYSLINUX, data=data, lines=tuple(lines), includes=tuple(includes),
        searched_words=tuple(sought), defaults=head.append is not None or inherited,
    )  # fmt: skip


def _lines(data: bytes) -> Iterator[_Line]:
    at = 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        found = _LINE.match(raw)
        assert found is not None
        keyword, value = found[1].lower(), found.end()
        end = max(value, len(raw.rstrip()))
        if keyword and not keyword.startswith(b"#"):
            yield _Line(number, at + found.start(1), keyword, at + value, at + end)
        at += len(raw) + 1


def _kernel_lines(data: bytes, labels: list[_Label], includes: bool, inherited: bool) -> Iterator[KernelLine]:
    head, named = labels[0], labels[1:]
    shared: bytes | None = None
    for label in named:
        kernel = _linux_of(data, label)
        if kernel is None:
            continue
        assert label.kernel is not None
        words = split_arguments(data, label.kernel.value, label.kernel.end)[1:]
        if label.append is not None:
            yield _with_append(data, label.kernel.number, kernel, words, label.append)
        elif head.append is not None or inherited:
            shared = shared or kernel
            if words:
                yield KernelLine(number=label.kernel.number, kernel=kernel, arguments=words, insert=None)
        else:
            yield _without_append(data, label.kernel, kernel, words)
    if head.append is not None and (shared or includes or not named):
        yield _with_append(data, head.append.number, shared or b"*", (), head.append)
    names = {label.name for label in named}
    for line in head.defaults:
        words = split_arguments(data, line.value, line.end)
        implicit = bool(words[1:]) and not words[0].text.lower().endswith(_OTHER_KINDS)
        if implicit and (is_linux(words[0].text) or words[0].text in names):
            alone = not named and head.append is None and not inherited
            insert = find_insertion_point(words[1:], words[0].end) if alone else None
            yield KernelLine(number=line.number, kernel=words[0].text, arguments=words[1:], insert=insert)


def _linux_of(data: bytes, label: _Label) -> bytes | None:
    """The Linux kernel that a label loads; None where it loads none."""
    if label.kernel is None or label.kernel.keyword in _NO_KERNEL:
        return None
    words = data[label.kernel.value : label.kernel.end].split()
    if not words or not is_linux(words[0]):
        return None
    other = label.kernel.keyword == b"kernel" and words[0].lower().endswith(_OTHER_KINDS)
    return None if other else words[0]


def _with_append(data: bytes, number: int, kernel: bytes, words: tuple[Word, ...], append: _Line) -> KernelLine:
    arguments = split_arguments(data, append.value, append.end)
    if [word.text for word in arguments] == [b"-"]:  # "none, not even the default ones"
        return KernelLine(
            number=number, kernel=kernel, arguments=words, insert=arguments[0].end, lead=b"", stub=arguments[0]
        )
    insert = find_insertion_point(arguments, append.behind)
    return KernelLine(number=number, kernel=kernel, arguments=(*words, *arguments), insert=insert)


def _without_append(data: bytes, line: _Line, kernel: bytes, words: tuple[Word, ...]) -> KernelLine:
    """A new APPEND stands in a line of its own behind the kernel's, written as that is."""
    begin = data.rfind(b"\n", 0, line.start) + 1
    name = b"append" if data[line.start : line.behind].islower() else b"APPEND"
    lead = detect_line_end(data, line.end) + data[begin : line.start] + name + b" "
    return KernelLine(number=line.number, kernel=kernel, arguments=words, insert=line.end, lead=lead)
