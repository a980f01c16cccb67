"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from cosremaster.cli.plain import FLAGS
from cosremaster.cli.settings import Settings
from cosremaster.io.urls import Url, parse_image_path, split_image_path
from cosremaster.layers.scan import MAX_EXPAND as DEFAULT
from cosremaster.suggestions import find_similar, format_suggestion

MAX_EXPAND = click.option(
    "--max-expand", type=click.IntRange(min=1), default=DEFAULT, show_default=True, metavar="RATIO",
    help="Take data for a bomb that expand by more than RATIO, beyond the first GiB.",
)  # fmt: skip

GZIP = click.option(
    "--gzip", type=click.Choice(("zlib", "isal")), default="zlib", show_default=True,
    help="What packs gzip: isal takes a tenth of the time, makes some 13 % more bytes, and has to be installed.",
)  # fmt: skip

QUIET = click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")

JSON = click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON (docs/json.md).")

if TYPE_CHECKING:
    _InputType = click.ParamType[Path | Url]
    _TextType = click.ParamType[str]
    _PathType = click.ParamType[Path]
else:  # click 8.1, which Debian 13 has, knows no kinds of them
    _InputType = _TextType = _PathType = click.ParamType

ORDER = "cosremaster.order"
"""Where a context keeps the names of its parameters, in the order in which they were given."""


class InputPath(_InputType):
    """The path or URL of an image; ``-`` is standard input."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | Url:
        """Return ``value`` as a path or a URL. Raises as ``keep_standard_input`` and ``parse_image_path``."""
        if ctx is not None and ctx.resilient_parsing:  # a shell completes the line: nothing is read
            return Path(value)
        check_is_named(self, value, param, ctx)
        return _kept_standard_input() if value == "-" else parse_image_path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the files whose paths begin with ``incomplete``."""
        from cosremaster.cli.candidates import list_files  # noqa: PLC0415 - only for a shell that completes

        return list_files(incomplete)


class InputAddress(_TextType):
    """An address whose image may be ``-``, standard input."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return ``value`` with a path for ``-``. Raises as ``keep_standard_input``."""
        if ctx is not None and ctx.resilient_parsing:
            return str(value)
        image, separator, rest = split_image_path(str(value))
        return f"{_kept_standard_input()}{separator}{rest}" if image == "-" else str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the addresses that begin with ``incomplete``."""
        from cosremaster.cli.candidates import list_addresses  # noqa: PLC0415 - the same

        return list_addresses(incomplete)


class FileText(_TextType):
    """Text that begins with the path of a file or folder, as in ``SRC:DEST``."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the files whose paths begin with ``incomplete``."""
        from cosremaster.cli.candidates import list_files  # noqa: PLC0415 - the same

        return list_files(incomplete)


class InsideText(_TextType):
    """Text that begins with an address inside the image IN."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the addresses inside IN, where it stands before, that begin with ``incomplete``."""
        from cosremaster.cli.candidates import list_inside  # noqa: PLC0415 - the same

        image, slash = ctx.params.get("source"), "/" * incomplete.startswith("/")
        if image is None:
            return []
        items = list_inside(str(image), incomplete.removeprefix("/"))
        return [CompletionItem(f"{slash}{item.value}", item.type) for item in items]


class StreamPath(PosixPath):
    """The path ``-`` of an output, which means standard output; a file of that name is ``./-``."""


class OutputPath(_PathType):
    """The path of an output; ``-`` is standard output."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return ``value`` as a path."""
        check_is_named(self, value, param, ctx)
        check_names_file(self, value, param, ctx)
        return StreamPath(value) if value == "-" else Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the files whose paths begin with ``incomplete``: one of them may be replaced."""
        from cosremaster.cli.candidates import list_files  # noqa: PLC0415 - the same

        return list_files(incomplete)


class LocalPath(click.Path):
    """The path of another file or folder of this machine, or of one that is to be made."""

    def __init__(self, *, file_okay: bool = True) -> None:
        """Keep the argument: whether it may be a file."""
        super().__init__(path_type=Path, file_okay=file_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return ``value`` as a path."""
        check_is_named(self, value, param, ctx)
        return super().convert(value, param, ctx)


class NewFilePath(LocalPath):
    """The path of a file that is written beside the output, or in its place; it is no standard stream."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return ``value`` as a path."""
        check_names_file(self, value, param, ctx)
        if value == "-":
            self.fail("- is no standard stream here, and a file is wanted; one of that name is ./-", param, ctx)
        return super().convert(value, param, ctx)


