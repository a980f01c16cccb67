"""Parse configurations of SYSLINUX, ISOLINUX and their kin, as far as finding kernel arguments needs.

There is one keyword in a line, in any case of letters; the text behind APPEND is passed on as it is (syslinux.txt in
its doc directory).
"""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot_config.menus.model import (
    KernelLine,
    Menu,
    MenuLanguage,
    UnreadLine,
    Word,
    detect_line_end,
    find_insertion_point,
    is_linux,
    split_arguments,
)
from cosremaster.boot_config.menus.programs import ProgramLines, is_program, loads_kernel, read_program
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, field

_LINE = lazy_regex(rb"[ \t]*(\S*)[ \t]*")
_OTHER_KINDS = (b".c32", b".com", b".cbt", b".bin", b".bs", b".bss", b".0", b".img", b".32")
"""Extensions of programs other than Linux that KERNEL loads (syslinux.txt, "KERNEL image")."""
_STARTS = frozenset((b"kernel", b"linux"))
_NO_KERNEL = frozenset((b"com32", b"boot", b"bss", b"pxe", b"fdimage", b"comboot", b"localboot", b"config"))
_PROGRAM_KEYWORDS = frozenset((b"kernel", b"com32"))
_DEFAULTS = frozenset((b"default", b"ontimeout", b"onerror"))
_MESSAGES = frozenset(
    (b"menu", b"say", b"label", b"text", b"f1", b"f2", b"f3", b"f4", b"f5", b"f6", b"f7", b"f8", b"f9")
)


class SyslinuxLine(Struct, frozen=True):
    """A line: its number from 1, first byte of the keyword, keyword (lower case), first byte and end of its value."""

    number: int
    start: int
    keyword: bytes
    value: int
    end: int

    @property
    def keyword_end(self) -> int:
        """The byte behind the keyword."""
        return self.start + len(self.keyword)


class _Label(Struct):
    """The lines of one LABEL that matter; ``name`` is None for the lines in front of the first LABEL."""

    name: bytes | None
    kernel: SyslinuxLine | None = None
    append: SyslinuxLine | None = None
    defaults: list[SyslinuxLine] = field(default_factory=list)


def parse_syslinux(data: bytes, *, inherited: bool = False) -> Menu:
    """Parse a SYSLINUX configuration.

    :param inherited: a file that includes it sets the arguments of all labels without their own.
    """
    labels, includes, searched = [_Label(None)], list[bytes](), list[tuple[bytes, Word]]()
    for line in split_syslinux_lines(data):
        value = data[line.value : line.end]
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
        if line.keyword not in _MESSAGES:
            searched += [(line.keyword, word) for word in split_arguments(data, line.value, line.end)]
    head, *named = labels
    started = [
        *_label_programs(data, head, named, inherited), *_default_programs(data, head, named)
    ]  # fmt: skip
    lines = [
        *_label_lines(data, head, named, bool(includes), inherited), *_default_lines(data, head, named, inherited),
        *(line for program in started for line in program.lines),
    ]  # fmt: skip
    includes += [path for program in started for path in program.includes]
    return Menu(
        language=MenuLanguage.SYSLINUX,
        data=data,
        lines=tuple(sorted(lines, key=lambda line: line.number)),
        includes=tuple(includes),
        searched_words=tuple(searched),
        defaults=head.append is not None or inherited,
        unread=(*_open_quotes(data, named), *(line for program in started for line in program.unread)),
    )


def split_syslinux_lines(data: bytes) -> Iterator[SyslinuxLine]:
    """Yield the lines that have a keyword, without TEXT, ENDTEXT and what is between them: help for people."""
    at, in_text = 0, False
    for number, raw in enumerate(data.split(b"\n"), 1):
        match = _LINE.match(raw)
        assert match is not None
        keyword, value = match[1].lower(), match.end()
        if keyword == b"text" or in_text:
            in_text = keyword != b"endtext"
        elif keyword and not keyword.startswith(b"#"):
            yield SyslinuxLine(number, at + match.start(1), keyword, at + value, at + max(value, len(raw.rstrip())))
        at += len(raw) + 1


def _label_lines(
    data: bytes, head: _Label, labels: list[_Label], includes: bool, inherited: bool
) -> Iterator[KernelLine]:
    """Yield the kernel line of each label that loads Linux, and that of an APPEND in front of the labels."""
    shared: bytes | None = None
    for label in labels:
        kernel = _linux_of(data, label)
        if kernel is None:
            continue
        assert label.kernel is not None
        arguments = split_arguments(data, label.kernel.value, label.kernel.end)[1:]
        if label.append is not None:
            yield _line_with_append(data, label.kernel.number, kernel, arguments, label.append)
        elif head.append is not None or inherited:
            shared = shared or kernel
            if arguments:
                yield KernelLine(number=label.kernel.number, kernel=kernel, arguments=arguments, insert=None)
        else:
            yield _line_without_append(data, label.kernel, kernel, arguments)
    programs = (_program_of(data, line) for line in head.defaults)
    is_for_program = any(program is not None and loads_kernel(program) for program in programs)
    if head.append is not None and (shared or includes or not (labels or is_for_program)):
        yield _line_with_append(data, head.append.number, shared or b"*", (), head.append)


