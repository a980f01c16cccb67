"""Man pages (man(7)) of the program and its commands, from the same definitions as their help."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import click

from cosremaster import errors
from cosremaster.__about__ import __version__
from cosremaster.cli.catalog import COMMANDS, DEFAULT, SECTIONS
from cosremaster.cli.group import PROGRAM
from cosremaster.cli.help import EXAMPLES, sort_options
from cosremaster.errors import CosremasterError, OutputError, Place
from cosremaster.lazy_regex import lazy_regex
from cosremaster.remastering.request import read_epoch

_DATE = 1_795_910_400
"""Of the pages, where SOURCE_DATE_EPOCH names no other: 2026-11-29."""

_SUMMARY = "remaster bootable images"

_ENVIRONMENT = (
    ("COSREMASTER_TOKENS", "Tokens for cosremaster serve, where no --token-file names them."),
    ("http_proxy, https_proxy, all_proxy, no_proxy", "Proxies for images by URL, and for scripts with --network."),
    ("NO_COLOR", "No colours where --color does not ask for them."),
    ("SOURCE_DATE_EPOCH", "The latest time of what is added, in seconds since 1970."),
    ("SSL_CERT_FILE", "Certificates that are trusted for images by URL, in place of the system's."),
    ("TMPDIR", "Where an image from standard input, or for standard output, and what is fetched by URL is kept."),
    ("XDG_CACHE_HOME", "Where remembered indexes are; cosremaster cache path prints the folder."),
)

_PARAGRAPH = lazy_regex(r"\n[ \t]*\n")


def make_pages() -> Iterator[tuple[str, str]]:
    """Yield the name of each page's file, and its text."""
    root = click.Context(PROGRAM, info_name="cosremaster", **PROGRAM.context_settings)
    with root:
        yield "cosremaster.1", _make_main_page(root)
        for name in COMMANDS:
            command = PROGRAM.get_command(root, name)
            assert command is not None
            context = click.Context(command, parent=root, info_name=name, **command.context_settings)
            with context:
                yield f"cosremaster-{name}.1", "".join(_command_lines(name, command, context))


def write_pages(folder: Path) -> list[Path]:
    """Write all pages into ``folder``, which is made, and return their paths. :raises OutputError: that fails."""
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in make_pages():
            paths.append(folder / name)
            paths[-1].write_text(text, "utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", Place((str(folder),))) from error
    return paths


def _title(name: str) -> str:
    """Return the first line of the page ``name``."""
    epoch = read_epoch()
    date = time.strftime("%Y-%m-%d", time.gmtime(_DATE if epoch is None else epoch))
    return f'.TH {name.upper()} 1 {date} "cosremaster {__version__}" "User Commands"\n'


def _make_main_page(root: click.Context) -> str:
    """Return the page of the program itself."""
    command = PROGRAM.get_command(root, DEFAULT)
    assert command is not None
    lines = [
        _title("cosremaster"), f".SH NAME\ncosremaster \\- {_SUMMARY}\n", ".SH SYNOPSIS\n",
        ".B cosremaster\n.I IN OUT\n.RI [ OPTIONS ]\n.br\n.B cosremaster\n.I COMMAND\n.RI [ OPTIONS ]\\ ...\n",
        ".SH DESCRIPTION\n", *_paragraphs(command.help or ""),
        ".SH COMMANDS\nEach command has a page of its own, as in\n.BR cosremaster\\-ls (1).\n",
    ]  # fmt: skip
    for title, entries in SECTIONS:
        lines.append(f".SS {_escape(title)}\n")
        for name, (_, _, summary) in entries.items():
            lines.append(f".TP\n.B {_escape(name)}\n{_escape(summary)}\n")
    lines.append(".SH OPTIONS\n")
    lines += _option_lines(PROGRAM, root)
    lines += _example_lines(DEFAULT)
    lines += [".SH EXIT STATUS\n", *_exit_lines(), ".SH ENVIRONMENT\n"]
    lines += [f".TP\n.B {_escape(name)}\n{_escape(text)}\n" for name, text in _ENVIRONMENT]
    lines.append(".SH SEE ALSO\n")
    lines.append(",\n".join(f".BR cosremaster\\-{_escape(name)} (1)" for name in COMMANDS) + "\n")
    return "".join(lines)


def _command_lines(name: str, command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the lines of the page of ``command``."""
    yield _title(f"cosremaster-{name}")
    yield f".SH NAME\ncosremaster\\-{_escape(name)} \\- {_escape(COMMANDS[name][2].rstrip('.'))}\n"
    yield ".SH SYNOPSIS\n"
    yield f".B cosremaster {_escape(name)}\n"
    for piece in command.collect_usage_pieces(context):
        yield f".I {_escape(piece)}\n"
    yield ".SH DESCRIPTION\n"
    yield from _paragraphs(command.help or "")
    yield ".SH OPTIONS\n"
    yield from _option_lines(command, context)
    yield from _example_lines(name)
    yield ".SH SEE ALSO\n.BR cosremaster (1)\n"


def _option_lines(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the options of ``command``, in the sections of its help."""
    sections = [(title, rows) for title, rows in sort_options(command.get_params(context), context) if rows]
    for title, rows in sections:
        if len(sections) > 1:
            yield f".SS {_escape(title)}\n"
        for names, text in rows:
            yield f".TP\n.B {_escape(names)}\n{_escape(text)}\n"


def _example_lines(name: str) -> Iterator[str]:
    """Yield the examples of the command ``name``."""
    if name in EXAMPLES:
        yield ".SH EXAMPLES\n"
        for line, text in EXAMPLES[name]:
            yield f".TP\n.B {_escape(line)}\n{_escape(text)}\n"


def _exit_lines() -> Iterator[str]:
    """Yield what each exit code means: those of the errors, and the others."""
    codes = {0: "Done.", 1: "Differences, or failed checks (verify, diff)."}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, CosremasterError) and "exit_code" in vars(kind):
            codes.setdefault(kind.exit_code, (kind.__doc__ or "").partition("\n")[0])
    codes[70] = "A fault of cosremaster itself, which should be reported."
    for code, text in sorted(codes.items()):
        yield f".TP\n.B {code}\n{_escape(text)}\n"
    yield ".TP\n.B 128+n\nStopped by signal n.\n"


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; one that begins with a backspace stays in its lines."""
    for number, part in enumerate(_PARAGRAPH.split(text.strip())):
        if number:
            yield ".PP\n"
        if part.lstrip().startswith("\b"):
            yield f".nf\n{_escape(part.lstrip()[1:].lstrip(chr(10)), joined=False)}\n.fi\n"
        else:
            yield f"{_escape(part)}\n"


def _escape(text: str, *, joined: bool = True) -> str:
    """Return ``text`` as roff that prints it; ``joined``: as a single line."""
    if joined:
        text = " ".join(text.split())
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti").replace('"', "\\(dq")
    return re.sub(r"^([.])", r"\\&\1", text, flags=re.MULTILINE)
