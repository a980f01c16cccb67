"""With which options the ``/init`` of an initramfs calls cpio for a file that it unpacks; pure.

A shell script can say anything in a hundred ways. The usual ones are read: a pipeline from the file, through programs
that decompress, to cpio, with variables that are set once and in any case. Whatever else names the file makes the
answer "unknown".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

_SHEBANG = lazy_regex(
    r"#![ \t]*(?:(?:\S*/)?env[ \t]+)?(?:\S*/)?(?:ba|da|a|)sh(?=\s)|#![ \t]*\S*/busybox[ \t]+(?:a|)sh(?=\s)"
)
_TOKEN = lazy_regex(
    r"(?P<blank>(?:[ \t]|\\\n)+)|(?P<comment>(?<![^\s;&|()])#[^\n]*)"
    r"|(?P<redirect>\d*(?:<<|>>|>&|<&|>\||<>|>|<))|(?P<separator>\n|&&|\|\||;;|[|;&()])"
    r"|(?P<word>(?:'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.|\$\{[^{}'\"\\$`\n]*\}|[^\s'\"\\|;&()<>])+)",
    re.DOTALL,
)
_PART = lazy_regex(
    r"'(?P<single>[^']*)'|\"(?P<double>(?:\\.|[^\"\\])*)\"|\\(?P<escaped>.)|(?P<plain>[^'\"\\]+)", re.DOTALL
)
_SEVERAL = lazy_regex(r"[*?\[\]]|(?<!\$)\{")
"""What makes a word the names of files, or several words."""

_VARIABLE = lazy_regex(r"\$(?:(\w+)|\{(\w+)\})")
_ASSIGNMENT = lazy_regex(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_CHANGE = lazy_regex(r"([A-Za-z_]\w*)(?:\[[^]]*\])?\+?=.*", re.DOTALL)
"""A word that sets a variable or adds to it, or to an element of an array."""

_RESERVED = frozenset(("if", "then", "else", "elif", "do", "while", "until", "!", "{", "time", "exec", "command"))
_ENDS = {
    "if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac", "{": "}",
}  # fmt: skip
"""The words that begin what may not run, or not in this shell, and those that end it."""

_DECLARATIONS = frozenset(("export", "readonly", "local", "declare", "typeset"))
_FOREIGN = frozenset((".", "source", "eval", "trap"))
"""Commands that may set any variable."""

_SETTERS = frozenset(("read", "for", "select", "getopts", "unset", "mapfile", "readarray", "let", "printf"))
"""Commands that may set the variables which they name."""

_PREFIXES = frozenset(("command", "builtin", "exec"))
"""Words before the name of a command."""

_SOURCES = frozenset((
    "cat", "xz", "unxz", "xzcat", "gzip", "gunzip", "zcat", "gzcat", "zstd", "unzstd", "zstdcat", "lz4", "unlz4",
    "lz4cat", "lzma", "unlzma", "lzcat", "lzop", "lzopcat", "unlzop", "bzip2", "bunzip2", "bzcat",
))  # fmt: skip
"""Programs that write what they read from the files that are named, or from standard input, decompressed."""

_HARMLESS = frozenset(("echo", "printf", "[", "[[", "test", "rm", "unlink", "ls", "du", "stat", "sha256sum", "md5sum"))
"""Programs that unpack nothing of a file that they name."""

_MOVES = frozenset(("cd", "mkdir", "umask", "set"))
"""Programs that may stand before cpio in a group of commands that reads a pipe."""

_LONG_OPTIONS = {
    "--extract": "i", "--make-directories": "d", "--preserve-modification-time": "m", "--unconditional": "u",
    "--verbose": "", "--quiet": "", "--no-absolute-filenames": "", "--no-preserve-owner": "", "--format=newc": "",
    "--format=crc": "",
}  # fmt: skip
_KNOWN = _SOURCES | _HARMLESS | _MOVES | {"cpio", "busybox"}
_LETTERS = frozenset("idmuv")
_CPIO_PATH = lazy_regex(r"cpio|(?:/usr|/usr/local|)/s?bin/cpio")
_MAX_WORD, _MAX_VARIABLES = 4096, 16  # of a word: a script of a few lines could make it grow beyond all memory
_TELLING = frozenset("dmu")


class _Command(Struct):
    """A simple command: what separates it from the one before, its words, and the file of its standard input.

    A word is None where it is not known what it becomes. ``is_nested``: it is in a condition, a loop, a function or a
    shell of its own.
    """

    separators: str
    words: list[str | None]
    raw: list[str]
    stdin: tuple[str | None, ...] = ()
    is_nested: bool = False

    @property
    def program(self) -> str | None:
        """The name of the program; None where it is not known."""
        return None if not self.words or self.words[0] is None else self.words[0].rpartition("/")[2]


def find_cpio_options(script: bytes, path: bytes) -> frozenset[str] | None:
    """Return which of the options ``d``, ``m`` and ``u`` the shell ``script`` gives to ``cpio -i`` for a file.

    ``path``: of the file, from the root and without a slash before it. None where it is not known for sure.
    """
    text, name = script.decode("latin-1"), path.decode("latin-1")
    if not _SHEBANG.match(text):
        return None
    try:
        commands = list(_parse_commands(text))
    except ValueError:
        return None
    options: set[frozenset[str]] = set()
    accounted: set[int] = set()
    for number, command in enumerate(commands):
        if command.program != "cpio":
            continue
        source = _find_source(commands, number)
        if source is None or source[1] is None:
            return None
        if source[1] == f"/{name}":
            letters = _parse_options(command.words)
            if letters is None:
                return None
            options.add(letters & _TELLING)
            accounted.add(source[0])
    base = name.rpartition("/")[2]
    others = (command for number, command in enumerate(commands) if number not in accounted)
    if len(options) != 1 or any(_may_unpack(command, base) for command in others):
        return None
    return options.pop()


def _may_unpack(command: _Command, base: str) -> bool:
    """Return whether ``command`` names a file called ``base`` and is no program that unpacks nothing."""
    texts = [*command.raw, *(word or "" for word in (*command.words, *command.stdin))]
    is_harmless = command.program in _HARMLESS and not any("$(" in text or "`" in text for text in command.raw)
    return not is_harmless and any(base in text for text in texts)


def _redefines_programs(commands: Sequence[_Command]) -> bool:
    """Return whether a function or an alias among ``commands`` has the name of a program that is known here."""
    names = set[str]()
    for command, following in pairwise((*commands, _Command("", [], []))):
        if following.separators.startswith("()"):
            names.update(command.raw[-1:])
        if _strip_prefixes(command.raw)[:1] in (["alias"], ["function"]):
            names.update(word.partition("=")[0].strip("'\"\\") for word in command.raw)
    return not names.isdisjoint(_KNOWN)


def _find_source(commands: Sequence[_Command], number: int) -> tuple[int, str | None] | None:
    """Return the number of the command that opens the file which cpio, command ``number``, gets, and its name.

    None where that is not known.
    """
    if commands[number].stdin:
        return number, commands[number].stdin[-1]
    at: int | None = number
    while at is not None:
        at = _find_writer(commands, at)
        if at is None or commands[at].program not in _SOURCES:
            return None
        command = commands[at]
        files = [word for word in command.words[1:] if word is None or not word.startswith("-")]
        if files and "-" in command.words:  # standard input too
            return None
        files += [*command.stdin]
        if files:
            return (at, files[0]) if len(files) == 1 else None
    return None


def _find_writer(commands: Sequence[_Command], number: int) -> int | None:
    """Return the number of the command whose pipe command ``number`` reads; None without one."""
    while number > 0:
        separators = commands[number].separators
        if separators.replace("\n", "") in ("|", "|(", "|{"):
            return number - 1
        if separators.strip("\n") not in ("", ";", "&&") or commands[number - 1].program not in _MOVES:
            return None
        number -= 1
    return None


def _parse_options(words: Sequence[str | None]) -> frozenset[str] | None:
    """Return the letters of the options in ``words``, of a cpio that extracts; None where it is not known."""
    letters = set[str]()
    program, *options = words
    if not _CPIO_PATH.fullmatch(program or ""):
        return None
    waiting = iter(options)
    for word in waiting:
        if word in ("-H", "--format"):
            if next(waiting, None) not in ("newc", "crc"):
                return None
        elif word in _LONG_OPTIONS:
            letters.update(_LONG_OPTIONS[word])
        elif word is None or len(word) < 2 or word[0] != "-" or not _LETTERS.issuperset(word[1:]):
            return None
        else:
            letters.update(word[1:])
    return frozenset(letters) if "i" in letters else None


def _parse_commands(text: str) -> Iterator[_Command]:
    """Yield the simple commands of ``text``.

    :raises ValueError: it is not read: a here-document, an open quote, another meaning of a known program.
    """
    commands = list(_split_commands(text))
    if _redefines_programs(commands):
        raise ValueError("a known program gets another meaning")
    assignments = [list(_list_assignments(command.raw)) for command in commands]
    counts = Counter(name for pairs in assignments for name, _ in pairs)
    is_foreign = any(word in _FOREIGN for command in commands for word in _strip_prefixes(command.raw)[:1])
    variables: dict[str, str] = {}
    following = [*(command.separators for command in commands[1:]), ""]
    for command, pairs, behind in zip(commands, assignments, following, strict=True):
        raw = list(_without_assignments(command.raw))
        stdin = tuple(None if word is None else _expand(word, variables) for word in command.stdin)
        words = [_expand(word, variables) for word in raw]
        if words and words[0] is not None and words[0].rpartition("/")[2] == "busybox":
            del words[0], raw[0]
        yield _Command(command.separators, words, raw, stdin)
        if is_foreign or not _sets_for_sure(command, behind):
            continue
        for name, value in pairs:
            text_value = _expand(value, variables) if counts[name] == 1 else None
            if text_value is not None:
                variables[name] = text_value


def _sets_for_sure(command: _Command, behind: str) -> bool:
    """Return whether the variables that ``command`` sets are set for all commands behind it, whatever happens.

    ``behind``: the separators between it and the next command.
    """
    is_pure = command.raw[:1] and (command.raw[0] in _DECLARATIONS or all(map(_CHANGE.fullmatch, command.raw)))
    before = command.separators
    is_alone = not any(sign in before for sign in "|&") and not before.startswith("()")
    goes_on = behind.startswith(("&&", "||")) or not behind.startswith(("|", "&"))
    return bool(is_pure) and is_alone and goes_on and not command.is_nested


def _split_commands(text: str) -> Iterator[_Command]:
    """Yield the commands of ``text`` with their words as they are. :raises ValueError: as :func:`_parse_commands`."""
    command, redirect, at = _Command("", [], []), "", 0
    ends: list[str] = []
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError("an open quote")
        at, token = match.end(), match[0]
        if match.lastgroup == "redirect":
            redirect = token
            if token.endswith("<<"):
                raise ValueError("a here-document")
        elif match.lastgroup == "word" and redirect:
            if redirect.lstrip("0") in ("<", "<&", "<>"):
                command.stdin = (*command.stdin, token if redirect[-1] == "<" else "$")
            redirect = ""
        elif match.lastgroup == "word":
            _nest(ends, command.raw, token)
            if not command.raw and token in _RESERVED:
                command.separators += token.strip("abcdefghijklmnopqrstuvwxyz!")  # of a brace
            else:
                command.raw.append(token)
        elif match.lastgroup == "separator":
            if command.raw or command.stdin:
                command.is_nested = bool(ends)
                yield command
                command = _Command("", [], [])
            command.separators += token
            _nest(ends, command.raw, token)
    if command.raw or command.stdin:
        command.is_nested = bool(ends)
        yield command


def _nest(ends: list[str], raw: Sequence[str], text: str) -> None:
    """Change ``ends``, the words that end what a command is in, by a word or separator behind the words ``raw``."""
    if text == "(":
        ends.append(")")
    elif text == ")":  # of a pattern of case, too
        if ends[-1:] == [")"]:
            ends.pop()
    elif not raw and ends[-1:] == [text]:
        ends.pop()
    elif (not raw and text in _ENDS) or (text == "{" and raw[0] == "function"):
        ends.append(_ENDS[text])


def _list_assignments(raw: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield name and raw value of each variable that a command sets; a value that it does not say is ``$``."""
    words = _strip_prefixes(raw)
    program = words[0] if words else ""
    count = len(raw) - len(words)
    for number, word in enumerate(raw):
        is_value = number < count or program in _DECLARATIONS
        if is_value and (match := _ASSIGNMENT.fullmatch(word)):
            yield match[1], match[2]
        elif match := _CHANGE.fullmatch(word):
            yield match[1], "$"
    if program in _SETTERS or (program in _DECLARATIONS and program not in ("export", "readonly")):
        yield from ((word, "$") for word in words[1:])
    yield from ((match[1], "$") for word in raw for match in re.finditer(r"\$\{(\w+):?=", word))