def check_is_named(
    kind: click.ParamType[Any], value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    """Check that ``value`` is no empty path: that would be the working directory, which nobody names so.

    :raises click.BadParameter: it is one, as of a variable of the shell that is not set.
    """
    if value == "":
        kind.fail("it is empty, and a path is wanted", param, ctx)


def check_names_file(
    kind: click.ParamType[Any], value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    """Check that ``value`` can be the path of a file that is made: one that ends in a slash means a folder.

    :raises click.BadParameter: it does, and a path of pathlib would be without the slash.
    """
    if str(value).endswith(("/", "/.")):
        kind.fail("it ends in a slash, and has to name a file", param, ctx)


def _kept_standard_input() -> Path:
    """Return a path of what standard input holds. Raises as ``keep_standard_input``."""
    from cosremaster.io.standard_input import keep_standard_input  # noqa: PLC0415 - few commands read it

    return keep_standard_input()


_QUIETNESS, _VERBOSITY = "cosremaster.quiet", "cosremaster.verbose"


def takes_flags(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds the flags that the command ``name`` has without click, too, to a command."""

    def add_flags(command: Callable[..., None]) -> Callable[..., None]:
        """Add them to ``command``."""
        for names, field, text in reversed(FLAGS[name]):
            command = click.option(*names, field, is_flag=True, help=text)(command)
        return command

    return add_flags


def make_common_options() -> list[click.Parameter]:
    """Return the options that every command takes, and that may stand before it."""
    return [
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_keep_quiet,
            help="Print nothing but results, warnings and errors.",
        ),
        click.Option(
            ["-v", "--verbose"], count=True, expose_value=False, callback=_keep_verbose,
            help="Tell what is done, with -vv each step and its time.",
        ),
        click.Option(
            ["--color"], type=click.Choice(("auto", "always", "never")), expose_value=False, callback=_keep_color,
            help="Colours: auto is on a terminal, where NO_COLOR is not set.",
        ),
        click.Option(
            ["--progress"], type=click.Choice(("auto", "json", "none")), expose_value=False, callback=_keep_progress,
            help="Progress on standard error: json is an object on each line (docs/json.md).",
        ),
    ]  # fmt: skip


def _keep_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Remember ``--quiet``, wherever it stands."""
    ctx.meta[_QUIETNESS] = value or ctx.meta.get(_QUIETNESS, False)


def _keep_progress(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    """Let ``--progress`` count, wherever it stands."""
    if value is not None and not ctx.resilient_parsing:
        Settings.progress = value


def _keep_color(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    """Let ``--color`` count, wherever it stands."""
    if value is not None and not ctx.resilient_parsing:
        Settings.color = value
        ctx.color = {"always": True, "never": False}.get(value)


def _keep_verbose(ctx: click.Context, _: click.Parameter, value: int) -> None:
    """Count ``-v``, wherever it stands."""
    ctx.meta[_VERBOSITY] = value + ctx.meta.get(_VERBOSITY, 0)


def _settle(ctx: click.Context) -> None:
    """Let the common options that ``ctx`` was given count. :raises UsageError: few words and many were asked for."""
    quiet = bool(ctx.meta.get(_QUIETNESS) or ctx.params.get("quiet"))
    verbosity = ctx.meta.get(_VERBOSITY, 0)
    if quiet and verbosity:
        raise click.UsageError("-q and -v exclude each other.", ctx)
    if verbosity and Settings.progress == "json":
        raise click.UsageError("--progress json and -v exclude each other.", ctx)
    if "quiet" in ctx.params:
        ctx.params["quiet"] = quiet
    Settings.is_quiet = quiet
    ctx.color = {"always": True, "never": False}.get(Settings.color)  # or click takes colours out of a pipe
    if verbosity:
        from cosremaster.cli.verbosity import show_messages  # noqa: PLC0415 - loads logging

        ctx.find_root().call_on_close(show_messages(verbosity))


class StrictCommand(click.Command):
    """A command whose options with a value stand once, unless their help says that they may be given again.

    It takes the common options beside its own.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Create the command, as click does, with the common options."""
        super().__init__(*args, **keywords)
        names = {parameter.name for parameter in self.params}
        self.params += [option for option in make_common_options() if option.name not in names]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does, and examples."""
        from cosremaster.cli.help import write_examples  # noqa: PLC0415 - only for help

        super().format_help_text(ctx, formatter)
        write_examples(self.name or "", formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, in sections where there are many."""
        from cosremaster.cli.help import sort_options  # noqa: PLC0415 - only for help

        for title, rows in sort_options(self.get_params(ctx), ctx):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse ``args``; one that begins with ``-::`` is an address.

        :raises UsageError: an option stands twice, so that one of its values would be lost; or there is no such option.
        """
        if ctx.resilient_parsing:  # a shell completes the value of the option at the end
            return super().parse_args(ctx, args[:-1] if args and args[-1].startswith("--") else args)
        if args == ["-h"]:  # of ls, too, whose -h is another one
            args = ["--help"]
        args = [InputAddress().convert(word, None, ctx) if word.startswith("-::") else word for word in args]
        rest = super().parse_args(ctx, args)
        _settle(ctx)
        return rest

    def make_parser(self, ctx: click.Context) -> Any:
        """Return click's parser, which looks at the order of what it found before that is processed."""
        parser: Any = super().make_parser(ctx)
        if not ctx.resilient_parsing:
            parser.parse_args = partial(self._parse_once, ctx, parser.parse_args)
        return parser

    def _parse_once(self, ctx: click.Context, parse: Callable[..., Any], args: list[str]) -> Any:
        """Return what ``parse`` finds in ``args``. Raises as :meth:`parse_args`."""
        words = list(args)
        try:
            values, rest, order = parse(args=args)
        except click.NoSuchOption as error:
            names = [name for parameter in self.get_params(ctx) for name in parameter.opts if name.startswith("--")]
            meant = format_suggestion(find_similar(error.option_name, names))
            raise click.UsageError(f"No such option {error.option_name}{meant or '.'}", ctx) from None
        ctx.meta[ORDER] = [parameter.name for parameter in order]
        for number, parameter in enumerate(order):
            if isinstance(parameter, click.Option) and _takes_single_value(parameter) and parameter in order[:number]:
                raise click.UsageError(f"{parameter.opts[0]} is given twice, and only one of them can count.", ctx)
        for parameter in order:
            no = next((name for name in parameter.secondary_opts if name in words), None)
            if no is not None and parameter.opts[0] in words:
                raise click.UsageError(f"{parameter.opts[0]} and {no} exclude each other.", ctx)
        return values, rest, order


def _takes_single_value(option: click.Option) -> bool:
    """Return whether a second value of ``option`` would replace the first."""
    return not (option.multiple or option.is_flag or option.count)


AGAINST_MISSING = "--changed says what may differ from --against ORIGINAL, which is missing"
