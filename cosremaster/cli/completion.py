"""The command that prints the completion script of a shell, or writes it where the shell looks for it."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote

import click

from cosremaster.cli.options import StrictCommand
from cosremaster.cli.shell_completion import SHELLS
from cosremaster.errors import OutputError, Place, UsageError

_MARK = "cosremaster completion"
"""What stands in each script of ours."""


@click.command(cls=StrictCommand)
@click.argument("shell", required=False, type=click.Choice(list(SHELLS)))
@click.option("--install", is_flag=True, help="Write the script where the shell looks for it, for this user.")
def completion_command(shell: str | None, install: bool) -> None:
    """Print what lets a shell complete commands, options, files, and names inside images (cat x.iso::live<TAB>).

    Without a name it is the script for the shell that SHELL names. To have it in this shell alone:

    \b
        bash    eval "$(cosremaster completion bash)"
        zsh     eval "$(cosremaster completion zsh)"     (behind compinit)
        fish    cosremaster completion fish | source

    To have it in every shell, `cosremaster completion --install` writes it to
    ~/.local/share/bash-completion/completions, where the package bash-completion looks, ~/.config/fish/completions, or
    for zsh to ~/.zfunc, which .zshrc has to name. XDG_DATA_HOME, XDG_CONFIG_HOME, BASH_COMPLETION_USER_DIR and ZDOTDIR
    count.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError(f"completion is for {', '.join(SHELLS)}: which one? (SHELL is {name or 'not set'})")
    script = SHELLS[name].script
    if not install:
        click.echo(script, nl=False)
        return
    target = find_place(name)
    _write_script(target, script)
    click.echo(f"{target}: completion for {name}; a new shell has it")
    if name == "zsh":
        click.echo(f"if {target.parent} is not in fpath yet, this line of .zshrc, before compinit, puts it there:")
        click.echo(f"  fpath=({target.parent} $fpath); autoload -Uz compinit; compinit")
    elif name == "bash":
        click.echo("where the package bash-completion is not installed, this line of .bashrc loads it:")
        click.echo(f"  source {quote(str(target))}")


def find_place(shell: str) -> Path:
    """Return where ``shell`` looks for the script of this user. :raises OutputError: there is no home directory."""
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        raise OutputError("there is no home directory", Place(("~",)))
    if shell == "bash":
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
        folder = Path(os.environ.get("BASH_COMPLETION_USER_DIR", "").split(":")[0] or data / "bash-completion")
        return folder / "completions" / "cosremaster"
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return config / "fish" / "completions" / "cosremaster.fish"
    return Path(os.environ.get("ZDOTDIR") or home) / ".zfunc" / "_cosremaster"


def _write_script(target: Path, script: str) -> None:
    """Write ``script`` to ``target``. :raises OutputError: it cannot be written, or another's file is there."""
    try:
        if target.exists() and _MARK not in target.read_text("utf-8", "replace"):
            raise OutputError("exists, and is not of cosremaster", Place((str(target),)))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(script, "utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", Place((str(target),))) from error