def _default_lines(data: bytes, head: _Label, labels: list[_Label], inherited: bool) -> Iterator[KernelLine]:
    """Yield a kernel line for each DEFAULT, ONTIMEOUT and ONERROR whose command loads Linux with arguments."""
    names = {label.name for label in labels}
    has_no_append = not labels and head.append is None and not inherited
    for line in head.defaults:
        command, *arguments = split_arguments(data, line.value, line.end) or (None,)
        if command is None or not arguments or command.text.lower().endswith(_OTHER_KINDS):
            continue
        if is_linux(command.text) or command.text in names:
            insert = find_insertion_point(tuple(arguments), command.end) if has_no_append else None
            yield KernelLine(number=line.number, kernel=command.text, arguments=tuple(arguments), insert=insert)


def _program_of(data: bytes, line: SyslinuxLine | None) -> Word | None:
    """Return the module of SYSLINUX that a line starts; None if it starts none."""
    words = split_arguments(data, line.value, line.end) if line is not None else ()
    return words[0] if words and is_program(words[0].text) else None


def _label_programs(data: bytes, head: _Label, labels: list[_Label], inherited: bool) -> Iterator[ProgramLines]:
    """Yield the kernels of each label that starts a module of SYSLINUX."""
    names = {label.name for label in labels if label.name}
    for label in labels:
        program = _program_of(data, label.kernel)
        if label.kernel is None or program is None or label.kernel.keyword not in _PROGRAM_KEYWORDS:
            continue
        name = label.name or b""
        own = split_arguments(data, label.kernel.value, label.kernel.end)[1:]
        appended = _appended_words(data, label.append or head.append)
        started = read_program(label.kernel.number, name, program, own + appended, names)
        if not (label.append or head.append) and inherited and loads_kernel(program):
            reason = "starts a kernel with the arguments of the file that includes this one"
            started = ProgramLines(unread=(UnreadLine(label.kernel.number, name, reason),))
        yield started


def _default_programs(data: bytes, head: _Label, labels: list[_Label]) -> Iterator[ProgramLines]:
    """Yield the kernels of each DEFAULT, ONTIMEOUT and ONERROR whose command is a module of SYSLINUX."""
    names = {label.name for label in labels if label.name}
    for line in head.defaults:
        program, *words = split_arguments(data, line.value, line.end) or (None,)
        if program is not None and is_program(program.text):
            yield read_program(line.number, b"", program, (*words, *_appended_words(data, head.append)), names)


def _appended_words(data: bytes, append: SyslinuxLine | None) -> tuple[Word, ...]:
    """Return the words of an APPEND; none for ``APPEND -``, which means no words."""
    words = () if append is None else split_arguments(data, append.value, append.end)
    return () if [word.text for word in words] == [b"-"] else words


def _open_quotes(data: bytes, labels: list[_Label]) -> Iterator[UnreadLine]:
    """Yield each line of a kernel that has an argument with a quote that does not end: it takes the APPEND too."""
    for label in labels:
        words = split_arguments(data, label.kernel.value, label.kernel.end) if label.kernel is not None else ()
        if label.kernel is not None and any(word.is_open for word in words) and label.append is not None:
            yield UnreadLine(label.kernel.number, label.name or b"", "has a quote that does not end on its line")


def _linux_of(data: bytes, label: _Label) -> bytes | None:
    """Return the Linux kernel that a label loads; None if it loads none."""
    if label.kernel is None or label.kernel.keyword in _NO_KERNEL:
        return None
    words = data[label.kernel.value : label.kernel.end].split()
    if not words or not is_linux(words[0]):
        return None
    is_other = label.kernel.keyword == b"kernel" and words[0].lower().endswith(_OTHER_KINDS)
    return None if is_other else words[0]


def _line_with_append(
    data: bytes, number: int, kernel: bytes, words: tuple[Word, ...], append: SyslinuxLine
) -> KernelLine:
    """Return a kernel line whose arguments are ``words`` and those of an APPEND."""
    arguments = split_arguments(data, append.value, append.end)
    if [word.text for word in arguments] == [b"-"]:  # "none, not even the default ones"
        stub = arguments[0]
        return KernelLine(number=number, kernel=kernel, arguments=words, insert=stub.end, lead=b"", stub=stub)
    insert = find_insertion_point(arguments, append.keyword_end)
    return KernelLine(number=number, kernel=kernel, arguments=(*words, *arguments), insert=insert)


def _line_without_append(data: bytes, line: SyslinuxLine, kernel: bytes, words: tuple[Word, ...]) -> KernelLine:
    """Return a kernel line that gets an APPEND in a new line behind the kernel's, indented and spelled like that."""
    begin = data.rfind(b"\n", 0, line.start) + 1
    name = b"append" if data[line.start : line.keyword_end].islower() else b"APPEND"
    lead = detect_line_end(data, line.end) + data[begin : line.start] + name + b" "
    return KernelLine(number=line.number, kernel=kernel, arguments=words, insert=line.end, lead=lead)
