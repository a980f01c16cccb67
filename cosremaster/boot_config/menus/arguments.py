"""Add, remove and replace kernel arguments in a menu, each spelled as the menu's language requires."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile

from cosremaster.boot_config.menus.grub import quote_grub_word
from cosremaster.boot_config.menus.model import (
    SEPARATORS,
    KernelLine,
    Menu,
    MenuLanguage,
    Splice,
    Word,
    apply_splices,
    split_arguments,
)
from cosremaster.errors import UsageError, printable
from cosremaster.records import Struct
from cosremaster.records.lazy_dataclass import dataclass

INIT = b"--"
"""Arguments behind this word go to init, not to the kernel (Documentation/admin-guide/kernel-parameters.rst)."""


class KernelArgument(Struct, frozen=True):
    """A kernel argument. ``given``: as the user spelled it; ``text``: without quotes."""

    given: bytes
    text: bytes

    @classmethod
    def parse(cls, text: str) -> KernelArgument:
        """Parse one argument of a kernel's command line.

        >>> KernelArgument.parse('label="MY SITE"').text
        b'label=MY SITE'

        :raises UsageError: when ``text`` is no argument, or several.
        """
        given = text.encode("utf-8", "surrogateescape")
        if not given.strip() or given != given.strip():
            raise UsageError(f"kernel argument {text!r} is empty or begins or ends with a space")
        if any(byte < 0x20 or byte == 0x7F for byte in given):
            raise UsageError(f"kernel argument {text!r} has a control character")
        if given in SEPARATORS:
            raise UsageError(f"{text} separates kernel arguments and is none")
        if given.count(b'"') % 2:
            raise UsageError(f"kernel argument {text!r} has a quote that does not end")
        if b'"' in given and len(split_arguments(given, 0, len(given))) != 1:
            raise UsageError(f"kernel argument {text!r} is more than one argument")
        return cls(given, given.replace(b'"', b""))

    def render(self, language: MenuLanguage) -> bytes:
        """Return the argument as menus spell it; GRUB adds the kernel's quotes itself (grub_create_loader_cmdline)."""
        if language is MenuLanguage.GRUB:
            return quote_grub_word(self.text)
        if b'"' in self.given or b" " not in self.given:
            return self.given
        key, equals, value = self.given.partition(b"=")
        return key + equals + b'"' + value + b'"' if equals and b" " not in key else b'"' + self.given + b'"'


class ArgumentReplacement(Struct, frozen=True):
    """A replacement ``KEY=OLD=NEW``. A value may contain ``=``: each way to split the text is one of ``choices``."""

    given: str
    choices: tuple[tuple[KernelArgument, KernelArgument], ...]

    @classmethod
    def parse(cls, text: str) -> ArgumentReplacement:
        """Parse ``KEY=OLD=NEW``.

        :raises UsageError: when ``text`` has another form.
        """
        key, _, rest = text.partition("=")
        cuts = [at for at, letter in enumerate(rest) if letter == "="]
        if not key or not cuts:
            raise UsageError(f"{text!r} is not KEY=OLD=NEW")
        pairs = ((f"{key}={rest[:at]}", f"{key}={rest[at + 1 :]}") for at in cuts)
        return cls(text, tuple((KernelArgument.parse(old), KernelArgument.parse(new)) for old, new in pairs))

    def resolve(self, present: Collection[bytes]) -> tuple[KernelArgument, KernelArgument] | None:
        """Return the old and the new argument; None if the old one is missing.

        :param present: texts of all arguments in the menus.
        :raises UsageError: when several ways to split the text fit.
        """
        fitting = [choice for choice in self.choices if choice[0].text in present]
        if len(fitting) > 1:
            raise UsageError(f"{self.given} fits {' and '.join(printable(old.text) for old, _ in fitting)}")
        return fitting[0] if fitting else None


class ArgumentChanges(Struct, frozen=True):
    """Changes to kernel arguments, made in this order; every argument equal to an old one is removed or replaced."""

    remove: tuple[KernelArgument, ...] = ()
    replace: tuple[tuple[KernelArgument, KernelArgument], ...] = ()
    add: tuple[KernelArgument, ...] = ()


@dataclass(frozen=True, slots=True)
class LineChange:
    """The changes to a kernel line; arguments are without quotes.

    :param number: the line in the menu, from 1.
    :param already_present: arguments to add that the line had already.
    """

    number: int
    removed: tuple[bytes, ...]
    replaced: tuple[tuple[bytes, bytes], ...]
    added: tuple[bytes, ...]
    already_present: tuple[bytes, ...]

    @property
    def has_changed(self) -> bool:
        """Whether any argument of the line changed."""
        return bool(self.removed or self.replaced or self.added)


