"""A command line as a shell reads it, as far as somebody has typed it, and words as a shell has to be given them."""

from __future__ import annotations

from cosremaster.records.tuples import NamedTuple

_SPECIAL = frozenset(" \t\"'\\!$&()*;<>?[]^`{|}")
_PREFIXES = "@"
"""Characters with which another word begins, where others end one: those of hosts for bash (rl_special_prefixes)."""


class PartialWord(NamedTuple):
    """The last word of a line.

    ``quote`` is open at its end, if any is; ``start``: characters of ``text`` that the shell holds for other words, as
    bash does up to a colon.
    """

    text: str
    quote: str = ""
    start: int = 0


def split_line(line: str, breaks: str = "") -> tuple[list[str], PartialWord]:
    """Return the words of ``line`` and the one at its end, which may be empty.

    ``breaks``: characters at which the shell's editor begins another word (bash's ``COMP_WORDBREAKS``).
    """
    words: list[str] = []
    text, quote, start, is_word, is_escaped = "", "", 0, False, False
    for letter in line:
        if is_escaped:
            is_escaped = False
            if quote == '"' and letter not in '"\\$`':
                text += "\\"
            text += letter
        elif letter == "\\" and quote != "'":
            is_escaped = is_word = True
        elif quote:
            if letter == quote:
                quote = ""
            else:
                text += letter
        elif letter in "\"'":
            quote, is_word, start = letter, True, len(text)
        elif letter in " \t\n":
            if is_word:
                words.append(text)
            text, start, is_word = "", 0, False
        else:
            text, is_word = text + letter, True
            if letter in breaks:
                start = len(text) - (letter in _PREFIXES)
    return words, PartialWord(text, quote, start)


def unquote(word: str) -> PartialWord:
    """Return what the shell reads in ``word``, which may end within a quote."""
    _, last = split_line(word)
    return last


def quote_text(text: str, word: PartialWord) -> str:
    """Return what stands for ``text``, which completes ``word``, at the place where the shell replaces."""
    rest = text[word.start :]
    if word.quote == "'":
        return rest.replace("'", "'\\''")
    if word.quote:
        return "".join(f"\\{letter}" if letter in '"\\$`' else letter for letter in rest)
    quoted = "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in rest)
    is_other = quoted.startswith("#") or (quoted.startswith("~") and not word.text.startswith("~"))
    return f"\\{quoted}" if is_other and not word.start else quoted
