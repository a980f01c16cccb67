"""Kernel arguments added, removed and replaced in a menu, each written as its language wants it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct

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

INIT = b"--"
"""What stands behind this alone goes to init, not to the kernel (Documentation/admin-guide/kernel-parameters.rst)."""


class KernelArgument(Struct, frozen=True):
    """An argument. ``given``: as it was asked for; ``text``: without the quotes that hold it together."""

    given: bytes
    text: bytes

    @classmethod
    def parse(cls, text: str) -> KernelArgument:
        """One argument of a kernel's command line. :raises UsageError: it is none, or several."""
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

    def render(self, kind: MenuLanguage) -> bytes:
        """As it stands in a menu. GRUB makes the kernel's quotes itself (grub_create_loader_cmdline)."""
        if kind is MenuLanguage.GRUB:
            return quote_grub_word(self.text)
        if b'"' in self.given or b" " not in self.given:
            return self.given
        key, equals, value = self.given.partition(b"=")
        return key + equals + b'"' + value + b'"' if equals and b" " not in key else b'"' + self.given + b'"'


class ArgumentReplacement(Struct, frozen=True):
    """``KEY=OLD=NEW``. Where that can be cut in several ways (a value may hold ``=``), each is a choice."""

    given: str
    choices: tuple[tuple[KernelArgument, KernelArgument], ...]

    @classmethod
    def parse(cls, text: str) -> ArgumentReplacement:
        """:raises UsageError: it is not ``KEY=OLD=NEW``."""
        key, _, rest = text.partition("=")
        cuts = [at for at, letter in enumerate(rest) if letter == "="]
        if not key or not cuts:
            raise UsageError(f"{text!r} is not KEY=OLD=NEW")
        pairs = ((f"{key}={rest[:at]}", f"{key}={rest[at + 1 :]}") for at in cuts)
        return cls(text, tuple((KernelArgument.parse(old), KernelArgument.parse(new)) for old, new in pairs))

    def resolve(self, known: Collection[bytes]) -> tuple[KernelArgument, KernelArgument] | None:
        """The old and the new argument, when ``known`` are those that are there; None when the old one is not.

        :raises UsageError: it can be cut in several ways that all fit.
        """
        fit = [choice for choice in self.choices if choice[0].text in known]
        if len(fit) > 1:
            raise UsageError(f"{self.given} fits {' and '.join(printable(old.text) for old, _ in fit)}")
        return fit[0] if fit else None


class ArgumentChanges(Struct, frozen=True):
    """What happens to arguments, in this order; all that equal an old one are removed or replaced."""

    remove: tuple[KernelArgument, ...] = ()
    replace: tuple[tuple[KernelArgument, KernelArgument], ...] = ()
    add: tuple[KernelArgument, ...] = ()


class LineChange(Struct, frozen=True):
    """What happened to a kernel line: arguments without quotes. ``kept``: those to add that were there already."""

    number: int
    removed: tuple[bytes, ...]
    replaced: tuple[tuple[bytes, bytes], ...]
    added: tuple[bytes, ...]
    already_present: tuple[bytes, ...]

    @property
    def has_changed(self) -> bool:
        """Something did."""
        return bool(self.removed or self.replaced or self.added)


def collect_arguments(menus: Iterable[Menu]) -> frozenset[bytes]:
    """The text of every argument in ``menus``."""
    return frozenset(word.text for menu in menus for line in menu.lines for word in line.arguments)


def change_arguments(menu: Menu, changes: ArgumentChanges) -> tuple[bytes, tuple[LineChange, ...]]:
    """The menu's new bytes, and what happened to each of its kernel lines; nothing else in it changes."""
    splices, done = dict[Splice, None](), list[LineChange]()
    for line in menu.lines:
        change, found = _change_line(menu, line, changes)
        done.append(change)
        splices |= dict.fromkeys(found)
    return apply_splices(menu.data, splices), tuple(done)


def _change_line(menu: Menu, line: KernelLine, changes: ArgumentChanges) -> tuple[LineChange, list[Splice]]:
    gone = {one.text for one in changes.remove}
    new = {old.text: one for old, one in changes.replace}
    splices, removed, replaced, there = list[Splice](), list[bytes](), list[tuple[bytes, bytes]](), set[bytes]()
    behind = False
    for word in line.arguments:
        behind = behind or word.text == INIT
        if word.text in gone:
            removed.append(word.text)
            splices.append((_before(menu.data, word), word.end, b""))
            continue
        text = word.text
        if text in new:
            replaced.append((text, new[text].text))
            splices.append((word.start, word.end, new[text].render(menu.language)))
            text = new[text].text
        if not behind:
            there.add(text)
    wanted = dict.fromkeys(changes.add)
    added = [one for one in wanted if one.text not in there and line.insert is not None]
    splices += _insertion(menu, line, added, splices)
    kept = tuple(one.text for one in wanted if one.text in there)
    change = LineChange(line.number, tuple(removed), tuple(replaced), tuple(one.text for one in added), kept)
    return change, splices


def _before(data: bytes, word: Word) -> int:
    """Where a word begins with the blanks before it, which go with it."""
    start = word.start
    while start and data[start - 1] in b" \t":
        start -= 1
    return start


def _insertion(menu: Menu, line: KernelLine, added: Sequence[KernelArgument], others: list[Splice]) -> list[Splice]:
    if not added or line.insert is None:
        return []
    text = line.lead + b" ".join(one.render(menu.language) for one in added)
    return [*([(line.stub.start, line.stub.end, b"")] if line.stub else []), (line.insert, line.insert, text)]