def collect_arguments(menus: Iterable[Menu]) -> frozenset[bytes]:
    """Return the text of every argument in ``menus``."""
    return frozenset(word.text for menu in menus for line in menu.lines for word in line.arguments)


def change_arguments(menu: Menu, changes: ArgumentChanges) -> tuple[bytes, tuple[LineChange, ...]]:
    """Return the menu's new bytes, and the changes to each of its kernel lines; nothing else in the menu changes."""
    splices, lines = plan_arguments(menu, changes)
    return apply_splices(menu.data, splices), lines


def plan_arguments(menu: Menu, changes: ArgumentChanges) -> tuple[tuple[Splice, ...], tuple[LineChange, ...]]:
    """Return the splices that change the menu, and the changes to each of its kernel lines."""
    splices, line_changes = dict[Splice, None](), list[LineChange]()
    for line in menu.lines:
        line_change, line_splices = _change_line(menu, line, changes)
        line_changes.append(line_change)
        splices |= dict.fromkeys(line_splices)
    return tuple(splices), tuple(line_changes)


def find_lost_argument(menu: Menu, changed: Menu, changes: ArgumentChanges) -> int | None:
    """Return the number of the first line of the ``changed`` menu that lacks an argument which was added to it.

    A backslash at the end of a file, or a quote in a kernel's name, can swallow what is added behind it; behind
    :data:`INIT`, which may stand in the line of the kernel's name, it is none of the kernel.
    """
    if len(menu.lines) != len(changed.lines):
        return changed.lines[0].number if changed.lines else 1
    added = {argument.text for argument in changes.add}
    for old, new in zip(menu.lines, changed.lines, strict=True):
        of_kernel = takewhile(INIT.__ne__, (word.text for word in new.arguments))
        if old.insert is not None and not added <= set(of_kernel):
            return new.number
    return None


def _change_line(menu: Menu, line: KernelLine, changes: ArgumentChanges) -> tuple[LineChange, list[Splice]]:
    """Return the changes to a kernel line, and the splices that make them."""
    to_remove = {argument.text for argument in changes.remove}
    replacements = {old.text: new for old, new in changes.replace}
    splices, removed, replaced, present = list[Splice](), list[bytes](), list[tuple[bytes, bytes]](), set[bytes]()
    is_behind_init = False
    for word in line.arguments:
        is_behind_init = is_behind_init or word.text == INIT
        if word.text in to_remove:
            removed.append(word.text)
            splices.append(_cut_word(menu.data, word, splices[-1][1] if splices else 0, line.insert))
            continue
        text = word.text
        if text in replacements:
            replaced.append((text, replacements[text].text))
            splices.append((word.start, word.end, replacements[text].render(menu.language)))
            text = replacements[text].text
        if not is_behind_init:
            present.add(text)
    to_add = dict.fromkeys(changes.add)
    added = [argument for argument in to_add if argument.text not in present and line.insert is not None]
    splices += _insert_arguments(menu, line, added, len(removed) == len(line.arguments))
    change = LineChange(
        number=line.number,
        removed=tuple(removed),
        replaced=tuple(replaced),
        added=tuple(argument.text for argument in added),
        already_present=tuple(argument.text for argument in to_add if argument.text in present),
    )
    return change, splices


def _cut_word(data: bytes, word: Word, reached: int, insert: int | None) -> Splice:
    """Return the splice that removes a word with the blanks in front of it, or those behind it where there are none.

    :param reached: the byte up to which the menu is changed already.
    :param insert: the byte at which arguments are inserted.
    """
    start, end = word.start, word.end
    while start > reached and data[start - 1] in b" \t":
        start -= 1
    while start == word.start and insert != word.end and end < len(data) and data[end] in b" \t":
        end += 1
    return start, end, b""


def _insert_arguments(menu: Menu, line: KernelLine, added: Sequence[KernelArgument], is_first: bool) -> list[Splice]:
    """Return the splices that insert ``added`` into a kernel line.

    :param is_first: no other argument stays in the line.
    """
    if not added or line.insert is None:
        return []
    lead = line.first_lead if is_first and line.first_lead is not None else line.lead
    text = lead + b" ".join(argument.render(menu.language) for argument in added)
    return [*([(line.stub.start, line.stub.end, b"")] if line.stub else []), (line.insert, line.insert, text)]
