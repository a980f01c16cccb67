"""The program as a group of commands for click, each of which is loaded when it is asked for."""

from __future__ import annotations

import gc
import importlib
import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from cosremaster.__about__ import __version__
from cosremaster.cli.catalog import COMMANDS, DEFAULT, SECTIONS
from cosremaster.cli.options import make_common_options
from cosremaster.cli.pause import spare_modules
from cosremaster.errors import UsageError
from cosremaster.suggestions import find_similar, format_suggestion

_COMPLETION = "_COSREMASTER_COMPLETE"
"""A variable of the environment by which shells ask for completions, as click names it."""


class _LoadInterruptedError(BaseException):
    """Ctrl-C while a command is loaded: click prints an empty line for a KeyboardInterrupt, as if something ran."""


class LazyGroup(click.Group):
    """The commands of the catalog; where the first word is none of them, the default command gets all words."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command ``cmd_name``, loaded; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, function, summary = COMMANDS[cmd_name]
        try:
            gc.disable()
            command: click.Command = getattr(importlib.import_module(f"cosremaster.cli.{module}"), function)
            spare_modules()
        except KeyboardInterrupt:
            raise _LoadInterruptedError from None
        finally:
            gc.enable()
        command.name, command.short_help = cmd_name, summary
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options that stand before a command, and put the default command before other words.

        :raises UsageError: the first word is nearly a command, and no file.
        """
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        own, words = self._split(ctx, args)
        if words and words[0] not in COMMANDS:
            if not ctx.resilient_parsing:
                refuse_mistyped(words[0])
            words = [DEFAULT, *words]
        return super().parse_args(ctx, [*own, "--", *words] if words else own)

    def _split(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str]]:
        """Return the options at the front of ``args`` that are the program's own, and the other words."""
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        with_value = {name for option in options if not (option.is_flag or option.count) for name in option.opts}
        flags = {name for option in options for name in option.opts} - with_value
        count = 0
        while count < len(args):
            word = args[count]
            if word in with_value:
                count += 2
            elif word in flags or word.partition("=")[0] in with_value or _are_flags(word, flags):
                count += 1
            else:
                break
        return args[:count], args[count:]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return commands, files and options that begin with ``incomplete``; no command is loaded for it."""
        if incomplete.startswith("-"):
            command = self.get_command(ctx, DEFAULT)
            assert command is not None
            with click.Context(command, parent=ctx, info_name=DEFAULT) as default:
                items = [
                    *click.Command.shell_complete(self, ctx, incomplete),
                    *command.shell_complete(default, incomplete),
                ]
            return list({item.value: item for item in items}.values())
        from cosremaster.cli.candidates import list_files  # noqa: PLC0415 - only for a shell that completes

        commands = [
            CompletionItem(name, help=summary)
            for name, (_, _, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*commands, *list_files(incomplete)] if incomplete else commands

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how the program is called, both ways."""
        formatter.write_usage(ctx.command_path, "IN OUT [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS] ...", prefix="   or: ")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the default command does: it is what the program is for."""
        command = self.get_command(ctx, DEFAULT)
        assert command is not None
        command.format_help_text(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their sections, and the program's own options."""
        width = max(map(len, COMMANDS))
        for title, entries in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), summary) for name, (_, _, summary) in entries.items()])
        click.Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write where the help of a command is."""
        formatter.write_paragraph()
        formatter.write_text(
            "cosremaster COMMAND --help shows the options of a command, with examples; cosremaster remaster --help"
            " those of cosremaster IN OUT. For a file with the name of a command write ./inspect."
        )


def _are_flags(word: str, flags: set[str]) -> bool:
    """Return whether ``word`` is several flags of a letter, as in ``-vv``."""
    return len(word) > 2 and word[0] == "-" != word[1] and all(f"-{letter}" in flags for letter in word[1:])


def refuse_mistyped(word: str) -> None:
    """Check that ``word``, where a command or IN stands, is not a command with a slip in it.

    :raises UsageError: it is no file, and nearly a command, or a flag that other programs have as a command.
    """
    if word.startswith("-") or not word.isalpha() or os.path.lexists(word):
        return
    if matches := find_similar(word.lower(), (*COMMANDS, "--help", "--version")):
        raise UsageError(f"{word} is neither a command nor a file{format_suggestion(matches)}")


def refuse_command(word: str) -> None:
    """Check that ``word``, which stands as IN behind options, is no command, not even with a slip in it.

    :raises UsageError: it is one, and no file.
    """
    if word in COMMANDS and not os.path.lexists(word):
        raise UsageError(f"{word} is a command, whose options stand behind its name: cosremaster {word} ...")
    refuse_mistyped(word)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the version and exit, where the flag is given."""
    if value and not ctx.resilient_parsing:
        click.echo(f"cosremaster {__version__}")
        ctx.exit()


def run_group(words: list[str]) -> Any:
    """Run the command that ``words`` name and return what it returns: its exit code, if any."""
    if _COMPLETION in os.environ:
        from cosremaster.cli.shell_completion import register_shells  # noqa: PLC0415 - only for a shell that completes

        register_shells()
    try:
        return PROGRAM.main(words, prog_name="cosremaster", standalone_mode=False)
    except _LoadInterruptedError:
        raise KeyboardInterrupt from None


PROGRAM = LazyGroup(
    "cosremaster",
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        *make_common_options(),
        click.Option(
            ["-V", "--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
            help="Print the version.",
        ),
    ],
)  # fmt: skip