def _strip_prefixes(raw: Sequence[str]) -> Sequence[str]:
    """Return the words of a command from its name on."""
    for number, word in enumerate(raw):
        if word not in _PREFIXES and not _CHANGE.fullmatch(word):
            return raw[number:]
    return ()


def _without_assignments(raw: Sequence[str]) -> Sequence[str]:
    """Return the words of a command behind the variables that it sets."""
    if raw and raw[0] in _DECLARATIONS:
        return ()
    for number, word in enumerate(raw):
        if not _CHANGE.fullmatch(word):
            return raw[number:]
    return ()


def _expand(word: str, variables: dict[str, str]) -> str | None:
    """Return what ``word`` becomes with ``variables``; None where that is not known."""
    parts = []
    for match in _PART.finditer(word):
        part = match[match.lastgroup or 0]
        if match.lastgroup in ("double", "plain"):
            if match.lastgroup == "plain" and _SEVERAL.search(part) and part not in ("[", "]", "[[", "]]"):
                return None
            if part.count("$") > _MAX_VARIABLES:
                return None
            part = _VARIABLE.sub(lambda name: variables.get(name[1] or name[2], "$"), part)
            if "$" in part or "`" in part:
                return None
            part = re.sub(r"\\([\"\\])", r"\1", part.replace("\\\n", ""))
        elif match.lastgroup == "escaped" and part == "\n":
            continue
        parts.append(part)
    text = "".join(parts)
    return text if len(text) <= _MAX_WORD else None
